/* hpp_surface.cpp - what the C++ header adds to the C API beside handles: exceptions by kind,
 * values that are read and written as they are, ranges, callables of any shape, try-locks. Built as
 * C++17 and C++20. */
#include "check.h"

#include <etslock.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <functional>
#include <iterator>
#include <limits>
#include <map>
#include <numeric>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

#include <unistd.h>

using namespace std::chrono_literals;

namespace {

/// Whether `action` throws an Error that is an `etslock::error` with `code`.
template <typename Error> bool throws(const std::function<void()> &action, etslock_status code)
{
    static_assert(std::is_base_of_v<etslock::error, Error>);
    try {
        action();
    } catch (const Error &error) {
        return error.code() == code &&
               std::strcmp(error.what(), etslock_status_text(code)) == 0;
    } catch (...) {
    }
    return false;
}

template <typename Error> bool is_raised_for(etslock_status code)
{
    return throws<Error>([&] { etslock::detail::check(code); }, code);
}

void exceptions_by_kind()
{
    CASE("each status is a class of its own below `error`");
    CHECK(is_raised_for<etslock::wait_timeout>(ETSLOCK_WAIT_TIMEOUT));
    CHECK(is_raised_for<etslock::exec_timeout>(ETSLOCK_EXEC_TIMEOUT));
    CHECK(is_raised_for<etslock::callback_failed>(ETSLOCK_CALLBACK_FAILED));
    CHECK(is_raised_for<etslock::revoked>(ETSLOCK_REVOKED));
    CHECK(is_raised_for<etslock::deadlock>(ETSLOCK_DEADLOCK));
    CHECK(is_raised_for<etslock::not_found>(ETSLOCK_NOT_FOUND));
    CHECK(is_raised_for<etslock::exists>(ETSLOCK_EXISTS));
    CHECK(is_raised_for<etslock::closed>(ETSLOCK_CLOSED));
    CHECK(is_raised_for<etslock::null_handle>(ETSLOCK_ERR_NULL));
    CHECK(is_raised_for<etslock::invalid>(ETSLOCK_ERR_INVALID));
    CHECK(is_raised_for<etslock::struct_size>(ETSLOCK_ERR_STRUCT_SIZE));
    CHECK(is_raised_for<etslock::not_covered>(ETSLOCK_ERR_NOT_COVERED));
    CHECK(is_raised_for<etslock::wrong_type>(ETSLOCK_ERR_TYPE));
    CHECK(is_raised_for<etslock::guarded>(ETSLOCK_ERR_GUARDED));
    CHECK(is_raised_for<etslock::no_memory>(ETSLOCK_ERR_NO_MEMORY));
    CHECK(is_raised_for<etslock::no_thread>(ETSLOCK_ERR_NO_THREAD));
    CHECK(is_raised_for<etslock::forked>(ETSLOCK_ERR_FORKED));
    CHECK(is_raised_for<etslock::panic>(ETSLOCK_ERR_PANIC));
    CHECK(is_raised_for<etslock::error>(7777)); // one of a later release
    CHECK(!is_raised_for<etslock::revoked>(ETSLOCK_EXEC_TIMEOUT));

    CASE("calls throw them");
    etslock::table table;
    auto held = table.acquire("held");
    auto other = etslock::options().owner(1).wait_timeout(1ms);
    CHECK(throws<etslock::wait_timeout>([&] { table.acquire("held", other); },
                                        ETSLOCK_WAIT_TIMEOUT));
    CHECK(throws<etslock::deadlock>([&] { table.acquire("held"); }, ETSLOCK_DEADLOCK));
    CHECK(throws<etslock::not_covered>([&] { held.insert("else", ""); },
                                       ETSLOCK_ERR_NOT_COVERED));
    CHECK(throws<etslock::not_found>([&] { etslock::table::open("absent"); }, ETSLOCK_NOT_FOUND));
    held.release();
    CHECK(throws<etslock::null_handle>([&] { held.release(); }, ETSLOCK_ERR_NULL));
    etslock::table guarded(ETSLOCK_SET, ETSLOCK_GUARDED);
    CHECK(throws<etslock::guarded>([&] { guarded.insert("k", "v"); }, ETSLOCK_ERR_GUARDED));
}

void callables_of_any_shape()
{
    CASE("a callable takes (guard, tuples), (guard), or nothing");
    etslock::table table;
    table.insert("key", "1");
    CHECK(table.with_lock("key", [](auto, auto tuples) { return tuples.size(); }) == 1);
    CHECK(table.with_lock("key", [](etslock::guard_view guard) { return guard.token() != 0; }));
    CHECK(table.with_lock("key", [](auto &guard) { return guard.lookup("key").size(); }) == 1);
    CHECK(table.with_lock("key", [] { return 7; }) == 7);
    table.with_locks({"key", "k"}, [](auto guard) { guard.insert("k", "2"); });
    CHECK(table.with_locks({"key", "k"}, [] { return 9; }) == 9);
    CHECK(table.member("k"));
    int calls = 0;
    std::function<void()> function = [&] { calls++; };
    table.with_lock("key", function);
    auto count = [&](auto... arguments) { calls += static_cast<int>(sizeof...(arguments)); };
    table.with_lock("key", count);
    CHECK(calls == 3);
    auto on_caller = etslock::options().run_on(ETSLOCK_RUN_ON_CALLER);
    CHECK(table.with_lock("key", [] { return std::this_thread::get_id(); }, on_caller) ==
          std::this_thread::get_id());
    CHECK(throws<etslock::exec_timeout>(
        [&] { table.with_lock("key", [&] { calls++; }, etslock::options().exec_timeout(0ms)); },
        ETSLOCK_EXEC_TIMEOUT));
    CHECK(calls == 3);
}

void joined_by_default()
{
    CASE("C-11: a late callable is waited for, so that it may capture by reference");
    etslock::table table;
    bool ended = false;
    auto outlive = [&](etslock::guard_view guard) {
        while (guard.status() == ETSLOCK_OK)
            sleep_ms(1);
        sleep_ms(20);
        ended = true;
    };
    CHECK(throws<etslock::exec_timeout>(
        [&] { table.with_lock("key", outlive, etslock::options().exec_timeout(30ms)); },
        ETSLOCK_EXEC_TIMEOUT));
    CHECK(ended);
    const etslock::options by_default;
    CHECK(by_default.raw().on_exec_timeout == ETSLOCK_JOIN);
    const auto abandoning = etslock::options().on_exec_timeout(ETSLOCK_ABANDON);
    CHECK(abandoning.raw().on_exec_timeout == ETSLOCK_ABANDON);
}

void try_locks()
{
    CASE("C-2: try_acquire gives a guard or nothing");
    etslock::table table;
    auto other = etslock::options().owner(1).wait_timeout(etslock::infinite);
    std::optional<etslock::guard> guard = table.try_acquire("key");
    REQUIRE(guard.has_value());
    guard->insert("key", "1");
    CHECK(!table.try_acquire("key", other));
    CHECK(!table.try_acquire("key"));
    CHECK(!table.try_acquire_locks({"free", "key"}, other));
    CHECK(table.try_acquire("free").has_value()); // nothing stayed locked
    guard->release();
    CHECK(table.member("key"));
    CHECK(table.try_acquire_locks({"free", "key"}, other).has_value());
    CHECK(throws<etslock::invalid>(
        [&] { table.try_acquire("key", etslock::options().spin_delay(etslock::infinite)); },
        ETSLOCK_ERR_INVALID));
}

struct point {
    std::int32_t x, y;
    double weight;
};

void values_as_they_are()
{
    CASE("get<T> and put of what is trivially copyable");
    etslock::table table;
    CHECK(!table.get<int>("absent").has_value());
    table.put("n", std::int64_t{-5});
    CHECK(table.get<std::int64_t>("n") == -5);
    CHECK(table.update_counter("n", 2) == -3); // a counter's bytes
    CHECK(*table.get<std::int64_t>("n") == -3);
    CHECK(throws<etslock::wrong_type>([&] { table.get<std::int32_t>("n"); }, ETSLOCK_ERR_TYPE));
    CHECK(throws<etslock::wrong_type>([&] { table.get<point>("n"); }, ETSLOCK_ERR_TYPE));
    table.put("p", point{1, -2, 0.5});
    std::int32_t before = table.with_lock("p", [](auto guard, auto tuples) {
        const point held = tuples[0].template get<point>();
        guard.put("p", point{held.x + 1, held.y, held.weight});
        CHECK(guard.template get<point>("p")->x == 2);
        return held.x;
    });
    CHECK(before == 1);
    const std::optional<point> after = table.get<point>("p");
    CHECK(after && after->x == 2 && after->y == -2 && after->weight == 0.5);
    table.insert("odd", std::string(1 + sizeof(double), 'x'));
    CHECK(throws<etslock::wrong_type>([&] { table.get<double>("odd"); }, ETSLOCK_ERR_TYPE));
    table.put("nan", std::numeric_limits<double>::infinity());
    CHECK(table.lookup("nan").get<double>() == std::numeric_limits<double>::infinity());
}

void ranges()
{
    CASE("tuples are a random access range");
    etslock::table bag(ETSLOCK_DUPLICATE_BAG);
    for (int i = 0; i < 10; i++)
        bag.put("key", i);
    const etslock::tuples found = bag.lookup("key");
    const etslock::tuple_range range = found.range();
    CHECK(range.end() - range.begin() == 10);
    CHECK((range.begin() + 3)[2].get<int>() == 5 && (*(2 + range.begin())).get<int>() == 2);
    CHECK(range.begin() < range.end() && range.begin() <= range.begin());
    CHECK(range.end() > range.begin() && range.end() >= range.end());
    auto at = range.end();
    CHECK((*--at).get<int>() == 9 && (*at--).get<int>() == 9 && (*at++).get<int>() == 8);
    at -= 9;
    CHECK(at == range.begin() && (at += 4) - range.begin() == 4 && at != range.end());
    CHECK(etslock::tuple_range::iterator() == etslock::tuple_range::iterator());
    CHECK(std::accumulate(range.begin(), range.end(), 0, [](int sum, etslock::tuple_view tuple) {
              return sum + tuple.get<int>();
          }) == 45);

    CASE("C-9: a loop over a table sees every tuple once");
    etslock::table table;
    CHECK(!(table.begin() != table.end()));
    std::map<std::string, std::string> wanted, seen;
    for (int i = 0; i < 300; i++)
        wanted["key " + std::to_string(i)] = std::to_string(i);
    for (const auto &[key, value] : wanted)
        table.insert(key, value);
    for (auto [key, value] : table)
        CHECK(seen.emplace(key, value).second);
    CHECK(seen == wanted);
    std::vector<int> in_order;
    for (auto tuple : bag)
        in_order.push_back(tuple.get<int>());
    CHECK(in_order == (std::vector<int>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}));

    CASE("C-1: a loop over who holds what");
    etslock::lock_table own;
    auto in_own = etslock::options().lock_table(own);
    auto guard = table.acquire_locks({"a", "b", "c"}, in_own);
    std::size_t count = 0;
    for (const etslock_lock_info &info : own.locks(table)) {
        CHECK(info.token == guard.token());
        count++;
    }
    CHECK(count == 3 && own.locks().size() == 3 && !own.locks().empty());
    CHECK(etslock::lock_table::process_default().locks(table).empty());

#if defined(__cpp_lib_ranges)
    CASE("concepts of C++20");
    static_assert(std::ranges::random_access_range<etslock::tuple_range>);
    static_assert(std::ranges::sized_range<etslock::tuple_range>);
    static_assert(std::ranges::view<etslock::tuple_range>);
    static_assert(std::ranges::borrowed_range<etslock::tuple_range>);
    static_assert(std::ranges::random_access_range<const etslock::tuples &>);
    static_assert(std::ranges::sized_range<etslock::tuples &>);
    static_assert(!std::ranges::borrowed_range<etslock::tuples>);
    static_assert(std::ranges::forward_range<etslock::locks &>);
    static_assert(std::ranges::input_range<const etslock::table &>);
    CHECK(std::ranges::count_if(found, [](auto tuple) { return tuple.key == "key"; }) == 10);
    CHECK(std::ranges::distance(table) == 300);
#endif
}

} // namespace

int main()
{
    alarm(120); /* a hang is a failure */
    RUN(exceptions_by_kind());
    RUN(callables_of_any_shape());
    RUN(joined_by_default());
    RUN(try_locks());
    RUN(values_as_they_are());
    RUN(ranges());
    return check_report();
}
