// kill_cpp.cpp - C++ destructors on a callback's stack run when its thread is killed, or ends
// itself. Checks C-11 and C-17.
#include "check.h"
#include "locks.h"

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include <cxxabi.h>
#include <pthread.h>
#include <unistd.h>

namespace {

// Enough for a worker to start the callback on a busy machine: one that never ran would not be
// killed.
constexpr int64_t exec_ms = 300;

// What a callback and its test share. Destroyed only after `freed` is seen.
struct Scene {
    std::mutex mutex;
    std::condition_variable changed;
    std::vector<std::string> events;
    bool freed = false;

    void note(const char *event)
    {
        std::lock_guard<std::mutex> lock(mutex);
        events.emplace_back(event);
    }

    bool wait_until_freed()
    {
        std::unique_lock<std::mutex> lock(mutex);
        return changed.wait_for(lock, std::chrono::seconds(20), [this] { return freed; });
    }
};

class Noted {
public:
    Noted(Scene *scene, const char *name) : scene_(scene), name_(name) {}
    ~Noted() { scene_->note(name_); }
    Noted(const Noted &) = delete;
    Noted &operator=(const Noted &) = delete;

private:
    Scene *scene_;
    const char *name_;
};

extern "C" void note_free(void *user_data)
{
    auto *scene = static_cast<Scene *>(user_data);
    std::lock_guard<std::mutex> lock(scene->mutex);
    scene->freed = true;
    scene->changed.notify_all();
}

void sleep_for_ever()
{
    sleep_ms(600000);
}

void sleep_deeper(Scene *scene)
{
    Noted inner(scene, "inner");
    std::vector<std::string> owned(100, std::string(100, 'x'));
    try {
        sleep_for_ever();
        scene->note("passed");
    } catch (abi::__forced_unwind &) {
        scene->note("unwinding");
        throw;
    }
    scene->note("passed");
}

extern "C" int32_t sleep_with_destructors(etslock_guard *guard, const etslock_tuple *, size_t,
                                          void *user_data)
{
    auto *scene = static_cast<Scene *>(user_data);
    Noted outer(scene, "outer");
    auto owned = std::make_unique<Noted>(scene, "owned");
    CHECK_STATUS(etslock_guard_insert(guard, "k", 1, "v", 1), ETSLOCK_OK);
    sleep_deeper(scene);
    scene->note("passed");
    return 0;
}

// A guard of this library, released by a destructor.
class HeldKey {
public:
    HeldKey(etslock_table *table, const char *key)
    {
        CHECK_STATUS(etslock_acquire(table, key, strlen(key), nullptr, &guard_), ETSLOCK_OK);
    }
    ~HeldKey() { CHECK_STATUS(etslock_guard_release(guard_), ETSLOCK_OK); }
    HeldKey(const HeldKey &) = delete;
    HeldKey &operator=(const HeldKey &) = delete;

private:
    etslock_guard *guard_ = nullptr;
};

etslock_table *shared_table;

extern "C" int32_t hold_another_and_sleep(etslock_guard *, const etslock_tuple *, size_t,
                                          void *user_data)
{
    auto *scene = static_cast<Scene *>(user_data);
    Noted outer(scene, "outer");
    HeldKey held(shared_table, "inner");
    sleep_for_ever();
    scene->note("passed");
    return 0;
}

extern "C" int32_t exit_with_destructors(etslock_guard *guard, const etslock_tuple *, size_t,
                                         void *user_data)
{
    auto *scene = static_cast<Scene *>(user_data);
    Noted outer(scene, "outer");
    CHECK_STATUS(etslock_guard_insert(guard, "k", 1, "v", 1), ETSLOCK_OK);
    {
        Noted inner(scene, "inner");
        pthread_exit(nullptr);
    }
}

// Exceptions that stay inside are nobody else's business.
extern "C" int32_t throw_inside(etslock_guard *guard, const etslock_tuple *, size_t,
                                void *user_data)
{
    auto *scene = static_cast<Scene *>(user_data);
    try {
        Noted inner(scene, "inner");
        throw std::string("thrown");
    } catch (const std::string &) {
        scene->note("caught");
    }
    return etslock_guard_insert(guard, "k", 1, "v", 1);
}

etslock_options killing(int64_t exec_timeout_ms)
{
    etslock_options options;
    etslock_options_init(&options, sizeof options);
    options.exec_timeout_ms = exec_timeout_ms;
    options.on_exec_timeout = ETSLOCK_KILL;
    options.user_data_free = note_free;
    return options;
}

void run(etslock_callback callback, int64_t exec_timeout_ms, etslock_status wanted,
         const std::vector<std::string> &wanted_events)
{
    Scene scene;
    etslock_options options = killing(exec_timeout_ms);
    CHECK_STATUS(etslock_with_lock(shared_table, "k", 1, callback, &scene, &options, nullptr),
                 wanted);
    CHECK_STATUS(try_lock(shared_table, "k"), ETSLOCK_OK);
    REQUIRE(scene.wait_until_freed());
    std::lock_guard<std::mutex> lock(scene.mutex);
    CHECK(scene.events == wanted_events);
    for (const std::string &event : scene.events)
        if (scene.events != wanted_events)
            fprintf(stderr, "    %s\n", event.c_str());
}

void destructors_run_when_killed()
{
    CASE("C-11: destructors run, innermost first, when a callback is killed");
    run(sleep_with_destructors, exec_ms, ETSLOCK_EXEC_TIMEOUT,
        {"unwinding", "inner", "owned", "outer"});
    CHECK_STATUS(etslock_table_member(shared_table, "k", 1), ETSLOCK_NOT_FOUND);
}

void a_destructor_calls_the_library()
{
    CASE("C-11: a destructor may call the library while its thread is killed");
    run(hold_another_and_sleep, exec_ms, ETSLOCK_EXEC_TIMEOUT, {"outer"});
    CHECK_STATUS(try_lock(shared_table, "inner"), ETSLOCK_OK);
}

void destructors_run_when_a_thread_ends()
{
    CASE("C-17: destructors run when a callback ends its thread");
    run(exit_with_destructors, ETSLOCK_INFINITE, ETSLOCK_CALLBACK_FAILED, {"inner", "outer"});
    CHECK_STATUS(etslock_table_member(shared_table, "k", 1), ETSLOCK_NOT_FOUND);
}

void exceptions_inside()
{
    CASE("C-17: an exception that is caught inside a callback does no harm");
    run(throw_inside, ETSLOCK_INFINITE, ETSLOCK_OK, {"inner", "caught"});
    CHECK_STATUS(etslock_table_member(shared_table, "k", 1), ETSLOCK_OK);
}

} // namespace

int main()
{
    alarm(120); // a hang is a failure
    REQUIRE(etslock_table_new(nullptr, &shared_table) == ETSLOCK_OK);
    RUN(destructors_run_when_killed());
    RUN(a_destructor_calls_the_library());
    RUN(destructors_run_when_a_thread_ends());
    RUN(exceptions_inside());
    etslock_table_free(shared_table);
    return check_report();
}
