/* valgrind: skip (resident memory under it is not the library's)
 *
 * memory_cycles.c - C-15: memory follows what is held.
 *
 * Run: memory_cycles [cycles]. Locks and unlocks that many fresh keys (default 300,000), from one
 * thread and from four, then overwrites one key with large values. Resident memory after the
 * first tenth is the base line: by then every structure has its working size.
 */
#include "check.h"
#include "locks.h"
#include "processes.h"

#include <pthread.h>

enum { MIB = 1024 * 1024, VALUE_WRITES = 1000 };

static etslock_table *table;

struct share {
    int thread;
    long first, end; /* fresh keys: these numbers, with the thread's */
    long refused;
};

/* One cycle in eight runs a callback on the caller's thread, one in 64 on a worker. */
static void *cycle(void *user_data)
{
    struct share *share = user_data;
    etslock_options on_caller;
    long i;
    etslock_options_init(&on_caller, sizeof on_caller);
    on_caller.run_on = ETSLOCK_RUN_ON_CALLER;
    for (i = share->first; i < share->end; i++) {
        char key[48];
        size_t length = (size_t)snprintf(key, sizeof key, "session:%d:%ld", share->thread, i);
        etslock_status status;
        if (i % 64 == 0) {
            status = etslock_with_lock(table, key, length, do_nothing, NULL, NULL, NULL);
        } else if (i % 8 == 0) {
            status = etslock_with_lock(table, key, length, do_nothing, NULL, &on_caller, NULL);
        } else {
            etslock_guard *guard = NULL;
            status = etslock_acquire(table, key, length, NULL, &guard);
            if (status == ETSLOCK_OK)
                status = etslock_guard_release(guard);
        }
        share->refused += status != ETSLOCK_OK;
    }
    return NULL;
}

static void run_cycles(int threads, long first, long end)
{
    enum { MOST = 4 };
    struct share shares[MOST];
    pthread_t ids[MOST];
    int i;
    for (i = 0; i < threads; i++) {
        shares[i].thread = threads * 10 + i;
        shares[i].first = first / threads;
        shares[i].end = end / threads;
        shares[i].refused = 0;
        REQUIRE(pthread_create(&ids[i], NULL, cycle, &shares[i]) == 0);
    }
    for (i = 0; i < threads; i++) {
        pthread_join(ids[i], NULL);
        CHECK(shares[i].refused == 0);
    }
}

static void fresh_keys(int threads, long cycles)
{
    long base, after;
    run_cycles(threads, 0, cycles / 10);
    base = resident_bytes() / 1024;
    run_cycles(threads, cycles / 10, cycles);
    after = resident_bytes() / 1024;
    printf("%ld fresh keys, %d thread(s): %ld KiB after a tenth, %ld KiB at the end\n", cycles,
           threads, base, after);
    CHECK(after - base < 2 * 1024);
}

static void overwrite(unsigned char *value, int first, int end)
{
    int i;
    for (i = first; i < end; i++) {
        etslock_guard *guard = NULL;
        memset(value, i, MIB); /* every page is written, so every page is resident */
        REQUIRE(etslock_acquire(table, "large", 5, NULL, &guard) == ETSLOCK_OK);
        CHECK_STATUS(etslock_guard_insert(guard, "large", 5, value, MIB), ETSLOCK_OK);
        CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    }
}

static void large_values(void)
{
    unsigned char *value = malloc(MIB);
    long base, after;
    REQUIRE(value != NULL);
    overwrite(value, 0, VALUE_WRITES / 10);
    base = resident_bytes() / 1024;
    overwrite(value, VALUE_WRITES / 10, VALUE_WRITES);
    after = resident_bytes() / 1024;
    printf("%d values of 1 MiB under one key: %ld KiB after a tenth, %ld KiB at the end\n",
           VALUE_WRITES, base, after);
    CHECK(after - base < 16 * 1024);
    free(value);
}

int main(void)
{
    long cycles = (long)CHECK_NUMBER(300000);
    REQUIRE(cycles >= 1000);
    REQUIRE(etslock_table_new(NULL, &table) == ETSLOCK_OK);
    CASE("C-15: fresh keys, one thread");
    RUN(fresh_keys(1, cycles));
    CASE("C-15: fresh keys, four threads");
    RUN(fresh_keys(4, cycles));
    CASE("C-15: one key, large values");
    RUN(large_values());
    etslock_table_free(table);
    return check_report();
}
