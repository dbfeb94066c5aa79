/* client.c - a program of release 0.1: compiled against that release's header, run with the library
 * of this one. It calls every function that 0.1 had, and finds what 0.1 promised.
 */
#include "check.h"
#include "locks.h"

#include <stddef.h>

static void layout(void)
{
    CASE("structs of 0.1, as its callers were compiled with them");
    CHECK(strcmp(ETSLOCK_VERSION, "0.1.0") == 0);
    CHECK(sizeof(etslock_options) == 80);
    CHECK(offsetof(etslock_options, reserved2) == 60);
    CHECK(offsetof(etslock_options, user_data_free) == 72);
    CHECK(sizeof(etslock_table_options) == 24);
    CHECK(sizeof(etslock_tuple) == 32 && sizeof(etslock_result) == 24 && sizeof(etslock_key) == 16);
    CHECK(sizeof(etslock_lock_info) == 80 && sizeof(etslock_stats) == 88);
}

static void tables(void)
{
    etslock_table_options options;
    etslock_table *table = NULL;
    etslock_table *again = NULL;
    etslock_tuples *tuples = NULL;
    etslock_cursor *cursor = NULL;
    int64_t value = 0;
    size_t count = 9;

    CASE("tables");
    etslock_table_options_init(&options, sizeof options);
    CHECK(options.struct_size == sizeof options && options.name == NULL);
    options.name = "client-of-0.1";
    CHECK_STATUS(etslock_table_new(&options, &table), ETSLOCK_OK);
    CHECK_STATUS(etslock_table_new(&options, &again), ETSLOCK_EXISTS);
    CHECK_STATUS(etslock_table_open("client-of-0.1", &again), ETSLOCK_OK);
    CHECK_STATUS(etslock_table_insert(table, "a", 1, "1", 1), ETSLOCK_OK);
    CHECK_STATUS(etslock_table_insert_new(table, "a", 1, "2", 1), ETSLOCK_EXISTS);
    CHECK_STATUS(etslock_table_member(again, "a", 1), ETSLOCK_OK);
    CHECK(has_value(again, "a", "1"));
    CHECK_STATUS(etslock_table_cursor(table, &cursor), ETSLOCK_OK);
    CHECK_STATUS(etslock_cursor_next(cursor, &tuples), ETSLOCK_OK);
    etslock_tuples_free(tuples);
    CHECK_STATUS(etslock_cursor_next(cursor, &tuples), ETSLOCK_NOT_FOUND);
    etslock_cursor_free(cursor);
    CHECK_STATUS(etslock_table_take(table, "a", 1, &tuples), ETSLOCK_OK);
    CHECK(tuple_is(etslock_tuples_data(tuples, &count), "1") && count == 1);
    etslock_tuples_free(tuples);
    CHECK_STATUS(etslock_table_update_counter(table, "n", 1, 2, 40, &value), ETSLOCK_OK);
    CHECK(value == 42);
    CHECK_STATUS(etslock_table_delete_tuple(table, "n", 1, "x", 1), ETSLOCK_OK);
    CHECK_STATUS(etslock_table_count(table, &count), ETSLOCK_OK);
    CHECK(count == 1);
    CHECK_STATUS(etslock_table_delete(table, "n", 1), ETSLOCK_OK);
    CHECK_STATUS(etslock_table_clear(table), ETSLOCK_OK);
    CHECK_STATUS(etslock_table_lookup(table, "n", 1, &tuples), ETSLOCK_NOT_FOUND);
    etslock_table_free(again);
    etslock_table_free(table);
}

/* Behind the structs of 0.1 lies something else. */
struct framed {
    etslock_options options;
    unsigned char behind[64];
};

static int32_t put(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                   void *user_data)
{
    (void)tuples, (void)tuple_count;
    CHECK_STATUS(etslock_guard_insert(guard, "k", 1, "put", 3), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_set_result(guard, "result", 6), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_sleep(guard, 1), ETSLOCK_OK);
    return *(int32_t *)user_data;
}

static void calls(void)
{
    const etslock_key keys[] = {{"k", 1}, {"l", 1}};
    etslock_table *table = new_table();
    struct framed framed;
    etslock_options *options = &framed.options;
    etslock_result result;
    int32_t code;
    int run_on;
    size_t i;

    CASE("options that this library knows more of than the caller");
    memset(&framed, 0xaa, sizeof framed);
    etslock_options_init(options, sizeof *options);
    for (i = 0; i < sizeof framed.behind; i++)
        CHECK(framed.behind[i] == 0xaa);
    CHECK(options->struct_size == sizeof *options && options->reserved2 == 0);

    CASE("0 commits, and nothing else does");
    for (run_on = ETSLOCK_RUN_ON_WORKER; run_on <= ETSLOCK_RUN_ON_CALLER; run_on++) {
        options->run_on = run_on;
        for (code = -1; code <= 1; code++) {
            CHECK_STATUS(etslock_with_lock(table, "k", 1, put, &code, options, &result),
                         code == 0 ? ETSLOCK_OK : ETSLOCK_CALLBACK_FAILED);
            CHECK(result.code == code && result.data_len == (code == 0 ? 6 : 0));
            etslock_result_free(&result);
            CHECK_STATUS(etslock_with_locks(table, keys, 2, put, &code, options, &result),
                         code == 0 ? ETSLOCK_OK : ETSLOCK_CALLBACK_FAILED);
            etslock_result_free(&result);
        }
    }
    CHECK(has_value(table, "k", "put"));
    etslock_table_free(table);
}

static void guards(void)
{
    const etslock_key keys[] = {{"k", 1}, {"l", 1}};
    etslock_table *table = new_table();
    etslock_lock_table *lock_table = NULL;
    etslock_guard *guard = NULL;
    etslock_tuples *tuples = NULL;
    etslock_options options;
    etslock_locks *locks = NULL;
    etslock_lock_info info;
    etslock_stats stats;
    uint64_t token;

    CASE("guards, lock tables and what they say");
    CHECK_STATUS(etslock_lock_table_new(&lock_table), ETSLOCK_OK);
    etslock_options_init(&options, sizeof options);
    options.lock_table = lock_table;
    options.owner = ETSLOCK_OWNER_NONE;
    CHECK_STATUS(etslock_acquire(table, "k", 1, &options, &guard), ETSLOCK_OK);
    token = etslock_guard_token(guard);
    CHECK(token != 0 && etslock_guard_remaining_ms(guard) > 0);
    CHECK_STATUS(etslock_guard_status(guard), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_extend(guard, 10000), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_insert(guard, "k", 1, "1", 1), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_commit(guard), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_delete_tuple(guard, "k", 1, "1", 1), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_lookup(guard, "k", 1, &tuples), ETSLOCK_NOT_FOUND);
    CHECK_STATUS(etslock_guard_rollback(guard), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_delete(guard, "l", 1), ETSLOCK_ERR_NOT_COVERED);
    CHECK_STATUS(etslock_guard_delete(guard, "k", 1), ETSLOCK_OK);

    CHECK_STATUS(etslock_lock_table_locks(lock_table, table, &locks), ETSLOCK_OK);
    CHECK(etslock_locks_count(locks) == 1);
    info.struct_size = sizeof info;
    CHECK_STATUS(etslock_locks_get(locks, 0, &info), ETSLOCK_OK);
    CHECK(info.token == token && info.key_len == 1 && info.owner == ETSLOCK_OWNER_NONE);
    etslock_locks_free(locks);
    etslock_stats_init(&stats, sizeof stats);
    CHECK_STATUS(etslock_lock_table_stats(lock_table, &stats), ETSLOCK_OK);
    CHECK(stats.held == 1 && stats.acquired == 1);
    CHECK_STATUS(etslock_lock_table_force_release(lock_table, table, "k", 1), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_REVOKED);
    CHECK(has_value(table, "k", "1"));

    CHECK_STATUS(etslock_acquire_locks(table, keys, 2, &options, &guard), ETSLOCK_OK);
    CHECK(etslock_guard_token(guard) > token);
    CHECK_STATUS(etslock_guard_cancel(guard), ETSLOCK_OK);
    etslock_lock_table_free(lock_table);
    etslock_table_free(table);
}

static void statuses(void)
{
    CASE("numbers and names of statuses");
    CHECK(ETSLOCK_ERR_PANIC == 90 && ETSLOCK_CLOSED == 8 && ETSLOCK_ERR_FORKED == 42);
    CHECK(strcmp(etslock_status_name(ETSLOCK_DEADLOCK), "ETSLOCK_DEADLOCK") == 0);
    CHECK(etslock_status_text(ETSLOCK_DEADLOCK)[0] != '\0');
    CHECK(etslock_version()[0] != '\0');
}

int main(void)
{
    layout();
    tables();
    calls();
    guards();
    statuses();
    return check_report();
}
