/* callbacks.c - where callbacks run, how they end, and who frees their data.
 *
 * Run without arguments. With "no-thread", "exit" or "key" it is one of its own child processes.
 * Callbacks are held in place by semaphores; real time passes only where a deadline is the subject.
 */
#include "check.h"
#include "locks.h"
#include "processes.h"
#include "threads.h"

#include <sched.h>

#define KEY "k", 1

enum {
    SLACK_MS = 2,
    SHORT_MS = 250,   /* a deadline to be missed, but not before the callback has been started */
    SOON_MS = 20000,  /* "at once", and far below the next */
    AMPLE_MS = 60000  /* a deadline to be met */
};

static const int32_t run_ons[] = {ETSLOCK_RUN_ON_WORKER, ETSLOCK_RUN_ON_CALLER};

static int load(const int *word)
{
    return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

static void store(int *word, int value)
{
    __atomic_store_n(word, value, __ATOMIC_RELEASE);
}

static int add(int *word)
{
    return __atomic_add_fetch(word, 1, __ATOMIC_ACQ_REL);
}

/* A callback's data that watches over its own life. */
struct probe {
    etslock_table *table;
    int32_t returns;
    int starts, running, freed;
    int freed_too_soon;
    etslock_status late_write;
    pthread_t thread; /* that ran the callback */
    sem_t entered, go, ended;
};

static void probe_init(struct probe *probe, etslock_table *table)
{
    memset(probe, 0, sizeof *probe);
    probe->table = table;
    probe->late_write = -1;
    sem_init(&probe->entered, 0, 0);
    sem_init(&probe->go, 0, 0);
    sem_init(&probe->ended, 0, 0);
}

static void probe_end(struct probe *probe)
{
    CHECK(!load(&probe->freed_too_soon));
    sem_destroy(&probe->entered);
    sem_destroy(&probe->go);
    sem_destroy(&probe->ended);
}

static void probe_free(void *user_data)
{
    struct probe *probe = user_data;
    if (load(&probe->running))
        store(&probe->freed_too_soon, 1);
    /* No lock of the library is held: it may be called. */
    CHECK_STATUS(etslock_table_insert(probe->table, "freed", 5, "", 0), ETSLOCK_OK);
    CHECK_STATUS(try_lock(probe->table, "another key"), ETSLOCK_OK);
    add(&probe->freed);
    sem_post(&probe->ended);
}

static int32_t run_probe(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                         void *user_data)
{
    struct probe *probe = user_data;
    (void)tuples;
    (void)tuple_count;
    store(&probe->running, 1);
    add(&probe->starts);
    probe->thread = pthread_self();
    CHECK_STATUS(etslock_guard_insert(guard, KEY, "written", 7), ETSLOCK_OK);
    store(&probe->running, 0);
    return probe->returns;
}

static int32_t run_probe_late(etslock_guard *guard, const etslock_tuple *tuples,
                              size_t tuple_count, void *user_data)
{
    struct probe *probe = user_data;
    (void)tuples;
    (void)tuple_count;
    store(&probe->running, 1);
    add(&probe->starts);
    sem_post(&probe->entered);
    sem_wait(&probe->go);
    probe->late_write = etslock_guard_insert(guard, KEY, "late", 4);
    store(&probe->running, 0);
    return 0;
}

/* --- C-10 --- */

static void which_thread(void)
{
    etslock_table *table = new_table();
    size_t i;
    for (i = 0; i < 2; i++) {
        struct probe probe;
        etslock_options options = options_of(AMPLE_MS, AMPLE_MS, ETSLOCK_INFINITE);
        options.run_on = run_ons[i];
        probe_init(&probe, table);
        CHECK_STATUS(etslock_with_lock(table, KEY, run_probe, &probe, &options, NULL),
                     ETSLOCK_OK);
        CHECK(!pthread_equal(probe.thread, pthread_self()) ==
              (run_ons[i] == ETSLOCK_RUN_ON_WORKER));
        probe_end(&probe);
    }
    etslock_table_free(table);
}

static int32_t be_late(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                       void *user_data)
{
    (void)tuples;
    (void)tuple_count;
    (void)user_data;
    CHECK_STATUS(etslock_guard_insert(guard, KEY, "late", 4), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_sleep(guard, AMPLE_MS), ETSLOCK_EXEC_TIMEOUT);
    return 0;
}

static void late_on_the_callers_thread(int32_t on_exec_timeout)
{
    etslock_table *table = new_table();
    etslock_options options = options_of(AMPLE_MS, SHORT_MS, ETSLOCK_INFINITE);
    options.run_on = ETSLOCK_RUN_ON_CALLER;
    options.on_exec_timeout = on_exec_timeout;
    CHECK_STATUS(etslock_with_lock(table, KEY, be_late, NULL, &options, NULL),
                 ETSLOCK_EXEC_TIMEOUT);
    CHECK_STATUS(etslock_table_member(table, KEY), ETSLOCK_NOT_FOUND);
    CHECK_STATUS(try_lock(table, "k"), ETSLOCK_OK);
    CHECK(stats_of(NULL).abandoned == 0);
    etslock_table_free(table);
}

/* --- C-11 --- */

static void abandoned(void)
{
    etslock_table *table = new_table();
    etslock_options options = options_of(AMPLE_MS, SHORT_MS, ETSLOCK_INFINITE);
    struct probe probe;
    int64_t began = now_ms(), took;
    probe_init(&probe, table);
    options.user_data_free = probe_free;
    CHECK_STATUS(etslock_with_lock(table, KEY, run_probe_late, &probe, &options, NULL),
                 ETSLOCK_EXEC_TIMEOUT);
    took = now_ms() - began;
    CHECK(took >= SHORT_MS - SLACK_MS && took < SOON_MS);
    CHECK(load(&probe.running) && load(&probe.freed) == 0);
    CHECK(stats_of(NULL).abandoned == 1);
    CHECK_STATUS(try_lock(table, "k"), ETSLOCK_OK);

    sem_post(&probe.go);
    REQUIRE(wait_for(&probe.ended));
    CHECK_STATUS(probe.late_write, ETSLOCK_REVOKED);
    await_abandoned(0);
    CHECK(load(&probe.freed) == 1);
    CHECK_STATUS(etslock_table_member(table, KEY), ETSLOCK_NOT_FOUND);
    probe_end(&probe);
    etslock_table_free(table);
}

struct joining {
    etslock_table *table;
    etslock_status answer;
    int returned;
    sem_t *entered, *go; /* the probe's, which lies on the caller's stack */
    sem_t ready;
};

static void *call_and_join(void *user_data)
{
    struct joining *joining = user_data;
    etslock_options options = options_of(AMPLE_MS, SHORT_MS, ETSLOCK_INFINITE);
    struct probe probe;
    probe_init(&probe, joining->table);
    joining->entered = &probe.entered;
    joining->go = &probe.go;
    sem_post(&joining->ready);
    options.on_exec_timeout = ETSLOCK_JOIN;
    options.user_data_free = probe_free;
    joining->answer = etslock_with_lock(joining->table, KEY, run_probe_late, &probe, &options,
                                        NULL);
    store(&joining->returned, 1);
    CHECK(!load(&probe.running) && load(&probe.freed) == 1);
    CHECK_STATUS(probe.late_write, ETSLOCK_REVOKED);
    probe_end(&probe);
    return NULL;
}

static void joined(void)
{
    etslock_options options = options_of(AMPLE_MS, AMPLE_MS, ETSLOCK_INFINITE);
    etslock_guard *guard = NULL;
    struct joining joining;
    pthread_t thread;
    joining.table = new_table();
    joining.returned = 0;
    joining.answer = -1;
    sem_init(&joining.ready, 0, 0);
    REQUIRE(pthread_create(&thread, NULL, call_and_join, &joining) == 0);
    REQUIRE(wait_for(&joining.ready));
    REQUIRE(wait_for(joining.entered));

    /* The lock is free although the callback still runs. */
    CHECK_STATUS(etslock_acquire(joining.table, KEY, &options, &guard), ETSLOCK_OK);
    sleep_ms(50); /* a call that did not wait for its callback would have returned */
    CHECK(!load(&joining.returned));
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);

    sem_post(joining.go);
    pthread_join(thread, NULL);
    CHECK_STATUS(joining.answer, ETSLOCK_EXEC_TIMEOUT);
    CHECK_STATUS(etslock_table_member(joining.table, KEY), ETSLOCK_NOT_FOUND);
    sem_destroy(&joining.ready);
    etslock_table_free(joining.table);
}

static void probe_left(void *user_data)
{
    struct probe *probe = user_data;
    store(&probe->running, 0);
}

static int32_t run_for_ever(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                            void *user_data)
{
    struct probe *probe = user_data;
    (void)guard;
    (void)tuples;
    (void)tuple_count;
    store(&probe->running, 1);
    add(&probe->starts);
    pthread_cleanup_push(probe_left, probe);
    for (;;)
        sleep_ms(AMPLE_MS);
    pthread_cleanup_pop(0);
    return 0;
}

static void killed(void)
{
    etslock_table *table = new_table();
    etslock_options options = options_of(AMPLE_MS, SHORT_MS, ETSLOCK_INFINITE);
    struct probe probe;
    probe_init(&probe, table);
    options.on_exec_timeout = ETSLOCK_KILL;
    options.user_data_free = probe_free;
    CHECK_STATUS(etslock_with_lock(table, KEY, run_for_ever, &probe, &options, NULL),
                 ETSLOCK_EXEC_TIMEOUT);
    REQUIRE(wait_for(&probe.ended));
    CHECK(load(&probe.starts) == 1 && load(&probe.freed) == 1);
    await_abandoned(0);
    CHECK_STATUS(try_lock(table, "k"), ETSLOCK_OK);
    probe_end(&probe);
    etslock_table_free(table);
}

/* --- C-12 --- */

/* One call, its status, and its data freed exactly once when it has returned. */
static void check_freed(struct probe *probe, etslock_table *table, const void *key, size_t key_len,
                        etslock_callback callback, etslock_options options, etslock_status wanted)
{
    options.user_data_free = probe_free;
    store(&probe->freed, 0);
    CHECK_STATUS(etslock_with_lock(table, key, key_len, callback, probe, &options, NULL), wanted);
    CHECK(load(&probe->freed) == 1);
}

static void data_is_freed(void)
{
    const etslock_options ample = options_of(AMPLE_MS, AMPLE_MS, ETSLOCK_INFINITE);
    etslock_options options;
    etslock_table *table = new_table();
    etslock_guard *guard = NULL;
    etslock_key key = {"k", 1};
    struct probe probe;
    int starts;
    size_t i;
    probe_init(&probe, table);

    CASE("C-12: data is freed once, before a call in time returns");
    for (i = 0; i < 2; i++) {
        options = ample;
        options.run_on = run_ons[i];
        probe.returns = 0;
        check_freed(&probe, table, KEY, run_probe, options, ETSLOCK_OK);
        probe.returns = 5;
        check_freed(&probe, table, KEY, run_probe, options, ETSLOCK_CALLBACK_FAILED);
    }
    starts = load(&probe.starts);
    CHECK(starts == 4);

    CASE("C-12: data is freed once when nothing runs");
    for (i = 0; i < 2; i++) {
        options = options_of(AMPLE_MS, 0, ETSLOCK_INFINITE);
        options.run_on = run_ons[i];
        check_freed(&probe, table, KEY, run_probe, options, ETSLOCK_EXEC_TIMEOUT);

        CHECK_STATUS(etslock_acquire(table, KEY, &ample, &guard), ETSLOCK_OK);
        options = options_of(0, AMPLE_MS, ETSLOCK_INFINITE);
        options.run_on = run_ons[i];
        check_freed(&probe, table, KEY, run_probe, options, ETSLOCK_WAIT_TIMEOUT);
        options = ample;
        options.run_on = run_ons[i];
        check_freed(&probe, table, KEY, run_probe, options, ETSLOCK_DEADLOCK);
        options = options_of(20, AMPLE_MS, ETSLOCK_INFINITE);
        options.owner = ETSLOCK_OWNER_NONE;
        options.run_on = run_ons[i];
        check_freed(&probe, table, KEY, run_probe, options, ETSLOCK_WAIT_TIMEOUT);
        CHECK_STATUS(etslock_guard_cancel(guard), ETSLOCK_OK);
    }

    CASE("C-12: data is freed once after bad arguments");
    check_freed(&probe, NULL, KEY, run_probe, ample, ETSLOCK_ERR_NULL);
    check_freed(&probe, table, NULL, 1, run_probe, ample, ETSLOCK_ERR_NULL);
    check_freed(&probe, table, KEY, NULL, ample, ETSLOCK_ERR_NULL);
    check_freed(&probe, table, "k", SIZE_MAX, run_probe, ample, ETSLOCK_ERR_INVALID);
    options = ample;
    options.run_on = 99;
    check_freed(&probe, table, KEY, run_probe, options, ETSLOCK_ERR_INVALID);
    options = ample;
    options.wait_timeout_ms = -2;
    check_freed(&probe, table, KEY, run_probe, options, ETSLOCK_ERR_INVALID);
    options = ample;
    options.reserved = 1;
    check_freed(&probe, table, KEY, run_probe, options, ETSLOCK_ERR_INVALID);
    options = ample;
    options.run_on = ETSLOCK_RUN_ON_CALLER;
    options.on_exec_timeout = ETSLOCK_KILL;
    check_freed(&probe, table, KEY, run_probe, options, ETSLOCK_ERR_INVALID);

    options = ample;
    options.user_data_free = probe_free;
    store(&probe.freed, 0);
    CHECK_STATUS(etslock_with_locks(table, &key, 0, run_probe, &probe, &options, NULL),
                 ETSLOCK_ERR_INVALID);
    CHECK(load(&probe.freed) == 1);

    CASE("C-12: after ETSLOCK_ERR_STRUCT_SIZE the data is still the caller's");
    options.struct_size = 4;
    store(&probe.freed, 0);
    CHECK_STATUS(etslock_with_lock(table, KEY, run_probe, &probe, &options, NULL),
                 ETSLOCK_ERR_STRUCT_SIZE);
    CHECK(load(&probe.freed) == 0);

    CHECK(load(&probe.starts) == starts);
    CHECK_STATUS(try_lock(table, "k"), ETSLOCK_OK);
    probe_end(&probe);
    etslock_table_free(table);
}

/* --- C-13 --- */

enum { DEPTH = 6 };

struct nesting {
    etslock_table *table;
    int32_t run_on;
    int depth;
};

static int32_t nest(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                    void *user_data)
{
    struct nesting *nesting = user_data;
    char key = (char)('0' + nesting->depth);
    etslock_options options = options_of(AMPLE_MS, AMPLE_MS, ETSLOCK_INFINITE);
    (void)tuples;
    (void)tuple_count;
    options.run_on = nesting->run_on;
    CHECK_STATUS(etslock_guard_insert(guard, &key, 1, "nested", 6), ETSLOCK_OK);
    if (++nesting->depth < DEPTH) {
        char next = (char)('0' + nesting->depth);
        CHECK_STATUS(etslock_with_lock(nesting->table, &next, 1, nest, nesting, &options, NULL),
                     ETSLOCK_OK);
        CHECK_STATUS(etslock_table_member(nesting->table, &next, 1), ETSLOCK_OK);
    }
    CHECK_STATUS(etslock_table_member(nesting->table, &key, 1), ETSLOCK_NOT_FOUND);
    return 0;
}

static void nested_calls(int32_t run_on)
{
    struct nesting nesting;
    etslock_options options = options_of(AMPLE_MS, AMPLE_MS, ETSLOCK_INFINITE);
    size_t count = 0;
    nesting.table = new_table();
    nesting.run_on = run_on;
    nesting.depth = 0;
    options.run_on = run_on;
    CHECK_STATUS(etslock_with_lock(nesting.table, "0", 1, nest, &nesting, &options, NULL),
                 ETSLOCK_OK);
    CHECK_STATUS(etslock_table_count(nesting.table, &count), ETSLOCK_OK);
    CHECK(count == DEPTH);
    etslock_table_free(nesting.table);
}

/* The outer lock is taken away while the callback waits for an inner one. */
static int32_t outlive_the_outer_lock(etslock_guard *guard, const etslock_tuple *tuples,
                                      size_t tuple_count, void *user_data)
{
    struct probe *probe = user_data;
    etslock_options options = options_of(ETSLOCK_INFINITE, AMPLE_MS, ETSLOCK_INFINITE);
    etslock_guard *earlier = NULL, *inner = NULL;
    (void)tuples;
    (void)tuple_count;
    store(&probe->running, 1);
    CHECK_STATUS(etslock_acquire(probe->table, "earlier", 7, &options, &earlier), ETSLOCK_OK);
    CHECK_STATUS(etslock_acquire(probe->table, "inner", 5, &options, &inner), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_status(guard), ETSLOCK_REVOKED);
    CHECK_STATUS(etslock_guard_insert(earlier, "earlier", 7, "v", 1), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_insert(inner, "inner", 5, "v", 1), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_release(earlier), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_release(inner), ETSLOCK_OK);
    store(&probe->running, 0);
    return 0;
}

static void *call_and_lose(void *user_data)
{
    struct probe *probe = user_data;
    etslock_options options = options_of(AMPLE_MS, AMPLE_MS, ETSLOCK_INFINITE);
    options.user_data_free = probe_free;
    CHECK_STATUS(etslock_with_lock(probe->table, "outer", 5, outlive_the_outer_lock, probe,
                                   &options, NULL),
                 ETSLOCK_REVOKED);
    return NULL;
}

static void nested_calls_are_independent(void)
{
    etslock_options options = options_of(0, AMPLE_MS, ETSLOCK_INFINITE);
    etslock_guard *guard = NULL;
    struct probe probe;
    pthread_t thread;
    probe_init(&probe, new_table());
    CHECK_STATUS(etslock_acquire(probe.table, "inner", 5, &options, &guard), ETSLOCK_OK);
    REQUIRE(pthread_create(&thread, NULL, call_and_lose, &probe) == 0);
    await_waiting(NULL, 1);
    CHECK_STATUS(etslock_lock_table_force_release(NULL, probe.table, "outer", 5), ETSLOCK_OK);
    pthread_join(thread, NULL); /* the outer call has returned; the inner one still waits */
    CHECK(stats_of(NULL).waiting == 1);
    CHECK(load(&probe.freed) == 0);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    REQUIRE(wait_for(&probe.ended));
    CHECK(load(&probe.freed) == 1);
    CHECK_STATUS(etslock_table_member(probe.table, "earlier", 7), ETSLOCK_OK);
    CHECK_STATUS(etslock_table_member(probe.table, "inner", 5), ETSLOCK_OK);
    probe_end(&probe);
    etslock_table_free(probe.table);
}

/* --- C-13: many abandoned callbacks --- */

struct crowd {
    etslock_table *table;
    int wanted, started, refused, freed, calls;
    int open;
    pthread_mutex_t mutex;
    pthread_cond_t opened;
};

static int32_t stay_in_the_crowd(etslock_guard *guard, const etslock_tuple *tuples,
                                 size_t tuple_count, void *user_data)
{
    struct crowd *crowd = user_data;
    (void)guard;
    (void)tuples;
    (void)tuple_count;
    add(&crowd->started);
    pthread_mutex_lock(&crowd->mutex);
    while (!crowd->open)
        pthread_cond_wait(&crowd->opened, &crowd->mutex);
    pthread_mutex_unlock(&crowd->mutex);
    return 0;
}

static void leave_the_crowd(void *user_data)
{
    struct crowd *crowd = user_data;
    add(&crowd->freed);
}

static void *abandon_many(void *user_data)
{
    struct crowd *crowd = user_data;
    etslock_options options = options_of(AMPLE_MS, 20, ETSLOCK_INFINITE);
    options.user_data_free = leave_the_crowd;
    /* A callback that no worker started in time does not count. */
    while (load(&crowd->started) < crowd->wanted) {
        int key = add(&crowd->calls);
        if (!CHECK_STATUS(etslock_with_lock(crowd->table, &key, sizeof key, stay_in_the_crowd,
                                            crowd, &options, NULL),
                          ETSLOCK_EXEC_TIMEOUT)) {
            add(&crowd->refused);
            break;
        }
    }
    return NULL;
}

static void *call_in_the_crowd(void *user_data)
{
    struct crowd *crowd = user_data;
    etslock_options options = options_of(AMPLE_MS, AMPLE_MS, ETSLOCK_INFINITE);
    int i;
    for (i = 0; i < 100; i++) {
        struct probe probe;
        int64_t began = now_ms();
        probe_init(&probe, crowd->table);
        CHECK_STATUS(etslock_with_lock(crowd->table, KEY, run_probe, &probe, &options, NULL),
                     ETSLOCK_OK);
        CHECK(load(&probe.starts) == 1);
        CHECK(now_ms() - began < SOON_MS);
        probe_end(&probe);
    }
    return NULL;
}

static void many_abandoned_callbacks(void)
{
    enum { CALLERS = 16, OTHERS = 2 };
    struct crowd crowd;
    pthread_t threads[CALLERS];
    int i;
    memset(&crowd, 0, sizeof crowd);
    crowd.wanted = is_small_scale() ? 50 : 1000;
    crowd.table = new_table();
    pthread_mutex_init(&crowd.mutex, NULL);
    pthread_cond_init(&crowd.opened, NULL);
    for (i = 0; i < CALLERS; i++)
        REQUIRE(pthread_create(&threads[i], NULL, abandon_many, &crowd) == 0);
    for (i = 0; i < CALLERS; i++)
        pthread_join(threads[i], NULL);
    CHECK(load(&crowd.refused) == 0);
    WAIT_UNTIL(stats_of(NULL).abandoned == (uint64_t)load(&crowd.started));
    CHECK(stats_of(NULL).abandoned >= (uint64_t)crowd.wanted);
    CHECK(stats_of(NULL).workers >= stats_of(NULL).abandoned);

    for (i = 0; i < OTHERS; i++)
        REQUIRE(pthread_create(&threads[i], NULL, call_in_the_crowd, &crowd) == 0);
    call_in_the_crowd(&crowd);
    for (i = 0; i < OTHERS; i++)
        pthread_join(threads[i], NULL);
    CHECK(stats_of(NULL).abandoned == (uint64_t)load(&crowd.started));

    pthread_mutex_lock(&crowd.mutex);
    crowd.open = 1;
    pthread_cond_broadcast(&crowd.opened);
    pthread_mutex_unlock(&crowd.mutex);
    await_abandoned(0);
    WAIT_UNTIL(load(&crowd.freed) == load(&crowd.calls));
    pthread_cond_destroy(&crowd.opened);
    pthread_mutex_destroy(&crowd.mutex);
    etslock_table_free(crowd.table);
}

/* --- C-17 --- */

static int32_t end_the_thread(etslock_guard *guard, const etslock_tuple *tuples,
                              size_t tuple_count, void *user_data)
{
    (void)tuples;
    (void)tuple_count;
    (void)user_data;
    CHECK_STATUS(etslock_guard_insert(guard, KEY, "unpublished", 11), ETSLOCK_OK);
    pthread_exit(NULL);
    return 0;
}

static void callbacks_that_end_their_thread(void)
{
    etslock_table *table = new_table();
    etslock_options options = options_of(AMPLE_MS, AMPLE_MS, ETSLOCK_INFINITE);
    struct probe probe;
    int i;
    probe_init(&probe, table);
    options.user_data_free = probe_free;
    for (i = 1; i <= 3; i++) {
        etslock_result result;
        int64_t began = now_ms();
        CHECK_STATUS(etslock_with_lock(table, KEY, end_the_thread, &probe, &options, &result),
                     ETSLOCK_CALLBACK_FAILED);
        CHECK(now_ms() - began < SOON_MS); /* found out, not timed out */
        CHECK(result.data == NULL && result.data_len == 0);
        etslock_result_free(&result);
        CHECK(load(&probe.freed) == 2 * i - 1);
        CHECK_STATUS(try_lock(table, "k"), ETSLOCK_OK);
        CHECK_STATUS(etslock_table_member(table, KEY), ETSLOCK_NOT_FOUND);

        CHECK_STATUS(etslock_with_lock(table, KEY, run_probe, &probe, &options, NULL), ETSLOCK_OK);
        CHECK(load(&probe.freed) == 2 * i);
        CHECK_STATUS(etslock_table_delete(table, KEY), ETSLOCK_OK);
    }
    probe_end(&probe);
    etslock_table_free(table);
}

/* Callbacks end their threads, and a visitor tries the same lock just as each is freed. */
struct visit {
    etslock_table *table;
    etslock_options options;
    int callback_ends, over;
};

static int32_t end_the_thread_in_company(etslock_guard *guard, const etslock_tuple *tuples,
                                         size_t tuple_count, void *user_data)
{
    struct visit *visit = user_data;
    (void)guard;
    (void)tuples;
    (void)tuple_count;
    store(&visit->callback_ends, 1);
    pthread_exit(NULL);
    return 0;
}

/* Comes later after each visit that was too early, and earlier after one that was too late. */
static void *visit_at_the_end(void *user_data)
{
    enum { STEP = 20 };
    struct visit *visit = user_data;
    int delay = 0;
    while (!load(&visit->over)) {
        volatile int i;
        etslock_status status;
        if (!__atomic_exchange_n(&visit->callback_ends, 0, __ATOMIC_ACQ_REL)) {
            sched_yield();
            continue;
        }
        for (i = 0; i < delay; i++)
            ;
        status = try_lock_with(visit->options, visit->table, "k");
        CHECK(status == ETSLOCK_OK || status == ETSLOCK_WAIT_TIMEOUT);
        delay += status == ETSLOCK_WAIT_TIMEOUT ? STEP : delay > 0 ? -STEP : 0;
    }
    return NULL;
}

static void endings_in_company(void)
{
    const int rounds = is_small_scale() ? 1000 : 20000;
    /* A lock table of their own: its locks leave no trace, so that each meets its visitor anew. */
    etslock_lock_table *lock_table = new_lock_table();
    struct visit visit;
    pthread_t visitor;
    int i;
    memset(&visit, 0, sizeof visit);
    visit.table = new_table();
    visit.options = options_of(AMPLE_MS, AMPLE_MS, ETSLOCK_INFINITE);
    visit.options.lock_table = lock_table;
    REQUIRE(pthread_create(&visitor, NULL, visit_at_the_end, &visit) == 0);
    for (i = 0; i < rounds; i++)
        CHECK_STATUS(etslock_with_lock(visit.table, KEY, end_the_thread_in_company, &visit,
                                       &visit.options, NULL),
                     ETSLOCK_CALLBACK_FAILED);
    store(&visit.over, 1);
    REQUIRE(pthread_join(visitor, NULL) == 0);
    CHECK_STATUS(try_lock_with(visit.options, visit.table, "k"), ETSLOCK_OK);
    etslock_table_free(visit.table);
    etslock_lock_table_free(lock_table);
}

/* --- children --- */

/* Of two keys that were made the first is cleared first. Rust's own comes before the library's, unless
 * it would be the process's very first, which Rust passes on: with a key before both, as most
 * programs have, Rust's thread-locals are gone when the library hears that a thread ends. */
static int child_with_a_key_of_its_own(void)
{
    pthread_key_t key;
    CASE("C-17: a callback ends its thread (in a process with thread-specific data)");
    REQUIRE(pthread_key_create(&key, NULL) == 0);
    callbacks_that_end_their_thread();
    endings_in_company();
    pthread_key_delete(key);
    return check_report();
}

static int child_without_threads(void)
{
    etslock_table *table = new_table();
    etslock_options options = options_of(AMPLE_MS, AMPLE_MS, ETSLOCK_INFINITE);
    struct without_threads without;
    struct probe probe;
    int i;
    CASE("C-17: no thread can be started (in a child process)");
    probe_init(&probe, table);
    options.user_data_free = probe_free;
    options.run_on = ETSLOCK_RUN_ON_CALLER;
    CHECK_STATUS(etslock_with_lock(table, KEY, run_probe, &probe, &options, NULL), ETSLOCK_OK);
    CHECK_STATUS(etslock_table_delete(table, KEY), ETSLOCK_OK);
    options.run_on = ETSLOCK_RUN_ON_WORKER;
    without = forbid_threads();
    for (i = 0; i < 3; i++) {
        store(&probe.starts, 0);
        store(&probe.freed, 0);
        CHECK_STATUS(etslock_with_lock(table, KEY, run_probe, &probe, &options, NULL),
                     ETSLOCK_ERR_NO_THREAD);
        CHECK(load(&probe.starts) == 0 && load(&probe.freed) == 1);
        CHECK_STATUS(try_lock(table, "k"), ETSLOCK_OK);
        CHECK_STATUS(etslock_table_member(table, KEY), ETSLOCK_NOT_FOUND);
    }
    allow_threads(&without);
    CHECK_STATUS(etslock_with_lock(table, KEY, run_probe, &probe, &options, NULL), ETSLOCK_OK);
    CHECK_STATUS(etslock_table_member(table, KEY), ETSLOCK_OK);
    probe_end(&probe);
    etslock_table_free(table);
    return check_report();
}

enum { LEFT_BY_EXIT = 7 };

static sem_t runaway_entered;

static int32_t sleep_for_ever(etslock_guard *guard, const etslock_tuple *tuples,
                              size_t tuple_count, void *user_data)
{
    (void)guard;
    (void)tuples;
    (void)tuple_count;
    (void)user_data;
    sem_post(&runaway_entered);
    for (;;)
        sleep_ms(AMPLE_MS);
    return 0;
}

static int32_t work_for_ever(etslock_guard *guard, const etslock_tuple *tuples,
                             size_t tuple_count, void *user_data)
{
    etslock_table *table = user_data;
    (void)tuples;
    (void)tuple_count;
    sem_post(&runaway_entered);
    for (;;) {
        etslock_table_insert(table, "busy", 4, "value", 5);
        etslock_guard_insert(guard, "busy", 4, "value", 5);
        try_lock(table, "busy too");
        sched_yield();
    }
    return 0;
}

static void *call_for_ever(void *user_data)
{
    etslock_options options = options_of(ETSLOCK_INFINITE, ETSLOCK_INFINITE, ETSLOCK_INFINITE);
    etslock_with_lock(user_data, "held", 4, sleep_for_ever, NULL, &options, NULL);
    return NULL;
}

static void linger(void)
{
    sleep_ms(50);
}

/* Callbacks run, callers wait, and the process ends all the same. */
static int child_that_exits(void)
{
    etslock_table *table = new_table();
    etslock_options options = options_of(AMPLE_MS, SHORT_MS, ETSLOCK_INFINITE);
    pthread_t threads[2];
    int i;
    sem_init(&runaway_entered, 0, 0);
    REQUIRE(atexit(linger) == 0);
    REQUIRE(etslock_with_lock(table, "asleep", 6, sleep_for_ever, NULL, &options, NULL) ==
            ETSLOCK_EXEC_TIMEOUT);
    REQUIRE(etslock_with_lock(table, "busy", 4, work_for_ever, table, &options, NULL) ==
            ETSLOCK_EXEC_TIMEOUT);
    for (i = 0; i < 2; i++)
        REQUIRE(pthread_create(&threads[i], NULL, call_for_ever, table) == 0);
    for (i = 0; i < 3; i++)
        REQUIRE(wait_for(&runaway_entered));
    await_waiting(NULL, 1); /* one of the two waits for the other */
    exit(LEFT_BY_EXIT);
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "no-thread") == 0)
        return child_without_threads();
    if (argc > 1 && strcmp(argv[1], "exit") == 0)
        return child_that_exits();
    if (argc > 1 && strcmp(argv[1], "key") == 0)
        return child_with_a_key_of_its_own();

    CASE("C-10: a worker's thread, or the caller's");
    RUN(which_thread());
    CASE("C-10: late on the caller's thread");
    RUN(late_on_the_callers_thread(ETSLOCK_ABANDON));
    RUN(late_on_the_callers_thread(ETSLOCK_JOIN));
    CASE("C-11, C-12: ABANDON");
    RUN(abandoned());
    CASE("C-11, C-12: JOIN");
    RUN(joined());
    CASE("C-11, C-12: KILL");
    RUN(killed());
    RUN(data_is_freed());
    CASE("C-13: nested calls");
    RUN(nested_calls(ETSLOCK_RUN_ON_WORKER));
    RUN(nested_calls(ETSLOCK_RUN_ON_CALLER));
    CASE("C-13: a nested call is independent");
    RUN(nested_calls_are_independent());
    CASE("C-13: abandoned callbacks never starve other calls");
    RUN(many_abandoned_callbacks());
    CASE("C-17: a callback ends its thread");
    RUN(callbacks_that_end_their_thread());
    RUN(endings_in_company());
    RUN_AS("a_key_of_its_own", CHECK(run_again(argv[0], "key") == EXIT_SUCCESS));
    CASE("C-17: no thread can be started");
    RUN_AS("no_thread", CHECK(run_again(argv[0], "no-thread") == EXIT_SUCCESS));
    CASE("C-16: exit with a runaway callback");
    RUN_AS("exits", CHECK(run_again(argv[0], "exit") == LEFT_BY_EXIT));
    CASE("C-16: idle workers go away");
    RUN_AS("idle_workers", WAIT_UNTIL(stats_of(NULL).workers == 0));
    return check_report();
}
