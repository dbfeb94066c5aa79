/* waiting.c - how long a call waits, who is next, and which waits cannot end.
 *
 * Threads are held in place by locks and semaphores; that a thread waits is read from the lock
 * table. Real time passes only where a timeout is the subject: lower bounds allow for the clock's
 * rounding, upper bounds are wide, since the machine may be busy.
 */
#include "check.h"
#include "locks.h"

#include <pthread.h>
#include <semaphore.h>

#define KEY "k", 1

enum {
    SLACK_MS = 2,
    SOON_MS = 10000,  /* "at once", and far below the next */
    AMPLE_MS = 60000, /* a timeout that must not be what ends a wait */
    WELL_PAST_HAND_OVER_MS = 50 /* a head that has waited for 2 ms is handed the lock */
};

static const int32_t queues[] = {ETSLOCK_QUEUE_FAIR, ETSLOCK_QUEUE_FIFO, ETSLOCK_QUEUE_POLLING};
static const int32_t run_ons[] = {ETSLOCK_RUN_ON_WORKER, ETSLOCK_RUN_ON_CALLER};

/* The guard of a lock that is free. */
static etslock_guard *acquired(etslock_table *table, const char *key)
{
    return hold_with(options_of(0, ETSLOCK_INFINITE, ETSLOCK_INFINITE), table, key);
}

/* A thread that waits for KEY, holds it until told, and gives it back. */
struct waiter {
    etslock_table *table;
    etslock_options options;
    etslock_status answer;
    uint64_t token;
    int64_t took_ms;
    sem_t answered, let_go;
    pthread_t thread;
};

static void *wait_for_key(void *user_data)
{
    struct waiter *waiter = user_data;
    etslock_guard *guard = NULL;
    int64_t began = now_ms();
    waiter->answer = etslock_acquire(waiter->table, KEY, &waiter->options, &guard);
    waiter->took_ms = now_ms() - began;
    waiter->token = etslock_guard_token(guard);
    CHECK((guard != NULL) == (waiter->answer == ETSLOCK_OK));
    sem_post(&waiter->answered);
    if (guard != NULL) {
        sem_wait(&waiter->let_go);
        CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    }
    return NULL;
}

static void waiter_start(struct waiter *waiter, etslock_table *table, etslock_options options)
{
    memset(waiter, 0, sizeof *waiter);
    waiter->table = table;
    waiter->options = options;
    sem_init(&waiter->answered, 0, 0);
    sem_init(&waiter->let_go, 0, 0);
    REQUIRE(pthread_create(&waiter->thread, NULL, wait_for_key, waiter) == 0);
}

static etslock_status waiter_answer(struct waiter *waiter)
{
    sem_wait(&waiter->answered);
    return waiter->answer;
}

static void waiter_end(struct waiter *waiter)
{
    sem_post(&waiter->let_go);
    pthread_join(waiter->thread, NULL);
    sem_destroy(&waiter->answered);
    sem_destroy(&waiter->let_go);
}

/* --- C-1 --- */

enum { MANY = 10000 };

static void many_keys(void)
{
    static etslock_guard *guards[MANY];
    etslock_table *table = new_table();
    etslock_options options = options_of(0, ETSLOCK_INFINITE, AMPLE_MS);
    char key[16];
    int i;
    for (i = 0; i < MANY; i++) {
        size_t length = (size_t)snprintf(key, sizeof key, "key-%d", i);
        REQUIRE(etslock_acquire(table, key, length, &options, &guards[i]) == ETSLOCK_OK);
    }
    CHECK_STATUS(try_lock(table, "one more"), ETSLOCK_OK);
    CHECK_STATUS(try_lock(table, "key-0"), ETSLOCK_WAIT_TIMEOUT);
    CHECK_STATUS(try_lock(table, "key-9999"), ETSLOCK_WAIT_TIMEOUT);
    for (i = 0; i < MANY; i++)
        CHECK_STATUS(etslock_guard_release(guards[i]), ETSLOCK_OK);
    CHECK_STATUS(try_lock(table, "key-0"), ETSLOCK_OK);
    CHECK_STATUS(try_lock(table, "key-9999"), ETSLOCK_OK);
    etslock_table_free(table);
}

static void one_table_two_handles(void)
{
    etslock_table *first = new_table_named("waiting.c: two handles");
    etslock_table *second = NULL;
    etslock_guard *guard = acquired(first, "k");
    REQUIRE(etslock_table_open("waiting.c: two handles", &second) == ETSLOCK_OK);
    CHECK_STATUS(try_lock(second, "k"), ETSLOCK_WAIT_TIMEOUT);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    CHECK_STATUS(try_lock(second, "k"), ETSLOCK_OK);
    etslock_table_free(first);
    etslock_table_free(second);
}

/* --- C-2 --- */

static void wait_timeouts(int32_t queue)
{
    enum { TIMED = 6 };
    etslock_table *table = new_table();
    etslock_lock_table *lock_table = NULL;
    etslock_guard *guard = NULL;
    etslock_options options = options_of(0, ETSLOCK_INFINITE, ETSLOCK_INFINITE);
    struct waiter waiters[TIMED];
    int i;
    REQUIRE(etslock_lock_table_new(&lock_table) == ETSLOCK_OK);
    options.lock_table = lock_table;
    options.queue = queue;
    CHECK_STATUS(etslock_acquire(table, KEY, &options, &guard), ETSLOCK_OK);

    waiter_start(&waiters[0], table, options);
    CHECK_STATUS(waiter_answer(&waiters[0]), ETSLOCK_WAIT_TIMEOUT);
    CHECK(waiters[0].took_ms < SOON_MS);
    waiter_end(&waiters[0]);

    options.wait_timeout_ms = 50;
    for (i = 0; i < TIMED; i++)
        waiter_start(&waiters[i], table, options);
    for (i = 0; i < TIMED; i++) {
        CHECK_STATUS(waiter_answer(&waiters[i]), ETSLOCK_WAIT_TIMEOUT);
        CHECK(waiters[i].took_ms >= 50 - SLACK_MS && waiters[i].took_ms < SOON_MS);
        waiter_end(&waiters[i]);
    }
    CHECK(stats_of(lock_table).waiting == 0);
    CHECK(stats_of(lock_table).wait_timeouts >= TIMED);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    CHECK(stats_of(lock_table).held == 0);

    options.wait_timeout_ms = 0;
    CHECK_STATUS(etslock_acquire(table, KEY, &options, &guard), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    CHECK(stats_of(lock_table).acquired == 2);
    etslock_lock_table_free(lock_table);
    etslock_table_free(table);
}

static void infinite_wait(int32_t queue)
{
    etslock_table *table = new_table();
    etslock_lock_table *lock_table = NULL;
    etslock_guard *guard = NULL;
    etslock_options options = options_of(ETSLOCK_INFINITE, ETSLOCK_INFINITE, ETSLOCK_INFINITE);
    struct waiter waiter;
    REQUIRE(etslock_lock_table_new(&lock_table) == ETSLOCK_OK);
    options.lock_table = lock_table;
    options.queue = queue;
    CHECK_STATUS(etslock_acquire(table, KEY, &options, &guard), ETSLOCK_OK);
    CHECK(etslock_guard_remaining_ms(guard) == ETSLOCK_INFINITE);
    waiter_start(&waiter, table, options);
    await_waiting(lock_table, 1);
    sleep_us(100000); /* a wait that ends too early would have ended */
    CHECK(sem_trywait(&waiter.answered) != 0);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    CHECK_STATUS(waiter_answer(&waiter), ETSLOCK_OK);
    waiter_end(&waiter);
    etslock_lock_table_free(lock_table);
    etslock_table_free(table);
}

/* --- C-3 --- */

/* The releaser is running and tries again at once; the waiter sleeps, and yet it is next. */
static void handed_over(int32_t queue, long waits_us)
{
    enum { ROUNDS = 10 };
    etslock_table *table = new_table();
    int i;
    for (i = 0; i < ROUNDS; i++) {
        struct waiter waiter;
        etslock_guard *guard = acquired(table, "k");
        etslock_options options = options_of(AMPLE_MS, AMPLE_MS, AMPLE_MS);
        options.queue = queue;
        waiter_start(&waiter, table, options);
        await_queue(NULL, table, "k", 1);
        sleep_us(waits_us);
        CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
        CHECK_STATUS(try_lock(table, "k"), ETSLOCK_WAIT_TIMEOUT);
        CHECK_STATUS(waiter_answer(&waiter), ETSLOCK_OK);
        waiter_end(&waiter);
    }
    etslock_table_free(table);
}

static void order_of_arrival(void)
{
    enum { LINE = 6 };
    etslock_table *table = new_table();
    etslock_guard *guard = acquired(table, "k");
    etslock_options options = options_of(AMPLE_MS, AMPLE_MS, AMPLE_MS);
    struct waiter line[LINE];
    uint64_t last = etslock_guard_token(guard);
    int i;
    options.queue = ETSLOCK_QUEUE_FIFO;
    for (i = 0; i < LINE; i++) {
        waiter_start(&line[i], table, options);
        await_queue(NULL, table, "k", (uint64_t)i + 1);
    }
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    for (i = 0; i < LINE; i++) {
        CHECK_STATUS(waiter_answer(&line[i]), ETSLOCK_OK);
        CHECK_STATUS(try_lock(table, "k"), ETSLOCK_WAIT_TIMEOUT);
        CHECK(line[i].token > last);
        last = line[i].token;
        waiter_end(&line[i]);
    }
    CHECK_STATUS(try_lock(table, "k"), ETSLOCK_OK);
    etslock_table_free(table);
}

/* Everybody gets a turn although one thread takes the key again and again. */
static int hog_stop;

static void *hog(void *user_data)
{
    etslock_options options = options_of(AMPLE_MS, AMPLE_MS, AMPLE_MS);
    while (!__atomic_load_n(&hog_stop, __ATOMIC_ACQUIRE)) {
        etslock_guard *guard = NULL;
        if (!CHECK_STATUS(etslock_acquire(user_data, KEY, &options, &guard), ETSLOCK_OK))
            break;
        sleep_us(1000);
        CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    }
    return NULL;
}

static void no_starvation(void)
{
    enum { ROUNDS = 20 };
    etslock_table *table = new_table();
    pthread_t thread;
    int i;
    __atomic_store_n(&hog_stop, 0, __ATOMIC_RELEASE);
    REQUIRE(pthread_create(&thread, NULL, hog, table) == 0);
    for (i = 0; i < ROUNDS; i++) {
        etslock_options options = options_of(SOON_MS, AMPLE_MS, AMPLE_MS);
        etslock_guard *guard = NULL;
        if (CHECK_STATUS(etslock_acquire(table, KEY, &options, &guard), ETSLOCK_OK))
            CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    }
    __atomic_store_n(&hog_stop, 1, __ATOMIC_RELEASE);
    pthread_join(thread, NULL);
    etslock_table_free(table);
}

/* A poller has no place in the queue: who stands in it is served first. */
static void polling(int32_t other_queue, int64_t spin_delay_ms)
{
    etslock_table *table = new_table();
    etslock_lock_table *lock_table = NULL;
    etslock_guard *guard = NULL;
    etslock_options options = options_of(AMPLE_MS, AMPLE_MS, AMPLE_MS);
    struct waiter poller, other;
    REQUIRE(etslock_lock_table_new(&lock_table) == ETSLOCK_OK);
    options.lock_table = lock_table;
    options.spin_delay_ms = spin_delay_ms;
    CHECK_STATUS(etslock_acquire(table, KEY, &options, &guard), ETSLOCK_OK);
    options.queue = ETSLOCK_QUEUE_POLLING;
    waiter_start(&poller, table, options);
    await_waiting(lock_table, 1);
    options.queue = other_queue;
    waiter_start(&other, table, options);
    await_waiting(lock_table, 2);
    sleep_us(1000L * WELL_PAST_HAND_OVER_MS);

    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    CHECK_STATUS(waiter_answer(&other), ETSLOCK_OK);
    CHECK(sem_trywait(&poller.answered) != 0);
    waiter_end(&other);
    CHECK_STATUS(waiter_answer(&poller), ETSLOCK_OK);
    CHECK(poller.token > other.token);
    waiter_end(&poller);
    etslock_lock_table_free(lock_table);
    etslock_table_free(table);
}

/* --- C-4 --- */

struct runaway {
    sem_t go, ended;
};

static int32_t run_away(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                        void *user_data)
{
    struct runaway *runaway = user_data;
    (void)guard;
    (void)tuples;
    (void)tuple_count;
    sem_wait(&runaway->go);
    return 0;
}

static void runaway_ended(void *user_data)
{
    struct runaway *runaway = user_data;
    sem_post(&runaway->ended);
}

static void call_returns_at_its_deadline(void)
{
    etslock_table *table = new_table();
    etslock_options options = options_of(0, 100, ETSLOCK_INFINITE);
    struct runaway runaway;
    int64_t began, took;
    sem_init(&runaway.go, 0, 0);
    sem_init(&runaway.ended, 0, 0);
    options.user_data_free = runaway_ended;
    began = now_ms();
    CHECK_STATUS(etslock_with_lock(table, KEY, run_away, &runaway, &options, NULL),
                 ETSLOCK_EXEC_TIMEOUT);
    took = now_ms() - began;
    CHECK(took >= 100 - SLACK_MS && took < SOON_MS);
    CHECK_STATUS(try_lock(table, "k"), ETSLOCK_OK);
    sem_post(&runaway.go);
    sem_wait(&runaway.ended);
    sem_destroy(&runaway.go);
    sem_destroy(&runaway.ended);
    etslock_table_free(table);
}

struct attempt {
    int number;
    long sleeps_us;
    int *ended;
};

static int32_t write_near_the_deadline(etslock_guard *guard, const etslock_tuple *tuples,
                                       size_t tuple_count, void *user_data)
{
    const struct attempt *attempt = user_data;
    (void)tuples;
    (void)tuple_count;
    sleep_us(attempt->sleeps_us);
    /* Refused when late; the call's status tells. */
    etslock_guard_insert(guard, KEY, &attempt->number, sizeof attempt->number);
    return 0;
}

static void attempt_free(void *user_data)
{
    struct attempt *attempt = user_data;
    __atomic_fetch_add(attempt->ended, 1, __ATOMIC_RELEASE);
    free(attempt);
}

static int written(etslock_table *table)
{
    etslock_tuples *tuples = NULL;
    size_t count = 0;
    int number = -1;
    REQUIRE(etslock_table_lookup(table, KEY, &tuples) == ETSLOCK_OK);
    memcpy(&number, etslock_tuples_data(tuples, &count)->value, sizeof number);
    etslock_tuples_free(tuples);
    return number;
}

/* OK with the write or a timeout without it, when the callback ends around its deadline. */
static void decided_once(int32_t run_on, int32_t on_exec_timeout)
{
    enum { ATTEMPTS = 150, EXEC_MS = 3 };
    etslock_table *table = new_table();
    etslock_options options = options_of(AMPLE_MS, EXEC_MS, ETSLOCK_INFINITE);
    int last = -1, ended = 0;
    int i;
    options.run_on = run_on;
    options.on_exec_timeout = on_exec_timeout;
    options.user_data_free = attempt_free;
    REQUIRE(etslock_table_insert(table, KEY, &last, sizeof last) == ETSLOCK_OK);
    for (i = 0; i < ATTEMPTS; i++) {
        struct attempt *attempt = malloc(sizeof *attempt);
        etslock_status status;
        REQUIRE(attempt != NULL);
        attempt->number = i;
        attempt->sleeps_us = 1000 * EXEC_MS - 600 + i * 37 % 20 * 40;
        attempt->ended = &ended;
        status = etslock_with_lock(table, KEY, write_near_the_deadline, attempt, &options, NULL);
        CHECK(status == ETSLOCK_OK || status == ETSLOCK_EXEC_TIMEOUT);
        if (status == ETSLOCK_OK)
            last = i;
        CHECK(written(table) == last);
    }
    WAIT_UNTIL(__atomic_load_n(&ended, __ATOMIC_ACQUIRE) == ATTEMPTS);
    CHECK(written(table) == last);
    etslock_table_free(table);
}

/* --- C-5 --- */

static void left_alone(void)
{
    etslock_table *table = new_table();
    etslock_options options;
    etslock_guard *guard = NULL;
    struct waiter waiter;
    int64_t began;

    CASE("C-5: a lock left alone is taken at its release time");
    options = options_of(0, 50, 100);
    began = now_ms();
    CHECK_STATUS(etslock_acquire(table, KEY, &options, &guard), ETSLOCK_OK);
    waiter_start(&waiter, table, options_of(AMPLE_MS, AMPLE_MS, AMPLE_MS));
    CHECK_STATUS(waiter_answer(&waiter), ETSLOCK_OK);
    CHECK(now_ms() - began >= 150 - SLACK_MS && now_ms() - began < SOON_MS);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_REVOKED);
    CHECK_STATUS(try_lock(table, "k"), ETSLOCK_WAIT_TIMEOUT);
    waiter_end(&waiter);

    CASE("C-5: an attempt after the release time takes it too");
    options = options_of(0, 10, 10);
    CHECK_STATUS(etslock_acquire(table, KEY, &options, &guard), ETSLOCK_OK);
    sleep_us(1000L * (20 + SLACK_MS));
    CHECK_STATUS(try_lock(table, "k"), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_REVOKED);

    CASE("C-5: never, with an infinite exec timeout");
    options = options_of(0, ETSLOCK_INFINITE, 0);
    CHECK_STATUS(etslock_acquire(table, KEY, &options, &guard), ETSLOCK_OK);
    waiter_start(&waiter, table, options_of(200, AMPLE_MS, AMPLE_MS));
    CHECK_STATUS(waiter_answer(&waiter), ETSLOCK_WAIT_TIMEOUT);
    waiter_end(&waiter);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);

    CASE("C-5: never, with an infinite fail timeout");
    options = options_of(0, 10, ETSLOCK_INFINITE);
    CHECK_STATUS(etslock_acquire(table, KEY, &options, &guard), ETSLOCK_OK);
    waiter_start(&waiter, table, options_of(200, AMPLE_MS, AMPLE_MS));
    CHECK_STATUS(waiter_answer(&waiter), ETSLOCK_WAIT_TIMEOUT);
    waiter_end(&waiter);
    CHECK_STATUS(etslock_guard_status(guard), ETSLOCK_EXEC_TIMEOUT);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_EXEC_TIMEOUT);
    CHECK_STATUS(try_lock(table, "k"), ETSLOCK_OK);
    etslock_table_free(table);
}

struct cancelled {
    etslock_table *table;
    etslock_options options;
    sem_t entered, go;
    int in_time; /* the callback came to its end, and the call returned OK */
};

static int32_t enter_and_go(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                            void *user_data)
{
    struct cancelled *cancelled = user_data;
    (void)tuples;
    (void)tuple_count;
    sem_post(&cancelled->entered);
    sem_wait(&cancelled->go);
    return etslock_guard_insert(guard, KEY, "written", 7) == ETSLOCK_OK ? 0 : 1;
}

static void *call_until_cancelled(void *user_data)
{
    struct cancelled *cancelled = user_data;
    cancelled->in_time = etslock_with_lock(cancelled->table, KEY, enter_and_go, cancelled,
                                           &cancelled->options, NULL) == ETSLOCK_OK;
    pthread_testcancel();
    return NULL;
}

/* Cancelled while it waits for the lock, and while the callback runs. */
static void cancelled_callers(int32_t run_on, int while_waiting)
{
    struct cancelled cancelled;
    etslock_guard *guard = NULL;
    pthread_t thread;
    void *end = NULL;
    memset(&cancelled, 0, sizeof cancelled);
    cancelled.table = new_table();
    cancelled.options = options_of(AMPLE_MS, AMPLE_MS, AMPLE_MS);
    cancelled.options.run_on = run_on;
    sem_init(&cancelled.entered, 0, 0);
    sem_init(&cancelled.go, 0, 0);
    if (while_waiting)
        guard = acquired(cancelled.table, "k");
    REQUIRE(pthread_create(&thread, NULL, call_until_cancelled, &cancelled) == 0);
    if (while_waiting) {
        await_queue(NULL, cancelled.table, "k", 1);
        REQUIRE(pthread_cancel(thread) == 0);
        sleep_us(50000); /* a wait cut short would have left the queue */
        CHECK(queue_length(NULL, cancelled.table, "k") == 1);
        CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
        sem_wait(&cancelled.entered);
    } else {
        sem_wait(&cancelled.entered);
        REQUIRE(pthread_cancel(thread) == 0);
    }
    CHECK_STATUS(try_lock(cancelled.table, "k"), ETSLOCK_WAIT_TIMEOUT);
    sem_post(&cancelled.go);
    REQUIRE(pthread_join(thread, &end) == 0);
    CHECK(end == PTHREAD_CANCELED);
    CHECK(cancelled.in_time);
    CHECK_STATUS(etslock_table_member(cancelled.table, KEY), ETSLOCK_OK);
    CHECK_STATUS(try_lock(cancelled.table, "k"), ETSLOCK_OK);
    sem_destroy(&cancelled.entered);
    sem_destroy(&cancelled.go);
    etslock_table_free(cancelled.table);
}

/* --- C-13 --- */

static etslock_status want(etslock_table *table, const char *key, int64_t wait_ms, int32_t queue)
{
    etslock_options options = options_of(wait_ms, AMPLE_MS, AMPLE_MS);
    etslock_guard *guard = NULL;
    int64_t began = now_ms();
    etslock_status status;
    options.queue = queue;
    status = etslock_acquire(table, key, strlen(key), &options, &guard);
    if (status == ETSLOCK_OK)
        etslock_guard_cancel(guard);
    if (status == ETSLOCK_DEADLOCK)
        CHECK(now_ms() - began < SOON_MS);
    return status;
}

/* `key` can never be had: every way of waiting says so at once, and not waiting says so too. */
static void check_deadlock(etslock_table *table, const char *key)
{
    size_t i;
    for (i = 0; i < 3; i++) {
        CHECK_STATUS(want(table, key, AMPLE_MS, queues[i]), ETSLOCK_DEADLOCK);
        CHECK_STATUS(want(table, key, ETSLOCK_INFINITE, queues[i]), ETSLOCK_DEADLOCK);
        CHECK_STATUS(want(table, key, 0, queues[i]), ETSLOCK_WAIT_TIMEOUT);
    }
}

static int32_t want_own_key(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                            void *user_data)
{
    size_t i;
    (void)tuples;
    (void)tuple_count;
    check_deadlock(user_data, "k");
    for (i = 0; i < 2; i++) {
        etslock_options options = options_of(AMPLE_MS, AMPLE_MS, AMPLE_MS);
        options.run_on = run_ons[i];
        CHECK_STATUS(etslock_with_lock(user_data, KEY, must_not_run, NULL, &options, NULL),
                     ETSLOCK_DEADLOCK);
    }
    CHECK_STATUS(etslock_guard_status(guard), ETSLOCK_OK);
    return 0;
}

struct nesting {
    etslock_table *table;
    int32_t run_on;
    int depth;
};

/* "0" inside "k", "1" inside "0" ...; the innermost wants all of them. */
static int32_t nest(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                    void *user_data)
{
    enum { DEEP = 4 };
    struct nesting *nesting = user_data;
    char key[2] = {0, 0};
    (void)tuples;
    (void)tuple_count;
    if (nesting->depth == DEEP) {
        check_deadlock(nesting->table, "k");
        check_deadlock(nesting->table, "0");
        check_deadlock(nesting->table, "3");
    } else {
        etslock_options options = options_of(AMPLE_MS, AMPLE_MS, AMPLE_MS);
        options.run_on = nesting->run_on;
        key[0] = (char)('0' + nesting->depth++);
        CHECK_STATUS(etslock_with_lock(nesting->table, key, 1, nest, nesting, &options, NULL),
                     ETSLOCK_OK);
    }
    CHECK_STATUS(etslock_guard_status(guard), ETSLOCK_OK);
    return 0;
}

static int32_t want_callers_key(etslock_guard *guard, const etslock_tuple *tuples,
                                size_t tuple_count, void *user_data)
{
    (void)guard;
    (void)tuples;
    (void)tuple_count;
    check_deadlock(user_data, "callers");
    return 0;
}

static void self_re_entry(void)
{
    etslock_table *table = new_table();
    etslock_options options = options_of(AMPLE_MS, AMPLE_MS, AMPLE_MS);
    etslock_guard *guard;
    size_t i;

    CASE("C-13: a thread wants a key twice");
    guard = acquired(table, "k");
    check_deadlock(table, "k");
    CHECK_STATUS(etslock_with_lock(table, KEY, must_not_run, NULL, &options, NULL),
                 ETSLOCK_DEADLOCK);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    CHECK_STATUS(want(table, "k", AMPLE_MS, ETSLOCK_QUEUE_FAIR), ETSLOCK_OK);

    for (i = 0; i < 2; i++) {
        struct nesting nesting;
        options.run_on = run_ons[i];

        CASE("C-13: a callback wants its own key");
        CHECK_STATUS(etslock_with_lock(table, KEY, want_own_key, table, &options, NULL),
                     ETSLOCK_OK);

        CASE("C-13: a nested callback wants an outer callback's key");
        nesting.table = table;
        nesting.run_on = run_ons[i];
        nesting.depth = 0;
        CHECK_STATUS(etslock_with_lock(table, KEY, nest, &nesting, &options, NULL), ETSLOCK_OK);

        CASE("C-13: a callback wants a key of the caller that waits for it");
        guard = acquired(table, "callers");
        CHECK_STATUS(etslock_with_lock(table, KEY, want_callers_key, table, &options, NULL),
                     ETSLOCK_OK);
        CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    }

    CASE("C-13: a revoked guard leaves the graph at once");
    guard = acquired(table, "k");
    CHECK_STATUS(etslock_lock_table_force_release(NULL, table, KEY), ETSLOCK_OK);
    CHECK_STATUS(want(table, "k", AMPLE_MS, ETSLOCK_QUEUE_FAIR), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_REVOKED);
    etslock_table_free(table);
}

static void owners(void)
{
    etslock_table *table = new_table();
    etslock_options options = options_of(AMPLE_MS, AMPLE_MS, AMPLE_MS);
    etslock_guard *guard = NULL, *second = NULL;
    struct waiter waiter;

    CASE("C-13: one logical owner on two threads");
    options.owner = 7;
    CHECK_STATUS(etslock_acquire(table, KEY, &options, &guard), ETSLOCK_OK);
    waiter_start(&waiter, table, options);
    CHECK_STATUS(waiter_answer(&waiter), ETSLOCK_DEADLOCK);
    waiter_end(&waiter);

    CASE("C-13: two logical owners on one thread");
    options.owner = 8;
    options.wait_timeout_ms = 50;
    CHECK_STATUS(etslock_acquire(table, KEY, &options, &second), ETSLOCK_WAIT_TIMEOUT);
    CHECK_STATUS(want(table, "k", 50, ETSLOCK_QUEUE_FAIR), ETSLOCK_WAIT_TIMEOUT);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);

    CASE("C-13: no owner, no deadlock");
    options.owner = ETSLOCK_OWNER_NONE;
    CHECK_STATUS(etslock_acquire(table, KEY, &options, &guard), ETSLOCK_OK);
    CHECK_STATUS(etslock_acquire(table, KEY, &options, &second), ETSLOCK_WAIT_TIMEOUT);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    etslock_table_free(table);
}

/* Holds `has`, and wants KEY of `table`, which closes or does not close a cycle. */
struct link {
    etslock_table *table;
    const char *has, *wants;
    etslock_status answer;
    sem_t holds, go;
    pthread_t thread;
};

static void *hold_and_want(void *user_data)
{
    struct link *link = user_data;
    etslock_guard *guard = acquired(link->table, link->has);
    sem_post(&link->holds);
    sem_wait(&link->go);
    link->answer = want(link->table, link->wants, ETSLOCK_INFINITE, ETSLOCK_QUEUE_FAIR);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    return NULL;
}

/* Everybody waits for the next one; the last to ask would close the cycle. */
static void cycle(int length)
{
    enum { LONGEST = 3 };
    static const char *const names[LONGEST] = {"a", "b", "c"};
    struct link links[LONGEST];
    etslock_table *table = new_table();
    int i;
    for (i = 0; i < length; i++) {
        links[i].table = table;
        links[i].has = names[i];
        links[i].wants = names[(i + 1) % length];
        links[i].answer = -1;
        sem_init(&links[i].holds, 0, 0);
        sem_init(&links[i].go, 0, 0);
        REQUIRE(pthread_create(&links[i].thread, NULL, hold_and_want, &links[i]) == 0);
        sem_wait(&links[i].holds);
    }
    for (i = 0; i < length; i++) {
        if (i == length - 1)
            await_waiting(NULL, (uint64_t)length - 1);
        sem_post(&links[i].go);
    }
    for (i = 0; i < length; i++) {
        pthread_join(links[i].thread, NULL);
        CHECK_STATUS(links[i].answer, i == length - 1 ? ETSLOCK_DEADLOCK : ETSLOCK_OK);
        sem_destroy(&links[i].holds);
        sem_destroy(&links[i].go);
    }
    etslock_table_free(table);
}

struct deserted {
    etslock_table *table;
    etslock_status answer;
    sem_t go, ended;
};

static int32_t want_callers_key_later(etslock_guard *guard, const etslock_tuple *tuples,
                                      size_t tuple_count, void *user_data)
{
    struct deserted *deserted = user_data;
    (void)tuples;
    (void)tuple_count;
    CHECK_STATUS(etslock_lock_table_force_release(NULL, deserted->table, "other", 5), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_status(guard), ETSLOCK_REVOKED);
    sem_wait(&deserted->go);
    deserted->answer = want(deserted->table, "k", ETSLOCK_INFINITE, ETSLOCK_QUEUE_FAIR);
    return 0;
}

static void deserted_ended(void *user_data)
{
    struct deserted *deserted = user_data;
    sem_post(&deserted->ended);
}

/* A caller that has given up waits for nobody, so its callback may wait for it. */
static void abandoned_callback_waits(void)
{
    struct deserted deserted;
    etslock_options options = options_of(AMPLE_MS, AMPLE_MS, AMPLE_MS);
    etslock_guard *guard;
    deserted.table = new_table();
    deserted.answer = -1;
    sem_init(&deserted.go, 0, 0);
    sem_init(&deserted.ended, 0, 0);
    options.user_data_free = deserted_ended;
    guard = acquired(deserted.table, "k");
    CHECK_STATUS(etslock_with_lock(deserted.table, "other", 5, want_callers_key_later, &deserted,
                                   &options, NULL),
                 ETSLOCK_REVOKED);
    sem_post(&deserted.go);
    await_queue(NULL, deserted.table, "k", 1);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    sem_wait(&deserted.ended);
    CHECK_STATUS(deserted.answer, ETSLOCK_OK);
    sem_destroy(&deserted.go);
    sem_destroy(&deserted.ended);
    etslock_table_free(deserted.table);
}

/* --- C-14 --- */

struct caller {
    etslock_table *table;
    etslock_options options;
    sem_t freed;
    etslock_status answer;
    pthread_t thread;
};

static void post(void *user_data)
{
    sem_post(user_data);
}

static void *call_never_runs(void *user_data)
{
    struct caller *caller = user_data;
    caller->answer = etslock_with_lock(caller->table, KEY, must_not_run, &caller->freed,
                                       &caller->options, NULL);
    return NULL;
}

static void closed_table(void)
{
    enum { VIA_SECOND = 3 };
    static const char name[] = "waiting.c: closed";
    etslock_table *first = new_table_named(name);
    etslock_table *second = NULL;
    etslock_lock_table *lock_table = NULL;
    etslock_guard *guard = NULL;
    etslock_options options = options_of(ETSLOCK_INFINITE, AMPLE_MS, AMPLE_MS);
    struct waiter through_second[VIA_SECOND], through_first;
    struct caller caller;
    int i;
    REQUIRE(etslock_table_open(name, &second) == ETSLOCK_OK);
    REQUIRE(etslock_lock_table_new(&lock_table) == ETSLOCK_OK);
    options.lock_table = lock_table;
    CHECK_STATUS(etslock_acquire(second, KEY, &options, &guard), ETSLOCK_OK);
    for (i = 0; i < VIA_SECOND; i++) {
        options.queue = queues[i];
        waiter_start(&through_second[i], second, options);
    }
    options.queue = ETSLOCK_QUEUE_FAIR;
    waiter_start(&through_first, first, options);
    caller.table = second;
    caller.options = options;
    caller.options.user_data_free = post;
    caller.answer = -1;
    sem_init(&caller.freed, 0, 0);
    REQUIRE(pthread_create(&caller.thread, NULL, call_never_runs, &caller) == 0);
    await_waiting(lock_table, VIA_SECOND + 2);

    etslock_table_free(second);
    for (i = 0; i < VIA_SECOND; i++) {
        CHECK_STATUS(waiter_answer(&through_second[i]), ETSLOCK_CLOSED);
        waiter_end(&through_second[i]);
    }
    pthread_join(caller.thread, NULL);
    CHECK_STATUS(caller.answer, ETSLOCK_CLOSED);
    CHECK(sem_trywait(&caller.freed) == 0); /* C-12: before the call returned */
    sem_destroy(&caller.freed);

    /* The other handle's waiter stays, and so does the guard taken through the closed one. */
    await_waiting(lock_table, 1);
    CHECK_STATUS(etslock_guard_insert(guard, KEY, "value", 5), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    CHECK_STATUS(waiter_answer(&through_first), ETSLOCK_OK);
    CHECK_STATUS(etslock_table_member(first, KEY), ETSLOCK_OK);
    waiter_end(&through_first);
    etslock_lock_table_free(lock_table);
    etslock_table_free(first);
}

static void closed_lock_table(void)
{
    enum { WAITERS = 3 };
    etslock_table *table = new_table();
    etslock_lock_table *lock_table = NULL;
    etslock_guard *guard = NULL;
    etslock_options options = options_of(ETSLOCK_INFINITE, AMPLE_MS, AMPLE_MS);
    struct waiter waiters[WAITERS];
    int i;
    REQUIRE(etslock_lock_table_new(&lock_table) == ETSLOCK_OK);
    options.lock_table = lock_table;
    CHECK_STATUS(etslock_acquire(table, KEY, &options, &guard), ETSLOCK_OK);
    for (i = 0; i < WAITERS; i++) {
        options.queue = queues[i];
        waiter_start(&waiters[i], table, options);
    }
    await_waiting(lock_table, WAITERS);
    etslock_lock_table_free(lock_table);
    for (i = 0; i < WAITERS; i++) {
        CHECK_STATUS(waiter_answer(&waiters[i]), ETSLOCK_CLOSED);
        waiter_end(&waiters[i]);
    }
    CHECK_STATUS(etslock_guard_status(guard), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_insert(guard, KEY, "value", 5), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    CHECK_STATUS(etslock_table_member(table, KEY), ETSLOCK_OK);
    etslock_table_free(table);
}

static int32_t close_own_table(etslock_guard *guard, const etslock_tuple *tuples,
                               size_t tuple_count, void *user_data)
{
    (void)tuples;
    (void)tuple_count;
    etslock_table_free(user_data);
    return etslock_guard_insert(guard, KEY, "value", 5) == ETSLOCK_OK ? 0 : 1;
}

static void callbacks_live_on(int32_t run_on)
{
    static const char name[] = "waiting.c: closed by its callback";
    etslock_table *first = new_table_named(name);
    etslock_table *second = NULL;
    etslock_options options = options_of(AMPLE_MS, AMPLE_MS, AMPLE_MS);
    options.run_on = run_on;
    REQUIRE(etslock_table_open(name, &second) == ETSLOCK_OK);
    CHECK_STATUS(etslock_with_lock(second, KEY, close_own_table, second, &options, NULL),
                 ETSLOCK_OK);
    CHECK_STATUS(etslock_table_member(first, KEY), ETSLOCK_OK);
    etslock_table_free(first);
}

int main(void)
{
    size_t i;
    CASE("C-1: different keys never block each other");
    RUN(many_keys());
    CASE("C-1: two handles to one table are one table");
    RUN(one_table_two_handles());
    for (i = 0; i < 3; i++) {
        CASE("C-2: wait timeouts");
        RUN(wait_timeouts(queues[i]));
        CASE("C-2: infinite timeouts");
        RUN(infinite_wait(queues[i]));
    }
    CASE("C-3: FAIR hands over to a head that has waited");
    RUN(handed_over(ETSLOCK_QUEUE_FAIR, 1000L * WELL_PAST_HAND_OVER_MS));
    RUN(no_starvation());
    CASE("C-3: FIFO hands over at every release");
    RUN(handed_over(ETSLOCK_QUEUE_FIFO, 0));
    CASE("C-3: FIFO is the order of arrival");
    RUN(order_of_arrival());
    CASE("C-3: a poller gets the lock only when it is free");
    RUN(polling(ETSLOCK_QUEUE_FIFO, 2));
    RUN(polling(ETSLOCK_QUEUE_FIFO, 0));
    RUN(polling(ETSLOCK_QUEUE_FAIR, 2));
    CASE("C-4: a worker call returns at its exec deadline");
    RUN(call_returns_at_its_deadline());
    CASE("C-4: in time with its writes, or late without them");
    RUN(decided_once(ETSLOCK_RUN_ON_WORKER, ETSLOCK_ABANDON));
    RUN(decided_once(ETSLOCK_RUN_ON_WORKER, ETSLOCK_JOIN));
    RUN(decided_once(ETSLOCK_RUN_ON_CALLER, ETSLOCK_ABANDON));
    RUN(left_alone());
    CASE("C-5: a cancelled caller leaves no lock behind");
    for (i = 0; i < 2; i++) {
        RUN(cancelled_callers(run_ons[i], 1));
        RUN(cancelled_callers(run_ons[i], 0));
    }
    RUN(self_re_entry());
    RUN(owners());
    CASE("C-13: a cycle of two, and of three");
    RUN(cycle(2));
    RUN(cycle(3));
    CASE("C-13: an abandoned callback may wait for its former caller");
    RUN(abandoned_callback_waits());
    CASE("C-14: waiters through a freed handle");
    RUN(closed_table());
    CASE("C-14: waiters of a freed lock table");
    RUN(closed_lock_table());
    CASE("C-14: callbacks outlive the handle they came through");
    RUN(callbacks_live_on(ETSLOCK_RUN_ON_WORKER));
    RUN(callbacks_live_on(ETSLOCK_RUN_ON_CALLER));
    return check_report();
}
