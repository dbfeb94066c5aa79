/* locks.h - tables and options for tests, locks that are held or tried, and what lock tables say
 * of them. A lock table of NULL is the process's own.
 */
#ifndef ETSLOCK_TESTS_LOCKS_H
#define ETSLOCK_TESTS_LOCKS_H

#include "check.h"

/* --- tables --- */

static inline etslock_table *new_table_with(const etslock_table_options *options)
{
    etslock_table *table = NULL;
    REQUIRE(etslock_table_new(options, &table) == ETSLOCK_OK);
    REQUIRE(table != NULL);
    return table;
}

static inline etslock_table *new_table(void)
{
    return new_table_with(NULL);
}

static inline etslock_table *new_table_of(int32_t type)
{
    etslock_table_options options;
    etslock_table_options_init(&options, sizeof options);
    options.type = type;
    return new_table_with(&options);
}

static inline etslock_table *new_table_named(const char *name)
{
    etslock_table_options options;
    etslock_table_options_init(&options, sizeof options);
    options.name = name;
    return new_table_with(&options);
}

static inline etslock_lock_table *new_lock_table(void)
{
    etslock_lock_table *lock_table = NULL;
    REQUIRE(etslock_lock_table_new(&lock_table) == ETSLOCK_OK);
    REQUIRE(lock_table != NULL);
    return lock_table;
}

static inline int tuple_is(const etslock_tuple *tuple, const char *value)
{
    return tuple->value_len == strlen(value) &&
           (tuple->value_len == 0 || memcmp(tuple->value, value, tuple->value_len) == 0);
}

/* Whether the key has exactly one tuple, with this value. */
static inline int has_value(etslock_table *table, const char *key, const char *value)
{
    etslock_tuples *tuples = NULL;
    const etslock_tuple *data;
    size_t count = 0;
    int only;
    if (etslock_table_lookup(table, key, strlen(key), &tuples) != ETSLOCK_OK)
        return 0;
    data = etslock_tuples_data(tuples, &count);
    only = count == 1 && tuple_is(&data[0], value);
    etslock_tuples_free(tuples);
    return only;
}

/* --- options --- */

static inline etslock_options options_of(int64_t wait_ms, int64_t exec_ms, int64_t fail_ms)
{
    etslock_options options;
    etslock_options_init(&options, sizeof options);
    options.wait_timeout_ms = wait_ms;
    options.exec_timeout_ms = exec_ms;
    options.fail_timeout_ms = fail_ms;
    return options;
}

/* Waits and holds for as long as it takes. */
static inline etslock_options patient(etslock_lock_table *lock_table)
{
    etslock_options options;
    etslock_options_init(&options, sizeof options);
    options.wait_timeout_ms = ETSLOCK_INFINITE;
    options.exec_timeout_ms = ETSLOCK_INFINITE;
    options.lock_table = lock_table;
    return options;
}

/* --- locks --- */

/* A `user_data_free` that counts. */
static inline void add_one(void *counter)
{
    __atomic_fetch_add((int *)counter, 1, __ATOMIC_SEQ_CST);
}

static inline int32_t do_nothing(etslock_guard *guard, const etslock_tuple *tuples,
                                 size_t tuple_count, void *user_data)
{
    (void)guard, (void)tuples, (void)tuple_count, (void)user_data;
    return 0;
}

static inline int32_t must_not_run(etslock_guard *guard, const etslock_tuple *tuples,
                                   size_t tuple_count, void *user_data)
{
    (void)guard, (void)tuples, (void)tuple_count, (void)user_data;
    CHECK(!"a callback ran that must not");
    return 0;
}

/* The guard of a lock that can be had. */
static inline etslock_guard *hold_with(etslock_options options, etslock_table *table,
                                       const char *key)
{
    etslock_guard *guard = NULL;
    REQUIRE(etslock_acquire(table, key, strlen(key), &options, &guard) == ETSLOCK_OK);
    return guard;
}

static inline etslock_guard *hold(etslock_table *table, const char *key)
{
    return hold_with(options_of(HANGS_MS, ETSLOCK_INFINITE, ETSLOCK_INFINITE), table, key);
}

/* One attempt; gives back what it gets. */
static inline etslock_status try_lock_with(etslock_options options, etslock_table *table,
                                           const char *key)
{
    etslock_guard *guard = NULL;
    etslock_status status;
    options.wait_timeout_ms = 0;
    status = etslock_acquire(table, key, strlen(key), &options, &guard);
    if (status == ETSLOCK_OK)
        CHECK_STATUS(etslock_guard_cancel(guard), ETSLOCK_OK);
    return status;
}

static inline etslock_status try_lock(etslock_table *table, const char *key)
{
    return try_lock_with(patient(NULL), table, key);
}

/* --- what lock tables say --- */

static inline etslock_stats stats_of(etslock_lock_table *lock_table)
{
    etslock_stats stats;
    etslock_stats_init(&stats, sizeof stats);
    REQUIRE(etslock_lock_table_stats(lock_table, &stats) == ETSLOCK_OK);
    return stats;
}

static inline etslock_locks *locks_of(etslock_lock_table *lock_table, etslock_table *table)
{
    etslock_locks *locks = NULL;
    REQUIRE(etslock_lock_table_locks(lock_table, table, &locks) == ETSLOCK_OK);
    REQUIRE(locks != NULL);
    return locks;
}

static inline size_t count_locks(etslock_lock_table *lock_table, etslock_table *table)
{
    etslock_locks *locks = locks_of(lock_table, table);
    size_t count = etslock_locks_count(locks);
    etslock_locks_free(locks);
    return count;
}

/* Whether a key is locked. The pointers of `out_info` live as long as the snapshot. */
static inline int find_lock(const etslock_locks *locks, const char *key,
                            etslock_lock_info *out_info)
{
    size_t i;
    for (i = 0; i < etslock_locks_count(locks); i++) {
        out_info->struct_size = sizeof *out_info;
        REQUIRE(etslock_locks_get(locks, i, out_info) == ETSLOCK_OK);
        if (out_info->key_len == strlen(key) && memcmp(out_info->key, key, strlen(key)) == 0)
            return 1;
    }
    return 0;
}

static inline int is_locked(etslock_lock_table *lock_table, etslock_table *table, const char *key)
{
    etslock_locks *locks = locks_of(lock_table, table);
    etslock_lock_info info;
    int found = find_lock(locks, key, &info);
    etslock_locks_free(locks);
    return found;
}

/* How many stand in the queue of a key. */
static inline uint64_t queue_length(etslock_lock_table *lock_table, etslock_table *table,
                                    const char *key)
{
    etslock_locks *locks = locks_of(lock_table, table);
    etslock_lock_info info;
    uint64_t waiters = find_lock(locks, key, &info) ? info.waiters : 0;
    etslock_locks_free(locks);
    return waiters;
}

static inline void await_queue(etslock_lock_table *lock_table, etslock_table *table,
                               const char *key, uint64_t length)
{
    WAIT_UNTIL(queue_length(lock_table, table, key) == length);
}

/* Those who poll wait too, outside the queue. */
static inline void await_waiting(etslock_lock_table *lock_table, uint64_t waiting)
{
    WAIT_UNTIL(stats_of(lock_table).waiting == waiting);
}

static inline void await_abandoned(uint64_t abandoned)
{
    WAIT_UNTIL(stats_of(NULL).abandoned == abandoned);
}

#endif
