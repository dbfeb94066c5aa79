/* lock_tables.c - lock tables of one's own, and what they tell: snapshots of locks, counters,
 * forced release. Checks C-1, C-5, C-14 and the rules of struct_size.
 */
#define _GNU_SOURCE /* syscall, for the thread's number */
#include "check.h"
#include "locks.h"

#include <pthread.h>
#include <semaphore.h>
#include <sys/syscall.h>
#include <unistd.h>

static uint64_t this_thread(void)
{
    return (uint64_t)syscall(SYS_gettid);
}

/* A thread that waits for a key, and leaves the guard to whoever joins it. */
struct waiter {
    pthread_t thread;
    etslock_table *table;
    const char *key;
    etslock_options options;
    etslock_status status;
    etslock_guard *guard;
};

static void *wait_for_lock(void *argument)
{
    struct waiter *waiter = argument;
    waiter->status = etslock_acquire(waiter->table, waiter->key, strlen(waiter->key),
                                     &waiter->options, &waiter->guard);
    return NULL;
}

static void start_waiter(struct waiter *waiter, etslock_lock_table *lock_table,
                         etslock_table *table, const char *key, int32_t queue)
{
    memset(waiter, 0, sizeof *waiter);
    waiter->table = table;
    waiter->key = key;
    waiter->options = patient(lock_table);
    waiter->options.queue = queue;
    REQUIRE(pthread_create(&waiter->thread, NULL, wait_for_lock, waiter) == 0);
}

static void join_waiter(struct waiter *waiter, etslock_status wanted)
{
    REQUIRE(pthread_join(waiter->thread, NULL) == 0);
    CHECK_STATUS(waiter->status, wanted);
    CHECK((waiter->guard != NULL) == (wanted == ETSLOCK_OK));
}

/* A callback that stays until it is let go, in a call on a thread of its own. */
struct call {
    pthread_t thread;
    etslock_table *table;
    etslock_options options;
    sem_t entered;
    sem_t leave;
    sem_t freed; /* posted by user_data_free: the callback has ended */
    uint64_t thread_id; /* of the caller */
    etslock_status inside;
    etslock_status status;
};

static int32_t stay(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                    void *user_data)
{
    struct call *call = user_data;
    (void)tuples, (void)tuple_count;
    sem_post(&call->entered);
    sem_wait(&call->leave);
    call->inside = etslock_guard_insert(guard, "k", 1, "inside", 6);
    return 0;
}

static void callback_ended(void *user_data)
{
    struct call *call = user_data;
    sem_post(&call->freed);
}

static void *make_call(void *argument)
{
    struct call *call = argument;
    call->thread_id = this_thread();
    call->status = etslock_with_lock(call->table, "k", 1, stay, call, &call->options, NULL);
    return NULL;
}

static void start_call(struct call *call, etslock_lock_table *lock_table, etslock_table *table)
{
    memset(call, 0, sizeof *call);
    call->table = table;
    call->options = patient(lock_table);
    call->options.on_exec_timeout = ETSLOCK_JOIN;
    call->options.user_data_free = callback_ended;
    REQUIRE(sem_init(&call->entered, 0, 0) == 0 && sem_init(&call->leave, 0, 0) == 0);
    REQUIRE(sem_init(&call->freed, 0, 0) == 0);
}

static void run_call(struct call *call)
{
    REQUIRE(pthread_create(&call->thread, NULL, make_call, call) == 0);
    REQUIRE(sem_wait(&call->entered) == 0);
}

static void end_call(struct call *call)
{
    sem_destroy(&call->entered);
    sem_destroy(&call->leave);
    sem_destroy(&call->freed);
}

static void two_lock_tables_are_two_locks(void)
{
    etslock_lock_table *one = new_lock_table();
    etslock_lock_table *two = new_lock_table();
    etslock_table *table = new_table();
    etslock_guard *in_one;
    etslock_guard *in_two;
    etslock_guard *in_default;

    CASE("C-1: the same key in two lock tables is two locks");
    in_one = hold_with(patient(one), table, "k");
    in_two = hold_with(patient(two), table, "k");
    in_default = hold(table, "k");
    CHECK_STATUS(try_lock_with(patient(one), table, "k"), ETSLOCK_WAIT_TIMEOUT);
    CHECK_STATUS(try_lock_with(patient(two), table, "k"), ETSLOCK_WAIT_TIMEOUT);
    CHECK_STATUS(try_lock(table, "k"), ETSLOCK_WAIT_TIMEOUT);
    CHECK_STATUS(etslock_guard_release(in_one), ETSLOCK_OK);
    CHECK_STATUS(try_lock_with(patient(one), table, "k"), ETSLOCK_OK);
    CHECK_STATUS(try_lock_with(patient(two), table, "k"), ETSLOCK_WAIT_TIMEOUT);

    CASE("C-1: the token is unique in the process");
    CHECK(etslock_guard_token(in_two) != etslock_guard_token(in_default));

    CASE("C-1: a lock table shows and releases its own locks only");
    CHECK_STATUS(etslock_lock_table_force_release(one, table, "k", 1), ETSLOCK_NOT_FOUND);
    CHECK_STATUS(etslock_guard_status(in_two), ETSLOCK_OK);
    CHECK(stats_of(one).held == 0 && stats_of(two).held == 1);
    CHECK_STATUS(etslock_guard_release(in_two), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_release(in_default), ETSLOCK_OK);
    etslock_table_free(table);
    etslock_lock_table_free(one);
    etslock_lock_table_free(two);
    etslock_lock_table_free(NULL);
    CHECK_STATUS(etslock_lock_table_new(NULL), ETSLOCK_ERR_NULL);
}

static void freeing_one_in_use(void)
{
    static const int32_t queues[] = {ETSLOCK_QUEUE_FAIR, ETSLOCK_QUEUE_FIFO,
                                     ETSLOCK_QUEUE_POLLING};
    etslock_lock_table *lock_table = new_lock_table();
    etslock_table *table = new_table();
    etslock_guard *guard;
    struct waiter waiters[3];
    struct waiter behind_a_call;
    struct call call;
    int i;

    CASE("C-14: waiters of a freed lock table get CLOSED");
    guard = hold_with(patient(lock_table), table, "held");
    start_call(&call, lock_table, table);
    run_call(&call);
    for (i = 0; i < 3; i++)
        start_waiter(&waiters[i], lock_table, table, "held", queues[i]);
    start_waiter(&behind_a_call, lock_table, table, "k", ETSLOCK_QUEUE_FAIR);
    await_waiting(lock_table, 4);
    etslock_lock_table_free(lock_table);
    for (i = 0; i < 3; i++)
        join_waiter(&waiters[i], ETSLOCK_CLOSED);
    join_waiter(&behind_a_call, ETSLOCK_CLOSED);

    CASE("C-14: guards of a freed lock table live on");
    CHECK_STATUS(etslock_guard_status(guard), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_insert(guard, "held", 4, "1", 1), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    CHECK_STATUS(etslock_table_member(table, "held", 4), ETSLOCK_OK);

    CASE("C-14: so do its running callbacks");
    sem_post(&call.leave);
    REQUIRE(pthread_join(call.thread, NULL) == 0);
    CHECK_STATUS(call.status, ETSLOCK_OK);
    CHECK_STATUS(etslock_table_member(table, "k", 1), ETSLOCK_OK);
    end_call(&call);
    etslock_table_free(table);
}

static void a_snapshot(void)
{
    etslock_lock_table *lock_table = new_lock_table();
    etslock_table *named = new_table_named("lock_tables: named");
    etslock_table *nameless = new_table();
    etslock_options options = patient(lock_table);
    etslock_locks *locks;
    etslock_lock_info info;
    etslock_guard *first = NULL;
    etslock_guard *second = NULL;
    etslock_guard *timed = NULL;
    struct waiter waiters[2];
    struct call call;
    int64_t begin = now_ms();

    CASE("locks: an idle lock table shows none");
    locks = locks_of(lock_table, NULL);
    CHECK(etslock_locks_count(locks) == 0);
    info.struct_size = sizeof info;
    CHECK_STATUS(etslock_locks_get(locks, 0, &info), ETSLOCK_NOT_FOUND);
    etslock_locks_free(locks);

    options.owner = 4711;
    CHECK_STATUS(etslock_acquire(named, "k\0ey", 4, &options, &first), ETSLOCK_OK);
    options.owner = ETSLOCK_OWNER_NONE;
    CHECK_STATUS(etslock_acquire(nameless, "", 0, &options, &second), ETSLOCK_OK);
    options.owner = 0;
    options.exec_timeout_ms = 60000;
    CHECK_STATUS(etslock_acquire(named, "timed", 5, &options, &timed), ETSLOCK_OK);
    start_call(&call, lock_table, nameless);
    run_call(&call);
    start_waiter(&waiters[0], lock_table, named, "timed", ETSLOCK_QUEUE_FAIR);
    await_waiting(lock_table, 1);
    start_waiter(&waiters[1], lock_table, named, "timed", ETSLOCK_QUEUE_FIFO);
    await_waiting(lock_table, 2);
    sleep_ms(20);

    CASE("locks: one entry for each lock, of all tables or of one");
    locks = locks_of(lock_table, named);
    CHECK(etslock_locks_count(locks) == 2);
    etslock_locks_free(locks);
    locks = locks_of(lock_table, nameless);
    CHECK(etslock_locks_count(locks) == 2);
    etslock_locks_free(locks);
    locks = locks_of(lock_table, NULL);
    CHECK(etslock_locks_count(locks) == 4);

    CASE("locks: what an entry says");
    info.struct_size = sizeof info;
    {
        size_t i;
        int found = 0;
        for (i = 0; i < 4; i++) {
            REQUIRE(etslock_locks_get(locks, i, &info) == ETSLOCK_OK);
            if (info.key_len != 4)
                continue;
            found++;
            CHECK(memcmp(info.key, "k\0ey", 4) == 0);
            CHECK(info.owner == 4711);
            CHECK(info.thread_id == this_thread());
            CHECK(info.token == etslock_guard_token(first));
            CHECK(info.exec_remaining_ms == ETSLOCK_INFINITE);
            CHECK(info.held_ms >= 19 && info.held_ms <= now_ms() - begin + 1);
            CHECK(info.waiters == 0 && info.late == 0);
            CHECK(info.table_name != NULL && strcmp(info.table_name, "lock_tables: named") == 0);
        }
        CHECK(found == 1);
    }
    if (CHECK(find_lock(locks, "", &info))) {
        CHECK(info.owner == ETSLOCK_OWNER_NONE);
        CHECK(info.table_name == NULL);
        CHECK(info.token == etslock_guard_token(second));
    }
    if (CHECK(find_lock(locks, "timed", &info))) {
        CHECK(info.owner == 0);
        CHECK(info.waiters == 2);
        CHECK(info.exec_remaining_ms > 0 && info.exec_remaining_ms <= 60000 - 19);
        CHECK(info.exec_remaining_ms + info.held_ms <= 60001);
    }
    if (CHECK(find_lock(locks, "k", &info))) {
        CHECK(info.thread_id == call.thread_id);
        CHECK(info.table_name == NULL);
    }
    CHECK_STATUS(etslock_locks_get(locks, 4, &info), ETSLOCK_NOT_FOUND);

    CASE("locks: a snapshot outlives the locks, the tables and the lock table");
    CHECK_STATUS(etslock_guard_release(first), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_release(second), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_release(timed), ETSLOCK_OK);
    sem_post(&call.leave);
    REQUIRE(pthread_join(call.thread, NULL) == 0);
    CHECK_STATUS(call.status, ETSLOCK_OK);
    end_call(&call);
    REQUIRE(pthread_join(waiters[0].thread, NULL) == 0);
    CHECK_STATUS(waiters[0].status, ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_release(waiters[0].guard), ETSLOCK_OK);
    join_waiter(&waiters[1], ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_release(waiters[1].guard), ETSLOCK_OK);
    CHECK(stats_of(lock_table).held == 0);
    etslock_table_free(named);
    etslock_table_free(nameless);
    etslock_lock_table_free(lock_table);
    CHECK(etslock_locks_count(locks) == 4);
    if (CHECK(find_lock(locks, "timed", &info))) {
        CHECK(info.waiters == 2);
        CHECK(strcmp(info.table_name, "lock_tables: named") == 0);
    }
    etslock_locks_free(locks);
    etslock_locks_free(NULL);
    CHECK(etslock_locks_count(NULL) == 0);
}

static void a_late_holder(void)
{
    etslock_lock_table *lock_table = new_lock_table();
    etslock_table *table = new_table();
    etslock_options options = patient(lock_table);
    etslock_locks *locks;
    etslock_lock_info info;
    etslock_guard *guard = NULL;

    CASE("locks: a holder past its exec deadline is late");
    options.exec_timeout_ms = 10;
    options.fail_timeout_ms = ETSLOCK_INFINITE;
    CHECK_STATUS(etslock_acquire(table, "k", 1, &options, &guard), ETSLOCK_OK);
    WAIT_UNTIL(etslock_guard_status(guard) != ETSLOCK_OK);
    locks = locks_of(lock_table, table);
    if (CHECK(find_lock(locks, "k", &info)))
        CHECK(info.late == 1 && info.exec_remaining_ms == 0 && info.held_ms >= 9);
    etslock_locks_free(locks);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_EXEC_TIMEOUT);
    CHECK(stats_of(lock_table).held == 0);
    etslock_table_free(table);
    etslock_lock_table_free(lock_table);
}

static void size_of_lock_info(void)
{
    struct {
        etslock_lock_info info;
        uint64_t later[4];
    } wide;
    etslock_table *table = new_table();
    etslock_guard *guard = hold(table, "k");
    etslock_locks *locks = locks_of(NULL, table);
    etslock_lock_info info;

    CASE("struct_size: a lock info that is too small is refused and left alone");
    memset(&info, 0x5a, sizeof info);
    info.struct_size = sizeof info - 8;
    CHECK_STATUS(etslock_locks_get(locks, 0, &info), ETSLOCK_ERR_STRUCT_SIZE);
    CHECK(info.struct_size == sizeof info - 8 && info.token == UINT64_C(0x5a5a5a5a5a5a5a5a));
    info.struct_size = 0;
    CHECK_STATUS(etslock_locks_get(locks, 0, &info), ETSLOCK_ERR_STRUCT_SIZE);
    CHECK_STATUS(etslock_locks_get(locks, 0, NULL), ETSLOCK_ERR_NULL);
    info.struct_size = sizeof info;
    CHECK_STATUS(etslock_locks_get(NULL, 0, &info), ETSLOCK_ERR_NULL);

    CASE("struct_size: a larger lock info with a tail of zeros is filled");
    memset(&wide, 0, sizeof wide);
    wide.info.struct_size = sizeof wide;
    CHECK_STATUS(etslock_locks_get(locks, 0, &wide.info), ETSLOCK_OK);
    CHECK(wide.info.struct_size == sizeof wide);
    CHECK(wide.info.token == etslock_guard_token(guard));
    CHECK(wide.later[0] == 0 && wide.later[3] == 0);

    CASE("struct_size: lock_table_locks wants a place for its answer");
    CHECK_STATUS(etslock_lock_table_locks(NULL, table, NULL), ETSLOCK_ERR_NULL);
    etslock_locks_free(locks);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    etslock_table_free(table);
}

static void size_of_stats(void)
{
    struct {
        etslock_stats stats;
        uint64_t later[4];
    } wide;
    etslock_stats stats;

    CASE("struct_size: init zeroes the counters and writes the size");
    memset(&stats, 0x5a, sizeof stats);
    etslock_stats_init(&stats, sizeof stats);
    CHECK(stats.struct_size == sizeof stats && stats.reserved == 0);
    CHECK(stats.acquired == 0 && stats.held == 0 && stats.abandoned == 0);
    etslock_stats_init(NULL, sizeof stats);

    CASE("struct_size: stats that are too small are refused and left alone");
    memset(&stats, 0x5a, sizeof stats);
    stats.struct_size = sizeof stats - 8;
    CHECK_STATUS(etslock_lock_table_stats(NULL, &stats), ETSLOCK_ERR_STRUCT_SIZE);
    CHECK(stats.acquired == UINT64_C(0x5a5a5a5a5a5a5a5a));
    stats.struct_size = 0;
    CHECK_STATUS(etslock_lock_table_stats(NULL, &stats), ETSLOCK_ERR_STRUCT_SIZE);
    CHECK_STATUS(etslock_lock_table_stats(NULL, NULL), ETSLOCK_ERR_NULL);

    CASE("struct_size: larger stats with a tail of zeros are filled");
    memset(&wide, 0x5a, sizeof wide);
    etslock_stats_init(&wide.stats, sizeof wide);
    CHECK(wide.stats.struct_size == sizeof wide);
    CHECK(wide.later[0] == 0 && wide.later[3] == 0);
    wide.stats.acquired = UINT64_MAX;
    CHECK_STATUS(etslock_lock_table_stats(NULL, &wide.stats), ETSLOCK_OK);
    CHECK(wide.stats.struct_size == sizeof wide && wide.stats.acquired != UINT64_MAX);
    CHECK(wide.later[0] == 0 && wide.later[3] == 0);
}

static int32_t wait_to_leave(etslock_guard *guard, const etslock_tuple *tuples,
                             size_t tuple_count, void *user_data)
{
    (void)guard, (void)tuples, (void)tuple_count;
    sem_wait(user_data);
    return 0;
}

static void counters(void)
{
    etslock_lock_table *lock_table = new_lock_table();
    etslock_table *table = new_table();
    etslock_options options = patient(lock_table);
    etslock_guard *guard = NULL;
    etslock_guard *other = NULL;
    etslock_stats stats = stats_of(lock_table);
    struct waiter waiter;
    sem_t leave;

    CASE("stats: a fresh lock table has counted nothing");
    CHECK(stats.acquired == 0 && stats.contended == 0 && stats.wait_timeouts == 0);
    CHECK(stats.exec_timeouts == 0 && stats.forced_releases == 0 && stats.deadlocks == 0);
    CHECK(stats.held == 0 && stats.waiting == 0);

    CASE("stats: acquired, held, workers");
    guard = hold_with(patient(lock_table), table, "k");
    stats = stats_of(lock_table);
    CHECK(stats.acquired == 1 && stats.held == 1 && stats.contended == 0);
    CHECK_STATUS(etslock_with_lock(table, "other", 5, do_nothing, NULL, &options, NULL),
                 ETSLOCK_OK);
    stats = stats_of(lock_table);
    CHECK(stats.acquired == 2 && stats.held == 1 && stats.workers >= 1);

    CASE("stats: waiting, contended");
    start_waiter(&waiter, lock_table, table, "k", ETSLOCK_QUEUE_FAIR);
    await_waiting(lock_table, 1);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    join_waiter(&waiter, ETSLOCK_OK);
    stats = stats_of(lock_table);
    CHECK(stats.waiting == 0 && stats.contended == 1 && stats.acquired == 3 && stats.held == 1);
    CHECK(stats.wait_timeouts == 0);

    CASE("stats: wait_timeouts");
    options.wait_timeout_ms = 20;
    CHECK_STATUS(etslock_acquire(table, "k", 1, &options, &guard), ETSLOCK_WAIT_TIMEOUT);
    stats = stats_of(lock_table);
    CHECK(stats.wait_timeouts == 1 && stats.acquired == 3 && stats.waiting == 0);
    CHECK_STATUS(etslock_guard_release(waiter.guard), ETSLOCK_OK);
    CHECK(stats_of(lock_table).held == 0);

    CASE("stats: deadlocks");
    options.wait_timeout_ms = ETSLOCK_INFINITE;
    guard = hold_with(patient(lock_table), table, "k");
    CHECK_STATUS(etslock_acquire(table, "k", 1, &options, &other), ETSLOCK_DEADLOCK);
    CHECK(stats_of(lock_table).deadlocks == 1);

    CASE("stats: forced_releases by force");
    CHECK_STATUS(etslock_lock_table_force_release(lock_table, table, "k", 1), ETSLOCK_OK);
    stats = stats_of(lock_table);
    CHECK(stats.forced_releases == 1 && stats.held == 0);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_REVOKED);
    CHECK(stats_of(lock_table).forced_releases == 1);

    CASE("stats: forced_releases at the release time");
    options.exec_timeout_ms = 10;
    options.fail_timeout_ms = 10;
    options.owner = 1;
    CHECK_STATUS(etslock_acquire(table, "k", 1, &options, &guard), ETSLOCK_OK);
    options.owner = 2;
    options.exec_timeout_ms = ETSLOCK_INFINITE;
    CHECK_STATUS(etslock_acquire(table, "k", 1, &options, &other), ETSLOCK_OK);
    stats = stats_of(lock_table);
    CHECK(stats.forced_releases == 2 && stats.held == 1);
    CHECK_STATUS(etslock_guard_release(other), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_REVOKED);

    CASE("stats: exec_timeouts, abandoned");
    REQUIRE(sem_init(&leave, 0, 0) == 0);
    stats = stats_of(lock_table);
    options.owner = 0;
    /* Enough for a worker to start the callback: one that never ran is not abandoned. */
    options.exec_timeout_ms = 300;
    CHECK_STATUS(etslock_with_lock(table, "k", 1, wait_to_leave, &leave, &options, NULL),
                 ETSLOCK_EXEC_TIMEOUT);
    CHECK(stats_of(lock_table).exec_timeouts == stats.exec_timeouts + 1);
    CHECK(stats_of(lock_table).abandoned == 1 && stats_of(NULL).abandoned == 1);
    CHECK(stats_of(lock_table).workers >= 1);
    CHECK(stats_of(lock_table).held == 0);
    sem_post(&leave);
    await_abandoned(0);
    sem_destroy(&leave);

    CASE("C-18: several keys are several locks");
    {
        const etslock_key keys[] = {{"a", 1}, {"b", 1}, {"a", 1}, {"c", 1}};
        options = patient(lock_table);
        CHECK_STATUS(etslock_acquire_locks(table, keys, 4, &options, &guard), ETSLOCK_OK);
        CHECK(stats_of(lock_table).held == 3);
        CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
        CHECK(stats_of(lock_table).held == 0);
    }
    etslock_table_free(table);
    etslock_lock_table_free(lock_table);
}

static void force_release(void)
{
    etslock_table *table = new_table();
    etslock_guard *guard;
    struct waiter waiter;
    struct call call;
    int round;

    CASE("force_release: a key that is not locked");
    CHECK_STATUS(etslock_lock_table_force_release(NULL, table, "k", 1), ETSLOCK_NOT_FOUND);
    CHECK_STATUS(etslock_lock_table_force_release(NULL, NULL, "k", 1), ETSLOCK_ERR_NULL);
    CHECK_STATUS(etslock_lock_table_force_release(NULL, table, NULL, 1), ETSLOCK_ERR_NULL);

    CASE("force_release: the guard is revoked and the next waiter woken");
    guard = hold(table, "k");
    CHECK_STATUS(etslock_guard_insert(guard, "k", 1, "1", 1), ETSLOCK_OK);
    start_waiter(&waiter, NULL, table, "k", ETSLOCK_QUEUE_FAIR);
    await_waiting(NULL, 1);
    CHECK_STATUS(etslock_lock_table_force_release(NULL, table, "k", 1), ETSLOCK_OK);
    join_waiter(&waiter, ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_status(guard), ETSLOCK_REVOKED);
    CHECK_STATUS(etslock_guard_commit(guard), ETSLOCK_REVOKED);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_REVOKED);
    CHECK_STATUS(etslock_table_member(table, "k", 1), ETSLOCK_NOT_FOUND);
    CHECK_STATUS(try_lock(table, "k"), ETSLOCK_WAIT_TIMEOUT);
    CHECK_STATUS(etslock_guard_release(waiter.guard), ETSLOCK_OK);

    CASE("force_release: what was committed before stays, cancel is always OK");
    guard = hold(table, "k");
    CHECK_STATUS(etslock_guard_insert(guard, "k", 1, "1", 1), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_commit(guard), ETSLOCK_OK);
    CHECK_STATUS(etslock_lock_table_force_release(NULL, table, "k", 1), ETSLOCK_OK);
    CHECK_STATUS(etslock_lock_table_force_release(NULL, table, "k", 1), ETSLOCK_NOT_FOUND);
    CHECK_STATUS(etslock_guard_cancel(guard), ETSLOCK_OK);
    CHECK_STATUS(etslock_table_member(table, "k", 1), ETSLOCK_OK);
    CHECK_STATUS(etslock_table_delete(table, "k", 1), ETSLOCK_OK);

    CASE("force_release: a worker's call returns REVOKED while the callback still runs");
    /* Many rounds: the caller may be anywhere between the start of its callback and its sleep. */
    for (round = 0; round < 300; round++) {
        start_call(&call, NULL, table);
        call.options.on_exec_timeout = ETSLOCK_ABANDON;
        run_call(&call);
        CHECK_STATUS(etslock_lock_table_force_release(NULL, table, "k", 1), ETSLOCK_OK);
        CHECK_STATUS(try_lock(table, "k"), ETSLOCK_OK);
        REQUIRE(pthread_join(call.thread, NULL) == 0);
        CHECK_STATUS(call.status, ETSLOCK_REVOKED);
        CHECK(stats_of(NULL).abandoned == 1);
        sem_post(&call.leave);
        REQUIRE(sem_wait(&call.freed) == 0);
        await_abandoned(0);
        CHECK_STATUS(call.inside, ETSLOCK_REVOKED);
        CHECK_STATUS(etslock_table_member(table, "k", 1), ETSLOCK_NOT_FOUND);
        end_call(&call);
    }

    CASE("force_release: a callback on the caller's thread learns of it when it writes");
    start_call(&call, NULL, table);
    call.options.on_exec_timeout = ETSLOCK_ABANDON;
    call.options.run_on = ETSLOCK_RUN_ON_CALLER;
    run_call(&call);
    CHECK_STATUS(etslock_lock_table_force_release(NULL, table, "k", 1), ETSLOCK_OK);
    CHECK_STATUS(try_lock(table, "k"), ETSLOCK_OK);
    sem_post(&call.leave);
    REQUIRE(pthread_join(call.thread, NULL) == 0);
    CHECK_STATUS(call.status, ETSLOCK_REVOKED);
    CHECK_STATUS(call.inside, ETSLOCK_REVOKED);
    CHECK_STATUS(etslock_table_member(table, "k", 1), ETSLOCK_NOT_FOUND);
    end_call(&call);
    etslock_table_free(table);
}

int main(void)
{
    alarm(60); /* a hang is a failure */
    RUN(two_lock_tables_are_two_locks());
    RUN(freeing_one_in_use());
    RUN(a_snapshot());
    RUN(a_late_holder());
    RUN(size_of_lock_info());
    RUN(size_of_stats());
    RUN(counters());
    RUN(force_release());
    return check_report();
}
