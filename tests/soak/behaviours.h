/* behaviours.h - what holders do: write, sleep, fail, nest, run away, end their thread, die; and
 * guards in other hands: moved to another thread, or dropped.
 */
#ifndef ETSLOCK_SOAK_BEHAVIOURS_H
#define ETSLOCK_SOAK_BEHAVIOURS_H

#include "../c/threads.h"
#include "children.h"

/* --- asking from inside --- */

static void ask_for_any(uint64_t *random, int depth);

/* The same lock again: somebody who holds it cannot wait for it (C-13). */
static void relock(struct call *outer)
{
    struct call *call = begin_call(RETURNS_A_GUARD, outer->depth + 1, outer->random);
    etslock_status status;
    int waits = !once_in(&outer->random, 4);
    call->behaviour = READ;
    call->handle = tables[outer->visit.books[0]->table];
    call->visit.books[0] = outer->visit.books[0];
    call->visit.count = 1;
    call->options.lock_table = outer->options.lock_table;
    call->options.wait_timeout_ms = waits ? 50 : 0;
    status = ask(call);
    if (status != (waits ? ETSLOCK_DEADLOCK : ETSLOCK_WAIT_TIMEOUT) && in_force(&outer->visit))
        report(WRONG_ANSWER, "%s for one's own %s", etslock_status_name(status),
               outer->visit.books[0]->key);
}

/* --- running away --- */

/* A lost guard takes nothing any more, however often it is asked. */
static void write_late(struct call *call)
{
    struct visit *visit = &call->visit;
    const struct book *book = visit->books[0];
    const struct row row = {visit->rows[0].count + 1, visit->token};
    if (breaks_the_fence) /* an unguarded write instead */
        etslock_table_insert(tables[book->table], book->key, book->key_len, &row, sizeof row);
    is_live(visit, etslock_guard_insert(visit->guard, book->key, book->key_len, &row, sizeof row));
    is_live(visit, etslock_guard_commit(visit->guard));
    is_live(visit, etslock_guard_extend(visit->guard, 1000));
    is_live(visit, etslock_guard_status(visit->guard));
}

static int32_t run_away(struct call *call)
{
    struct visit *visit = &call->visit;
    int times = 1 + (int)draw(&call->random, 4);
    stage(visit);
    while (in_force(visit))
        if (once_in(&call->random, 2))
            sleep_us((int64_t)draw(&call->random, 1000));
    while (times-- > 0) {
        write_late(call);
        sleep_us((int64_t)draw(&call->random, 5000));
    }
    count(RAN_AWAY);
    return 0;
}

static int32_t sleep_till_lost(struct call *call)
{
    struct visit *visit = &call->visit;
    stage(visit);
    if (is_live(visit, etslock_guard_sleep(visit->guard, ETSLOCK_INFINITE)))
        report(WRONG_TIME, "a sleep without end ended");
    write_late(call);
    return 0;
}

/* For longer than its caller may be kept (C-4); a few at a time, since each costs a thread. */
static int32_t linger(struct call *call)
{
    enum { LINGERS_MS = 8000, MOST = 4 };
    static int lingering;
    int64_t end = now_ms() + LINGERS_MS;
    stage(&call->visit);
    if (__atomic_fetch_add(&lingering, 1, __ATOMIC_RELAXED) < MOST) {
        count(LINGERED);
        while (now_ms() < end && !is_stopping())
            sleep_ms(10);
        while (in_force(&call->visit))
            sleep_ms(1);
        write_late(call);
    }
    __atomic_fetch_sub(&lingering, 1, __ATOMIC_RELAXED);
    return 0;
}

/* Killed in its sleep, unless its lock is taken away by force: then nobody kills it (C-11). */
static int32_t die(struct call *call)
{
    enum { LIVES_MS = 20000 };
    int64_t end = now_ms() + LIVES_MS;
    uint64_t status;
    stage(&call->visit);
    do {
        sleep_ms(2);
        status = load(&call->status);
    } while (now_ms() < end && (status == NO_STATUS || status == ETSLOCK_EXEC_TIMEOUT));
    return 0;
}

/* --- what a holder does --- */

/* What the callback returns, or whether the guard is to be released: 0 for success. */
static int32_t act(struct call *call)
{
    struct visit *visit = &call->visit;
    uint64_t *random = &call->random;
    switch (call->behaviour) {
    case READ:
        break;
    case SLEEP:
        sleep_us((int64_t)draw(random, once_in(random, 4) ? 3000 : 100));
        check_alone(visit);
        if (once_in(random, 4))
            is_live(visit, etslock_guard_sleep(visit->guard, (int64_t)draw(random, 3)));
        stage(visit);
        break;
    case COMMIT_TWICE:
        if (stage(visit) && commit(visit))
            check_alone(visit);
        stage(visit);
        check_staged(visit);
        break;
    case ROLL_BACK:
        stage(visit);
        is_live(visit, etslock_guard_rollback(visit->guard));
        visit->staged = 0;
        break;
    case EXTEND:
        is_live(visit, etslock_guard_extend(visit->guard, 20));
        sleep_us((int64_t)draw(random, 500));
        stage(visit);
        break;
    case NEST:
        ask_for_any(random, call->depth + 1);
        check_alone(visit);
        stage(visit);
        break;
    case RELOCK:
        relock(call);
        stage(visit);
        break;
    case FORK:
        fork_and_check(call);
        stage(visit);
        break;
    case RUN_AWAY:
        return run_away(call);
    case SLEEP_TILL_LOST:
        return sleep_till_lost(call);
    case LINGER:
        return linger(call);
    case DIE:
        return die(call);
    default:
        stage(visit);
    }
    if (call->behaviour == MOVE || call->behaviour == DROP)
        return 0; /* the visit goes on in other hands */
    end_visit(visit);
    if (call->behaviour == EXIT_THREAD) {
        store(&call->ended, ENDED_THREAD);
        count(EXITED);
        pthread_exit(NULL);
    }
    return call->behaviour == FAIL ? FAILS_WITH : 0;
}

/* --- guards in other hands --- */

/* Calls whose guards are passed on: at once, or when nobody is interested in them any more. */
struct hands {
    pthread_mutex_t mutex;
    sem_t given;
    struct call *calls[64];
    int64_t due_us[64];
    int count;
};

static struct hands mover = {PTHREAD_MUTEX_INITIALIZER, {{0}}, {0}, {0}, 0};
static struct hands attic = {PTHREAD_MUTEX_INITIALIZER, {{0}}, {0}, {0}, 0};

static sem_t attic_closes;

static int give(struct hands *hands, struct call *call, int64_t due_us)
{
    int given;
    pthread_mutex_lock(&hands->mutex);
    given = hands->count < (int)COUNT_OF(hands->calls);
    if (given) {
        hands->calls[hands->count] = call;
        hands->due_us[hands->count++] = due_us;
    }
    pthread_mutex_unlock(&hands->mutex);
    if (given)
        sem_post(&hands->given);
    return given;
}

/* One that is due, or NULL. */
static struct call *take(struct hands *hands, int64_t now)
{
    struct call *call = NULL;
    int i;
    pthread_mutex_lock(&hands->mutex);
    for (i = 0; i < hands->count && call == NULL; i++) {
        if (hands->due_us[i] > now)
            continue;
        call = hands->calls[i];
        hands->calls[i] = hands->calls[--hands->count];
        hands->due_us[i] = hands->due_us[hands->count];
    }
    pthread_mutex_unlock(&hands->mutex);
    return call;
}

static int moves_on(struct call *call)
{
    /* Long after the release time: whoever waits takes the lock by then, or never wakes. */
    enum { FORGOTTEN_US = 10000000 };
    struct visit *visit = &call->visit;
    if (call->behaviour == MOVE) {
        if (give(&mover, call, 0))
            return 1;
        end_visit(visit);
    } else if (call->behaviour == DROP) {
        /* From here on nothing that was staged may land. */
        settle_pending(visit->books, visit->count, 0);
        if (give(&attic, call, now_us() + FORGOTTEN_US)) {
            count(DROPPED);
            return 1;
        }
        make_pending(visit->books, visit->count);
    }
    return 0;
}

/* The thread that guards are moved to. */
static void *move_guards(void *unused)
{
    struct call *call;
    (void)unused;
    do {
        sem_wait(&mover.given);
        call = take(&mover, INT64_MAX);
        if (call != NULL) {
            count(MOVED);
            check_staged(&call->visit);
            end_visit(&call->visit);
            end_guard(call, 0);
        }
    } while (call != NULL);
    return NULL;
}

/* The thread that ends dropped guards: they have lost their locks, or are about to. */
static void *end_dropped_guards(void *unused)
{
    enum { RELEASED_MS = 500 }; /* more than any dropped guard's exec and fail timeout together */
    struct call *call;
    int ends = 0;
    (void)unused;
    while (!ends) {
        ends = sem_trywait(&attic_closes) == 0;
        sleep_ms(ends ? RELEASED_MS : 10);
        while ((call = take(&attic, ends ? INT64_MAX : now_us())) != NULL) {
            if (in_force(&call->visit))
                report(WRONG_TIME, "a dropped guard for %s is live for ever",
                       call->visit.books[0]->key);
            write_late(call);
            make_pending(call->visit.books, call->visit.count);
            end_guard(call, 0);
        }
    }
    return NULL;
}

#endif
