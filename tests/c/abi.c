/* abi.c - what programs that were compiled with an earlier header take for granted: the layout of the
 * structs that both sides see, and the numbers of the constants (CONTRIBUTING, "How the ABI grows").
 * A field may be appended to a struct that begins with struct_size; nothing here may change.
 */
#include "check.h"

#include <stddef.h>

/* Structs with pointers are laid out for 64 bits: elsewhere there is nothing to compare with. */
#define AT(type, field, place)                                                                     \
    do {                                                                                           \
        if (sizeof(void *) == 8)                                                                   \
            CHECK(offsetof(type, field) == (place));                                               \
    } while (0)
#define AS_LARGE_AS(type, size)                                                                    \
    do {                                                                                           \
        if (sizeof(void *) == 8)                                                                   \
            CHECK(sizeof(type) == (size));                                                         \
    } while (0)

static void structs_that_grow(void)
{
    CASE("layout: etslock_table_options");
    AT(etslock_table_options, struct_size, 0);
    AT(etslock_table_options, type, 4);
    AT(etslock_table_options, access, 8);
    AT(etslock_table_options, reserved, 12);
    AT(etslock_table_options, name, 16);
    CHECK(sizeof(etslock_table_options) >= 24);

    CASE("layout: etslock_options");
    AT(etslock_options, struct_size, 0);
    AT(etslock_options, reserved, 4);
    AT(etslock_options, wait_timeout_ms, 8);
    AT(etslock_options, exec_timeout_ms, 16);
    AT(etslock_options, fail_timeout_ms, 24);
    AT(etslock_options, spin_delay_ms, 32);
    AT(etslock_options, lock_table, 40);
    AT(etslock_options, run_on, 48);
    AT(etslock_options, queue, 52);
    AT(etslock_options, on_exec_timeout, 56);
    AT(etslock_options, commit_code, 60);
    AT(etslock_options, owner, 64);
    AT(etslock_options, user_data_free, 72);
    AT(etslock_options, stop, 80);
    CHECK(sizeof(etslock_options) >= 88);

    CASE("layout: etslock_lock_info");
    AT(etslock_lock_info, struct_size, 0);
    AT(etslock_lock_info, late, 4);
    AT(etslock_lock_info, key, 8);
    AT(etslock_lock_info, key_len, 16);
    AT(etslock_lock_info, table_name, 24);
    AT(etslock_lock_info, token, 32);
    AT(etslock_lock_info, held_ms, 40);
    AT(etslock_lock_info, exec_remaining_ms, 48);
    AT(etslock_lock_info, waiters, 56);
    AT(etslock_lock_info, owner, 64);
    AT(etslock_lock_info, thread_id, 72);
    CHECK(sizeof(etslock_lock_info) >= 80);

    CASE("layout: etslock_stats");
    AT(etslock_stats, struct_size, 0);
    AT(etslock_stats, reserved, 4);
    AT(etslock_stats, acquired, 8);
    AT(etslock_stats, contended, 16);
    AT(etslock_stats, wait_timeouts, 24);
    AT(etslock_stats, exec_timeouts, 32);
    AT(etslock_stats, forced_releases, 40);
    AT(etslock_stats, deadlocks, 48);
    AT(etslock_stats, held, 56);
    AT(etslock_stats, waiting, 64);
    AT(etslock_stats, workers, 72);
    AT(etslock_stats, abandoned, 80);
    CHECK(sizeof(etslock_stats) >= 88);
}

static void structs_that_never_grow(void)
{
    CASE("layout: etslock_tuple");
    AT(etslock_tuple, key, 0);
    AT(etslock_tuple, key_len, 8);
    AT(etslock_tuple, value, 16);
    AT(etslock_tuple, value_len, 24);
    AS_LARGE_AS(etslock_tuple, 32);

    CASE("layout: etslock_result");
    AT(etslock_result, code, 0);
    AT(etslock_result, reserved, 4);
    AT(etslock_result, data, 8);
    AT(etslock_result, data_len, 16);
    AS_LARGE_AS(etslock_result, 24);

    CASE("layout: etslock_key");
    AT(etslock_key, key, 0);
    AT(etslock_key, key_len, 8);
    AS_LARGE_AS(etslock_key, 16);
}

static void numbers(void)
{
    CASE("constants: limits");
    CHECK(ETSLOCK_INFINITE == -1 && ETSLOCK_MAX_KEYS == 65536);
    CHECK(ETSLOCK_OWNER_NONE == UINT64_MAX);

    CASE("constants: tables");
    CHECK(ETSLOCK_SET == 0 && ETSLOCK_BAG == 1 && ETSLOCK_DUPLICATE_BAG == 2);
    CHECK(ETSLOCK_PUBLIC == 0 && ETSLOCK_GUARDED == 1);

    CASE("constants: calls");
    CHECK(ETSLOCK_RUN_ON_WORKER == 0 && ETSLOCK_RUN_ON_CALLER == 1);
    CHECK(ETSLOCK_QUEUE_FAIR == 0 && ETSLOCK_QUEUE_FIFO == 1 && ETSLOCK_QUEUE_POLLING == 2);
    CHECK(ETSLOCK_ABANDON == 0 && ETSLOCK_JOIN == 1 && ETSLOCK_KILL == 2);
    /* Those of statuses: statuses.c. */
}

int main(void)
{
    RUN(structs_that_grow());
    RUN(structs_that_never_grow());
    RUN(numbers());
    return check_report();
}
