/* original.c - what EtsLock for Elixir promises, told in C: its example and its tests.
 *
 * Where the original sleeps to line up its processes, semaphores hold the threads in place.
 * Real time passes only where a timeout is the subject; its lower bounds are exact to the clock's
 * rounding, its upper bounds are wide because the machine may be busy.
 */
#include "check.h"
#include "locks.h"

#include <pthread.h>
#include <semaphore.h>

#define KEY "key", 3

enum {
    SLACK_MS = 2,    /* two clock readings, each rounded to a millisecond */
    SOON_MS = 2000,  /* far above any timeout in this file, far below "it hung" */
    AMPLE_MS = 20000 /* a timeout that must not be what ends a wait */
};

/* One caller on a thread of its own, and what its callback does. */
struct caller {
    etslock_table *table;
    etslock_options options;
    const char *value;       /* what the callback writes */
    int unguarded;           /* writes the original's way: straight to the table */
    int holds_still;         /* the callback waits for `finish` */
    long sleeps_ms;          /* and then sleeps */
    sem_t holding;           /* posted by the callback: the lock is held */
    sem_t finish;            /* lets the callback go on */
    sem_t freed;             /* posted by user_data_free: the callback has ended */
    int runs;                /* of the callback */
    int saw_nope;            /* the callback's tuples were {key, "nope"} */
    etslock_status write;    /* the answer to the write */
    etslock_status answer;   /* the answer of the call */
    int64_t began_ms, ended_ms;
    pthread_t thread;
};

static void caller_init(struct caller *caller, etslock_table *table, const char *value)
{
    memset(caller, 0, sizeof *caller);
    caller->table = table;
    caller->value = value;
    caller->options = options_of(AMPLE_MS, AMPLE_MS, AMPLE_MS);
    caller->write = caller->answer = -1;
    sem_init(&caller->holding, 0, 0);
    sem_init(&caller->finish, 0, 0);
    sem_init(&caller->freed, 0, 0);
}

static void caller_end(struct caller *caller)
{
    sem_destroy(&caller->holding);
    sem_destroy(&caller->finish);
    sem_destroy(&caller->freed);
}

static int32_t write_value(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                           void *user_data)
{
    struct caller *caller = user_data;
    caller->runs++;
    caller->saw_nope = tuple_count == 1 && tuple_is(&tuples[0], "nope");
    sem_post(&caller->holding);
    if (caller->holds_still)
        sem_wait(&caller->finish);
    if (caller->sleeps_ms > 0)
        sleep_ms(caller->sleeps_ms);
    if (caller->unguarded)
        caller->write = etslock_table_insert(caller->table, KEY, caller->value,
                                             strlen(caller->value));
    else
        caller->write = etslock_guard_insert(guard, KEY, caller->value, strlen(caller->value));
    return 0;
}

static void callback_ended(void *user_data)
{
    struct caller *caller = user_data;
    sem_post(&caller->freed);
}

static void *call(void *user_data)
{
    struct caller *caller = user_data;
    caller->options.user_data_free = callback_ended;
    caller->began_ms = now_ms();
    caller->answer = etslock_with_lock(caller->table, KEY, write_value, caller, &caller->options,
                                       NULL);
    caller->ended_ms = now_ms();
    return NULL;
}

static void caller_start(struct caller *caller)
{
    REQUIRE(pthread_create(&caller->thread, NULL, call, caller) == 0);
}

static void caller_join(struct caller *caller)
{
    pthread_join(caller->thread, NULL);
}

static void the_example(int unguarded, int32_t run_on)
{
    etslock_table *table = new_table();
    struct caller holder, second;
    caller_init(&holder, table, "nope");
    caller_init(&second, table, "yup");
    holder.unguarded = second.unguarded = unguarded;
    holder.options.run_on = second.options.run_on = run_on;
    holder.sleeps_ms = 100;

    caller_start(&holder);
    sem_wait(&holder.holding);
    call(&second);
    caller_join(&holder);

    CHECK_STATUS(holder.answer, ETSLOCK_OK);
    CHECK_STATUS(second.answer, ETSLOCK_OK);
    CHECK(second.saw_nope); /* it waited for the first one's write */
    CHECK(second.ended_ms - holder.began_ms >= 100 - SLACK_MS);
    CHECK(has_value(table, "key", "yup"));
    caller_end(&holder);
    caller_end(&second);
    etslock_table_free(table);
}

static void exec_timeout(void)
{
    etslock_table *table = new_table_of(ETSLOCK_DUPLICATE_BAG);
    struct caller runaway, next;
    caller_init(&runaway, table, "nope");
    caller_init(&next, table, "yup");
    runaway.options.exec_timeout_ms = 250; /* not 100: the callback must have been started */
    runaway.holds_still = 1;

    caller_start(&runaway);
    sem_wait(&runaway.holding);
    call(&next);
    caller_join(&runaway);
    CHECK_STATUS(runaway.answer, ETSLOCK_EXEC_TIMEOUT);
    CHECK(runaway.ended_ms - runaway.began_ms >= 250 - SLACK_MS);
    CHECK(runaway.ended_ms - runaway.began_ms < SOON_MS);
    CHECK_STATUS(next.answer, ETSLOCK_OK);

    /* The original kills the function; here its writes are refused. */
    sem_post(&runaway.finish);
    sem_wait(&runaway.freed);
    CHECK_STATUS(runaway.write, ETSLOCK_REVOKED);
    CHECK(has_value(table, "key", "yup"));
    caller_end(&runaway);
    caller_end(&next);
    etslock_table_free(table);
}

static void wait_timeout(void)
{
    etslock_table *table = new_table_of(ETSLOCK_DUPLICATE_BAG);
    struct caller holder, late;
    caller_init(&holder, table, "yup");
    caller_init(&late, table, "nope");
    holder.holds_still = 1;
    late.options.wait_timeout_ms = 100;

    caller_start(&holder);
    sem_wait(&holder.holding);
    call(&late);
    CHECK_STATUS(late.answer, ETSLOCK_WAIT_TIMEOUT);
    CHECK(late.ended_ms - late.began_ms >= 100 - SLACK_MS);
    CHECK(late.ended_ms - late.began_ms < SOON_MS);
    CHECK(late.runs == 0);

    sem_post(&holder.finish);
    caller_join(&holder);
    CHECK_STATUS(holder.answer, ETSLOCK_OK);
    CHECK(late.runs == 0);
    CHECK(has_value(table, "key", "yup"));
    caller_end(&holder);
    caller_end(&late);
    etslock_table_free(table);
}

struct vanishing {
    etslock_table *table;
    etslock_guard *guard;
    int64_t before_ms;
};

/* Acquires, and ends without a release. */
static void *vanish(void *user_data)
{
    struct vanishing *vanishing = user_data;
    etslock_options options = options_of(0, 200, 100);
    vanishing->before_ms = now_ms();
    CHECK_STATUS(etslock_acquire(vanishing->table, KEY, &options, &vanishing->guard), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_insert(vanishing->guard, KEY, "nope", 4), ETSLOCK_OK);
    return NULL;
}

static void fail_timeout_of_a_guard(void)
{
    etslock_table *table = new_table_of(ETSLOCK_DUPLICATE_BAG);
    struct vanishing vanishing = {NULL, NULL, 0};
    struct caller next;
    pthread_t thread;
    vanishing.table = table;
    REQUIRE(pthread_create(&thread, NULL, vanish, &vanishing) == 0);
    pthread_join(thread, NULL);

    caller_init(&next, table, "yup");
    call(&next);
    CHECK_STATUS(next.answer, ETSLOCK_OK);
    CHECK(next.ended_ms - vanishing.before_ms >= 300 - SLACK_MS);
    CHECK(next.ended_ms - vanishing.before_ms < SOON_MS);

    CHECK_STATUS(etslock_guard_status(vanishing.guard), ETSLOCK_REVOKED);
    CHECK_STATUS(etslock_guard_release(vanishing.guard), ETSLOCK_REVOKED);
    CHECK(has_value(table, "key", "yup"));
    caller_end(&next);
    etslock_table_free(table);
}

static void fail_timeout_of_a_callback(void)
{
    etslock_table *table = new_table_of(ETSLOCK_DUPLICATE_BAG);
    struct caller stuck, next;
    caller_init(&stuck, table, "nope");
    caller_init(&next, table, "yup");
    stuck.options = options_of(0, 100, 100);
    stuck.options.run_on = ETSLOCK_RUN_ON_CALLER;
    stuck.holds_still = 1;

    caller_start(&stuck);
    sem_wait(&stuck.holding);
    call(&next);
    CHECK_STATUS(next.answer, ETSLOCK_OK);
    CHECK(next.ended_ms - stuck.began_ms >= 200 - SLACK_MS);
    CHECK(next.ended_ms - stuck.began_ms < SOON_MS);

    sem_post(&stuck.finish);
    caller_join(&stuck);
    CHECK_STATUS(stuck.write, ETSLOCK_REVOKED);
    CHECK_STATUS(stuck.answer, ETSLOCK_EXEC_TIMEOUT);
    CHECK(has_value(table, "key", "yup"));
    caller_end(&stuck);
    caller_end(&next);
    etslock_table_free(table);
}

static void no_collision(void)
{
    etslock_table *first = new_table_of(ETSLOCK_DUPLICATE_BAG);
    etslock_table *second = new_table_of(ETSLOCK_DUPLICATE_BAG);
    struct caller holder, other;
    caller_init(&holder, first, "nope");
    caller_init(&other, second, "yup");
    holder.holds_still = 1;
    other.options.wait_timeout_ms = 0;

    caller_start(&holder);
    sem_wait(&holder.holding);
    call(&other); /* the first table's key stays locked until this has returned */
    CHECK_STATUS(other.answer, ETSLOCK_OK);
    CHECK(has_value(second, "key", "yup"));
    CHECK_STATUS(etslock_table_member(first, KEY), ETSLOCK_NOT_FOUND);

    sem_post(&holder.finish);
    caller_join(&holder);
    CHECK_STATUS(holder.answer, ETSLOCK_OK);
    CHECK(has_value(first, "key", "nope"));
    CHECK(has_value(second, "key", "yup"));
    caller_end(&holder);
    caller_end(&other);
    etslock_table_free(first);
    etslock_table_free(second);
}

enum { COUNTERS = 8, INCREMENTS = 200 };

struct counting {
    etslock_table *table;
    int32_t run_on;
    int lost; /* calls that were not OK */
};

static int32_t increment(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                         void *user_data)
{
    etslock_tuples *found = NULL;
    size_t count = 0;
    const etslock_tuple *data;
    int value = 0;
    (void)tuples;
    (void)tuple_count;
    (void)user_data;
    if (etslock_guard_lookup(guard, KEY, &found) != ETSLOCK_OK)
        return 1;
    data = etslock_tuples_data(found, &count);
    if (count == 1 && data[0].value_len == sizeof value)
        memcpy(&value, data[0].value, sizeof value);
    etslock_tuples_free(found);
    if (count != 1)
        return 1;
    value++;
    return etslock_guard_insert(guard, KEY, &value, sizeof value) == ETSLOCK_OK ? 0 : 1;
}

static void *count_up(void *user_data)
{
    struct counting *counting = user_data;
    etslock_options options = options_of(ETSLOCK_INFINITE, ETSLOCK_INFINITE, AMPLE_MS);
    int i;
    options.run_on = counting->run_on;
    for (i = 0; i < INCREMENTS; i++)
        if (etslock_with_lock(counting->table, KEY, increment, NULL, &options, NULL) != ETSLOCK_OK)
            counting->lost++;
    return NULL;
}

static void many_callers(void)
{
    etslock_table *table = new_table();
    struct counting counting[COUNTERS];
    pthread_t threads[COUNTERS];
    etslock_tuples *found = NULL;
    size_t count = 0;
    int value = 0;
    int i;
    REQUIRE(etslock_table_insert(table, KEY, &value, sizeof value) == ETSLOCK_OK);
    for (i = 0; i < COUNTERS; i++) {
        counting[i].table = table;
        counting[i].run_on = i % 2 ? ETSLOCK_RUN_ON_CALLER : ETSLOCK_RUN_ON_WORKER;
        counting[i].lost = 0;
        REQUIRE(pthread_create(&threads[i], NULL, count_up, &counting[i]) == 0);
    }
    for (i = 0; i < COUNTERS; i++) {
        pthread_join(threads[i], NULL);
        CHECK(counting[i].lost == 0);
    }
    REQUIRE(etslock_table_lookup(table, KEY, &found) == ETSLOCK_OK);
    memcpy(&value, etslock_tuples_data(found, &count)[0].value, sizeof value);
    CHECK(count == 1);
    CHECK(value == COUNTERS * INCREMENTS);
    etslock_tuples_free(found);
    etslock_table_free(table);
}

int main(void)
{
    CASE("C-1, C-3: the example, with writes through the guard");
    RUN(the_example(0, ETSLOCK_RUN_ON_WORKER));
    CASE("C-1, C-9: the example, with writes straight to the table");
    RUN(the_example(1, ETSLOCK_RUN_ON_WORKER));
    CASE("C-1, C-10: the example, on the callers' threads");
    RUN(the_example(0, ETSLOCK_RUN_ON_CALLER));
    CASE("C-4, C-8: exec_timeout");
    RUN(exec_timeout());
    CASE("C-2: wait_timeout");
    RUN(wait_timeout());
    CASE("C-5, C-6: fail_timeout, the holder vanished");
    RUN(fail_timeout_of_a_guard());
    CASE("C-5, C-10: fail_timeout, the callback does not return");
    RUN(fail_timeout_of_a_callback());
    CASE("C-1: no key collisions between tables");
    RUN(no_collision());
    CASE("C-1, C-7: many callers, one counter");
    RUN(many_callers());
    return check_report();
}
