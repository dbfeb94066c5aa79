/* calls.h - a call of the library, from the question to its end, which may be long after the
 * answer: what was asked for, what the answer may be, when it may come, and who is done with it.
 */
#ifndef ETSLOCK_SOAK_CALLS_H
#define ETSLOCK_SOAK_CALLS_H

#include "visits.h"

enum kind { CALLS_BACK, RETURNS_A_GUARD };

/* What the holder does. */
enum behaviour {
    WRITE,
    READ,
    SLEEP,        /* for a moment, and writes */
    COMMIT_TWICE,
    ROLL_BACK,
    FAIL,
    EXTEND,
    NEST,         /* asks for another lock */
    RELOCK,       /* asks for its own once more */
    FORK,
    EXIT_THREAD,
    MOVE,         /* another thread ends the guard */
    LOSES,        /* from here on the lock is lost: not for calm keys */
    RUN_AWAY = LOSES, /* outlives its time, and goes on writing */
    SLEEP_TILL_LOST,
    LINGER,       /* for seconds, whatever its guard says */
    DIE,          /* sleeps until it is killed */
    DROP,         /* the guard is left to its release time */
    BEHAVIOURS
};

enum ended { NOT_ENDED, RETURNED, ENDED_THREAD, WAS_KILLED };

enum { CALLS = 1024, FAILS_WITH = 17 };

struct call {
    /* What is asked: constant while the call is under way. */
    enum kind kind;
    enum behaviour behaviour;
    etslock_table *handle; /* of the asker, who may close it after the answer */
    etslock_options options;
    int depth; /* of nested calls */
    uint64_t random;
    int64_t asked_us;
    struct visit visit;
    /* What becomes of it: __atomic. */
    uint64_t taken;
    uint64_t parties; /* of asker and library, who is not done with it */
    uint64_t entered_us;
    uint64_t running;
    uint64_t ended;
    uint64_t freed;
    uint64_t impatient;  /* no longer counted as patient */
    uint64_t status;
};

enum { NO_STATUS = 99 };

/* What a callback hands to its caller. */
struct outcome {
    int32_t staged;
    int32_t overtaken;
};

static struct call calls[CALLS];
static int stopping; /* touched with the __atomic builtins only */

/* Lock tables that exclude nobody: for the control of the detectors. */
enum { PRIVATE_LOCK_TABLES = 8 };
static etslock_lock_table *private_lock_tables[PRIVATE_LOCK_TABLES];
static int breaks_exclusion, breaks_the_fence;

static int is_stopping(void)
{
    return __atomic_load_n(&stopping, __ATOMIC_RELAXED);
}

static struct call *begin_call(enum kind kind, int depth, uint64_t random)
{
    struct call *call;
    uint64_t none;
    int tries = 0;
    do {
        REQUIRE(tries++ < 100 * CALLS);
        call = &calls[draw(&random, CALLS)];
        none = 0;
    } while (!__atomic_compare_exchange_n(&call->taken, &none, 1, 0, __ATOMIC_ACQUIRE,
                                          __ATOMIC_RELAXED));
    call->kind = kind;
    call->depth = depth;
    call->random = random;
    call->visit.count = 0;
    etslock_options_init(&call->options, sizeof call->options);
    store(&call->parties, kind == CALLS_BACK ? 2 : 1);
    store(&call->entered_us, 0);
    store(&call->running, 0);
    store(&call->ended, NOT_ENDED);
    store(&call->freed, 0);
    store(&call->impatient, 1);
    store(&call->status, NO_STATUS);
    return call;
}

/* What both parties know together. */
static void check_ended(const struct call *call)
{
    int entered = load(&call->entered_us) != 0;
    enum ended ended = (enum ended)load(&call->ended);
    int fits = 1;
    switch ((int)load(&call->status)) {
    case ETSLOCK_OK:
        fits = ended == RETURNED;
        break;
    case ETSLOCK_CALLBACK_FAILED:
        fits = ended == RETURNED || ended == ENDED_THREAD;
        break;
    case ETSLOCK_WAIT_TIMEOUT:
    case ETSLOCK_DEADLOCK:
        fits = !entered;
        break;
    case ETSLOCK_EXEC_TIMEOUT:
        fits = !(entered && call->options.exec_timeout_ms == 0);
        if (entered && call->behaviour == DIE && ended != WAS_KILLED)
            report(NOT_KILLED, "a callback for %s", call->visit.books[0]->key);
        break;
    }
    if (!fits)
        report(WRONG_ANSWER, "%s, and the callback for %s had %s",
               etslock_status_name((etslock_status)load(&call->status)),
               call->visit.books[0]->key,
               ended == NOT_ENDED ? "not run" : ended == RETURNED ? "returned" : "ended its thread");
}

static void done_with(struct call *call)
{
    if (__atomic_sub_fetch(&call->parties, 1, __ATOMIC_ACQ_REL) != 0)
        return;
    if (call->kind == CALLS_BACK)
        check_ended(call);
    store(&call->taken, 0);
}

/* The `user_data_free` of every call. */
static void free_call(void *user_data)
{
    struct call *call = user_data;
    if (__atomic_exchange_n(&call->freed, 1, __ATOMIC_ACQ_REL) != 0)
        report(DATA_FREED, "twice");
    else if (load(&call->running))
        report(DATA_FREED, "while the callback for %s ran", call->visit.books[0]->key);
    else
        done_with(call);
}

/* --- waiting --- */

/* Patient ones stand in the queue of one key for as long as it takes: C-3 lets nobody be passed
 * over for ever, and nobody holds a key for long.
 */
static void wait_patiently(struct call *call)
{
    struct book *book = call->visit.books[0];
    if (call->visit.count != 1 || call->options.queue == ETSLOCK_QUEUE_POLLING ||
        call->options.wait_timeout_ms != ETSLOCK_INFINITE)
        return;
    if (load(&book->patient) == 0)
        store(&book->moved_us, (uint64_t)now_us());
    add(&book->patient, 1);
    store(&call->impatient, 0);
}

static void stop_waiting(struct call *call)
{
    if (__atomic_exchange_n(&call->impatient, 1, __ATOMIC_ACQ_REL) == 0)
        add(&call->visit.books[0]->patient, -1);
}

/* The lock was got. */
static void enter(struct call *call, etslock_guard *guard)
{
    int64_t now = now_us(), wait_ms = call->options.wait_timeout_ms;
    store(&call->entered_us, (uint64_t)now);
    if (wait_ms >= 0 && now > call->asked_us + wait_ms * 1000)
        raise_to(&worst_wait_us, (uint64_t)(now - call->asked_us - wait_ms * 1000));
    begin_visit(&call->visit, guard);
    stop_waiting(call);
}

/* --- the answer --- */

static void check_time(const struct call *call, etslock_status status)
{
    const etslock_options *options = &call->options;
    int64_t now = now_us(), took = now - call->asked_us;
    int64_t wait = options->wait_timeout_ms * 1000, exec = options->exec_timeout_ms * 1000;
    int64_t entered = (int64_t)load(&call->entered_us);
    if (status == ETSLOCK_WAIT_TIMEOUT) {
        if (wait < 0 || took < wait)
            report(WRONG_TIME, "a wait of %lld us ended after %lld us", (long long)wait,
                   (long long)took);
        else
            raise_to(&worst_wait_us, (uint64_t)(took - wait));
    } else if (status == ETSLOCK_EXEC_TIMEOUT) {
        if (exec < 0 || took < exec)
            report(WRONG_TIME, "a holder's %lld us were over after %lld us", (long long)exec,
                   (long long)took);
        else if (call->kind == CALLS_BACK && options->run_on == ETSLOCK_RUN_ON_WORKER &&
                 options->on_exec_timeout != ETSLOCK_JOIN && call->behaviour != EXTEND &&
                 entered != 0 && now > entered + exec)
            raise_to(&worst_return_us, (uint64_t)(now - entered - exec));
    }
}

/* Whether the answer is one that the call can give. */
static int is_possible(const struct call *call, etslock_status status)
{
    enum temper temper = call->visit.books[0]->temper;
    int on_a_guard = call->kind == RETURNS_A_GUARD && load(&call->entered_us) != 0;
    if (temper == STONE)
        return status == ETSLOCK_WAIT_TIMEOUT;
    switch (status) {
    case ETSLOCK_OK:
        return call->behaviour != FAIL && call->behaviour != EXIT_THREAD;
    case ETSLOCK_CALLBACK_FAILED:
        return call->behaviour == FAIL || call->behaviour == EXIT_THREAD;
    case ETSLOCK_WAIT_TIMEOUT:
        return 1;
    case ETSLOCK_EXEC_TIMEOUT:
        return temper != CALM;
    case ETSLOCK_REVOKED: /* by the bystander; a guard also by the clock */
        return temper == WILD || (temper == TURN && on_a_guard);
    case ETSLOCK_DEADLOCK: /* one who holds nothing cannot close a cycle */
        return call->depth > 0 || (temper == WILD && call->visit.count > 1);
    default:
        return 0;
    }
}

static void check_answer(const struct call *call, etslock_status status)
{
    if (status >= 0 && status < STATUSES)
        add(&statuses[status], 1);
    if (!is_possible(call, status))
        report(WRONG_ANSWER, "%s for %s of the %s", etslock_status_name(status),
               call->visit.books[0]->key, table_names[call->visit.books[0]->table]);
    check_time(call, status);
}

/* --- asking --- */

static int32_t act(struct call *call);
static int moves_on(struct call *call);

static void callback_thread_ended(void *argument)
{
    struct call *call = argument;
    if (load(&call->ended) != ENDED_THREAD) {
        store(&call->ended, WAS_KILLED);
        count(KILLED);
    }
    store(&call->running, 0);
}

static int32_t call_back(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                         void *user_data)
{
    struct call *call = user_data;
    struct outcome outcome = {0, 0};
    int32_t code;
    store(&call->running, 1);
    pthread_cleanup_push(callback_thread_ended, call);
    enter(call, guard);
    check_given(&call->visit, tuples, tuple_count);
    code = act(call);
    outcome.staged = call->visit.staged;
    outcome.overtaken = was_overtaken(&call->visit);
    is_live(&call->visit, etslock_guard_set_result(guard, &outcome, sizeof outcome));
    pthread_cleanup_pop(0);
    store(&call->ended, RETURNED);
    store(&call->running, 0);
    return code;
}

/* A call that called back has answered. */
static void after_callback(struct call *call, etslock_status status, etslock_result *result)
{
    struct outcome outcome = {0, 0};
    if (status == ETSLOCK_OK && result->data_len == sizeof outcome)
        memcpy(&outcome, result->data, sizeof outcome);
    else if (status == ETSLOCK_OK || result->data_len != 0)
        report(WRONG_ANSWER, "%s with %zu bytes", etslock_status_name(status), result->data_len);
    if (result->code != (status == ETSLOCK_CALLBACK_FAILED && call->behaviour == FAIL ? FAILS_WITH
                                                                                       : 0))
        report(WRONG_ANSWER, "%s with code %d", etslock_status_name(status), (int)result->code);
    if (outcome.overtaken)
        accuse(&call->visit, "succeeded");
    settle_pending(call->visit.books, call->visit.count, outcome.staged);
    if ((status == ETSLOCK_OK || status == ETSLOCK_CALLBACK_FAILED) && !load(&call->freed))
        report(DATA_FREED, "not before the call returned");
    store(&call->status, (uint64_t)status);
    etslock_result_free(result);
    done_with(call);
}

/* Ends an acquired guard, on whatever thread. */
static void end_guard(struct call *call, int32_t code)
{
    struct visit *visit = &call->visit;
    etslock_status status;
    int overtaken = was_overtaken(visit);
    if (code != 0) {
        if (etslock_guard_cancel(visit->guard) != ETSLOCK_OK)
            report(WRONG_ANSWER, "a guard cannot be cancelled");
        settle_pending(visit->books, visit->count, 0);
    } else {
        status = etslock_guard_release(visit->guard);
        if (is_live(visit, status) && overtaken)
            accuse(visit, "released");
        settle_pending(visit->books, visit->count, status == ETSLOCK_OK && visit->staged);
        check_answer(call, status);
    }
    done_with(call);
}

/* Asks, acts, and keeps the books. The thread can be cancelled inside the library only, which must
 * not let that happen: so no book is left open.
 */
static etslock_status ask(struct call *call)
{
    etslock_key keys[MOST_KEYS + 1];
    struct visit *visit = &call->visit;
    size_t key_count = (size_t)visit->count;
    etslock_options *options = &call->options;
    etslock_result result;
    etslock_guard *guard = NULL;
    etslock_status status;
    int i, before, ignored;

    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
    for (i = 0; i < visit->count; i++) {
        keys[i].key = visit->books[i]->key;
        keys[i].key_len = visit->books[i]->key_len;
    }
    if (key_count > 1 && once_in(&call->random, 4))
        keys[key_count++] = keys[0]; /* counts once (C-18) */
    options->user_data_free = free_call;
    visit->on_worker = call->kind == CALLS_BACK && options->run_on == ETSLOCK_RUN_ON_WORKER;
    if (call->depth > 0)
        count(NESTED);
    if (options->wait_timeout_ms == 0)
        count(TRIES);
    make_pending(visit->books, visit->count);
    wait_patiently(call);
    call->asked_us = now_us();

    pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &ignored);
    if (call->kind == CALLS_BACK && key_count == 1)
        status = etslock_with_lock(call->handle, keys[0].key, keys[0].key_len, call_back, call,
                                   options, &result);
    else if (call->kind == CALLS_BACK)
        status = etslock_with_locks(call->handle, keys, key_count, call_back, call, options,
                                    &result);
    else if (key_count == 1)
        status = etslock_acquire(call->handle, keys[0].key, keys[0].key_len, options, &guard);
    else
        status = etslock_acquire_locks(call->handle, keys, key_count, options, &guard);
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &ignored);

    count(call->kind == CALLS_BACK ? key_count == 1 ? WITH_LOCK : WITH_LOCKS
                                   : key_count == 1 ? ACQUIRE : ACQUIRE_LOCKS);
    stop_waiting(call);
    if (call->kind == CALLS_BACK) {
        check_answer(call, status);
        after_callback(call, status, &result);
    } else if (status == ETSLOCK_OK) {
        int32_t code;
        enter(call, guard);
        code = act(call);
        if (!moves_on(call))
            end_guard(call, code);
    } else {
        check_answer(call, status);
        settle_pending(visit->books, visit->count, 0);
        done_with(call);
    }
    pthread_setcancelstate(before, &ignored);
    return status;
}

#endif
