/* valgrind: skip (it measures time and memory)
 *
 * tables_large.c - what large tables and long lists cost, and what is left of them. Checks C-9, C-15,
 * C-23, and that a reader waits for no writer.
 *
 * Costs are compared with others of the same run, for nobody knows what else the machine does. Where
 * waiting is looked for, time is what the thread slept in the call: a reader that lost its processor
 * did not wait, one that the library put to sleep did.
 */
#define _GNU_SOURCE
#include "check.h"
#include "locks.h"
#include "threads.h"

#include <malloc.h>
#include <sys/resource.h>
#include <unistd.h>

/* --- measures --- */

/* The processor time of this thread. */
static double cpu_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static double wall_ms(void)
{
    return (double)now_us() / 1e3;
}

/* How often this thread went to sleep of itself. */
static long sleeps(void)
{
    struct rusage usage;
    getrusage(RUSAGE_THREAD, &usage);
    return usage.ru_nvcsw;
}

static double heap_mib(void)
{
    struct mallinfo2 info = mallinfo2();
    return (double)(info.uordblks + info.hblkhd) / (1024.0 * 1024.0);
}

static size_t count_of(etslock_table *table)
{
    size_t count = 0;
    CHECK_STATUS(etslock_table_count(table, &count), ETSLOCK_OK);
    return count;
}

static const char *const type_names[] = {"set", "bag", "duplicate bag"};

/* --- long lists --- */

/* Stages `count` tuples of one key; what the commit took. */
static double commit_of(int type, long count, etslock_table **out_table)
{
    etslock_table *table = new_table_of(type);
    etslock_guard *guard = hold(table, "k");
    double began;
    long i;
    for (i = 0; i < count; i++)
        CHECK_STATUS(etslock_guard_insert(guard, "k", 1, &i, sizeof i), ETSLOCK_OK);
    began = cpu_ms();
    CHECK_STATUS(etslock_guard_commit(guard), ETSLOCK_OK);
    began = cpu_ms() - began;
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    if (out_table != NULL)
        *out_table = table;
    else
        etslock_table_free(table);
    return began;
}

/* Ten times as much takes ten times as long; a hundred times, if it were quadratic. */
enum { SHORT_LIST = 20000, LONG_LIST = 200000, TIMES = 40 };

static void is_linear(double less, double more, const char *what)
{
    if (!CHECK(more < TIMES * (less > 0.5 ? less : 0.5)))
        fprintf(stderr, "    %s: %.2f ms, then %.2f ms\n", what, less, more);
}

static void commits(void)
{
    int type;
    CASE("C-7: a commit takes time in proportion to what is staged");
    for (type = ETSLOCK_BAG; type <= ETSLOCK_DUPLICATE_BAG; type++) {
        double less = commit_of(type, SHORT_LIST, NULL), more = commit_of(type, LONG_LIST, NULL);
        is_linear(less, more, type_names[type]);
        printf("commit of %d tuples of a %s: %.1f ms\n", LONG_LIST, type_names[type], more);
    }
}

static double insert_all(etslock_table *table, long count)
{
    double began = cpu_ms();
    long i;
    for (i = 0; i < count; i++)
        CHECK_STATUS(etslock_table_insert(table, "k", 1, &i, sizeof i), ETSLOCK_OK);
    return cpu_ms() - began;
}

static double delete_each(etslock_table *table, long count)
{
    double began = cpu_ms();
    long i;
    for (i = 0; i < count; i++)
        CHECK_STATUS(etslock_table_delete_tuple(table, "k", 1, &i, sizeof i), ETSLOCK_OK);
    return cpu_ms() - began;
}

static void single_writes(void)
{
    int type;
    CASE("C-9: one tuple of many is inserted, found and removed in constant time");
    for (type = ETSLOCK_BAG; type <= ETSLOCK_DUPLICATE_BAG; type++) {
        etslock_table *small = new_table_of(type), *large = new_table_of(type);
        double less = insert_all(small, SHORT_LIST), more = insert_all(large, LONG_LIST);
        is_linear(less, more, "inserts");
        if (type == ETSLOCK_BAG) {
            is_linear(insert_all(small, SHORT_LIST), insert_all(large, LONG_LIST), "equal ones");
            CHECK(count_of(large) == LONG_LIST);
        }
        is_linear(delete_each(small, SHORT_LIST), delete_each(large, LONG_LIST), "removals");
        CHECK(count_of(large) == 0);
        etslock_table_free(small);
        etslock_table_free(large);
    }
}

/* A look after each write; what they took. */
static double looks(long count)
{
    etslock_table *table = new_table_of(ETSLOCK_BAG);
    etslock_guard *guard = hold(table, "k");
    double began = cpu_ms();
    long i;
    for (i = 0; i < count; i++) {
        etslock_tuples *tuples = NULL;
        CHECK_STATUS(etslock_guard_insert(guard, "k", 1, &i, sizeof i), ETSLOCK_OK);
        CHECK_STATUS(etslock_guard_lookup(guard, "k", 1, &tuples), ETSLOCK_OK);
        etslock_tuples_free(tuples);
    }
    began = cpu_ms() - began;
    CHECK_STATUS(etslock_guard_cancel(guard), ETSLOCK_OK);
    etslock_table_free(table);
    return began;
}

static void looks_at_what_is_staged(void)
{
    CASE("a look at what is staged costs what was staged since the last one");
    is_linear(looks(4000), looks(40000), "looks");
}

/* --- readers --- */

static etslock_table *shared;
static int stop;

struct reader {
    int looks_up;
    double slept_ms; /* in the longest call in which it slept */
    double cpu_ms;   /* of the longest call */
    long calls, sleeps;
};

static void *read_all_the_time(void *argument)
{
    struct reader *me = argument;
    while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE)) {
        long before = sleeps();
        double wall = wall_ms(), cpu = cpu_ms();
        etslock_status status;
        if (me->looks_up) {
            etslock_tuples *tuples = NULL;
            status = etslock_table_lookup(shared, "k", 1, &tuples);
            etslock_tuples_free(tuples);
        } else
            status = etslock_table_member(shared, "k", 1);
        cpu = cpu_ms() - cpu;
        wall = wall_ms() - wall;
        CHECK(status == ETSLOCK_OK || status == ETSLOCK_NOT_FOUND);
        if (cpu > me->cpu_ms)
            me->cpu_ms = cpu;
        if (sleeps() != before) {
            me->sleeps++;
            if (wall > me->slept_ms)
                me->slept_ms = wall;
        }
        me->calls++;
    }
    return NULL;
}

/* How long a thread that asks for 50 us sleeps at most, on this machine now. */
static void *sleep_all_the_time(void *argument)
{
    double *longest = argument;
    while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE)) {
        double began = wall_ms();
        struct timespec moment = {0, 50000};
        nanosleep(&moment, NULL);
        began = wall_ms() - began;
        if (began > *longest)
            *longest = began;
    }
    return NULL;
}

static void while_reading(void (*write)(void), const char *what)
{
    struct reader readers[2] = {{0, 0, 0, 0, 0}, {1, 0, 0, 0, 0}};
    pthread_t threads[3];
    double floor_ms = 0;
    int i;
    stop = 0;
    for (i = 0; i < 2; i++)
        REQUIRE(pthread_create(&threads[i], NULL, read_all_the_time, &readers[i]) == 0);
    REQUIRE(pthread_create(&threads[2], NULL, sleep_all_the_time, &floor_ms) == 0);
    write();
    __atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
    for (i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    for (i = 0; i < 2; i++) {
        const char *call = readers[i].looks_up ? "lookup" : "member";
        printf("%s: longest %s %.3f ms of work, slept %.3f ms, %ld of %ld calls (floor %.3f ms)\n", what,
               call, readers[i].cpu_ms, readers[i].slept_ms, readers[i].sleeps, readers[i].calls,
               floor_ms);
        /* The system's own locks are waited for as well: those of the address space, say. */
        CHECK(readers[i].slept_ms < 100 + 4 * floor_ms);
        /* A fault of the machine costs a reader of 200,000 tuples as much at most. */
        CHECK(readers[i].cpu_ms < 10);
    }
}

static void commit_a_long_list(void)
{
    etslock_guard *guard = hold(shared, "k");
    long i;
    for (i = 0; i < LONG_LIST; i++)
        CHECK_STATUS(etslock_guard_insert(guard, "k", 1, &i, sizeof i), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_commit(guard), ETSLOCK_OK);
    for (i = 0; i < LONG_LIST / 2; i++)
        CHECK_STATUS(etslock_guard_delete_tuple(guard, "k", 1, &i, sizeof i), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
}

static void write_one_by_one(void)
{
    long i;
    for (i = 0; i < LONG_LIST / 2; i++)
        CHECK_STATUS(etslock_table_insert(shared, "k", 1, &i, sizeof i), ETSLOCK_OK);
    delete_each(shared, LONG_LIST / 2);
}

static void take_a_long_list(void)
{
    etslock_tuples *tuples = NULL;
    commit_a_long_list();
    CHECK_STATUS(etslock_table_take(shared, "k", 1, &tuples), ETSLOCK_OK);
    etslock_tuples_free(tuples);
}

static void readers(void)
{
    int type;
    CASE("no reader waits for a writer");
    for (type = ETSLOCK_BAG; type <= ETSLOCK_DUPLICATE_BAG; type++) {
        shared = new_table_of(type);
        CHECK_STATUS(etslock_table_insert(shared, "k", 1, "first", 5), ETSLOCK_OK);
        while_reading(commit_a_long_list, "commit");
        while_reading(write_one_by_one, "single writes");
        while_reading(take_a_long_list, "take");
        etslock_table_free(shared);
    }
}

/* --- growth --- */

static void grow(void)
{
    enum { KEYS = 500000 };
    double began = cpu_ms(), longest = 0;
    long i;
    for (i = 0; i < KEYS; i++) {
        double insert = cpu_ms();
        CHECK_STATUS(etslock_table_insert(shared, &i, sizeof i, "v", 1), ETSLOCK_OK);
        insert = cpu_ms() - insert;
        if (insert > longest)
            longest = insert;
    }
    began = cpu_ms() - began;
    printf("growth to %d keys: %.0f ms, the longest insert %.2f ms\n", KEYS, began, longest);
    /* To move all rows at once takes a tenth of it. */
    CHECK(longest < began / 50);
}

static void growth(void)
{
    etslock_cursor *cursor = NULL;
    etslock_tuples *tuples = NULL;
    double began;
    long keys = 0;
    CASE("C-23: no insert makes room for all");
    shared = new_table();
    CHECK_STATUS(etslock_table_insert(shared, "k", 1, "v", 1), ETSLOCK_OK);
    while_reading(grow, "growth");
    began = cpu_ms();
    CHECK_STATUS(etslock_table_cursor(shared, &cursor), ETSLOCK_OK);
    CHECK_STATUS(etslock_cursor_next(cursor, &tuples), ETSLOCK_OK);
    began = cpu_ms() - began;
    CHECK(began < 50);
    do {
        etslock_tuples_free(tuples);
        keys++;
    } while (etslock_cursor_next(cursor, &tuples) == ETSLOCK_OK);
    CHECK((size_t)keys == count_of(shared));
    etslock_cursor_free(cursor);
    etslock_table_free(shared);
}

/* --- after a peak --- */

static double iterate(etslock_table *table, int times)
{
    double began = cpu_ms();
    int i;
    for (i = 0; i < times; i++) {
        etslock_cursor *cursor = NULL;
        etslock_tuples *tuples = NULL;
        CHECK_STATUS(etslock_table_cursor(table, &cursor), ETSLOCK_OK);
        while (etslock_cursor_next(cursor, &tuples) == ETSLOCK_OK)
            etslock_tuples_free(tuples);
        etslock_cursor_free(cursor);
    }
    return (cpu_ms() - began) / times;
}

static void clear_all(etslock_table *table, long keys)
{
    (void)keys;
    CHECK_STATUS(etslock_table_clear(table), ETSLOCK_OK);
}

static void delete_all(etslock_table *table, long keys)
{
    long i;
    for (i = 0; i < keys; i++)
        CHECK_STATUS(etslock_table_delete(table, &i, sizeof i), ETSLOCK_OK);
}

static void take_all(etslock_table *table, long keys)
{
    long i;
    for (i = 0; i < keys; i++) {
        etslock_tuples *tuples = NULL;
        CHECK_STATUS(etslock_table_take(table, &i, sizeof i, &tuples), ETSLOCK_OK);
        etslock_tuples_free(tuples);
    }
}

static void delete_all_through_guards(etslock_table *table, long keys)
{
    long i;
    for (i = 0; i < keys; i++) {
        etslock_options options = patient(NULL);
        etslock_guard *guard = NULL;
        CHECK_STATUS(etslock_acquire(table, &i, sizeof i, &options, &guard), ETSLOCK_OK);
        CHECK_STATUS(etslock_guard_delete(guard, &i, sizeof i), ETSLOCK_OK);
        CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    }
}

static void after_a_peak(void)
{
    static void (*const ends[])(etslock_table *, long) = {clear_all, delete_all, take_all,
                                                          delete_all_through_guards};
    enum { KEYS = 200000 };
    etslock_table *fresh = new_table();
    double once;
    size_t end;
    CASE("C-23: an emptied table costs what an empty one does");
    CHECK_STATUS(etslock_table_insert(fresh, "one", 3, "1", 1), ETSLOCK_OK);
    once = iterate(fresh, 200);
    for (end = 0; end < COUNT_OF(ends); end++) {
        double before = heap_mib(), full, left, again;
        etslock_table *table = new_table();
        long i;
        for (i = 0; i < KEYS; i++)
            CHECK_STATUS(etslock_table_insert(table, &i, sizeof i, "a value of some length", 22),
                         ETSLOCK_OK);
        full = heap_mib() - before;
        ends[end](table, KEYS);
        CHECK(count_of(table) == 0);
        CHECK_STATUS(etslock_table_insert(table, "one", 3, "1", 1), ETSLOCK_OK);
        left = heap_mib() - before;
        again = iterate(table, 20);
        printf("end %d: %.1f MiB full, %.2f left; an iteration over one key %.4f ms (fresh %.4f)\n",
               (int)end, full, left, again, once);
        CHECK(left < 1.5 && full > 20);
        CHECK(again < 50 * once + 0.05);
        etslock_table_free(table);
    }
    etslock_table_free(fresh);
}

/* --- many tables, many threads --- */

enum { TABLES = 1000, THREADS = 16, CHURNERS = 200 };
static etslock_table *many[TABLES];

static void *touch_all(void *argument)
{
    long me = (long)argument, i;
    for (i = 0; i < TABLES; i++) {
        CHECK_STATUS(etslock_table_insert(many[i], &me, sizeof me, "v", 1), ETSLOCK_OK);
        CHECK_STATUS(etslock_table_delete(many[i], &me, sizeof me), ETSLOCK_OK);
    }
    return NULL;
}

static void run_threads(int count, void *(*body)(void *))
{
    pthread_t threads[CHURNERS];
    long i;
    for (i = 0; i < count; i++)
        REQUIRE(pthread_create(&threads[i], NULL, body, (void *)i) == 0);
    for (i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
}

static void empty_tables(void)
{
    double before = heap_mib(), made, touched;
    long i;
    CASE("C-23: an empty table costs little, whoever has used it");
    for (i = 0; i < TABLES; i++)
        many[i] = new_table();
    made = (heap_mib() - before) * 1024 / TABLES;
    run_threads(THREADS, touch_all);
    touched = (heap_mib() - before) * 1024 / TABLES;
    printf("an empty table: %.1f KiB, touched by %d threads %.1f KiB\n", made, THREADS, touched);
    CHECK(made < 4 && touched < 12);
    for (i = 0; i < TABLES; i++)
        etslock_table_free(many[i]);
}

static pthread_barrier_t all_done;

static void *churn(void *argument)
{
    enum { KEYS = 1000 };
    char key[100];
    long i;
    memset(key, 'x', sizeof key);
    for (i = 0; i < KEYS; i++) {
        memcpy(key, &argument, sizeof argument);
        memcpy(key + 8, &i, sizeof i);
        CHECK_STATUS(etslock_table_insert(shared, key, sizeof key, "v", 1), ETSLOCK_OK);
        CHECK_STATUS(etslock_table_delete(shared, key, sizeof key), ETSLOCK_OK);
    }
    pthread_barrier_wait(&all_done);
    return NULL;
}

static void long_keys(void)
{
    enum { LONG = 1000000 };
    char *key = calloc(1, LONG);
    double before = heap_mib(), left;
    int i;
    CASE("C-23: the bytes of a key that is gone");
    for (i = 0; i < 50; i++) {
        memcpy(key, &i, sizeof i);
        CHECK_STATUS(etslock_table_insert(shared, key, LONG, key, LONG), ETSLOCK_OK);
        CHECK_STATUS(etslock_table_delete(shared, key, LONG), ETSLOCK_OK);
    }
    left = heap_mib() - before;
    printf("50 keys of 1 MB: %.2f MiB left\n", left);
    CHECK(left < 8);
    free(key);
}

static void churners(void)
{
    double before, left;
    CASE("C-23: an empty table does not remember its threads");
    shared = new_table();
    pthread_barrier_init(&all_done, NULL, CHURNERS);
    before = heap_mib();
    run_threads(CHURNERS, churn);
    CHECK_STATUS(etslock_table_clear(shared), ETSLOCK_OK);
    left = heap_mib() - before;
    printf("%d threads of 1000 keys each: %.2f MiB left\n", CHURNERS, left);
    CHECK(left < 6);
    long_keys();
    etslock_table_free(shared);
}

int main(void)
{
    RUN(commits());
    RUN(single_writes());
    RUN(looks_at_what_is_staged());
    RUN(readers());
    RUN(growth());
    RUN(after_a_peak());
    RUN(empty_tables());
    RUN(churners());
    return check_report();
}
