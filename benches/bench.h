/* bench.h - what the benchmark programs in C and C++ share: clocks, keys, threads, JSON.
 *
 * A program is called as `program SUBJECT WORKLOAD... [name=number]...` and prints one JSON line
 * per workload; benches/run.py starts the programs in turn and puts the lines together.
 * peers-rust/src/lib.rs does the same in Rust: keep the two alike.
 *
 * A workload is a name and a number of threads, as in `zipf:8`:
 *
 *   one       every thread adds to key 0
 *   held      the same, sleeping 1 ms in the section
 *   distinct  thread n adds to key n
 *   uniform   keys at random
 *   zipf      keys by Zipf's law, exponent 0.99
 */
#ifndef ETSLOCK_BENCH_H
#define ETSLOCK_BENCH_H

#ifndef _GNU_SOURCE
#error "define _GNU_SOURCE first: mallinfo2 and getrusage are wanted"
#endif

#include <malloc.h>
#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define BENCH_INLINE static inline __attribute__((unused))

/* -- Ends -- */

BENCH_INLINE void bench_die(const char *what)
{
    fprintf(stderr, "bench: %s\n", what);
    exit(EXIT_FAILURE);
}

BENCH_INLINE void bench_need(int is_true, const char *what)
{
    if (__builtin_expect(!is_true, 0))
        bench_die(what);
}

/* -- Clocks, in nanoseconds -- */

BENCH_INLINE uint64_t bench_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

BENCH_INLINE void bench_sleep(uint64_t ns)
{
    struct timespec time;
    time.tv_sec = (time_t)(ns / 1000000000u);
    time.tv_nsec = (long)(ns % 1000000000u);
    clock_nanosleep(CLOCK_MONOTONIC, 0, &time, NULL);
}

/* What all threads of the process have used, in the kernel and outside. */
BENCH_INLINE uint64_t bench_cpu(void)
{
    struct rusage use;
    getrusage(RUSAGE_SELF, &use);
    return ((uint64_t)use.ru_utime.tv_sec + (uint64_t)use.ru_stime.tv_sec) * 1000000000u +
           ((uint64_t)use.ru_utime.tv_usec + (uint64_t)use.ru_stime.tv_usec) * 1000u;
}

/* -- Memory, in bytes -- */

struct bench_memory {
    int64_t heap;     /* handed out by malloc */
    int64_t resident; /* pages of this process */
};

BENCH_INLINE struct bench_memory bench_memory(void)
{
    struct mallinfo2 info = mallinfo2();
    struct bench_memory memory = {(int64_t)(info.uordblks + info.hblkhd), 0};
    long total = 0, resident = 0;
    FILE *statm = fopen("/proc/self/statm", "r");
    bench_need(statm != NULL && fscanf(statm, "%ld %ld", &total, &resident) == 2, "statm");
    fclose(statm);
    memory.resident = (int64_t)resident * sysconf(_SC_PAGESIZE);
    return memory;
}

BENCH_INLINE void bench_print_memory(const char *subject, const char *workload,
                                     struct bench_memory from, struct bench_memory to, double parts)
{
    printf("{\"subject\":\"%s\",\"workload\":\"%s\",\"heap\":%.2f,\"resident\":%.2f}\n", subject,
           workload, (double)(to.heap - from.heap) / parts,
           (double)(to.resident - from.resident) / parts);
    fflush(stdout);
}

/* -- Keys -- */

#define BENCH_KEY(index) ((uint64_t)(index) * 0x9E3779B97F4A7C15u)

BENCH_INLINE uint64_t bench_random(uint64_t *state)
{
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

BENCH_INLINE uint64_t bench_below(uint64_t *state, uint64_t bound)
{
    return ((bench_random(state) >> 32) * bound) >> 32;
}

#define BENCH_DRAWS (1u << 20)

/* Drawn ahead, so that no subject pays for the drawing. The method is Gray's, as in YCSB. */
BENCH_INLINE uint32_t *bench_draw_zipf(uint64_t keys)
{
    const double theta = 0.99, alpha = 1.0 / (1.0 - theta);
    double zeta = 0;
    for (uint64_t i = 1; i <= keys; i++)
        zeta += pow((double)i, -theta);
    double zeta2 = 1.0 + pow(0.5, theta);
    double eta = (1.0 - pow(2.0 / (double)keys, 1.0 - theta)) / (1.0 - zeta2 / zeta);

    uint32_t *draws = (uint32_t *)malloc(BENCH_DRAWS * sizeof *draws);
    bench_need(draws != NULL, "memory");
    uint64_t random = 42;
    for (uint64_t i = 0; i < BENCH_DRAWS; i++) {
        double u = (double)(bench_random(&random) >> 11) * 0x1p-53, uz = u * zeta;
        uint64_t rank = uz < 1.0     ? 0
                        : uz < zeta2 ? 1
                                     : (uint64_t)((double)keys * pow(eta * u - eta + 1.0, alpha));
        if (rank >= keys)
            rank = keys - 1;
        /* Popular keys lie anywhere, not side by side. */
        draws[i] = (uint32_t)(rank * 2654435761u % keys);
    }
    return draws;
}

/* -- The command line -- */

struct bench_arguments {
    const char *subject;
    int count;
    char **words;
};

BENCH_INLINE struct bench_arguments bench_arguments(int argc, char **argv)
{
    bench_need(argc >= 3, "usage: program SUBJECT WORKLOAD... [name=number]...");
    struct bench_arguments arguments = {argv[1], argc - 2, argv + 2};
    return arguments;
}

BENCH_INLINE uint64_t bench_number(const struct bench_arguments *arguments, const char *name,
                                   uint64_t otherwise)
{
    size_t length = strlen(name);
    for (int i = 0; i < arguments->count; i++)
        if (strncmp(arguments->words[i], name, length) == 0 && arguments->words[i][length] == '=')
            return strtoull(arguments->words[i] + length + 1, NULL, 10);
    return otherwise;
}

BENCH_INLINE int bench_wants(const struct bench_arguments *arguments, const char *workload)
{
    for (int i = 0; i < arguments->count; i++)
        if (strcmp(arguments->words[i], workload) == 0)
            return 1;
    return 0;
}

/* -- Rates: threads that do the same for a while -- */

enum bench_kind { BENCH_ONE, BENCH_HELD, BENCH_DISTINCT, BENCH_UNIFORM, BENCH_ZIPF };

struct bench_thread {
    uint64_t ops; /* the only word that another thread reads */
    uint64_t random;
    uint64_t draw;
    uint64_t key; /* of the operation under way */
    uint64_t index;
    uint64_t keys;
    const uint32_t *draws;
    enum bench_kind kind;
    const int *stop;
    pthread_barrier_t *start;
    pthread_t id;
    char apart[128]; /* no two threads' words in one cache line */
};

BENCH_INLINE uint64_t bench_next_key(struct bench_thread *me)
{
    switch (me->kind) {
    case BENCH_UNIFORM:
        return BENCH_KEY(bench_below(&me->random, me->keys));
    case BENCH_ZIPF:
        return BENCH_KEY(me->draws[me->draw++ % BENCH_DRAWS]);
    case BENCH_DISTINCT:
        return BENCH_KEY(me->index);
    default:
        return BENCH_KEY(0);
    }
}

/* What every subject does inside its section, besides reading, adding and writing. */
BENCH_INLINE void bench_section(const struct bench_thread *me)
{
    if (me->kind == BENCH_HELD)
        bench_sleep(1000000);
}

/* Defines the thread routine `name`, which calls `add(me)` until it is told to stop. A macro, so
 * that the call is direct for every subject. */
#define BENCH_ROUTINE(name, add)                                                                   \
    static void *name(void *argument)                                                              \
    {                                                                                              \
        struct bench_thread *me = (struct bench_thread *)argument;                                 \
        pthread_barrier_wait(me->start);                                                           \
        while (!__atomic_load_n(me->stop, __ATOMIC_RELAXED)) {                                     \
            me->key = bench_next_key(me);                                                          \
            add(me);                                                                               \
            __atomic_store_n(&me->ops, me->ops + 1, __ATOMIC_RELAXED);                             \
        }                                                                                          \
        return NULL;                                                                               \
    }

#define BENCH_THREADS_MAX 256

/* Runs one workload of the command line, and prints its line. `read` tells the value of a key, to
 * see that the subject has done the work; 0 operations may be lost. */
BENCH_INLINE void bench_rate(const struct bench_arguments *arguments, const char *workload,
                             void *(*routine)(void *), uint64_t (*read)(uint64_t key))
{
    static const char *const names[] = {"one", "held", "distinct", "uniform", "zipf"};
    char name[32];
    int threads = 0, kind = -1, stop = 0;
    bench_need(sscanf(workload, "%31[a-z]:%d", name, &threads) == 2, workload);
    for (int i = 0; i < 5; i++)
        if (strcmp(name, names[i]) == 0)
            kind = i;
    bench_need(kind >= 0 && threads >= 1 && threads <= BENCH_THREADS_MAX, workload);

    uint64_t ns = bench_number(arguments, "ms", 200) * 1000000u;
    if (threads > 8)
        ns *= bench_number(arguments, "crowd", 1); /* many threads take turns: time for all */
    uint64_t keys = bench_number(arguments, "keys", 64), before[BENCH_THREADS_MAX], read_before = 0;
    uint32_t *draws = kind == BENCH_ZIPF ? bench_draw_zipf(keys) : NULL;
    struct bench_thread *all = (struct bench_thread *)calloc((size_t)threads, sizeof *all);
    pthread_barrier_t start;
    bench_need(all != NULL && pthread_barrier_init(&start, NULL, (unsigned)threads + 1) == 0,
               "memory");
    if (kind <= BENCH_HELD)
        read_before = read(BENCH_KEY(0));
    for (int i = 0; i < threads; i++) {
        struct bench_thread *me = &all[i];
        me->random = (uint64_t)i * 1000003u + 7;
        me->draw = (uint64_t)i * (BENCH_DRAWS / BENCH_THREADS_MAX);
        me->index = (uint64_t)i;
        me->keys = keys;
        me->draws = draws;
        me->kind = (enum bench_kind)kind;
        me->stop = &stop;
        me->start = &start;
        bench_need(pthread_create(&me->id, NULL, routine, me) == 0, "thread");
    }

    pthread_barrier_wait(&start);
    bench_sleep(ns / 4); /* warm up */
    uint64_t cpu = bench_cpu(), began = bench_now();
    for (int i = 0; i < threads; i++)
        before[i] = __atomic_load_n(&all[i].ops, __ATOMIC_RELAXED);
    bench_sleep(ns);
    uint64_t elapsed = bench_now() - began, total = 0, most = 0, least = UINT64_MAX;
    cpu = bench_cpu() - cpu;
    for (int i = 0; i < threads; i++) {
        uint64_t ops = __atomic_load_n(&all[i].ops, __ATOMIC_RELAXED) - before[i];
        total += ops;
        most = ops > most ? ops : most;
        least = ops < least ? ops : least;
    }
    __atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
    uint64_t all_ops = 0;
    for (int i = 0; i < threads; i++) {
        pthread_join(all[i].id, NULL);
        all_ops += all[i].ops;
    }
    if (kind <= BENCH_HELD)
        bench_need(read(BENCH_KEY(0)) - read_before == all_ops, "operations were lost");

    printf("{\"subject\":\"%s\",\"workload\":\"%s\",\"threads\":%d,\"rate\":%.1f,\"ns\":%.2f,"
           "\"max_min\":%.3f,\"cpu\":%.4f}\n",
           arguments->subject, workload, threads, (double)total * 1e9 / (double)elapsed,
           (double)elapsed * threads / (double)(total ? total : 1),
           total ? (double)most / (double)(least ? least : 1) : 1e9, (double)cpu / (double)elapsed);
    fflush(stdout);
    pthread_barrier_destroy(&start);
    free(draws);
    free(all);
}

/* Runs every word of the command line that has a colon in it. */
BENCH_INLINE void bench_rates(const struct bench_arguments *arguments, void *(*routine)(void *),
                              uint64_t (*read)(uint64_t key))
{
    for (int i = 0; i < arguments->count; i++)
        if (strchr(arguments->words[i], ':') != NULL)
            bench_rate(arguments, arguments->words[i], routine, read);
}

/* -- Latencies -- */

struct bench_samples {
    uint64_t *ns;
    size_t count;
};

BENCH_INLINE struct bench_samples bench_samples(size_t count)
{
    struct bench_samples samples = {(uint64_t *)calloc(count, sizeof(uint64_t)), count};
    bench_need(samples.ns != NULL, "memory");
    return samples;
}

BENCH_INLINE int bench_compare(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return left < right ? -1 : left > right;
}

BENCH_INLINE uint64_t bench_percentile(const struct bench_samples *sorted, double percent)
{
    return sorted->ns[(size_t)((double)(sorted->count - 1) * percent / 100.0 + 0.5)];
}

/* Sorts the samples and prints their line; frees them. `more` is NULL, or more JSON members. */
BENCH_INLINE void bench_print_samples(const char *subject, const char *workload,
                                      struct bench_samples samples, const char *more)
{
    static const double percents[] = {1, 5, 10, 25, 50, 75, 90, 95, 99, 99.9};
    qsort(samples.ns, samples.count, sizeof *samples.ns, bench_compare);
    printf("{\"subject\":\"%s\",\"workload\":\"%s\",\"samples\":%zu%s", subject, workload,
           samples.count, more ? more : "");
    for (size_t i = 0; i < sizeof percents / sizeof *percents; i++)
        printf(",\"p%g\":%llu", percents[i],
               (unsigned long long)bench_percentile(&samples, percents[i]));
    puts("}");
    fflush(stdout);
    free(samples.ns);
}

/* `add(me)` on one key, back to back or 100 us apart, each timed; then idle CPU use. */
BENCH_INLINE void bench_calls(const struct bench_arguments *arguments,
                              void (*add)(struct bench_thread *))
{
    struct bench_thread me;
    memset(&me, 0, sizeof me);
    me.key = BENCH_KEY(0);
    for (int apart = 0; apart <= 1; apart++) {
        const char *workload = apart ? "calls-apart" : "calls-back-to-back";
        if (!bench_wants(arguments, workload))
            continue;
        struct bench_samples samples = bench_samples(
            bench_number(arguments, apart ? "apart" : "calls", apart ? 1000 : 10000));
        /* A subject that is a thousand times slower than meant gets fewer samples. */
        uint64_t enough = bench_now() + bench_number(arguments, "calls_ms", 2000) * 1000000u;
        for (size_t i = 0; i < samples.count / 10 && bench_now() < enough; i++)
            add(&me);
        uint64_t cpu = bench_cpu();
        for (size_t i = 0; i < samples.count; i++) {
            if (i > 0 && bench_now() > enough) {
                samples.count = i;
                break;
            }
            if (apart)
                bench_sleep(100000);
            uint64_t began = bench_now();
            add(&me);
            samples.ns[i] = bench_now() - began;
        }
        double cpu_per_call = (double)(bench_cpu() - cpu) / (double)samples.count;
        bench_sleep(20000000);
        uint64_t idle_from = bench_now(), idle_cpu = bench_cpu();
        bench_sleep(300000000);
        char more[128];
        snprintf(more, sizeof more, ",\"cpu_per_call\":%.0f,\"idle_cpu\":%.6f", cpu_per_call,
                 (double)(bench_cpu() - idle_cpu) / (double)(bench_now() - idle_from));
        bench_print_samples(arguments->subject, workload, samples, more);
    }
}

#endif
