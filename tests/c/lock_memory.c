/* valgrind: skip (heap figures under it are not the library's)
 *
 * lock_memory.c - C-15, C-23: the memory of locks, and the time to look at them, follow what is held
 * now, not what was held once.
 */
#include "check.h"
#include "locks.h"
#include "processes.h"

#include <malloc.h>
#include <stdint.h>
#include <pthread.h>

enum { KIB = 1024, MIB = 1024 * KIB, HELD = 10000, PEAK = 300000, THREADS = 4 };

static etslock_table *table;
static uint64_t next_key = 1;

static size_t heap_bytes(void)
{
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
}

/* How much more than `before` is in use. */
static long grown_by(size_t before)
{
    return (long)heap_bytes() - (long)before;
}

static void check_grown(size_t before, long most, int line)
{
    long grown = grown_by(before);
    if (!check_that(grown <= most, __FILE__, line, "the heap is as it was"))
        fprintf(stderr, "    grown by %ld KiB, at most %ld\n", grown / KIB, most / KIB);
}

static void acquire_into(etslock_guard **guards, long count, etslock_lock_table *lock_table)
{
    etslock_options options = patient(lock_table);
    long i;
    for (i = 0; i < count; i++) {
        uint64_t key = __atomic_fetch_add(&next_key, 1, __ATOMIC_RELAXED);
        REQUIRE(etslock_acquire(table, &key, sizeof key, &options, &guards[i]) == ETSLOCK_OK);
    }
}

static void cancel_all(etslock_guard **guards, long count)
{
    long i;
    for (i = 0; i < count; i++)
        REQUIRE(etslock_guard_cancel(guards[i]) == ETSLOCK_OK);
}

static etslock_guard **guards_for(long count)
{
    etslock_guard **guards = malloc((size_t)count * sizeof(*guards));
    REQUIRE(guards != NULL);
    memset(guards, 0xff, (size_t)count * sizeof(*guards));
    return guards;
}

static uint64_t draw(void)
{
    static uint64_t state = 88172645463325252u;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

/* --- a constant number of held locks --- */

static void constant_number(etslock_lock_table *lock_table)
{
    enum { CYCLES = 200000 };
    etslock_guard **guards = guards_for(HELD);
    size_t none = heap_bytes(), held;
    long i;
    CASE("C-15: as many locks held as before, of ever other keys, cost as much as before");
    acquire_into(guards, HELD, lock_table);
    held = heap_bytes();
    printf("%d held locks: %ld bytes each\n", HELD, grown_by(none) / HELD);
    for (i = 0; i < CYCLES; i++) {
        uint64_t which = draw() % HELD;
        cancel_all(&guards[which], 1);
        acquire_into(&guards[which], 1, lock_table);
    }
    printf("%d cycles later: %+ld KiB\n", CYCLES, grown_by(held) / KIB);
    check_grown(held, MIB, __LINE__);
    CASE("C-15: none held cost nothing");
    cancel_all(guards, HELD);
    printf("all released: %+ld KiB\n", grown_by(none) / KIB);
    check_grown(none, 256 * KIB, __LINE__);
    free(guards);
}

/* --- a peak --- */

/* The shortest of many looks at a lock table, in microseconds times 16. */
static int64_t time_to_look(etslock_lock_table *lock_table)
{
    int64_t best = INT64_MAX;
    int i, j;
    for (i = 0; i < 50; i++) {
        int64_t start = now_us(), took;
        for (j = 0; j < 16; j++) {
            CHECK(count_locks(lock_table, NULL) == 0);
            CHECK(stats_of(lock_table).held == 0);
        }
        took = now_us() - start;
        best = took < best ? took : best;
    }
    return best;
}

static void peak(etslock_lock_table *lock_table)
{
    etslock_guard **guards = guards_for(PEAK);
    int64_t looks_before = time_to_look(lock_table), looks_after;
    size_t before = heap_bytes();
    long resident = resident_bytes(), more;
    acquire_into(guards, PEAK, lock_table);
    more = grown_by(before) / PEAK;
    printf("%d held locks: %ld bytes each\n", PEAK, more);
    CASE("C-15: bytes of a held lock");
    CHECK(more < 400);
    CASE("C-23: counting takes what is there");
    CHECK(stats_of(lock_table).held == PEAK);
    cancel_all(guards, PEAK);
    looks_after = time_to_look(lock_table);
    malloc_trim(0);
    printf("all released: heap %+ld KiB, resident %+ld KiB; 16 looks %ld us, before %ld us\n",
           grown_by(before) / KIB, (resident_bytes() - resident) / KIB, (long)looks_after,
           (long)looks_before);
    CASE("C-15, C-23: the memory of a peak goes back");
    check_grown(before, 512 * KIB, __LINE__);
    CHECK(resident_bytes() - resident < 24 * MIB);
    CASE("C-23: after a peak a look takes as long as before");
    CHECK(looks_after <= 10 * looks_before + 500);
    free(guards);
}

/* Locks of several keys have entries. */
static void peak_of_entries(etslock_lock_table *lock_table)
{
    enum { KEYS = 50000 };
    etslock_options options = patient(lock_table);
    etslock_key *keys = calloc(KEYS, sizeof(*keys));
    uint64_t *numbers = calloc(KEYS, sizeof(*numbers));
    etslock_guard *guard = NULL;
    size_t before;
    long i;
    REQUIRE(keys != NULL && numbers != NULL);
    for (i = 0; i < KEYS; i++) {
        numbers[i] = next_key++;
        keys[i].key = &numbers[i];
        keys[i].key_len = sizeof numbers[i];
    }
    CASE("C-15: so does that of entries");
    before = heap_bytes();
    REQUIRE(etslock_acquire_locks(table, keys, KEYS, &options, &guard) == ETSLOCK_OK);
    CHECK(stats_of(lock_table).held == KEYS);
    CHECK_STATUS(etslock_guard_cancel(guard), ETSLOCK_OK);
    printf("%d entries released: %+ld KiB\n", KEYS, grown_by(before) / KIB);
    check_grown(before, MIB, __LINE__);
    free(keys);
    free(numbers);
}

static void *come_and_go(void *lock_table)
{
    enum { SHARE = 50000 };
    etslock_guard **guards = guards_for(SHARE);
    acquire_into(guards, SHARE, lock_table);
    cancel_all(guards, SHARE);
    free(guards);
    return NULL;
}

static void peak_of_threads(etslock_lock_table *lock_table)
{
    pthread_t threads[THREADS];
    size_t before = heap_bytes();
    int i;
    CASE("C-15: so does that of several threads");
    for (i = 0; i < THREADS; i++)
        REQUIRE(pthread_create(&threads[i], NULL, come_and_go, lock_table) == 0);
    for (i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    CHECK(stats_of(lock_table).held == 0);
    printf("%d threads' locks released: %+ld KiB\n", THREADS, grown_by(before) / KIB);
    check_grown(before, 2 * MIB, __LINE__);
}

/* --- looking --- */

static void looking(etslock_lock_table *lock_table)
{
    etslock_guard **guards = guards_for(HELD);
    size_t held;
    int i;
    acquire_into(guards, HELD, lock_table);
    CASE("C-23: statistics and snapshots cost the locks that they show nothing");
    CHECK(count_locks(lock_table, NULL) == HELD);
    held = heap_bytes();
    for (i = 0; i < 3; i++) {
        CHECK(stats_of(lock_table).held == HELD);
        CHECK(count_locks(lock_table, table) == HELD);
        CHECK(count_locks(lock_table, NULL) == HELD);
    }
    check_grown(held, 16 * KIB, __LINE__);
    cancel_all(guards, HELD);
    free(guards);
}

/* The first look must be as harmless as the next: in a lock table that nobody has looked at. */
static void looking_first(void)
{
    etslock_lock_table *lock_table = new_lock_table();
    etslock_guard **guards = guards_for(HELD);
    size_t held;
    acquire_into(guards, HELD, lock_table);
    CASE("C-23: so does the first of them");
    held = heap_bytes();
    CHECK(stats_of(lock_table).held == HELD);
    check_grown(held, 16 * KIB, __LINE__);
    CHECK(count_locks(lock_table, NULL) == HELD);
    check_grown(held, 16 * KIB, __LINE__);
    cancel_all(guards, HELD);
    free(guards);
    etslock_lock_table_free(lock_table);
}

static void unused_lock_tables(void)
{
    enum { TABLES = 1000 };
    static etslock_lock_table *lock_tables[TABLES];
    size_t before = heap_bytes();
    int i;
    CASE("C-23: a lock table that is not used is small");
    for (i = 0; i < TABLES; i++)
        lock_tables[i] = new_lock_table();
    printf("an unused lock table: %ld bytes\n", grown_by(before) / TABLES);
    check_grown(before, TABLES * 2L * KIB, __LINE__);
    for (i = 0; i < TABLES; i++)
        etslock_lock_table_free(lock_tables[i]);
}

int main(void)
{
    etslock_lock_table *lock_table;
    if (!memory_can_be_measured()) {
        puts("skipped: a sanitizer's heap is not the library's");
        CHECK(1);
        return check_report();
    }
    /* One arena: what a thread frees is seen in the figures. */
    mallopt(M_ARENA_MAX, 1);
    table = new_table();
    lock_table = new_lock_table();
    CHECK_STATUS(try_lock(table, "first"), ETSLOCK_OK);
    RUN(constant_number(NULL));
    RUN(constant_number(lock_table));
    RUN(peak(NULL));
    RUN(peak(lock_table));
    RUN(peak_of_entries(NULL));
    RUN(peak_of_entries(lock_table));
    RUN(peak_of_threads(NULL));
    RUN(peak_of_threads(lock_table));
    RUN(looking(NULL));
    RUN(looking(lock_table));
    RUN(looking_first());
    RUN(unused_lock_tables());
    etslock_lock_table_free(lock_table);
    etslock_table_free(table);
    return check_report();
}
