/* etslock_memory - bytes per held lock and per tuple, and what cycles leave behind.
 *
 * Workloads: held-locks, tuples, fresh-keys, big-values.
 */
#define _GNU_SOURCE
#include "etslock_bench.h"

static void held_locks(const char *subject, uint64_t count)
{
    etslock_guard **guards = malloc(count * sizeof(void *));
    bench_need(guards != NULL, "memory");
    memset(guards, 0, count * sizeof(void *));
    struct bench_memory before = bench_memory();
    for (uint64_t i = 0; i < count; i++) {
        uint64_t key = BENCH_KEY(i);
        need_ok(etslock_acquire(table, &key, sizeof key, &options, &guards[i]));
    }
    bench_print_memory(subject, "held-locks", before, bench_memory(), (double)count);
    for (uint64_t i = 0; i < count; i++)
        need_ok(etslock_guard_release(guards[i]));
    free(guards);
}

static void tuples(const char *subject, uint64_t count)
{
    struct bench_memory before = bench_memory();
    etslock_table *data = NULL;
    need_ok(etslock_table_new(NULL, &data));
    for (uint64_t i = 0; i < count; i++) {
        uint64_t key = BENCH_KEY(i);
        need_ok(etslock_table_insert(data, &key, sizeof key, &i, sizeof i));
    }
    bench_print_memory(subject, "tuples", before, bench_memory(), (double)count);
    etslock_table_free(data);
}

/* Locks a key that was never seen before, adds to it, and deletes it. */
static int32_t add_and_delete(etslock_guard *guard, const etslock_tuple *found, size_t count,
                              void *key)
{
    uint64_t value = value_of(found, count) + 1;
    etslock_status status = etslock_guard_insert(guard, key, 8, &value, sizeof value);
    return status == ETSLOCK_OK ? etslock_guard_delete(guard, key, 8) : status;
}

static void fresh_keys(const char *subject, uint64_t count)
{
    uint64_t next = 1u << 30;
    struct bench_memory before = {0, 0};
    for (uint64_t i = 0; i < 2 * count; i++) {
        uint64_t key = BENCH_KEY(next++);
        if (i == count) /* the first half is warming up */
            before = bench_memory();
        need_ok(etslock_with_lock(table, &key, sizeof key, add_and_delete, &key, &options, NULL));
    }
    bench_print_memory(subject, "fresh-keys", before, bench_memory(), 1);
}

static int32_t put_big(etslock_guard *guard, const etslock_tuple *found, size_t count, void *bytes)
{
    uint64_t key = BENCH_KEY(0);
    (void)found, (void)count;
    return etslock_guard_insert(guard, &key, sizeof key, bytes, 1u << 20);
}

static void big_values(const char *subject, uint64_t count)
{
    uint64_t key = BENCH_KEY(0);
    char *bytes = calloc(1, 1u << 20);
    struct bench_memory before = {0, 0};
    bench_need(bytes != NULL, "memory");
    for (uint64_t i = 0; i < 100 + count; i++) {
        if (i == 100)
            before = bench_memory();
        bytes[i]++;
        need_ok(etslock_with_lock(table, &key, sizeof key, put_big, bytes, &options, NULL));
    }
    bench_print_memory(subject, "big-values", before, bench_memory(), 1);
    free(bytes);
}

int main(int argc, char **argv)
{
    struct bench_arguments arguments = bench_arguments(argc, argv);
    uint64_t count = bench_number(&arguments, "count", 10000);
    open_table(0);
    options.exec_timeout_ms = ETSLOCK_INFINITE;
    options.run_on = ETSLOCK_RUN_ON_CALLER;
    if (bench_wants(&arguments, "held-locks"))
        held_locks(arguments.subject, count);
    if (bench_wants(&arguments, "tuples"))
        tuples(arguments.subject, count);
    if (bench_wants(&arguments, "fresh-keys"))
        fresh_keys(arguments.subject, count);
    if (bench_wants(&arguments, "big-values"))
        big_values(arguments.subject, bench_number(&arguments, "values", 1000));
    etslock_table_free(table);
    return EXIT_SUCCESS;
}
