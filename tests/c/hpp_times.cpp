/* hpp_times.cpp - times in the C++ header: whatever unit they have and however far below 0 they
 * are, only `infinite` is for ever. A wait that should not be ends the program by its alarm. */
#include "check.h"

#include <etslock.hpp>

#include <chrono>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <ratio>

#include <unistd.h>

using namespace std::chrono_literals;
using std::chrono::duration;
using std::chrono::milliseconds;

namespace {

using seconds = duration<double>;
using etslock::timeout;

/// Above any time that a test waits, and below `infinite`.
constexpr std::int64_t LONG_MS = 1'000'000'000'000;

etslock_status status_of(const std::function<void()> &action)
{
    try {
        action();
        return ETSLOCK_OK;
    } catch (const etslock::error &error) {
        return error.code();
    }
}

void test_counts()
{
    CASE("C-2: a time that is over already is 0, whatever its unit");
    for (auto late : {0ns, 1ns, 400'000ns, 999'999ns, 1'000'000ns, 1'000'001ns, 1'999'999ns,
                      2'000'000ns, 5'000'000'000ns}) {
        CHECK(timeout(-late).count() == 0);
        CHECK(timeout(std::chrono::duration_cast<std::chrono::microseconds>(-late)).count() == 0);
        CHECK(timeout(std::chrono::duration_cast<milliseconds>(-late)).count() == 0);
        CHECK(timeout(-seconds(late)).count() == 0);
    }
    CHECK(timeout(milliseconds::min()).count() == 0);
    CHECK(timeout(std::chrono::hours::min()).count() == 0);
    CHECK(timeout(std::chrono::nanoseconds::min()).count() == 0);
    CHECK(timeout(milliseconds(ETSLOCK_INFINITE)).count() == 0);
    CHECK(timeout(seconds(-HUGE_VAL)).count() == 0);
    CHECK(timeout(duration<float>(-HUGE_VALF)).count() == 0);
    CHECK(timeout(duration<long double, std::nano>(-1)).count() == 0);
    CHECK(timeout(seconds(std::nan(""))).count() == 0);
    CHECK(timeout(-50ms + 49ms).count() == 0);

    CASE("what is left of a millisecond is waited for");
    CHECK(timeout(1ns).count() == 1);
    CHECK(timeout(400us).count() == 1);
    CHECK(timeout(1000us).count() == 1);
    CHECK(timeout(1001us).count() == 2);
    CHECK(timeout(seconds(1e-300)).count() == 1);
    CHECK(timeout(seconds(0.001)).count() == 1);
    CHECK(timeout(seconds(0.3)).count() == 300);
    CHECK(timeout(duration<float>(0.1F)).count() == 100);
    CHECK(timeout(duration<int, std::ratio<1, 3>>(1)).count() == 334);
    CHECK(timeout(50ms).count() == 50 && timeout(5s).count() == 5000);
    CHECK(timeout(2h).count() == 7'200'000);

    CASE("a huge time is finite, and only `infinite` is infinite");
    CHECK(timeout(etslock::infinite).count() == ETSLOCK_INFINITE);
    CHECK(timeout(true ? etslock::infinite : 5ms).count() == ETSLOCK_INFINITE);
    CHECK(timeout(milliseconds::max() - 1ms).count() == INT64_MAX - 1);
    CHECK(timeout(std::chrono::hours::max()).count() > LONG_MS);
    CHECK(timeout(std::chrono::nanoseconds::max()).count() == INT64_MAX / 1000000 + 1);
    CHECK(timeout(duration<std::int64_t, std::ratio<1000000000>>::max()).count() == INT64_MAX);
    CHECK(timeout(duration<std::uint64_t, std::milli>::max()).count() == INT64_MAX);
    CHECK(timeout(seconds(HUGE_VAL)).count() == INT64_MAX);
    CHECK(timeout(seconds(std::numeric_limits<double>::max())).count() == INT64_MAX);
    CHECK(timeout(duration<float, std::milli>(9.3e18F)).count() == INT64_MAX);
}

/// Calls `give` with times that are over, each of which it must take as 0.
template <typename Give> void each_late_time(Give give)
{
    give(-1ms);
    give(-400us);
    give(-1ns);
    give(-1h);
    give(0.9s - 1s);
    give(milliseconds::min());
    give(seconds(std::nan("")));
    give(milliseconds(ETSLOCK_INFINITE));
    give(std::chrono::duration_cast<milliseconds>(-1500us));
}

void test_options()
{
    CASE("C-2, C-4, C-5: each time of the options");
    each_late_time([](auto time) {
        auto opts = etslock::options().wait_timeout(time).exec_timeout(time).fail_timeout(time);
        opts.spin_delay(time);
        CHECK(opts.raw().wait_timeout_ms == 0);
        CHECK(opts.raw().exec_timeout_ms == 0);
        CHECK(opts.raw().fail_timeout_ms == 0);
        CHECK(opts.raw().spin_delay_ms == 0);
    });
    auto opts = etslock::options().wait_timeout(etslock::infinite).exec_timeout(etslock::infinite);
    opts.fail_timeout(etslock::infinite).spin_delay(1500us);
    CHECK(opts.raw().wait_timeout_ms == ETSLOCK_INFINITE);
    CHECK(opts.raw().exec_timeout_ms == ETSLOCK_INFINITE);
    CHECK(opts.raw().fail_timeout_ms == ETSLOCK_INFINITE);
    CHECK(opts.raw().spin_delay_ms == 2);
}

void test_waits()
{
    CASE("C-2: a wait that is over already is one attempt");
    etslock::table table;
    auto ever = etslock::options().exec_timeout(etslock::infinite).owner(1);
    auto held = table.acquire("key", ever);
    each_late_time([&](auto time) {
        auto opts = etslock::options().owner(2).wait_timeout(time);
        CHECK_STATUS(status_of([&] { table.acquire("key", opts); }), ETSLOCK_WAIT_TIMEOUT);
        CHECK_STATUS(status_of([&] { table.acquire_locks({"other", "key"}, opts); }),
                     ETSLOCK_WAIT_TIMEOUT);
        CHECK_STATUS(status_of([&] { table.with_lock("key", [](auto, auto) {}, opts); }),
                     ETSLOCK_WAIT_TIMEOUT);
        CHECK_STATUS(status_of([&] { table.with_locks({"key"}, [](auto, auto) {}, opts); }),
                     ETSLOCK_WAIT_TIMEOUT);
        CHECK_STATUS(status_of([&] { table.acquire("free", opts).release(); }), ETSLOCK_OK);
    });

    CASE("remaining() of a guard without end is `infinite`");
    CHECK(held.remaining() == etslock::infinite);
    CHECK(held.remaining() > 1h);

    CASE("C-4: an extension by a time that is over extends nothing");
    each_late_time([&](auto time) {
        auto guard = table.acquire("other", etslock::options().exec_timeout(30s));
        guard.extend(time);
        CHECK(guard.remaining() <= 30s);
    });
    auto guard = table.acquire("other", etslock::options().exec_timeout(30s));
    guard.extend(etslock::infinite);
    CHECK(guard.remaining() == etslock::infinite);

    CASE("C-8: a sleep that is over already does not sleep");
    each_late_time([&](auto time) { guard.sleep(time); });

    CASE("C-4: a callable with a time that is over does not run");
    each_late_time([&](auto time) {
        bool ran = false;
        auto opts = etslock::options().exec_timeout(time);
        auto run = [&](auto, auto) { ran = true; };
        CHECK_STATUS(status_of([&] { table.with_lock("free", run, opts); }), ETSLOCK_EXEC_TIMEOUT);
        CHECK(!ran);
    });
}

} // namespace

int main()
{
    alarm(60); /* a wait for ever is a failure */
    RUN(test_counts());
    RUN(test_options());
    RUN(test_waits());
    return check_report();
}
