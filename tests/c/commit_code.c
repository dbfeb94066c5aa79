/* commit_code.c - etslock_options.commit_code: what a callback returns to have its writes
 * published. Checks C-7, C-10, C-11, C-12 and C-17 for callbacks that return anything else, end
 * their thread, or come too late.
 */
#include "check.h"
#include "locks.h"

#include <pthread.h>

enum how { RETURN, EXIT_THREAD, EXIT_AT_ONCE, CANCEL_THREAD, RETURN_LATE };

struct order {
    int32_t code;
    enum how how;
    int started; /* touched with the __atomic builtins only */
    int freed;
};

static void free_order(void *user_data)
{
    struct order *order = user_data;
    __atomic_fetch_add(&order->freed, 1, __ATOMIC_SEQ_CST);
}

/* Writes, commits, writes again, and ends as it was told to. */
static int32_t obey(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                    void *user_data)
{
    struct order *order = user_data;
    (void)tuples, (void)tuple_count;
    if (order->how == EXIT_AT_ONCE) {
        __atomic_fetch_add(&order->started, 1, __ATOMIC_SEQ_CST);
        pthread_exit(NULL);
    }
    CHECK_STATUS(etslock_guard_insert(guard, "k", 1, "first", 5), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_commit(guard), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_insert(guard, "k", 1, "last", 4), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_set_result(guard, "data", 4), ETSLOCK_OK);
    __atomic_fetch_add(&order->started, 1, __ATOMIC_SEQ_CST);
    switch (order->how) {
    case EXIT_THREAD:
        pthread_exit(NULL);
    case CANCEL_THREAD:
        pthread_cancel(pthread_self());
        pthread_testcancel();
        CHECK(!"reached after a cancellation");
        break;
    case RETURN_LATE:
        /* Until it is late or revoked. */
        while (etslock_guard_sleep(guard, ETSLOCK_INFINITE) == ETSLOCK_OK)
            ;
        break;
    case RETURN:
    case EXIT_AT_ONCE:
        break;
    }
    return order->code;
}

enum { WITH_LOCK, WITH_LOCKS, WITH_LOCKS_ACROSS, CALLS };

static etslock_status call(int which, etslock_table *table, struct order *order,
                           const etslock_options *options, etslock_result *result)
{
    const etslock_key keys[] = {{"k", 1}, {"other", 5}};
    etslock_table_key across[] = {{NULL, "k", 1}, {NULL, "other", 5}};
    across[0].table = across[1].table = table;
    switch (which) {
    case WITH_LOCK:
        return etslock_with_lock(table, "k", 1, obey, order, options, result);
    case WITH_LOCKS:
        return etslock_with_locks(table, keys, 2, obey, order, options, result);
    default:
        return etslock_with_locks_across(across, 2, obey, order, options, result);
    }
}

static struct order order_of(int32_t code, enum how how)
{
    struct order order;
    memset(&order, 0, sizeof order);
    order.code = code;
    order.how = how;
    return order;
}

static int result_is(const etslock_result *result, int32_t code, const char *data)
{
    return result->code == code && result->data_len == strlen(data) &&
           (result->data_len == 0 ? result->data == NULL
                                  : memcmp(result->data, data, strlen(data)) == 0);
}

static void every_code(void)
{
    static const int32_t codes[] = {INT32_MIN, -2, -1, 0, 1, 2, 255, 256, INT32_MAX};
    size_t commit, returned;
    int which, run_on, on_exec_timeout;
    etslock_table *table = new_table();
    CASE("commit_code: its callback is published, and no other; the code comes back");
    for (commit = 0; commit < COUNT_OF(codes); commit++) {
        for (returned = 0; returned < COUNT_OF(codes); returned++) {
            for (which = 0; which < CALLS * 4; which++) {
                struct order order = order_of(codes[returned], RETURN);
                etslock_options options = patient(NULL);
                etslock_result result;
                int same = codes[commit] == codes[returned];
                run_on = which / CALLS == 3 ? ETSLOCK_RUN_ON_CALLER : ETSLOCK_RUN_ON_WORKER;
                on_exec_timeout = which / CALLS % 3; /* ABANDON, JOIN, KILL */
                options.commit_code = codes[commit];
                options.run_on = run_on;
                options.on_exec_timeout = on_exec_timeout;
                options.user_data_free = free_order;
                CHECK_STATUS(call(which % CALLS, table, &order, &options, &result),
                             same ? ETSLOCK_OK : ETSLOCK_CALLBACK_FAILED);
                CHECK(order.started == 1 && order.freed == 1);
                CHECK(result_is(&result, codes[returned], same ? "data" : ""));
                CHECK(has_value(table, "k", same ? "last" : "first"));
                CHECK_STATUS(etslock_table_delete(table, "k", 1), ETSLOCK_OK);
                etslock_result_free(&result);
            }
        }
    }
    CHECK(count_locks(NULL, table) == 0);
    etslock_table_free(table);
}

static void an_ended_thread_returned_nothing(void)
{
    static const int32_t codes[] = {-1, 0, 1, INT32_MAX};
    static const enum how ways[] = {EXIT_THREAD, EXIT_AT_ONCE, CANCEL_THREAD};
    etslock_table *table = new_table();
    size_t commit, way;
    int which;
    CASE("C-17: a callback that ends its thread has failed, whichever code commits");
    for (commit = 0; commit < COUNT_OF(codes); commit++) {
        for (way = 0; way < COUNT_OF(ways); way++) {
            for (which = 0; which < CALLS * 3; which++) {
                struct order order = order_of(codes[commit], ways[way]);
                etslock_options options = patient(NULL);
                etslock_result result;
                options.commit_code = codes[commit];
                options.on_exec_timeout = which / CALLS;
                options.user_data_free = free_order;
                CHECK_STATUS(call(which % CALLS, table, &order, &options, &result),
                             ETSLOCK_CALLBACK_FAILED);
                CHECK(order.started == 1 && order.freed == 1);
                CHECK(result_is(&result, 0, ""));
                if (ways[way] == EXIT_AT_ONCE)
                    CHECK_STATUS(etslock_table_member(table, "k", 1), ETSLOCK_NOT_FOUND);
                else
                    CHECK(has_value(table, "k", "first"));
                CHECK_STATUS(etslock_table_delete(table, "k", 1), ETSLOCK_OK);
                etslock_result_free(&result);
            }
        }
    }
    CHECK(count_locks(NULL, table) == 0);
    etslock_table_free(table);
}

static void too_late_is_too_late(void)
{
    static const int32_t codes[] = {0, 1};
    static const int32_t after[] = {ETSLOCK_ABANDON, ETSLOCK_JOIN, ETSLOCK_KILL};
    etslock_table *table = new_table();
    size_t commit, way;
    int caller;
    CASE("C-10, C-11: the right code after the deadline publishes nothing");
    for (commit = 0; commit < COUNT_OF(codes); commit++) {
        for (way = 0; way < COUNT_OF(after); way++) {
            for (caller = 0; caller < 2; caller++) {
                struct order order = order_of(codes[commit], RETURN_LATE);
                /* Long enough for what it does in time. */
                etslock_options options = options_of(HANGS_MS, 200, ETSLOCK_INFINITE);
                etslock_result result;
                options.commit_code = codes[commit];
                options.run_on = caller ? ETSLOCK_RUN_ON_CALLER : ETSLOCK_RUN_ON_WORKER;
                options.on_exec_timeout = after[way];
                options.user_data_free = free_order;
                if (caller && after[way] == ETSLOCK_KILL)
                    continue;
                CHECK_STATUS(call(WITH_LOCK, table, &order, &options, &result),
                             ETSLOCK_EXEC_TIMEOUT);
                WAIT_UNTIL(__atomic_load_n(&order.freed, __ATOMIC_SEQ_CST) == 1);
                CHECK(result_is(&result, 0, ""));
                CHECK(has_value(table, "k", "first"));
                CHECK_STATUS(etslock_table_delete(table, "k", 1), ETSLOCK_OK);
                etslock_result_free(&result);
            }
        }
    }
    await_abandoned(0);
    CHECK(count_locks(NULL, table) == 0);
    etslock_table_free(table);
}

static void elsewhere(void)
{
    etslock_table *table = new_table();
    etslock_options options;
    etslock_guard *guard = NULL;

    CASE("commit_code: 0 from init, in the place of a field that was reserved");
    memset(&options, 0xff, sizeof options);
    etslock_options_init(&options, sizeof options);
    CHECK(options.commit_code == 0);
    CHECK((char *)&options.commit_code - (char *)&options.on_exec_timeout == 4);

    CASE("commit_code: no effect on acquired guards");
    options.commit_code = 1;
    CHECK_STATUS(etslock_acquire(table, "k", 1, &options, &guard), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_insert(guard, "k", 1, "v", 1), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    CHECK(has_value(table, "k", "v"));
    etslock_table_free(table);
}

int main(void)
{
    RUN(every_code());
    RUN(an_ended_thread_returned_nothing());
    RUN(too_late_is_too_late());
    RUN(elsewhere());
    return check_report();
}
