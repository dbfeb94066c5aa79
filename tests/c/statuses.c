/* statuses.c - the names and texts of statuses, the version, and those statuses that the other
 * files do not reach. Checks C-4, C-12, C-14, C-17 and C-18.
 *
 * Which file produces which status, each by the function named; ETSLOCK_ERR_ is left out, and so
 * is ETSLOCK_OK, which every function gives somewhere.
 *
 *   table_new           EXISTS names; NULL INVALID STRUCT_SIZE bad_input
 *   table_open          NOT_FOUND names; NULL INVALID bad_input
 *   table_insert        GUARDED names; NULL INVALID NO_MEMORY bad_input
 *   table_insert_new    EXISTS tables; GUARDED names; NULL INVALID NO_MEMORY bad_input
 *   table_lookup        NOT_FOUND tables; NULL INVALID NO_MEMORY bad_input
 *   table_member        NOT_FOUND tables; NULL INVALID NO_MEMORY bad_input
 *   table_take          NOT_FOUND tables; GUARDED names; NULL INVALID NO_MEMORY bad_input
 *   table_delete        GUARDED names; NULL INVALID NO_MEMORY bad_input
 *   table_delete_tuple  GUARDED names; NULL INVALID NO_MEMORY bad_input
 *   table_clear         GUARDED names; NULL bad_input
 *   table_update_counter  TYPE, INVALID (overflow) tables; GUARDED names;
 *                       NULL INVALID NO_MEMORY bad_input
 *   table_count         NULL bad_input
 *   table_cursor        NULL bad_input
 *   cursor_next         NOT_FOUND tables; NULL bad_input
 *   with_lock           WAIT_TIMEOUT EXEC_TIMEOUT CALLBACK_FAILED REVOKED NO_THREAD callbacks;
 *                       DEADLOCK deadlock; CLOSED queue; NULL INVALID STRUCT_SIZE NO_MEMORY
 *                       bad_input
 *   with_locks          WAIT_TIMEOUT CALLBACK_FAILED DEADLOCK many_keys; EXEC_TIMEOUT REVOKED
 *                       CLOSED NO_THREAD statuses; NULL INVALID STRUCT_SIZE NO_MEMORY bad_input
 *   acquire             WAIT_TIMEOUT CLOSED waiting; DEADLOCK deadlock; REVOKED (a race) statuses;
 *                       NULL INVALID STRUCT_SIZE NO_MEMORY bad_input
 *   acquire_locks       WAIT_TIMEOUT DEADLOCK many_keys; REVOKED CLOSED statuses;
 *                       NULL INVALID STRUCT_SIZE NO_MEMORY bad_input
 *   guard_lookup        EXEC_TIMEOUT REVOKED NOT_FOUND guards; NULL INVALID NOT_COVERED bad_input
 *   guard_insert        EXEC_TIMEOUT REVOKED guards; NULL INVALID NOT_COVERED NO_MEMORY bad_input
 *   guard_delete        EXEC_TIMEOUT REVOKED guards; NULL INVALID NOT_COVERED bad_input
 *   guard_delete_tuple  EXEC_TIMEOUT REVOKED guards; NULL INVALID NOT_COVERED NO_MEMORY bad_input
 *   guard_commit        EXEC_TIMEOUT REVOKED guards; NULL bad_input
 *   guard_rollback      EXEC_TIMEOUT REVOKED guards; NULL bad_input
 *   guard_release       EXEC_TIMEOUT REVOKED guards; NULL INVALID bad_input
 *   guard_cancel        NULL INVALID bad_input
 *   guard_set_result    EXEC_TIMEOUT REVOKED guards; NULL INVALID NO_MEMORY bad_input
 *   guard_extend        EXEC_TIMEOUT REVOKED guards; NULL INVALID bad_input
 *   guard_sleep         EXEC_TIMEOUT REVOKED guards; NULL INVALID bad_input
 *   guard_status        EXEC_TIMEOUT REVOKED guards; NULL bad_input
 *   lock_table_new      NULL bad_input
 *   lock_table_locks    NULL bad_input
 *   locks_get           NOT_FOUND NULL STRUCT_SIZE bad_input
 *   lock_table_stats    NULL STRUCT_SIZE bad_input
 *   lock_table_force_release  NOT_FOUND lock_tables; NULL INVALID NO_MEMORY bad_input
 *
 * FORKED comes from life, by every function that takes a table, lock table, guard or cursor. No
 * argument leads to PANIC, nor to NO_MEMORY by guard_commit and guard_release; guard_lookup and
 * guard_delete may give it for a key that is too long to be copied, or NOT_COVERED.
 */
#define _POSIX_C_SOURCE 200809L

#include "check.h"
#include "locks.h"
#include "processes.h"

#include <limits.h>
#include <pthread.h>

/* --- names, texts and the version --- */

static const struct {
    etslock_status number;
    etslock_status status;
    const char *name;
} known[] = {
    {0, ETSLOCK_OK, "ETSLOCK_OK"},
    {1, ETSLOCK_WAIT_TIMEOUT, "ETSLOCK_WAIT_TIMEOUT"},
    {2, ETSLOCK_EXEC_TIMEOUT, "ETSLOCK_EXEC_TIMEOUT"},
    {3, ETSLOCK_CALLBACK_FAILED, "ETSLOCK_CALLBACK_FAILED"},
    {4, ETSLOCK_REVOKED, "ETSLOCK_REVOKED"},
    {5, ETSLOCK_DEADLOCK, "ETSLOCK_DEADLOCK"},
    {6, ETSLOCK_NOT_FOUND, "ETSLOCK_NOT_FOUND"},
    {7, ETSLOCK_EXISTS, "ETSLOCK_EXISTS"},
    {8, ETSLOCK_CLOSED, "ETSLOCK_CLOSED"},
    {9, ETSLOCK_PENDING, "ETSLOCK_PENDING"},
    {10, ETSLOCK_STOPPED, "ETSLOCK_STOPPED"},
    {11, ETSLOCK_UNKNOWN, "ETSLOCK_UNKNOWN"},
    {20, ETSLOCK_ERR_NULL, "ETSLOCK_ERR_NULL"},
    {21, ETSLOCK_ERR_INVALID, "ETSLOCK_ERR_INVALID"},
    {22, ETSLOCK_ERR_STRUCT_SIZE, "ETSLOCK_ERR_STRUCT_SIZE"},
    {23, ETSLOCK_ERR_NOT_COVERED, "ETSLOCK_ERR_NOT_COVERED"},
    {24, ETSLOCK_ERR_TYPE, "ETSLOCK_ERR_TYPE"},
    {25, ETSLOCK_ERR_GUARDED, "ETSLOCK_ERR_GUARDED"},
    {26, ETSLOCK_ERR_UNSUPPORTED, "ETSLOCK_ERR_UNSUPPORTED"},
    {40, ETSLOCK_ERR_NO_MEMORY, "ETSLOCK_ERR_NO_MEMORY"},
    {41, ETSLOCK_ERR_NO_THREAD, "ETSLOCK_ERR_NO_THREAD"},
    {42, ETSLOCK_ERR_FORKED, "ETSLOCK_ERR_FORKED"},
    {43, ETSLOCK_ERR_STORE, "ETSLOCK_ERR_STORE"},
    {90, ETSLOCK_ERR_PANIC, "ETSLOCK_ERR_PANIC"},
};

static int is_known(etslock_status status)
{
    size_t i;
    for (i = 0; i < COUNT_OF(known); i++)
        if (known[i].status == status)
            return 1;
    return 0;
}

static void check_unknown(etslock_status status)
{
    CHECK(strcmp(etslock_status_name(status), "ETSLOCK_STATUS_UNKNOWN") == 0);
    CHECK(strcmp(etslock_status_text(status), "unknown status") == 0);
}

static void names_and_texts(void)
{
    static const etslock_status far_away[] = {INT32_MAX, INT32_MAX - 1, INT32_MIN, INT32_MIN + 1};
    size_t i, j;
    etslock_status status;
    CASE("statuses: numbers never change, names are those of the constants");
    for (i = 0; i < COUNT_OF(known); i++) {
        CHECK(known[i].status == known[i].number);
        CHECK(strcmp(etslock_status_name(known[i].status), known[i].name) == 0);
    }

    CASE("statuses: a text of its own for each");
    for (i = 0; i < COUNT_OF(known); i++) {
        const char *text = etslock_status_text(known[i].status);
        REQUIRE(text != NULL);
        CHECK(strlen(text) > 0 && strcmp(text, "unknown status") != 0);
        CHECK(strcmp(text, known[i].name) != 0);
        for (j = 0; j < i; j++)
            CHECK(strcmp(text, etslock_status_text(known[j].status)) != 0);
    }

    CASE("statuses: names and texts are static");
    for (i = 0; i < COUNT_OF(known); i++) {
        CHECK(etslock_status_name(known[i].status) == etslock_status_name(known[i].status));
        CHECK(etslock_status_text(known[i].status) == etslock_status_text(known[i].status));
    }

    CASE("statuses: an unknown number has a name and a text too");
    for (status = -1000; status <= 1000; status++)
        if (!is_known(status))
            check_unknown(status);
    for (i = 0; i < COUNT_OF(far_away); i++)
        check_unknown(far_away[i]);
}

static void version(void)
{
    char numbers[64];
    CASE("version: library, header and the three numbers agree");
    snprintf(numbers, sizeof numbers, "%d.%d.%d", ETSLOCK_VERSION_MAJOR, ETSLOCK_VERSION_MINOR,
             ETSLOCK_VERSION_PATCH);
    CHECK(strcmp(ETSLOCK_VERSION, numbers) == 0);
    CHECK(strcmp(etslock_version(), ETSLOCK_VERSION) == 0);
    CHECK(etslock_version() == etslock_version());
}

/* --- calls with several keys, whose locks are in a lock table of their own --- */

static const etslock_key both[] = {{"a", 1}, {"b", 1}};

static int runs, frees; /* touched with the __atomic builtins */

static int32_t count_run(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                         void *user_data)
{
    (void)guard, (void)tuples, (void)tuple_count, (void)user_data;
    __atomic_fetch_add(&runs, 1, __ATOMIC_SEQ_CST);
    return 0;
}

/* A thread that wants both keys. */
struct waiter {
    pthread_t thread;
    etslock_table *table;
    etslock_lock_table *lock_table;
    int with_callback;
    etslock_status status;
};

static void *want_both(void *argument)
{
    struct waiter *waiter = argument;
    etslock_options options = patient(waiter->lock_table);
    if (waiter->with_callback) {
        etslock_result result;
        memset(&result, 0x5a, sizeof result);
        options.user_data_free = add_one;
        waiter->status = etslock_with_locks(waiter->table, both, 2, count_run, &frees, &options,
                                            &result);
        CHECK(result.code == 0 && result.data == NULL && result.data_len == 0);
    } else {
        etslock_guard *guard = NULL;
        waiter->status = etslock_acquire_locks(waiter->table, both, 2, &options, &guard);
        CHECK((guard != NULL) == (waiter->status == ETSLOCK_OK));
        if (guard != NULL)
            CHECK_STATUS(etslock_guard_cancel(guard), ETSLOCK_OK);
    }
    return NULL;
}

static void start(struct waiter *waiter, etslock_table *table, etslock_lock_table *lock_table,
                  int with_callback)
{
    waiter->table = table;
    waiter->lock_table = lock_table;
    waiter->with_callback = with_callback;
    waiter->status = -1;
    runs = frees = 0;
    REQUIRE(pthread_create(&waiter->thread, NULL, want_both, waiter) == 0);
    await_waiting(lock_table, 1);
}

static void finish(struct waiter *waiter, etslock_status wanted)
{
    REQUIRE(pthread_join(waiter->thread, NULL) == 0);
    CHECK_STATUS(waiter->status, wanted);
    CHECK(frees == waiter->with_callback);
    CHECK(runs == (waiter->with_callback && wanted == ETSLOCK_OK));
}

static void several_keys_closed(void)
{
    int with_callback, of_table;
    CASE("C-14: CLOSED for a wait for several keys, when table or lock table is freed");
    for (with_callback = 0; with_callback < 2; with_callback++) {
        for (of_table = 0; of_table < 2; of_table++) {
            etslock_table *table = new_table();
            etslock_lock_table *lock_table = new_lock_table();
            etslock_options options = patient(lock_table);
            etslock_guard *guard = NULL;
            struct waiter waiter;
            CHECK_STATUS(etslock_acquire(table, "a", 1, &options, &guard), ETSLOCK_OK);
            start(&waiter, table, lock_table, with_callback);
            if (of_table)
                etslock_table_free(table);
            else
                etslock_lock_table_free(lock_table);
            finish(&waiter, ETSLOCK_CLOSED);
            if (of_table)
                CHECK(count_locks(lock_table, NULL) == 1);
            CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
            if (of_table)
                CHECK(count_locks(lock_table, NULL) == 0);
            if (of_table)
                etslock_lock_table_free(lock_table);
            else
                etslock_table_free(table);
        }
    }
}

static void several_keys_revoked(void)
{
    int with_callback;
    size_t held;
    CASE("C-18: REVOKED when a key is taken away while the others are waited for");
    for (with_callback = 0; with_callback < 2; with_callback++) {
        int taken_away = 0;
        /* The order of the keys is not known: the waiter has the other one already, or not yet. */
        for (held = 0; held < 2; held++) {
            etslock_table *table = new_table();
            etslock_lock_table *lock_table = new_lock_table();
            etslock_options options = patient(lock_table);
            const etslock_key *other = &both[1 - held];
            etslock_guard *guard = NULL;
            struct waiter waiter;
            int has_other;
            CHECK_STATUS(etslock_acquire(table, both[held].key, both[held].key_len, &options,
                                         &guard),
                         ETSLOCK_OK);
            start(&waiter, table, lock_table, with_callback);
            has_other = count_locks(lock_table, NULL) == 2;
            CHECK_STATUS(etslock_lock_table_force_release(lock_table, table, other->key,
                                                          other->key_len),
                         has_other ? ETSLOCK_OK : ETSLOCK_NOT_FOUND);
            taken_away += has_other;
            /* Told at once, and not when the key comes free that it waits for. */
            if (has_other)
                finish(&waiter, ETSLOCK_REVOKED);
            CHECK_STATUS(etslock_guard_cancel(guard), ETSLOCK_OK);
            if (!has_other)
                finish(&waiter, ETSLOCK_OK);
            CHECK(count_locks(lock_table, NULL) == 0);
            etslock_lock_table_free(lock_table);
            etslock_table_free(table);
        }
        CHECK(taken_away == 1);
    }
}

struct victim {
    etslock_table *table;
    etslock_lock_table *lock_table;
};

/* Stages a write, then has one of its locks taken away. */
static int32_t lose_a_lock(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                           void *user_data)
{
    struct victim *victim = user_data;
    (void)tuples, (void)tuple_count;
    CHECK_STATUS(etslock_guard_insert(guard, "a", 1, "x", 1), ETSLOCK_OK);
    CHECK_STATUS(etslock_lock_table_force_release(victim->lock_table, victim->table, "b", 1),
                 ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_commit(guard), ETSLOCK_REVOKED);
    __atomic_fetch_add(&runs, 1, __ATOMIC_SEQ_CST);
    return 0;
}

static void several_keys_lost(void)
{
    static struct victim victim; /* the callback may outlive its call */
    etslock_options options;
    etslock_result result;
    int32_t run_on;
    victim.table = new_table();
    victim.lock_table = new_lock_table();

    CASE("C-18: REVOKED when a callback loses one of its keys");
    for (run_on = ETSLOCK_RUN_ON_WORKER; run_on <= ETSLOCK_RUN_ON_CALLER; run_on++) {
        options = patient(victim.lock_table);
        options.run_on = run_on;
        runs = 0;
        CHECK_STATUS(etslock_with_locks(victim.table, both, 2, lose_a_lock, &victim, &options,
                                        &result),
                     ETSLOCK_REVOKED);
        CHECK(result.code == 0 && result.data == NULL);
        CHECK(count_locks(victim.lock_table, NULL) == 0);
        WAIT_UNTIL(__atomic_load_n(&runs, __ATOMIC_SEQ_CST) != 0);
        CHECK_STATUS(etslock_table_member(victim.table, "a", 1), ETSLOCK_NOT_FOUND);
    }

    CASE("C-4: EXEC_TIMEOUT when several keys are got, and there is no time to run");
    for (run_on = ETSLOCK_RUN_ON_WORKER; run_on <= ETSLOCK_RUN_ON_CALLER; run_on++) {
        options = patient(victim.lock_table);
        options.run_on = run_on;
        options.exec_timeout_ms = 0;
        options.user_data_free = add_one;
        runs = frees = 0;
        CHECK_STATUS(etslock_with_locks(victim.table, both, 2, count_run, &frees, &options,
                                        &result),
                     ETSLOCK_EXEC_TIMEOUT);
        CHECK(result.code == 0 && result.data == NULL);
        CHECK(runs == 0 && frees == 1);
        CHECK(count_locks(victim.lock_table, NULL) == 0);
    }
    etslock_lock_table_free(victim.lock_table);
    etslock_table_free(victim.table);
}

/* --- force against acquisitions, at any moment of theirs --- */

struct robber {
    etslock_table *table;
    etslock_lock_table *lock_table;
    int stop; /* touched with the __atomic builtins */
    long taken;
};

static void *rob(void *argument)
{
    struct robber *robber = argument;
    while (!__atomic_load_n(&robber->stop, __ATOMIC_SEQ_CST)) {
        etslock_status status =
            etslock_lock_table_force_release(robber->lock_table, robber->table, "k", 1);
        if (CHECK(status == ETSLOCK_OK || status == ETSLOCK_NOT_FOUND))
            robber->taken += status == ETSLOCK_OK;
    }
    return NULL;
}

/* The number that the key has, or 0. */
static long published(etslock_table *table)
{
    etslock_tuples *tuples = NULL;
    size_t count = 0;
    long number = 0;
    if (etslock_table_lookup(table, "k", 1, &tuples) == ETSLOCK_OK)
        memcpy(&number, etslock_tuples_data(tuples, &count)[0].value, sizeof number);
    etslock_tuples_free(tuples);
    return number;
}

static void robbed_at_any_moment(void)
{
    const long rounds = is_small_scale() ? 2000 : 100000;
    struct robber robber = {NULL, NULL, 0, 0};
    long lost = 0, kept = 0, round;
    pthread_t thread;
    robber.table = new_table();
    robber.lock_table = new_lock_table();
    REQUIRE(pthread_create(&thread, NULL, rob, &robber) == 0);

    CASE("C-8: every lock that force took is REVOKED: as it is got, or when it is given back");
    for (round = 0; round < rounds; round++) {
        etslock_options options = patient(robber.lock_table);
        etslock_guard *guard = NULL;
        etslock_status status = etslock_acquire(robber.table, "k", 1, &options, &guard);
        CHECK((guard != NULL) == (status == ETSLOCK_OK));
        if (guard != NULL) {
            long next = kept + 1;
            etslock_guard_insert(guard, "k", 1, &next, sizeof next);
            status = etslock_guard_release(guard);
        }
        CHECK(status == ETSLOCK_OK || status == ETSLOCK_REVOKED);
        lost += status == ETSLOCK_REVOKED;
        kept += status == ETSLOCK_OK;
    }
    __atomic_store_n(&robber.stop, 1, __ATOMIC_SEQ_CST);
    REQUIRE(pthread_join(thread, NULL) == 0);
    CHECK(robber.taken == lost && lost + kept == rounds);
    CHECK(published(robber.table) == kept);
    CHECK(count_locks(robber.lock_table, NULL) == 0);
    CHECK(stats_of(robber.lock_table).forced_releases == (uint64_t)lost);
    etslock_lock_table_free(robber.lock_table);
    etslock_table_free(robber.table);
}

/* --- no thread to be had: in a process of its own, which is short of address space --- */

static int without_threads(void)
{
    etslock_table *table = new_table();
    etslock_options options = patient(NULL);
    struct without_threads without;
    CASE("C-17: NO_THREAD with several keys; the locks are released");
    options.user_data_free = add_one;
    options.run_on = ETSLOCK_RUN_ON_CALLER;
    CHECK_STATUS(etslock_with_locks(table, both, 2, count_run, &frees, &options, NULL),
                 ETSLOCK_OK);
    CHECK(runs == 1 && frees == 1);
    options.run_on = ETSLOCK_RUN_ON_WORKER;
    without = forbid_threads();
    runs = frees = 0;
    CHECK_STATUS(etslock_with_locks(table, both, 2, count_run, &frees, &options, NULL),
                 ETSLOCK_ERR_NO_THREAD);
    CHECK(runs == 0 && frees == 1);
    CHECK(count_locks(NULL, NULL) == 0);
    allow_threads(&without);
    CHECK_STATUS(etslock_with_locks(table, both, 2, count_run, &frees, &options, NULL),
                 ETSLOCK_OK);
    CHECK(runs == 1 && frees == 2);
    etslock_table_free(table);
    return check_report();
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "without-threads") == 0)
        return without_threads();
    RUN(names_and_texts());
    RUN(version());
    RUN(several_keys_closed());
    RUN(several_keys_revoked());
    RUN(several_keys_lost());
    RUN(robbed_at_any_moment());
    CASE("C-17: NO_THREAD with several keys");
    RUN_AS("no_threads", CHECK(run_again(argv[0], "without-threads") == EXIT_SUCCESS));
    return check_report();
}
