/* across.c - keys of several tables: etslock_with_locks_across, etslock_acquire_locks_across, and
 * the functions of guards that name a table. Checks C-20, and what C-1, C-7, C-13, C-14 and C-18 say
 * of such guards.
 *
 * "Somebody else" who holds a key is this very thread under ETSLOCK_OWNER_NONE: such a holder takes
 * no part in deadlock detection, so that a wait for it lasts its full time.
 */
#include "check.h"
#include "locks.h"

#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#define IN(table, text) {(table), (text), sizeof(text) - 1}

static etslock_guard *hold_as_another(etslock_lock_table *lock_table, etslock_table *table,
                                      const char *key)
{
    etslock_options options = patient(lock_table);
    options.owner = ETSLOCK_OWNER_NONE;
    return hold_with(options, table, key);
}

static etslock_table *open_table(const char *name)
{
    etslock_table *table = NULL;
    REQUIRE(etslock_table_open(name, &table) == ETSLOCK_OK);
    return table;
}

static etslock_table *new_guarded_table(int32_t type)
{
    etslock_table_options options;
    etslock_table_options_init(&options, sizeof options);
    options.type = type;
    options.access = ETSLOCK_GUARDED;
    return new_table_with(&options);
}

static etslock_guard *hold_all(const etslock_table_key *keys, size_t count)
{
    etslock_options options = patient(NULL);
    etslock_guard *guard = NULL;
    REQUIRE(etslock_acquire_locks_across(keys, count, &options, &guard) == ETSLOCK_OK);
    REQUIRE(guard != NULL);
    return guard;
}

/* Whether the guard sees exactly one tuple there, with this value. */
static int sees(etslock_guard *guard, etslock_table *table, const char *key, const char *value)
{
    etslock_tuples *tuples = NULL;
    const etslock_tuple *data;
    size_t count = 0;
    int only;
    if (etslock_guard_lookup_in(guard, table, key, strlen(key), &tuples) != ETSLOCK_OK)
        return 0;
    data = etslock_tuples_data(tuples, &count);
    only = count == 1 && tuple_is(&data[0], value);
    etslock_tuples_free(tuples);
    return only;
}

static size_t count_of(etslock_table *table, const char *key)
{
    etslock_tuples *tuples = NULL;
    size_t count = 0;
    (void)etslock_table_lookup(table, key, strlen(key), &tuples);
    (void)etslock_tuples_data(tuples, &count);
    etslock_tuples_free(tuples);
    return count;
}

/* --- what is locked --- */

static void one_key_of_each(void)
{
    etslock_table *accounts = new_table();
    etslock_table *orders = new_table();
    const etslock_table_key keys[] = {IN(accounts, "a"), IN(orders, "a"), IN(orders, "7")};
    etslock_guard *guard;

    CASE("C-20: the keys that were named are locked, each in its table, and no other");
    guard = hold_all(keys, 3);
    CHECK(count_locks(NULL, accounts) == 1 && is_locked(NULL, accounts, "a"));
    CHECK(count_locks(NULL, orders) == 2);
    CHECK(is_locked(NULL, orders, "a") && is_locked(NULL, orders, "7"));
    CHECK_STATUS(try_lock(accounts, "7"), ETSLOCK_OK);
    CHECK_STATUS(try_lock(accounts, "a"), ETSLOCK_WAIT_TIMEOUT);
    CHECK_STATUS(try_lock(orders, "a"), ETSLOCK_WAIT_TIMEOUT);

    CASE("C-20: all or none of the tables' writes");
    CHECK_STATUS(etslock_guard_insert_in(guard, accounts, "a", 1, "1", 1), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_insert_in(guard, orders, "a", 1, "2", 1), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_insert_in(guard, orders, "7", 1, "3", 1), ETSLOCK_OK);
    CHECK(sees(guard, accounts, "a", "1") && sees(guard, orders, "a", "2"));
    CHECK(count_of(accounts, "a") == 0 && count_of(orders, "a") == 0);
    CHECK_STATUS(etslock_guard_rollback(guard), ETSLOCK_OK);
    CHECK(!sees(guard, accounts, "a", "1") && !sees(guard, orders, "7", "3"));
    CHECK_STATUS(etslock_guard_insert_in(guard, orders, "7", 1, "4", 1), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_insert_in(guard, accounts, "a", 1, "5", 1), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_commit(guard), ETSLOCK_OK);
    CHECK(has_value(orders, "7", "4") && has_value(accounts, "a", "5"));
    CHECK_STATUS(etslock_guard_delete_in(guard, orders, "7", 1), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_delete_tuple_in(guard, accounts, "a", 1, "no", 2), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_insert_in(guard, orders, "a", 1, "6", 1), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    CHECK(count_of(orders, "7") == 0 && has_value(accounts, "a", "5") &&
          has_value(orders, "a", "6"));
    CHECK(count_locks(NULL, NULL) == 0);
    etslock_table_free(accounts);
    etslock_table_free(orders);
}

static void what_is_not_covered(void)
{
    etslock_table *a = new_table();
    etslock_table *b = new_table();
    etslock_table *c = new_table();
    const etslock_table_key keys[] = {IN(a, "x"), IN(b, "y")};
    etslock_guard *guard = hold_all(keys, 2);
    etslock_tuples *tuples;
    struct {
        etslock_table *table;
        const char *key;
    } out[4];
    size_t i;

    CASE("C-20: a key of another covered table, or a table that is not covered");
    out[0].table = a, out[0].key = "y";
    out[1].table = b, out[1].key = "x";
    out[2].table = c, out[2].key = "x";
    out[3].table = a, out[3].key = "z";
    for (i = 0; i < COUNT_OF(out); i++) {
        etslock_table *table = out[i].table;
        const char *key = out[i].key;
        tuples = (etslock_tuples *)&guard;
        CHECK_STATUS(etslock_guard_lookup_in(guard, table, key, 1, &tuples),
                     ETSLOCK_ERR_NOT_COVERED);
        CHECK(tuples == NULL);
        CHECK_STATUS(etslock_guard_insert_in(guard, table, key, 1, "1", 1),
                     ETSLOCK_ERR_NOT_COVERED);
        CHECK_STATUS(etslock_guard_delete_in(guard, table, key, 1), ETSLOCK_ERR_NOT_COVERED);
        CHECK_STATUS(etslock_guard_delete_tuple_in(guard, table, key, 1, "1", 1),
                     ETSLOCK_ERR_NOT_COVERED);
    }

    CASE("C-20: without a table's name, where there are several");
    CHECK_STATUS(etslock_guard_lookup(guard, "x", 1, &tuples), ETSLOCK_ERR_INVALID);
    CHECK_STATUS(etslock_guard_insert(guard, "x", 1, "1", 1), ETSLOCK_ERR_INVALID);
    CHECK_STATUS(etslock_guard_delete(guard, "y", 1), ETSLOCK_ERR_INVALID);
    CHECK_STATUS(etslock_guard_delete_tuple(guard, "y", 1, "1", 1), ETSLOCK_ERR_INVALID);
    CHECK_STATUS(etslock_guard_insert(guard, "z", 1, "1", 1), ETSLOCK_ERR_INVALID);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    CHECK(count_of(a, "x") == 0 && count_of(b, "y") == 0);
    etslock_table_free(a);
    etslock_table_free(b);
    etslock_table_free(c);
}

static void every_guard_names_its_table(void)
{
    etslock_table *table = new_table_named("across-named");
    etslock_table *again = open_table("across-named");
    etslock_table *other = new_table();
    const etslock_key keys[] = {{"k", 1}, {"l", 1}};
    etslock_options options = patient(NULL);
    int kind;

    CASE("C-20: a guard of one table, through any handle to it");
    for (kind = 0; kind < 3; kind++) {
        const etslock_table_key across[] = {IN(table, "k"), IN(again, "l"), IN(again, "k")};
        etslock_guard *guard = NULL;
        if (kind == 0)
            guard = hold(table, "k");
        else if (kind == 1)
            REQUIRE(etslock_acquire_locks(table, keys, 2, &options, &guard) == ETSLOCK_OK);
        else
            guard = hold_all(across, 3);
        CHECK(count_locks(NULL, NULL) == (kind == 0 ? 1 : 2));
        CHECK_STATUS(etslock_guard_insert_in(guard, again, "k", 1, "1", 1), ETSLOCK_OK);
        CHECK(sees(guard, table, "k", "1"));
        CHECK_STATUS(etslock_guard_insert(guard, "k", 1, "2", 1), ETSLOCK_OK);
        CHECK(sees(guard, again, "k", "2"));
        CHECK_STATUS(etslock_guard_insert_in(guard, other, "k", 1, "3", 1),
                     ETSLOCK_ERR_NOT_COVERED);
        CHECK_STATUS(etslock_guard_delete_in(guard, other, "k", 1), ETSLOCK_ERR_NOT_COVERED);
        CHECK_STATUS(etslock_guard_insert_in(guard, table, "z", 1, "3", 1),
                     ETSLOCK_ERR_NOT_COVERED);
        CHECK_STATUS(etslock_guard_delete_tuple_in(guard, again, "k", 1, "no", 2), ETSLOCK_OK);
        CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
        CHECK(has_value(table, "k", "2") && count_of(other, "k") == 0);
        CHECK_STATUS(etslock_table_delete(again, "k", 1), ETSLOCK_OK);
    }

    CASE("C-14: a new table of the same name is another table");
    {
        etslock_guard *guard = hold(table, "k");
        etslock_table *successor;
        etslock_table_free(again);
        etslock_table_free(table);
        successor = new_table_named("across-named");
        CHECK_STATUS(etslock_guard_insert_in(guard, successor, "k", 1, "1", 1),
                     ETSLOCK_ERR_NOT_COVERED);
        CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
        etslock_table_free(successor);
    }
    etslock_table_free(other);
}

/* --- what a callback sees and does --- */

struct scene {
    etslock_table *set;
    etslock_table *bag;
    etslock_table *copies; /* a duplicate bag, guarded */
    int32_t code;
};

/* The keys below, in the order given. */
static int32_t look_and_write(etslock_guard *guard, const etslock_tuple *tuples,
                              size_t tuple_count, void *user_data)
{
    static const char *const wanted[] = {"kD", "kD", "kS", "kB", "kC", "mS"};
    struct scene *scene = user_data;
    size_t i;
    if (!CHECK(tuple_count == COUNT_OF(wanted)))
        return -1;
    for (i = 0; i < tuple_count; i++) {
        CHECK(tuples[i].key_len == 1 && tuples[i].key[0] == (uint8_t)wanted[i][0]);
        CHECK(tuples[i].value_len == 1 && tuples[i].value[0] == (uint8_t)wanted[i][1]);
    }
    CHECK_STATUS(etslock_guard_insert_in(guard, scene->copies, "k", 1, "D", 1), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_insert_in(guard, scene->bag, "k", 1, "C", 1), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_delete_tuple_in(guard, scene->bag, "k", 1, "B", 1), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_insert_in(guard, scene->set, "k", 1, "T", 1), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_delete_in(guard, scene->set, "m", 1), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_insert(guard, "k", 1, "x", 1), ETSLOCK_ERR_INVALID);
    /* C-9: not with this guard. */
    CHECK_STATUS(etslock_table_insert(scene->copies, "k", 1, "x", 1), ETSLOCK_ERR_GUARDED);
    CHECK_STATUS(etslock_guard_set_result(guard, "done", 4), ETSLOCK_OK);
    return scene->code;
}

static void tables_of_every_type(void)
{
    int run_on, commits;
    for (run_on = ETSLOCK_RUN_ON_WORKER; run_on <= ETSLOCK_RUN_ON_CALLER; run_on++) {
        for (commits = 0; commits < 2; commits++) {
            struct scene scene = {NULL, NULL, NULL, 0};
            etslock_options options = patient(NULL);
            etslock_result result;
            etslock_guard *guard;
            scene.set = new_table();
            scene.bag = new_table_of(ETSLOCK_BAG);
            scene.copies = new_guarded_table(ETSLOCK_DUPLICATE_BAG);
            scene.code = commits ? 0 : 5;
            options.run_on = run_on;

            CASE("C-20: tuples are grouped in the order given, of tables of every type");
            guard = hold(scene.copies, "k");
            CHECK_STATUS(etslock_guard_insert(guard, "k", 1, "D", 1), ETSLOCK_OK);
            CHECK_STATUS(etslock_guard_insert(guard, "k", 1, "D", 1), ETSLOCK_OK);
            CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
            CHECK_STATUS(etslock_table_insert(scene.set, "k", 1, "S", 1), ETSLOCK_OK);
            CHECK_STATUS(etslock_table_insert(scene.set, "m", 1, "S", 1), ETSLOCK_OK);
            CHECK_STATUS(etslock_table_insert(scene.bag, "k", 1, "B", 1), ETSLOCK_OK);
            CHECK_STATUS(etslock_table_insert(scene.bag, "k", 1, "C", 1), ETSLOCK_OK);
            {
                const etslock_table_key keys[] = {
                    IN(scene.copies, "k"), IN(scene.bag, "absent"), IN(scene.set, "k"),
                    IN(scene.copies, "k"), IN(scene.bag, "k"),      IN(scene.set, "m"),
                    IN(scene.set, "k"),
                };
                CHECK_STATUS(etslock_with_locks_across(keys, COUNT_OF(keys), look_and_write,
                                                       &scene, &options, &result),
                             commits ? ETSLOCK_OK : ETSLOCK_CALLBACK_FAILED);
            }
            CHECK(result.code == scene.code);
            CHECK(commits ? result.data_len == 4 && memcmp(result.data, "done", 4) == 0
                          : result.data == NULL);
            etslock_result_free(&result);

            CASE("C-20: all of the tables' writes, or none");
            CHECK(count_of(scene.copies, "k") == (commits ? 3 : 2));
            CHECK(commits ? has_value(scene.bag, "k", "C") : count_of(scene.bag, "k") == 2);
            CHECK(has_value(scene.set, "k", commits ? "T" : "S"));
            CHECK(count_of(scene.set, "m") == (commits ? 0 : 1));
            CHECK(count_locks(NULL, NULL) == 0);
            etslock_table_free(scene.set);
            etslock_table_free(scene.bag);
            etslock_table_free(scene.copies);
        }
    }
}

static int32_t insert_in_both(etslock_guard *guard, const etslock_tuple *tuples,
                              size_t tuple_count, void *user_data)
{
    etslock_table **tables = user_data;
    (void)tuples;
    CHECK(tuple_count == 0 && tuples == NULL);
    CHECK_STATUS(etslock_guard_insert_in(guard, tables[0], "k", 1, "1", 1), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_insert_in(guard, tables[1], "k", 1, "1", 1), ETSLOCK_OK);
    /* Until the lock goes. */
    while (etslock_guard_sleep(guard, ETSLOCK_INFINITE) == ETSLOCK_OK)
        ;
    return 0;
}

static void lost_together(void)
{
    etslock_table *tables[2];
    int run_on;
    tables[0] = new_table();
    tables[1] = new_table();
    CASE("C-20: past the deadline none of the tables' writes happen, and nothing stays locked");
    for (run_on = ETSLOCK_RUN_ON_WORKER; run_on <= ETSLOCK_RUN_ON_CALLER; run_on++) {
        const etslock_table_key keys[] = {IN(tables[0], "k"), IN(tables[1], "k")};
        etslock_options options = options_of(HANGS_MS, 50, ETSLOCK_INFINITE);
        options.run_on = run_on;
        options.on_exec_timeout = ETSLOCK_JOIN;
        CHECK_STATUS(etslock_with_locks_across(keys, 2, insert_in_both, tables, &options, NULL),
                     ETSLOCK_EXEC_TIMEOUT);
        CHECK(count_of(tables[0], "k") == 0 && count_of(tables[1], "k") == 0);
        CHECK(count_locks(NULL, NULL) == 0);
    }

    CASE("C-20: a lock of one table that is taken away revokes the guard for all");
    {
        const etslock_table_key keys[] = {IN(tables[0], "k"), IN(tables[1], "k"),
                                          IN(tables[1], "l")};
        etslock_guard *guard = hold_all(keys, 3);
        etslock_locks *locks = locks_of(NULL, NULL);
        etslock_lock_info info;
        size_t i;
        CHECK(etslock_locks_count(locks) == 3);
        for (i = 0; i < etslock_locks_count(locks); i++) {
            info.struct_size = sizeof info;
            CHECK_STATUS(etslock_locks_get(locks, i, &info), ETSLOCK_OK);
            CHECK(info.token == etslock_guard_token(guard));
        }
        etslock_locks_free(locks);
        CHECK_STATUS(etslock_guard_insert_in(guard, tables[0], "k", 1, "1", 1), ETSLOCK_OK);
        CHECK_STATUS(etslock_lock_table_force_release(NULL, tables[1], "l", 1), ETSLOCK_OK);
        CHECK(count_locks(NULL, NULL) == 0);
        CHECK_STATUS(etslock_guard_insert_in(guard, tables[0], "k", 1, "1", 1), ETSLOCK_REVOKED);
        CHECK_STATUS(try_lock(tables[0], "k"), ETSLOCK_OK);
        CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_REVOKED);
        CHECK(count_of(tables[0], "k") == 0);

        guard = hold_all(keys, 3);
        CHECK_STATUS(etslock_lock_table_force_release_token(NULL, tables[0], "k", 1,
                                                            etslock_guard_token(guard)),
                     ETSLOCK_OK);
        CHECK(count_locks(NULL, NULL) == 0);
        CHECK_STATUS(etslock_guard_cancel(guard), ETSLOCK_OK);
    }

    CASE("C-5: at the release time a waiter for one key takes the lock; the others go too");
    {
        const etslock_table_key keys[] = {IN(tables[0], "k"), IN(tables[1], "k")};
        etslock_options options = options_of(HANGS_MS, 20, 0);
        etslock_guard *guard = NULL;
        etslock_guard *next;
        options.owner = ETSLOCK_OWNER_NONE;
        REQUIRE(etslock_acquire_locks_across(keys, 2, &options, &guard) == ETSLOCK_OK);
        next = hold(tables[1], "k");
        CHECK(!is_locked(NULL, tables[0], "k"));
        CHECK_STATUS(etslock_guard_status(guard), ETSLOCK_REVOKED);
        CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_REVOKED);
        CHECK_STATUS(etslock_guard_release(next), ETSLOCK_OK);
    }
    etslock_table_free(tables[0]);
    etslock_table_free(tables[1]);
}

/* --- waiting --- */

struct waiter {
    pthread_t thread;
    const etslock_table_key *keys;
    size_t key_count;
    etslock_options options;
    etslock_status status;
    etslock_guard *guard;
};

static void *wait_for_locks(void *argument)
{
    struct waiter *waiter = argument;
    waiter->status = etslock_acquire_locks_across(waiter->keys, waiter->key_count,
                                                  &waiter->options, &waiter->guard);
    return NULL;
}

static void start_waiter(struct waiter *waiter, const etslock_table_key *keys, size_t key_count,
                         etslock_options options)
{
    memset(waiter, 0, sizeof *waiter);
    waiter->keys = keys;
    waiter->key_count = key_count;
    waiter->options = options;
    REQUIRE(pthread_create(&waiter->thread, NULL, wait_for_locks, waiter) == 0);
}

static etslock_status end_of(struct waiter *waiter)
{
    REQUIRE(pthread_join(waiter->thread, NULL) == 0);
    if (waiter->status == ETSLOCK_OK)
        CHECK_STATUS(etslock_guard_cancel(waiter->guard), ETSLOCK_OK);
    else
        CHECK(waiter->guard == NULL);
    return waiter->status;
}

static void closed_meanwhile(void)
{
    static const int32_t queues[] = {ETSLOCK_QUEUE_FAIR, ETSLOCK_QUEUE_FIFO,
                                     ETSLOCK_QUEUE_POLLING};
    int closed, waited;
    size_t queue;
    CASE("C-20: CLOSED when any of the tables is freed, whichever key is waited for");
    for (queue = 0; queue < COUNT_OF(queues); queue++) {
        /* 0: the one that holds the key that is waited for; 1: another; 2: a second handle. */
        for (closed = 0; closed < 3; closed++) {
            for (waited = 0; waited < 2; waited++) {
                etslock_table *a = new_table();
                etslock_table *b = new_table_named("across-closed");
                etslock_table *b_again = open_table("across-closed");
                etslock_table *tables[2];
                const etslock_table_key keys[] = {IN(a, "k"), IN(b, "k"), IN(b_again, "l")};
                etslock_guard *other;
                etslock_options options = patient(NULL);
                struct waiter waiter;
                options.queue = queues[queue];
                tables[0] = a;
                tables[1] = b;
                other = hold_as_another(NULL, tables[waited], "k");
                start_waiter(&waiter, keys, 3, options);
                await_waiting(NULL, 1);
                if (closed == 0)
                    etslock_table_free(tables[waited]);
                else if (closed == 1)
                    etslock_table_free(tables[1 - waited]);
                else
                    etslock_table_free(b_again);
                CHECK_STATUS(end_of(&waiter), ETSLOCK_CLOSED);
                CHECK(count_locks(NULL, NULL) == 1); /* the other's */
                CHECK(stats_of(NULL).waiting == 0);
                CHECK_STATUS(etslock_guard_release(other), ETSLOCK_OK);
                CHECK(count_locks(NULL, NULL) == 0);
                if (closed != (waited == 0 ? 0 : 1))
                    etslock_table_free(a);
                if (closed != (waited == 1 ? 0 : 1))
                    etslock_table_free(b);
                if (closed != 2)
                    etslock_table_free(b_again);
            }
        }
    }

    CASE("C-20: CLOSED when the lock table is freed");
    {
        etslock_table *a = new_table();
        etslock_table *b = new_table();
        etslock_lock_table *lock_table = new_lock_table();
        const etslock_table_key keys[] = {IN(a, "k"), IN(b, "k")};
        etslock_guard *other = hold_as_another(lock_table, b, "k");
        struct waiter waiter;
        start_waiter(&waiter, keys, 2, patient(lock_table));
        await_waiting(lock_table, 1);
        etslock_lock_table_free(lock_table);
        CHECK_STATUS(end_of(&waiter), ETSLOCK_CLOSED);
        CHECK_STATUS(etslock_guard_release(other), ETSLOCK_OK);
        etslock_table_free(a);
        etslock_table_free(b);
    }
}

static void tables_freed_under_a_guard(void)
{
    etslock_table *a = new_table_named("across-a");
    etslock_table *b = new_table_named("across-b");
    etslock_table *again = open_table("across-b");
    const etslock_table_key keys[] = {IN(a, "k"), IN(b, "k")};
    etslock_guard *guard = hold_all(keys, 2);
    CASE("C-14: a guard outlives the handles to its tables");
    CHECK_STATUS(etslock_guard_insert_in(guard, a, "k", 1, "1", 1), ETSLOCK_OK);
    etslock_table_free(a);
    etslock_table_free(b);
    CHECK_STATUS(etslock_guard_insert_in(guard, again, "k", 1, "2", 1), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    CHECK(has_value(again, "k", "2"));
    etslock_table_free(again);
}

static void timeouts_and_deadlocks(void)
{
    etslock_table *a = new_table();
    etslock_table *b = new_table();
    const etslock_table_key keys[] = {IN(a, "k"), IN(b, "k"), IN(b, "l")};
    etslock_options options = patient(NULL);
    etslock_guard *guard = NULL;
    int i;

    CASE("C-20: after a wait timeout nothing stays locked, whichever key was not free");
    for (i = 0; i < 3; i++) {
        etslock_guard *other = hold_as_another(NULL, keys[i].table, keys[i].key);
        options.wait_timeout_ms = i == 0 ? 50 : 0;
        guard = (etslock_guard *)&options;
        CHECK_STATUS(etslock_acquire_locks_across(keys, 3, &options, &guard),
                     ETSLOCK_WAIT_TIMEOUT);
        CHECK(guard == NULL);
        CHECK_STATUS(etslock_with_locks_across(keys, 3, must_not_run, NULL, &options, NULL),
                     ETSLOCK_WAIT_TIMEOUT);
        CHECK(count_locks(NULL, NULL) == 1);
        CHECK_STATUS(etslock_guard_release(other), ETSLOCK_OK);
    }

    CASE("C-13: a key of one of the tables that the owner holds itself");
    guard = hold(b, "l");
    options = patient(NULL);
    {
        etslock_guard *second = NULL;
        CHECK_STATUS(etslock_acquire_locks_across(keys, 3, &options, &second), ETSLOCK_DEADLOCK);
        CHECK(second == NULL);
    }
    CHECK(count_locks(NULL, NULL) == 1);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    etslock_table_free(a);
    etslock_table_free(b);
}

/* --- one order, for all --- */

enum { TABLES = 3, NAMES = 3, CLERKS = 6, GOAL = 40 };
static const char *const names[NAMES] = {"a", "b", "c"};

struct bank {
    etslock_table *tables[TABLES];
    etslock_table *again[TABLES]; /* second handles */
    int done[CLERKS];             /* touched with the __atomic builtins only */
    int64_t end_ms;
};

struct clerk {
    pthread_t thread;
    struct bank *bank;
    int number;
    uint32_t random;
    etslock_table_key keys[6];
    size_t key_count;
};

static uint32_t next_random(uint32_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

static void add(etslock_guard *guard, const etslock_table_key *key, int64_t amount)
{
    etslock_tuples *tuples = NULL;
    const etslock_tuple *data;
    size_t count = 0;
    int64_t value = 0;
    CHECK_STATUS(etslock_guard_lookup_in(guard, key->table, key->key, key->key_len, &tuples),
                 ETSLOCK_OK);
    data = etslock_tuples_data(tuples, &count);
    if (CHECK(count == 1 && data[0].value_len == sizeof value))
        memcpy(&value, data[0].value, sizeof value);
    etslock_tuples_free(tuples);
    value += amount;
    CHECK_STATUS(etslock_guard_insert_in(guard, key->table, key->key, key->key_len, &value,
                                         sizeof value),
                 ETSLOCK_OK);
}

/* One unit from the first key named to the last. They may be the same. */
static int32_t transfer(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                        void *user_data)
{
    struct clerk *clerk = user_data;
    (void)tuples, (void)tuple_count;
    add(guard, &clerk->keys[0], -1);
    sched_yield();
    add(guard, &clerk->keys[clerk->key_count - 1], 1);
    return 0;
}

static int all_clerks_reached_the_goal(struct bank *bank)
{
    int i;
    for (i = 0; i < CLERKS; i++)
        if (__atomic_load_n(&bank->done[i], __ATOMIC_RELAXED) < GOAL)
            return 0;
    return 1;
}

/* Some lock keys of one table in the calls of 0.1. */
static etslock_status lock_in_one_table(struct clerk *clerk, const etslock_options *options)
{
    etslock_key keys[6];
    etslock_guard *guard = NULL;
    etslock_status status;
    size_t i;
    for (i = 0; i < clerk->key_count; i++) {
        clerk->keys[i].table = clerk->keys[0].table;
        keys[i].key = clerk->keys[i].key;
        keys[i].key_len = clerk->keys[i].key_len;
    }
    status = etslock_acquire_locks(clerk->keys[0].table, keys, clerk->key_count, options, &guard);
    if (status != ETSLOCK_OK)
        return status;
    transfer(guard, NULL, 0, clerk);
    return etslock_guard_release(guard);
}

static void *run_clerk(void *argument)
{
    struct clerk *clerk = argument;
    struct bank *bank = clerk->bank;
    etslock_options options = patient(NULL);
    options.run_on = clerk->number % 2 ? ETSLOCK_RUN_ON_WORKER : ETSLOCK_RUN_ON_CALLER;
    while (!all_clerks_reached_the_goal(bank) && now_ms() < bank->end_ms) {
        etslock_status status;
        size_t i;
        clerk->key_count = 2 + next_random(&clerk->random) % 5;
        for (i = 0; i < clerk->key_count; i++) {
            uint32_t table = next_random(&clerk->random) % TABLES;
            int again = (int)(next_random(&clerk->random) % 2);
            clerk->keys[i].table = again ? bank->again[table] : bank->tables[table];
            clerk->keys[i].key = names[next_random(&clerk->random) % NAMES];
            clerk->keys[i].key_len = 1;
        }
        if (clerk->number % 3 == 2) {
            status = lock_in_one_table(clerk, &options);
        } else {
            status = etslock_with_locks_across(clerk->keys, clerk->key_count, transfer, clerk,
                                               &options, NULL);
        }
        CHECK_STATUS(status, ETSLOCK_OK);
        __atomic_fetch_add(&bank->done[clerk->number], 1, __ATOMIC_RELAXED);
    }
    return NULL;
}

static void overlapping_sets_in_any_order(void)
{
    static const char *const table_names[TABLES] = {"across-0", "across-1", "across-2"};
    const int64_t deposit = 1000;
    struct clerk clerks[CLERKS];
    struct bank bank;
    int64_t sum = 0;
    int i, k;

    CASE("C-20: overlapping keys of several tables and of one, in any order: no deadlock, no "
         "starvation, no lost unit");
    memset(&bank, 0, sizeof bank);
    /* Far above the fraction of a second that it takes: only starvation gets there. */
    bank.end_ms = now_ms() + 30000;
    for (i = 0; i < TABLES; i++) {
        bank.tables[i] = new_table_named(table_names[i]);
        bank.again[i] = open_table(table_names[i]);
        for (k = 0; k < NAMES; k++)
            CHECK_STATUS(etslock_table_insert(bank.tables[i], names[k], 1, &deposit,
                                              sizeof deposit),
                         ETSLOCK_OK);
    }
    for (i = 0; i < CLERKS; i++) {
        memset(&clerks[i], 0, sizeof clerks[i]);
        clerks[i].bank = &bank;
        clerks[i].number = i;
        clerks[i].random = 2463534242u + (uint32_t)i * 7919u;
        REQUIRE(pthread_create(&clerks[i].thread, NULL, run_clerk, &clerks[i]) == 0);
    }
    for (i = 0; i < CLERKS; i++)
        REQUIRE(pthread_join(clerks[i].thread, NULL) == 0);
    CHECK(all_clerks_reached_the_goal(&bank));
    for (i = 0; i < TABLES; i++) {
        for (k = 0; k < NAMES; k++) {
            int64_t value = 0;
            CHECK_STATUS(etslock_table_update_counter(bank.tables[i], names[k], 1, 0, 0, &value),
                         ETSLOCK_OK);
            sum += value;
        }
        etslock_table_free(bank.tables[i]);
        etslock_table_free(bank.again[i]);
    }
    CHECK(sum == TABLES * NAMES * deposit);
    CHECK(count_locks(NULL, NULL) == 0);
}

static void one_global_order(void)
{
    etslock_table *a = new_table();
    etslock_table *b = new_table();
    const etslock_table_key forth[] = {IN(a, "k"), IN(b, "k")};
    const etslock_table_key back[] = {IN(b, "k"), IN(a, "k")};
    int a_was_taken[2];
    int b_was_taken[2];
    int i;
    CASE("C-20: one order for the same key in two tables, whatever the list says");
    for (i = 0; i < 2; i++) {
        struct waiter waiter;
        etslock_guard *other = hold_as_another(NULL, b, "k");
        start_waiter(&waiter, i == 0 ? forth : back, 2, patient(NULL));
        await_queue(NULL, b, "k", 1);
        a_was_taken[i] = is_locked(NULL, a, "k");
        CHECK_STATUS(etslock_guard_release(other), ETSLOCK_OK);
        CHECK_STATUS(end_of(&waiter), ETSLOCK_OK);

        other = hold_as_another(NULL, a, "k");
        start_waiter(&waiter, i == 0 ? forth : back, 2, patient(NULL));
        await_queue(NULL, a, "k", 1);
        b_was_taken[i] = is_locked(NULL, b, "k");
        CHECK_STATUS(etslock_guard_release(other), ETSLOCK_OK);
        CHECK_STATUS(end_of(&waiter), ETSLOCK_OK);
    }
    CHECK(a_was_taken[0] != b_was_taken[0]);
    CHECK(a_was_taken[0] == a_was_taken[1] && b_was_taken[0] == b_was_taken[1]);
    etslock_table_free(a);
    etslock_table_free(b);
}

/* --- numbers and bad input --- */

static void number_of_keys(void)
{
    static char texts[ETSLOCK_MAX_KEYS + 1][8];
    static etslock_table_key keys[ETSLOCK_MAX_KEYS + 1];
    etslock_table *tables[64];
    etslock_options options = patient(NULL);
    etslock_guard *guard = NULL;
    etslock_result result;
    int freed = 0;
    size_t i;

    for (i = 0; i < COUNT_OF(tables); i++)
        tables[i] = new_table();
    for (i = 0; i < COUNT_OF(keys); i++) {
        snprintf(texts[i], sizeof texts[i], "%06u", (unsigned)(i / 2));
        keys[i].table = tables[i % COUNT_OF(tables)];
        keys[i].key = texts[i];
        keys[i].key_len = 6;
    }
    options.wait_timeout_ms = 0;

    CASE("C-20: one key, and 65,536 of many tables");
    CHECK_STATUS(etslock_acquire_locks_across(keys, 1, &options, &guard), ETSLOCK_OK);
    CHECK(count_locks(NULL, NULL) == 1);
    CHECK_STATUS(etslock_guard_insert(guard, texts[0], 6, "1", 1), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    CHECK(has_value(tables[0], texts[0], "1"));
    CHECK_STATUS(etslock_acquire_locks_across(keys, ETSLOCK_MAX_KEYS, &options, &guard),
                 ETSLOCK_OK);
    CHECK(count_locks(NULL, NULL) == ETSLOCK_MAX_KEYS);
    for (i = 0; i < ETSLOCK_MAX_KEYS; i += 1001)
        CHECK_STATUS(etslock_guard_insert_in(guard, keys[i].table, texts[i], 6, "2", 1),
                     ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    for (i = 0; i < ETSLOCK_MAX_KEYS; i += 1001)
        CHECK(has_value(keys[i].table, texts[i], "2"));
    CHECK(count_locks(NULL, NULL) == 0);

    CASE("C-20: 0 and 65,537 keys are invalid");
    options.user_data_free = add_one;
    guard = (etslock_guard *)&freed;
    CHECK_STATUS(etslock_acquire_locks_across(keys, 0, &options, &guard), ETSLOCK_ERR_INVALID);
    CHECK(guard == NULL);
    guard = (etslock_guard *)&freed;
    CHECK_STATUS(etslock_acquire_locks_across(keys, ETSLOCK_MAX_KEYS + 1, &options, &guard),
                 ETSLOCK_ERR_INVALID);
    CHECK(guard == NULL);
    memset(&result, 0xff, sizeof result);
    CHECK_STATUS(etslock_with_locks_across(keys, 0, must_not_run, &freed, &options, &result),
                 ETSLOCK_ERR_INVALID);
    CHECK(freed == 1);
    CHECK(result.code == 0 && result.data == NULL && result.data_len == 0);
    CHECK_STATUS(etslock_with_locks_across(keys, ETSLOCK_MAX_KEYS + 1, must_not_run, &freed,
                                           &options, NULL),
                 ETSLOCK_ERR_INVALID);
    CHECK(freed == 2);

    CASE("NULL, and lengths out of range");
    CHECK_STATUS(etslock_acquire_locks_across(NULL, 2, &options, &guard), ETSLOCK_ERR_NULL);
    CHECK_STATUS(etslock_acquire_locks_across(keys, 2, &options, NULL), ETSLOCK_ERR_NULL);
    CHECK_STATUS(etslock_with_locks_across(NULL, 2, must_not_run, &freed, &options, NULL),
                 ETSLOCK_ERR_NULL);
    CHECK(freed == 3);
    CHECK_STATUS(etslock_with_locks_across(keys, 2, NULL, &freed, &options, NULL),
                 ETSLOCK_ERR_NULL);
    CHECK(freed == 4);
    for (i = 0; i < 3; i++) {
        etslock_table_key pair[2];
        memcpy(pair, keys, sizeof pair);
        if (i == 0)
            pair[1].table = NULL;
        else if (i == 1)
            pair[1].key = NULL;
        else
            pair[1].key_len = SIZE_MAX;
        guard = (etslock_guard *)&freed;
        CHECK_STATUS(etslock_acquire_locks_across(pair, 2, &options, &guard),
                     i == 2 ? ETSLOCK_ERR_INVALID : ETSLOCK_ERR_NULL);
        CHECK(guard == NULL);
        CHECK_STATUS(etslock_with_locks_across(pair, 2, must_not_run, &freed, &options, NULL),
                     i == 2 ? ETSLOCK_ERR_INVALID : ETSLOCK_ERR_NULL);
        CHECK(freed == 5 + (int)i);
    }
    options.struct_size = 8;
    CHECK_STATUS(etslock_with_locks_across(keys, 2, must_not_run, &freed, &options, NULL),
                 ETSLOCK_ERR_STRUCT_SIZE);
    CHECK(freed == 7);
    CHECK(count_locks(NULL, NULL) == 0);
    for (i = 0; i < COUNT_OF(tables); i++)
        etslock_table_free(tables[i]);
}

static void bad_input_of_guards(void)
{
    etslock_table *a = new_table();
    etslock_table *b = new_table();
    const etslock_table_key keys[] = {IN(a, "k"), IN(b, "k")};
    etslock_guard *guard = hold_all(keys, 2);
    etslock_tuples *tuples;

    CASE("NULL and lengths out of range, in the functions of guards that name a table");
    tuples = (etslock_tuples *)&guard;
    CHECK_STATUS(etslock_guard_lookup_in(NULL, a, "k", 1, &tuples), ETSLOCK_ERR_NULL);
    CHECK(tuples == NULL);
    CHECK_STATUS(etslock_guard_lookup_in(guard, NULL, "k", 1, &tuples), ETSLOCK_ERR_NULL);
    CHECK_STATUS(etslock_guard_lookup_in(guard, a, NULL, 1, &tuples), ETSLOCK_ERR_NULL);
    CHECK_STATUS(etslock_guard_lookup_in(guard, a, "k", 1, NULL), ETSLOCK_ERR_NULL);
    CHECK_STATUS(etslock_guard_lookup_in(guard, a, "k", SIZE_MAX, &tuples), ETSLOCK_ERR_INVALID);
    CHECK_STATUS(etslock_guard_lookup_in(guard, a, "k", 1, &tuples), ETSLOCK_NOT_FOUND);
    CHECK_STATUS(etslock_guard_insert_in(NULL, a, "k", 1, "v", 1), ETSLOCK_ERR_NULL);
    CHECK_STATUS(etslock_guard_insert_in(guard, NULL, "k", 1, "v", 1), ETSLOCK_ERR_NULL);
    CHECK_STATUS(etslock_guard_insert_in(guard, a, NULL, 1, "v", 1), ETSLOCK_ERR_NULL);
    CHECK_STATUS(etslock_guard_insert_in(guard, a, "k", 1, NULL, 1), ETSLOCK_ERR_NULL);
    CHECK_STATUS(etslock_guard_insert_in(guard, a, "k", SIZE_MAX, "v", 1), ETSLOCK_ERR_INVALID);
    CHECK_STATUS(etslock_guard_insert_in(guard, a, "k", 1, "v", SIZE_MAX), ETSLOCK_ERR_INVALID);
    CHECK_STATUS(etslock_guard_delete_in(NULL, a, "k", 1), ETSLOCK_ERR_NULL);
    CHECK_STATUS(etslock_guard_delete_in(guard, NULL, "k", 1), ETSLOCK_ERR_NULL);
    CHECK_STATUS(etslock_guard_delete_in(guard, a, NULL, 1), ETSLOCK_ERR_NULL);
    CHECK_STATUS(etslock_guard_delete_in(guard, a, "k", SIZE_MAX), ETSLOCK_ERR_INVALID);
    CHECK_STATUS(etslock_guard_delete_tuple_in(NULL, a, "k", 1, "v", 1), ETSLOCK_ERR_NULL);
    CHECK_STATUS(etslock_guard_delete_tuple_in(guard, NULL, "k", 1, "v", 1), ETSLOCK_ERR_NULL);
    CHECK_STATUS(etslock_guard_delete_tuple_in(guard, a, NULL, 1, "v", 1), ETSLOCK_ERR_NULL);
    CHECK_STATUS(etslock_guard_delete_tuple_in(guard, a, "k", 1, NULL, 1), ETSLOCK_ERR_NULL);
    CHECK_STATUS(etslock_guard_delete_tuple_in(guard, a, "k", SIZE_MAX, "v", 1),
                 ETSLOCK_ERR_INVALID);
    CHECK_STATUS(etslock_guard_delete_tuple_in(guard, a, "k", 1, "v", SIZE_MAX),
                 ETSLOCK_ERR_INVALID);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    CHECK(count_of(a, "k") == 0 && count_of(b, "k") == 0);

    CASE("a late guard of several tables");
    {
        etslock_options options = options_of(HANGS_MS, 0, ETSLOCK_INFINITE);
        REQUIRE(etslock_acquire_locks_across(keys, 2, &options, &guard) == ETSLOCK_OK);
        CHECK_STATUS(etslock_guard_insert_in(guard, a, "k", 1, "v", 1), ETSLOCK_EXEC_TIMEOUT);
        CHECK_STATUS(etslock_guard_lookup_in(guard, b, "k", 1, &tuples), ETSLOCK_EXEC_TIMEOUT);
        CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_EXEC_TIMEOUT);
        CHECK(count_locks(NULL, NULL) == 0);
    }

    CASE("C-16: in a forked child");
    guard = hold_all(keys, 2);
    CHECK_STATUS(etslock_guard_insert_in(guard, a, "k", 1, "v", 1), ETSLOCK_OK);
    {
        int state = 0;
        pid_t child = fork();
        REQUIRE(child >= 0);
        if (child == 0) {
            int good =
                etslock_guard_insert_in(guard, a, "k", 1, "v", 1) == ETSLOCK_ERR_FORKED &&
                etslock_guard_lookup_in(guard, b, "k", 1, &tuples) == ETSLOCK_ERR_FORKED &&
                etslock_acquire_locks_across(keys, 2, NULL, &guard) == ETSLOCK_ERR_FORKED &&
                guard == NULL &&
                etslock_with_locks_across(keys, 2, must_not_run, NULL, NULL, NULL) ==
                    ETSLOCK_ERR_FORKED;
            _exit(good ? 0 : 1);
        }
        REQUIRE(waitpid(child, &state, 0) == child);
        CHECK(WIFEXITED(state) && WEXITSTATUS(state) == 0);
    }
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    CHECK(has_value(a, "k", "v"));
    etslock_table_free(a);
    etslock_table_free(b);
}

int main(void)
{
    RUN(one_key_of_each());
    RUN(what_is_not_covered());
    RUN(every_guard_names_its_table());
    RUN(tables_of_every_type());
    RUN(lost_together());
    RUN(closed_meanwhile());
    RUN(tables_freed_under_a_guard());
    RUN(timeouts_and_deadlocks());
    RUN(one_global_order());
    RUN(overlapping_sets_in_any_order());
    RUN(number_of_keys());
    RUN(bad_input_of_guards());
    return check_report();
}
