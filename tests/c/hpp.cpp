/* hpp.cpp - the C++ header: what it adds to the C API, and that the promises hold through it. */
#include "check.h"

#include <etslock.hpp>

#include <chrono>
#include <functional>
#include <future>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <pthread.h>
#include <time.h>

using namespace std::chrono_literals;
using namespace std::string_literals;

namespace {

/// The status that `action` throws, or ETSLOCK_OK.
etslock_status status_of(const std::function<void()> &action)
{
    try {
        action();
        return ETSLOCK_OK;
    } catch (const etslock::error &error) {
        CHECK(error.what() == std::string(etslock_status_text(error.code())));
        CHECK(error.name() == std::string(etslock_status_name(error.code())));
        return error.code();
    }
}

std::vector<std::string> values(const etslock::tuples &found)
{
    std::vector<std::string> out;
    for (auto [key, value] : found)
        out.emplace_back(value);
    return out;
}

using strings = std::vector<std::string>;

/// Keeps its promise when it is destroyed. Owns it, so that nobody's stack is touched late.
class end_signal {
public:
    explicit end_signal(std::promise<void> gone) : gone_(std::move(gone)) {}
    end_signal(end_signal &&other) noexcept
        : gone_(std::move(other.gone_)), moved_from_(std::exchange(other.moved_from_, true))
    {
    }
    ~end_signal()
    {
        if (!moved_from_)
            gone_.set_value();
    }

private:
    std::promise<void> gone_;
    bool moved_from_ = false;
};

bool comes(std::future<void> &future)
{
    // A bound for failure only: the promise is kept as soon as the machine gets to it.
    return future.wait_for(30s) == std::future_status::ready;
}

void test_table()
{
    CASE("C-9: a table's own calls through the C++ header");
    etslock::table table;
    const std::string binary("a\0b", 3);
    table.insert(binary, "");
    table.insert("", binary);
    CHECK(values(table.lookup(binary)) == strings{""});
    CHECK(values(table.lookup("")) == strings{binary});
    CHECK(table.lookup("absent").empty());
    const etslock::tuples absent = table.lookup("absent");
    CHECK(absent.begin() == absent.end());
    std::size_t seen = 0;
    for (auto [key, value] : table.lookup(binary)) // the loop keeps the snapshot
        seen += key.size() + value.size();
    CHECK(seen == 3);
    CHECK(table.member("") && !table.member("absent"));
    CHECK(table.insert_new("new", "1") && !table.insert_new("new", "2"));
    CHECK(table.count() == 3);
    CHECK(table.update_counter("hits", 2, 40) == 42);
    CHECK(table.update_counter("hits", -1) == 41);

    std::set<std::string> keys;
    etslock::cursor cursor = table.cursor();
    for (etslock::tuples found; cursor.next(found);)
        CHECK(keys.emplace(found[0].key).second);
    CHECK(keys == (std::set<std::string>{binary, "", "new", "hits"}));

    CHECK(values(table.take("new")) == strings{"1"});
    CHECK(table.take("new").empty());
    table.remove("hits");
    CHECK(table.count() == 2);
    table.clear();
    CHECK(table.count() == 0);

    etslock::table bag(ETSLOCK_DUPLICATE_BAG);
    for (const char *value : {"b", "a", "b"})
        bag.insert("key", value);
    CHECK(values(bag.lookup("key")) == (strings{"b", "a", "b"}));
    bag.remove_tuple("key", "b");
    CHECK(values(bag.lookup("key")) == strings{"a"});

    CASE("C-14: names");
    etslock::table named(ETSLOCK_SET, ETSLOCK_GUARDED, "hpp");
    CHECK_STATUS(status_of([] { etslock::table(ETSLOCK_SET, ETSLOCK_PUBLIC, "hpp"); }),
                 ETSLOCK_EXISTS);
    CHECK_STATUS(status_of([] { etslock::table::open("absent"); }), ETSLOCK_NOT_FOUND);
    etslock::table again = etslock::table::open("hpp");
    CHECK_STATUS(status_of([&] { again.insert("key", "value"); }), ETSLOCK_ERR_GUARDED);
    again.with_lock("key", [](auto guard, auto) { guard.insert("key", "value"); });
    CHECK(values(named.lookup("key")) == strings{"value"});
}

int free_function(etslock::guard_view, etslock::tuple_range tuples)
{
    return static_cast<int>(tuples.size());
}

void test_with_lock()
{
    CASE("C-7: with_lock returns what the callable returns, and its writes are there");
    etslock::table table;
    table.insert("key", "1");
    std::string before = table.with_lock("key", [](auto guard, auto tuples) {
        guard.insert("key", "2");
        CHECK(values(guard.lookup("key")) == strings{"2"});
        CHECK(guard.token() != 0 && guard.remaining() > 0ms);
        return std::string(tuples[0].value);
    });
    CHECK(before == "1");
    CHECK(values(table.lookup("key")) == strings{"2"});

    CASE("C-10: any callable: a function, one that cannot be copied, one on the caller's thread");
    CHECK(table.with_lock("key", free_function) == 1);
    auto boxed = table.with_lock(
        "key", [box = std::make_unique<int>(7)](auto, auto) mutable { return std::move(box); });
    CHECK(*boxed == 7);
    auto where = [](auto, auto) { return std::this_thread::get_id(); };
    CHECK(table.with_lock("key", where) != std::this_thread::get_id());
    CHECK(table.with_lock("key", where, etslock::options().run_on(ETSLOCK_RUN_ON_CALLER)) ==
          std::this_thread::get_id());

    CASE("C-18: several keys, tuples in the order given");
    table.insert("a", "1");
    table.insert("b", "2");
    std::string seen = table.with_locks({"b", "a"}, [](auto guard, auto tuples) {
        std::string values;
        for (auto [key, value] : tuples)
            values += std::string(key) + std::string(value);
        guard.remove("a");
        return values;
    });
    CHECK(seen == "b2a1");
    CHECK(!table.member("a"));
}

void test_exceptions(etslock_run_on run_on)
{
    CASE("C-17, C-7: an exception discards the writes and comes out of the call");
    etslock::table table;
    auto opts = etslock::options().run_on(run_on);
    try {
        table.with_lock(
            "key",
            [](auto guard, auto) {
                guard.insert("key", "never seen");
                throw std::out_of_range("from the callable");
            },
            opts);
        CHECK(!"the exception came out");
    } catch (const std::out_of_range &error) {
        CHECK(error.what() == "from the callable"s);
    }
    CHECK(!table.member("key"));

    CASE("C-18: an error of the guard passes through the callable");
    auto write_elsewhere = [](auto guard, auto) { guard.insert("other", "value"); };
    CHECK_STATUS(status_of([&] { table.with_lock("key", write_elsewhere, opts); }),
                 ETSLOCK_ERR_NOT_COVERED);
}

void test_waiting()
{
    CASE("C-2: a wait timeout and a try-lock");
    etslock::table table;
    etslock::guard held = table.acquire("key");
    auto idle = [](auto, auto) {};
    auto stranger = etslock::options().owner(1);
    CHECK_STATUS(status_of([&] { table.with_lock("key", idle, stranger.wait_timeout(0ms)); }),
                 ETSLOCK_WAIT_TIMEOUT);
    auto start = std::chrono::steady_clock::now();
    CHECK_STATUS(status_of([&] { table.with_lock("key", idle, stranger.wait_timeout(50ms)); }),
                 ETSLOCK_WAIT_TIMEOUT);
    CHECK(std::chrono::steady_clock::now() - start >= 48ms);

    CASE("C-13: a thread that waits for itself is told so");
    CHECK_STATUS(status_of([&] { table.acquire("key"); }), ETSLOCK_DEADLOCK);
    CHECK_STATUS(status_of([&] { table.acquire_locks({"free", "key"}); }), ETSLOCK_DEADLOCK);
    held.release();
    table.with_lock("key", idle);
}

void test_guard()
{
    CASE("C-7: release publishes, cancel and the destructor do not");
    etslock::table table;
    etslock::guard guard = table.acquire("key");
    guard.insert("key", "staged");
    CHECK(!table.member("key"));
    CHECK(values(guard.lookup("key")) == strings{"staged"});
    guard.release();
    CHECK(!guard);
    CHECK(values(table.lookup("key")) == strings{"staged"});
    CHECK_STATUS(status_of([&] { guard.insert("key", "ended"); }), ETSLOCK_ERR_NULL);

    guard = table.acquire("key");
    guard.remove("key");
    guard.cancel();
    {
        etslock::guard dropped = table.acquire("key");
        dropped.insert("key", "forgotten");
    }
    CHECK(values(table.lookup("key")) == strings{"staged"});

    CASE("C-1: a moved guard holds its lock, an assigned one gives up what it had");
    etslock::options try_lock = etslock::options().wait_timeout(0ms).owner(1);
    etslock::guard first = table.acquire("first"), second = table.acquire("second");
    etslock::guard moved(std::move(first));
    CHECK(!first && moved);
    CHECK_STATUS(status_of([&] { table.acquire("first", try_lock); }), ETSLOCK_WAIT_TIMEOUT);
    moved = std::move(second);
    CHECK_STATUS(status_of([&] { table.acquire("first", try_lock); }), ETSLOCK_OK);
    CHECK_STATUS(status_of([&] { table.acquire("second", try_lock); }), ETSLOCK_WAIT_TIMEOUT);

    CASE("C-6: a guard whose lock was taken away publishes nothing");
    auto locks = etslock::lock_table::process_default();
    moved.insert("second", "late");
    CHECK(locks.force_release(table, "second"));
    CHECK(!locks.force_release(table, "second"));
    CHECK_STATUS(moved.status(), ETSLOCK_REVOKED);
    CHECK(moved.remaining() == 0ms);
    CHECK_STATUS(status_of([&] { moved.release(); }), ETSLOCK_REVOKED);
    CHECK(!moved && !table.member("second"));

    CASE("C-7: commit and rollback keep the lock");
    etslock::guard steps = table.acquire_locks({"a", "b"});
    steps.insert("a", "1");
    steps.commit();
    steps.insert("b", "2");
    steps.rollback();
    steps.extend(10s);
    CHECK(steps.remaining() > 8s);
    steps.release();
    CHECK(table.member("a") && !table.member("b"));
}

void test_lock_table()
{
    CASE("C-1: a lock table of one's own, and who holds what");
    etslock::table table(ETSLOCK_SET, ETSLOCK_PUBLIC, "hpp locks");
    etslock::lock_table own;
    auto in_own = etslock::options().lock_table(own).exec_timeout(etslock::infinite).owner(7);
    etslock::guard guard = table.acquire("key", in_own);
    etslock::locks held = own.locks(table);
    REQUIRE(held.size() == 1);
    CHECK(std::string(reinterpret_cast<const char *>(held[0].key), held[0].key_len) == "key");
    CHECK(held[0].table_name == "hpp locks"s);
    CHECK(held[0].token == guard.token());
    CHECK(held[0].owner == 7);
    CHECK(held[0].exec_remaining_ms == ETSLOCK_INFINITE);
    CHECK_STATUS(status_of([&] { held[1]; }), ETSLOCK_NOT_FOUND);
    CHECK(own.stats().held == 1);
    CHECK(etslock::lock_table::process_default().locks(table).size() == 0);
    guard.release();
    CHECK(own.locks().size() == 0);
}

void test_abandoned()
{
    CASE("C-4, C-12: an abandoned callable keeps its captures until it has returned");
    etslock::table table;
    std::promise<void> go, gone;
    std::shared_future<void> may_go = go.get_future().share();
    std::future<void> is_gone = gone.get_future();
    auto opts = etslock::options().exec_timeout(50ms).on_exec_timeout(ETSLOCK_ABANDON);
    auto outlive = [may_go, end = end_signal(std::move(gone))](auto guard, auto) {
        may_go.wait();
        CHECK_STATUS(guard.status(), ETSLOCK_REVOKED);
        guard.insert("key", "too late");
    };
    auto start = std::chrono::steady_clock::now();
    CHECK_STATUS(status_of([&] { table.with_lock("key", std::move(outlive), opts); }),
                 ETSLOCK_EXEC_TIMEOUT);
    CHECK(std::chrono::steady_clock::now() - start >= 48ms);
    CHECK(is_gone.wait_for(0s) == std::future_status::timeout);
    go.set_value();
    CHECK(comes(is_gone));
    CHECK(!table.member("key"));
}

void test_killed()
{
    CASE("C-11: ETSLOCK_KILL unwinds the callable, and the header lets it through");
    etslock::table table;
    std::promise<void> stack_unwound, gone;
    std::future<void> is_unwound = stack_unwound.get_future(), is_gone = gone.get_future();
    auto opts = etslock::options().exec_timeout(50ms).on_exec_timeout(ETSLOCK_KILL);
    auto sleep_for_ever = [unwound = std::move(stack_unwound),
                           end = end_signal(std::move(gone))](auto, auto) mutable {
        end_signal on_stack(std::move(unwound));
        for (;;) {
            timespec hour = {3600, 0};
            nanosleep(&hour, nullptr);
        }
    };
    CHECK_STATUS(status_of([&] { table.with_lock("key", std::move(sleep_for_ever), opts); }),
                 ETSLOCK_EXEC_TIMEOUT);
    CHECK(comes(is_unwound));
    CHECK(comes(is_gone));
    table.with_lock("key", [](auto, auto) {});
}

void test_thread_ended()
{
    CASE("C-17: a callable that ends its thread unwinds too, and is a failure");
    etslock::table table;
    std::promise<void> gone;
    std::future<void> is_gone = gone.get_future();
    auto end_thread = [end = end_signal(std::move(gone))](auto guard, auto) {
        guard.insert("key", "never seen");
        pthread_exit(nullptr);
    };
    CHECK_STATUS(status_of([&] { table.with_lock("key", std::move(end_thread)); }),
                 ETSLOCK_CALLBACK_FAILED);
    CHECK(comes(is_gone));
    CHECK(!table.member("key"));
}

} // namespace

int main()
{
    RUN(test_table());
    RUN(test_with_lock());
    RUN(test_exceptions(ETSLOCK_RUN_ON_WORKER));
    RUN(test_exceptions(ETSLOCK_RUN_ON_CALLER));
    RUN(test_waiting());
    RUN(test_guard());
    RUN(test_lock_table());
    RUN(test_abandoned());
    RUN(test_killed());
    RUN(test_thread_ended());
    return check_report();
}
