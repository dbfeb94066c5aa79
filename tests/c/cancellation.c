/* Cancellation of threads (C-5, C-11, C-17, C-22), of the deferred type: it never takes effect
 * inside a call, whatever the call does, and it meets the callback that it was meant for.
 */
#include "locks.h"
#include "threads.h"

#include <sched.h>
#include <unistd.h>

static etslock_table *table;
static etslock_guard *other_lock;

/* What a callback calls with a request to end pending. Some of these read files or ask for random
 * bytes below the library, which are cancellation points. */
static void insert_many(void)
{
    int key;
    for (key = 0; key < 200; key++)
        etslock_table_insert(table, &key, sizeof key, "v", 1);
}

static void list_locks(void)
{
    etslock_locks *locks = NULL;
    etslock_lock_table_locks(NULL, NULL, &locks);
    etslock_locks_free(locks);
}

static void open_a_table(void)
{
    etslock_table *none = NULL;
    etslock_table_open("no such table", &none);
}

static void make_a_table(void)
{
    etslock_table *made = NULL;
    etslock_table_new(NULL, &made);
    etslock_table_free(made);
}

static void acquire_in_vain(void)
{
    etslock_options options;
    etslock_guard *guard = NULL;
    etslock_options_init(&options, sizeof options);
    options.wait_timeout_ms = 20;
    options.owner = 7;
    etslock_acquire(table, "other", 5, &options, &guard);
}

static void (*const calls[])(void) = {insert_many, list_locks, open_a_table, make_a_table,
                                      acquire_in_vain};
enum { CALLS = sizeof calls / sizeof calls[0] };

struct killed {
    void (*call)(void);
    int began;
    int called, freed;
    sem_t ended;
};

static int32_t call_when_killed(etslock_guard *guard, const etslock_tuple *tuples,
                                size_t tuple_count, void *user_data)
{
    struct killed *killed = user_data;
    (void)tuples, (void)tuple_count;
    killed->began = 1;
    /* No cancellation point: the request stays pending. It comes soon after the revocation. */
    while (etslock_guard_status(guard) == ETSLOCK_OK)
        sched_yield();
    {
        int64_t soon = now_ms() + 50;
        while (now_ms() < soon)
            sched_yield();
    }
    killed->call();
    killed->called = 1;
    pthread_testcancel();
    return 0;
}

static void killed_ended(void *user_data)
{
    struct killed *killed = user_data;
    killed->freed++;
    sem_post(&killed->ended);
}

static void killed_calls_are_not_cut(void)
{
    int i;
    CASE("C-11: a killed callback's call is not cut in half, whatever it calls");
    for (i = 0; i < CALLS; i++) {
        struct killed killed;
        etslock_options options;
        memset(&killed, 0, sizeof killed);
        killed.call = calls[i];
        sem_init(&killed.ended, 0, 0);
        etslock_options_init(&options, sizeof options);
        options.exec_timeout_ms = 100;
        options.on_exec_timeout = ETSLOCK_KILL;
        options.user_data_free = killed_ended;
        CHECK_STATUS(etslock_with_lock(table, "k", 1, call_when_killed, &killed, &options, NULL),
                     ETSLOCK_EXEC_TIMEOUT);
        REQUIRE(wait_for(&killed.ended));
        /* On a machine that is busy enough no worker begins in time, and nothing runs (C-4). */
        CHECK(killed.called == killed.began && killed.freed == 1);
        sem_destroy(&killed.ended);
    }
}

struct cancelled {
    void (*call)(void);
    int called;
    sem_t requested;
};

static void *call_when_cancelled(void *argument)
{
    struct cancelled *cancelled = argument;
    int before;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
    sem_wait(&cancelled->requested);
    pthread_setcancelstate(before, &before);
    cancelled->call();
    cancelled->called = 1;
    pthread_testcancel();
    return NULL;
}

static void cancelled_calls_are_not_cut(void)
{
    int i;
    CASE("C-5: a thread with a pending cancellation ends its call first, whatever it calls");
    for (i = 0; i < CALLS; i++) {
        struct cancelled cancelled;
        pthread_t thread;
        void *result = NULL;
        memset(&cancelled, 0, sizeof cancelled);
        cancelled.call = calls[i];
        sem_init(&cancelled.requested, 0, 0);
        REQUIRE(pthread_create(&thread, NULL, call_when_cancelled, &cancelled) == 0);
        REQUIRE(pthread_cancel(thread) == 0);
        sem_post(&cancelled.requested);
        REQUIRE(pthread_join(thread, &result) == 0);
        CHECK(result == PTHREAD_CANCELED && cancelled.called == 1);
        sem_destroy(&cancelled.requested);
    }
}

static int32_t cancel_itself(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                             void *user_data)
{
    (void)guard, (void)tuples, (void)tuple_count, (void)user_data;
    pthread_cancel(pthread_self());
    return 0;
}

static int32_t meet_a_cancellation_point(etslock_guard *guard, const etslock_tuple *tuples,
                                         size_t tuple_count, void *user_data)
{
    (void)guard, (void)tuples, (void)tuple_count, (void)user_data;
    sleep_ms(1);
    return 0;
}

static void a_request_meets_its_own_callback(void)
{
    int round;
    CASE("C-17: a request to end that a callback leaves behind is its own, not the next one's");
    for (round = 0; round < 20; round++) {
        CHECK_STATUS(etslock_with_lock(table, "k", 1, cancel_itself, NULL, NULL, NULL),
                     ETSLOCK_CALLBACK_FAILED);
        CHECK_STATUS(etslock_with_lock(table, "k", 1, meet_a_cancellation_point, NULL, NULL, NULL),
                     ETSLOCK_OK);
    }
}

static int32_t hide_a_request(etslock_guard *guard, const etslock_tuple *tuples,
                              size_t tuple_count, void *user_data)
{
    (void)guard, (void)tuples, (void)tuple_count, (void)user_data;
    REQUIRE(pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL) == 0);
    pthread_cancel(pthread_self());
    return 0;
}

static int32_t become_cancellable_at_once(etslock_guard *guard, const etslock_tuple *tuples,
                                          size_t tuple_count, void *user_data)
{
    (void)guard, (void)tuples, (void)tuple_count, (void)user_data;
    REQUIRE(pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL) == 0);
    return 0;
}

static int32_t look_at_cancellation(etslock_guard *guard, const etslock_tuple *tuples,
                                    size_t tuple_count, void *user_data)
{
    int state = -1, type = -1;
    (void)guard, (void)tuples, (void)tuple_count, (void)user_data;
    REQUIRE(pthread_setcanceltype(PTHREAD_CANCEL_DEFERRED, &type) == 0);
    REQUIRE(pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state) == 0);
    CHECK(state == PTHREAD_CANCEL_ENABLE && type == PTHREAD_CANCEL_DEFERRED);
    return 0;
}

static void cancellation_is_as_on_a_fresh_thread(void)
{
    int round;
    CASE("C-17: a request that a callback hid is its own, too");
    for (round = 0; round < 20; round++) {
        CHECK_STATUS(etslock_with_lock(table, "k", 1, hide_a_request, NULL, NULL, NULL),
                     ETSLOCK_CALLBACK_FAILED);
        CHECK_STATUS(etslock_with_lock(table, "k", 1, meet_a_cancellation_point, NULL, NULL, NULL),
                     ETSLOCK_OK);
    }
    CASE("C-22: a callback finds cancellation on and deferred, whatever another left");
    for (round = 0; round < 20; round++) {
        CHECK_STATUS(etslock_with_lock(table, "k", 1, become_cancellable_at_once, NULL, NULL,
                                       NULL), ETSLOCK_OK);
        CHECK_STATUS(etslock_with_lock(table, "k", 1, look_at_cancellation, NULL, NULL, NULL),
                     ETSLOCK_OK);
        CHECK_STATUS(etslock_with_lock(table, "k", 1, look_at_cancellation, NULL, NULL, NULL),
                     ETSLOCK_OK);
    }
}

struct revoked {
    sem_t go, ended;
    int ran_out;
};

static int32_t outlive_a_revocation(etslock_guard *guard, const etslock_tuple *tuples,
                                    size_t tuple_count, void *user_data)
{
    struct revoked *revoked = user_data;
    (void)tuples, (void)tuple_count;
    CHECK_STATUS(etslock_lock_table_force_release(NULL, table, "k", 1), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_status(guard), ETSLOCK_REVOKED);
    wait_for(&revoked->go); /* a cancellation point */
    revoked->ran_out = 1;
    return 0;
}

static void revoked_ended(void *user_data)
{
    struct revoked *revoked = user_data;
    sem_post(&revoked->ended);
}

static void force_release_cancels_nobody(void)
{
    struct revoked revoked;
    etslock_options options;
    CASE("C-11: KILL is for callbacks that outlived their time, not for revoked ones");
    revoked.ran_out = 0;
    sem_init(&revoked.go, 0, 0);
    sem_init(&revoked.ended, 0, 0);
    etslock_options_init(&options, sizeof options);
    options.on_exec_timeout = ETSLOCK_KILL;
    options.user_data_free = revoked_ended;
    CHECK_STATUS(etslock_with_lock(table, "k", 1, outlive_a_revocation, &revoked, &options, NULL),
                 ETSLOCK_REVOKED);
    sem_post(&revoked.go);
    REQUIRE(wait_for(&revoked.ended));
    CHECK(revoked.ran_out == 1);
    sem_destroy(&revoked.go);
    sem_destroy(&revoked.ended);
}

int main(void)
{
    alarm(120); /* a hang is a failure */
    table = new_table();
    REQUIRE(etslock_acquire(table, "other", 5, NULL, &other_lock) == ETSLOCK_OK);
    RUN(killed_calls_are_not_cut());
    RUN(cancelled_calls_are_not_cut());
    CHECK_STATUS(etslock_guard_release(other_lock), ETSLOCK_OK);
    RUN(a_request_meets_its_own_callback());
    RUN(cancellation_is_as_on_a_fresh_thread());
    RUN(force_release_cancels_nobody());
    etslock_table_free(table);
    return check_report();
}
