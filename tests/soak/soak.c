/* soak.c - everything at once, for a while, with books of our own that are compared all the time.
 *
 * Run: soak [--broken exclusion|fence] [seconds [seed]]
 *
 * Callers come and go, and lock hot and cold keys of tables of all types in every way, with
 * deadlines short and long; their callbacks write, sleep, fail, nest, run away, end their threads
 * and are killed; guards are moved and dropped, locks taken away by force, processes forked, all
 * of it beside CPU hogs. books.h says what can be found, visits.h how a holder knows that it is
 * not alone. A first quarter of the time warms up; then threads and memory are measured, and have
 * to be back there at the end.
 *
 * With --broken the soak breaks what the library promises, as a control of itself: "exclusion" uses
 * many lock tables for each key, "fence" lets runaways write without a guard. It has to complain,
 * and ends once it has.
 */
#include "chaos.h"

#ifdef __GLIBC__
#include <malloc.h>
#endif

enum { CALLERS_AT_ONCE = 12, RACERS = 4, HOGS = 2 };

/* By how much a wait may end too late: beside CPU hogs and as many threads as here a thread may have
 * to wait for a core for long, and what this machine made a mere sleep late comes on top. Locks
 * that are held throughout, and callbacks that linger, make a wait that misses its deadline miss
 * it by far more than this.
 */
enum { SLACK_US = 2000000 };

/* What memory may differ by: the heap keeps holes, more of them with more threads. A leak of one
 * small block in each call would be far more.
 */
enum { MEMORY_SLACK_KIB = 8 * 1024 };

static uint64_t seed;
static long seconds;
static etslock_guard *stones[TABLES];

/* --- what is measured --- */

struct measure {
    long threads;
    long memory_kib;
};

static struct measure at_start, at_end;

static long count_threads(void)
{
    char line[128];
    long threads = 0;
    FILE *status = fopen("/proc/self/status", "r");
    REQUIRE(status != NULL);
    while (fgets(line, sizeof line, status) != NULL)
        if (sscanf(line, "Threads: %ld", &threads) == 1)
            break;
    fclose(status);
    return threads;
}

static struct measure measure(void)
{
    struct measure measure;
#ifdef __GLIBC__
    malloc_trim(0); /* what is free is not to be measured */
#endif
    measure.threads = count_threads();
    measure.memory_kib = resident_bytes() / 1024;
    return measure;
}

/* --- a round --- */

static uint64_t new_random(void)
{
    static uint64_t last;
    last += 0x9e3779b97f4a7c15u;
    return (seed + 1) * 0xd1b54a32d192ed03u ^ last;
}

static void *do_nothing_at_all(void *unused)
{
    return unused;
}

static void start(pthread_t *thread, void *(*routine)(void *), void *argument)
{
    REQUIRE(pthread_create(thread, NULL, routine, argument) == 0);
}

/* A control has come to what it is for. */
static int is_found_out(void)
{
    enum finding sign = breaks_exclusion ? TWO_HOLDERS : LATE_WRITE;
    return (breaks_exclusion || breaks_the_fence) && load(&found[sign]) != 0 &&
           load(&found[LOST_UPDATE]) != 0;
}

/* Sees to it that callers come and go. */
static void direct(struct caller *callers, int64_t end_ms)
{
    uint64_t random = new_random();
    int i;
    for (i = 0; i < CALLERS_AT_ONCE; i++)
        start_caller(&callers[i]);
    while (now_ms() < end_ms && !is_found_out()) {
        sleep_ms((int64_t)draw(&random, 100));
        i = (int)draw(&random, CALLERS_AT_ONCE);
        end_caller(&callers[i], once_in(&random, 2));
        start_caller(&callers[i]);
    }
    for (i = 0; i < CALLERS_AT_ONCE; i++)
        end_caller(&callers[i], 0);
}

static void play_round(int64_t length_ms)
{
    struct caller callers[CALLERS_AT_ONCE];
    struct player players[PLAYERS];
    struct troublemaker bystander, racers[RACERS], hogs[HOGS];
    pthread_t reader, moving, dropping, watching;
    int i;

    __atomic_store_n(&stopping, 0, __ATOMIC_RELAXED);
    must_end_ms = now_ms() + length_ms + ENDS_WITHIN_MS;
    for (i = 0; i < TABLES; i++)
        stones[i] = hold_with(patient(lock_table_of(i)), tables[i], books[i][HELD].key);
    for (i = 0; i < CALLERS_AT_ONCE; i++)
        callers[i].random = new_random();
    start(&watching, watch, NULL);
    start(&moving, move_guards, NULL);
    start(&dropping, end_dropped_guards, NULL);
    start(&reader, read_everything, NULL);
    bystander.random = new_random();
    start(&bystander.thread, force_releases, &bystander);
    for (i = 0; i < RACERS; i++) {
        racers[i].random = new_random();
        start(&racers[i].thread, race, &racers[i]);
    }
    for (i = 0; i < HOGS; i++) {
        hogs[i].random = new_random();
        start(&hogs[i].thread, hog, &hogs[i]);
    }
    for (i = 0; i < PLAYERS; i++) {
        players[i].random = new_random();
        players[i].leads = i == 0;
        start(&players[i].thread, take_turns, &players[i]);
    }

    direct(callers, now_ms() + length_ms);

    __atomic_store_n(&stopping, 1, __ATOMIC_RELAXED);
    for (i = 0; i < PLAYERS; i++)
        pthread_join(players[i].thread, NULL);
    for (i = 0; i < RACERS; i++)
        pthread_join(racers[i].thread, NULL);
    for (i = 0; i < HOGS; i++)
        pthread_join(hogs[i].thread, NULL);
    pthread_join(bystander.thread, NULL);
    pthread_join(reader, NULL);
    sem_post(&mover.given); /* of nothing: the end */
    pthread_join(moving, NULL);
    sem_post(&attic_closes);
    pthread_join(dropping, NULL);
    for (i = 0; i < TABLES; i++)
        REQUIRE(etslock_guard_cancel(stones[i]) == ETSLOCK_OK);
    sem_post(&watch_ends);
    pthread_join(watching, NULL);
}

/* --- the end of a round --- */

static int calls_under_way(void)
{
    int i, under_way = 0;
    for (i = 0; i < CALLS; i++)
        under_way += load(&calls[i].taken) != 0;
    return under_way;
}

/* Callbacks that linger or are about to be killed, and workers that nobody needs, end soon. */
static void await_none(const char *what, uint64_t (*left)(void))
{
    enum { SOON_MS = 30000 };
    int64_t end = now_ms() + SOON_MS;
    while (left() != 0 && now_ms() < end)
        sleep_ms(5);
    if (left() != 0)
        report(LEFT_BEHIND, "%s: %llu", what, (unsigned long long)left());
}

static uint64_t calls_left(void) { return (uint64_t)calls_under_way(); }
static uint64_t abandoned_left(void) { return stats_of(NULL).abandoned; }
static uint64_t workers_left(void) { return stats_of(NULL).workers; }
static uint64_t threads_left(void) { return (uint64_t)(count_threads() - at_start.threads); }

static void check_lock_table(etslock_lock_table *lock_table)
{
    etslock_stats stats = stats_of(lock_table);
    if (stats.held != 0 || stats.waiting != 0 || count_locks(lock_table, NULL) != 0)
        report(LEFT_BEHIND, "%llu held, %llu waiting, %zu in the list of locks",
               (unsigned long long)stats.held, (unsigned long long)stats.waiting,
               count_locks(lock_table, NULL));
}

static void end_round(void)
{
    etslock_stats first, second;
    int table, i;
    await_none("calls that nobody is done with", calls_left);
    await_none("abandoned callbacks", abandoned_left);
    await_none("workers", workers_left);
    await_none("threads", threads_left);
    check_lock_table(NULL);
    check_lock_table(own_lock_table);
    for (table = 0; table < TABLES; table++) {
        for (i = 0; i < KEYS; i++) {
            const struct book *book = &books[table][i];
            audit(book);
            if (book->pending != 0 || book->patient != 0 || book->inside != 0)
                report(LEFT_BEHIND, "in the book of %s", book->key);
        }
    }
    if (breaks_exclusion)
        return;
    first = stats_of(NULL);
    second = stats_of(own_lock_table);
    if (first.wait_timeouts + second.wait_timeouts != statuses[ETSLOCK_WAIT_TIMEOUT] ||
        first.deadlocks + second.deadlocks != statuses[ETSLOCK_DEADLOCK] ||
        first.forced_releases + second.forced_releases < figures[FORCED])
        report(BAD_SNAPSHOT, "the counters are not those of the answers");
}

/* --- the report --- */

static void print_figures(void)
{
    etslock_stats first = stats_of(NULL), second = stats_of(own_lock_table);
    int i;
    printf("soak: %ld s, seed %llu\n", seconds, (unsigned long long)seed);
    for (i = 0; i < FIGURES; i++)
        printf("  %-20s %12llu\n", figure_names[i], (unsigned long long)load(&figures[i]));
    for (i = 0; i < STATUSES; i++)
        if (load(&statuses[i]) != 0)
            printf("  %-24s %8llu\n", etslock_status_name(i),
                   (unsigned long long)load(&statuses[i]));
    printf("  %-20s %12llu\n", "had to wait", (unsigned long long)(first.contended +
                                                                  second.contended));
    printf("  %-20s %12llu\n", "taken away",
           (unsigned long long)(first.forced_releases + second.forced_releases));
    printf("  %-20s %9.1f ms\n", "worst wait", (double)load(&worst_wait_us) / 1000);
    printf("  %-20s %9.1f ms\n", "worst return", (double)load(&worst_return_us) / 1000);
    printf("  %-20s %9.1f ms\n", "worst mere sleep", (double)load(&worst_sleep_us) / 1000);
    printf("  %-20s %5ld to %ld\n", "threads", at_start.threads, at_end.threads);
    printf("  %-20s %5ld to %ld KiB\n", "memory", at_start.memory_kib, at_end.memory_kib);
    for (i = 0; i < FINDINGS; i++)
        if (load(&found[i]) != 0)
            printf("  FOUND %s: %llu\n", finding_names[i], (unsigned long long)load(&found[i]));
    fflush(stdout);
}

static void check_times(void)
{
    uint64_t allowed = SLACK_US + worst_sleep_us;
    if (worst_wait_us > allowed || worst_return_us > allowed)
        report(WRONG_TIME, "too late by %llu and %llu us", (unsigned long long)worst_wait_us,
               (unsigned long long)worst_return_us);
}

static void check_memory(void)
{
    if (memory_can_be_measured() && at_end.memory_kib > at_start.memory_kib + MEMORY_SLACK_KIB)
        report(LEFT_BEHIND, "memory grew from %ld to %ld KiB", at_start.memory_kib,
               at_end.memory_kib);
}

/* A soak that does not come to something says nothing about it. */
static void check_what_was_tried(void)
{
    static const etslock_status tried[] = {ETSLOCK_OK,      ETSLOCK_WAIT_TIMEOUT,
                                           ETSLOCK_REVOKED, ETSLOCK_EXEC_TIMEOUT,
                                           ETSLOCK_DEADLOCK, ETSLOCK_CALLBACK_FAILED};
    size_t i;
    for (i = 0; i < FIGURES; i++)
        if (figures[i] == 0)
            report(NOT_TRIED, "%s", figure_names[i]);
    for (i = 0; i < COUNT_OF(tried); i++)
        if (statuses[tried[i]] == 0)
            report(NOT_TRIED, "%s", etslock_status_name(tried[i]));
}

int main(int argc, char **argv)
{
    uint64_t findings = 0;
    pthread_t first;
    pthread_key_t first_key;
    int i, wrong = 0;
    if (argc > 2 && strcmp(argv[1], "--broken") == 0) {
        breaks_exclusion = strcmp(argv[2], "exclusion") == 0;
        breaks_the_fence = strcmp(argv[2], "fence") == 0;
        wrong = !breaks_exclusion && !breaks_the_fence;
        argv += 2;
        argc -= 2;
    }
    seconds = is_small_scale() ? 10 : 60;
    seed = (uint64_t)now_us();
    if (argc > 1)
        seconds = strtol(argv[1], NULL, 10);
    if (argc > 2)
        seed = strtoull(argv[2], NULL, 10);
    if (wrong || argc > 3 || seconds < 1) {
        fprintf(stderr, "usage: soak [--broken exclusion|fence] [seconds [seed]]\n");
        return 2;
    }
    /* With a key before the library's, Rust's thread-locals are gone when it hears that a thread
     * ends (tests/c/callbacks.c). */
    if (seed % 2 == 1)
        REQUIRE(pthread_key_create(&first_key, NULL) == 0);
    soak_began_us = now_us();
    /* With its first thread ThreadSanitizer starts one of its own. */
    start(&first, do_nothing_at_all, NULL);
    pthread_join(first, NULL);
    at_start.threads = count_threads();
    REQUIRE(sem_init(&mover.given, 0, 0) == 0 && sem_init(&attic.given, 0, 0) == 0);
    REQUIRE(sem_init(&attic_closes, 0, 0) == 0 && sem_init(&watch_ends, 0, 0) == 0);
    REQUIRE(pthread_barrier_init(&turn, NULL, PLAYERS) == 0);
    for (i = 0; i < PRIVATE_LOCK_TABLES; i++)
        private_lock_tables[i] = new_lock_table();
    open_books();

    play_round(seconds * 1000 / 4);
    end_round();
    at_start = measure();
    play_round(seconds * 1000 - seconds * 1000 / 4);
    end_round();
    at_end = measure();

    check_times();
    check_memory();
    check_what_was_tried();
    print_figures();
    for (i = 0; i < PRIVATE_LOCK_TABLES; i++)
        etslock_lock_table_free(private_lock_tables[i]);
    close_books();
    for (i = 0; i < FINDINGS; i++)
        findings += found[i];
    printf("%s\n", findings == 0 ? "nothing found" : "the soak found something");
    return findings == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
