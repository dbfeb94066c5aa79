/* kill.c - ETSLOCK_KILL: the thread of a callback that outlived its time is cancelled.
 * Checks C-11, and what C-8, C-12, C-13, C-15 and C-17 say about callbacks that end their thread.
 *
 * A killed callback sleeps for ten minutes: nothing but the cancellation ends it in time.
 */
#include "check.h"
#include "locks.h"
#include "processes.h"
#include "threads.h"

#include <sched.h>

/* Enough for a worker to start the callback on a busy machine: one that never ran would not be
 * killed. */
enum { EXEC_MS = 300 };

static void sleep_for_ever(void)
{
    sleep_ms(600000);
}

/* What a callback and its test share. Outlives every callback of its test. */
struct scene {
    etslock_table *table;
    sem_t started;
    sem_t cleaned; /* posted by a cleanup handler */
    sem_t freed;   /* posted by user_data_free */
    int freed_count;
    int passed; /* set by code that must not be reached */
    int stop;   /* ends the loop that cannot be killed */
    int pipe[2];
    etslock_guard *guard;
    etslock_guard *inner;
    etslock_status seen;
};

static void begin_scene(struct scene *scene, etslock_table *table)
{
    memset(scene, 0, sizeof *scene);
    scene->table = table;
    scene->seen = -1;
    REQUIRE(sem_init(&scene->started, 0, 0) == 0);
    REQUIRE(sem_init(&scene->cleaned, 0, 0) == 0);
    REQUIRE(sem_init(&scene->freed, 0, 0) == 0);
}

/* Call when the callback is known to have ended. */
static void end_scene(struct scene *scene)
{
    CHECK(wait_for(&scene->freed));
    await_abandoned(0);
    CHECK(__atomic_load_n(&scene->freed_count, __ATOMIC_SEQ_CST) == 1);
    CHECK(__atomic_load_n(&scene->passed, __ATOMIC_SEQ_CST) == 0);
    sem_destroy(&scene->started);
    sem_destroy(&scene->cleaned);
    sem_destroy(&scene->freed);
}

static void count_free(void *user_data)
{
    struct scene *scene = user_data;
    __atomic_fetch_add(&scene->freed_count, 1, __ATOMIC_SEQ_CST);
    sem_post(&scene->freed);
}

static etslock_options killing(int64_t exec_timeout_ms)
{
    etslock_options options;
    etslock_options_init(&options, sizeof options);
    options.exec_timeout_ms = exec_timeout_ms;
    options.on_exec_timeout = ETSLOCK_KILL;
    options.user_data_free = count_free;
    return options;
}

static void clean_up(void *argument)
{
    struct scene *scene = argument;
    /* The guard is valid as long as the callback is on the stack. */
    scene->seen = etslock_guard_status(scene->guard);
    sem_post(&scene->cleaned);
}

static int32_t sleep_with_cleanup(etslock_guard *guard, const etslock_tuple *tuples,
                                  size_t tuple_count, void *user_data)
{
    struct scene *scene = user_data;
    (void)tuples, (void)tuple_count;
    scene->guard = guard;
    CHECK_STATUS(etslock_guard_insert(guard, "k", 1, "written", 7), ETSLOCK_OK);
    pthread_cleanup_push(clean_up, scene);
    sem_post(&scene->started);
    sleep_for_ever();
    scene->passed = 1;
    pthread_cleanup_pop(0);
    return 0;
}

static int32_t read_with_cleanup(etslock_guard *guard, const etslock_tuple *tuples,
                                 size_t tuple_count, void *user_data)
{
    struct scene *scene = user_data;
    (void)tuples, (void)tuple_count;
    scene->guard = guard;
    pthread_cleanup_push(clean_up, scene);
    {
        char byte;
        sem_post(&scene->started);
        if (read(scene->pipe[0], &byte, 1) >= 0)
            scene->passed = 1;
    }
    scene->passed = 1;
    pthread_cleanup_pop(0);
    return 0;
}

static void a_blocked_callback_is_killed(etslock_table *table)
{
    static const etslock_callback callbacks[] = {sleep_with_cleanup, read_with_cleanup};
    etslock_options options = killing(EXEC_MS);
    size_t i;

    for (i = 0; i < 2; i++) {
        struct scene scene;
        etslock_result result;
        uint64_t exec_timeouts = stats_of(NULL).exec_timeouts;
        int64_t begin;
        begin_scene(&scene, table);
        REQUIRE(pipe(scene.pipe) == 0);

        CASE("C-11: a callback blocked in nanosleep or read is cancelled");
        begin = now_ms();
        CHECK_STATUS(etslock_with_lock(table, "k", 1, callbacks[i], &scene, &options, &result),
                     ETSLOCK_EXEC_TIMEOUT);
        CHECK(now_ms() - begin >= EXEC_MS - 2);
        CHECK(result.code == 0 && result.data == NULL);
        CHECK_STATUS(try_lock(table, "k"), ETSLOCK_OK);
        CHECK(stats_of(NULL).exec_timeouts == exec_timeouts + 1);
        CHECK(wait_for(&scene.started));
        CHECK(wait_for(&scene.cleaned));
        CHECK_STATUS(scene.seen, ETSLOCK_REVOKED);

        CASE("C-8: nothing that a killed callback staged is written");
        CHECK_STATUS(etslock_table_member(table, "k", 1), ETSLOCK_NOT_FOUND);

        CASE("C-12: user_data_free is called once for a killed callback");
        end_scene(&scene);
        close(scene.pipe[0]);
        close(scene.pipe[1]);
    }
}

static void give_back_the_inner_guard(void *argument)
{
    struct scene *scene = argument;
    scene->seen = etslock_guard_release(scene->inner);
    sem_post(&scene->cleaned);
}

static int32_t hold_another_and_sleep(etslock_guard *guard, const etslock_tuple *tuples,
                                      size_t tuple_count, void *user_data)
{
    struct scene *scene = user_data;
    (void)guard, (void)tuples, (void)tuple_count;
    CHECK_STATUS(etslock_acquire(scene->table, "inner", 5, NULL, &scene->inner), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_insert(scene->inner, "inner", 5, "1", 1), ETSLOCK_OK);
    pthread_cleanup_push(give_back_the_inner_guard, scene);
    sleep_for_ever();
    scene->passed = 1;
    pthread_cleanup_pop(0);
    return 0;
}

static void a_cleanup_handler_gives_back_a_guard(etslock_table *table)
{
    struct scene scene;
    etslock_options options = killing(EXEC_MS);
    CASE("C-13: a guard acquired in a killed callback lives on; its cleanup handler releases it");
    begin_scene(&scene, table);
    CHECK_STATUS(etslock_with_lock(table, "k", 1, hold_another_and_sleep, &scene, &options, NULL),
                 ETSLOCK_EXEC_TIMEOUT);
    CHECK(wait_for(&scene.cleaned));
    CHECK_STATUS(scene.seen, ETSLOCK_OK);
    CHECK_STATUS(try_lock(table, "inner"), ETSLOCK_OK);
    CHECK_STATUS(etslock_table_member(table, "inner", 5), ETSLOCK_OK);
    end_scene(&scene);
}

static int32_t loop_until_told(etslock_guard *guard, const etslock_tuple *tuples,
                               size_t tuple_count, void *user_data)
{
    struct scene *scene = user_data;
    (void)tuples, (void)tuple_count;
    sem_post(&scene->started);
    /* No cancellation point: neither an atomic load nor sched_yield is one. */
    while (!__atomic_load_n(&scene->stop, __ATOMIC_ACQUIRE))
        sched_yield();
    scene->seen = etslock_guard_insert(guard, "k", 1, "late", 4);
    return 0;
}

struct next {
    pthread_t thread;
    etslock_table *table;
    etslock_status status;
};

static void *take_k(void *argument)
{
    struct next *next = argument;
    etslock_options options;
    etslock_guard *guard = NULL;
    etslock_options_init(&options, sizeof options);
    options.wait_timeout_ms = ETSLOCK_INFINITE;
    next->status = etslock_acquire(next->table, "k", 1, &options, &guard);
    if (next->status == ETSLOCK_OK)
        CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    return NULL;
}

struct caller {
    pthread_t thread;
    struct scene *scene;
    etslock_status status;
};

static void *call_loop_until_told(void *argument)
{
    struct caller *caller = argument;
    etslock_options options = killing(EXEC_MS);
    caller->status = etslock_with_lock(caller->scene->table, "k", 1, loop_until_told,
                                       caller->scene, &options, NULL);
    return NULL;
}

static void a_loop_is_abandoned(etslock_table *table)
{
    struct scene scene;
    struct caller caller;
    struct next next;
    etslock_result result;
    etslock_options options;

    CASE("C-11: a loop without cancellation points is abandoned; the lock waits for no death");
    begin_scene(&scene, table);
    caller.scene = &scene;
    next.table = table;
    REQUIRE(pthread_create(&caller.thread, NULL, call_loop_until_told, &caller) == 0);
    REQUIRE(wait_for(&scene.started));
    REQUIRE(pthread_create(&next.thread, NULL, take_k, &next) == 0);
    /* Both return while the callback still loops. */
    REQUIRE(pthread_join(caller.thread, NULL) == 0);
    REQUIRE(pthread_join(next.thread, NULL) == 0);
    CHECK_STATUS(caller.status, ETSLOCK_EXEC_TIMEOUT);
    CHECK_STATUS(next.status, ETSLOCK_OK);
    CHECK(stats_of(NULL).abandoned == 1);
    CHECK(__atomic_load_n(&scene.freed_count, __ATOMIC_SEQ_CST) == 0);

    CASE("C-13: an abandoned callback starves no other call");
    etslock_options_init(&options, sizeof options);
    options.exec_timeout_ms = 0;
    CHECK_STATUS(etslock_with_lock(table, "other", 5, loop_until_told, NULL, &options, &result),
                 ETSLOCK_EXEC_TIMEOUT);
    CHECK_STATUS(try_lock(table, "k"), ETSLOCK_OK);

    __atomic_store_n(&scene.stop, 1, __ATOMIC_RELEASE);
    CHECK(wait_for(&scene.freed));
    sem_post(&scene.freed);
    CHECK_STATUS(scene.seen, ETSLOCK_REVOKED);
    CHECK_STATUS(etslock_table_member(table, "k", 1), ETSLOCK_NOT_FOUND);
    end_scene(&scene);
}

static int32_t sleep_in_the_library(etslock_guard *guard, const etslock_tuple *tuples,
                                    size_t tuple_count, void *user_data)
{
    struct scene *scene = user_data;
    (void)tuples, (void)tuple_count;
    scene->guard = guard;
    scene->seen = etslock_guard_sleep(guard, 600000);
    sem_post(&scene->started);
    sleep_for_ever();
    scene->passed = 1;
    return 0;
}

static void a_library_sleep_is_not_cut(etslock_table *table)
{
    struct scene scene;
    etslock_options options = killing(EXEC_MS);
    CASE("C-11: the cancellation comes after etslock_guard_sleep, which tells of the revocation");
    begin_scene(&scene, table);
    CHECK_STATUS(etslock_with_lock(table, "k", 1, sleep_in_the_library, &scene, &options, NULL),
                 ETSLOCK_EXEC_TIMEOUT);
    CHECK(wait_for(&scene.started));
    CHECK_STATUS(scene.seen, ETSLOCK_REVOKED);
    end_scene(&scene);
}

static int32_t wait_in_the_library(etslock_guard *guard, const etslock_tuple *tuples,
                                   size_t tuple_count, void *user_data)
{
    struct scene *scene = user_data;
    etslock_options options;
    (void)guard, (void)tuples, (void)tuple_count;
    etslock_options_init(&options, sizeof options);
    options.wait_timeout_ms = ETSLOCK_INFINITE;
    scene->seen = etslock_acquire(scene->table, "inner", 5, &options, &scene->inner);
    sem_post(&scene->started);
    sleep_for_ever();
    scene->passed = 1;
    return 0;
}

static void a_library_wait_is_not_cut(etslock_table *table)
{
    struct scene scene;
    etslock_options options = killing(EXEC_MS);
    etslock_guard *inner = NULL;
    etslock_options holding;

    CASE("C-11: the cancellation comes after a wait for another lock, which may succeed");
    etslock_options_init(&holding, sizeof holding);
    holding.exec_timeout_ms = ETSLOCK_INFINITE;
    holding.owner = ETSLOCK_OWNER_NONE;
    begin_scene(&scene, table);
    REQUIRE(etslock_acquire(table, "inner", 5, &holding, &inner) == ETSLOCK_OK);
    CHECK_STATUS(etslock_with_lock(table, "k", 1, wait_in_the_library, &scene, &options, NULL),
                 ETSLOCK_EXEC_TIMEOUT);
    await_waiting(NULL, 1);
    CHECK(stats_of(NULL).abandoned == 1);
    CHECK_STATUS(etslock_guard_release(inner), ETSLOCK_OK);
    CHECK(wait_for(&scene.started));
    CHECK_STATUS(scene.seen, ETSLOCK_OK);
    CHECK_STATUS(try_lock(table, "inner"), ETSLOCK_WAIT_TIMEOUT);
    end_scene(&scene);
    CHECK_STATUS(etslock_guard_release(scene.inner), ETSLOCK_OK);
    CHECK_STATUS(try_lock(table, "inner"), ETSLOCK_OK);
}

static int32_t exit_thread(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                           void *user_data)
{
    struct scene *scene = user_data;
    (void)tuples, (void)tuple_count;
    scene->guard = guard;
    CHECK_STATUS(etslock_guard_insert(guard, "k", 1, "written", 7), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_set_result(guard, "result", 6), ETSLOCK_OK);
    pthread_cleanup_push(clean_up, scene);
    pthread_exit(NULL);
    pthread_cleanup_pop(0);
    return 0;
}

static int32_t return_seven(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                            void *user_data)
{
    (void)guard, (void)tuples, (void)tuple_count, (void)user_data;
    return 7;
}

static void a_callback_that_ends_its_thread(etslock_table *table)
{
    static const int32_t modes[] = {ETSLOCK_ABANDON, ETSLOCK_JOIN, ETSLOCK_KILL};
    size_t i;
    for (i = 0; i < 3; i++) {
        struct scene scene;
        etslock_result result;
        etslock_options options = killing(ETSLOCK_INFINITE);
        options.on_exec_timeout = modes[i];

        CASE("C-17: a callback that ends its thread has failed, and holds nothing");
        begin_scene(&scene, table);
        CHECK_STATUS(etslock_with_lock(table, "k", 1, exit_thread, &scene, &options, &result),
                     ETSLOCK_CALLBACK_FAILED);
        CHECK(result.data == NULL && result.data_len == 0);
        etslock_result_free(&result);
        CHECK_STATUS(try_lock(table, "k"), ETSLOCK_OK);
        CHECK_STATUS(etslock_table_member(table, "k", 1), ETSLOCK_NOT_FOUND);
        CHECK(sem_trywait(&scene.cleaned) == 0);

        CASE("C-12: it ended in time, so its user data is free before the call returns");
        CHECK(__atomic_load_n(&scene.freed_count, __ATOMIC_SEQ_CST) == 1);
        end_scene(&scene);

        CASE("C-17: the next call finds a worker");
        options = killing(ETSLOCK_INFINITE);
        options.user_data_free = NULL;
        CHECK_STATUS(etslock_with_lock(table, "k", 1, return_seven, NULL, &options, &result),
                     ETSLOCK_CALLBACK_FAILED);
        CHECK(result.code == 7);
        etslock_result_free(&result);
    }
}

static int32_t sleep_for_ever_under_lock(etslock_guard *guard, const etslock_tuple *tuples,
                                         size_t tuple_count, void *user_data)
{
    (void)guard, (void)tuples, (void)tuple_count, (void)user_data;
    sleep_for_ever();
    return 0;
}

static void many_kills(etslock_table *table)
{
    struct scene scene;
    etslock_options options = killing(5);
    int i;

    CASE("C-11: kill after kill leaves no thread and no data behind");
    begin_scene(&scene, table);
    for (i = 0; i < 20; i++)
        CHECK_STATUS(etslock_with_lock(table, "k", 1, sleep_for_ever_under_lock, &scene, &options,
                                       NULL),
                     ETSLOCK_EXEC_TIMEOUT);
    /* A callback that no worker started within its 5 ms never ran: also one free. */
    for (i = 0; i < 20; i++)
        CHECK(wait_for(&scene.freed));
    await_abandoned(0);
    CHECK(__atomic_load_n(&scene.freed_count, __ATOMIC_SEQ_CST) == 20);
    WAIT_UNTIL(stats_of(NULL).workers <= 4);
    sem_destroy(&scene.started);
    sem_destroy(&scene.cleaned);
    sem_destroy(&scene.freed);
}

static int32_t exit_at_once(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                            void *user_data)
{
    (void)guard, (void)tuples, (void)tuple_count, (void)user_data;
    pthread_exit(NULL);
    return 0;
}

static void end_threads(etslock_table *table, int count)
{
    etslock_options options = killing(ETSLOCK_INFINITE);
    options.user_data_free = NULL;
    while (count-- > 0)
        CHECK_STATUS(etslock_with_lock(table, "k", 1, exit_at_once, NULL, &options, NULL),
                     ETSLOCK_CALLBACK_FAILED);
}

static void ended_threads_leave_no_memory(etslock_table *table)
{
    long before;
    long growth;
    CASE("C-15: callbacks that end their thread leave no memory behind");
    end_threads(table, 200);
    if (!memory_can_be_measured())
        return;
    end_threads(table, 800);
    before = resident_bytes();
    end_threads(table, 2000);
    growth = resident_bytes() - before;
    /* 600 bytes kept for each would be more. */
    if (!CHECK(growth < 1 << 20))
        fprintf(stderr, "    grew by %ld bytes\n", growth);
}

static void bad_option(etslock_table *table)
{
    struct scene scene;
    etslock_options options = killing(EXEC_MS);
    CASE("C-11: KILL on the caller's thread is invalid, and the user data is freed");
    options.run_on = ETSLOCK_RUN_ON_CALLER;
    begin_scene(&scene, table);
    CHECK_STATUS(etslock_with_lock(table, "k", 1, return_seven, &scene, &options, NULL),
                 ETSLOCK_ERR_INVALID);
    CHECK(scene.freed_count == 1);
    CHECK_STATUS(try_lock(table, "k"), ETSLOCK_OK);
    end_scene(&scene);
}

int main(void)
{
    etslock_table *table = NULL;
    alarm(120); /* a hang is a failure */
    REQUIRE(etslock_table_new(NULL, &table) == ETSLOCK_OK);
    RUN(a_blocked_callback_is_killed(table));
    RUN(a_cleanup_handler_gives_back_a_guard(table));
    RUN(a_loop_is_abandoned(table));
    RUN(a_library_sleep_is_not_cut(table));
    RUN(a_library_wait_is_not_cut(table));
    RUN(a_callback_that_ends_its_thread(table));
    RUN(many_kills(table));
    RUN(ended_threads_leave_no_memory(table));
    RUN(bad_option(table));
    CHECK(stats_of(NULL).held == 0 && stats_of(NULL).waiting == 0);
    etslock_table_free(table);
    return check_report();
}
