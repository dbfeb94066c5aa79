/* ending.c - calls of a thread that is ending inside a callback: it still is who it was. Checks
 * C-11, C-12, C-13 and C-17.
 *
 * The library carries such calls out on another thread. They are made by destructors of
 * thread-specific data, and by handlers of `exit`.
 */
#define _GNU_SOURCE /* gettid */
#include "check.h"
#include "locks.h"
#include "processes.h"
#include "threads.h"

#include <sys/syscall.h>

static etslock_table *table;

static uint64_t this_thread(void)
{
    return (uint64_t)syscall(SYS_gettid);
}

/* What waits for ever unless it is found to wait for itself. */
static etslock_status want(const char *key)
{
    etslock_options options = patient(NULL);
    etslock_guard *guard = NULL;
    etslock_status status = etslock_acquire(table, key, strlen(key), &options, &guard);
    if (status == ETSLOCK_OK)
        CHECK_STATUS(etslock_guard_cancel(guard), ETSLOCK_OK);
    return status;
}

/* --- what an ending thread finds --- */

struct scene {
    etslock_guard *guard; /* the callback's, of "own" */
    etslock_guard *extra; /* of "extra", which the callback acquired */
    int has_ancestor;     /* whose call holds "ancestor" */
    int way;
    int cancel_state; /* that a callback finds */
    int looks, frees;
    sem_t freed;
};

static struct scene *in_exit; /* for the handler of `exit` */

static int32_t look_inside(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                           void *user_data)
{
    const struct scene *scene = user_data;
    int state = -1;
    (void)guard, (void)tuples, (void)tuple_count;
    CHECK_STATUS(want("inner"), ETSLOCK_DEADLOCK);
    CHECK_STATUS(want("own"), ETSLOCK_DEADLOCK);
    if (scene->has_ancestor)
        CHECK_STATUS(want("ancestor"), ETSLOCK_DEADLOCK);
    /* On the caller's thread it is off, whoever carries the call out. */
    REQUIRE(pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state) == 0);
    CHECK(state == scene->cancel_state);
    return 0;
}

static void look(struct scene *scene)
{
    etslock_options options = patient(NULL);
    etslock_guard *mine;
    etslock_locks *locks;
    etslock_lock_info info;
    __atomic_fetch_add(&scene->looks, 1, __ATOMIC_SEQ_CST);
    CHECK_STATUS(want("own"), ETSLOCK_DEADLOCK);
    CHECK_STATUS(want("extra"), ETSLOCK_DEADLOCK);
    if (scene->has_ancestor)
        CHECK_STATUS(want("ancestor"), ETSLOCK_DEADLOCK);
    CHECK_STATUS(want("free"), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_status(scene->guard), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_status(scene->extra), ETSLOCK_OK);

    /* Two calls are of one owner, and of this thread. */
    mine = hold(table, "mine");
    CHECK_STATUS(want("mine"), ETSLOCK_DEADLOCK);
    locks = locks_of(NULL, table);
    REQUIRE(find_lock(locks, "mine", &info));
    CHECK(info.thread_id == this_thread());
    etslock_locks_free(locks);
    CHECK_STATUS(etslock_guard_cancel(mine), ETSLOCK_OK);

    /* Calls inside calls. */
    options.run_on = ETSLOCK_RUN_ON_CALLER;
    scene->cancel_state = PTHREAD_CANCEL_DISABLE;
    CHECK_STATUS(etslock_with_lock(table, "inner", 5, look_inside, scene, &options, NULL),
                 ETSLOCK_OK);
    options.run_on = ETSLOCK_RUN_ON_WORKER;
    scene->cancel_state = PTHREAD_CANCEL_ENABLE;
    CHECK_STATUS(etslock_with_lock(table, "inner", 5, look_inside, scene, &options, NULL),
                 ETSLOCK_OK);
}

/* Made before and after the library's own, which tells it that the thread ends. */
static pthread_key_t keys[2];

static void look_in_destructor(void *scene)
{
    look(scene);
}

enum { EXITS, IS_CANCELLED };

static int32_t end_thread(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                          void *user_data)
{
    struct scene *scene = user_data;
    size_t i;
    (void)tuples, (void)tuple_count;
    scene->guard = guard;
    scene->extra = hold(table, "extra");
    for (i = 0; i < COUNT_OF(keys); i++)
        REQUIRE(pthread_setspecific(keys[i], scene) == 0);
    if (scene->way == IS_CANCELLED) {
        pthread_cancel(pthread_self());
        pthread_testcancel();
    }
    pthread_exit(NULL);
}

static void free_scene(void *user_data)
{
    struct scene *scene = user_data;
    CHECK_STATUS(try_lock(table, "own"), ETSLOCK_OK);
    add_one(&scene->frees);
    sem_post(&scene->freed);
}

static void call(struct scene *scene)
{
    etslock_options options = patient(NULL);
    options.user_data_free = free_scene;
    CHECK_STATUS(etslock_with_lock(table, "own", 3, end_thread, scene, &options, NULL),
                 ETSLOCK_CALLBACK_FAILED);
    CHECK(scene->looks == (int)COUNT_OF(keys) && scene->frees == 1);
    CHECK_STATUS(etslock_guard_cancel(scene->extra), ETSLOCK_OK);
}

static int32_t call_inside(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                           void *scene)
{
    (void)guard, (void)tuples, (void)tuple_count;
    call(scene);
    return 0;
}

static void ends(int way, int has_ancestor)
{
    struct scene scene;
    memset(&scene, 0, sizeof scene);
    REQUIRE(sem_init(&scene.freed, 0, 0) == 0);
    scene.way = way;
    scene.has_ancestor = has_ancestor;
    if (has_ancestor) {
        etslock_options options = patient(NULL);
        CHECK_STATUS(etslock_with_lock(table, "ancestor", 8, call_inside, &scene, &options, NULL),
                     ETSLOCK_OK);
        options.run_on = ETSLOCK_RUN_ON_CALLER;
        scene.looks = scene.frees = 0;
        CHECK_STATUS(etslock_with_lock(table, "ancestor", 8, call_inside, &scene, &options, NULL),
                     ETSLOCK_OK);
    } else {
        call(&scene);
    }
    sem_destroy(&scene.freed);
}

/* --- what is let go on an ending thread --- */

static int32_t end_thread_late(etslock_guard *guard, const etslock_tuple *tuples,
                               size_t tuple_count, void *user_data)
{
    (void)tuples, (void)tuple_count, (void)user_data;
    CHECK_STATUS(etslock_guard_sleep(guard, ETSLOCK_INFINITE), ETSLOCK_REVOKED);
    pthread_exit(NULL);
}

static void lock_when_freed(void *user_data)
{
    struct scene *scene = user_data;
    etslock_guard *mine = hold(table, "mine");
    CHECK_STATUS(want("mine"), ETSLOCK_DEADLOCK);
    CHECK_STATUS(etslock_guard_cancel(mine), ETSLOCK_OK);
    add_one(&scene->frees);
    sem_post(&scene->freed);
}

static void freed_by_an_ending_thread(void)
{
    struct scene scene;
    etslock_options options = patient(NULL);
    memset(&scene, 0, sizeof scene);
    REQUIRE(sem_init(&scene.freed, 0, 0) == 0);
    options.exec_timeout_ms = 20;
    options.user_data_free = lock_when_freed;
    CHECK_STATUS(etslock_with_lock(table, "own", 3, end_thread_late, &scene, &options, NULL),
                 ETSLOCK_EXEC_TIMEOUT);
    REQUIRE(wait_for(&scene.freed));
    CHECK(scene.frees == 1);
    sem_destroy(&scene.freed);
}

/* --- exit --- */

static void look_at_exit(void)
{
    if (in_exit == NULL)
        return;
    look(in_exit);
    CHECK(in_exit->looks == 1);
    _exit(__atomic_load_n(&check_failures, __ATOMIC_RELAXED) == 0 ? 0 : 1);
}

static int32_t leave(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                     void *user_data)
{
    struct scene *scene = user_data;
    (void)tuples, (void)tuple_count;
    scene->guard = guard;
    scene->extra = hold(table, "extra");
    in_exit = scene;
    exit(1);
}

static int leave_by(int32_t run_on)
{
    static struct scene scene;
    etslock_options options = patient(NULL);
    REQUIRE(atexit(look_at_exit) == 0);
    table = new_table();
    options.run_on = run_on;
    etslock_with_lock(table, "own", 3, leave, &scene, &options, NULL);
    return 1;
}

int main(int argc, char **argv)
{
    int round, rounds = is_small_scale() ? 2 : 20;
    alarm(120); /* a hang is a failure */
    if (argc == 2 && strcmp(argv[1], "worker") == 0)
        return leave_by(ETSLOCK_RUN_ON_WORKER);
    if (argc == 2 && strcmp(argv[1], "caller") == 0)
        return leave_by(ETSLOCK_RUN_ON_CALLER);

    REQUIRE(pthread_key_create(&keys[0], look_in_destructor) == 0);
    table = new_table();
    CHECK_STATUS(etslock_with_lock(table, "k", 1, do_nothing, NULL, NULL, NULL), ETSLOCK_OK);
    REQUIRE(pthread_key_create(&keys[1], look_in_destructor) == 0);

    for (round = 0; round < rounds; round++) {
        CASE("C-13: a callback that ends its thread is who it was until the thread has ended");
        RUN(ends(EXITS, 0));
        CASE("C-13: also when it is cancelled");
        RUN(ends(IS_CANCELLED, 0));
        CASE("C-13: and its caller is still its caller");
        RUN(ends(EXITS, 1));
        RUN(ends(IS_CANCELLED, 1));
        CASE("C-12: user_data_free on an ending thread");
        RUN(freed_by_an_ending_thread());
    }
    CASE("C-13: a handler of exit, called in a callback, is who the callback was");
    CHECK(run_again(argv[0], "worker") == 0);
    CHECK(run_again(argv[0], "caller") == 0);

    etslock_table_free(table);
    return check_report();
}
