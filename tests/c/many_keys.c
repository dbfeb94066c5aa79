/* many_keys.c - the locks of several keys in one call: etslock_with_locks and
 * etslock_acquire_locks. Checks C-18, and what C-1, C-5, C-7 and C-13 say about such guards.
 *
 * "Somebody else" who holds a key is often this very thread under ETSLOCK_OWNER_NONE: such a
 * holder takes no part in deadlock detection, so that a wait for it lasts its full time.
 */
#include "check.h"
#include "locks.h"

#include <pthread.h>
#include <semaphore.h>
#include <unistd.h>

#define KEY(text) {(text), sizeof(text) - 1}

static etslock_guard *hold_as_another(etslock_lock_table *lock_table, etslock_table *table,
                                      const char *key)
{
    etslock_options options = patient(lock_table);
    options.owner = ETSLOCK_OWNER_NONE;
    return hold_with(options, table, key);
}

/* A thread that waits for several keys. The guard is left to whoever joins it. */
struct waiter {
    pthread_t thread;
    etslock_table *table;
    const etslock_key *keys;
    size_t key_count;
    etslock_options options;
    etslock_status status;
    etslock_guard *guard;
    int64_t took_ms;
    int64_t remaining_ms;
};

static void *wait_for_locks(void *argument)
{
    struct waiter *waiter = argument;
    int64_t begin = now_ms();
    waiter->status = etslock_acquire_locks(waiter->table, waiter->keys, waiter->key_count,
                                           &waiter->options, &waiter->guard);
    waiter->remaining_ms = etslock_guard_remaining_ms(waiter->guard);
    waiter->took_ms = now_ms() - begin;
    return NULL;
}

static void start_waiter(struct waiter *waiter, etslock_table *table, const etslock_key *keys,
                         size_t key_count, const etslock_options *options)
{
    memset(waiter, 0, sizeof *waiter);
    waiter->table = table;
    waiter->keys = keys;
    waiter->key_count = key_count;
    waiter->options = *options;
    REQUIRE(pthread_create(&waiter->thread, NULL, wait_for_locks, waiter) == 0);
}

static void duplicates_count_once(void)
{
    const etslock_key keys[] = {KEY("a"), KEY("b"), KEY("a"), KEY("b"), KEY("b")};
    etslock_table *table = new_table();
    etslock_options options = patient(NULL);
    etslock_guard *guard = NULL;

    CASE("C-18: a key that is named twice is locked once");
    options.wait_timeout_ms = 0;
    CHECK_STATUS(etslock_acquire_locks(table, keys, COUNT_OF(keys), &options, &guard), ETSLOCK_OK);
    CHECK(count_locks(NULL, table) == 2);
    CHECK_STATUS(etslock_guard_insert(guard, "a", 1, "1", 1), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    CHECK(count_locks(NULL, table) == 0);
    CHECK(has_value(table, "a", "1"));
    etslock_table_free(table);
}

static int32_t expect_groups(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                             void *user_data)
{
    static const char *const wanted[] = {"b3", "b1", "a9", "c2", "c2"};
    size_t i;
    (void)guard, (void)user_data;
    if (!CHECK(tuple_count == COUNT_OF(wanted)))
        return 1;
    for (i = 0; i < tuple_count; i++) {
        CHECK(tuples[i].key_len == 1 && tuples[i].key[0] == (uint8_t)wanted[i][0]);
        CHECK(tuples[i].value_len == 1 && tuples[i].value[0] == (uint8_t)wanted[i][1]);
    }
    return 0;
}

static int32_t expect_no_tuples(etslock_guard *guard, const etslock_tuple *tuples,
                                size_t tuple_count, void *user_data)
{
    (void)guard, (void)user_data;
    CHECK(tuples == NULL && tuple_count == 0);
    return 0;
}

static void tuples_are_grouped(void)
{
    const etslock_key keys[] = {KEY("b"), KEY("absent"), KEY("a"), KEY("b"), KEY("c"), KEY("a")};
    const etslock_key absent[] = {KEY("x"), KEY(""), {NULL, 0}};
    etslock_table *table = new_table_of(ETSLOCK_DUPLICATE_BAG);
    etslock_options options = patient(NULL);
    int run_on;

    CHECK_STATUS(etslock_table_insert(table, "a", 1, "9", 1), ETSLOCK_OK);
    CHECK_STATUS(etslock_table_insert(table, "c", 1, "2", 1), ETSLOCK_OK);
    CHECK_STATUS(etslock_table_insert(table, "b", 1, "3", 1), ETSLOCK_OK);
    CHECK_STATUS(etslock_table_insert(table, "c", 1, "2", 1), ETSLOCK_OK);
    CHECK_STATUS(etslock_table_insert(table, "b", 1, "1", 1), ETSLOCK_OK);

    CASE("C-18: the callback's tuples are grouped in the order given");
    for (run_on = ETSLOCK_RUN_ON_WORKER; run_on <= ETSLOCK_RUN_ON_CALLER; run_on++) {
        options.run_on = run_on;
        CHECK_STATUS(etslock_with_locks(table, keys, COUNT_OF(keys), expect_groups, NULL, &options,
                                        NULL),
                     ETSLOCK_OK);
        CHECK_STATUS(etslock_with_locks(table, absent, COUNT_OF(absent), expect_no_tuples, NULL,
                                        &options, NULL),
                     ETSLOCK_OK);
    }
    etslock_table_free(table);
}

static void number_of_keys(void)
{
    static char names[ETSLOCK_MAX_KEYS + 1][8];
    static etslock_key keys[ETSLOCK_MAX_KEYS + 1];
    etslock_table *table = new_table();
    etslock_options options = patient(NULL);
    etslock_guard *guard = NULL;
    etslock_result result;
    int freed = 0;
    size_t i;

    for (i = 0; i < COUNT_OF(keys); i++) {
        snprintf(names[i], sizeof names[i], "%06u", (unsigned)i);
        keys[i].key = names[i];
        keys[i].key_len = 6;
    }
    options.wait_timeout_ms = 0;

    CASE("C-18: one key is enough");
    CHECK_STATUS(etslock_acquire_locks(table, keys, 1, &options, &guard), ETSLOCK_OK);
    CHECK(count_locks(NULL, table) == 1);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);

    CASE("C-18: 65,536 keys can be locked");
    CHECK_STATUS(etslock_acquire_locks(table, keys, ETSLOCK_MAX_KEYS, &options, &guard),
                 ETSLOCK_OK);
    CHECK(count_locks(NULL, table) == ETSLOCK_MAX_KEYS);
    CHECK_STATUS(etslock_guard_insert(guard, names[0], 6, "1", 1), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_insert(guard, names[ETSLOCK_MAX_KEYS - 1], 6, "1", 1), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_cancel(guard), ETSLOCK_OK);
    CHECK(count_locks(NULL, table) == 0);

    CASE("C-18: 0 and 65,537 keys are invalid");
    options.user_data_free = add_one;
    guard = (etslock_guard *)&freed;
    CHECK_STATUS(etslock_acquire_locks(table, keys, 0, &options, &guard), ETSLOCK_ERR_INVALID);
    CHECK(guard == NULL);
    guard = (etslock_guard *)&freed;
    CHECK_STATUS(etslock_acquire_locks(table, keys, ETSLOCK_MAX_KEYS + 1, &options, &guard),
                 ETSLOCK_ERR_INVALID);
    CHECK(guard == NULL);
    CHECK(freed == 0);
    memset(&result, 0xff, sizeof result);
    CHECK_STATUS(etslock_with_locks(table, keys, 0, do_nothing, &freed, &options, &result),
                 ETSLOCK_ERR_INVALID);
    CHECK(freed == 1);
    CHECK(result.code == 0 && result.data == NULL && result.data_len == 0);
    CHECK_STATUS(etslock_with_locks(table, keys, ETSLOCK_MAX_KEYS + 1, do_nothing, &freed,
                                    &options, NULL),
                 ETSLOCK_ERR_INVALID);
    CHECK(freed == 2);

    CASE("C-12: NULL keys are refused and the user data is freed");
    keys[1].key = NULL;
    CHECK_STATUS(etslock_acquire_locks(table, NULL, 2, &options, &guard), ETSLOCK_ERR_NULL);
    CHECK_STATUS(etslock_acquire_locks(table, keys, 2, &options, &guard), ETSLOCK_ERR_NULL);
    CHECK_STATUS(etslock_acquire_locks(NULL, keys, 1, &options, &guard), ETSLOCK_ERR_NULL);
    CHECK_STATUS(etslock_acquire_locks(table, keys, 1, &options, NULL), ETSLOCK_ERR_NULL);
    CHECK_STATUS(etslock_with_locks(table, keys, 2, do_nothing, &freed, &options, NULL),
                 ETSLOCK_ERR_NULL);
    CHECK(freed == 3);
    CHECK_STATUS(etslock_with_locks(table, keys, 1, NULL, &freed, &options, NULL),
                 ETSLOCK_ERR_NULL);
    CHECK(freed == 4);
    CHECK(count_locks(NULL, table) == 0);
    etslock_table_free(table);
}

/* Transfers between accounts, by threads that name the accounts in random order. */
enum { ACCOUNTS = 8, CLERKS = 6, GOAL = 40 };
static const char account_names[ACCOUNTS][3] = {"a0", "a1", "a2", "a3", "a4", "a5", "a6", "a7"};

struct bank {
    etslock_table *table;
    int done[CLERKS]; /* touched with the __atomic builtins only */
    int64_t end_ms;
};

struct clerk {
    pthread_t thread;
    struct bank *bank;
    int number;
    uint32_t random;
    etslock_key keys[6];
    size_t key_count;
};

static uint32_t next_random(uint32_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

static int64_t read_account(etslock_guard *guard, const etslock_key *key)
{
    etslock_tuples *tuples = NULL;
    const etslock_tuple *data;
    size_t count = 0;
    int64_t value = 0;
    CHECK_STATUS(etslock_guard_lookup(guard, key->key, key->key_len, &tuples), ETSLOCK_OK);
    data = etslock_tuples_data(tuples, &count);
    if (CHECK(count == 1 && data[0].value_len == sizeof value))
        memcpy(&value, data[0].value, sizeof value);
    etslock_tuples_free(tuples);
    return value;
}

/* One unit from the first account named to the last. They may be the same. */
static int32_t transfer(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                        void *user_data)
{
    struct clerk *clerk = user_data;
    const etslock_key *from = &clerk->keys[0];
    const etslock_key *to = &clerk->keys[clerk->key_count - 1];
    int64_t value;
    (void)tuples, (void)tuple_count;
    value = read_account(guard, from) - 1;
    CHECK_STATUS(etslock_guard_insert(guard, from->key, from->key_len, &value, sizeof value),
                 ETSLOCK_OK);
    sched_yield();
    value = read_account(guard, to) + 1;
    CHECK_STATUS(etslock_guard_insert(guard, to->key, to->key_len, &value, sizeof value),
                 ETSLOCK_OK);
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

static void *run_clerk(void *argument)
{
    struct clerk *clerk = argument;
    struct bank *bank = clerk->bank;
    etslock_options options = patient(NULL);
    options.run_on = clerk->number % 3 == 0 ? ETSLOCK_RUN_ON_WORKER : ETSLOCK_RUN_ON_CALLER;

    while (!all_clerks_reached_the_goal(bank) && now_ms() < bank->end_ms) {
        etslock_status status;
        size_t i;
        clerk->key_count = 2 + next_random(&clerk->random) % 5;
        for (i = 0; i < clerk->key_count; i++) {
            clerk->keys[i].key = account_names[next_random(&clerk->random) % ACCOUNTS];
            clerk->keys[i].key_len = 2;
        }
        if (clerk->number % 3 == 2) {
            etslock_guard *guard = NULL;
            status = etslock_acquire_locks(bank->table, clerk->keys, clerk->key_count, &options,
                                           &guard);
            if (status == ETSLOCK_OK) {
                transfer(guard, NULL, 0, clerk);
                status = etslock_guard_release(guard);
            }
        } else {
            status = etslock_with_locks(bank->table, clerk->keys, clerk->key_count, transfer,
                                        clerk, &options, NULL);
        }
        CHECK_STATUS(status, ETSLOCK_OK);
        __atomic_fetch_add(&bank->done[clerk->number], 1, __ATOMIC_RELAXED);
    }
    return NULL;
}

static void overlapping_sets_in_any_order(void)
{
    const int64_t deposit = 1000;
    struct clerk clerks[CLERKS];
    struct bank bank;
    int64_t sum = 0;
    int i;

    CASE("C-18: overlapping keys named in any order: no deadlock, no starvation, no lost unit");
    memset(&bank, 0, sizeof bank);
    bank.table = new_table();
    /* Far above the fraction of a second that it takes: only starvation gets there. */
    bank.end_ms = now_ms() + 30000;
    for (i = 0; i < ACCOUNTS; i++)
        CHECK_STATUS(etslock_table_insert(bank.table, account_names[i], 2, &deposit,
                                          sizeof deposit),
                     ETSLOCK_OK);
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

    for (i = 0; i < ACCOUNTS; i++) {
        int64_t value = 0;
        CHECK_STATUS(etslock_table_update_counter(bank.table, account_names[i], 2, 0, 0, &value),
                     ETSLOCK_OK);
        sum += value;
    }
    CHECK(sum == ACCOUNTS * deposit);
    CHECK(count_locks(NULL, bank.table) == 0);
    etslock_table_free(bank.table);
}

static void a_timeout_leaves_nothing(void)
{
    const etslock_key forth[] = {KEY("a"), KEY("b"), KEY("c")};
    const etslock_key back[] = {KEY("c"), KEY("b"), KEY("a")};
    static const char *const held[] = {"a", "b", "c"};
    etslock_table *table = new_table();
    etslock_options options = patient(NULL);
    size_t i;

    CASE("C-18: after a wait timeout no key stays locked, whichever was not free");
    for (i = 0; i < COUNT_OF(held); i++) {
        etslock_guard *other = hold_as_another(NULL, table, held[i]);
        etslock_guard *guard = NULL;
        int64_t begin = now_ms();
        options.wait_timeout_ms = 50;
        CHECK_STATUS(etslock_acquire_locks(table, forth, 3, &options, &guard),
                     ETSLOCK_WAIT_TIMEOUT);
        CHECK(guard == NULL);
        CHECK(now_ms() - begin >= 48);
        CHECK(count_locks(NULL, table) == 1 && is_locked(NULL, table, held[i]));

        options.wait_timeout_ms = 0;
        CHECK_STATUS(etslock_with_locks(table, back, 3, do_nothing, NULL, &options, NULL),
                     ETSLOCK_WAIT_TIMEOUT);
        CHECK(count_locks(NULL, table) == 1);

        CHECK_STATUS(etslock_guard_release(other), ETSLOCK_OK);
        CHECK(count_locks(NULL, table) == 0);
    }
    etslock_table_free(table);
}

static void one_global_order(void)
{
    const etslock_key forth[] = {KEY("a"), KEY("b")};
    const etslock_key back[] = {KEY("b"), KEY("a")};
    etslock_table *table = new_table();
    etslock_options options = patient(NULL);
    int a_was_taken[2];
    int b_was_taken[2];
    int i;

    CASE("C-18: one order, whatever the list says; keys already taken stay locked meanwhile");
    for (i = 0; i < 2; i++) {
        struct waiter waiter;
        etslock_guard *other = hold_as_another(NULL, table, "b");
        start_waiter(&waiter, table, i == 0 ? forth : back, 2, &options);
        await_queue(NULL, table, "b", 1);
        a_was_taken[i] = is_locked(NULL, table, "a");
        CHECK_STATUS(etslock_guard_release(other), ETSLOCK_OK);
        REQUIRE(pthread_join(waiter.thread, NULL) == 0);
        CHECK_STATUS(waiter.status, ETSLOCK_OK);
        CHECK_STATUS(etslock_guard_release(waiter.guard), ETSLOCK_OK);

        other = hold_as_another(NULL, table, "a");
        start_waiter(&waiter, table, i == 0 ? forth : back, 2, &options);
        await_queue(NULL, table, "a", 1);
        b_was_taken[i] = is_locked(NULL, table, "b");
        CHECK_STATUS(etslock_guard_release(other), ETSLOCK_OK);
        REQUIRE(pthread_join(waiter.thread, NULL) == 0);
        CHECK_STATUS(waiter.status, ETSLOCK_OK);
        CHECK_STATUS(etslock_guard_release(waiter.guard), ETSLOCK_OK);
    }
    CHECK(a_was_taken[0] != b_was_taken[0]);
    CHECK(a_was_taken[0] == a_was_taken[1] && b_was_taken[0] == b_was_taken[1]);
    CHECK(count_locks(NULL, table) == 0);
    etslock_table_free(table);
}

/* Which of two keys is taken first is the library's affair, so the two tests below play both
 * parts at once, in two lock tables: in one "a" comes free midway, in the other "b" does. */
static const etslock_key pair[] = {KEY("a"), KEY("b")};
static const char *const pair_names[] = {"a", "b"};

static void one_wait_deadline(void)
{
    etslock_table *table = new_table();
    etslock_lock_table *lock_tables[2];
    etslock_guard *held[2][2];
    struct waiter waiters[2];
    int i;

    CASE("C-18: one wait deadline for the whole set");
    for (i = 0; i < 2; i++) {
        etslock_options options = patient(NULL);
        REQUIRE(etslock_lock_table_new(&lock_tables[i]) == ETSLOCK_OK);
        held[i][0] = hold_as_another(lock_tables[i], table, pair_names[0]);
        held[i][1] = hold_as_another(lock_tables[i], table, pair_names[1]);
        options.lock_table = lock_tables[i];
        options.wait_timeout_ms = 1000;
        start_waiter(&waiters[i], table, pair, 2, &options);
    }
    /* With a deadline for each key the one that gets its first key here would wait for about
     * 1,900 ms in all; the bound below leaves 700 ms for a busy machine. */
    sleep_ms(900);
    for (i = 0; i < 2; i++)
        CHECK_STATUS(etslock_guard_release(held[i][i]), ETSLOCK_OK);
    for (i = 0; i < 2; i++) {
        REQUIRE(pthread_join(waiters[i].thread, NULL) == 0);
        CHECK_STATUS(waiters[i].status, ETSLOCK_WAIT_TIMEOUT);
        CHECK(waiters[i].took_ms >= 998 && waiters[i].took_ms < 1700);
        CHECK(!is_locked(lock_tables[i], table, pair_names[i]));
        CHECK_STATUS(etslock_guard_release(held[i][1 - i]), ETSLOCK_OK);
        etslock_lock_table_free(lock_tables[i]);
    }
    etslock_table_free(table);
}

static void exec_deadline_counts_from_the_last_grant(void)
{
    etslock_table *table = new_table();
    etslock_lock_table *lock_tables[2];
    etslock_guard *held[2];
    struct waiter waiters[2];
    int i;

    CASE("C-18: the exec deadline counts from the last grant");
    for (i = 0; i < 2; i++) {
        etslock_options options = patient(NULL);
        REQUIRE(etslock_lock_table_new(&lock_tables[i]) == ETSLOCK_OK);
        held[i] = hold_as_another(lock_tables[i], table, pair_names[i]);
        options.lock_table = lock_tables[i];
        options.exec_timeout_ms = 600;
        start_waiter(&waiters[i], table, pair, 2, &options);
        await_queue(lock_tables[i], table, pair_names[i], 1);
    }
    /* Longer than the exec timeout: counted from the first grant, one guard would be late from
     * the start. */
    sleep_ms(700);
    for (i = 0; i < 2; i++)
        CHECK_STATUS(etslock_guard_release(held[i]), ETSLOCK_OK);
    for (i = 0; i < 2; i++) {
        REQUIRE(pthread_join(waiters[i].thread, NULL) == 0);
        CHECK_STATUS(waiters[i].status, ETSLOCK_OK);
        CHECK(waiters[i].remaining_ms > 0 && waiters[i].remaining_ms <= 600);
        CHECK_STATUS(etslock_guard_cancel(waiters[i].guard), ETSLOCK_OK);
        etslock_lock_table_free(lock_tables[i]);
    }
    etslock_table_free(table);
}

static void one_token(void)
{
    const etslock_key keys[] = {KEY("c"), KEY("a"), KEY("b")};
    etslock_table *table = new_table();
    etslock_options options = patient(NULL);
    etslock_guard *guard = NULL;
    etslock_locks *locks;
    etslock_lock_info info;
    uint64_t first;
    size_t i;

    CASE("C-18: one token for all keys, larger than every earlier one");
    CHECK_STATUS(etslock_acquire_locks(table, keys, 3, &options, &guard), ETSLOCK_OK);
    first = etslock_guard_token(guard);
    CHECK(first != 0);
    locks = locks_of(NULL, table);
    for (i = 0; i < COUNT_OF(keys); i++)
        CHECK(find_lock(locks, keys[i].key, &info) && info.token == first);
    etslock_locks_free(locks);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);

    CHECK_STATUS(etslock_acquire_locks(table, keys, 2, &options, &guard), ETSLOCK_OK);
    CHECK(etslock_guard_token(guard) > first);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    etslock_table_free(table);
}

static void losing_one_key_by_force(void)
{
    const etslock_key keys[] = {KEY("a"), KEY("b"), KEY("c")};
    static const char *const names[] = {"a", "b", "c"};
    etslock_table *table = new_table();
    etslock_options options = patient(NULL);
    size_t i;

    CASE("C-18: a force release of one key revokes the guard and frees the others");
    for (i = 0; i < COUNT_OF(names); i++) {
        etslock_guard *guard = NULL;
        CHECK_STATUS(etslock_acquire_locks(table, keys, 3, &options, &guard), ETSLOCK_OK);
        CHECK_STATUS(etslock_guard_insert(guard, "a", 1, "1", 1), ETSLOCK_OK);
        CHECK_STATUS(etslock_lock_table_force_release(NULL, table, names[i], 1), ETSLOCK_OK);
        CHECK(count_locks(NULL, table) == 0);
        CHECK_STATUS(etslock_guard_status(guard), ETSLOCK_REVOKED);
        CHECK(etslock_guard_remaining_ms(guard) == 0);
        CHECK_STATUS(etslock_guard_insert(guard, "c", 1, "1", 1), ETSLOCK_REVOKED);
        CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_REVOKED);
        CHECK_STATUS(etslock_table_member(table, "a", 1), ETSLOCK_NOT_FOUND);
        CHECK_STATUS(etslock_table_member(table, "c", 1), ETSLOCK_NOT_FOUND);
    }
    etslock_table_free(table);
}

static void losing_one_key_at_the_release_time(void)
{
    const etslock_key keys[] = {KEY("a"), KEY("b"), KEY("c")};
    etslock_table *table = new_table();
    etslock_options options = patient(NULL);
    etslock_guard *lost = NULL;
    etslock_guard *next = NULL;
    int64_t begin = now_ms();

    CASE("C-18: a waiter for one key takes it at the release time; the guard's others are free");
    options.exec_timeout_ms = 40;
    options.fail_timeout_ms = 40;
    options.owner = ETSLOCK_OWNER_NONE;
    CHECK_STATUS(etslock_acquire_locks(table, keys, 3, &options, &lost), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_insert(lost, "a", 1, "1", 1), ETSLOCK_OK);
    options = patient(NULL);
    CHECK_STATUS(etslock_acquire(table, "b", 1, &options, &next), ETSLOCK_OK);
    CHECK(now_ms() - begin >= 78);
    CHECK(count_locks(NULL, table) == 1 && is_locked(NULL, table, "b"));
    CHECK_STATUS(etslock_guard_status(lost), ETSLOCK_REVOKED);
    CHECK_STATUS(etslock_guard_commit(lost), ETSLOCK_REVOKED);

    CASE("C-6: the release of a revoked guard frees nothing of its successor's");
    CHECK_STATUS(etslock_guard_release(lost), ETSLOCK_REVOKED);
    CHECK(is_locked(NULL, table, "b"));
    CHECK_STATUS(etslock_table_member(table, "a", 1), ETSLOCK_NOT_FOUND);
    CHECK_STATUS(etslock_guard_release(next), ETSLOCK_OK);
    etslock_table_free(table);
}

static void waiters_learn_of_the_release_time(void)
{
    etslock_table *table = new_table();
    int met = 0;
    int i;

    CASE("C-5, C-18: who waits behind a guard that gets its last key learns of its release time");
    for (i = 0; i < 2; i++) {
        etslock_lock_table *lock_table = new_lock_table();
        etslock_guard *held = hold_as_another(lock_table, table, pair_names[i]);
        etslock_options options = patient(lock_table);
        struct waiter both_wanted, behind;
        int has_other;
        options.exec_timeout_ms = 40;
        options.fail_timeout_ms = 40;
        start_waiter(&both_wanted, table, pair, 2, &options);
        await_queue(lock_table, table, pair_names[i], 1);
        /* It has the other key already, with no deadline yet; or it asks for this one first. */
        has_other = is_locked(lock_table, table, pair_names[1 - i]);
        if (has_other) {
            options = patient(lock_table);
            options.wait_timeout_ms = HANGS_MS;
            start_waiter(&behind, table, &pair[1 - i], 1, &options);
            await_queue(lock_table, table, pair_names[1 - i], 1);
        }
        CHECK_STATUS(etslock_guard_release(held), ETSLOCK_OK);
        REQUIRE(pthread_join(both_wanted.thread, NULL) == 0);
        CHECK_STATUS(both_wanted.status, ETSLOCK_OK);
        if (has_other) {
            met++;
            REQUIRE(pthread_join(behind.thread, NULL) == 0);
            CHECK_STATUS(behind.status, ETSLOCK_OK);
            /* And not only when its own time was over. */
            CHECK(behind.took_ms < HANGS_MS / 2);
            CHECK_STATUS(etslock_guard_cancel(behind.guard), ETSLOCK_OK);
        }
        etslock_guard_cancel(both_wanted.guard);
        etslock_lock_table_free(lock_table);
    }
    CHECK(met == 1);
    etslock_table_free(table);
}

static void only_named_keys_are_covered(void)
{
    const etslock_key keys[] = {KEY("a"), KEY("b")};
    etslock_table *table = new_table();
    etslock_options options = patient(NULL);
    etslock_guard *guard = NULL;
    etslock_tuples *tuples = (etslock_tuples *)table;

    CASE("C-18: a key that was not named is not covered");
    CHECK_STATUS(etslock_table_insert(table, "c", 1, "3", 1), ETSLOCK_OK);
    CHECK_STATUS(etslock_acquire_locks(table, keys, 2, &options, &guard), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_insert(guard, "a", 1, "1", 1), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_insert(guard, "c", 1, "1", 1), ETSLOCK_ERR_NOT_COVERED);
    CHECK_STATUS(etslock_guard_insert(guard, "", 0, "1", 1), ETSLOCK_ERR_NOT_COVERED);
    CHECK_STATUS(etslock_guard_delete(guard, "c", 1), ETSLOCK_ERR_NOT_COVERED);
    CHECK_STATUS(etslock_guard_delete_tuple(guard, "c", 1, "3", 1), ETSLOCK_ERR_NOT_COVERED);
    CHECK_STATUS(etslock_guard_lookup(guard, "c", 1, &tuples), ETSLOCK_ERR_NOT_COVERED);
    CHECK(tuples == NULL);
    CHECK_STATUS(etslock_guard_insert(guard, "b", 1, "2", 1), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    CHECK(has_value(table, "a", "1") && has_value(table, "b", "2") && has_value(table, "c", "3"));
    etslock_table_free(table);
}

/* Stages writes to three keys; returns what it is told to. */
static int32_t stage_three(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                           void *user_data)
{
    (void)tuples, (void)tuple_count;
    CHECK_STATUS(etslock_guard_insert(guard, "a", 1, "new", 3), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_insert(guard, "b", 1, "new", 3), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_delete(guard, "c", 1), ETSLOCK_OK);
    return *(const int32_t *)user_data;
}

static void writes_commit_together(void)
{
    const etslock_key keys[] = {KEY("a"), KEY("b"), KEY("c")};
    etslock_table *table = new_table();
    etslock_options options = patient(NULL);
    etslock_guard *guard = NULL;
    etslock_result result;
    int32_t code = 5;

    CHECK_STATUS(etslock_table_insert(table, "a", 1, "old", 3), ETSLOCK_OK);
    CHECK_STATUS(etslock_table_insert(table, "c", 1, "old", 3), ETSLOCK_OK);

    CASE("C-7: a failing callback writes to none of its keys");
    CHECK_STATUS(etslock_with_locks(table, keys, 3, stage_three, &code, &options, &result),
                 ETSLOCK_CALLBACK_FAILED);
    CHECK(result.code == 5);
    etslock_result_free(&result);
    CHECK(has_value(table, "a", "old") && has_value(table, "c", "old"));
    CHECK_STATUS(etslock_table_member(table, "b", 1), ETSLOCK_NOT_FOUND);

    CASE("C-7: cancel publishes none of the keys, commit all of them");
    code = 0;
    CHECK_STATUS(etslock_acquire_locks(table, keys, 3, &options, &guard), ETSLOCK_OK);
    stage_three(guard, NULL, 0, &code);
    CHECK(has_value(table, "a", "old") && has_value(table, "c", "old"));
    CHECK_STATUS(etslock_guard_cancel(guard), ETSLOCK_OK);
    CHECK(has_value(table, "a", "old") && has_value(table, "c", "old"));
    CHECK_STATUS(etslock_table_member(table, "b", 1), ETSLOCK_NOT_FOUND);
    CHECK_STATUS(etslock_acquire_locks(table, keys, 3, &options, &guard), ETSLOCK_OK);
    stage_three(guard, NULL, 0, &code);
    CHECK_STATUS(etslock_guard_commit(guard), ETSLOCK_OK);
    CHECK(has_value(table, "a", "new") && has_value(table, "b", "new"));
    CHECK_STATUS(etslock_table_member(table, "c", 1), ETSLOCK_NOT_FOUND);
    CHECK(count_locks(NULL, table) == 3);
    CHECK_STATUS(etslock_guard_cancel(guard), ETSLOCK_OK);

    CASE("C-7: a callback that returns 0 publishes all of its keys");
    CHECK_STATUS(etslock_table_clear(table), ETSLOCK_OK);
    CHECK_STATUS(etslock_table_insert(table, "c", 1, "old", 3), ETSLOCK_OK);
    CHECK_STATUS(etslock_with_locks(table, keys, 3, stage_three, &code, &options, NULL),
                 ETSLOCK_OK);
    CHECK(has_value(table, "a", "new") && has_value(table, "b", "new"));
    CHECK_STATUS(etslock_table_member(table, "c", 1), ETSLOCK_NOT_FOUND);
    etslock_table_free(table);
}

/* Ported ideas of erlang-ets-lock. */

struct counting {
    etslock_table *table;
    const etslock_key *keys;
    size_t key_count;
};

/* Reads, yields, writes: loses counts as soon as two run at once on one key. */
static int32_t count_all_keys(etslock_guard *guard, const etslock_tuple *tuples,
                              size_t tuple_count, void *user_data)
{
    const struct counting *counting = user_data;
    size_t i;
    (void)guard;
    CHECK(tuple_count == counting->key_count);
    for (i = 0; i < tuple_count; i++) {
        int64_t value = 0;
        CHECK(tuples[i].value_len == sizeof value);
        memcpy(&value, tuples[i].value, sizeof value);
        value++;
        sched_yield();
        CHECK_STATUS(etslock_table_insert(counting->table, tuples[i].key, tuples[i].key_len,
                                          &value, sizeof value),
                     ETSLOCK_OK);
    }
    return 0;
}

static void *count_fifty_times(void *argument)
{
    struct counting *counting = argument;
    etslock_options options = patient(NULL);
    int i;
    for (i = 0; i < 50; i++)
        CHECK_STATUS(etslock_with_locks(counting->table, counting->keys, counting->key_count,
                                        count_all_keys, counting, &options, NULL),
                     ETSLOCK_OK);
    return NULL;
}

static void counters_over_several_keys(void)
{
    const etslock_key all[] = {KEY("x"), KEY("y"), KEY("z")};
    const etslock_key two[] = {KEY("z"), KEY("x")};
    static const char *const names[] = {"x", "y", "z"};
    static const int64_t wanted[] = {200, 100, 200};
    etslock_table *table = new_table();
    struct counting counting[4];
    pthread_t threads[4];
    int64_t value = 0;
    size_t i;

    CASE("C-1: counters over several keys lose nothing, also with unguarded writes");
    for (i = 0; i < 3; i++)
        CHECK_STATUS(etslock_table_insert(table, names[i], 1, &value, sizeof value), ETSLOCK_OK);
    for (i = 0; i < 4; i++) {
        counting[i].table = table;
        counting[i].keys = i % 2 == 0 ? all : two;
        counting[i].key_count = i % 2 == 0 ? 3 : 2;
        REQUIRE(pthread_create(&threads[i], NULL, count_fifty_times, &counting[i]) == 0);
    }
    for (i = 0; i < 4; i++)
        REQUIRE(pthread_join(threads[i], NULL) == 0);
    for (i = 0; i < 3; i++) {
        CHECK_STATUS(etslock_table_update_counter(table, names[i], 1, 0, 0, &value), ETSLOCK_OK);
        CHECK(value == wanted[i]);
    }
    etslock_table_free(table);
}

static int32_t locks_inside(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                            void *user_data)
{
    const etslock_key others[] = {KEY("d"), KEY("c")};
    const etslock_key overlapping[] = {KEY("e"), KEY("b")};
    etslock_table *table = user_data;
    etslock_options options = patient(NULL);
    etslock_guard *inner = NULL;
    (void)guard, (void)tuples, (void)tuple_count;

    CASE("C-13: a lock inside a lock");
    CHECK_STATUS(etslock_acquire_locks(table, others, 2, &options, &inner), ETSLOCK_OK);
    CHECK(count_locks(NULL, table) == 4);
    CHECK_STATUS(etslock_guard_insert(inner, "d", 1, "1", 1), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_insert(inner, "a", 1, "1", 1), ETSLOCK_ERR_NOT_COVERED);
    CHECK_STATUS(etslock_guard_release(inner), ETSLOCK_OK);

    CASE("C-13: the same key inside itself, alone and in a set");
    CHECK_STATUS(etslock_acquire(table, "a", 1, &options, &inner), ETSLOCK_DEADLOCK);
    CHECK_STATUS(etslock_acquire_locks(table, overlapping, 2, &options, &inner),
                 ETSLOCK_DEADLOCK);
    CHECK(inner == NULL);
    CHECK_STATUS(etslock_with_locks(table, overlapping, 2, do_nothing, NULL, &options, NULL),
                 ETSLOCK_DEADLOCK);
    CHECK(count_locks(NULL, table) == 2 && !is_locked(NULL, table, "e"));
    return 0;
}

static void nested_locks(void)
{
    const etslock_key keys[] = {KEY("a"), KEY("b")};
    etslock_table *table = new_table();
    etslock_options options = patient(NULL);
    int run_on;
    for (run_on = ETSLOCK_RUN_ON_WORKER; run_on <= ETSLOCK_RUN_ON_CALLER; run_on++) {
        options.run_on = run_on;
        CHECK_STATUS(etslock_with_locks(table, keys, 2, locks_inside, table, &options, NULL),
                     ETSLOCK_OK);
        CHECK(count_locks(NULL, table) == 0);
    }
    CHECK(has_value(table, "d", "1"));
    etslock_table_free(table);
}

static void the_holder_is_gone(void)
{
    const etslock_key keys[] = {KEY("a"), KEY("b")};
    const etslock_key wanted[] = {KEY("b"), KEY("c"), KEY("a")};
    etslock_table *table = new_table();
    etslock_options options = patient(NULL);
    etslock_guard *guard = NULL;
    struct waiter holder;
    int64_t begin = now_ms();

    CASE("C-5: the keys of a holder whose thread is gone come free at the release time");
    options.exec_timeout_ms = 30;
    options.fail_timeout_ms = 30;
    start_waiter(&holder, table, keys, 2, &options);
    REQUIRE(pthread_join(holder.thread, NULL) == 0);
    CHECK_STATUS(holder.status, ETSLOCK_OK);
    options = patient(NULL);
    CHECK_STATUS(etslock_acquire_locks(table, wanted, 3, &options, &guard), ETSLOCK_OK);
    CHECK(now_ms() - begin >= 58);
    CHECK(count_locks(NULL, table) == 3);
    CHECK_STATUS(etslock_guard_release(holder.guard), ETSLOCK_REVOKED);
    CHECK(count_locks(NULL, table) == 3);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    CHECK(count_locks(NULL, table) == 0);
    etslock_table_free(table);
}

int main(void)
{
    alarm(120); /* a hang is a failure */
    RUN(duplicates_count_once());
    RUN(tuples_are_grouped());
    RUN(number_of_keys());
    RUN(overlapping_sets_in_any_order());
    RUN(a_timeout_leaves_nothing());
    RUN(one_global_order());
    RUN(one_wait_deadline());
    RUN(exec_deadline_counts_from_the_last_grant());
    RUN(one_token());
    RUN(losing_one_key_by_force());
    RUN(losing_one_key_at_the_release_time());
    RUN(waiters_learn_of_the_release_time());
    RUN(only_named_keys_are_covered());
    RUN(writes_commit_together());
    RUN(counters_over_several_keys());
    RUN(nested_locks());
    RUN(the_holder_is_gone());
    return check_report();
}
