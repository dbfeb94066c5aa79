/* etslock_scale - what a call costs while others hold many locks, and what a release costs while
 * many wait for its key.
 *
 * Workloads: held (call cost at 10, 10^3, 10^5, 10^6 held locks), waiters.
 */
#define _GNU_SOURCE
#include "etslock_bench.h"

/* The called keys: few enough to stay in the caches by themselves. */
#define CALLED 1024

static double cost_per_call(uint64_t calls)
{
    struct bench_thread me;
    memset(&me, 0, sizeof me);
    me.random = 7;
    uint64_t began = 0;
    for (uint64_t i = 0; i < calls + calls / 4; i++) {
        if (i == calls / 4) /* the first quarter is warming up */
            began = bench_now();
        me.key = BENCH_KEY(bench_below(&me.random, CALLED));
        add_by_call(&me);
    }
    return (double)(bench_now() - began) / (double)calls;
}

/* One random read of an array as large as the memory of the held locks: what their number costs
 * in caches alone. */
static double cost_of_caches(uint64_t bytes)
{
    uint64_t words = bytes / sizeof(uint64_t) + 16, random = 7, sum = 0;
    uint64_t *array = malloc(words * sizeof *array);
    bench_need(array != NULL && words < UINT32_MAX, "memory");
    for (uint64_t i = 0; i < words; i++)
        array[i] = i;
    uint64_t began = bench_now();
    for (int i = 0; i < 1000000; i++) /* each read depends on the one before */
        sum += array[(bench_below(&random, words) ^ (sum & 1)) % words];
    uint64_t elapsed = bench_now() - began;
    *(volatile uint64_t *)array = sum;
    free(array);
    return (double)elapsed / 1e6;
}

static void held(const char *subject, uint64_t calls, uint64_t most)
{
    etslock_guard **guards = calloc(most, sizeof(void *));
    bench_need(guards != NULL, "memory");
    int64_t empty = bench_memory().heap;
    uint64_t held = 0;
    for (uint64_t level = 10; level <= most; level = level == 10 ? 1000 : level == 1000 ? 100000
                                                                        : level * 10) {
        for (; held < level; held++) {
            uint64_t key = BENCH_KEY(CALLED + held);
            need_ok(etslock_acquire(table, &key, sizeof key, &options, &guards[held]));
        }
        int64_t bytes = bench_memory().heap - empty;
        printf("{\"subject\":\"%s\",\"workload\":\"held\",\"held\":%llu,\"ns\":%.2f,"
               "\"caches\":%.2f}\n",
               subject, (unsigned long long)held, cost_per_call(calls),
               cost_of_caches((uint64_t)(bytes > 0 ? bytes : 0)));
        fflush(stdout);
    }
    for (uint64_t i = 0; i < held; i++)
        need_ok(etslock_guard_release(guards[i]));
    free(guards);
}

/* Time on the processor only: a thread that was woken may run first. */
static uint64_t thread_cpu(void)
{
    struct timespec used;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
    return (uint64_t)used.tv_sec * 1000000000u + (uint64_t)used.tv_nsec;
}

static uint64_t turns; /* touched by the holder of the lock only */
static struct bench_samples release_ns;

static void *wait_once(void *unused)
{
    uint64_t key = BENCH_KEY(0);
    etslock_guard *guard = NULL;
    need_ok(etslock_acquire(table, &key, sizeof key, &options, &guard));
    uint64_t turn = turns++, began = thread_cpu();
    need_ok(etslock_guard_release(guard));
    release_ns.ns[turn] = thread_cpu() - began;
    return unused;
}

static uint64_t median_of(size_t first, size_t count)
{
    struct bench_samples part = {release_ns.ns + first, count};
    qsort(part.ns, part.count, sizeof *part.ns, bench_compare);
    return bench_percentile(&part, 50);
}

/* `most` threads wait for one key; each releases as soon as it has it, so that every number of
 * waiters is met. */
static void waiters(const char *subject, uint64_t most)
{
    pthread_t *threads = calloc(most, sizeof *threads);
    pthread_attr_t small;
    uint64_t key = BENCH_KEY(0);
    etslock_guard *guard = NULL;
    etslock_stats stats;
    release_ns = bench_samples(most);
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 64 * 1024);
    need_ok(etslock_lock_table_new(&options.lock_table));
    need_ok(etslock_acquire(table, &key, sizeof key, &options, &guard));
    for (uint64_t i = 0; i < most; i++)
        bench_need(pthread_create(&threads[i], &small, wait_once, NULL) == 0, "thread");
    do {
        bench_sleep(10000000);
        etslock_stats_init(&stats, sizeof stats);
        need_ok(etslock_lock_table_stats(options.lock_table, &stats));
    } while (stats.waiting < most);
    bench_sleep(50000000);
    need_ok(etslock_guard_release(guard));
    for (uint64_t i = 0; i < most; i++)
        pthread_join(threads[i], NULL);

    uint64_t tenth = most / 10;
    uint64_t few = median_of(most - tenth, tenth), many = median_of(0, tenth);
    printf("{\"subject\":\"%s\",\"workload\":\"waiters\",\"waiters\":%llu,\"many\":%llu,"
           "\"few\":%llu}\n",
           subject, (unsigned long long)most, (unsigned long long)many, (unsigned long long)few);
    etslock_lock_table_free(options.lock_table);
    free(release_ns.ns);
    free(threads);
}

int main(int argc, char **argv)
{
    struct bench_arguments arguments = bench_arguments(argc, argv);
    open_table(CALLED);
    options.exec_timeout_ms = ETSLOCK_INFINITE;
    options.run_on = ETSLOCK_RUN_ON_CALLER;
    if (bench_wants(&arguments, "held"))
        held(arguments.subject, bench_number(&arguments, "calls", 100000),
             bench_number(&arguments, "most", 1000000));
    if (bench_wants(&arguments, "waiters"))
        waiters(arguments.subject, bench_number(&arguments, "waiters", 10000));
    etslock_table_free(table);
    return EXIT_SUCCESS;
}
