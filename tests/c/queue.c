/* queue.c - in which order waiters get a lock. Checks C-3, and what C-2 and C-14 say about
 * waiters that leave the queue early.
 *
 * Waiters are lined up one at a time: the next one starts when etslock_lock_table_locks shows
 * the one before in the queue.
 */
#include "check.h"
#include "locks.h"

#include <pthread.h>
#include <semaphore.h>
#include <unistd.h>

enum { MOST_WAITERS = 8 };

static etslock_options patient_in(int32_t queue)
{
    etslock_options options = patient(NULL);
    options.queue = queue;
    return options;
}

static etslock_status try_lock_in(int32_t queue, etslock_table *table)
{
    return try_lock_with(patient_in(queue), table, "k");
}

/* A line of threads that wait for the key "k", and the order in which they got it. */
struct line;

struct waiter {
    pthread_t thread;
    struct line *line;
    etslock_table *table;
    etslock_options options;
    int number;
    int use_callback; /* etslock_with_lock in place of etslock_acquire */
    etslock_status status;
    int64_t took_ms;
};

struct line {
    etslock_table *table;
    etslock_guard *held; /* what all of them wait for */
    struct waiter waiters[MOST_WAITERS];
    int started;
    int order[MOST_WAITERS]; /* written under the lock of "k" */
    int granted;
    sem_t *may_leave; /* NULL, or what each holder waits for before it gives the key on */
    sem_t *got_it;    /* NULL, or posted by each holder */
};

static void take_turn(struct waiter *waiter)
{
    struct line *line = waiter->line;
    line->order[line->granted++] = waiter->number;
    if (line->got_it != NULL)
        sem_post(line->got_it);
    if (line->may_leave != NULL)
        sem_wait(line->may_leave);
}

static int32_t take_turn_inside(etslock_guard *guard, const etslock_tuple *tuples,
                                size_t tuple_count, void *user_data)
{
    (void)guard, (void)tuples, (void)tuple_count;
    take_turn(user_data);
    return 0;
}

static void *wait_in_line(void *argument)
{
    struct waiter *waiter = argument;
    int64_t begin = now_ms();
    if (waiter->use_callback) {
        waiter->status = etslock_with_lock(waiter->table, "k", 1, take_turn_inside, waiter,
                                           &waiter->options, NULL);
    } else {
        etslock_guard *guard = NULL;
        waiter->status = etslock_acquire(waiter->table, "k", 1, &waiter->options, &guard);
        if (waiter->status == ETSLOCK_OK) {
            take_turn(waiter);
            CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
        }
    }
    waiter->took_ms = now_ms() - begin;
    return NULL;
}

static void begin_line(struct line *line, etslock_table *table)
{
    etslock_options options = patient_in(ETSLOCK_QUEUE_FAIR);
    memset(line, 0, sizeof *line);
    line->table = table;
    REQUIRE(etslock_acquire(table, "k", 1, &options, &line->held) == ETSLOCK_OK);
}

/* Starts a waiter without waiting for it to be in the queue. */
static struct waiter *start_waiter(struct line *line, int32_t queue, int64_t wait_timeout_ms,
                                   etslock_table *table)
{
    struct waiter *waiter = &line->waiters[line->started];
    waiter->line = line;
    waiter->number = line->started++;
    waiter->table = table;
    waiter->use_callback = waiter->number % 2;
    waiter->options = patient_in(queue);
    waiter->options.wait_timeout_ms = wait_timeout_ms;
    REQUIRE(pthread_create(&waiter->thread, NULL, wait_in_line, waiter) == 0);
    return waiter;
}

static struct waiter *enqueue(struct line *line, int32_t queue)
{
    uint64_t before = queue_length(NULL, line->table, "k");
    struct waiter *waiter = start_waiter(line, queue, ETSLOCK_INFINITE, line->table);
    await_queue(NULL, line->table, "k", before + 1);
    return waiter;
}

static void join_waiter(struct waiter *waiter, etslock_status wanted)
{
    REQUIRE(pthread_join(waiter->thread, NULL) == 0);
    CHECK_STATUS(waiter->status, wanted);
}

static void check_order(const struct line *line, const int *wanted, int count)
{
    int i;
    CHECK(line->granted == count);
    for (i = 0; i < count; i++)
        CHECK(line->order[i] == wanted[i]);
}

static void fifo_is_strict(etslock_table *table)
{
    static const int wanted[] = {0, 1, 2, 3, 4, 5, 6, 7};
    struct line line;
    int round;
    int i;

    CASE("C-3: FIFO waiters get the lock in order of arrival");
    for (round = 0; round < 3; round++) {
        begin_line(&line, table);
        for (i = 0; i < MOST_WAITERS; i++)
            enqueue(&line, ETSLOCK_QUEUE_FIFO);
        CHECK(stats_of(NULL).waiting == MOST_WAITERS);
        CHECK_STATUS(etslock_guard_release(line.held), ETSLOCK_OK);
        for (i = 0; i < MOST_WAITERS; i++)
            join_waiter(&line.waiters[i], ETSLOCK_OK);
        check_order(&line, wanted, MOST_WAITERS);
        CHECK(stats_of(NULL).waiting == 0);
    }
}

static void nobody_passes_a_fifo_waiter(etslock_table *table)
{
    static const int wanted[] = {0, 1, 2};
    struct line line;
    sem_t may_leave;
    sem_t got_it;
    int i;

    CASE("C-3: while a FIFO waiter is queued every release hands over; nobody gets in between");
    REQUIRE(sem_init(&may_leave, 0, 0) == 0 && sem_init(&got_it, 0, 0) == 0);
    begin_line(&line, table);
    line.may_leave = &may_leave;
    line.got_it = &got_it;
    for (i = 0; i < 3; i++)
        enqueue(&line, ETSLOCK_QUEUE_FIFO);
    CHECK_STATUS(etslock_guard_release(line.held), ETSLOCK_OK);
    for (i = 0; i < 3; i++) {
        /* The head may still be asleep: the lock is its own all the same. */
        CHECK_STATUS(try_lock_in(ETSLOCK_QUEUE_FAIR, table), ETSLOCK_WAIT_TIMEOUT);
        CHECK_STATUS(try_lock_in(ETSLOCK_QUEUE_POLLING, table), ETSLOCK_WAIT_TIMEOUT);
        CHECK_STATUS(try_lock_in(ETSLOCK_QUEUE_FIFO, table), ETSLOCK_WAIT_TIMEOUT);
        REQUIRE(sem_wait(&got_it) == 0);
        CHECK(queue_length(NULL, table, "k") == (uint64_t)(2 - i));
        sem_post(&may_leave);
    }
    for (i = 0; i < 3; i++)
        join_waiter(&line.waiters[i], ETSLOCK_OK);
    check_order(&line, wanted, 3);
    sem_destroy(&may_leave);
    sem_destroy(&got_it);
}

static void leaving_in_the_middle(const char *name)
{
    static const int wanted[] = {0, 2, 4, 6, 7};
    etslock_table *table = NULL;
    etslock_table *second_handle = NULL;
    struct line line;
    int i;

    REQUIRE(etslock_table_open(name, &table) == ETSLOCK_OK);
    REQUIRE(etslock_table_open(name, &second_handle) == ETSLOCK_OK);
    begin_line(&line, table);
    enqueue(&line, ETSLOCK_QUEUE_FIFO);
    /* Long enough for the others to line up behind it. */
    start_waiter(&line, ETSLOCK_QUEUE_FIFO, 1500, table);
    await_queue(NULL, table, "k", 2);
    enqueue(&line, ETSLOCK_QUEUE_FIFO);
    start_waiter(&line, ETSLOCK_QUEUE_FIFO, ETSLOCK_INFINITE, second_handle);
    await_queue(NULL, table, "k", 4);
    enqueue(&line, ETSLOCK_QUEUE_FIFO);
    start_waiter(&line, ETSLOCK_QUEUE_FIFO, ETSLOCK_INFINITE, second_handle);
    await_queue(NULL, table, "k", 6);
    enqueue(&line, ETSLOCK_QUEUE_FIFO);

    CASE("C-14: waiters through a freed handle leave the queue, wherever they stand");
    etslock_table_free(second_handle);
    join_waiter(&line.waiters[3], ETSLOCK_CLOSED);
    join_waiter(&line.waiters[5], ETSLOCK_CLOSED);

    CASE("C-2: so do waiters whose time is over, and they get no lock afterwards");
    join_waiter(&line.waiters[1], ETSLOCK_WAIT_TIMEOUT);
    CHECK(line.waiters[1].took_ms >= 1498);
    CHECK(queue_length(NULL, table, "k") == 4);

    CASE("C-3: the others keep their order, and newcomers stand behind them");
    enqueue(&line, ETSLOCK_QUEUE_FIFO);
    CHECK(queue_length(NULL, table, "k") == 5);
    CHECK_STATUS(etslock_guard_release(line.held), ETSLOCK_OK);
    for (i = 0; i < 8; i++)
        if (i != 1 && i != 3 && i != 5)
            join_waiter(&line.waiters[i], ETSLOCK_OK);
    check_order(&line, wanted, 5);
    etslock_table_free(table);
}

static void mixed_fifo_and_fair(etslock_table *table)
{
    static const int wanted[] = {0, 1, 2, 3, 4};
    struct line line;
    int i;

    CASE("C-3: fair and FIFO waiters in one queue: in order, as long as a FIFO waiter is queued");
    begin_line(&line, table);
    enqueue(&line, ETSLOCK_QUEUE_FAIR);
    enqueue(&line, ETSLOCK_QUEUE_FIFO);
    enqueue(&line, ETSLOCK_QUEUE_FAIR);
    enqueue(&line, ETSLOCK_QUEUE_FAIR);
    enqueue(&line, ETSLOCK_QUEUE_FIFO);
    CHECK_STATUS(etslock_guard_release(line.held), ETSLOCK_OK);
    for (i = 0; i < 5; i++)
        join_waiter(&line.waiters[i], ETSLOCK_OK);
    check_order(&line, wanted, 5);

    CASE("C-3: a fair waiter behind the last FIFO waiter gets its turn too");
    begin_line(&line, table);
    enqueue(&line, ETSLOCK_QUEUE_FIFO);
    enqueue(&line, ETSLOCK_QUEUE_FAIR);
    CHECK_STATUS(etslock_guard_release(line.held), ETSLOCK_OK);
    join_waiter(&line.waiters[0], ETSLOCK_OK);
    join_waiter(&line.waiters[1], ETSLOCK_OK);
    check_order(&line, wanted, 2);
}

static void a_force_release_hands_over(etslock_table *table)
{
    static const int wanted[] = {0, 1, 2};
    struct line line;
    int i;

    CASE("C-3: a forced release hands over to the head as well");
    begin_line(&line, table);
    for (i = 0; i < 3; i++)
        enqueue(&line, ETSLOCK_QUEUE_FIFO);
    CHECK_STATUS(etslock_lock_table_force_release(NULL, table, "k", 1), ETSLOCK_OK);
    for (i = 0; i < 3; i++)
        join_waiter(&line.waiters[i], ETSLOCK_OK);
    check_order(&line, wanted, 3);
    CHECK_STATUS(etslock_guard_release(line.held), ETSLOCK_REVOKED);
}

static void fair_waiters_all_get_it(etslock_table *table)
{
    struct line line;
    int seen = 0;
    int i;

    CASE("C-3: every fair waiter gets the lock");
    begin_line(&line, table);
    for (i = 0; i < MOST_WAITERS; i++)
        enqueue(&line, ETSLOCK_QUEUE_FAIR);
    CHECK_STATUS(etslock_guard_release(line.held), ETSLOCK_OK);
    for (i = 0; i < MOST_WAITERS; i++)
        join_waiter(&line.waiters[i], ETSLOCK_OK);
    CHECK(line.granted == MOST_WAITERS);
    for (i = 0; i < line.granted; i++)
        seen |= 1 << line.order[i];
    CHECK(seen == (1 << MOST_WAITERS) - 1);
}

/* A thread that takes and gives back the lock as fast as it can. */
struct hog {
    pthread_t thread;
    etslock_table *table;
    int stop;
};

static void *hog_the_lock(void *argument)
{
    struct hog *hog = argument;
    etslock_options options = patient_in(ETSLOCK_QUEUE_FAIR);
    while (!__atomic_load_n(&hog->stop, __ATOMIC_RELAXED)) {
        etslock_guard *guard = NULL;
        CHECK_STATUS(etslock_acquire(hog->table, "k", 1, &options, &guard), ETSLOCK_OK);
        CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    }
    return NULL;
}

static void a_hog_starves_nobody(etslock_table *table)
{
    struct hog hog;
    int queue;
    int i;

    CASE("C-3: a thread that takes the lock again and again starves no queued waiter");
    memset(&hog, 0, sizeof hog);
    hog.table = table;
    REQUIRE(pthread_create(&hog.thread, NULL, hog_the_lock, &hog) == 0);
    for (queue = ETSLOCK_QUEUE_FAIR; queue <= ETSLOCK_QUEUE_FIFO; queue++) {
        etslock_options options = patient_in(queue);
        /* Thousands of times the 2 ms after which the release hands over. */
        options.wait_timeout_ms = 10000;
        for (i = 0; i < 20; i++) {
            etslock_guard *guard = NULL;
            CHECK_STATUS(etslock_acquire(table, "k", 1, &options, &guard), ETSLOCK_OK);
            sleep_ms(1);
            CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
        }
    }
    __atomic_store_n(&hog.stop, 1, __ATOMIC_RELAXED);
    REQUIRE(pthread_join(hog.thread, NULL) == 0);
}

static void polling(etslock_table *table)
{
    static const int64_t spin_delays[] = {0, 1, 20};
    struct line line;
    size_t i;

    for (i = 0; i < 3; i++) {
        struct waiter *waiter;
        etslock_options options = patient_in(ETSLOCK_QUEUE_POLLING);
        etslock_guard *guard = NULL;
        int64_t begin;

        CASE("C-3: a polling waiter has no place in the queue, and gets the lock when it is free");
        options.spin_delay_ms = spin_delays[i];
        begin_line(&line, table);
        waiter = &line.waiters[line.started++];
        waiter->line = &line;
        waiter->table = table;
        waiter->options = options;
        REQUIRE(pthread_create(&waiter->thread, NULL, wait_in_line, waiter) == 0);
        await_waiting(NULL, 1);
        CHECK(queue_length(NULL, table, "k") == 0);
        CHECK_STATUS(etslock_guard_release(line.held), ETSLOCK_OK);
        join_waiter(waiter, ETSLOCK_OK);
        CHECK(line.granted == 1);

        CASE("C-3: a free lock needs no wait");
        options.wait_timeout_ms = 0;
        CHECK_STATUS(etslock_acquire(table, "k", 1, &options, &guard), ETSLOCK_OK);
        CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);

        CASE("C-2: a polling waiter's timeout");
        begin_line(&line, table);
        options.wait_timeout_ms = 50;
        options.owner = ETSLOCK_OWNER_NONE; /* this thread holds the key itself */
        begin = now_ms();
        CHECK_STATUS(etslock_acquire(table, "k", 1, &options, &guard), ETSLOCK_WAIT_TIMEOUT);
        CHECK(now_ms() - begin >= 48);
        CHECK_STATUS(etslock_guard_release(line.held), ETSLOCK_OK);
    }
}

static void a_queued_waiter_before_a_polling_one(etslock_table *table)
{
    struct line line;
    struct waiter *poller;
    sem_t may_leave;
    sem_t got_it;

    CASE("C-3: a polling waiter does not get in before a FIFO waiter");
    REQUIRE(sem_init(&may_leave, 0, 0) == 0 && sem_init(&got_it, 0, 0) == 0);
    begin_line(&line, table);
    line.may_leave = &may_leave;
    line.got_it = &got_it;
    poller = start_waiter(&line, ETSLOCK_QUEUE_POLLING, ETSLOCK_INFINITE, table);
    await_waiting(NULL, 1);
    enqueue(&line, ETSLOCK_QUEUE_FIFO);
    CHECK(queue_length(NULL, table, "k") == 1);
    CHECK_STATUS(etslock_guard_release(line.held), ETSLOCK_OK);
    REQUIRE(sem_wait(&got_it) == 0);
    CHECK(line.order[0] == 1);
    sem_post(&may_leave);
    sem_post(&may_leave);
    join_waiter(&line.waiters[1], ETSLOCK_OK);
    join_waiter(poller, ETSLOCK_OK);
    CHECK(line.granted == 2 && line.order[1] == 0);
    sem_destroy(&may_leave);
    sem_destroy(&got_it);
}

int main(void)
{
    etslock_table_options options;
    etslock_table *table = NULL;
    alarm(120); /* a hang is a failure */
    etslock_table_options_init(&options, sizeof options);
    options.name = "queue";
    REQUIRE(etslock_table_new(&options, &table) == ETSLOCK_OK);
    RUN(fifo_is_strict(table));
    RUN(nobody_passes_a_fifo_waiter(table));
    RUN(leaving_in_the_middle("queue"));
    RUN(mixed_fifo_and_fair(table));
    RUN(a_force_release_hands_over(table));
    RUN(fair_waiters_all_get_it(table));
    RUN(a_hog_starves_nobody(table));
    RUN(polling(table));
    RUN(a_queued_waiter_before_a_polling_one(table));
    etslock_table_free(table);
    return check_report();
}
