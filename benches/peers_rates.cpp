// peers_rates - rates and call latencies of the C++ peers.
//
// Maps that lock a key or more than it while it is changed: tbb, libcuckoo, striped. Calls with a
// time limit, on the striped map: pool (a hand-written thread pool), async (std::async).
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "bench.h"

#include <libcuckoo/cuckoohash_map.hh>
#include <tbb/concurrent_hash_map.h>

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <future>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

namespace {

struct Tbb {
    using Map = tbb::concurrent_hash_map<uint64_t, uint64_t>;
    Map map;

    void fill(uint64_t key) { map.insert({key, 0}); }
    uint64_t read(uint64_t key)
    {
        Map::const_accessor found;
        return map.find(found, key) ? found->second : 0;
    }
    void add(bench_thread *me)
    {
        Map::accessor found;
        bench_need(map.find(found, me->key), "key");
        uint64_t value = found->second + 1;
        bench_section(me);
        found->second = value;
    }
};

struct Libcuckoo {
    libcuckoo::cuckoohash_map<uint64_t, uint64_t> map;

    void fill(uint64_t key) { map.insert(key, 0); }
    uint64_t read(uint64_t key) { return map.find(key); }
    void add(bench_thread *me)
    {
        bench_need(map.update_fn(me->key,
                                 [me](uint64_t &kept) {
                                     uint64_t value = kept + 1;
                                     bench_section(me);
                                     kept = value;
                                 }),
                   "key");
    }
};

struct Striped {
    struct alignas(64) Stripe {
        std::mutex mutex;
        std::unordered_map<uint64_t, uint64_t> map;
    };
    Stripe stripes[64];

    Stripe &of(uint64_t key) { return stripes[key >> 58]; } // keys are hashed as they are
    void fill(uint64_t key) { of(key).map[key] = 0; }
    uint64_t read(uint64_t key)
    {
        std::lock_guard<std::mutex> locked(of(key).mutex);
        return of(key).map.at(key);
    }
    void add(bench_thread *me)
    {
        Stripe &stripe = of(me->key);
        std::lock_guard<std::mutex> locked(stripe.mutex);
        uint64_t &kept = stripe.map.at(me->key), value = kept + 1;
        bench_section(me);
        kept = value;
    }
};

class Pool {
public:
    explicit Pool(unsigned size)
    {
        while (size-- > 0)
            workers.emplace_back([this] { work(); });
    }
    ~Pool()
    {
        {
            std::lock_guard<std::mutex> locked(mutex);
            closed = true;
        }
        changed.notify_all();
        for (std::thread &worker : workers)
            worker.join();
    }
    std::future<void> submit(std::function<void()> job)
    {
        std::packaged_task<void()> task(std::move(job));
        std::future<void> answer = task.get_future();
        {
            std::lock_guard<std::mutex> locked(mutex);
            tasks.push_back(std::move(task));
        }
        changed.notify_one();
        return answer;
    }

private:
    std::mutex mutex;
    std::condition_variable changed;
    std::deque<std::packaged_task<void()>> tasks;
    std::vector<std::thread> workers;
    bool closed = false;

    void work()
    {
        for (;;) {
            std::unique_lock<std::mutex> locked(mutex);
            changed.wait(locked, [this] { return closed || !tasks.empty(); });
            if (tasks.empty())
                return;
            std::packaged_task<void()> task = std::move(tasks.front());
            tasks.pop_front();
            locked.unlock();
            task();
        }
    }
};

struct InPool : Striped {
    Pool pool{std::max(2u, std::thread::hardware_concurrency())};

    void add(bench_thread *me)
    {
        std::future<void> answer = pool.submit([this, me] { Striped::add(me); });
        bench_need(answer.wait_for(std::chrono::seconds(5)) == std::future_status::ready, "late");
    }
};

struct InAsync : Striped {
    void add(bench_thread *me)
    {
        std::future<void> answer = std::async(std::launch::async, [this, me] { Striped::add(me); });
        bench_need(answer.wait_for(std::chrono::seconds(5)) == std::future_status::ready, "late");
    }
};

template <class Subject> Subject *subject;
template <class Subject> void add(bench_thread *me) { subject<Subject>->add(me); }
template <class Subject> uint64_t read(uint64_t key) { return subject<Subject>->read(key); }
template <class Subject> BENCH_ROUTINE(add_until_stopped, add<Subject>)

template <class Subject> int run(const struct bench_arguments &arguments)
{
    Subject made;
    subject<Subject> = &made;
    for (uint64_t i = 0, keys = bench_number(&arguments, "keys", 64); i < keys; i++)
        made.fill(BENCH_KEY(i));
    bench_calls(&arguments, add<Subject>);
    bench_rates(&arguments, add_until_stopped<Subject>, read<Subject>);
    return EXIT_SUCCESS;
}

} // namespace

int main(int argc, char **argv)
{
    struct bench_arguments arguments = ::bench_arguments(argc, argv);
    const std::string name = arguments.subject;
    if (name == "tbb")
        return run<Tbb>(arguments);
    if (name == "libcuckoo")
        return run<Libcuckoo>(arguments);
    if (name == "striped")
        return run<Striped>(arguments);
    if (name == "pool")
        return run<InPool>(arguments);
    if (name == "async")
        return run<InAsync>(arguments);
    bench_die("no such subject");
}
