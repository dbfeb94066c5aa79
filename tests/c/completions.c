/* completions.c - waiting for locks without a thread. Checks C-19, and of what it shares with blocked
 * threads C-2, C-3, C-5, C-13, C-14, C-16 and C-18.
 */
#define _POSIX_C_SOURCE 200809L

#include "check.h"
#include "locks.h"
#include "pending.h"
#include "processes.h"
#include "threads.h"

#include <dirent.h>
#include <errno.h>
#include <malloc.h>
#include <sys/epoll.h>
#include <sys/select.h>

/* MOST_BYTES: what a pending acquire takes, all in all; it should be 400. */
enum { MANY = 10000, MOST_BYTES = 600 };

static int many(void)
{
    return is_small_scale() ? 500 : MANY;
}

/* --- one at a time --- */

static void got_at_once(void)
{
    etslock_table *table = new_table();
    etslock_completions *queue = new_completions();
    int descriptor = descriptor_of(queue);
    etslock_guard *guard = NULL;
    uint64_t ticket = 77;
    CASE("C-19: a free lock is got at once, and no completion follows");
    CHECK_STATUS(etslock_acquire_begin(table, "k", 1, NULL, queue, NULL, &ticket, &guard),
                 ETSLOCK_OK);
    REQUIRE(guard != NULL);
    CHECK(ticket == 77);
    CHECK(is_locked(NULL, table, "k"));
    CHECK_STATUS(etslock_guard_insert(guard, "k", 1, "v", 1), ETSLOCK_OK);
    release(guard);
    CHECK(has_value(table, "k", "v"));
    CHECK(is_empty(queue) && !is_readable(descriptor));

    CASE("C-2: wait_timeout_ms 0 is a try-lock");
    guard = hold(table, "k");
    {
        etslock_options options = options_of(0, 1000, 1000);
        etslock_guard *none = guard;
        CHECK_STATUS(
            etslock_acquire_begin(table, "k", 1, &options, queue, NULL, &ticket, &none),
            ETSLOCK_WAIT_TIMEOUT);
        CHECK(none == NULL && ticket == 77);
    }
    CHECK(is_empty(queue) && queue_length(NULL, table, "k") == 0);
    release(guard);
    etslock_completions_free(queue);
    etslock_table_free(table);
}

static void granted_later(void)
{
    etslock_table *table = new_table();
    etslock_completions *queue = new_completions();
    int descriptor = descriptor_of(queue);
    etslock_guard *holder = hold(table, "k"), *guard;
    etslock_completion completion;
    uint64_t token = etslock_guard_token(holder), ticket, contended = stats_of(NULL).contended;
    CASE("C-19: a lock that is held is waited for without a thread");
    CHECK(descriptor == etslock_completions_fd(queue));
    ticket = begin(queue, table, "k", 42);
    CHECK(queue_length(NULL, table, "k") == 1);
    CHECK(stats_of(NULL).waiting == 1 && stats_of(NULL).contended == contended + 1);
    CHECK(!is_readable(descriptor) && is_empty(queue) && !is_readable(descriptor));
    CHECK_STATUS(etslock_guard_insert(holder, "k", 1, "first", 5), ETSLOCK_OK);
    release(holder);
    CHECK(is_readable(descriptor));
    completion = fetch(queue);
    CHECK(completion.ticket == ticket && number_of(&completion) == 42);
    CHECK_STATUS(completion.status, ETSLOCK_OK);
    REQUIRE((guard = completion.guard) != NULL);
    CHECK(!is_readable(descriptor) && is_empty(queue));
    CHECK(has_value(table, "k", "first"));
    CHECK(etslock_guard_token(guard) > token);
    CHECK_STATUS(try_lock(table, "k"), ETSLOCK_WAIT_TIMEOUT);
    CHECK_STATUS(etslock_guard_insert(guard, "k", 1, "second", 6), ETSLOCK_OK);
    release(guard);
    CHECK(has_value(table, "k", "second"));
    CHECK_STATUS(try_lock(table, "k"), ETSLOCK_OK);
    CHECK(stats_of(NULL).waiting == 0);

    CASE("C-19: what was fetched once is not fetched again, and its ticket is no more");
    CHECK(is_empty(queue));
    CHECK_STATUS(etslock_completions_withdraw(queue, ticket), ETSLOCK_NOT_FOUND);
    etslock_completions_free(queue);
    etslock_table_free(table);
}

static void withdrawn(void)
{
    etslock_table *table = new_table();
    etslock_completions *queue = new_completions(), *other = new_completions();
    int descriptor = descriptor_of(queue);
    etslock_guard *holder = hold(table, "k"), *guard;
    uint64_t ticket, second;
    CASE("C-19: withdrawn, it ends with STOPPED and leaves no trace");
    ticket = begin(queue, table, "k", 1);
    CHECK_STATUS(etslock_completions_withdraw(other, ticket), ETSLOCK_NOT_FOUND);
    CHECK_STATUS(etslock_completions_withdraw(queue, 0), ETSLOCK_NOT_FOUND);
    CHECK_STATUS(etslock_completions_withdraw(queue, ticket + 1), ETSLOCK_NOT_FOUND);
    CHECK_STATUS(etslock_completions_withdraw(queue, ticket), ETSLOCK_OK);
    CHECK(queue_length(NULL, table, "k") == 0 && stats_of(NULL).waiting == 0);
    CHECK(is_readable(descriptor));
    CHECK_STATUS(etslock_completions_withdraw(queue, ticket), ETSLOCK_NOT_FOUND);
    CHECK(fetch_as(queue, ticket, ETSLOCK_STOPPED) == NULL);
    CHECK(!is_readable(descriptor));
    CHECK_STATUS(etslock_completions_withdraw(queue, ticket), ETSLOCK_NOT_FOUND);
    release(holder);
    CHECK_STATUS(try_lock(table, "k"), ETSLOCK_OK);

    CASE("C-19: granted first, it is not withdrawn any more");
    holder = hold(table, "k");
    ticket = begin_with(strict(), queue, table, "k", 1);
    second = begin_with(strict(), queue, table, "k", 2);
    release(holder); /* handed over */
    CHECK_STATUS(etslock_completions_withdraw(queue, ticket), ETSLOCK_NOT_FOUND);
    CHECK_STATUS(etslock_completions_withdraw(queue, second), ETSLOCK_OK);
    guard = fetch_as(queue, ticket, ETSLOCK_OK);
    CHECK(fetch_as(queue, second, ETSLOCK_STOPPED) == NULL);
    REQUIRE(guard != NULL);
    release(guard);

    CASE("C-19: woken to take it and withdrawn, it leaves nothing to see to");
    holder = hold(table, "k");
    ticket = begin(queue, table, "k", 1);
    release(holder);
    CHECK(is_readable(descriptor));
    if (etslock_completions_withdraw(queue, ticket) == ETSLOCK_OK)
        CHECK(fetch_as(queue, ticket, ETSLOCK_STOPPED) == NULL);
    else /* it was head for long enough to be handed it */
        release(fetch_as(queue, ticket, ETSLOCK_OK));
    CHECK(!is_readable(descriptor));
    CHECK_STATUS(try_lock(table, "k"), ETSLOCK_OK);

    CASE("C-19: a ticket of another queue, or the same key's of another table");
    {
        etslock_table *apart = new_table();
        etslock_guard *here = hold(table, "k"), *there = hold(apart, "k");
        uint64_t a = begin(queue, table, "k", 1), b = begin(other, apart, "k", 2);
        CHECK(a != b);
        CHECK_STATUS(etslock_completions_withdraw(queue, b), ETSLOCK_NOT_FOUND);
        release(there);
        CHECK(is_empty(queue));
        release(fetch_as(other, b, ETSLOCK_OK));
        release(here);
        release(fetch_as(queue, a, ETSLOCK_OK));
        etslock_table_free(apart);
    }
    etslock_completions_free(other);
    etslock_completions_free(queue);
    etslock_table_free(table);
}

/* --- deadlines --- */

static void timed_out(void)
{
    etslock_table *table = new_table();
    etslock_completions *queue = new_completions();
    int descriptor = descriptor_of(queue);
    etslock_guard *holder = hold(table, "k");
    uint64_t ticket, timeouts = stats_of(NULL).wait_timeouts;
    int64_t begun = now_us();
    CASE("C-2, C-19: the descriptor is readable in time for a wait deadline");
    ticket = begin_with(options_of(50, 1000, 1000), queue, table, "k", 1);
    CHECK(!is_readable(descriptor) && is_empty(queue));
    REQUIRE(readable_within(HANGS_MS, descriptor));
    CHECK(now_us() - begun >= 50000);
    CHECK(fetch_as(queue, ticket, ETSLOCK_WAIT_TIMEOUT) == NULL);
    CHECK(!is_readable(descriptor));
    CHECK(stats_of(NULL).wait_timeouts == timeouts + 1);
    CHECK(queue_length(NULL, table, "k") == 0);

    CASE("C-19: a thread that fetches sees to it too");
    begun = now_us();
    ticket = begin_with(options_of(50, 1000, 1000), queue, table, "k", 1);
    CHECK(fetch_as(queue, ticket, ETSLOCK_WAIT_TIMEOUT) == NULL);
    CHECK(now_us() - begun >= 50000);

    CASE("C-2: whose turn comes after its deadline is passed over, though nobody has seen to it");
    ticket = begin_with(options_of(20, 1000, 1000), queue, table, "k", 1);
    sleep_ms(40);
    release(holder);
    CHECK_STATUS(try_lock(table, "k"), ETSLOCK_OK);
    CHECK(fetch_as(queue, ticket, ETSLOCK_WAIT_TIMEOUT) == NULL);

    CASE("C-19: a deadline that is gone makes nothing readable");
    holder = hold(table, "k");
    ticket = begin_with(options_of(30, 1000, 1000), queue, table, "k", 1);
    CHECK_STATUS(etslock_completions_withdraw(queue, ticket), ETSLOCK_OK);
    CHECK(fetch_as(queue, ticket, ETSLOCK_STOPPED) == NULL);
    CHECK(!readable_within(100, descriptor));
    release(holder);
    etslock_completions_free(queue);
    etslock_table_free(table);
}

static void deadlines_that_differ(void)
{
    enum { TASKS = 200 };
    etslock_table *table = new_table();
    etslock_completions *queue = new_completions();
    int descriptor = descriptor_of(queue), last = -1, ended = 0;
    etslock_guard *holder = hold(table, "k");
    int64_t earliest[TASKS], latest[TASKS]; /* between which the deadline is */
    int i;
    CASE("C-19: deadlines that differ, the last to come first");
    for (i = 0; i < TASKS; i++) {
        int wait_ms = 100 + 2 * (TASKS - i);
        earliest[i] = now_us() + 1000 * wait_ms;
        begin_with(options_of(wait_ms, 1000, 1000), queue, table, "k", (uintptr_t)i);
        latest[i] = now_us() + 1000 * wait_ms;
    }
    while (ended < TASKS) {
        etslock_completion done[16];
        size_t count = 0, at;
        REQUIRE(readable_within(HANGS_MS, descriptor));
        if (etslock_completions_wait(queue, done, COUNT_OF(done), 0, &count) != ETSLOCK_OK)
            continue;
        for (at = 0; at < count; at++) {
            int number = (int)number_of(&done[at]);
            CHECK_STATUS(done[at].status, ETSLOCK_WAIT_TIMEOUT);
            CHECK(now_us() >= earliest[number]);
            CHECK(last < 0 || latest[number] >= earliest[last]);
            last = number;
            ended++;
        }
    }
    CHECK(!is_readable(descriptor) && queue_length(NULL, table, "k") == 0);
    release(holder);
    etslock_completions_free(queue);
    etslock_table_free(table);
}

static void an_overdue_holder(void)
{
    etslock_table *table = new_table();
    etslock_completions *queue = new_completions();
    int descriptor = descriptor_of(queue);
    etslock_guard *vanished, *guard;
    uint64_t ticket;
    int64_t begun = now_us();
    CASE("C-5: a pending acquire deletes a lock at its release time");
    vanished = hold_with(options_of(1000, 30, 30), table, "k");
    ticket = begin(queue, table, "k", 1);
    REQUIRE(readable_within(HANGS_MS, descriptor));
    guard = fetch_as(queue, ticket, ETSLOCK_OK);
    CHECK(now_us() - begun >= 60000);
    REQUIRE(guard != NULL);
    CHECK_STATUS(etslock_guard_status(vanished), ETSLOCK_REVOKED);
    CHECK_STATUS(etslock_guard_release(vanished), ETSLOCK_REVOKED);
    release(guard);

    CASE("C-5: also the second in line, whose holder is itself overdue");
    vanished = hold_with(options_of(1000, 20, 20), table, "k");
    begin_with(options_of(HANGS_MS, 20, 20), queue, table, "k", 1);
    ticket = begin(queue, table, "k", 2);
    {
        etslock_completion first = fetch(queue);
        REQUIRE(first.guard != NULL);
        guard = fetch_as(queue, ticket, ETSLOCK_OK);
        CHECK_STATUS(etslock_guard_release(first.guard), ETSLOCK_REVOKED);
    }
    CHECK_STATUS(etslock_guard_release(vanished), ETSLOCK_REVOKED);
    release(guard);

    CASE("C-19: the exec deadline counts from the grant, not from the fetch");
    guard = hold(table, "k");
    {
        etslock_options options = options_of(HANGS_MS, 20, 5000);
        options.queue = ETSLOCK_QUEUE_FIFO;
        ticket = begin_with(options, queue, table, "k", 1);
    }
    release(guard);
    sleep_ms(40);
    guard = fetch_as(queue, ticket, ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_status(guard), ETSLOCK_EXEC_TIMEOUT);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_EXEC_TIMEOUT);
    CHECK_STATUS(try_lock(table, "k"), ETSLOCK_OK);
    etslock_completions_free(queue);
    etslock_table_free(table);
}

/* --- order --- */

struct blocked {
    pthread_t thread;
    etslock_table *table;
    etslock_options options;
    etslock_status status;
    int place; /* in the order of all */
    int *next; /* written under the lock */
    int64_t took_us;
};

static void *block(void *argument)
{
    struct blocked *blocked = argument;
    etslock_guard *guard = NULL;
    int64_t begun = now_us();
    blocked->status = etslock_acquire(blocked->table, "k", 1, &blocked->options, &guard);
    blocked->took_us = now_us() - begun;
    if (blocked->status == ETSLOCK_OK) {
        if (blocked->next != NULL)
            CHECK((*blocked->next)++ == blocked->place);
        CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    }
    return NULL;
}

static void start(struct blocked *blocked)
{
    uint64_t before = queue_length(NULL, blocked->table, "k");
    REQUIRE(pthread_create(&blocked->thread, NULL, block, blocked) == 0);
    await_queue(NULL, blocked->table, "k", before + 1);
}

/* Four blocked threads among a thousand that are pending: strictly in the order of arrival. */
static void exact_order(void)
{
    enum { PENDING = 1000, THREADS = 4, ALL = PENDING + THREADS };
    static const int places[THREADS] = {0, 300, 701, ALL - 1};
    etslock_table *table = new_table();
    etslock_completions *queue = new_completions();
    etslock_guard *holder = hold(table, "k");
    struct blocked blocked[THREADS];
    int place, thread = 0, next = 0;
    CASE("C-3, C-19: the order of arrival, whoever waits");
    for (place = 0; place < ALL; place++) {
        if (thread < THREADS && place == places[thread]) {
            blocked[thread].table = table;
            blocked[thread].options = strict();
            blocked[thread].place = place;
            blocked[thread].next = &next;
            start(&blocked[thread++]);
        } else {
            begin_with(strict(), queue, table, "k", (uintptr_t)place);
        }
    }
    CHECK(queue_length(NULL, table, "k") == ALL);
    release(holder);
    for (place = 0; place < PENDING; place++) {
        etslock_completion completion = fetch(queue);
        REQUIRE(completion.guard != NULL);
        CHECK(next == (int)number_of(&completion));
        next++;
        release(completion.guard);
    }
    for (thread = 0; thread < THREADS; thread++) {
        REQUIRE(pthread_join(blocked[thread].thread, NULL) == 0);
        CHECK_STATUS(blocked[thread].status, ETSLOCK_OK);
    }
    CHECK(next == ALL && is_empty(queue));
    etslock_completions_free(queue);
    etslock_table_free(table);
}

struct hammer {
    etslock_table *table;
    int over;
    uint64_t rounds;
};

static void *hammer(void *argument)
{
    struct hammer *hammer = argument;
    while (!__atomic_load_n(&hammer->over, __ATOMIC_RELAXED)) {
        release(hold(hammer->table, "k"));
        __atomic_fetch_add(&hammer->rounds, 1, __ATOMIC_RELAXED);
    }
    return NULL;
}

/* Threads that take the lock all the time do not keep it from those that are pending. */
static void fair_liveness(void)
{
    enum { THREADS = 3, PENDING = 50 };
    etslock_table *table = new_table();
    etslock_completions *queue = new_completions();
    struct hammer hammers[THREADS];
    pthread_t threads[THREADS];
    int i;
    CASE("C-3: nobody is starved, pending or blocked");
    for (i = 0; i < THREADS; i++) {
        hammers[i].table = table;
        hammers[i].over = 0;
        hammers[i].rounds = 0;
        REQUIRE(pthread_create(&threads[i], NULL, hammer, &hammers[i]) == 0);
        WAIT_UNTIL(__atomic_load_n(&hammers[i].rounds, __ATOMIC_RELAXED) > 0);
    }
    for (i = 0; i < PENDING; i++) {
        etslock_guard *guard = NULL;
        uint64_t ticket;
        etslock_status status =
            etslock_acquire_begin(table, "k", 1, NULL, queue, NULL, &ticket, &guard);
        if (status == ETSLOCK_PENDING)
            guard = fetch(queue).guard;
        REQUIRE(guard != NULL);
        release(guard);
    }
    for (i = 0; i < THREADS; i++)
        __atomic_store_n(&hammers[i].over, 1, __ATOMIC_RELAXED);
    for (i = 0; i < THREADS; i++) {
        REQUIRE(pthread_join(threads[i], NULL) == 0);
    }
    etslock_completions_free(queue);
    etslock_table_free(table);
}

/* As long as a hang. */
static etslock_options in_time(int32_t queue)
{
    etslock_options options = options_of(HANGS_MS, ETSLOCK_INFINITE, ETSLOCK_INFINITE);
    options.queue = queue;
    return options;
}

/* An event loop that is busy, or hangs, is in front of blocked threads. */
static void a_loop_that_does_not_fetch(void)
{
    etslock_table *table = new_table();
    etslock_completions *queue = new_completions();
    etslock_guard *holder = hold(table, "k");
    struct blocked blocked;
    int i, free_for_all = 0;
    memset(&blocked, 0, sizeof blocked);
    blocked.table = table;
    blocked.options = in_time(ETSLOCK_QUEUE_FAIR);
    CASE("C-3: a free lock is not kept for a loop that is busy");
    for (i = 0; i < 50 && free_for_all == 0; i++) {
        uint64_t first = begin(queue, table, "k", 0);
        begin(queue, table, "k", 0);
        start(&blocked);
        /* Whose head has come just now is woken, and not handed the lock. */
        CHECK_STATUS(etslock_completions_withdraw(queue, first), ETSLOCK_OK);
        release(holder);
        free_for_all += !is_locked(NULL, table, "k") || queue_length(NULL, table, "k") == 1;
        if (free_for_all == 0) { /* handed over, for the clock went on */
            CHECK_STATUS(fetch(queue).status, ETSLOCK_STOPPED);
            release(fetch(queue).guard);
        }
        REQUIRE(pthread_join(blocked.thread, NULL) == 0);
        CHECK_STATUS(blocked.status, ETSLOCK_OK);
        CHECK(blocked.took_us < HANGS_MS * 1000 / 2);
        holder = free_for_all ? NULL : hold(table, "k");
    }
    CHECK(free_for_all > 0);
    etslock_completions_free(queue);

    CASE("C-3: nor for one that is pending in the order of arrival elsewhere");
    queue = new_completions();
    {
        etslock_completions *other = new_completions();
        uint64_t ticket;
        holder = hold(table, "k");
        begin_with(options_of(ETSLOCK_INFINITE, 20, 20), queue, table, "k", 0);
        release(holder); /* free, and its head hangs */
        ticket = begin_with(in_time(ETSLOCK_QUEUE_FIFO), other, table, "k", 0);
        release(fetch_as(other, ticket, ETSLOCK_OK));
        etslock_completions_free(other);
    }
    etslock_completions_free(queue);

    CASE("C-5: locks that are handed to a loop that hangs are deleted at their release time");
    queue = new_completions();
    holder = hold(table, "k");
    for (i = 0; i < 3; i++) {
        etslock_options options = options_of(ETSLOCK_INFINITE, 20, 20);
        options.queue = ETSLOCK_QUEUE_FIFO;
        begin_with(options, queue, table, "k", 0);
    }
    blocked.options = in_time(ETSLOCK_QUEUE_FIFO);
    start(&blocked);
    release(holder);
    REQUIRE(pthread_join(blocked.thread, NULL) == 0);
    CHECK_STATUS(blocked.status, ETSLOCK_OK);
    CHECK(blocked.took_us >= 3 * 40000);
    for (i = 0; i < 3; i++) {
        etslock_completion completion = fetch(queue);
        REQUIRE(completion.guard != NULL);
        CHECK_STATUS(etslock_guard_release(completion.guard), ETSLOCK_REVOKED);
    }
    etslock_completions_free(queue);

    CASE("C-5: also where the holder before it vanished");
    queue = new_completions();
    holder = hold_with(options_of(1000, 30, 30), table, "k");
    for (i = 0; i < 3; i++)
        begin_with(options_of(ETSLOCK_INFINITE, 20, 20), queue, table, "k", 0);
    blocked.options = in_time(ETSLOCK_QUEUE_FAIR);
    start(&blocked);
    REQUIRE(pthread_join(blocked.thread, NULL) == 0);
    CHECK_STATUS(blocked.status, ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_release(holder), ETSLOCK_REVOKED);
    etslock_completions_free(queue);

    CASE("C-2: those of a loop that hangs whose wait is over do not get the lock");
    queue = new_completions();
    holder = hold(table, "k");
    for (i = 0; i < 100; i++)
        begin_with(options_of(10, ETSLOCK_INFINITE, ETSLOCK_INFINITE), queue, table, "k", 0);
    sleep_ms(20);
    blocked.options = in_time(ETSLOCK_QUEUE_FIFO);
    start(&blocked);
    release(holder);
    REQUIRE(pthread_join(blocked.thread, NULL) == 0);
    CHECK_STATUS(blocked.status, ETSLOCK_OK);
    for (i = 0; i < 100; i++)
        CHECK_STATUS(fetch(queue).status, ETSLOCK_WAIT_TIMEOUT);
    etslock_completions_free(queue);
    CHECK_STATUS(try_lock(table, "k"), ETSLOCK_OK);
    etslock_table_free(table);
}

/* --- several keys --- */

static const etslock_key three[] = {{"a", 1}, {"b", 1}, {"c", 1}};

static uint64_t begin_three(etslock_options options, etslock_completions *queue,
                            etslock_table *table)
{
    etslock_guard *guard = NULL;
    uint64_t ticket = 0;
    REQUIRE(etslock_acquire_locks_begin(table, three, 3, &options, queue, NULL, &ticket, &guard) ==
            ETSLOCK_PENDING);
    return ticket;
}

static void several_keys(void)
{
    static const etslock_key twice[] = {{"a", 1}, {"b", 1}, {"a", 1}, {"b", 1}};
    etslock_table *table = new_table();
    etslock_completions *queue = new_completions();
    etslock_guard *held[3], *guard = NULL;
    uint64_t ticket = 0;
    int i;
    CASE("C-18: several keys that are free are got at once, duplicates once");
    CHECK_STATUS(
        etslock_acquire_locks_begin(table, twice, 4, NULL, queue, NULL, &ticket, &guard),
        ETSLOCK_OK);
    CHECK(count_locks(NULL, table) == 2);
    release(guard);

    CASE("C-18: several keys, each of them held by another");
    for (i = 0; i < 3; i++)
        held[i] = hold(table, three[i].key);
    ticket = begin_three(patient(NULL), queue, table);
    for (i = 0; i < 3; i++) {
        CHECK(is_empty(queue));
        release(held[i]);
    }
    guard = fetch_as(queue, ticket, ETSLOCK_OK);
    REQUIRE(guard != NULL);
    for (i = 0; i < 3; i++) {
        CHECK_STATUS(try_lock(table, three[i].key), ETSLOCK_WAIT_TIMEOUT);
        CHECK_STATUS(etslock_guard_insert(guard, three[i].key, 1, "v", 1), ETSLOCK_OK);
    }
    CHECK_STATUS(etslock_guard_insert(guard, "d", 1, "v", 1), ETSLOCK_ERR_NOT_COVERED);
    release(guard);
    CHECK(has_value(table, "b", "v") && count_locks(NULL, table) == 0);

    for (i = 0; i < 3; i++) {
        CASE("C-18: at a timeout nothing stays locked");
        held[i] = hold(table, three[i].key);
        ticket = begin_three(options_of(30, 1000, 1000), queue, table);
        CHECK(fetch_as(queue, ticket, ETSLOCK_WAIT_TIMEOUT) == NULL);
        CHECK(count_locks(NULL, table) == 1);

        CASE("C-19: withdrawn, nothing stays locked");
        ticket = begin_three(patient(NULL), queue, table);
        CHECK_STATUS(etslock_completions_withdraw(queue, ticket), ETSLOCK_OK);
        CHECK(count_locks(NULL, table) == 1);
        CHECK(fetch_as(queue, ticket, ETSLOCK_STOPPED) == NULL);

        CASE("C-14: closed, nothing stays locked");
        {
            etslock_completions *closed = new_completions();
            begin_three(patient(NULL), closed, table);
            etslock_completions_free(closed);
            CHECK(count_locks(NULL, table) == 1 && stats_of(NULL).waiting == 0);
        }

        CASE("C-18: a lock that is taken away while the rest is waited for");
        ticket = begin_three(patient(NULL), queue, table);
        {
            int j, revoked = 0;
            for (j = 0; j < 3; j++)
                if (j != i && is_locked(NULL, table, three[j].key))
                    revoked += etslock_lock_table_force_release(NULL, table, three[j].key, 1) ==
                               ETSLOCK_OK;
            if (revoked > 0) {
                CHECK(fetch_as(queue, ticket, ETSLOCK_REVOKED) == NULL);
                release(held[i]);
            } else { /* it waits for its first key */
                CHECK(is_empty(queue));
                release(held[i]);
                release(fetch_as(queue, ticket, ETSLOCK_OK));
            }
        }
        CHECK(count_locks(NULL, table) == 0 && is_empty(queue));
    }
    etslock_completions_free(queue);
    etslock_table_free(table);
}

/* --- deadlocks --- */

static void deadlocks(void)
{
    etslock_table *table = new_table();
    etslock_completions *queue = new_completions();
    etslock_options first = patient(NULL), second = patient(NULL);
    etslock_guard *a, *b, *guard = NULL;
    uint64_t ticket = 0, deadlocks = stats_of(NULL).deadlocks;
    first.owner = 1;
    second.owner = 2;
    CASE("C-13: the owner holds the key itself");
    a = hold_with(first, table, "a");
    CHECK_STATUS(etslock_acquire_begin(table, "a", 1, &first, queue, NULL, &ticket, &guard),
                 ETSLOCK_DEADLOCK);
    CHECK(guard == NULL && ticket == 0 && is_empty(queue));
    CHECK(queue_length(NULL, table, "a") == 0);

    CASE("C-13: a cycle of two that are pending");
    b = hold_with(second, table, "b");
    ticket = begin_with(first, queue, table, "b", 1);
    {
        uint64_t none = 0;
        CHECK_STATUS(etslock_acquire_begin(table, "a", 1, &second, queue, NULL, &none, &guard),
                     ETSLOCK_DEADLOCK);
    }
    CHECK(stats_of(NULL).deadlocks == deadlocks + 2);
    release(b);
    release(fetch_as(queue, ticket, ETSLOCK_OK));
    release(a);

    CASE("C-19: owner 0 takes no part");
    a = hold(table, "a"); /* by this thread */
    ticket = begin(queue, table, "a", 1);
    release(a);
    a = fetch_as(queue, ticket, ETSLOCK_OK);
    ticket = begin(queue, table, "a", 2);
    release(a);
    release(fetch_as(queue, ticket, ETSLOCK_OK));

    CASE("C-13: a cycle that is closed by a later key");
    {
        static const etslock_key two[] = {{"a", 1}, {"b", 1}};
        etslock_options others[2] = {patient(NULL), patient(NULL)};
        etslock_guard *held[2], *none = NULL;
        uint64_t other;
        int at;
        others[0].owner = 3;
        others[1].owner = 4;
        a = hold_with(first, table, "x");
        held[0] = hold_with(others[0], table, "a");
        held[1] = hold_with(others[1], table, "b");
        REQUIRE(etslock_acquire_locks_begin(table, two, 2, &first, queue, NULL, &ticket, &none) ==
                ETSLOCK_PENDING);
        at = queue_length(NULL, table, "a") == 1 ? 0 : 1; /* the key that it waits for first */
        other = begin_with(others[1 - at], queue, table, "x", 2);
        release(held[at]);
        CHECK(fetch_as(queue, ticket, ETSLOCK_DEADLOCK) == NULL);
        CHECK(count_locks(NULL, table) == 2);
        release(a);
        release(fetch_as(queue, other, ETSLOCK_OK));
        release(held[1 - at]);
    }
    CHECK(count_locks(NULL, table) == 0 && is_empty(queue));
    etslock_completions_free(queue);
    etslock_table_free(table);
}

/* --- closing --- */

static void *wait_until_closed(void *argument)
{
    etslock_completion completion;
    size_t count = 99;
    CHECK_STATUS(etslock_completions_wait(argument, &completion, 1, ETSLOCK_INFINITE, &count),
                 ETSLOCK_CLOSED);
    CHECK(count == 99);
    return NULL;
}

static void freed(void)
{
    etslock_table *table = new_table();
    etslock_completions *queue = new_completions();
    etslock_guard *holder = hold(table, "k"), *other;
    pthread_t waiters[2];
    struct blocked blocked;
    int i;
    memset(&blocked, 0, sizeof blocked);
    blocked.table = table;
    blocked.options = patient(NULL);
    CASE("C-19: a queue that is freed ends what is pending, and those who wait in it");
    for (i = 0; i < 100; i++)
        begin_with(i % 2 == 0 ? strict() : patient(NULL), queue, table, "k", 0);
    for (i = 0; i < 2; i++)
        REQUIRE(pthread_create(&waiters[i], NULL, wait_until_closed, queue) == 0);
    start(&blocked);
    CHECK(queue_length(NULL, table, "k") == 101);
    sleep_ms(20); /* let them sleep; nothing depends on it */
    etslock_completions_free(queue);
    CHECK(queue_length(NULL, table, "k") == 1);
    for (i = 0; i < 2; i++)
        REQUIRE(pthread_join(waiters[i], NULL) == 0);
    release(holder);
    REQUIRE(pthread_join(blocked.thread, NULL) == 0);
    CHECK_STATUS(blocked.status, ETSLOCK_OK);

    CASE("C-19: a guard that was granted and not fetched is cancelled");
    queue = new_completions();
    holder = hold(table, "k");
    other = hold(table, "l");
    for (i = 0; i < 10; i++) {
        begin_with(strict(), queue, table, "k", 0);
        begin(queue, table, "l", 0);
    }
    release(holder); /* handed over, and not seen */
    release(other);
    {
        etslock_completion fetched = fetch(queue); /* sees both, and gives one */
        etslock_completions_free(queue);
        CHECK(count_locks(NULL, table) == 1);
        release(fetched.guard);
    }
    CHECK_STATUS(try_lock(table, "k"), ETSLOCK_OK);
    CHECK_STATUS(try_lock(table, "l"), ETSLOCK_OK);
    CHECK(stats_of(NULL).waiting == 0);

    CASE("C-19: so is one that is a completion already");
    queue = new_completions();
    holder = hold(table, "k");
    {
        uint64_t ticket = begin_with(strict(), queue, table, "k", 0);
        release(holder); /* handed over */
        CHECK_STATUS(etslock_completions_withdraw(queue, ticket), ETSLOCK_NOT_FOUND);
        CHECK_STATUS(try_lock(table, "k"), ETSLOCK_WAIT_TIMEOUT);
        etslock_completions_free(queue);
        CHECK_STATUS(try_lock(table, "k"), ETSLOCK_OK);
    }

    CASE("C-14: the handle is freed, or the lock table");
    queue = new_completions();
    {
        etslock_lock_table *lock_table = new_lock_table();
        etslock_options options = patient(lock_table);
        etslock_guard *a = hold(table, "a"), *b = hold_with(options, table, "b");
        uint64_t first = begin_with(options, queue, table, "b", 0), second;
        etslock_lock_table_free(lock_table);
        CHECK(fetch_as(queue, first, ETSLOCK_CLOSED) == NULL);
        second = begin(queue, table, "a", 0);
        etslock_table_free(table);
        CHECK(fetch_as(queue, second, ETSLOCK_CLOSED) == NULL);
        release(a);
        release(b);
    }
    CHECK(is_empty(queue));
    etslock_completions_free(queue);
    etslock_completions_free(NULL);
}

static void force_released(void)
{
    etslock_table *table = new_table();
    etslock_completions *queue = new_completions();
    etslock_guard *holder = hold(table, "k"), *guard;
    uint64_t first, second;
    CASE("C-8: a lock taken away by force goes on to what is pending");
    first = begin_with(strict(), queue, table, "k", 1);
    second = begin_with(strict(), queue, table, "k", 2);
    CHECK_STATUS(etslock_lock_table_force_release(NULL, table, "k", 1), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_release(holder), ETSLOCK_REVOKED);

    CASE("C-8: also when it was granted and not fetched");
    CHECK_STATUS(etslock_lock_table_force_release(NULL, table, "k", 1), ETSLOCK_OK);
    guard = fetch_as(queue, first, ETSLOCK_OK);
    REQUIRE(guard != NULL);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_REVOKED);
    release(fetch_as(queue, second, ETSLOCK_OK));
    CHECK_STATUS(etslock_lock_table_force_release(NULL, table, "k", 1), ETSLOCK_NOT_FOUND);
    etslock_completions_free(queue);
    etslock_table_free(table);
}

/* --- descriptors --- */

static int select_within(int timeout_ms, int descriptor)
{
    struct timeval time;
    fd_set wanted;
    FD_ZERO(&wanted);
    FD_SET(descriptor, &wanted);
    time.tv_sec = timeout_ms / 1000;
    time.tv_usec = timeout_ms % 1000 * 1000;
    return select(descriptor + 1, &wanted, NULL, NULL, &time) == 1 &&
           FD_ISSET(descriptor, &wanted);
}

static int new_epoll(int descriptor)
{
    struct epoll_event wanted;
    int outer = epoll_create1(EPOLL_CLOEXEC);
    REQUIRE(outer >= 0);
    memset(&wanted, 0, sizeof wanted);
    wanted.events = EPOLLIN;
    REQUIRE(epoll_ctl(outer, EPOLL_CTL_ADD, descriptor, &wanted) == 0);
    return outer;
}

static int epoll_within(int timeout_ms, int outer)
{
    struct epoll_event event;
    return epoll_wait(outer, &event, 1, timeout_ms) == 1;
}

static void check_all(int readable, int descriptor, int outer, int outermost)
{
    CHECK(is_readable(descriptor) == readable);
    CHECK(select_within(0, descriptor) == readable);
    CHECK(epoll_within(0, outer) == readable);
    CHECK(epoll_within(0, outermost) == readable);
    CHECK(is_readable(outermost) == readable);
}

static void in_event_loops(void)
{
    etslock_table *table = new_table();
    etslock_completions *queue = new_completions();
    int descriptor = descriptor_of(queue), outer = new_epoll(descriptor);
    int outermost = new_epoll(outer), i;
    etslock_guard *holder = hold(table, "k");
    etslock_completion completion;
    CASE("C-19: poll, select, epoll and nested epoll, level-triggered");
    for (i = 0; i < 3; i++)
        begin_with(strict(), queue, table, "k", 0);
    begin_with(options_of(50, 1000, 1000), queue, table, "k", 0);
    check_all(0, descriptor, outer, outermost);
    for (i = 0; i < 3; i++) {
        release(holder);
        check_all(1, descriptor, outer, outermost);
        check_all(1, descriptor, outer, outermost);
        completion = fetch(queue);
        REQUIRE((holder = completion.guard) != NULL);
        check_all(0, descriptor, outer, outermost);
    }
    CHECK(epoll_within(HANGS_MS, outermost)); /* the deadline */
    check_all(1, descriptor, outer, outermost);
    CHECK_STATUS(fetch(queue).status, ETSLOCK_WAIT_TIMEOUT);
    check_all(0, descriptor, outer, outermost);

    CASE("C-19: readable as long as there is more to fetch");
    for (i = 0; i < 3; i++) {
        uint64_t ticket = begin(queue, table, "k", 0);
        CHECK_STATUS(etslock_completions_withdraw(queue, ticket), ETSLOCK_OK);
    }
    for (i = 0; i < 3; i++) {
        check_all(1, descriptor, outer, outermost);
        CHECK_STATUS(fetch(queue).status, ETSLOCK_STOPPED);
    }
    check_all(0, descriptor, outer, outermost);
    release(holder);
    close(outermost);
    close(outer);
    etslock_completions_free(queue);

    CASE("C-19: a descriptor that is asked for late tells what is there");
    queue = new_completions();
    holder = hold(table, "k");
    begin_with(strict(), queue, table, "k", 0);
    release(holder);
    descriptor = descriptor_of(queue);
    CHECK(is_readable(descriptor));
    holder = fetch(queue).guard;
    begin_with(options_of(30, 1000, 1000), queue, table, "k", 0);
    CHECK(readable_within(HANGS_MS, descriptor));
    CHECK_STATUS(fetch(queue).status, ETSLOCK_WAIT_TIMEOUT);
    release(holder);
    etslock_completions_free(queue);
    etslock_table_free(table);
}

static int count_descriptors(void)
{
    DIR *directory = opendir("/proc/self/fd");
    int count = 0;
    REQUIRE(directory != NULL);
    while (readdir(directory) != NULL)
        count++;
    closedir(directory);
    return count;
}

static void exhausted_descriptors(void)
{
    etslock_table *table = new_table();
    struct rlimit usual, tight;
    int before, left;
    CASE("C-19: without a descriptor to be had everything else works on");
    before = count_descriptors();
    for (left = 0; left < 4; left++) {
        etslock_completions *queue = new_completions();
        etslock_guard *holder = hold(table, "k");
        uint64_t ticket = begin(queue, table, "k", 0);
        int room[4], i;
        REQUIRE(getrlimit(RLIMIT_NOFILE, &usual) == 0);
        for (i = 0; i < left; i++)
            REQUIRE((room[i] = dup(0)) >= 0);
        tight = usual;
        tight.rlim_cur = left == 0 ? 0 : (rlim_t)room[left - 1] + 1;
        for (i = 0; i < left; i++)
            close(room[i]);
        REQUIRE(setrlimit(RLIMIT_NOFILE, &tight) == 0);
        CHECK((etslock_completions_fd(queue) >= 0) == (left >= 3));
        release(holder);
        release(fetch_as(queue, ticket, ETSLOCK_OK));
        REQUIRE(setrlimit(RLIMIT_NOFILE, &usual) == 0);
        CHECK(count_descriptors() == before + (left >= 3 ? 3 : 0));
        CHECK(descriptor_of(queue) >= 0);
        etslock_completions_free(queue);
        CHECK(count_descriptors() == before);
    }
    etslock_table_free(table);
}

/* In the child of a fork: its exit code. */
static int in_child(etslock_completions *queue, int descriptor, etslock_table *table,
                    uint64_t ticket, int tell, int told)
{
    etslock_completion completion;
    etslock_guard *guard = NULL;
    size_t count;
    uint64_t none;
    char byte;
    if (is_readable(descriptor))
        return 2;
    if (etslock_completions_fd(queue) != -1)
        return 3;
    if (etslock_completions_wait(queue, &completion, 1, 0, &count) != ETSLOCK_ERR_FORKED)
        return 4;
    if (etslock_completions_withdraw(queue, ticket) != ETSLOCK_ERR_FORKED)
        return 5;
    if (etslock_acquire_begin(table, "k", 1, NULL, queue, NULL, &none, &guard) !=
        ETSLOCK_ERR_FORKED)
        return 6;
    if (write(tell, "x", 1) != 1 || read(told, &byte, 1) != 1)
        return 7;
    /* The parent has something to fetch now. */
    if (readable_within(50, descriptor))
        return 8;
    etslock_completions_free(queue);
    if (is_readable(descriptor))
        return 9;
    /* A queue of its own. */
    table = new_table();
    queue = new_completions();
    if (is_readable(descriptor_of(queue)))
        return 10;
    guard = hold(table, "k");
    ticket = begin_with(strict(), queue, table, "k", 1);
    release(guard);
    if (!is_readable(descriptor_of(queue)))
        return 11;
    release(fetch_as(queue, ticket, ETSLOCK_OK));
    etslock_completions_free(queue);
    etslock_table_free(table);
    return 0;
}

static void forked(void)
{
    etslock_table *table = new_table();
    etslock_completions *queue = new_completions();
    int descriptor = descriptor_of(queue), to_child[2], to_parent[2], state = 0;
    etslock_guard *holder = hold(table, "k");
    uint64_t first = begin_with(strict(), queue, table, "k", 1);
    uint64_t second = begin_with(options_of(1000, 1000, 1000), queue, table, "k", 2);
    char byte;
    pid_t child;
    CASE("C-16: in a forked child nothing is readable, and every call says so");
    REQUIRE(pipe(to_child) == 0 && pipe(to_parent) == 0);
    release(holder); /* the parent's is readable at the moment of the fork */
    CHECK(is_readable(descriptor));
    child = fork();
    REQUIRE(child >= 0);
    if (child == 0)
        _exit(in_child(queue, descriptor, table, first, to_parent[1], to_child[0]));
    close(to_parent[1]);
    REQUIRE(read(to_parent[0], &byte, 1) == 1);
    CHECK(is_readable(descriptor));
    holder = fetch_as(queue, first, ETSLOCK_OK);
    CHECK(!is_readable(descriptor));
    CHECK(readable_within(HANGS_MS, descriptor)); /* the deadline of the second */
    CHECK(write(to_child[1], "x", 1) == 1);
    REQUIRE(waitpid(child, &state, 0) == child);
    CHECK(WIFEXITED(state));
    if (WIFEXITED(state) && WEXITSTATUS(state) != 0)
        fprintf(stderr, "    the child ended with %d\n", WEXITSTATUS(state));
    CHECK(WIFEXITED(state) && WEXITSTATUS(state) == 0);

    CASE("C-16: the parent's goes on, whatever its child has closed");
    CHECK(is_readable(descriptor));
    CHECK(fetch_as(queue, second, ETSLOCK_WAIT_TIMEOUT) == NULL);
    CHECK(!is_readable(descriptor));
    first = begin_with(strict(), queue, table, "k", 1);
    release(holder);
    CHECK(is_readable(descriptor));
    release(fetch_as(queue, first, ETSLOCK_OK));
    etslock_completions_free(queue);
    etslock_table_free(table);
    close(to_child[0]), close(to_child[1]), close(to_parent[0]);
}

/* --- ten thousand --- */

static int count_threads(void)
{
    DIR *directory = opendir("/proc/self/task");
    int count = 0;
    REQUIRE(directory != NULL);
    while (readdir(directory) != NULL)
        count++;
    closedir(directory);
    return count;
}

static size_t heap_bytes(void)
{
#if defined(__GLIBC__) && (__GLIBC__ > 2 || __GLIBC_MINOR__ >= 33)
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd; /* large blocks are not part of the heap */
#else
    return 0;
#endif
}

static int64_t processor_us(void)
{
    struct rusage usage;
    REQUIRE(getrusage(RUSAGE_SELF, &usage) == 0);
    return (int64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000 +
           usage.ru_utime.tv_usec + usage.ru_stime.tv_usec;
}

static void key_of(char *key, int number)
{
    sprintf(key, "key %d", number);
}

/* Pending on one key, or on many; and ended in an order that is neither that of arrival nor its
 * reverse.
 */
static void ten_thousand(int keys)
{
    enum { STRIDE = 7919 }; /* a prime */
    etslock_table *table = new_table();
    etslock_completions *queue = new_completions();
    etslock_guard **held = calloc((size_t)keys, sizeof *held);
    uint64_t *tickets = calloc(MANY, sizeof *tickets);
    int descriptor = descriptor_of(queue), threads = count_threads(), i, granted = 0, stopped = 0;
    size_t before;
    char key[32];
    REQUIRE(held != NULL && tickets != NULL);
    CASE(keys == 1 ? "C-19: ten thousand pending on one key" : "C-19: ten thousand keys");
    for (i = 0; i < keys; i++) {
        key_of(key, i);
        held[i] = hold(table, key);
        /* Its entry in the index is there from the first waiter on. */
        tickets[0] = begin(queue, table, key, 0);
        CHECK_STATUS(etslock_completions_withdraw(queue, tickets[0]), ETSLOCK_OK);
        CHECK_STATUS(fetch(queue).status, ETSLOCK_STOPPED);
    }
    before = heap_bytes();
    for (i = 0; i < many(); i++) {
        etslock_options options =
            options_of(100000 + (i * STRIDE) % many(), ETSLOCK_INFINITE, ETSLOCK_INFINITE);
        options.queue = ETSLOCK_QUEUE_FIFO;
        key_of(key, i % keys);
        tickets[i] = begin_with(options, queue, table, key, (uintptr_t)i);
    }
    CHECK(stats_of(NULL).waiting == (uint64_t)many());
    CHECK(count_threads() == threads);
    if (!is_small_scale() && memory_can_be_measured() && heap_bytes() > before) {
        double each = (double)(heap_bytes() - before) / many();
        printf("    %.0f bytes each, pending on %d keys\n", each, keys);
        CHECK(each <= MOST_BYTES);
    }

    CASE("C-19: an idle loop burns nothing");
    {
        int64_t used = processor_us();
        CHECK(!readable_within(300, descriptor));
        CHECK(is_empty(queue));
        CHECK(processor_us() - used < 5000);
    }

    CASE("C-19: half of them are withdrawn, here and there");
    for (i = 0; i < many() / 2; i++) {
        int number = (i * STRIDE) % many();
        CHECK_STATUS(etslock_completions_withdraw(queue, tickets[number]), ETSLOCK_OK);
        tickets[number] = 0;
    }
    CHECK(stats_of(NULL).waiting == (uint64_t)(many() - many() / 2));

    CASE("C-19: and the rest is granted, in the order of arrival");
    for (i = 0; i < keys; i++)
        release(held[i]);
    {
        int *last = calloc((size_t)keys, sizeof *last);
        REQUIRE(last != NULL);
        for (i = 0; i < many(); i++) {
            etslock_completion completion = fetch(queue);
            int number = (int)number_of(&completion);
            if (completion.status == ETSLOCK_STOPPED) {
                CHECK(tickets[number] == 0);
                stopped++;
                continue;
            }
            REQUIRE(completion.guard != NULL);
            CHECK(tickets[number] == completion.ticket);
            CHECK(number >= last[number % keys]);
            last[number % keys] = number;
            granted++;
            release(completion.guard);
        }
        free(last);
    }
    CHECK(stopped == many() / 2 && granted == many() - many() / 2);
    CHECK(is_empty(queue) && !is_readable(descriptor));
    CHECK(count_locks(NULL, table) == 0 && stats_of(NULL).waiting == 0);
    etslock_completions_free(queue);
    etslock_table_free(table);
    free(tickets);
    free(held);
}

/* --- several threads --- */

struct fetchers {
    etslock_completions *queue;
    int fetched, timeouts, expected;
};

static void *fetch_all(void *argument)
{
    struct fetchers *fetchers = argument;
    while (__atomic_load_n(&fetchers->fetched, __ATOMIC_SEQ_CST) < fetchers->expected) {
        etslock_completion done[3];
        size_t count = 0, i;
        etslock_status status = etslock_completions_wait(fetchers->queue, done, 3, 50, &count);
        if (status == ETSLOCK_WAIT_TIMEOUT)
            continue;
        CHECK_STATUS(status, ETSLOCK_OK);
        for (i = 0; i < count; i++) {
            if (done[i].status == ETSLOCK_OK)
                release(done[i].guard);
            else
                __atomic_fetch_add(&fetchers->timeouts, 1, __ATOMIC_SEQ_CST);
            __atomic_fetch_add(&fetchers->fetched, 1, __ATOMIC_SEQ_CST);
        }
    }
    return NULL;
}

static void several_threads_fetch(void)
{
    enum { THREADS = 4, ROUNDS = 20, PENDING = 100 };
    etslock_table *table = new_table();
    etslock_completions *queue = new_completions();
    int round;
    CASE("C-19: several threads fetch, and each completion comes once");
    for (round = 0; round < (is_small_scale() ? 2 : ROUNDS); round++) {
        struct fetchers fetchers;
        pthread_t threads[THREADS];
        etslock_guard *holder = hold(table, "k"), *other = hold(table, "l");
        int i;
        memset(&fetchers, 0, sizeof fetchers);
        fetchers.queue = queue;
        fetchers.expected = 2 * PENDING;
        for (i = 0; i < THREADS; i++)
            REQUIRE(pthread_create(&threads[i], NULL, fetch_all, &fetchers) == 0);
        for (i = 0; i < PENDING; i++) {
            begin_with(i % 2 ? strict() : patient(NULL), queue, table, "k", 0);
            begin_with(options_of(1 + i % 20, 1000, 1000), queue, table, "l", 0);
        }
        release(holder);
        for (i = 0; i < THREADS; i++)
            REQUIRE(pthread_join(threads[i], NULL) == 0);
        CHECK(fetchers.fetched == 2 * PENDING && fetchers.timeouts == PENDING);
        CHECK(is_empty(queue));
        release(other);
    }
    etslock_completions_free(queue);
    etslock_table_free(table);
}

static void *fetch_in_time(void *argument)
{
    etslock_completion completion;
    int64_t begun = now_ms();
    CHECK(fetch_within(HANGS_MS, argument, &completion));
    CHECK_STATUS(completion.status, ETSLOCK_WAIT_TIMEOUT);
    CHECK(now_ms() - begun < HANGS_MS / 2);
    return NULL;
}

static void deadlines_that_come_later(void)
{
    enum { THREADS = 3 };
    etslock_table *table = new_table();
    etslock_completions *queue = new_completions();
    etslock_guard *holder = hold(table, "k");
    pthread_t threads[THREADS];
    int i;
    CASE("C-19: threads that sleep see to deadlines that come after them");
    for (i = 0; i < THREADS; i++)
        REQUIRE(pthread_create(&threads[i], NULL, fetch_in_time, queue) == 0);
    sleep_ms(20); /* let them sleep; nothing depends on it */
    for (i = THREADS; i > 0; i--)
        begin_with(options_of(20 * i, 1000, 1000), queue, table, "k", 0);
    for (i = 0; i < THREADS; i++)
        REQUIRE(pthread_join(threads[i], NULL) == 0);
    CHECK(is_empty(queue));
    release(holder);
    etslock_completions_free(queue);
    etslock_table_free(table);
}

/* --- everything at once --- */

enum { KEYS = 4 };

struct loop {
    pthread_t thread;
    etslock_table *table;
    unsigned seed;
    uint64_t begun, at_once, pending, granted, ended;
    int *inside; /* by key: how many hold it */
};

static unsigned draw(struct loop *loop, unsigned below)
{
    loop->seed = loop->seed * 1103515245u + 12345u;
    return (loop->seed >> 16) % below;
}

static void visit(struct loop *loop, etslock_guard *guard, uintptr_t key)
{
    CHECK(__atomic_fetch_add(&loop->inside[key], 1, __ATOMIC_SEQ_CST) == 0);
    if (draw(loop, 50) == 0)
        sleep_us(200);
    CHECK(__atomic_fetch_sub(&loop->inside[key], 1, __ATOMIC_SEQ_CST) == 1);
    release(guard);
}

static void note(struct loop *loop, const etslock_completion *completion)
{
    if (completion->status == ETSLOCK_OK) {
        loop->granted++;
        visit(loop, completion->guard, number_of(completion));
    } else {
        CHECK(completion->status == ETSLOCK_WAIT_TIMEOUT || completion->status == ETSLOCK_STOPPED);
        loop->ended++;
    }
}

static void *loop(void *argument)
{
    struct loop *loop = argument;
    etslock_completions *queue = new_completions();
    etslock_stop *stop = NULL;
    etslock_completion done[8];
    uint64_t tickets[16] = {0};
    size_t count, i;
    int round;
    descriptor_of(queue);
    REQUIRE(etslock_stop_new(&stop) == ETSLOCK_OK);
    for (round = 0; round < (is_small_scale() ? 300 : 20000); round++) {
        etslock_options options = options_of(draw(loop, 3) == 0 ? 1 : 1000, 60000, 60000);
        uintptr_t key = draw(loop, KEYS);
        char name = (char)('a' + key);
        etslock_guard *guard = NULL;
        uint64_t ticket = 0;
        etslock_status status;
        options.queue = draw(loop, 2) ? ETSLOCK_QUEUE_FIFO : ETSLOCK_QUEUE_FAIR;
        options.stop = draw(loop, 2) ? stop : NULL;
        status = etslock_acquire_begin(loop->table, &name, 1, &options, queue, (void *)key,
                                       &ticket, &guard);
        loop->begun++;
        if (status == ETSLOCK_OK) {
            loop->at_once++;
            visit(loop, guard, key);
        } else if (status == ETSLOCK_WAIT_TIMEOUT) { /* this thread did not run for a while */
            loop->at_once++;
        } else {
            CHECK_STATUS(status, ETSLOCK_PENDING);
            loop->pending++;
            tickets[round % COUNT_OF(tickets)] = ticket;
        }
        if (draw(loop, 4) == 0)
            etslock_completions_withdraw(queue, tickets[draw(loop, COUNT_OF(tickets))]);
        if (draw(loop, 40) == 0) {
            CHECK_STATUS(etslock_stop_request(stop), ETSLOCK_OK);
            etslock_stop_free(stop);
            REQUIRE(etslock_stop_new(&stop) == ETSLOCK_OK);
        }
        if (draw(loop, 2000) == 0) { /* whatever it has is cancelled */
            etslock_completions_free(queue);
            loop->ended = loop->pending - loop->granted;
            queue = new_completions();
            descriptor_of(queue);
            continue;
        }
        while (loop->pending - loop->granted - loop->ended > 12 || draw(loop, 3) == 0) {
            if (etslock_completions_wait(queue, done, COUNT_OF(done), 0, &count) != ETSLOCK_OK) {
                if (loop->pending - loop->granted - loop->ended <= 12)
                    break;
                REQUIRE(readable_within(HANGS_MS, etslock_completions_fd(queue)));
                continue;
            }
            for (i = 0; i < count; i++)
                note(loop, &done[i]);
        }
    }
    while (loop->pending > loop->granted + loop->ended) {
        etslock_completion completion = fetch(queue);
        note(loop, &completion);
    }
    CHECK(is_empty(queue));
    etslock_completions_free(queue);
    etslock_stop_free(stop);
    return NULL;
}

static void books(void)
{
    enum { LOOPS = 3 };
    etslock_table *table = new_table();
    struct loop loops[LOOPS];
    int inside[KEYS] = {0}, i;
    CASE("C-19: loops that begin, withdraw, stop, time out and free: the books balance");
    for (i = 0; i < LOOPS; i++) {
        memset(&loops[i], 0, sizeof loops[i]);
        loops[i].table = table;
        loops[i].seed = (unsigned)i + 1;
        loops[i].inside = inside;
        REQUIRE(pthread_create(&loops[i].thread, NULL, loop, &loops[i]) == 0);
    }
    for (i = 0; i < LOOPS; i++) {
        REQUIRE(pthread_join(loops[i].thread, NULL) == 0);
        CHECK(loops[i].begun == loops[i].at_once + loops[i].pending);
        CHECK(loops[i].pending == loops[i].granted + loops[i].ended);
        CHECK(loops[i].granted > 0 && loops[i].ended > 0);
    }
    CHECK(count_locks(NULL, table) == 0 && stats_of(NULL).waiting == 0);
    etslock_table_free(table);
}

int main(void)
{
    RUN(got_at_once());
    RUN(granted_later());
    RUN(withdrawn());
    RUN(timed_out());
    RUN(deadlines_that_differ());
    RUN(an_overdue_holder());
    RUN(exact_order());
    RUN(fair_liveness());
    RUN(a_loop_that_does_not_fetch());
    RUN(several_keys());
    RUN(deadlocks());
    RUN(freed());
    RUN(force_released());
    RUN(in_event_loops());
    RUN(exhausted_descriptors());
    RUN(forked());
    RUN(ten_thousand(1));
    RUN(ten_thousand(many()));
    RUN(several_threads_fetch());
    RUN(deadlines_that_come_later());
    RUN(books());
    return check_report();
}
