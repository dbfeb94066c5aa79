/* no_threads.c - the system starts no thread, or starts it late. Checks C-4, C-12 and C-17.
 *
 * This program has a `pthread_create` of its own, which the library finds before the system's. It
 * refuses, or waits, when it is told to.
 */
#define _GNU_SOURCE /* RTLD_NEXT */
#include "check.h"
#include "locks.h"
#include "processes.h"
#include "threads.h"

#include <dlfcn.h>

static int load(const int *word)
{
    return __atomic_load_n(word, __ATOMIC_SEQ_CST);
}

static void store(int *word, int value)
{
    __atomic_store_n(word, value, __ATOMIC_SEQ_CST);
}

/* --- threads on demand --- */

typedef void *routine(void *);
typedef int creator(pthread_t *, const pthread_attr_t *, routine *, void *);

static int refusal;           /* what is answered instead of a thread; 0: nothing */
static int asked;             /* how many threads were asked for */
static int held_up;           /* whether those of other threads than this wait for `go` */
static pthread_t main_thread; /* this one */
static sem_t arrived, go;

#if SANITIZED
creator __interceptor_pthread_create; /* a sanitizer has to know of every thread */
#endif

static creator *system_creator(void)
{
#if SANITIZED
    return __interceptor_pthread_create;
#else
    creator *function;
    void *symbol = dlsym(RTLD_NEXT, "pthread_create");
    REQUIRE(symbol != NULL);
    memcpy(&function, &symbol, sizeof symbol);
    return function;
#endif
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, routine *start,
                   void *argument)
{
    add_one(&asked);
    if (load(&held_up) && !pthread_equal(pthread_self(), main_thread)) {
        sem_post(&arrived);
        REQUIRE(wait_for(&go));
    }
    if (load(&refusal) != 0)
        return load(&refusal);
    return system_creator()(thread, attributes, start, argument);
}

/* --- calls that need a thread --- */

/* What a callback is given, and what became of it. */
struct work {
    etslock_table *table;
    int runs, frees;
};

static int32_t write_k(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                       void *user_data)
{
    struct work *work = user_data;
    (void)tuples, (void)tuple_count;
    add_one(&work->runs);
    return etslock_guard_insert(guard, "k", 1, "new", 3);
}

static void free_work(void *user_data)
{
    struct work *work = user_data;
    CHECK_STATUS(try_lock(work->table, "another"), ETSLOCK_OK);
    add_one(&work->frees);
}

static etslock_options on_a_worker(int32_t on_exec_timeout)
{
    etslock_options options = patient(NULL);
    options.on_exec_timeout = on_exec_timeout;
    options.user_data_free = free_work;
    return options;
}

static void check_nothing_happened(etslock_table *table)
{
    etslock_stats stats = stats_of(NULL);
    CHECK(stats.held == 0 && stats.waiting == 0 && stats.abandoned == 0);
    CHECK_STATUS(try_lock(table, "k"), ETSLOCK_OK);
    CHECK(has_value(table, "k", "old"));
}

/* Before there is any worker. */
static void refused(etslock_table *table, int32_t on_exec_timeout)
{
    static const etslock_key keys[] = {{"k", 1}, {"k2", 2}};
    etslock_options options = on_a_worker(on_exec_timeout);
    size_t key_count;
    for (key_count = 1; key_count <= COUNT_OF(keys); key_count++) {
        struct work work = {table, 0, 0};
        etslock_result result;
        int before = load(&asked);
        memset(&result, 0xff, sizeof result);
        CHECK_STATUS(etslock_with_locks(table, keys, key_count, write_k, &work, &options, &result),
                     ETSLOCK_ERR_NO_THREAD);
        CHECK(load(&asked) == before + 1);
        CHECK(work.runs == 0 && work.frees == 1);
        CHECK(result.code == 0 && result.data == NULL && result.data_len == 0);
        CHECK(stats_of(NULL).workers == 0);
        check_nothing_happened(table);
    }
}

static void every_refusal(etslock_table *table)
{
    static const int errors[] = {EAGAIN, ENOMEM, EPERM};
    static const int32_t modes[] = {ETSLOCK_ABANDON, ETSLOCK_JOIN, ETSLOCK_KILL};
    size_t i, j;
    CASE("C-17: without a thread the lock is released, and the data freed once");
    for (i = 0; i < COUNT_OF(errors); i++) {
        store(&refusal, errors[i]);
        for (j = 0; j < COUNT_OF(modes); j++)
            refused(table, modes[j]);
    }
    store(&refusal, 0);
}

/* --- calls while others wait, or time runs out --- */

struct caller {
    pthread_t thread;
    struct work work;
    int64_t exec_timeout_ms;
    etslock_status status;
};

static void *call(void *argument)
{
    struct caller *caller = argument;
    etslock_options options = on_a_worker(ETSLOCK_ABANDON);
    options.exec_timeout_ms = caller->exec_timeout_ms;
    caller->status = etslock_with_lock(caller->work.table, "k", 1, write_k, &caller->work,
                                       &options, NULL);
    return NULL;
}

static void *acquire(void *argument)
{
    struct caller *caller = argument;
    etslock_options options = patient(NULL);
    etslock_guard *guard = NULL;
    caller->status = etslock_acquire(caller->work.table, "k", 1, &options, &guard);
    if (guard != NULL)
        CHECK_STATUS(etslock_guard_cancel(guard), ETSLOCK_OK);
    return NULL;
}

static void start(struct caller *caller, routine *what, etslock_table *table,
                  int64_t exec_timeout_ms)
{
    memset(caller, 0, sizeof *caller);
    caller->work.table = table;
    caller->exec_timeout_ms = exec_timeout_ms;
    caller->status = -1;
    REQUIRE(pthread_create(&caller->thread, NULL, what, caller) == 0);
}

static void end(struct caller *caller, etslock_status wanted)
{
    REQUIRE(pthread_join(caller->thread, NULL) == 0);
    CHECK_STATUS(caller->status, wanted);
}

static void a_waiter_gets_the_lock(etslock_table *table)
{
    struct caller first, waiter;
    CASE("C-17: a call that gets no thread hands its lock to the waiter");
    store(&held_up, 1);
    start(&first, call, table, ETSLOCK_INFINITE);
    REQUIRE(wait_for(&arrived));
    start(&waiter, acquire, table, ETSLOCK_INFINITE);
    await_queue(NULL, table, "k", 1);
    store(&refusal, EAGAIN);
    sem_post(&go);
    end(&first, ETSLOCK_ERR_NO_THREAD);
    end(&waiter, ETSLOCK_OK);
    CHECK(first.work.runs == 0 && first.work.frees == 1);
    store(&refusal, 0);
    store(&held_up, 0);
    check_nothing_happened(table);
}

static int is_late(etslock_table *table)
{
    etslock_locks *locks = locks_of(NULL, table);
    etslock_lock_info info;
    int late = find_lock(locks, "k", &info) && info.late;
    etslock_locks_free(locks);
    return late;
}

static void a_late_thread(etslock_table *table)
{
    struct caller late;
    CASE("C-4, C-12: a thread that comes after the deadline is a timeout, and nothing is written");
    store(&held_up, 1);
    start(&late, call, table, 50);
    REQUIRE(wait_for(&arrived));
    WAIT_UNTIL(is_late(table));
    sem_post(&go);
    end(&late, ETSLOCK_EXEC_TIMEOUT);
    WAIT_UNTIL(load(&late.work.frees) > 0); /* it may have begun, to be abandoned */
    await_abandoned(0);
    CHECK(load(&late.work.frees) == 1);
    store(&held_up, 0);
    check_nothing_happened(table);
}

/* --- other calls --- */

static void no_thread_needed(etslock_table *table)
{
    etslock_options options = on_a_worker(ETSLOCK_ABANDON);
    struct work work = {table, 0, 0};
    int before = load(&asked);
    CASE("C-17: what needs no thread does not fail for want of one");
    options.run_on = ETSLOCK_RUN_ON_CALLER;
    store(&refusal, EAGAIN);
    CHECK_STATUS(etslock_with_lock(table, "k", 1, write_k, &work, &options, NULL), ETSLOCK_OK);
    CHECK_STATUS(try_lock(table, "k"), ETSLOCK_OK);
    store(&refusal, 0);
    CHECK(load(&asked) == before);
    CHECK(work.runs == 1 && work.frees == 1 && has_value(table, "k", "new"));
    CHECK_STATUS(etslock_table_insert(table, "k", 1, "old", 3), ETSLOCK_OK);
}

static int32_t call_inside(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                           void *user_data)
{
    struct work *work = user_data;
    etslock_options options = on_a_worker(ETSLOCK_ABANDON);
    store(&refusal, EAGAIN);
    CHECK_STATUS(etslock_with_lock(work->table, "inner", 5, must_not_run, work, &options, NULL),
                 ETSLOCK_ERR_NO_THREAD);
    store(&refusal, 0);
    CHECK(work->frees == 1);
    CHECK_STATUS(try_lock(work->table, "inner"), ETSLOCK_OK);
    return write_k(guard, tuples, tuple_count, user_data);
}

static void a_nested_call(etslock_table *table)
{
    etslock_options options = on_a_worker(ETSLOCK_ABANDON);
    struct work work = {table, 0, 0};
    CASE("C-13, C-17: a nested call that gets no thread leaves the outer one alone");
    WAIT_UNTIL(stats_of(NULL).workers == 0); /* idle ones end */
    CHECK_STATUS(etslock_with_lock(table, "k", 1, call_inside, &work, &options, NULL), ETSLOCK_OK);
    CHECK(work.runs == 1 && work.frees == 2 && has_value(table, "k", "new"));
    CHECK_STATUS(etslock_table_insert(table, "k", 1, "old", 3), ETSLOCK_OK);
}

/* --- a thread that is ending --- */

/* Its calls are carried out by another thread, because the library's data of it is gone. */
static pthread_key_t ending;

struct last_calls {
    etslock_table *table, *handle;
    etslock_guard *guards[2]; /* of "k" and "k2" */
};

/* The calls that need the library's data of their thread. */
static void call_without_a_thread(struct last_calls *calls)
{
    static const int32_t run_ons[] = {ETSLOCK_RUN_ON_WORKER, ETSLOCK_RUN_ON_CALLER};
    etslock_table *table = calls->table;
    etslock_guard *guard = calls->guards[0];
    etslock_tuples *tuples = NULL;
    int64_t number = 7;
    size_t i;
    CHECK_STATUS(etslock_table_insert(table, "lost", 4, "lost", 4), ETSLOCK_ERR_NO_THREAD);
    CHECK_STATUS(etslock_table_insert_new(table, "lost", 4, "lost", 4), ETSLOCK_ERR_NO_THREAD);
    CHECK_STATUS(etslock_table_update_counter(table, "n", 1, 1, 1, &number),
                 ETSLOCK_ERR_NO_THREAD);
    /* These need none: the key is there. */
    CHECK(has_value(table, "k", "old"));
    CHECK_STATUS(etslock_table_insert(table, "k", 1, "new", 3), ETSLOCK_OK);
    CHECK(has_value(table, "k", "new"));
    CHECK_STATUS(etslock_table_insert(table, "k", 1, "old", 3), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_lookup(guard, "k", 1, &tuples), ETSLOCK_OK);
    etslock_tuples_free(tuples);
    tuples = NULL;
    CHECK_STATUS(etslock_guard_commit(guard), ETSLOCK_OK);
    CHECK(has_value(table, "k", "kept"));
    CHECK_STATUS(etslock_table_insert(table, "k", 1, "old", 3), ETSLOCK_OK);
    CHECK(tuples == NULL && number == 7);
    for (i = 0; i < COUNT_OF(run_ons); i++) {
        etslock_options options = on_a_worker(ETSLOCK_ABANDON);
        struct work work = {table, 0, 0};
        options.run_on = run_ons[i];
        options.wait_timeout_ms = ETSLOCK_INFINITE; /* for what this thread holds */
        CHECK_STATUS(etslock_with_lock(table, "k", 1, must_not_run, &work, &options, NULL),
                     ETSLOCK_DEADLOCK); /* it needs nothing to find that out */
        CHECK(work.frees == 1);
    }
    CHECK_STATUS(etslock_guard_sleep(guard, 1), ETSLOCK_OK);
    /* What ends something ends it. */
    etslock_table_free(calls->handle);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_release(calls->guards[1]), ETSLOCK_ERR_NO_THREAD);
    CHECK_STATUS(etslock_table_member(table, "k2", 2), ETSLOCK_NOT_FOUND);
}

static void make_last_calls(void *argument)
{
    store(&refusal, EAGAIN);
    call_without_a_thread(argument);
    store(&refusal, 0);
}

static void *end_with_guards(void *argument)
{
    struct last_calls *calls = argument;
    calls->guards[0] = hold(calls->table, "k");
    calls->guards[1] = hold(calls->table, "k2");
    CHECK_STATUS(etslock_guard_insert(calls->guards[0], "k", 1, "kept", 4), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_insert(calls->guards[1], "k2", 2, "lost", 4), ETSLOCK_OK);
    REQUIRE(pthread_setspecific(ending, calls) == 0);
    return NULL;
}

static void an_ending_thread(etslock_table *table)
{
    static const char name[] = "no_threads: named";
    struct last_calls calls = {table, new_table_named(name), {NULL, NULL}};
    etslock_table *gone = NULL;
    pthread_t thread;
    int before = load(&asked);
    CASE("C-12, C-17: without a thread a call by one that is ending fails, and lets go");
    REQUIRE(pthread_key_create(&ending, make_last_calls) == 0);
    REQUIRE(pthread_create(&thread, NULL, end_with_guards, &calls) == 0);
    REQUIRE(pthread_join(thread, NULL) == 0);
    CHECK(load(&asked) > before + 1);
    check_nothing_happened(table);
    CHECK_STATUS(try_lock(table, "k2"), ETSLOCK_OK);
    CHECK_STATUS(etslock_table_open(name, &gone), ETSLOCK_NOT_FOUND);
    pthread_key_delete(ending);
}

int main(void)
{
    etslock_table *table = new_table();
    main_thread = pthread_self();
    REQUIRE(sem_init(&arrived, 0, 0) == 0 && sem_init(&go, 0, 0) == 0);
    CHECK_STATUS(etslock_table_insert(table, "k", 1, "old", 3), ETSLOCK_OK);
    RUN(every_refusal(table));
    RUN(a_waiter_gets_the_lock(table));
    RUN(a_late_thread(table));
    RUN(no_thread_needed(table));
    RUN(a_nested_call(table));
    RUN(an_ending_thread(table));
    sem_destroy(&arrived);
    sem_destroy(&go);
    etslock_table_free(table);
    return check_report();
}
