/* deadlock.c - waits that only a timeout could end are refused at once. Checks C-13.
 *
 * Nearly every wait here is infinite: an undetected cycle hangs, and the alarm in `main` makes
 * that a failure. "At once" is checked against finite waits of a minute.
 */
#include "check.h"
#include "locks.h"

#include <pthread.h>
#include <semaphore.h>
#include <unistd.h>

static etslock_status acquire(etslock_table *table, const char *key, uint64_t owner,
                              int64_t wait_timeout_ms, etslock_guard **out_guard)
{
    etslock_options options = patient(NULL);
    options.owner = owner;
    options.wait_timeout_ms = wait_timeout_ms;
    return etslock_acquire(table, key, strlen(key), &options, out_guard);
}

static etslock_guard *hold_as(etslock_table *table, const char *key, uint64_t owner)
{
    etslock_guard *guard = NULL;
    REQUIRE(acquire(table, key, owner, ETSLOCK_INFINITE, &guard) == ETSLOCK_OK);
    return guard;
}

/* A thread that takes `first`, says so, and waits for `second` for ever. */
struct party {
    pthread_t thread;
    etslock_table *table;
    const char *first; /* NULL: takes nothing first */
    const char *second;
    uint64_t owner;
    int32_t run_on; /* for parties that call back */
    sem_t holds;
    etslock_status status;
};

static void *take_both(void *argument)
{
    struct party *party = argument;
    etslock_guard *first = NULL;
    etslock_guard *second = NULL;
    if (party->first != NULL)
        first = hold_as(party->table, party->first, party->owner);
    sem_post(&party->holds);
    party->status = acquire(party->table, party->second, party->owner, ETSLOCK_INFINITE, &second);
    if (party->status == ETSLOCK_OK)
        CHECK_STATUS(etslock_guard_release(second), ETSLOCK_OK);
    if (first != NULL)
        etslock_guard_release(first); /* REVOKED in some tests */
    return NULL;
}

static void start_party(struct party *party, etslock_table *table, const char *first,
                        const char *second, uint64_t owner)
{
    memset(party, 0, sizeof *party);
    party->table = table;
    party->first = first;
    party->second = second;
    party->owner = owner;
    REQUIRE(sem_init(&party->holds, 0, 0) == 0);
    REQUIRE(pthread_create(&party->thread, NULL, take_both, party) == 0);
    REQUIRE(sem_wait(&party->holds) == 0);
}

static void end_party(struct party *party, etslock_status wanted)
{
    REQUIRE(pthread_join(party->thread, NULL) == 0);
    CHECK_STATUS(party->status, wanted);
    sem_destroy(&party->holds);
}

/* A waiter is found in a cycle once it is registered, a moment after it has joined the queue. `all`
 * are registered then.
 */
static void await_waiter(etslock_table *table, const char *key, uint64_t all)
{
    await_queue(NULL, table, key, 1);
    await_waiting(NULL, all);
}

static void two_threads(void)
{
    etslock_table *table = new_table();
    etslock_guard *b = hold_as(table, "b", 0);
    etslock_guard *refused = b;
    struct party other;
    uint64_t deadlocks = stats_of(NULL).deadlocks;
    int64_t begin;

    CASE("C-13: a cycle of two threads: the closer is refused at once, the other goes on");
    start_party(&other, table, "a", "b", 0);
    await_waiter(table, "b", 1);
    begin = now_ms();
    CHECK_STATUS(acquire(table, "a", 0, 60000, &refused), ETSLOCK_DEADLOCK);
    CHECK(now_ms() - begin < 10000);
    CHECK(refused == NULL);
    CHECK_STATUS(acquire(table, "a", 0, ETSLOCK_INFINITE, &refused), ETSLOCK_DEADLOCK);
    CHECK(stats_of(NULL).deadlocks == deadlocks + 2);

    CASE("C-13: with a wait timeout of 0 nothing waits");
    CHECK_STATUS(acquire(table, "a", 0, 0, &refused), ETSLOCK_WAIT_TIMEOUT);
    CHECK_STATUS(acquire(table, "b", 0, 0, &refused), ETSLOCK_WAIT_TIMEOUT);
    CHECK(stats_of(NULL).deadlocks == deadlocks + 2);
    CHECK(queue_length(NULL, table, "b") == 1 && queue_length(NULL, table, "a") == 0);

    CASE("C-13: the closer's other calls on the key are refused as well");
    {
        const etslock_key keys[] = {{"free", 4}, {"a", 1}};
        etslock_options options = patient(NULL);
        options.run_on = ETSLOCK_RUN_ON_CALLER;
        CHECK_STATUS(etslock_with_lock(table, "a", 1, do_nothing, NULL, &options, NULL),
                     ETSLOCK_DEADLOCK);
        options.run_on = ETSLOCK_RUN_ON_WORKER;
        CHECK_STATUS(etslock_with_lock(table, "a", 1, do_nothing, NULL, &options, NULL),
                     ETSLOCK_DEADLOCK);
        CHECK_STATUS(etslock_acquire_locks(table, keys, 2, &options, &refused), ETSLOCK_DEADLOCK);
        CHECK(refused == NULL);
        CHECK(count_locks(NULL, table) == 2);
    }

    CHECK_STATUS(etslock_guard_release(b), ETSLOCK_OK);
    end_party(&other, ETSLOCK_OK);
    CHECK(count_locks(NULL, table) == 0);
    etslock_table_free(table);
}

static void three_threads(void)
{
    etslock_table *table = new_table();
    etslock_guard *c = hold_as(table, "c", 0);
    etslock_guard *guard = NULL;
    struct party one;
    struct party two;

    CASE("C-13: a cycle of three threads");
    start_party(&two, table, "b", "c", 0);
    await_waiter(table, "c", 1);
    start_party(&one, table, "a", "b", 0);
    await_waiter(table, "b", 2);
    CHECK_STATUS(acquire(table, "a", 0, ETSLOCK_INFINITE, &guard), ETSLOCK_DEADLOCK);
    CHECK_STATUS(acquire(table, "b", 0, ETSLOCK_INFINITE, &guard), ETSLOCK_DEADLOCK);
    CHECK_STATUS(etslock_guard_release(c), ETSLOCK_OK);
    end_party(&two, ETSLOCK_OK);
    end_party(&one, ETSLOCK_OK);

    CASE("C-13: once the cycle is gone the same wait succeeds");
    CHECK_STATUS(acquire(table, "a", 0, ETSLOCK_INFINITE, &guard), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    etslock_table_free(table);
}

static void a_key_of_several(void)
{
    const etslock_key keys[] = {{"a", 1}, {"a2", 2}, {"a3", 2}};
    static const char *const names[] = {"a", "a2", "a3"};
    etslock_table *table = new_table();
    etslock_options options = patient(NULL);
    size_t i;

    CASE("C-13: a cycle through any key of a guard with several");
    for (i = 0; i < 3; i++) {
        etslock_guard *several = NULL;
        etslock_guard *guard = NULL;
        struct party other;
        CHECK_STATUS(etslock_acquire_locks(table, keys, 3, &options, &several), ETSLOCK_OK);
        start_party(&other, table, "b", names[i], 0);
        await_waiter(table, names[i], 1);
        CHECK_STATUS(acquire(table, "b", 0, ETSLOCK_INFINITE, &guard), ETSLOCK_DEADLOCK);
        CHECK_STATUS(etslock_guard_release(several), ETSLOCK_OK);
        end_party(&other, ETSLOCK_OK);
    }
    etslock_table_free(table);
}

/* Nested callbacks: each level locks the next name of `path`; the innermost tries `wanted`. */
struct nest {
    etslock_table *table;
    const char *const *path; /* ends with NULL */
    const char *wanted;
    int32_t run_on;
    int entered;
    etslock_status status;
};

static int32_t go_deeper(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                         void *user_data)
{
    struct nest *nest = user_data;
    etslock_options options = patient(NULL);
    (void)guard, (void)tuples, (void)tuple_count;
    options.run_on = nest->run_on;
    nest->entered++;
    if (*nest->path != NULL) {
        const char *key = *nest->path++;
        CHECK_STATUS(etslock_with_lock(nest->table, key, strlen(key), go_deeper, nest, &options,
                                       NULL),
                     ETSLOCK_OK);
    } else {
        etslock_guard *inner = NULL;
        nest->status = acquire(nest->table, nest->wanted, 0, ETSLOCK_INFINITE, &inner);
        if (nest->status == ETSLOCK_OK)
            etslock_guard_release(inner);
    }
    return 0;
}

static void own_key_in_nested_callbacks(void)
{
    static const char *const path[] = {"a", "b", "c", NULL};
    static const char *const wanted[] = {"a", "b", "c", "mine", "d"};
    etslock_table *table = new_table();
    etslock_guard *mine = hold_as(table, "mine", 0);
    size_t i;

    CASE("C-13: a callback's wait for a key of its call, or of who waits for it, at any depth");
    for (i = 0; i < 10; i++) {
        struct nest nest;
        memset(&nest, 0, sizeof nest);
        nest.table = table;
        nest.path = path;
        nest.wanted = wanted[i / 2];
        nest.run_on = i % 2 == 0 ? ETSLOCK_RUN_ON_WORKER : ETSLOCK_RUN_ON_CALLER;
        go_deeper(NULL, NULL, 0, &nest);
        CHECK(nest.entered == 4);
        CHECK_STATUS(nest.status, strcmp(nest.wanted, "d") == 0 ? ETSLOCK_OK : ETSLOCK_DEADLOCK);
        CHECK(count_locks(NULL, table) == 1);
    }

    CASE("C-13: a call for a key that the calling thread holds itself");
    {
        etslock_options options = patient(NULL);
        CHECK_STATUS(etslock_with_lock(table, "mine", 4, do_nothing, NULL, &options, NULL),
                     ETSLOCK_DEADLOCK);
        options.run_on = ETSLOCK_RUN_ON_CALLER;
        CHECK_STATUS(etslock_with_lock(table, "mine", 4, do_nothing, NULL, &options, NULL),
                     ETSLOCK_DEADLOCK);
    }
    CHECK_STATUS(etslock_guard_release(mine), ETSLOCK_OK);
    etslock_table_free(table);
}

/* A callback that holds "b" closes a cycle with another callback that holds "a". */
static int32_t close_the_cycle(etslock_guard *guard, const etslock_tuple *tuples,
                               size_t tuple_count, void *user_data)
{
    struct nest *nest = user_data;
    etslock_guard *inner = NULL;
    (void)guard, (void)tuples, (void)tuple_count;
    nest->entered++;
    await_waiter(nest->table, "b", 1);
    nest->status = acquire(nest->table, "a", 0, ETSLOCK_INFINITE, &inner);
    return 0;
}

static int32_t say_held_then_take_b(etslock_guard *guard, const etslock_tuple *tuples,
                                    size_t tuple_count, void *user_data)
{
    struct party *party = user_data;
    etslock_options options = patient(NULL);
    (void)guard, (void)tuples, (void)tuple_count;
    sem_post(&party->holds);
    WAIT_UNTIL(count_locks(NULL, party->table) == 2);
    party->status = etslock_with_lock(party->table, "b", 1, do_nothing, NULL, &options, NULL);
    return 0;
}

static void *take_both_in_callbacks(void *argument)
{
    struct party *party = argument;
    etslock_options options = patient(NULL);
    options.run_on = party->run_on;
    CHECK_STATUS(etslock_with_lock(party->table, "a", 1, say_held_then_take_b, party, &options,
                                   NULL),
                 ETSLOCK_OK);
    return NULL;
}

static void two_callbacks(void)
{
    etslock_table *table = new_table();
    int i;

    CASE("C-13: a cycle of two callbacks, each on a worker or on its caller's thread");
    for (i = 0; i < 4; i++) {
        struct party party;
        struct nest nest;
        etslock_options options = patient(NULL);
        memset(&party, 0, sizeof party);
        memset(&nest, 0, sizeof nest);
        party.table = nest.table = table;
        party.run_on = i % 2 == 0 ? ETSLOCK_RUN_ON_WORKER : ETSLOCK_RUN_ON_CALLER;
        options.run_on = i / 2 == 0 ? ETSLOCK_RUN_ON_WORKER : ETSLOCK_RUN_ON_CALLER;
        REQUIRE(sem_init(&party.holds, 0, 0) == 0);
        REQUIRE(pthread_create(&party.thread, NULL, take_both_in_callbacks, &party) == 0);
        REQUIRE(sem_wait(&party.holds) == 0);
        CHECK_STATUS(etslock_with_lock(table, "b", 1, close_the_cycle, &nest, &options, NULL),
                     ETSLOCK_OK);
        CHECK(nest.entered == 1);
        CHECK_STATUS(nest.status, ETSLOCK_DEADLOCK);
        end_party(&party, ETSLOCK_OK);
    }
    CHECK(count_locks(NULL, table) == 0);
    etslock_table_free(table);
}

/* A thread that holds "a" and runs a callback under "b" on a worker, which waits for "c". */
static int32_t wait_for_c(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                          void *user_data)
{
    struct party *party = user_data;
    etslock_guard *c = NULL;
    (void)guard, (void)tuples, (void)tuple_count;
    party->status = acquire(party->table, "c", 0, ETSLOCK_INFINITE, &c);
    if (party->status == ETSLOCK_OK)
        CHECK_STATUS(etslock_guard_release(c), ETSLOCK_OK);
    return 0;
}

static void *hold_a_and_call_under_b(void *argument)
{
    struct party *party = argument;
    etslock_options options = patient(NULL);
    etslock_guard *a = hold_as(party->table, "a", 0);
    CHECK_STATUS(etslock_with_lock(party->table, "b", 1, wait_for_c, party, &options, NULL),
                 ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_release(a), ETSLOCK_OK);
    return NULL;
}

static void a_cycle_through_a_waiting_caller(void)
{
    etslock_table *table = new_table();
    etslock_guard *c = hold_as(table, "c", 0);
    etslock_guard *guard = NULL;
    struct party party;

    CASE("C-13: a cycle through a caller that waits for its callback");
    memset(&party, 0, sizeof party);
    party.table = table;
    REQUIRE(sem_init(&party.holds, 0, 0) == 0);
    REQUIRE(pthread_create(&party.thread, NULL, hold_a_and_call_under_b, &party) == 0);
    await_waiter(table, "c", 1);
    CHECK_STATUS(acquire(table, "a", 0, ETSLOCK_INFINITE, &guard), ETSLOCK_DEADLOCK);
    CHECK_STATUS(acquire(table, "b", 0, ETSLOCK_INFINITE, &guard), ETSLOCK_DEADLOCK);
    CHECK_STATUS(etslock_guard_release(c), ETSLOCK_OK);
    end_party(&party, ETSLOCK_OK);
    etslock_table_free(table);
}

static void logical_owners(void)
{
    etslock_table *table = new_table();
    etslock_guard *a = hold_as(table, "a", 7);
    etslock_guard *b;
    etslock_guard *guard = NULL;
    struct party party;
    int64_t begin = now_ms();

    CASE("C-13: two logical owners on one thread are two: a wait, and its timeout");
    CHECK_STATUS(acquire(table, "a", 8, 50, &guard), ETSLOCK_WAIT_TIMEOUT);
    CHECK(now_ms() - begin >= 48);
    CHECK_STATUS(acquire(table, "a", 0, 20, &guard), ETSLOCK_WAIT_TIMEOUT);

    CASE("C-13: a key that its own logical owner holds");
    CHECK_STATUS(acquire(table, "a", 7, ETSLOCK_INFINITE, &guard), ETSLOCK_DEADLOCK);

    CASE("C-13: one logical owner on two threads is one");
    start_party(&party, table, NULL, "a", 7);
    end_party(&party, ETSLOCK_DEADLOCK);

    CASE("C-13: a cycle of logical owners, one of them spread over two threads");
    b = hold_as(table, "b", 8);
    start_party(&party, table, NULL, "b", 7);
    await_waiter(table, "b", 1);
    CHECK_STATUS(acquire(table, "a", 8, ETSLOCK_INFINITE, &guard), ETSLOCK_DEADLOCK);
    CHECK_STATUS(etslock_guard_release(b), ETSLOCK_OK);
    end_party(&party, ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_release(a), ETSLOCK_OK);

    CASE("C-13: a logical owner and a thread");
    a = hold_as(table, "a", 0);
    start_party(&party, table, "b", "a", 9);
    await_waiter(table, "a", 1);
    CHECK_STATUS(acquire(table, "b", 0, ETSLOCK_INFINITE, &guard), ETSLOCK_DEADLOCK);
    CHECK_STATUS(acquire(table, "b", 10, 20, &guard), ETSLOCK_WAIT_TIMEOUT);
    CHECK_STATUS(etslock_guard_release(a), ETSLOCK_OK);
    end_party(&party, ETSLOCK_OK);
    CHECK(count_locks(NULL, table) == 0);
    etslock_table_free(table);
}

static int32_t take_own_keys(etslock_guard *guard, const etslock_tuple *tuples,
                             size_t tuple_count, void *user_data)
{
    etslock_table *table = user_data;
    etslock_guard *inner = NULL;
    (void)guard, (void)tuples, (void)tuple_count;
    CHECK_STATUS(acquire(table, "a", 0, ETSLOCK_INFINITE, &inner), ETSLOCK_DEADLOCK);
    CHECK_STATUS(acquire(table, "mine", 0, ETSLOCK_INFINITE, &inner), ETSLOCK_DEADLOCK);
    return 0;
}

static void the_callback_of_a_logical_owner(void)
{
    etslock_table *table = new_table();
    etslock_guard *mine = hold_as(table, "mine", 7);
    etslock_options options = patient(NULL);
    int run_on;

    CASE("C-13: the owner of a callback is its call, with the logical owner that waits for it");
    options.owner = 7;
    for (run_on = ETSLOCK_RUN_ON_WORKER; run_on <= ETSLOCK_RUN_ON_CALLER; run_on++) {
        options.run_on = run_on;
        CHECK_STATUS(etslock_with_lock(table, "a", 1, take_own_keys, table, &options, NULL),
                     ETSLOCK_OK);
    }
    CHECK_STATUS(etslock_guard_release(mine), ETSLOCK_OK);
    etslock_table_free(table);
}

static void no_owner(void)
{
    etslock_table *table = new_table();
    etslock_guard *a = hold_as(table, "a", ETSLOCK_OWNER_NONE);
    etslock_guard *b;
    etslock_guard *guard = NULL;
    struct party party;
    uint64_t deadlocks = stats_of(NULL).deadlocks;
    int64_t begin = now_ms();

    CASE("C-13: ETSLOCK_OWNER_NONE takes no part: a wait lasts until its timeout");
    CHECK_STATUS(acquire(table, "a", ETSLOCK_OWNER_NONE, 50, &guard), ETSLOCK_WAIT_TIMEOUT);
    CHECK(now_ms() - begin >= 48);
    CHECK_STATUS(acquire(table, "a", 0, 20, &guard), ETSLOCK_WAIT_TIMEOUT);
    b = hold_as(table, "b", 0);
    CHECK_STATUS(acquire(table, "b", ETSLOCK_OWNER_NONE, 20, &guard), ETSLOCK_WAIT_TIMEOUT);
    start_party(&party, table, "c", "b", ETSLOCK_OWNER_NONE);
    await_waiter(table, "b", 1);
    CHECK_STATUS(acquire(table, "c", 0, 20, &guard), ETSLOCK_WAIT_TIMEOUT);
    CHECK(stats_of(NULL).deadlocks == deadlocks);
    CHECK_STATUS(etslock_guard_release(b), ETSLOCK_OK);
    end_party(&party, ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_release(a), ETSLOCK_OK);
    etslock_table_free(table);
}

static void a_revoked_guard_leaves_the_graph(void)
{
    etslock_table *table = new_table();
    etslock_guard *a = hold_as(table, "a", 0);
    etslock_guard *successor = NULL;
    etslock_guard *guard = NULL;
    struct party party;

    CASE("C-13: a revoked guard leaves the graph at once");
    start_party(&party, table, "b", "a", 0);
    await_waiter(table, "a", 1);
    CHECK_STATUS(acquire(table, "b", 0, ETSLOCK_INFINITE, &guard), ETSLOCK_DEADLOCK);
    CHECK_STATUS(etslock_lock_table_force_release(NULL, table, "b", 1), ETSLOCK_OK);
    /* The party waits on with a guard that is worth nothing; "b" belongs to somebody else. */
    successor = hold_as(table, "b", 99);
    CHECK_STATUS(acquire(table, "b", 0, 20, &guard), ETSLOCK_WAIT_TIMEOUT);
    CHECK_STATUS(etslock_guard_release(successor), ETSLOCK_OK);
    CHECK_STATUS(acquire(table, "b", 0, ETSLOCK_INFINITE, &guard), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_release(a), ETSLOCK_OK);
    end_party(&party, ETSLOCK_OK);
    etslock_table_free(table);
}

/* A callback that outlives its call, then waits for a key of the thread that had called it. */
struct outliving {
    etslock_table *table;
    sem_t may_wait;
    sem_t waited;
    etslock_status status;
};

static int32_t outlive(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                       void *user_data)
{
    struct outliving *outliving = user_data;
    etslock_guard *mine = NULL;
    (void)guard, (void)tuples, (void)tuple_count;
    sem_wait(&outliving->may_wait);
    outliving->status = acquire(outliving->table, "mine", 0, ETSLOCK_INFINITE, &mine);
    if (outliving->status == ETSLOCK_OK)
        etslock_guard_release(mine);
    return 0;
}

static void post_waited(void *user_data)
{
    struct outliving *outliving = user_data;
    sem_post(&outliving->waited);
}

static void an_abandoned_callback_leaves_the_graph(void)
{
    etslock_table *table = new_table();
    etslock_guard *mine = hold_as(table, "mine", 0);
    etslock_guard *guard = NULL;
    etslock_options options = patient(NULL);
    struct outliving outliving;

    CASE("C-13: nobody waits for an abandoned callback, and it holds nothing");
    memset(&outliving, 0, sizeof outliving);
    outliving.table = table;
    REQUIRE(sem_init(&outliving.may_wait, 0, 0) == 0 && sem_init(&outliving.waited, 0, 0) == 0);
    options.exec_timeout_ms = 30;
    options.user_data_free = post_waited;
    CHECK_STATUS(etslock_with_lock(table, "a", 1, outlive, &outliving, &options, NULL),
                 ETSLOCK_EXEC_TIMEOUT);
    sem_post(&outliving.may_wait);
    await_waiter(table, "mine", 1);
    CHECK_STATUS(acquire(table, "a", 0, ETSLOCK_INFINITE, &guard), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_release(mine), ETSLOCK_OK);
    REQUIRE(sem_wait(&outliving.waited) == 0);
    CHECK_STATUS(outliving.status, ETSLOCK_OK);
    sem_destroy(&outliving.may_wait);
    sem_destroy(&outliving.waited);
    etslock_table_free(table);
}

/* Pairs of locks by many threads. */
enum { THREADS = 6, PAIRS = 150, KEYS = 5 };

struct crowd {
    pthread_t thread;
    etslock_table *table;
    uint32_t random;
    int ascending;
    int nested; /* the second lock inside a callback of the first */
    int32_t run_on;
    int finished;
    const char *second;
};

static const char crowd_keys[KEYS][2] = {"0", "1", "2", "3", "4"};

static void check_crowd_status(const struct crowd *crowd, etslock_status status)
{
    if (crowd->ascending)
        CHECK_STATUS(status, ETSLOCK_OK);
    else
        CHECK(status == ETSLOCK_OK || status == ETSLOCK_DEADLOCK);
}

static void take_second(const struct crowd *crowd)
{
    etslock_guard *guard = NULL;
    etslock_status status = acquire(crowd->table, crowd->second, 0, ETSLOCK_INFINITE, &guard);
    check_crowd_status(crowd, status);
    if (status == ETSLOCK_OK)
        CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
}

static int32_t take_second_inside(etslock_guard *guard, const etslock_tuple *tuples,
                                  size_t tuple_count, void *user_data)
{
    (void)guard, (void)tuples, (void)tuple_count;
    sched_yield();
    take_second(user_data);
    return 0;
}

static void *run_crowd(void *argument)
{
    struct crowd *crowd = argument;
    for (crowd->finished = 0; crowd->finished < PAIRS; crowd->finished++) {
        uint32_t first;
        uint32_t second;
        crowd->random = crowd->random * 1664525u + 1013904223u;
        first = (crowd->random >> 8) % KEYS;
        second = (first + 1 + (crowd->random >> 16) % (KEYS - 1)) % KEYS;
        if (crowd->ascending && first > second) {
            uint32_t swap = first;
            first = second;
            second = swap;
        }
        crowd->second = crowd_keys[second];
        if (crowd->nested) {
            etslock_options options = patient(NULL);
            options.run_on = crowd->run_on;
            check_crowd_status(crowd, etslock_with_lock(crowd->table, crowd_keys[first], 1,
                                                        take_second_inside, crowd, &options,
                                                        NULL));
        } else {
            etslock_guard *guard = NULL;
            etslock_status status = acquire(crowd->table, crowd_keys[first], 0, ETSLOCK_INFINITE,
                                            &guard);
            check_crowd_status(crowd, status);
            if (status == ETSLOCK_OK) {
                sched_yield();
                take_second(crowd);
                CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
            }
        }
    }
    return NULL;
}

static void run_crowds(int ascending, int nested)
{
    struct crowd crowds[THREADS];
    etslock_table *table = new_table();
    int i;
    for (i = 0; i < THREADS; i++) {
        memset(&crowds[i], 0, sizeof crowds[i]);
        crowds[i].table = table;
        crowds[i].random = 12345u + (uint32_t)i * 104729u;
        crowds[i].ascending = ascending;
        crowds[i].nested = nested;
        crowds[i].run_on = i % 2 == 0 ? ETSLOCK_RUN_ON_WORKER : ETSLOCK_RUN_ON_CALLER;
        REQUIRE(pthread_create(&crowds[i].thread, NULL, run_crowd, &crowds[i]) == 0);
    }
    for (i = 0; i < THREADS; i++) {
        REQUIRE(pthread_join(crowds[i].thread, NULL) == 0);
        CHECK(crowds[i].finished == PAIRS);
    }
    CHECK(count_locks(NULL, table) == 0);
    etslock_table_free(table);
}

/* A thread that has a lock, and wants it once more when it ends. */
struct last_wish {
    etslock_table *table;
    etslock_guard *guard;
    etslock_status status;
};

static pthread_key_t last_moment;

static void want_it_again(void *argument)
{
    struct last_wish *wish = argument;
    etslock_guard *again = NULL;
    wish->status = acquire(wish->table, "a", 0, HANGS_MS, &again);
    CHECK(again == NULL);
    CHECK_STATUS(etslock_guard_release(wish->guard), ETSLOCK_OK);
}

static void *hold_to_the_end(void *argument)
{
    struct last_wish *wish = argument;
    wish->guard = hold_as(wish->table, "a", 0);
    REQUIRE(pthread_setspecific(last_moment, wish) == 0);
    return NULL;
}

static void a_thread_that_ends(void)
{
    struct last_wish wish;
    pthread_t thread;
    int64_t begin = now_ms();
    memset(&wish, 0, sizeof wish);
    wish.table = new_table();
    CASE("C-13: a thread that is ending is still the owner that it was");
    REQUIRE(pthread_key_create(&last_moment, want_it_again) == 0);
    REQUIRE(pthread_create(&thread, NULL, hold_to_the_end, &wish) == 0);
    REQUIRE(pthread_join(thread, NULL) == 0);
    CHECK_STATUS(wish.status, ETSLOCK_DEADLOCK);
    CHECK(now_ms() - begin < HANGS_MS);
    CHECK(count_locks(NULL, wish.table) == 0);
    REQUIRE(pthread_key_delete(last_moment) == 0);
    etslock_table_free(wish.table);
}

static void crowds(void)
{
    uint64_t deadlocks = stats_of(NULL).deadlocks;
    CASE("C-13: no false alarm: pairs in ascending order never see a deadlock");
    run_crowds(1, 0);
    run_crowds(1, 1);
    CHECK(stats_of(NULL).deadlocks == deadlocks);
    CASE("C-13: pairs in random order always end, with OK or DEADLOCK");
    run_crowds(0, 0);
    run_crowds(0, 1);
}

int main(void)
{
    alarm(120); /* a hang is a failure */
    RUN(two_threads());
    RUN(three_threads());
    RUN(a_key_of_several());
    RUN(own_key_in_nested_callbacks());
    RUN(two_callbacks());
    RUN(a_cycle_through_a_waiting_caller());
    RUN(logical_owners());
    RUN(the_callback_of_a_logical_owner());
    RUN(no_owner());
    RUN(a_revoked_guard_leaves_the_graph());
    RUN(an_abandoned_callback_leaves_the_graph());
    RUN(a_thread_that_ends());
    RUN(crowds());
    return check_report();
}
