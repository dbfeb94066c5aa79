/* stops.c - what ends waits early: etslock_options.stop. Checks what etslock_stop_request promises for
 * every call that can wait, and what completions and stops answer to bad input.
 */
#define _POSIX_C_SOURCE 200809L

#include "check.h"
#include "locks.h"
#include "pending.h"
#include "threads.h"

#include <stddef.h>
#include <sys/wait.h>
#include <unistd.h>

static etslock_stop *new_stop(void)
{
    etslock_stop *stop = NULL;
    REQUIRE(etslock_stop_new(&stop) == ETSLOCK_OK);
    REQUIRE(stop != NULL);
    return stop;
}

static etslock_options under(etslock_stop *stop, int32_t queue)
{
    etslock_options options = patient(NULL);
    options.wait_timeout_ms = HANGS_MS;
    options.stop = stop;
    options.owner = ETSLOCK_OWNER_NONE; /* who waits here holds the key elsewhere */
    options.queue = queue;
    options.spin_delay_ms = 1;
    return options;
}

enum { WITH_LOCK, WITH_LOCK_HERE, WITH_LOCKS, ACQUIRE, ACQUIRE_LOCKS, CALLS };

static const etslock_key two[] = {{"k", 1}, {"l", 1}};

struct call {
    pthread_t thread;
    etslock_table *table;
    etslock_options options;
    int what;
    int freed;
    etslock_status status;
};

static etslock_status make_call(struct call *call, etslock_callback callback)
{
    etslock_guard *guard = NULL;
    etslock_status status = ETSLOCK_ERR_PANIC;
    switch (call->what) {
    case WITH_LOCK_HERE:
        call->options.run_on = ETSLOCK_RUN_ON_CALLER; /* fall through */
    case WITH_LOCK:
        call->options.user_data_free = add_one;
        return etslock_with_lock(call->table, "k", 1, callback, &call->freed, &call->options,
                                 NULL);
    case WITH_LOCKS:
        call->options.user_data_free = add_one;
        return etslock_with_locks(call->table, two, 2, callback, &call->freed, &call->options,
                                  NULL);
    case ACQUIRE:
        status = etslock_acquire(call->table, "k", 1, &call->options, &guard);
        break;
    case ACQUIRE_LOCKS:
        status = etslock_acquire_locks(call->table, two, 2, &call->options, &guard);
        break;
    }
    CHECK((status == ETSLOCK_OK) == (guard != NULL));
    if (guard != NULL)
        release(guard);
    return status;
}

static void *wait_in_vain(void *argument)
{
    struct call *call = argument;
    call->status = make_call(call, must_not_run);
    return NULL;
}

static const int32_t queues[] = {ETSLOCK_QUEUE_FAIR, ETSLOCK_QUEUE_FIFO, ETSLOCK_QUEUE_POLLING};

static void every_call(void)
{
    etslock_table *table = new_table();
    size_t queue;
    int what, key;
    for (queue = 0; queue < COUNT_OF(queues); queue++) {
        for (what = 0; what < CALLS; what++) {
            for (key = 0; key < 2; key++) {
                etslock_stop *stop;
                etslock_guard *holder;
                struct call call;
                if (key == 1 && what != WITH_LOCKS && what != ACQUIRE_LOCKS)
                    continue; /* they do not want the second key */
                stop = new_stop();
                memset(&call, 0, sizeof call);
                call.table = table;
                call.what = what;
                call.options = under(stop, queues[queue]);
                CASE("stop: every call that waits ends, and holds nothing");
                holder = hold(table, key == 0 ? "k" : "l");
                REQUIRE(pthread_create(&call.thread, NULL, wait_in_vain, &call) == 0);
                await_waiting(NULL, 1);
                CHECK_STATUS(etslock_stop_request(stop), ETSLOCK_OK);
                REQUIRE(pthread_join(call.thread, NULL) == 0);
                CHECK_STATUS(call.status, ETSLOCK_STOPPED);
                CHECK(count_locks(NULL, table) == 1 && stats_of(NULL).waiting == 0);
                CHECK(call.freed == (call.options.user_data_free != NULL));

                CASE("stop: who comes later does not wait");
                CHECK_STATUS(make_call(&call, must_not_run), ETSLOCK_STOPPED);
                CHECK_STATUS(etslock_stop_request(stop), ETSLOCK_OK);
                CHECK_STATUS(make_call(&call, must_not_run), ETSLOCK_STOPPED);
                CHECK(count_locks(NULL, table) == 1);

                CASE("C-2: nor does a try-lock wait, which times out");
                call.options.wait_timeout_ms = 0;
                CHECK_STATUS(make_call(&call, must_not_run), ETSLOCK_WAIT_TIMEOUT);

                CASE("stop: it acts on waits, so a lock that is free is got");
                call.options.wait_timeout_ms = HANGS_MS;
                release(holder);
                CHECK_STATUS(make_call(&call, do_nothing), ETSLOCK_OK);
                CHECK(count_locks(NULL, table) == 0);
                etslock_stop_free(stop);
            }
        }
    }
    etslock_table_free(table);
}

static void many_waits(void)
{
    enum { EACH = 500 };
    etslock_table *table = new_table();
    etslock_completions *queue = new_completions();
    etslock_stop *stop = new_stop(), *other = new_stop();
    int descriptor = descriptor_of(queue), i, stopped = 0, granted = 0;
    etslock_guard *holder = hold(table, "k");
    struct call calls[2];
    CASE("stop: one for any number of waits, and no other's");
    for (i = 0; i < EACH; i++) {
        etslock_options options = under(i % 2 ? stop : other, queues[i % 4 / 2]);
        begin_with(options, queue, table, "k", (uintptr_t)i % 2);
    }
    for (i = 0; i < 2; i++) {
        memset(&calls[i], 0, sizeof calls[i]);
        calls[i].table = table;
        calls[i].what = ACQUIRE;
        calls[i].options = under(i ? stop : other, ETSLOCK_QUEUE_FIFO);
        REQUIRE(pthread_create(&calls[i].thread, NULL, wait_in_vain, &calls[i]) == 0);
    }
    await_queue(NULL, table, "k", EACH + 2);
    CHECK(!is_readable(descriptor));
    CHECK_STATUS(etslock_stop_request(stop), ETSLOCK_OK);
    CHECK(is_readable(descriptor));
    CHECK(queue_length(NULL, table, "k") == EACH / 2 + 1);
    for (i = 0; i < EACH / 2; i++) {
        etslock_completion completion = fetch(queue);
        CHECK_STATUS(completion.status, ETSLOCK_STOPPED);
        CHECK(number_of(&completion) == 1);
        CHECK_STATUS(etslock_completions_withdraw(queue, completion.ticket), ETSLOCK_NOT_FOUND);
        stopped++;
    }
    CHECK(is_empty(queue) && !is_readable(descriptor));
    REQUIRE(pthread_join(calls[1].thread, NULL) == 0);
    CHECK_STATUS(calls[1].status, ETSLOCK_STOPPED);

    CASE("stop: who waits on gets the lock");
    release(holder);
    for (i = 0; i < EACH / 2; i++) {
        etslock_completion completion = fetch(queue);
        CHECK(number_of(&completion) == 0);
        REQUIRE(completion.guard != NULL);
        release(completion.guard);
        granted++;
    }
    REQUIRE(pthread_join(calls[0].thread, NULL) == 0);
    CHECK_STATUS(calls[0].status, ETSLOCK_OK);
    CHECK(stopped + granted == EACH && is_empty(queue));
    etslock_stop_free(other);
    etslock_stop_free(stop);
    etslock_completions_free(queue);
    etslock_table_free(table);
}

static int32_t requests_and_writes(etslock_guard *guard, const etslock_tuple *tuples,
                                   size_t tuple_count, void *user_data)
{
    (void)tuples, (void)tuple_count;
    CHECK_STATUS(etslock_stop_request(user_data), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_status(guard), ETSLOCK_OK);
    return etslock_guard_insert(guard, "k", 1, "v", 1) == ETSLOCK_OK ? 0 : 1;
}

static void granted_first(void)
{
    etslock_table *table = new_table();
    etslock_completions *queue = new_completions();
    etslock_stop *stop = new_stop();
    etslock_options options = under(stop, ETSLOCK_QUEUE_FIFO);
    etslock_guard *holder, *guard;
    uint64_t ticket, second;
    CASE("stop: a wait that was granted first is not undone");
    holder = hold(table, "k");
    ticket = begin_with(options, queue, table, "k", 1);
    second = begin_with(options, queue, table, "k", 2);
    release(holder); /* handed over, and not seen */
    CHECK_STATUS(etslock_stop_request(stop), ETSLOCK_OK);
    guard = fetch_as(queue, ticket, ETSLOCK_OK);
    CHECK(fetch_as(queue, second, ETSLOCK_STOPPED) == NULL);
    CHECK_STATUS(etslock_guard_status(guard), ETSLOCK_OK);
    release(guard);

    CASE("stop: begun under one that was requested");
    holder = hold(table, "k");
    guard = holder;
    ticket = 0;
    CHECK_STATUS(etslock_acquire_begin(table, "k", 1, &options, queue, NULL, &ticket, &guard),
                 ETSLOCK_STOPPED);
    CHECK(guard == NULL && ticket == 0 && is_empty(queue));
    CHECK_STATUS(
        etslock_acquire_locks_begin(table, two, 2, &options, queue, NULL, &ticket, &guard),
        ETSLOCK_STOPPED);
    CHECK(guard == NULL && is_empty(queue) && count_locks(NULL, table) == 1);
    release(holder);
    CHECK_STATUS(etslock_acquire_begin(table, "k", 1, &options, queue, NULL, &ticket, &guard),
                 ETSLOCK_OK);
    release(guard);
    CHECK_STATUS(
        etslock_acquire_locks_begin(table, two, 2, &options, queue, NULL, &ticket, &guard),
        ETSLOCK_OK);
    release(guard);
    etslock_stop_free(stop);

    CASE("stop: it does not touch a callback that runs");
    stop = new_stop();
    options = under(stop, ETSLOCK_QUEUE_FAIR);
    CHECK_STATUS(etslock_with_lock(table, "k", 1, requests_and_writes, stop, &options, NULL),
                 ETSLOCK_OK);
    CHECK(has_value(table, "k", "v"));
    etslock_stop_free(stop);

    CASE("stop: between the keys of one call");
    {
        static const etslock_key three[] = {{"a", 1}, {"b", 1}, {"c", 1}};
        etslock_guard *held[3];
        int i, seen = 0;
        stop = new_stop();
        options = under(stop, ETSLOCK_QUEUE_FIFO);
        for (i = 0; i < 3; i++)
            held[i] = hold(table, three[i].key);
        guard = NULL;
        REQUIRE(etslock_acquire_locks_begin(table, three, 3, &options, queue, NULL, &ticket,
                                            &guard) == ETSLOCK_PENDING);
        for (i = 0; i < 3 && seen == 0; i++) {
            if (queue_length(NULL, table, three[i].key) == 1) {
                release(held[i]); /* handed over: it comes to the next one when it is polled */
                held[i] = NULL;
                seen = 1;
            }
        }
        CHECK(seen == 1);
        CHECK_STATUS(etslock_stop_request(stop), ETSLOCK_OK);
        CHECK(fetch_as(queue, ticket, ETSLOCK_STOPPED) == NULL);
        CHECK(count_locks(NULL, table) == 2);
        for (i = 0; i < 3; i++)
            if (held[i] != NULL)
                release(held[i]);
        etslock_stop_free(stop);
    }
    etslock_completions_free(queue);
    etslock_table_free(table);
}

static void freed(void)
{
    etslock_table *table = new_table();
    etslock_completions *queue = new_completions();
    etslock_stop *stop = new_stop();
    etslock_guard *holder = hold(table, "k");
    uint64_t ticket;
    struct call call;
    CASE("stop: freed, those under it wait on");
    memset(&call, 0, sizeof call);
    call.table = table;
    call.what = ACQUIRE;
    call.options = under(stop, ETSLOCK_QUEUE_FIFO);
    REQUIRE(pthread_create(&call.thread, NULL, wait_in_vain, &call) == 0);
    await_queue(NULL, table, "k", 1);
    ticket = begin_with(call.options, queue, table, "k", 1);
    etslock_stop_free(stop);
    etslock_stop_free(NULL);
    CHECK(queue_length(NULL, table, "k") == 2 && is_empty(queue));
    release(holder);
    REQUIRE(pthread_join(call.thread, NULL) == 0);
    CHECK_STATUS(call.status, ETSLOCK_OK);
    release(fetch_as(queue, ticket, ETSLOCK_OK));
    etslock_completions_free(queue);
    etslock_table_free(table);
}

/* --- stop against grant --- */

struct race {
    sem_t go, begun;
    etslock_stop *stop;
    int over;
};

static void *request(void *argument)
{
    struct race *race = argument;
    for (;;) {
        REQUIRE(wait_for(&race->go));
        if (race->over)
            return NULL;
        CHECK_STATUS(etslock_stop_request(race->stop), ETSLOCK_OK);
        sem_post(&race->begun);
    }
}

/* The holder gives the lock back while the wait is told to stop: one of the two. */
static void races(void)
{
    etslock_table *table = new_table();
    etslock_completions *queue = new_completions();
    struct race race;
    pthread_t thread;
    int round, rounds = is_small_scale() ? 200 : 20000, granted = 0, stopped = 0;
    CASE("stop: grant or stop, decided once");
    memset(&race, 0, sizeof race);
    REQUIRE(sem_init(&race.go, 0, 0) == 0 && sem_init(&race.begun, 0, 0) == 0);
    REQUIRE(pthread_create(&thread, NULL, request, &race) == 0);
    for (round = 0; round < rounds; round++) {
        etslock_guard *holder = hold(table, "k");
        etslock_completion completion;
        uint64_t ticket;
        race.stop = new_stop();
        ticket = begin_with(under(race.stop, queues[round % 2]), queue, table, "k", 0);
        sem_post(&race.go);
        if (round % 3 == 0)
            sleep_us(round % 50);
        release(holder);
        completion = fetch(queue);
        CHECK(completion.ticket == ticket);
        if (completion.status == ETSLOCK_OK) {
            CHECK_STATUS(try_lock(table, "k"), ETSLOCK_WAIT_TIMEOUT);
            release(completion.guard);
            granted++;
        } else {
            CHECK_STATUS(completion.status, ETSLOCK_STOPPED);
            stopped++;
        }
        CHECK_STATUS(try_lock(table, "k"), ETSLOCK_OK);
        REQUIRE(wait_for(&race.begun));
        etslock_stop_free(race.stop);
    }
    race.over = 1;
    sem_post(&race.go);
    REQUIRE(pthread_join(thread, NULL) == 0);
    CHECK(granted + stopped == rounds && is_empty(queue));
    CHECK(count_locks(NULL, table) == 0 && stats_of(NULL).waiting == 0);
    etslock_completions_free(queue);
    etslock_table_free(table);
}

/* --- a struct of 0.1, a fork, bad input --- */

static void smaller_options(void)
{
    etslock_table *table = new_table();
    union {
        etslock_options options;
        unsigned char bytes[sizeof(etslock_options)];
    } old;
    etslock_guard *guard = NULL;
    CASE("the struct of 0.1 ends before the stop: what comes after it is not looked at");
    memset(&old, 0xff, sizeof old);
    etslock_options_init(&old.options, offsetof(etslock_options, stop));
    CHECK(old.options.struct_size == offsetof(etslock_options, stop));
    CHECK(old.bytes[offsetof(etslock_options, stop)] == 0xff);
    CHECK_STATUS(etslock_acquire(table, "k", 1, &old.options, &guard), ETSLOCK_OK);
    release(guard);

    CASE("and one that ends in the middle of it is too small to hold one");
    etslock_options_init(&old.options, sizeof old.options);
    CHECK(old.options.stop == NULL);
    old.options.struct_size = offsetof(etslock_options, stop) - 1;
    CHECK_STATUS(etslock_acquire(table, "k", 1, &old.options, &guard), ETSLOCK_ERR_STRUCT_SIZE);
    etslock_table_free(table);
}

static void forked(void)
{
    etslock_table *table = new_table();
    etslock_stop *stop = new_stop();
    int state = 0;
    pid_t child;
    CASE("C-16: a stop in a forked child");
    child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        etslock_options options = under(stop, ETSLOCK_QUEUE_FAIR);
        etslock_guard *guard = NULL;
        int right = etslock_stop_request(stop) == ETSLOCK_ERR_FORKED;
        etslock_table *own = new_table();
        right = right && etslock_acquire(own, "k", 1, &options, &guard) == ETSLOCK_ERR_FORKED;
        etslock_stop_free(stop);
        _exit(right ? 0 : 1);
    }
    REQUIRE(waitpid(child, &state, 0) == child);
    CHECK(WIFEXITED(state) && WEXITSTATUS(state) == 0);
    etslock_stop_free(stop);
    etslock_table_free(table);
}

static void bad_input(void)
{
    etslock_table *table = new_table();
    etslock_completions *queue = new_completions();
    etslock_completion done[1];
    etslock_options options = patient(NULL);
    etslock_guard *guard = NULL, *holder = hold(table, "k");
    uint64_t ticket = 5;
    size_t count = 7;
    CASE("bad input: NULL");
    CHECK_STATUS(etslock_stop_new(NULL), ETSLOCK_ERR_NULL);
    CHECK_STATUS(etslock_stop_request(NULL), ETSLOCK_ERR_NULL);
    CHECK_STATUS(etslock_completions_new(NULL), ETSLOCK_ERR_NULL);
    CHECK(etslock_completions_fd(NULL) == -1);
    CHECK_STATUS(etslock_completions_wait(NULL, done, 1, 0, &count), ETSLOCK_ERR_NULL);
    CHECK_STATUS(etslock_completions_wait(queue, NULL, 1, 0, &count), ETSLOCK_ERR_NULL);
    CHECK_STATUS(etslock_completions_wait(queue, done, 1, 0, NULL), ETSLOCK_ERR_NULL);
    CHECK_STATUS(etslock_completions_withdraw(NULL, 1), ETSLOCK_ERR_NULL);
    CHECK_STATUS(etslock_acquire_begin(NULL, "k", 1, NULL, queue, NULL, &ticket, &guard),
                 ETSLOCK_ERR_NULL);
    CHECK_STATUS(etslock_acquire_begin(table, NULL, 1, NULL, queue, NULL, &ticket, &guard),
                 ETSLOCK_ERR_NULL);
    CHECK_STATUS(etslock_acquire_begin(table, "k", 1, NULL, NULL, NULL, &ticket, &guard),
                 ETSLOCK_ERR_NULL);
    CHECK_STATUS(etslock_acquire_begin(table, "k", 1, NULL, queue, NULL, NULL, &guard),
                 ETSLOCK_ERR_NULL);
    CHECK_STATUS(etslock_acquire_begin(table, "k", 1, NULL, queue, NULL, &ticket, NULL),
                 ETSLOCK_ERR_NULL);
    CHECK_STATUS(etslock_acquire_locks_begin(NULL, two, 2, NULL, queue, NULL, &ticket, &guard),
                 ETSLOCK_ERR_NULL);
    CHECK_STATUS(etslock_acquire_locks_begin(table, NULL, 2, NULL, queue, NULL, &ticket, &guard),
                 ETSLOCK_ERR_NULL);
    CHECK_STATUS(etslock_acquire_locks_begin(table, two, 2, NULL, NULL, NULL, &ticket, &guard),
                 ETSLOCK_ERR_NULL);
    CHECK_STATUS(etslock_acquire_locks_begin(table, two, 2, NULL, queue, NULL, NULL, &guard),
                 ETSLOCK_ERR_NULL);
    CHECK_STATUS(etslock_acquire_locks_begin(table, two, 2, NULL, queue, NULL, &ticket, NULL),
                 ETSLOCK_ERR_NULL);

    CASE("bad input: out of range");
    CHECK_STATUS(etslock_completions_wait(queue, done, 0, 0, &count), ETSLOCK_ERR_INVALID);
    CHECK_STATUS(etslock_completions_wait(queue, done, 1, -2, &count), ETSLOCK_ERR_INVALID);
    CHECK_STATUS(etslock_completions_wait(queue, done, 1, INT64_MIN, &count),
                 ETSLOCK_ERR_INVALID);
    CHECK_STATUS(etslock_completions_wait(queue, done, SIZE_MAX, 0, &count),
                 ETSLOCK_WAIT_TIMEOUT);
    CHECK_STATUS(etslock_acquire_locks_begin(table, two, 0, NULL, queue, NULL, &ticket, &guard),
                 ETSLOCK_ERR_INVALID);
    CHECK_STATUS(etslock_acquire_locks_begin(table, two, ETSLOCK_MAX_KEYS + 1, NULL, queue, NULL,
                                             &ticket, &guard),
                 ETSLOCK_ERR_INVALID);
    CHECK_STATUS(etslock_acquire_begin(table, "k", (size_t)PTRDIFF_MAX + 1, NULL, queue, NULL,
                                       &ticket, &guard),
                 ETSLOCK_ERR_INVALID);
    options.queue = ETSLOCK_QUEUE_POLLING;
    CHECK_STATUS(etslock_acquire_begin(table, "k", 1, &options, queue, NULL, &ticket, &guard),
                 ETSLOCK_ERR_INVALID);
    CHECK_STATUS(etslock_acquire_begin(table, "free", 4, &options, queue, NULL, &ticket, &guard),
                 ETSLOCK_ERR_INVALID);
    CHECK_STATUS(
        etslock_acquire_locks_begin(table, two, 2, &options, queue, NULL, &ticket, &guard),
        ETSLOCK_ERR_INVALID);
    options = options_of(-2, 0, 0);
    CHECK_STATUS(etslock_acquire_begin(table, "k", 1, &options, queue, NULL, &ticket, &guard),
                 ETSLOCK_ERR_INVALID);
    options = patient(NULL);
    options.reserved = 1;
    CHECK_STATUS(etslock_acquire_begin(table, "k", 1, &options, queue, NULL, &ticket, &guard),
                 ETSLOCK_ERR_INVALID);
    options.struct_size = 8;
    CHECK_STATUS(etslock_acquire_begin(table, "k", 1, &options, queue, NULL, &ticket, &guard),
                 ETSLOCK_ERR_STRUCT_SIZE);

    CASE("bad input: nothing follows, and nothing changed");
    CHECK(guard == NULL && ticket == 5 && count == 7);
    CHECK(is_empty(queue) && count_locks(NULL, table) == 1);
    CHECK(stats_of(NULL).waiting == 0 && queue_length(NULL, table, "k") == 0);
    release(holder);
    etslock_completions_free(queue);
    etslock_table_free(table);
}

int main(void)
{
    RUN(every_call());
    RUN(many_waits());
    RUN(granted_first());
    RUN(freed());
    RUN(races());
    RUN(smaller_options());
    RUN(forked());
    RUN(bad_input());
    return check_report();
}
