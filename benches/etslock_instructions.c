/* etslock_instructions - fixed work, for counting what the processor executes for it.
 *
 * Usage: etslock_instructions WORK CALLS. scripts/bench-instructions.sh runs each work with two
 * numbers of calls under callgrind: the difference is what the calls themselves cost.
 *
 * No call on a worker: how long two threads look for each other is a matter of time, so that its count
 * does not come again (3,670 and 4,470 in two runs).
 */
#define _GNU_SOURCE
#include "etslock_bench.h"

#include <sys/random.h>

/* In place of the system's: the library seeds its hashes with it, and a count must come again. */
ssize_t getrandom(void *buffer, size_t len, unsigned flags)
{
    (void)flags;
    memset(buffer, 0x5a, len);
    return (ssize_t)len;
}

/* Enough keys that what a thread used lately is not what it uses next; few enough for every cache. */
enum { KEYS = 1000 };

static void call(struct bench_thread *me) { add_by_call(me); }
static void guards(struct bench_thread *me) { add_by_guard(me); }
static void lookup(struct bench_thread *me) { bench_need(read_key(me->key) == 0, "a value of 0"); }

static void insert(struct bench_thread *me)
{
    uint64_t value = 0;
    need_ok(etslock_table_insert(table, &me->key, sizeof me->key, &value, sizeof value));
}

static void lock_only(struct bench_thread *me)
{
    etslock_guard *guard = NULL;
    need_ok(etslock_acquire(table, &me->key, sizeof me->key, &options, &guard));
    need_ok(etslock_guard_cancel(guard));
}

static void fresh(struct bench_thread *me)
{
    static uint64_t next = 1000 * KEYS;
    uint64_t key = BENCH_KEY(next++), value = 0;
    (void)me;
    need_ok(etslock_table_insert(table, &key, sizeof key, &value, sizeof value));
    need_ok(etslock_table_delete(table, &key, sizeof key));
}

static void two_keys(struct bench_thread *me)
{
    uint64_t other = BENCH_KEY(KEYS);
    etslock_key keys[2] = {{&me->key, sizeof me->key}, {&other, sizeof other}};
    etslock_guard *guard = NULL;
    need_ok(etslock_acquire_locks(table, keys, 2, &options, &guard));
    need_ok(etslock_guard_cancel(guard));
}

static const struct {
    const char *name;
    void (*work)(struct bench_thread *);
    int keys;
} works[] = {
    {"call-one-key", call, 1},   {"call", call, KEYS},           {"guards-one-key", guards, 1},
    {"guards", guards, KEYS},    {"lock-only", lock_only, KEYS}, {"two-keys", two_keys, KEYS},
    {"lookup", lookup, KEYS},    {"insert", insert, KEYS},       {"fresh-key", fresh, 1},
};

int main(int argc, char **argv)
{
    bench_need(argc == 3, "usage: etslock_instructions WORK CALLS");
    for (size_t i = 0; i < sizeof works / sizeof *works; i++) {
        if (strcmp(works[i].name, argv[1]) != 0)
            continue;
        struct bench_thread me = {0};
        open_table(KEYS + 1);
        options.run_on = ETSLOCK_RUN_ON_CALLER;
        for (long n = 0, calls = atol(argv[2]); n < calls; n++) {
            me.key = BENCH_KEY((uint64_t)(n % works[i].keys));
            works[i].work(&me);
        }
        etslock_table_free(table);
        return EXIT_SUCCESS;
    }
    bench_die("no such work");
}
