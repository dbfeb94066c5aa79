/* etslock.hpp - the C API in C++17: handles that close themselves, statuses as exceptions,
 * callables as callbacks.
 *
 *     etslock::table table;
 *     table.insert("key", "1");
 *     std::string before = table.with_lock("key", [](auto guard, auto tuples) {
 *         guard.insert("key", "2");
 *         return std::string(tuples[0].value);
 *     });
 *
 * Threads, deadlines and promises are those of etslock.h. What this header adds:
 *
 * - Keys and values are std::string_view; they may hold any bytes. What a range of tuples shows
 *   lives as long as the callback's call, or as the `tuples` object it comes from. Nothing that
 *   points into an object is given out of a temporary one: keep the snapshot in a variable.
 * - Times are durations of any unit, rounded up to a millisecond. A time that is over already, as
 *   `deadline - now` may be, is 0: one attempt, no waiting. Only `infinite` is for ever.
 * - A callable takes (guard_view, tuple_range), (guard_view) or nothing. It is moved to the heap
 *   and lives until it has returned and nobody waits for it, also when its call was abandoned.
 * - ETSLOCK_JOIN is the default here, other than in C: `with_lock` returns when the callable has
 *   returned, so that it may capture by reference. Nothing in C++ could forbid such a capture to a
 *   callable that may run on after `with_lock` has thrown; who chooses ETSLOCK_ABANDON or
 *   ETSLOCK_KILL captures by value.
 * - A status other than ETSLOCK_OK is an exception of a class of its own, such as `wait_timeout`,
 *   all below `error`.
 * - An exception in a callable discards its unpublished writes and comes out of `with_lock`.
 *   ETSLOCK_KILL ends a callable by a forced unwind, which this header lets through; a callable
 *   that swallows it, as `catch (...)` without `throw;` does, ends the process.
 */
#ifndef ETSLOCK_HPP
#define ETSLOCK_HPP

#include "etslock.h"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <functional>
#include <iterator>
#include <memory>
#include <optional>
#include <ratio>
#include <stdexcept>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>
#if __has_include(<version>)
#include <version>
#endif
#if defined(__cpp_lib_ranges)
#include <ranges>
#endif

namespace etslock {

using std::chrono::milliseconds;

/// For a timeout: never. No difference of two times is as long, nor any time before the end of it.
inline constexpr milliseconds infinite = milliseconds::max();

/// What a call takes as a time: a duration of any unit, or `infinite`.
class timeout {
public:
    template <typename Rep, typename Period>
    constexpr timeout(std::chrono::duration<Rep, Period> time) noexcept : count_(rounded_up(time))
    {
    }
    constexpr timeout(milliseconds time) noexcept
        : count_(time == infinite ? std::int64_t{ETSLOCK_INFINITE} : rounded_up(time))
    {
    }

    /// As the C API counts it.
    constexpr std::int64_t count() const noexcept { return count_; }

private:
    /// At least 0, also for what is not a number; at most the longest finite time.
    template <typename Rep, typename Period>
    static constexpr std::int64_t rounded_up(std::chrono::duration<Rep, Period> time) noexcept
    {
        // Any unit's limits fit into a floating type. A user's own type keeps its precision, in
        // which 0.001 s is 1 ms and not a little more.
        using wide = std::conditional_t<std::is_floating_point_v<Rep>, Rep, long double>;
        const wide ms = std::chrono::duration<wide, std::milli>(time).count();
        if (!(ms > 0))
            return 0;
        if (ms >= static_cast<wide>(INT64_MAX))
            return INT64_MAX;
        const auto whole = static_cast<std::int64_t>(ms);
        return static_cast<wide>(whole) < ms ? whole + 1 : whole;
    }

    std::int64_t count_;
};

// Deletes a function and says why, to compilers that pass it on.
#if defined(__cpp_deleted_function)
#define ETSLOCK_DELETED(reason) delete (reason)
#else
#define ETSLOCK_DELETED(reason) delete
#endif
#define ETSLOCK_OF_A_TEMPORARY                                                                     \
    ETSLOCK_DELETED("this would point into a temporary: keep the object in a variable")

/// A status other than ETSLOCK_OK.
class error : public std::runtime_error {
public:
    explicit error(etslock_status code)
        : std::runtime_error(etslock_status_text(code)), code_(code) {}

    etslock_status code() const noexcept { return code_; }
    const char *name() const noexcept { return etslock_status_name(code_); }

private:
    etslock_status code_;
};

/// One status as a class, to catch it by.
template <etslock_status Code> class error_of : public error {
public:
    error_of() : error(Code) {}
};

/// The lock was not free in time; the callable never ran.
using wait_timeout = error_of<ETSLOCK_WAIT_TIMEOUT>;
/// The callable, or the holder, outlived its time; nothing was written since its last commit.
using exec_timeout = error_of<ETSLOCK_EXEC_TIMEOUT>;
/// The callable ended its thread. (What it throws comes out of the call as it is.)
using callback_failed = error_of<ETSLOCK_CALLBACK_FAILED>;
/// The lock was taken away; nothing was written since the last commit.
using revoked = error_of<ETSLOCK_REVOKED>;
/// The wait could end only by a timeout: the holder is the caller, or waits for it.
using deadlock = error_of<ETSLOCK_DEADLOCK>;
using not_found = error_of<ETSLOCK_NOT_FOUND>;
using exists = error_of<ETSLOCK_EXISTS>;
using closed = error_of<ETSLOCK_CLOSED>;
/// The guard has ended, or the object has been moved from.
using null_handle = error_of<ETSLOCK_ERR_NULL>;
using invalid = error_of<ETSLOCK_ERR_INVALID>;
/// This header and the library do not fit each other.
using struct_size = error_of<ETSLOCK_ERR_STRUCT_SIZE>;
using not_covered = error_of<ETSLOCK_ERR_NOT_COVERED>;
using wrong_type = error_of<ETSLOCK_ERR_TYPE>;
using guarded = error_of<ETSLOCK_ERR_GUARDED>;
using no_memory = error_of<ETSLOCK_ERR_NO_MEMORY>;
using no_thread = error_of<ETSLOCK_ERR_NO_THREAD>;
using forked = error_of<ETSLOCK_ERR_FORKED>;
using panic = error_of<ETSLOCK_ERR_PANIC>;

namespace detail {

/// Throws the class of `status`; `error` itself for one that is newer than this header.
[[noreturn]] inline void raise(etslock_status status)
{
    switch (status) {
    case ETSLOCK_WAIT_TIMEOUT: throw wait_timeout();
    case ETSLOCK_EXEC_TIMEOUT: throw exec_timeout();
    case ETSLOCK_CALLBACK_FAILED: throw callback_failed();
    case ETSLOCK_REVOKED: throw revoked();
    case ETSLOCK_DEADLOCK: throw deadlock();
    case ETSLOCK_NOT_FOUND: throw not_found();
    case ETSLOCK_EXISTS: throw exists();
    case ETSLOCK_CLOSED: throw closed();
    case ETSLOCK_ERR_NULL: throw null_handle();
    case ETSLOCK_ERR_INVALID: throw invalid();
    case ETSLOCK_ERR_STRUCT_SIZE: throw struct_size();
    case ETSLOCK_ERR_NOT_COVERED: throw not_covered();
    case ETSLOCK_ERR_TYPE: throw wrong_type();
    case ETSLOCK_ERR_GUARDED: throw guarded();
    case ETSLOCK_ERR_NO_MEMORY: throw no_memory();
    case ETSLOCK_ERR_NO_THREAD: throw no_thread();
    case ETSLOCK_ERR_FORKED: throw forked();
    case ETSLOCK_ERR_PANIC: throw panic();
    default: throw error(status);
    }
}

inline void check(etslock_status status)
{
    if (status != ETSLOCK_OK)
        raise(status);
}

/// For calls in which a second status is an answer: true for OK, false for `no`.
inline bool answer(etslock_status status, etslock_status no)
{
    if (status != no)
        check(status);
    return status == ETSLOCK_OK;
}

template <auto Free> struct deleter {
    template <typename Handle> void operator()(Handle *handle) const noexcept { Free(handle); }
};

template <typename Handle, auto Free> using handle = std::unique_ptr<Handle, deleter<Free>>;

inline std::vector<etslock_key> as_keys(const std::vector<std::string_view> &keys)
{
    std::vector<etslock_key> out;
    out.reserve(keys.size());
    for (std::string_view key : keys)
        out.push_back({key.data(), key.size()});
    return out;
}

/// What is kept in a value byte by byte: no pointer, which would be written instead of what it
/// points to, and nothing that owns anything.
template <typename T>
inline constexpr bool is_plain = std::is_trivially_copyable_v<T> && !std::is_pointer_v<T> &&
                                 !std::is_array_v<T> && !std::is_same_v<T, std::string_view>;

template <typename T> std::string_view as_bytes(const T &value) noexcept
{
    static_assert(is_plain<T>, "put() takes a trivially copyable value; insert() takes bytes");
    return {reinterpret_cast<const char *>(std::addressof(value)), sizeof value};
}

/// The bytes of `from`, which may lie anywhere, as a T.
template <typename T> T from_bytes(std::string_view from)
{
    static_assert(is_plain<T>, "get<T>() gives a trivially copyable T; lookup() gives bytes");
    if (from.size() != sizeof(T))
        throw wrong_type();
    static_assert(std::is_default_constructible_v<T>, "get<T>() makes a T and fills it");
    std::remove_cv_t<T> out{};
    std::memcpy(static_cast<void *>(std::addressof(out)), from.data(), sizeof(T));
    return out;
}

} // namespace detail

/// One tuple, seen where it lies.
struct tuple_view {
    std::string_view key;
    std::string_view value;

    /// The value as what `put` wrote; throws `wrong_type` if it has another size.
    template <typename T> T get() const { return detail::from_bytes<T>(value); }
};

/// The tuples of a callback or of a snapshot. Owns nothing.
class tuple_range {
public:
    /// Random access in the sense of C++20; what it yields is made when it is asked for, which the
    /// categories of before allow to input iterators only.
    class iterator {
    public:
        using iterator_category = std::input_iterator_tag;
        using iterator_concept = std::random_access_iterator_tag;
        using value_type = tuple_view;
        using difference_type = std::ptrdiff_t;
        using pointer = void;
        using reference = tuple_view;

        iterator() noexcept = default;
        explicit iterator(const etslock_tuple *at) noexcept : at_(at) {}
        tuple_view operator*() const noexcept { return view(*at_); }
        tuple_view operator[](difference_type by) const noexcept { return view(at_[by]); }
        iterator &operator++() noexcept { return ++at_, *this; }
        iterator operator++(int) noexcept { return iterator(at_++); }
        iterator &operator--() noexcept { return --at_, *this; }
        iterator operator--(int) noexcept { return iterator(at_--); }
        iterator &operator+=(difference_type by) noexcept { return at_ += by, *this; }
        iterator &operator-=(difference_type by) noexcept { return at_ -= by, *this; }
        friend iterator operator+(iterator at, difference_type by) noexcept { return at += by; }
        friend iterator operator+(difference_type by, iterator at) noexcept { return at += by; }
        friend iterator operator-(iterator at, difference_type by) noexcept { return at -= by; }
        friend difference_type operator-(const iterator &a, const iterator &b) noexcept
        {
            return a.at_ - b.at_;
        }
        bool operator==(const iterator &other) const noexcept { return at_ == other.at_; }
        bool operator!=(const iterator &other) const noexcept { return at_ != other.at_; }
        bool operator<(const iterator &other) const noexcept { return at_ < other.at_; }
        bool operator>(const iterator &other) const noexcept { return at_ > other.at_; }
        bool operator<=(const iterator &other) const noexcept { return at_ <= other.at_; }
        bool operator>=(const iterator &other) const noexcept { return at_ >= other.at_; }

    private:
        const etslock_tuple *at_ = nullptr;
    };

    tuple_range() noexcept = default;
    tuple_range(const etslock_tuple *data, std::size_t count) noexcept
        : data_(data), count_(count)
    {
    }

    iterator begin() const noexcept { return iterator(data_); }
    iterator end() const noexcept { return iterator(count_ == 0 ? data_ : data_ + count_); }
    std::size_t size() const noexcept { return count_; }
    bool empty() const noexcept { return count_ == 0; }
    tuple_view operator[](std::size_t index) const noexcept { return view(data_[index]); }

private:
    static std::string_view bytes(const std::uint8_t *data, std::size_t size) noexcept
    {
        return {reinterpret_cast<const char *>(data), size};
    }
    static tuple_view view(const etslock_tuple &tuple) noexcept
    {
        return {bytes(tuple.key, tuple.key_len), bytes(tuple.value, tuple.value_len)};
    }

    const etslock_tuple *data_ = nullptr;
    std::size_t count_ = 0;
};

/// A snapshot of tuples; owns them. Empty when the key had none.
class tuples {
public:
    using iterator = tuple_range::iterator;

    tuples() noexcept = default;
    explicit tuples(etslock_tuples *adopted) noexcept : handle_(adopted) {}

    /// The first value as what `put` wrote, or nothing; throws `wrong_type` if it has another size.
    template <typename T> std::optional<T> get() const
    {
        const tuple_range all = range();
        return all.empty() ? std::nullopt : std::optional<T>(all[0].get<T>());
    }

    tuple_range range() const & noexcept
    {
        std::size_t count = 0;
        const etslock_tuple *data = etslock_tuples_data(handle_.get(), &count);
        return {data, count};
    }
    iterator begin() const & noexcept { return range().begin(); }
    iterator end() const & noexcept { return range().end(); }
    std::size_t size() const noexcept { return range().size(); }
    bool empty() const noexcept { return range().empty(); }
    tuple_view operator[](std::size_t index) const & noexcept { return range()[index]; }

    // `for (auto tuple : table.lookup("key"))` is well: the loop keeps the snapshot.
    tuple_range range() const && = ETSLOCK_OF_A_TEMPORARY;
    iterator begin() const && = ETSLOCK_OF_A_TEMPORARY;
    iterator end() const && = ETSLOCK_OF_A_TEMPORARY;
    tuple_view operator[](std::size_t) const && = ETSLOCK_OF_A_TEMPORARY;

private:
    detail::handle<etslock_tuples, etslock_tuples_free> handle_;
};

class guard;

/// The operations on a held lock. Does not own it: a callback gets one, and `guard` is one.
class guard_view {
public:
    explicit guard_view(etslock_guard *guard) noexcept : guard_(guard) {}
    guard_view(guard &&) = ETSLOCK_OF_A_TEMPORARY;

    /// The current tuples with this guard's staged writes applied.
    tuples lookup(std::string_view key)
    {
        etslock_tuples *out = nullptr;
        detail::answer(etslock_guard_lookup(guard_, key.data(), key.size(), &out),
                       ETSLOCK_NOT_FOUND);
        return tuples(out);
    }
    /// The first value of `key` as what `put` wrote, or nothing; see `tuples::get`.
    template <typename T> std::optional<T> get(std::string_view key)
    {
        return lookup(key).template get<T>();
    }
    void insert(std::string_view key, std::string_view value)
    {
        detail::check(
            etslock_guard_insert(guard_, key.data(), key.size(), value.data(), value.size()));
    }
    /// Inserts a trivially copyable value, byte by byte.
    template <typename T> void put(std::string_view key, const T &value)
    {
        insert(key, detail::as_bytes(value));
    }
    void remove(std::string_view key)
    {
        detail::check(etslock_guard_delete(guard_, key.data(), key.size()));
    }
    void remove_tuple(std::string_view key, std::string_view value)
    {
        detail::check(
            etslock_guard_delete_tuple(guard_, key.data(), key.size(), value.data(), value.size()));
    }
    void commit() { detail::check(etslock_guard_commit(guard_)); }
    void rollback() { detail::check(etslock_guard_rollback(guard_)); }
    void extend(timeout exec_timeout)
    {
        detail::check(etslock_guard_extend(guard_, exec_timeout.count()));
    }
    /// Throws as soon as the guard is late or revoked.
    void sleep(timeout time) { detail::check(etslock_guard_sleep(guard_, time.count())); }

    etslock_status status() const noexcept { return etslock_guard_status(guard_); }
    /// To the exec deadline: 0 when late or revoked, or `infinite`.
    milliseconds remaining() const noexcept
    {
        const std::int64_t ms = etslock_guard_remaining_ms(guard_);
        return ms == ETSLOCK_INFINITE ? infinite : milliseconds(ms);
    }
    std::uint64_t token() const noexcept { return etslock_guard_token(guard_); }
    etslock_guard *get() const noexcept { return guard_; }

protected:
    etslock_guard *guard_;
};

/// An acquired lock. The destructor cancels: what was not released or committed is forgotten.
class guard : public guard_view {
public:
    guard() noexcept : guard_view(nullptr) {}
    explicit guard(etslock_guard *adopted) noexcept : guard_view(adopted) {}
    guard(guard &&other) noexcept : guard_view(std::exchange(other.guard_, nullptr)) {}
    guard &operator=(guard &&other) noexcept
    {
        if (this != &other) {
            end();
            guard_ = std::exchange(other.guard_, nullptr);
        }
        return *this;
    }
    guard(const guard &) = delete;
    guard &operator=(const guard &) = delete;
    ~guard() { end(); }

    /// Publishes the staged writes and unlocks. Ends the guard, also when it throws.
    void release() { detail::check(etslock_guard_release(std::exchange(guard_, nullptr))); }
    /// Forgets the staged writes and unlocks. Ends the guard.
    void cancel() { detail::check(etslock_guard_cancel(std::exchange(guard_, nullptr))); }

    explicit operator bool() const noexcept { return guard_ != nullptr; }

    etslock_guard *get() const & noexcept { return guard_; }
    etslock_guard *get() const && = ETSLOCK_OF_A_TEMPORARY;

private:
    void end() noexcept
    {
        if (guard_ != nullptr)
            etslock_guard_cancel(std::exchange(guard_, nullptr));
    }
};

/// A snapshot of held locks. What `operator[]` points to lives as long as the snapshot.
class locks {
public:
    class iterator {
    public:
        using iterator_category = std::input_iterator_tag;
        using iterator_concept = std::forward_iterator_tag;
        using value_type = etslock_lock_info;
        using difference_type = std::ptrdiff_t;
        using pointer = void;
        using reference = etslock_lock_info;

        iterator() noexcept = default;
        iterator(const locks &of, std::size_t at) noexcept : of_(&of), at_(at) {}
        etslock_lock_info operator*() const { return (*of_)[at_]; }
        iterator &operator++() noexcept { return ++at_, *this; }
        iterator operator++(int) noexcept { return iterator(*of_, at_++); }
        bool operator==(const iterator &other) const noexcept { return at_ == other.at_; }
        bool operator!=(const iterator &other) const noexcept { return at_ != other.at_; }

    private:
        const locks *of_ = nullptr;
        std::size_t at_ = 0;
    };

    explicit locks(etslock_locks *adopted) noexcept : handle_(adopted) {}

    iterator begin() const & noexcept { return iterator(*this, 0); }
    iterator end() const & noexcept { return iterator(*this, size()); }
    iterator begin() const && = ETSLOCK_OF_A_TEMPORARY;
    iterator end() const && = ETSLOCK_OF_A_TEMPORARY;
    bool empty() const noexcept { return size() == 0; }

    std::size_t size() const noexcept { return etslock_locks_count(handle_.get()); }
    etslock_lock_info operator[](std::size_t) const && = ETSLOCK_OF_A_TEMPORARY;
    etslock_lock_info operator[](std::size_t index) const &
    {
        etslock_lock_info info{};
        info.struct_size = sizeof info;
        detail::check(etslock_locks_get(handle_.get(), index, &info));
        return info;
    }

private:
    detail::handle<etslock_locks, etslock_locks_free> handle_;
};

class table;

/// A place where locks live. `lock_table::process_default()` is the one used when none is named.
class lock_table {
public:
    lock_table()
    {
        etslock_lock_table *out = nullptr;
        detail::check(etslock_lock_table_new(&out));
        handle_.reset(out);
    }
    /// Owns nothing; `const`, so that it is no temporary that `options` would be left without.
    static const lock_table process_default() noexcept { return lock_table(nullptr); }

    etslock::locks locks() const { return snapshot(nullptr); }
    inline etslock::locks locks(const table &of) const;
    /// False when the key was not locked.
    inline bool force_release(const table &of, std::string_view key) const;
    etslock_stats stats() const
    {
        etslock_stats out;
        etslock_stats_init(&out, sizeof out);
        detail::check(etslock_lock_table_stats(get(), &out));
        return out;
    }
    etslock_lock_table *get() const & noexcept { return handle_.get(); }
    etslock_lock_table *get() && = ETSLOCK_OF_A_TEMPORARY;

private:
    explicit lock_table(std::nullptr_t) noexcept {}
    etslock::locks snapshot(etslock_table *of) const
    {
        etslock_locks *out = nullptr;
        detail::check(etslock_lock_table_locks(get(), of, &out));
        return etslock::locks(out);
    }

    detail::handle<etslock_lock_table, etslock_lock_table_free> handle_;
};

/// The options of a lock call: `options().wait_timeout(50ms).run_on(ETSLOCK_RUN_ON_CALLER)`.
class options {
public:
    /// The defaults of C, save that a callable is waited for: ETSLOCK_JOIN.
    options() noexcept
    {
        etslock_options_init(&raw_, sizeof raw_);
        raw_.on_exec_timeout = ETSLOCK_JOIN;
    }

    options &wait_timeout(timeout time) & noexcept { return set(raw_.wait_timeout_ms, time); }
    options &exec_timeout(timeout time) & noexcept { return set(raw_.exec_timeout_ms, time); }
    options &fail_timeout(timeout time) & noexcept { return set(raw_.fail_timeout_ms, time); }
    options &spin_delay(timeout time) & noexcept { return set(raw_.spin_delay_ms, time); }
    /// The lock table is to outlive the calls that these options are given to.
    options &lock_table(const etslock::lock_table &table) & noexcept
    {
        return raw_.lock_table = table.get(), *this;
    }
    options &run_on(etslock_run_on where) & noexcept { return raw_.run_on = where, *this; }
    options &queue(etslock_queue how) & noexcept { return raw_.queue = how, *this; }
    options &on_exec_timeout(etslock_on_exec_timeout what) & noexcept
    {
        return raw_.on_exec_timeout = what, *this;
    }
    options &owner(std::uint64_t owner) & noexcept { return raw_.owner = owner, *this; }

    // What is set in a temporary is handed on by value, so that a reference to it may be kept.
    options wait_timeout(timeout time) && noexcept { return wait_timeout(time); }
    options exec_timeout(timeout time) && noexcept { return exec_timeout(time); }
    options fail_timeout(timeout time) && noexcept { return fail_timeout(time); }
    options spin_delay(timeout time) && noexcept { return spin_delay(time); }
    options lock_table(const etslock::lock_table &table) && noexcept { return lock_table(table); }
    options run_on(etslock_run_on where) && noexcept { return run_on(where); }
    options queue(etslock_queue how) && noexcept { return queue(how); }
    options on_exec_timeout(etslock_on_exec_timeout what) && noexcept
    {
        return on_exec_timeout(what);
    }
    options owner(std::uint64_t owner_id) && noexcept { return owner(owner_id); }

    options &lock_table(etslock::lock_table &&) & = ETSLOCK_OF_A_TEMPORARY;
    options lock_table(etslock::lock_table &&) && = ETSLOCK_OF_A_TEMPORARY;

    const etslock_options &raw() const & noexcept { return raw_; }
    const etslock_options &raw() const && = ETSLOCK_OF_A_TEMPORARY;

private:
    options &set(std::int64_t &field, timeout time) noexcept
    {
        return field = time.count(), *this;
    }

    etslock_options raw_;
};

namespace detail {

struct nothing {};

/// How a callable is called: with as many arguments as it takes.
template <typename Callable> struct fit {
    static constexpr bool takes_both = std::is_invocable_v<Callable &, guard_view &, tuple_range &>;
    static constexpr bool takes_guard = std::is_invocable_v<Callable &, guard_view &>;
    static constexpr bool takes_nothing = std::is_invocable_v<Callable &>;
    static_assert(takes_both || takes_guard || takes_nothing,
                  "a callable under a lock takes (guard_view, tuple_range), (guard_view) or "
                  "nothing");

    static decltype(auto) call(Callable &callable, [[maybe_unused]] guard_view &guard,
                               [[maybe_unused]] tuple_range &tuples)
    {
        if constexpr (takes_both)
            return std::invoke(callable, guard, tuples);
        else if constexpr (takes_guard)
            return std::invoke(callable, guard);
        else if constexpr (takes_nothing)
            return std::invoke(callable);
    }
};

/// A callable and what became of it. Held by the library until the callable has ended, and by the
/// caller until it has fetched the outcome.
template <typename Callable, typename Result> struct job {
    template <typename From>
    explicit job(std::in_place_t, From &&from) : callable(std::forward<From>(from)) {}

    /// What the library calls. Never noexcept: a forced unwind must be able to pass.
    static std::int32_t run(etslock_guard *raw, const etslock_tuple *data, std::size_t count,
                            void *user_data)
    {
        job &work = **static_cast<std::shared_ptr<job> *>(user_data);
        try {
            work.call(guard_view(raw), tuple_range(data, count));
            return 0;
        } catch (...) {
            work.exception = std::current_exception();
            // Empty for a forced unwind (abi::__forced_unwind), which is no C++ exception:
            // cancellation and pthread_exit end the process if it does not go on.
            if (!work.exception)
                throw;
            return 1;
        }
    }
    static void free(void *user_data) { delete static_cast<std::shared_ptr<job> *>(user_data); }

    Callable callable;
    std::optional<Result> result;
    std::exception_ptr exception;

private:
    void call(guard_view guard, tuple_range tuples)
    {
        if constexpr (std::is_same_v<Result, nothing>) {
            fit<Callable>::call(callable, guard, tuples);
            result.emplace();
        } else {
            result.emplace(fit<Callable>::call(callable, guard, tuples));
        }
    }
};

/// What is of use only until the callable has returned.
template <typename T>
inline constexpr bool points_into_call =
    std::is_same_v<T, std::string_view> || std::is_same_v<T, tuple_view> ||
    std::is_same_v<T, tuple_range> || std::is_same_v<T, tuple_range::iterator> ||
    std::is_same_v<T, guard_view> || std::is_same_v<T, etslock_guard *> ||
    std::is_same_v<T, const etslock_tuple *>;

template <typename Callable>
using returned_by = decltype(fit<std::decay_t<Callable>>::call(
    std::declval<std::decay_t<Callable> &>(), std::declval<guard_view &>(),
    std::declval<tuple_range &>()));

/// `start(callback, user_data, options)` makes the C call.
template <typename Callable, typename Start>
returned_by<Callable> run_locked(Callable &&callable, const options &opts, Start &&start)
{
    using returned = returned_by<Callable>;
    static_assert(!std::is_reference_v<returned>, "a callable under a lock returns a value");
    static_assert(!points_into_call<returned>,
                  "what a callable under a lock returns must not point into the call: return a "
                  "copy, such as std::string(tuples[0].value)");
    using result = std::conditional_t<std::is_void_v<returned>, nothing, std::decay_t<returned>>;
    using job = detail::job<std::decay_t<Callable>, result>;

    auto work = std::make_shared<job>(std::in_place, std::forward<Callable>(callable));
    auto *for_library = new std::shared_ptr<job>(work);
    etslock_options raw = opts.raw();
    raw.user_data_free = job::free;

    etslock_status status = start(job::run, for_library, raw);
    if (status == ETSLOCK_ERR_STRUCT_SIZE)
        job::free(for_library); // the one status after which user_data is still the caller's
    if (status == ETSLOCK_CALLBACK_FAILED && work->exception)
        std::rethrow_exception(std::move(work->exception));
    check(status);
    if constexpr (!std::is_void_v<returned>)
        return std::move(*work->result);
}

} // namespace detail

class cursor;

/// A handle to a table.
class table {
public:
    explicit table(etslock_table_type type = ETSLOCK_SET, etslock_access access = ETSLOCK_PUBLIC,
                   const char *name = nullptr)
    {
        etslock_table_options opts;
        etslock_table_options_init(&opts, sizeof opts);
        opts.type = type;
        opts.access = access;
        opts.name = name;
        etslock_table *out = nullptr;
        detail::check(etslock_table_new(&opts, &out));
        handle_.reset(out);
    }
    /// One more handle to a named table.
    static table open(const char *name)
    {
        etslock_table *out = nullptr;
        detail::check(etslock_table_open(name, &out));
        return table(adopt{}, out);
    }

    void insert(std::string_view key, std::string_view value)
    {
        detail::check(
            etslock_table_insert(get(), key.data(), key.size(), value.data(), value.size()));
    }
    /// Inserts a trivially copyable value, byte by byte.
    template <typename T> void put(std::string_view key, const T &value)
    {
        insert(key, detail::as_bytes(value));
    }
    /// The first value of `key` as what `put` wrote, or nothing; see `tuples::get`.
    template <typename T> std::optional<T> get(std::string_view key) const
    {
        return lookup(key).template get<T>();
    }
    /// False when the key has a tuple already.
    bool insert_new(std::string_view key, std::string_view value)
    {
        return detail::answer(
            etslock_table_insert_new(get(), key.data(), key.size(), value.data(), value.size()),
            ETSLOCK_EXISTS);
    }
    tuples lookup(std::string_view key) const
    {
        etslock_tuples *out = nullptr;
        detail::answer(etslock_table_lookup(get(), key.data(), key.size(), &out),
                       ETSLOCK_NOT_FOUND);
        return tuples(out);
    }
    bool member(std::string_view key) const
    {
        return detail::answer(etslock_table_member(get(), key.data(), key.size()),
                              ETSLOCK_NOT_FOUND);
    }
    tuples take(std::string_view key)
    {
        etslock_tuples *out = nullptr;
        detail::answer(etslock_table_take(get(), key.data(), key.size(), &out), ETSLOCK_NOT_FOUND);
        return tuples(out);
    }
    void remove(std::string_view key)
    {
        detail::check(etslock_table_delete(get(), key.data(), key.size()));
    }
    void remove_tuple(std::string_view key, std::string_view value)
    {
        detail::check(
            etslock_table_delete_tuple(get(), key.data(), key.size(), value.data(), value.size()));
    }
    void clear() { detail::check(etslock_table_clear(get())); }
    std::int64_t update_counter(std::string_view key, std::int64_t add, std::int64_t initial = 0)
    {
        std::int64_t out = 0;
        detail::check(
            etslock_table_update_counter(get(), key.data(), key.size(), add, initial, &out));
        return out;
    }
    std::size_t count() const
    {
        std::size_t out = 0;
        detail::check(etslock_table_count(get(), &out));
        return out;
    }
    inline etslock::cursor cursor() const;

    /// Calls `callable(guard_view, tuple_range)`, or with fewer arguments if it takes fewer, under
    /// the lock of `key`; returns what it returns, throws what it throws, or `error`.
    template <typename Callable>
    auto with_lock(std::string_view key, Callable &&callable, const options &opts = {})
        -> detail::returned_by<Callable>
    {
        return detail::run_locked(
            std::forward<Callable>(callable), opts,
            [&](etslock_callback callback, void *user_data, const etslock_options &raw) {
                return etslock_with_lock(get(), key.data(), key.size(), callback, user_data, &raw,
                                         nullptr);
            });
    }
    template <typename Callable>
    auto with_locks(const std::vector<std::string_view> &keys, Callable &&callable,
                    const options &opts = {}) -> detail::returned_by<Callable>
    {
        const std::vector<etslock_key> raw_keys = detail::as_keys(keys);
        return detail::run_locked(
            std::forward<Callable>(callable), opts,
            [&](etslock_callback callback, void *user_data, const etslock_options &raw) {
                return etslock_with_locks(get(), raw_keys.data(), raw_keys.size(), callback,
                                          user_data, &raw, nullptr);
            });
    }
    guard acquire(std::string_view key, const options &opts = {})
    {
        etslock_guard *out = nullptr;
        detail::check(etslock_acquire(get(), key.data(), key.size(), &opts.raw(), &out));
        return guard(out);
    }
    guard acquire_locks(const std::vector<std::string_view> &keys, const options &opts = {})
    {
        const std::vector<etslock_key> raw_keys = detail::as_keys(keys);
        etslock_guard *out = nullptr;
        detail::check(
            etslock_acquire_locks(get(), raw_keys.data(), raw_keys.size(), &opts.raw(), &out));
        return guard(out);
    }

    /// One attempt: nothing if the lock is held. The wait timeout of `opts` is not looked at.
    std::optional<guard> try_acquire(std::string_view key, const options &opts = {})
    {
        etslock_guard *out = nullptr;
        const options once = options(opts).wait_timeout(milliseconds(0));
        return got(etslock_acquire(get(), key.data(), key.size(), &once.raw(), &out), out);
    }
    std::optional<guard> try_acquire_locks(const std::vector<std::string_view> &keys,
                                           const options &opts = {})
    {
        const std::vector<etslock_key> raw_keys = detail::as_keys(keys);
        etslock_guard *out = nullptr;
        const options once = options(opts).wait_timeout(milliseconds(0));
        return got(
            etslock_acquire_locks(get(), raw_keys.data(), raw_keys.size(), &once.raw(), &out), out);
    }

    /// `for (auto [key, value] : table)`: every tuple, while others may write, with the promises of
    /// `etslock_table_cursor`. What is seen lives until the loop's next round.
    class iterator;
    struct sentinel {};
    inline iterator begin() const;
    sentinel end() const noexcept { return {}; }

    etslock_table *get() const & noexcept { return handle_.get(); }
    etslock_table *get() const && = ETSLOCK_OF_A_TEMPORARY;

private:
    /// `out` by reference: it is set by the call that gives `status`.
    static std::optional<guard> got(etslock_status status, etslock_guard *const &out)
    {
        return detail::answer(status, ETSLOCK_WAIT_TIMEOUT) ? std::optional<guard>(guard(out))
                                                            : std::nullopt;
    }

    struct adopt {};
    table(adopt, etslock_table *handle) noexcept : handle_(handle) {}

    detail::handle<etslock_table, etslock_table_free> handle_;
};

/// An iteration: `for (tuples found; cursor.next(found);)`, all tuples of one key at a time.
class cursor {
public:
    explicit cursor(const table &of)
    {
        etslock_cursor *out = nullptr;
        detail::check(etslock_table_cursor(of.get(), &out));
        handle_.reset(out);
    }
    /// False at the end, with `found` empty.
    bool next(tuples &found)
    {
        etslock_tuples *out = nullptr;
        bool more = detail::answer(etslock_cursor_next(handle_.get(), &out), ETSLOCK_NOT_FOUND);
        found = tuples(out);
        return more;
    }

private:
    detail::handle<etslock_cursor, etslock_cursor_free> handle_;
};

inline etslock::cursor table::cursor() const { return etslock::cursor(*this); }

class table::iterator {
public:
    using iterator_category = std::input_iterator_tag;
    using iterator_concept = std::input_iterator_tag;
    using value_type = tuple_view;
    using difference_type = std::ptrdiff_t;
    using pointer = void;
    using reference = tuple_view;

    explicit iterator(const table &of) : cursor_(of) { next_key(); }
    tuple_view operator*() const noexcept { return found_[at_]; }
    iterator &operator++()
    {
        if (++at_ == found_.size())
            next_key();
        return *this;
    }
    void operator++(int) { ++*this; }
    friend bool operator==(const iterator &at, sentinel) noexcept { return at.found_.empty(); }
    friend bool operator!=(const iterator &at, sentinel) noexcept { return !at.found_.empty(); }
    friend bool operator==(sentinel, const iterator &at) noexcept { return at.found_.empty(); }
    friend bool operator!=(sentinel, const iterator &at) noexcept { return !at.found_.empty(); }

private:
    void next_key()
    {
        at_ = 0;
        cursor_.next(found_);
    }

    etslock::cursor cursor_;
    tuples found_; // of one key; none at the end
    std::size_t at_ = 0;
};

inline table::iterator table::begin() const { return iterator(*this); }

inline etslock::locks lock_table::locks(const table &of) const { return snapshot(of.get()); }

inline bool lock_table::force_release(const table &of, std::string_view key) const
{
    return detail::answer(
        etslock_lock_table_force_release(get(), of.get(), key.data(), key.size()),
        ETSLOCK_NOT_FOUND);
}

} // namespace etslock

#if defined(__cpp_lib_ranges)
// Neither owns what it shows.
template <> inline constexpr bool std::ranges::enable_view<etslock::tuple_range> = true;
template <> inline constexpr bool std::ranges::enable_borrowed_range<etslock::tuple_range> = true;
#endif

#undef ETSLOCK_OF_A_TEMPORARY
#undef ETSLOCK_DELETED

#endif
