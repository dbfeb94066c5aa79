/* neighbours.c - the static library beside another archive out of Rust: both work, each with its
 * own copy of Rust's library. Cancellation has to unwind through the library's frames. */
#include "../c/check.h"

int32_t neighbour_echo(int32_t number);

static int32_t write_and_echo(etslock_guard *guard, const etslock_tuple *tuples, size_t count,
                              void *user_data)
{
    (void)tuples;
    (void)count;
    (void)user_data;
    CHECK_STATUS(etslock_guard_insert(guard, "key", 3, "value", 5), ETSLOCK_OK);
    return neighbour_echo(0);
}

static int freed;

static void count_free(void *user_data)
{
    (void)user_data;
    __atomic_fetch_add(&freed, 1, __ATOMIC_SEQ_CST);
}

static int32_t sleep_long(etslock_guard *guard, const etslock_tuple *tuples, size_t count,
                              void *user_data)
{
    (void)guard;
    (void)tuples;
    (void)count;
    (void)user_data;
    sleep_ms(600000); /* ten minutes: nothing but the cancellation ends it in time */
    return 0;
}

int main(void)
{
    etslock_table *table = NULL;
    etslock_options options;

    CASE("C-7, C-17: the library and another archive out of Rust in one program");
    CHECK(neighbour_echo(7) == 7);
    REQUIRE(etslock_table_new(NULL, &table) == ETSLOCK_OK);
    CHECK_STATUS(etslock_with_lock(table, "key", 3, write_and_echo, NULL, NULL, NULL), ETSLOCK_OK);
    CHECK_STATUS(etslock_table_member(table, "key", 3), ETSLOCK_OK);

    CASE("C-11: a killed callback unwinds through the worker");
    etslock_options_init(&options, sizeof options);
    options.exec_timeout_ms = 50;
    options.on_exec_timeout = ETSLOCK_KILL;
    options.user_data_free = count_free;
    CHECK_STATUS(etslock_with_lock(table, "key", 3, sleep_long, &freed, &options, NULL),
                 ETSLOCK_EXEC_TIMEOUT);
    WAIT_UNTIL(__atomic_load_n(&freed, __ATOMIC_SEQ_CST) == 1);
    CHECK(neighbour_echo(8) == 8);
    etslock_table_free(table);
    return check_report();
}
