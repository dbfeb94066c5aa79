/* asan: skip (the sanitizer needs the keys that this takes)
 * tsan: skip (the sanitizer needs the keys that this takes)
 *
 * no_keys.c - thread-specific keys, places for them, handlers of fork and attributes of threads
 * that are not to be had are statuses, and what failed works later. Checks C-17 and C-24.
 *
 * This program has some functions of its own, which the library finds before the system's. They
 * refuse when they are told to; `__register_atfork` is what `pthread_atfork` calls.
 */
#define _GNU_SOURCE /* RTLD_NEXT */
#include "check.h"
#include "locks.h"
#include "processes.h"
#include "threads.h"

#include <dlfcn.h>
#include <limits.h>

static int refuses_handlers = 1; /* when the library is loaded, too */
static int refuses_values, refuses_attributes;
static int handlers;

static int is_set(const int *word)
{
    return __atomic_load_n(word, __ATOMIC_SEQ_CST);
}

static void set(int *word, int value)
{
    __atomic_store_n(word, value, __ATOMIC_SEQ_CST);
}

static void find_next(const char *name, void *out_function)
{
    void *symbol = dlsym(RTLD_NEXT, name);
    REQUIRE(symbol != NULL);
    memcpy(out_function, &symbol, sizeof symbol);
}

int __register_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void), void *dso);
int __register_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void), void *dso)
{
    int (*next)(void (*)(void), void (*)(void), void (*)(void), void *);
    if (is_set(&refuses_handlers))
        return ENOMEM;
    find_next("__register_atfork", &next);
    __atomic_fetch_add(&handlers, 1, __ATOMIC_SEQ_CST);
    return next(prepare, parent, child, dso);
}

int pthread_setspecific(pthread_key_t key, const void *value)
{
    int (*next)(pthread_key_t, const void *);
    if (is_set(&refuses_values))
        return ENOMEM;
    find_next("pthread_setspecific", &next);
    return next(key, value);
}

int pthread_attr_init(pthread_attr_t *attributes)
{
    int (*next)(pthread_attr_t *);
    if (is_set(&refuses_attributes))
        return ENOMEM;
    find_next("pthread_attr_init", &next);
    return next(attributes);
}

/* --- calls that need what is refused --- */

struct work {
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
    add_one(&work->frees);
}

/* A call on a worker; whether the callback ran, and nothing is left, as the status says. */
static etslock_status call_until(etslock_table *table, int64_t exec_timeout_ms)
{
    struct work work = {0, 0};
    etslock_options options = patient(NULL);
    etslock_result result;
    etslock_status status;
    memset(&result, 0xff, sizeof result);
    options.exec_timeout_ms = exec_timeout_ms;
    options.on_exec_timeout = ETSLOCK_JOIN;
    options.user_data_free = free_work;
    CHECK_STATUS(etslock_table_insert(table, "k", 1, "old", 3), ETSLOCK_OK);
    status = etslock_with_lock(table, "k", 1, write_k, &work, &options, &result);
    CHECK(work.frees == 1 && work.runs == (status == ETSLOCK_OK));
    CHECK(has_value(table, "k", status == ETSLOCK_OK ? "new" : "old"));
    CHECK(result.code == 0 && result.data == NULL && result.data_len == 0);
    CHECK_STATUS(try_lock(table, "k"), ETSLOCK_OK);
    CHECK(stats_of(NULL).held == 0 && stats_of(NULL).abandoned == 0);
    return status;
}

static etslock_status call(etslock_table *table)
{
    return call_until(table, ETSLOCK_INFINITE);
}

static void no_handlers(void)
{
    etslock_table *table = NULL;
    etslock_lock_table *lock_table = NULL;
    CASE("C-24: without a place for its handlers the library makes no handle");
    CHECK_STATUS(etslock_table_new(NULL, &table), ETSLOCK_ERR_NO_MEMORY);
    CHECK_STATUS(etslock_lock_table_new(&lock_table), ETSLOCK_ERR_NO_MEMORY);
    CHECK(table == NULL && lock_table == NULL && handlers == 0);
    CHECK_STATUS(etslock_table_new(NULL, &table), ETSLOCK_ERR_NO_MEMORY);
    set(&refuses_handlers, 0);
    table = new_table();
    CHECK(handlers == 1);
    etslock_table_free(new_table());
    CHECK(handlers == 1);
    etslock_table_free(table);
}

/* Takes all there are; the caller gives them back. */
static int take_all_keys(pthread_key_t *keys)
{
    int taken = 0;
    while (taken < PTHREAD_KEYS_MAX && pthread_key_create(&keys[taken], NULL) == 0)
        taken++;
    return taken;
}

static void *make_first_calls(void *argument)
{
    etslock_table *table = argument;
    etslock_guard *guard = hold(table, "other");
    etslock_options waits = patient(NULL);
    waits.wait_timeout_ms = 20;
    waits.owner = 7;
    CHECK_STATUS(etslock_table_insert(table, "x", 1, "v", 1), ETSLOCK_OK);
    CHECK(has_value(table, "x", "v"));
    CHECK_STATUS(try_lock_with(waits, table, "other"), ETSLOCK_WAIT_TIMEOUT);
    waits.wait_timeout_ms = 20;
    {
        etslock_guard *none = NULL;
        CHECK_STATUS(etslock_acquire(table, "other", 5, &waits, &none), ETSLOCK_WAIT_TIMEOUT);
    }
    CHECK_STATUS(etslock_guard_sleep(guard, 1), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    return NULL;
}

/* In a process that has not called the library before. */
static void no_keys(void)
{
    static pthread_key_t keys[PTHREAD_KEYS_MAX];
    int taken = take_all_keys(keys), round;
    etslock_table *table = new_table();
    pthread_t thread;
    CASE("C-17: without a thread-specific key there is no worker");
    for (round = 0; round < 3; round++) {
        CHECK_STATUS(call(table), ETSLOCK_ERR_NO_THREAD);
        CHECK(stats_of(NULL).workers == 0);
    }
    CASE("C-24: and everything else works");
    make_first_calls(table);
    REQUIRE(pthread_create(&thread, NULL, make_first_calls, table) == 0);
    REQUIRE(pthread_join(thread, NULL) == 0);
    CASE("C-17: and workers do, once there is a key");
    while (taken > 0)
        REQUIRE(pthread_key_delete(keys[--taken]) == 0);
    CHECK_STATUS(call(table), ETSLOCK_OK);
    CHECK(take_all_keys(keys) > 0); /* they are of no more use to it */
    CHECK_STATUS(call(table), ETSLOCK_OK);
    etslock_table_free(table);
}

static void no_values(void)
{
    etslock_table *table = new_table();
    int round;
    CASE("C-17: a worker that cannot say when it ends runs nothing");
    WAIT_UNTIL(stats_of(NULL).workers == 0); /* idle ones end */
    set(&refuses_values, 1);
    for (round = 0; round < 20; round++) {
        etslock_status status;
        CHECK_STATUS(call(table), ETSLOCK_ERR_NO_THREAD);
        status = call_until(table, 1);
        CHECK(status == ETSLOCK_ERR_NO_THREAD || status == ETSLOCK_EXEC_TIMEOUT);
    }
    WAIT_UNTIL(stats_of(NULL).workers == 0);
    set(&refuses_values, 0);
    CHECK_STATUS(call(table), ETSLOCK_OK);
    etslock_table_free(table);
}

static void no_attributes(void)
{
    etslock_table *table = new_table();
    CASE("C-17: without attributes there is no thread");
    WAIT_UNTIL(stats_of(NULL).workers == 0);
    set(&refuses_attributes, 1);
    CHECK_STATUS(call(table), ETSLOCK_ERR_NO_THREAD);
    CHECK_STATUS(call(table), ETSLOCK_ERR_NO_THREAD);
    CHECK(stats_of(NULL).workers == 0);
    set(&refuses_attributes, 0);
    CHECK_STATUS(call(table), ETSLOCK_OK);
    etslock_table_free(table);
}

int main(void)
{
    alarm(120); /* a hang is a failure */
    RUN(no_handlers());
    RUN(no_keys());
    RUN(no_values());
    RUN(no_attributes());
    return check_report();
}
