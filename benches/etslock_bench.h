/* etslock_bench.h - the library as a subject: a table, options, and the ways to add 1 to a key. */
#ifndef ETSLOCK_BENCH_SUBJECT_H
#define ETSLOCK_BENCH_SUBJECT_H

#include "bench.h"

#include <etslock.h>

static etslock_table *table;
static etslock_options options;

BENCH_INLINE void need_ok(etslock_status status)
{
    if (__builtin_expect(status != ETSLOCK_OK, 0))
        bench_die(etslock_status_name(status));
}

/* Defaults, but for a wait without end: a call that fails would be no work done. */
BENCH_INLINE void open_table(uint64_t keys)
{
    need_ok(etslock_table_new(NULL, &table));
    for (uint64_t i = 0; i < keys; i++) {
        uint64_t key = BENCH_KEY(i), value = 0;
        need_ok(etslock_table_insert(table, &key, sizeof key, &value, sizeof value));
    }
    etslock_options_init(&options, sizeof options);
    options.wait_timeout_ms = ETSLOCK_INFINITE;
}

BENCH_INLINE uint64_t value_of(const etslock_tuple *tuples, size_t count)
{
    uint64_t value = 0;
    if (count > 0)
        memcpy(&value, tuples->value, sizeof value);
    return value;
}

BENCH_INLINE uint64_t read_key(uint64_t key)
{
    etslock_tuples *tuples = NULL;
    size_t count;
    etslock_table_lookup(table, &key, sizeof key, &tuples);
    const etslock_tuple *found = etslock_tuples_data(tuples, &count);
    uint64_t value = value_of(found, count);
    etslock_tuples_free(tuples);
    return value;
}

static int32_t add_one(etslock_guard *guard, const etslock_tuple *tuples, size_t count,
                       void *thread)
{
    const struct bench_thread *me = thread;
    uint64_t value = value_of(tuples, count) + 1;
    bench_section(me);
    return etslock_guard_insert(guard, &me->key, sizeof me->key, &value, sizeof value);
}

/* On the caller or a worker, as `options` says. */
BENCH_INLINE void add_by_call(struct bench_thread *me)
{
    need_ok(etslock_with_lock(table, &me->key, sizeof me->key, add_one, me, &options, NULL));
}

BENCH_INLINE void add_by_guard(struct bench_thread *me)
{
    etslock_guard *guard = NULL;
    etslock_tuples *tuples = NULL;
    size_t count;
    need_ok(etslock_acquire(table, &me->key, sizeof me->key, &options, &guard));
    etslock_status found = etslock_guard_lookup(guard, &me->key, sizeof me->key, &tuples);
    bench_need(found == ETSLOCK_OK || found == ETSLOCK_NOT_FOUND, "lookup");
    const etslock_tuple *data = etslock_tuples_data(tuples, &count);
    uint64_t value = value_of(data, count) + 1;
    etslock_tuples_free(tuples);
    bench_section(me);
    need_ok(etslock_guard_insert(guard, &me->key, sizeof me->key, &value, sizeof value));
    need_ok(etslock_guard_release(guard));
}

#endif
