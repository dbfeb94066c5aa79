/* callers.h - threads that ask: callers come and go and ask for anything in any way; players take
 * turns on keys that are theirs alone.
 */
#ifndef ETSLOCK_SOAK_CALLERS_H
#define ETSLOCK_SOAK_CALLERS_H

#include "behaviours.h"

enum { LONG_MS = 10000, SHORT_WAIT_MS = 2000, CALMLY_MS = 60000 };

#define PICK(random, ...)                                                                          \
    ((const int64_t[]){__VA_ARGS__})[draw(random, COUNT_OF(((const int64_t[]){__VA_ARGS__})))]

/* --- what to ask --- */

/* Whoever holds several keys while it waits has no deadline: it must not wait for long, and nobody
 * who holds something may.
 */
static int64_t draw_wait(uint64_t *random, const struct call *call)
{
    if (call->visit.books[0]->temper == STONE)
        return PICK(random, 1, 5, 50, 200);
    if (call->depth > 0)
        return PICK(random, 0, 1, 5, 50);
    if (call->visit.count > 1 || call->options.queue == ETSLOCK_QUEUE_POLLING)
        return PICK(random, 0, 1, 50, SHORT_WAIT_MS);
    return PICK(random, 0, 1, 5, 50, ETSLOCK_INFINITE, ETSLOCK_INFINITE, ETSLOCK_INFINITE);
}

static int suits(const struct call *call, enum behaviour behaviour)
{
    const etslock_options *options = &call->options;
    int calls_back = call->kind == CALLS_BACK;
    int on_worker = calls_back && options->run_on == ETSLOCK_RUN_ON_WORKER;
    int kills = on_worker && options->on_exec_timeout == ETSLOCK_KILL;
    if (behaviour >= LOSES && call->visit.books[0]->temper == CALM)
        return 0;
    switch (behaviour) {
    case NEST:
    case RELOCK:
        return call->depth < 2;
    case FORK:
        return !kills;
    case EXIT_THREAD:
        return on_worker;
    case LINGER:
        return on_worker && options->on_exec_timeout == ETSLOCK_ABANDON;
    case DIE:
        return kills;
    case MOVE:
    case DROP:
        return !calls_back;
    default:
        return 1;
    }
}

static enum behaviour draw_behaviour(uint64_t *random, const struct call *call)
{
    static const uint64_t weights[BEHAVIOURS] = {
        [WRITE] = 300,     [READ] = 100,   [SLEEP] = 100,       [COMMIT_TWICE] = 100,
        [ROLL_BACK] = 40,  [FAIL] = 40,    [EXTEND] = 40,       [NEST] = 60,
        [RELOCK] = 30,     [FORK] = 8,     [EXIT_THREAD] = 20,  [MOVE] = 60,
        [RUN_AWAY] = 20,   [DROP] = 20,    [SLEEP_TILL_LOST] = 10, [LINGER] = 2,
        [DIE] = 40};
    enum { ALL = 990 };
    for (;;) {
        uint64_t drawn = draw(random, ALL);
        enum behaviour behaviour = WRITE;
        while (drawn >= weights[behaviour])
            drawn -= weights[behaviour++];
        if (suits(call, behaviour))
            return behaviour;
    }
}

static void draw_owner(uint64_t *random, struct call *call)
{
    static uint64_t last_owner;
    enum behaviour behaviour = call->behaviour;
    int passed_on = behaviour == MOVE || behaviour == DROP;
    int is_itself = behaviour == RELOCK && call->kind == RETURNS_A_GUARD;
    if (passed_on || (once_in(random, 8) && !is_itself))
        call->options.owner = __atomic_add_fetch(&last_owner, 1, __ATOMIC_RELAXED);
    else if (once_in(random, 16) && behaviour != NEST && behaviour != RELOCK)
        call->options.owner = ETSLOCK_OWNER_NONE;
}

static void draw_times(uint64_t *random, struct call *call)
{
    etslock_options *options = &call->options;
    options->wait_timeout_ms = draw_wait(random, call);
    options->spin_delay_ms = (int64_t)draw(random, 3);
    if (call->visit.books[0]->temper == CALM) {
        options->exec_timeout_ms = PICK(random, ETSLOCK_INFINITE, CALMLY_MS);
        options->fail_timeout_ms = PICK(random, ETSLOCK_INFINITE, 0, 1000);
        return;
    }
    options->exec_timeout_ms = PICK(random, 1, 2, 5, 20, 50, LONG_MS);
    options->fail_timeout_ms = PICK(random, 0, 1, 5, 50);
    if (call->behaviour >= LOSES)
        options->exec_timeout_ms = PICK(random, 1, 1, 2, 2, 5, 20);
    if (once_in(random, 100))
        options->exec_timeout_ms = 0;
}

/* The rest of a question, once its first key is known. */
static void draw_question(struct call *call, int keys)
{
    struct visit *visit = &call->visit;
    const struct book *first = visit->books[0];
    etslock_options *options = &call->options;
    uint64_t *random = &call->random;
    visit->count = 1;
    while (visit->count < keys) {
        struct book *book = draw_book(random, first->table, first->temper);
        int i, known = 0;
        for (i = 0; i < visit->count; i++)
            known |= visit->books[i] == book;
        if (known)
            keys--;
        else
            visit->books[visit->count++] = book;
    }
    options->lock_table = breaks_exclusion
                              ? private_lock_tables[draw(random, PRIVATE_LOCK_TABLES)]
                              : lock_table_of(first->table);
    options->queue = (int32_t)draw(random, 3);
    options->run_on = once_in(random, 2) ? ETSLOCK_RUN_ON_WORKER : ETSLOCK_RUN_ON_CALLER;
    options->on_exec_timeout =
        (int32_t)draw(random, options->run_on == ETSLOCK_RUN_ON_WORKER ? 3 : 2);
    call->behaviour = draw_behaviour(random, call);
    draw_owner(random, call);
    draw_times(random, call);
}

static void ask_for(struct book *book, etslock_table *handle, int keys, uint64_t *random, int depth)
{
    struct call *call = begin_call(once_in(random, 2) ? CALLS_BACK : RETURNS_A_GUARD, depth,
                                   draw(random, UINT64_MAX) | 1);
    call->handle = handle;
    call->visit.books[0] = book;
    draw_question(call, keys);
    ask(call);
}

/* From inside. */
static void ask_for_any(uint64_t *random, int depth)
{
    int table = (int)draw(random, TABLES);
    ask_for(draw_book(random, table, WILD), tables[table], 1 + (int)draw(random, 2), random, depth);
}

/* --- callers --- */

struct caller {
    pthread_t thread;
    uint64_t random;
    int leaves; /* __atomic */
    etslock_table *handles[TABLES];
};

/* Nobody else has a fresh key, and nothing is left of it. */
static void ask_for_a_fresh_key(struct caller *caller)
{
    static uint64_t last;
    etslock_table *table = caller->handles[draw(&caller->random, TABLES)];
    etslock_options options = options_of(0, CALMLY_MS, ETSLOCK_INFINITE);
    etslock_guard *guard = NULL;
    char key[32];
    size_t len = (size_t)snprintf(key, sizeof key, "fresh %llu",
                                  (unsigned long long)__atomic_add_fetch(&last, 1,
                                                                         __ATOMIC_RELAXED));
    count(FRESH_KEYS);
    if (once_in(&caller->random, 2)) {
        options.run_on = once_in(&caller->random, 2) ? ETSLOCK_RUN_ON_WORKER
                                                      : ETSLOCK_RUN_ON_CALLER;
        if (etslock_with_lock(table, key, len, do_nothing, NULL, &options, NULL) != ETSLOCK_OK)
            report(WRONG_ANSWER, "%s was not had", key);
    } else if (etslock_acquire(table, key, len, &options, &guard) != ETSLOCK_OK ||
               etslock_guard_insert(guard, key, len, "v", 1) != ETSLOCK_OK ||
               etslock_guard_commit(guard) != ETSLOCK_OK ||
               etslock_table_member(table, key, len) != ETSLOCK_OK ||
               etslock_guard_delete(guard, key, len) != ETSLOCK_OK ||
               etslock_guard_release(guard) != ETSLOCK_OK ||
               etslock_table_member(table, key, len) != ETSLOCK_NOT_FOUND) {
        report(WRONG_ANSWER, "%s was not had, written and deleted", key);
    }
}

static void *ask_and_ask(void *argument)
{
    struct caller *caller = argument;
    uint64_t *random = &caller->random;
    int ignored;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &ignored);
    while (!__atomic_load_n(&caller->leaves, __ATOMIC_RELAXED)) {
        int table = (int)draw(random, TABLES), kind = (int)draw(random, 16);
        enum temper temper = kind < 10 ? WILD : kind < 13 ? CALM : STONE;
        int keys = temper != STONE && once_in(random, 5) ? 2 + (int)draw(random, MOST_KEYS - 1) : 1;
        if (kind == 15)
            ask_for_a_fresh_key(caller);
        else
            ask_for(draw_book(random, table, temper), caller->handles[table], keys, random, 0);
        pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &ignored);
        pthread_testcancel();
        pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &ignored);
    }
    return NULL;
}

static void start_caller(struct caller *caller)
{
    int table;
    caller->leaves = 0;
    for (table = 0; table < TABLES; table++)
        REQUIRE(etslock_table_open(table_names[table], &caller->handles[table]) == ETSLOCK_OK);
    REQUIRE(pthread_create(&caller->thread, NULL, ask_and_ask, caller) == 0);
    count(CALLERS);
}

static void end_caller(struct caller *caller, int cancel)
{
    int table;
    __atomic_store_n(&caller->leaves, !cancel, __ATOMIC_RELAXED);
    if (cancel)
        pthread_cancel(caller->thread);
    pthread_join(caller->thread, NULL);
    for (table = 0; table < TABLES; table++)
        etslock_table_free(caller->handles[table]);
    if (cancel)
        count(CANCELLED);
}

/* --- players --- */

/* All ask for one key at about the same time, and nobody asks again before all have had it. So a
 * waiter that is not woken sleeps on: no later release helps it.
 */
enum { PLAYERS = 3 };

struct player {
    pthread_t thread;
    uint64_t random;
    int leads;
};

static pthread_barrier_t turn;
static int turn_table, turns_end; /* written by the leader, read after the barrier */

static void play(uint64_t *random, int64_t wait_ms)
{
    struct call *call = begin_call(once_in(random, 2) ? CALLS_BACK : RETURNS_A_GUARD, 0,
                                   draw(random, UINT64_MAX) | 1);
    call->handle = tables[turn_table];
    call->visit.books[0] = &books[turn_table][TURNED];
    draw_question(call, 1);
    call->options.queue = once_in(random, 2) ? ETSLOCK_QUEUE_FAIR : ETSLOCK_QUEUE_FIFO;
    call->options.wait_timeout_ms = wait_ms;
    ask(call);
}

static void *take_turns(void *argument)
{
    struct player *player = argument;
    uint64_t *random = &player->random;
    for (;;) {
        if (player->leads) {
            turn_table = (int)draw(random, TABLES);
            turns_end = is_stopping();
            count(TURNS);
        }
        pthread_barrier_wait(&turn);
        if (turns_end)
            return NULL;
        if (once_in(random, 4)) /* gives up, perhaps as the head of the queue */
            play(random, PICK(random, 0, 1, 5));
        play(random, ETSLOCK_INFINITE);
        pthread_barrier_wait(&turn);
    }
}

#endif
