/* life.c - threads that are cancelled or end, tables that are freed, processes that fork or
 * exit, all in the middle of things. Checks C-5, C-12, C-14, C-15 and C-16.
 *
 * Child processes have an alarm of their own: one that hangs is reported as failed.
 */
#include "check.h"
#include "locks.h"
#include "processes.h"

#include <pthread.h>
#include <sched.h>
#include <semaphore.h>

static void take_k(etslock_table *table)
{
    etslock_tuples *tuples = NULL;
    CHECK_STATUS(etslock_table_take(table, "k", 1, &tuples), ETSLOCK_OK);
    etslock_tuples_free(tuples);
}

static void check_nothing_is_left(void)
{
    etslock_stats stats = stats_of(NULL);
    CHECK(stats.held == 0);
    CHECK(stats.waiting == 0);
    CHECK(stats.abandoned == 0);
}

/* A call on a thread of its own, by one of the ways to lock. */
enum way { ACQUIRE, ACQUIRE_LOCKS, ON_WORKER, ON_CALLER, WAYS };

struct call {
    pthread_t thread;
    etslock_table *table;
    enum way way;
    int64_t wait_timeout_ms;
    int64_t exec_timeout_ms;
    int64_t fail_timeout_ms;
    int stay; /* the callback waits for `leave` */
    sem_t entered;
    sem_t leave;
    int ran;
    etslock_status inside; /* what the callback's write gave */
    int freed;
    int freed_at_return;
    etslock_status status;
    int64_t took_ms;
    int survived; /* the thread got past its cancellation */
};

static void count_free(void *user_data)
{
    struct call *call = user_data;
    __atomic_fetch_add(&call->freed, 1, __ATOMIC_SEQ_CST);
}

static int32_t write_in_callback(etslock_guard *guard, const etslock_tuple *tuples,
                                 size_t tuple_count, void *user_data)
{
    struct call *call = user_data;
    (void)tuples, (void)tuple_count;
    sem_post(&call->entered);
    if (call->stay) {
        /* On a caller's thread that is being cancelled: three cancellation points. */
        sem_wait(&call->leave);
        sleep_ms(1);
        pthread_testcancel();
    }
    call->inside = etslock_guard_insert(guard, "k", 1, "v", 1);
    call->ran++;
    return 0;
}

static void *make_call(void *argument)
{
    static const etslock_key keys[] = {{"k", 1}, {"k2", 2}};
    struct call *call = argument;
    etslock_options options = patient(NULL);
    etslock_guard *guard = NULL;
    int64_t begin = now_ms();

    options.wait_timeout_ms = call->wait_timeout_ms;
    options.exec_timeout_ms = call->exec_timeout_ms;
    options.fail_timeout_ms = call->fail_timeout_ms;
    options.user_data_free = count_free;
    options.run_on = call->way == ON_CALLER ? ETSLOCK_RUN_ON_CALLER : ETSLOCK_RUN_ON_WORKER;
    switch (call->way) {
    case ACQUIRE:
        call->status = etslock_acquire(call->table, "k", 1, &options, &guard);
        break;
    case ACQUIRE_LOCKS:
        call->status = etslock_acquire_locks(call->table, keys, 2, &options, &guard);
        break;
    default:
        call->status = etslock_with_lock(call->table, "k", 1, write_in_callback, call, &options,
                                         NULL);
    }
    call->took_ms = now_ms() - begin;
    call->freed_at_return = __atomic_load_n(&call->freed, __ATOMIC_SEQ_CST);
    if (guard != NULL) {
        CHECK_STATUS(etslock_guard_insert(guard, "k", 1, "v", 1), ETSLOCK_OK);
        CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    }
    pthread_testcancel();
    call->survived = 1;
    return NULL;
}

static void start_timed_call(struct call *call, etslock_table *table, enum way way, int stay,
                             int64_t wait_timeout_ms, int64_t exec_timeout_ms)
{
    memset(call, 0, sizeof *call);
    call->table = table;
    call->way = way;
    call->stay = stay;
    call->wait_timeout_ms = wait_timeout_ms;
    call->exec_timeout_ms = exec_timeout_ms;
    call->fail_timeout_ms = 50;
    call->inside = call->status = -1;
    REQUIRE(sem_init(&call->entered, 0, 0) == 0 && sem_init(&call->leave, 0, 0) == 0);
    REQUIRE(pthread_create(&call->thread, NULL, make_call, call) == 0);
}

static void start_call(struct call *call, etslock_table *table, enum way way, int stay,
                       int64_t wait_timeout_ms)
{
    start_timed_call(call, table, way, stay, wait_timeout_ms, ETSLOCK_INFINITE);
}

static void end_call(struct call *call, int cancelled, etslock_status wanted)
{
    int has_callback = call->way == ON_WORKER || call->way == ON_CALLER;
    void *result = NULL;
    REQUIRE(pthread_join(call->thread, &result) == 0);
    CHECK((result == PTHREAD_CANCELED) == cancelled);
    CHECK(call->survived == !cancelled);
    CHECK_STATUS(call->status, wanted);
    CHECK(call->ran == (has_callback && wanted == ETSLOCK_OK));
    if (call->ran)
        CHECK_STATUS(call->inside, ETSLOCK_OK);
    CHECK(call->freed == has_callback && call->freed_at_return == has_callback);
    sem_destroy(&call->entered);
    sem_destroy(&call->leave);
}

static void cancelled_while_waiting_for_a_lock(void)
{
    etslock_table *table = new_table();
    int way;

    for (way = ACQUIRE; way < WAYS; way++) {
        etslock_guard *guard = hold(table, "k");
        struct call call;

        CASE("C-5: a thread cancelled while it waits for a lock waits on, and gets it");
        start_call(&call, table, (enum way)way, 0, ETSLOCK_INFINITE);
        await_waiting(NULL, 1);
        REQUIRE(pthread_cancel(call.thread) == 0);
        sleep_ms(20); /* time for a wrong library to give up */
        CHECK(stats_of(NULL).waiting == 1);
        CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
        end_call(&call, 1, ETSLOCK_OK);
        CHECK_STATUS(etslock_table_member(table, "k", 1), ETSLOCK_OK);
        check_nothing_is_left();

        CASE("C-5: cancellation does not shorten a wait");
        guard = hold(table, "k");
        start_call(&call, table, (enum way)way, 0, 300);
        REQUIRE(pthread_cancel(call.thread) == 0);
        REQUIRE(pthread_join(call.thread, NULL) == 0);
        CHECK(call.took_ms >= 298);
        CHECK_STATUS(call.status, ETSLOCK_WAIT_TIMEOUT);
        CHECK(call.survived == 0 && call.ran == 0);
        sem_destroy(&call.entered);
        sem_destroy(&call.leave);
        CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
        check_nothing_is_left();
    }
    etslock_table_free(table);
}

static void cancelled_during_the_callback(void)
{
    static const enum way ways[] = {ON_WORKER, ON_CALLER};
    etslock_table *table = new_table();
    int i;

    for (i = 0; i < 2; i++) {
        struct call call;
        CASE("C-5: a thread cancelled while its callback runs: the call ends as if nothing was");
        start_call(&call, table, ways[i], 1, 0);
        REQUIRE(sem_wait(&call.entered) == 0);
        REQUIRE(pthread_cancel(call.thread) == 0);
        sem_post(&call.leave);
        end_call(&call, 1, ETSLOCK_OK);
        take_k(table);
        check_nothing_is_left();
    }
    etslock_table_free(table);
}

static void the_cancel_state_is_restored(void)
{
    etslock_table *table = new_table();
    etslock_options options = patient(NULL);
    struct call call;
    int state = -1;

    CASE("C-5: a library call leaves the thread's cancellation state as it was");
    memset(&call, 0, sizeof call);
    REQUIRE(sem_init(&call.entered, 0, 0) == 0);
    options.run_on = ETSLOCK_RUN_ON_CALLER;
    CHECK_STATUS(etslock_with_lock(table, "k", 1, write_in_callback, &call, &options, NULL),
                 ETSLOCK_OK);
    CHECK(pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state) == 0);
    CHECK(state == PTHREAD_CANCEL_ENABLE);
    CHECK_STATUS(etslock_with_lock(table, "k", 1, write_in_callback, &call, &options, NULL),
                 ETSLOCK_OK);
    CHECK_STATUS(etslock_table_insert(table, "k", 1, "v", 1), ETSLOCK_OK);
    CHECK(pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &state) == 0);
    CHECK(state == PTHREAD_CANCEL_DISABLE);
    sem_destroy(&call.entered);
    etslock_table_free(table);
}

struct vanishing {
    etslock_table *table;
    int64_t exec_timeout_ms;
    int64_t fail_timeout_ms;
    etslock_guard *guard;
};

static void *acquire_and_vanish(void *argument)
{
    struct vanishing *vanishing = argument;
    etslock_options options = patient(NULL);
    options.exec_timeout_ms = vanishing->exec_timeout_ms;
    options.fail_timeout_ms = vanishing->fail_timeout_ms;
    CHECK_STATUS(etslock_acquire(vanishing->table, "k", 1, &options, &vanishing->guard),
                 ETSLOCK_OK);
    return NULL;
}

static etslock_guard *acquire_on_a_thread_that_ends(etslock_table *table, int64_t exec_timeout_ms,
                                                    int64_t fail_timeout_ms)
{
    struct vanishing vanishing;
    pthread_t thread;
    vanishing.table = table;
    vanishing.exec_timeout_ms = exec_timeout_ms;
    vanishing.fail_timeout_ms = fail_timeout_ms;
    vanishing.guard = NULL;
    REQUIRE(pthread_create(&thread, NULL, acquire_and_vanish, &vanishing) == 0);
    REQUIRE(pthread_join(thread, NULL) == 0);
    REQUIRE(vanishing.guard != NULL);
    return vanishing.guard;
}

static void holders_that_vanish(void)
{
    etslock_table *table = new_table();
    etslock_options options = patient(NULL);
    etslock_guard *lost;
    etslock_guard *guard = NULL;
    int64_t begin;

    CASE("C-5: a guard does not end with its thread");
    lost = acquire_on_a_thread_that_ends(table, ETSLOCK_INFINITE, 0);
    options.wait_timeout_ms = 50;
    CHECK_STATUS(etslock_acquire(table, "k", 1, &options, &guard), ETSLOCK_WAIT_TIMEOUT);
    CHECK_STATUS(etslock_guard_release(lost), ETSLOCK_OK);

    CASE("C-5: nor is a late lock deleted when its fail timeout is infinite");
    lost = acquire_on_a_thread_that_ends(table, 10, ETSLOCK_INFINITE);
    options.wait_timeout_ms = 100;
    CHECK_STATUS(etslock_acquire(table, "k", 1, &options, &guard), ETSLOCK_WAIT_TIMEOUT);
    CHECK_STATUS(etslock_guard_release(lost), ETSLOCK_EXEC_TIMEOUT);

    CASE("C-5: a waiter deletes the lock of a vanished holder at its release time");
    begin = now_ms();
    lost = acquire_on_a_thread_that_ends(table, 50, 50);
    options.wait_timeout_ms = ETSLOCK_INFINITE;
    CHECK_STATUS(etslock_acquire(table, "k", 1, &options, &guard), ETSLOCK_OK);
    CHECK(now_ms() - begin >= 98);

    CASE("C-6: what the vanished holder left frees nothing of its successor's");
    CHECK_STATUS(etslock_guard_insert(lost, "k", 1, "lost", 4), ETSLOCK_REVOKED);
    CHECK_STATUS(etslock_guard_release(lost), ETSLOCK_REVOKED);
    CHECK_STATUS(etslock_guard_status(guard), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);

    CASE("C-5: a callback on the caller's thread that does not return loses its lock too");
    {
        struct call call;
        begin = now_ms();
        start_timed_call(&call, table, ON_CALLER, 1, 0, 50);
        REQUIRE(sem_wait(&call.entered) == 0);
        CHECK_STATUS(etslock_acquire(table, "k", 1, &options, &guard), ETSLOCK_OK);
        CHECK(now_ms() - begin >= 98);

        CASE("C-10: its call is a timeout, although a waiter has the lock already");
        sem_post(&call.leave);
        REQUIRE(pthread_join(call.thread, NULL) == 0);
        CHECK_STATUS(call.status, ETSLOCK_EXEC_TIMEOUT);
        CHECK(call.ran == 1 && call.freed_at_return == 1);
        CHECK_STATUS(call.inside, ETSLOCK_REVOKED);
        CHECK_STATUS(etslock_guard_status(guard), ETSLOCK_OK);
        CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
        sem_destroy(&call.entered);
        sem_destroy(&call.leave);
        CHECK_STATUS(etslock_table_member(table, "k", 1), ETSLOCK_NOT_FOUND);
    }
    check_nothing_is_left();
    etslock_table_free(table);
}

static void a_table_is_freed_in_the_middle(void)
{
    etslock_table *table = new_table_named("life: freed");
    etslock_table *spare = NULL;
    etslock_guard *guard = hold(table, "guard");
    etslock_tuples *tuples = NULL;
    etslock_cursor *cursor = NULL;
    struct call running;
    struct call waiting[WAYS];
    int way;

    CASE("C-14: a table freed while a callback runs and threads wait");
    CHECK_STATUS(etslock_table_open("life: freed", &spare), ETSLOCK_OK);
    CHECK_STATUS(etslock_table_insert(table, "row", 3, "v", 1), ETSLOCK_OK);
    CHECK_STATUS(etslock_table_lookup(table, "row", 3, &tuples), ETSLOCK_OK);
    CHECK_STATUS(etslock_table_cursor(table, &cursor), ETSLOCK_OK);
    start_call(&running, table, ON_WORKER, 1, 0);
    REQUIRE(sem_wait(&running.entered) == 0);
    for (way = ACQUIRE; way < WAYS; way++)
        start_call(&waiting[way], table, (enum way)way, 0, ETSLOCK_INFINITE);
    await_waiting(NULL, WAYS);
    etslock_table_free(table);
    for (way = ACQUIRE; way < WAYS; way++)
        end_call(&waiting[way], 0, ETSLOCK_CLOSED);

    CASE("C-14: running callbacks, guards, snapshots and cursors live on");
    sem_post(&running.leave);
    end_call(&running, 0, ETSLOCK_OK);
    CHECK_STATUS(etslock_table_member(spare, "k", 1), ETSLOCK_OK);
    etslock_table_free(spare);
    CHECK_STATUS(etslock_guard_insert(guard, "guard", 5, "v", 1), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    {
        size_t count = 0;
        const etslock_tuple *data = etslock_tuples_data(tuples, &count);
        int keys = 0;
        CHECK(count == 1 && memcmp(data[0].key, "row", 3) == 0);
        etslock_tuples_free(tuples);
        while (etslock_cursor_next(cursor, &tuples) == ETSLOCK_OK) {
            keys++;
            etslock_tuples_free(tuples);
        }
        /* "row" was there throughout; the other two came meanwhile. */
        CHECK(keys >= 1 && keys <= 3);
    }
    etslock_cursor_free(cursor);
    check_nothing_is_left();
}

static void check_exit(pid_t child, int wanted)
{
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    if (!CHECK(WIFEXITED(status) && WEXITSTATUS(status) == wanted))
        fprintf(stderr, "    the child's wait status is %d\n", status);
}

/* Runs `body` in a child process, which ends with the exit status `wanted`. */
static void check_exiting_child(void (*body)(void), int wanted)
{
    pid_t child;
    fflush(NULL);
    child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        alarm(30);
        body();
        _exit(1);
    }
    check_exit(child, wanted);
}

/* What a child inherits from the threads that it lacks cannot be freed. So it ends as another
 * program, which no leak checker looks at: `true` if all went well. */
static void end_child(void)
{
    if (check_failures == 0)
        execlp("true", "true", (char *)NULL);
    abort();
}

/* Runs the checks of `body` in a child process. */
static void check_child(void (*body)(void))
{
    pid_t child;
    fflush(NULL);
    child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        alarm(30);
        check_failures = 0;
        body();
        end_child();
    }
    check_exit(child, 0);
}

/* Static, so that what a child leaves behind at exit counts as reachable. */
static etslock_table *child_table;
static pthread_t child_thread;

static int32_t run_away(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                        void *user_data)
{
    (void)tuples, (void)tuple_count, (void)user_data;
    while (child_table != NULL) {
        etslock_table_insert(child_table, "x", 1, "v", 1);
        etslock_guard_status(guard);
        sched_yield();
    }
    return 0;
}

static void exit_with_a_runaway_callback(void)
{
    etslock_options options = patient(NULL);
    options.exec_timeout_ms = 50;
    child_table = new_table();
    if (etslock_with_lock(child_table, "k", 1, run_away, NULL, &options, NULL)
        != ETSLOCK_EXEC_TIMEOUT)
        exit(1);
    exit(11);
}

static int32_t exit_in_callback(etslock_guard *guard, const etslock_tuple *tuples,
                                size_t tuple_count, void *user_data)
{
    (void)guard, (void)tuples, (void)tuple_count;
    exit(*(const int *)user_data);
    return 0;
}

static void exit_inside_a_worker(void)
{
    static int code = 12;
    etslock_options options = patient(NULL);
    child_table = new_table();
    etslock_with_lock(child_table, "k", 1, exit_in_callback, &code, &options, NULL);
}

static void exit_inside_a_callers_callback(void)
{
    static int code = 13;
    etslock_options options = patient(NULL);
    options.run_on = ETSLOCK_RUN_ON_CALLER;
    child_table = new_table();
    etslock_with_lock(child_table, "k", 1, exit_in_callback, &code, &options, NULL);
}

static etslock_guard *volatile child_guard; /* volatile: else it is optimised away */

static void *wait_for_k(void *argument)
{
    static etslock_guard *never;
    etslock_options options = patient(NULL);
    (void)argument;
    etslock_acquire(child_table, "k", 1, &options, &never);
    return NULL;
}

static void exit_with_holders_and_waiters(void)
{
    child_table = new_table_named("life: never freed");
    child_guard = hold(child_table, "k");
    REQUIRE(pthread_create(&child_thread, NULL, wait_for_k, NULL) == 0);
    await_waiting(NULL, 1);
    exit(check_failures == 0 ? 14 : 1);
}

static void use_the_library_at_exit(void)
{
    etslock_options options = patient(NULL);
    etslock_guard *guard = NULL;
    options.wait_timeout_ms = 0;
    if (etslock_table_member(child_table, "row", 3) != ETSLOCK_OK
        || etslock_acquire(child_table, "k", 1, &options, &guard) != ETSLOCK_OK
        || etslock_guard_release(guard) != ETSLOCK_OK)
        _exit(2);
    etslock_table_free(child_table);
    _exit(15);
}

static void use_in_an_exit_handler(void)
{
    child_table = new_table();
    etslock_table_insert(child_table, "row", 3, "v", 1);
    if (atexit(use_the_library_at_exit) == 0)
        exit(1);
}

/* Comes first in `main`, so that the children begin as a fresh process does. */
static void process_exit(void)
{
    CASE("C-16: exit with a runaway callback");
    check_exiting_child(exit_with_a_runaway_callback, 11);
    CASE("C-16: exit inside a callback on a worker");
    check_exiting_child(exit_inside_a_worker, 12);
    CASE("C-16: exit inside a callback on the caller's thread");
    check_exiting_child(exit_inside_a_callers_callback, 13);
    CASE("C-16: exit with locks held and threads waiting");
    check_exiting_child(exit_with_holders_and_waiters, 14);
    CASE("C-16: the library still works in an exit handler");
    check_exiting_child(use_in_an_exit_handler, 15);
}

/* What a forking process has in hand. */
static struct {
    etslock_table *table; /* named "life: inherited" */
    etslock_lock_table *lock_table;
    etslock_guard *guard; /* of "k" */
    etslock_guard *other;
    etslock_guard *callback_guard;
    etslock_tuples *tuples;
    etslock_locks *locks;
    etslock_cursor *cursor;
} inherited;

static void check_forked_table(void)
{
    etslock_table *table = inherited.table;
    etslock_tuples *tuples = NULL;
    etslock_cursor *cursor = NULL;
    int64_t value = 0;
    size_t count = 0;
    CHECK_STATUS(etslock_table_insert(table, "k", 1, "c", 1), ETSLOCK_ERR_FORKED);
    CHECK_STATUS(etslock_table_insert_new(table, "n", 1, "c", 1), ETSLOCK_ERR_FORKED);
    CHECK_STATUS(etslock_table_lookup(table, "row", 3, &tuples), ETSLOCK_ERR_FORKED);
    CHECK_STATUS(etslock_table_member(table, "row", 3), ETSLOCK_ERR_FORKED);
    CHECK_STATUS(etslock_table_take(table, "row", 3, &tuples), ETSLOCK_ERR_FORKED);
    CHECK_STATUS(etslock_table_delete(table, "row", 3), ETSLOCK_ERR_FORKED);
    CHECK_STATUS(etslock_table_delete_tuple(table, "row", 3, "v", 1), ETSLOCK_ERR_FORKED);
    CHECK_STATUS(etslock_table_clear(table), ETSLOCK_ERR_FORKED);
    CHECK_STATUS(etslock_table_update_counter(table, "c", 1, 1, 0, &value), ETSLOCK_ERR_FORKED);
    CHECK_STATUS(etslock_table_count(table, &count), ETSLOCK_ERR_FORKED);
    CHECK_STATUS(etslock_table_cursor(table, &cursor), ETSLOCK_ERR_FORKED);
    CHECK_STATUS(etslock_cursor_next(inherited.cursor, &tuples), ETSLOCK_ERR_FORKED);
    CHECK(tuples == NULL && cursor == NULL);
}

static void check_forked_locking(void)
{
    const etslock_key keys[] = {{"k", 1}, {"free", 4}};
    etslock_options options = patient(NULL);
    etslock_guard *guard = NULL;
    etslock_locks *locks = NULL;
    etslock_table *fresh = new_table();
    etslock_stats stats;
    CHECK_STATUS(etslock_with_lock(inherited.table, "k", 1, must_not_run, NULL, &options, NULL),
                 ETSLOCK_ERR_FORKED);
    CHECK_STATUS(etslock_with_locks(inherited.table, keys, 2, must_not_run, NULL, &options, NULL),
                 ETSLOCK_ERR_FORKED);
    CHECK_STATUS(etslock_acquire(inherited.table, "k", 1, &options, &guard), ETSLOCK_ERR_FORKED);
    CHECK_STATUS(etslock_acquire_locks(inherited.table, keys, 2, &options, &guard),
                 ETSLOCK_ERR_FORKED);
    options.lock_table = inherited.lock_table;
    CHECK_STATUS(etslock_acquire(fresh, "k", 1, &options, &guard), ETSLOCK_ERR_FORKED);
    CHECK(guard == NULL);
    etslock_stats_init(&stats, sizeof stats);
    CHECK_STATUS(etslock_lock_table_stats(inherited.lock_table, &stats), ETSLOCK_ERR_FORKED);
    CHECK_STATUS(etslock_lock_table_locks(inherited.lock_table, NULL, &locks),
                 ETSLOCK_ERR_FORKED);
    CHECK_STATUS(etslock_lock_table_locks(NULL, inherited.table, &locks), ETSLOCK_ERR_FORKED);
    CHECK(locks == NULL);
    CHECK_STATUS(etslock_lock_table_force_release(NULL, inherited.table, "k", 1),
                 ETSLOCK_ERR_FORKED);
    CHECK_STATUS(etslock_lock_table_force_release(inherited.lock_table, fresh, "k", 1),
                 ETSLOCK_ERR_FORKED);
    etslock_table_free(fresh);
}

static void check_forked_guards(void)
{
    etslock_guard *guard = inherited.guard;
    etslock_tuples *tuples = NULL;
    CHECK_STATUS(etslock_guard_status(guard), ETSLOCK_ERR_FORKED);
    CHECK_STATUS(etslock_guard_lookup(guard, "k", 1, &tuples), ETSLOCK_ERR_FORKED);
    CHECK_STATUS(etslock_guard_insert(guard, "k", 1, "c", 1), ETSLOCK_ERR_FORKED);
    CHECK_STATUS(etslock_guard_delete(guard, "k", 1), ETSLOCK_ERR_FORKED);
    CHECK_STATUS(etslock_guard_delete_tuple(guard, "k", 1, "c", 1), ETSLOCK_ERR_FORKED);
    CHECK_STATUS(etslock_guard_commit(guard), ETSLOCK_ERR_FORKED);
    CHECK_STATUS(etslock_guard_rollback(guard), ETSLOCK_ERR_FORKED);
    CHECK_STATUS(etslock_guard_extend(guard, 1000), ETSLOCK_ERR_FORKED);
    CHECK_STATUS(etslock_guard_sleep(guard, 0), ETSLOCK_ERR_FORKED);
    CHECK_STATUS(etslock_guard_sleep(guard, 60000), ETSLOCK_ERR_FORKED);
    CHECK_STATUS(etslock_guard_set_result(inherited.callback_guard, "c", 1), ETSLOCK_ERR_FORKED);
    CHECK_STATUS(etslock_guard_insert(inherited.callback_guard, "k", 1, "c", 1),
                 ETSLOCK_ERR_FORKED);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_ERR_FORKED);
    CHECK_STATUS(etslock_guard_cancel(inherited.other), ETSLOCK_ERR_FORKED);
    CHECK(tuples == NULL);
}

static void check_inherited_snapshots(void)
{
    etslock_lock_info info;
    size_t count = 0;
    const etslock_tuple *data = etslock_tuples_data(inherited.tuples, &count);
    CHECK(count == 1 && memcmp(data[0].key, "row", 3) == 0 && data[0].value[0] == 'v');
    CHECK(etslock_locks_count(inherited.locks) >= 2);
    info.struct_size = sizeof info;
    CHECK_STATUS(etslock_locks_get(inherited.locks, 0, &info), ETSLOCK_OK);
    CHECK(strcmp(info.table_name, "life: inherited") == 0);
    etslock_tuples_free(inherited.tuples);
    etslock_locks_free(inherited.locks);
    etslock_cursor_free(inherited.cursor);
    etslock_table_free(inherited.table);
    etslock_lock_table_free(inherited.lock_table);
}

static void check_that_a_child_can_work(void)
{
    etslock_table *table = NULL;
    etslock_options options = patient(NULL);
    etslock_guard *guard;
    struct call call;
    int i;

    CHECK_STATUS(etslock_table_open("life: inherited", &table), ETSLOCK_NOT_FOUND);
    CHECK(stats_of(NULL).held == 0 && stats_of(NULL).waiting == 0);
    table = new_table_named("life: inherited");
    guard = hold(table, "k");
    CHECK_STATUS(etslock_guard_insert(guard, "k", 1, "v", 1), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    CHECK_STATUS(etslock_table_delete(table, "k", 1), ETSLOCK_OK);
    memset(&call, 0, sizeof call);
    sem_init(&call.entered, 0, 0);
    for (i = 0; i < 3; i++)
        CHECK_STATUS(etslock_with_lock(table, "k", 1, write_in_callback, &call, &options, NULL),
                     ETSLOCK_OK);
    CHECK(call.ran == 3);
    CHECK_STATUS(etslock_table_member(table, "k", 1), ETSLOCK_OK);
    etslock_table_free(table);
}

/* What a child has in hand that forks in its turn. */
static struct {
    etslock_table *table;
    etslock_guard *guard;
} of_the_child;

static void check_the_grandchild(void)
{
    CHECK_STATUS(etslock_table_insert(of_the_child.table, "k", 1, "g", 1), ETSLOCK_ERR_FORKED);
    CHECK_STATUS(etslock_guard_insert(of_the_child.guard, "k", 1, "g", 1), ETSLOCK_ERR_FORKED);
    check_that_a_child_can_work();
}

static void check_that_a_child_can_fork(void)
{
    of_the_child.table = new_table_named("life: inherited");
    of_the_child.guard = hold(of_the_child.table, "k");
    check_child(check_the_grandchild);
    CHECK_STATUS(etslock_guard_release(of_the_child.guard), ETSLOCK_OK);
    etslock_table_free(of_the_child.table);
}

static void check_the_child(void)
{
    check_forked_table();
    check_forked_locking();
    check_forked_guards();
    check_inherited_snapshots();
    check_that_a_child_can_work();
    check_that_a_child_can_fork();
}

/* A callback that makes its guard known and waits. */
static int32_t lend_the_guard(etslock_guard *guard, const etslock_tuple *tuples,
                              size_t tuple_count, void *user_data)
{
    CHECK_STATUS(etslock_guard_insert(guard, "call", 4, "v", 1), ETSLOCK_OK);
    inherited.callback_guard = guard;
    (void)tuples, (void)tuple_count;
    sem_post(&((struct call *)user_data)->entered);
    sem_wait(&((struct call *)user_data)->leave);
    return 0;
}

static void *call_lend_the_guard(void *argument)
{
    struct call *call = argument;
    etslock_options options = patient(NULL);
    options.user_data_free = count_free;
    call->status = etslock_with_lock(inherited.table, "call", 4, lend_the_guard, call, &options,
                                     NULL);
    return NULL;
}

static void fork_in_the_middle(void)
{
    struct call lending;
    struct call waiting;

    CASE("C-16: fork with locks held, a thread waiting and a worker's callback running");
    inherited.table = new_table_named("life: inherited");
    REQUIRE(etslock_lock_table_new(&inherited.lock_table) == ETSLOCK_OK);
    CHECK_STATUS(etslock_table_insert(inherited.table, "row", 3, "v", 1), ETSLOCK_OK);
    inherited.guard = hold(inherited.table, "k");
    inherited.other = hold(inherited.table, "other");
    CHECK_STATUS(etslock_guard_insert(inherited.guard, "k", 1, "p", 1), ETSLOCK_OK);
    CHECK_STATUS(etslock_table_lookup(inherited.table, "row", 3, &inherited.tuples), ETSLOCK_OK);
    CHECK_STATUS(etslock_lock_table_locks(NULL, inherited.table, &inherited.locks), ETSLOCK_OK);
    CHECK_STATUS(etslock_table_cursor(inherited.table, &inherited.cursor), ETSLOCK_OK);
    memset(&lending, 0, sizeof lending);
    REQUIRE(sem_init(&lending.entered, 0, 0) == 0 && sem_init(&lending.leave, 0, 0) == 0);
    REQUIRE(pthread_create(&lending.thread, NULL, call_lend_the_guard, &lending) == 0);
    REQUIRE(sem_wait(&lending.entered) == 0);
    start_call(&waiting, inherited.table, ACQUIRE, 0, ETSLOCK_INFINITE);
    await_waiting(NULL, 1);
    check_child(check_the_child);

    CASE("C-16: the parent is undisturbed");
    CHECK(stats_of(NULL).waiting == 1 && stats_of(NULL).held == 3);
    CHECK_STATUS(etslock_guard_status(inherited.guard), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_release(inherited.guard), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_cancel(inherited.other), ETSLOCK_OK);
    end_call(&waiting, 0, ETSLOCK_OK);
    sem_post(&lending.leave);
    REQUIRE(pthread_join(lending.thread, NULL) == 0);
    CHECK_STATUS(lending.status, ETSLOCK_OK);
    CHECK(lending.freed == 1);
    sem_destroy(&lending.entered);
    sem_destroy(&lending.leave);
    CHECK_STATUS(etslock_table_member(inherited.table, "call", 4), ETSLOCK_OK);
    CHECK_STATUS(etslock_table_member(inherited.table, "k", 1), ETSLOCK_OK);
    etslock_tuples_free(inherited.tuples);
    etslock_locks_free(inherited.locks);
    etslock_cursor_free(inherited.cursor);
    etslock_table_free(inherited.table);
    etslock_lock_table_free(inherited.lock_table);
    check_nothing_is_left();
}

/* Forks inside a callback. On a worker the child ends there; on the caller's thread it returns. */
struct forking {
    etslock_table *table;
    int return_in_child;
    int freed;
    pid_t child;
};

static void count_forking_free(void *user_data)
{
    ((struct forking *)user_data)->freed++;
}

static int32_t fork_inside(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                           void *user_data)
{
    struct forking *forking = user_data;
    (void)tuples, (void)tuple_count;
    CHECK_STATUS(etslock_guard_insert(guard, "k", 1, "p", 1), ETSLOCK_OK);
    fflush(NULL);
    forking->child = fork();
    REQUIRE(forking->child >= 0);
    if (forking->child == 0) {
        alarm(30);
        check_failures = 0;
        CHECK_STATUS(etslock_guard_status(guard), ETSLOCK_ERR_FORKED);
        CHECK_STATUS(etslock_guard_insert(guard, "k", 1, "c", 1), ETSLOCK_ERR_FORKED);
        CHECK_STATUS(etslock_guard_commit(guard), ETSLOCK_ERR_FORKED);
        CHECK_STATUS(etslock_table_insert(forking->table, "k", 1, "c", 1), ETSLOCK_ERR_FORKED);
        check_that_a_child_can_work();
        if (!forking->return_in_child)
            end_child();
    }
    return 0;
}

static void fork_in_a_callback(void)
{
    struct forking forking;
    etslock_options options = patient(NULL);
    etslock_status status;

    options.user_data_free = count_forking_free;
    memset(&forking, 0, sizeof forking);
    forking.table = new_table();

    CASE("C-16: fork in a callback on a worker");
    CHECK_STATUS(etslock_with_lock(forking.table, "k", 1, fork_inside, &forking, &options, NULL),
                 ETSLOCK_OK);
    check_exit(forking.child, 0);
    CHECK(forking.freed == 1);
    take_k(forking.table);

    CASE("C-16: fork in a callback on the caller's thread; nothing is committed in the child");
    options.run_on = ETSLOCK_RUN_ON_CALLER;
    forking.return_in_child = 1;
    status = etslock_with_lock(forking.table, "k", 1, fork_inside, &forking, &options, NULL);
    if (forking.child == 0) {
        CHECK(status != ETSLOCK_OK);
        CHECK(forking.freed == 1);
        check_that_a_child_can_work();
        end_child();
    }
    CHECK_STATUS(status, ETSLOCK_OK);
    check_exit(forking.child, 0);
    CHECK(forking.freed == 2);
    etslock_table_free(forking.table);
    check_nothing_is_left();
}

/* Threads that keep every part of the library busy while the process forks. */
struct busy {
    pthread_t thread;
    etslock_table *table;
    int stop;
};

static int32_t write_busily(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                            void *user_data)
{
    (void)tuples, (void)tuple_count, (void)user_data;
    return etslock_guard_insert(guard, "k", 1, "v", 1);
}

static void *be_busy(void *argument)
{
    struct busy *busy = argument;
    etslock_options options = patient(NULL);
    while (!__atomic_load_n(&busy->stop, __ATOMIC_RELAXED)) {
        etslock_table *other = NULL;
        etslock_guard *guard = NULL;
        etslock_locks *locks = NULL;
        CHECK_STATUS(etslock_acquire(busy->table, "k", 1, &options, &guard), ETSLOCK_OK);
        CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
        CHECK_STATUS(etslock_with_lock(busy->table, "k", 1, write_busily, NULL, &options, NULL),
                     ETSLOCK_OK);
        if (etslock_table_open("life: inherited", &other) == ETSLOCK_OK)
            etslock_table_free(other);
        CHECK_STATUS(etslock_lock_table_locks(NULL, NULL, &locks), ETSLOCK_OK);
        etslock_locks_free(locks);
    }
    return NULL;
}

static void check_the_child_of_a_busy_process(void)
{
    CHECK_STATUS(etslock_table_insert(inherited.table, "k", 1, "c", 1), ETSLOCK_ERR_FORKED);
    CHECK_STATUS(etslock_table_delete(inherited.table, "k", 1), ETSLOCK_ERR_FORKED);
    etslock_table_free(inherited.table);
    check_that_a_child_can_work();
}

static void fork_a_busy_process(void)
{
    struct busy busy[3];
    int i;

    CASE("C-16: a child hangs on no lock of the library, whenever the fork came");
    inherited.table = new_table_named("life: inherited");
    memset(busy, 0, sizeof busy);
    for (i = 0; i < 3; i++) {
        busy[i].table = inherited.table;
        REQUIRE(pthread_create(&busy[i].thread, NULL, be_busy, &busy[i]) == 0);
    }
    for (i = 0; i < 15; i++)
        check_child(check_the_child_of_a_busy_process);
    for (i = 0; i < 3; i++)
        __atomic_store_n(&busy[i].stop, 1, __ATOMIC_RELAXED);
    for (i = 0; i < 3; i++)
        REQUIRE(pthread_join(busy[i].thread, NULL) == 0);
    etslock_table_free(inherited.table);
    check_nothing_is_left();
}

static void *lock_once(void *argument)
{
    etslock_options options = patient(NULL);
    etslock_guard *guard = NULL;
    CHECK_STATUS(etslock_acquire(argument, "k", 1, &options, &guard), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_insert(guard, "k", 1, "v", 1), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    return NULL;
}

static void *lock_once_on_a_worker(void *argument)
{
    etslock_options options = patient(NULL);
    CHECK_STATUS(etslock_with_lock(argument, "k", 1, write_busily, NULL, &options, NULL),
                 ETSLOCK_OK);
    return NULL;
}

static void run_threads(void *(*body)(void *), etslock_table *table, int count)
{
    int i;
    for (i = 0; i < count; i++) {
        pthread_t thread;
        REQUIRE(pthread_create(&thread, NULL, body, table) == 0);
        REQUIRE(pthread_join(thread, NULL) == 0);
    }
}

static void run_batches(etslock_table *table, int count)
{
    pthread_t batch[30];
    int i;
    while (count-- > 0) {
        for (i = 0; i < 30; i++)
            REQUIRE(pthread_create(&batch[i], NULL, lock_once_on_a_worker, table) == 0);
        for (i = 0; i < 30; i++)
            REQUIRE(pthread_join(batch[i], NULL) == 0);
    }
}

static void short_lived_threads(void)
{
    etslock_table *table = new_table();
    int measured = memory_can_be_measured();
    long before;
    long after;

    CASE("C-15: 10,000 threads that lock once leave no memory behind");
    run_threads(lock_once, table, 1000);
    before = resident_bytes();
    run_threads(lock_once, table, measured ? 10000 : 1000);
    after = resident_bytes();
    /* 200 bytes kept for each thread would be 2 MB. */
    if (measured && !CHECK(after - before < 1 << 20))
        fprintf(stderr, "    grew by %ld bytes\n", after - before);

    CASE("C-16: threads that called back on a worker and ended leave no worker behind");
    run_threads(lock_once_on_a_worker, table, 200);
    CHECK(stats_of(NULL).workers <= 16);
    run_batches(table, 2);
    before = resident_bytes();
    run_batches(table, 10);
    CHECK(stats_of(NULL).workers <= 64);

    CASE("C-16: idle workers go away");
    WAIT_UNTIL(stats_of(NULL).workers == 0);
    after = resident_bytes();
    /* 300 threads: the pages of a stack and the bookkeeping kept for each would be far more. */
    if (measured && !CHECK(after - before < 2 << 20))
        fprintf(stderr, "    grew by %ld bytes\n", after - before);
    etslock_table_free(table);
}

int main(void)
{
    alarm(300); /* a hang is a failure */
    RUN(process_exit());
    RUN(cancelled_while_waiting_for_a_lock());
    RUN(cancelled_during_the_callback());
    RUN(the_cancel_state_is_restored());
    RUN(holders_that_vanish());
    RUN(a_table_is_freed_in_the_middle());
    RUN(fork_in_the_middle());
    RUN(fork_in_a_callback());
    RUN(fork_a_busy_process());
    RUN(short_lived_threads());
    return check_report();
}
