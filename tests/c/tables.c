/* tables.c - tuples in tables: sets, bags and duplicate bags have the rows that ETS would have,
 * snapshots never change, cursors and writers do not disturb each other.
 * Checks C-9, C-14 and the functions etslock_table_*, etslock_cursor_* and etslock_tuples_*.
 */
#define _POSIX_C_SOURCE 200809L

#include "check.h"
#include "locks.h"

#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>

#define MIB ((size_t)1 << 20)

static const int32_t types[] = {ETSLOCK_SET, ETSLOCK_BAG, ETSLOCK_DUPLICATE_BAG};

static int scaled(int full)
{
    return is_small_scale() ? full / 20 + 1 : full;
}

static etslock_status put(etslock_table *table, const char *key, const char *value)
{
    return etslock_table_insert(table, key, strlen(key), value, strlen(value));
}

static etslock_status put_new(etslock_table *table, const char *key, const char *value)
{
    return etslock_table_insert_new(table, key, strlen(key), value, strlen(value));
}

static etslock_status drop_tuple(etslock_table *table, const char *key, const char *value)
{
    return etslock_table_delete_tuple(table, key, strlen(key), value, strlen(value));
}

static etslock_status drop(etslock_table *table, const char *key)
{
    return etslock_table_delete(table, key, strlen(key));
}

static etslock_tuples *look(etslock_table *table, const char *key)
{
    etslock_tuples *tuples = NULL;
    REQUIRE(etslock_table_lookup(table, key, strlen(key), &tuples) == ETSLOCK_OK);
    REQUIRE(tuples != NULL);
    return tuples;
}

static size_t count_of(etslock_table *table)
{
    size_t count = SIZE_MAX;
    CHECK_STATUS(etslock_table_count(table, &count), ETSLOCK_OK);
    return count;
}

static int is_bytes(const uint8_t *data, size_t len, const void *wanted, size_t wanted_len)
{
    return len == wanted_len && (len == 0 || memcmp(data, wanted, len) == 0);
}

/* Is the snapshot that of `key`, with the values listed in `values` ("a b c"), in that order? */
static int shows(const etslock_tuples *tuples, const char *key, const char *values)
{
    size_t count = 0;
    size_t i;
    const etslock_tuple *data = etslock_tuples_data(tuples, &count);
    for (i = 0; i < count; i++) {
        size_t len = strcspn(values, " ");
        if (!is_bytes(data[i].key, data[i].key_len, key, strlen(key)) ||
            !is_bytes(data[i].value, data[i].value_len, values, len))
            return 0;
        values += len;
        values += *values == ' ';
    }
    return count > 0 && *values == '\0';
}

/* Does the key have these values now, by lookup and member? "" means that it is absent. */
static void check_row(etslock_table *table, const char *key, const char *values, int line)
{
    etslock_tuples *none = NULL;
    etslock_tuples *tuples = (etslock_tuples *)&none;
    etslock_status wanted = *values == '\0' ? ETSLOCK_NOT_FOUND : ETSLOCK_OK;
    check_status(etslock_table_member(table, key, strlen(key)), wanted, __FILE__, line, "member");
    check_status(etslock_table_lookup(table, key, strlen(key), &tuples), wanted, __FILE__, line,
                 "lookup");
    if (wanted == ETSLOCK_OK)
        check_that(shows(tuples, key, values), __FILE__, line, values);
    else
        check_that(tuples == NULL, __FILE__, line, "NULL when absent");
    etslock_tuples_free(tuples);
}

#define CHECK_ROW(table, key, values) check_row((table), (key), (values), __LINE__)

static etslock_cursor *new_cursor(etslock_table *table)
{
    etslock_cursor *cursor = NULL;
    REQUIRE(etslock_table_cursor(table, &cursor) == ETSLOCK_OK);
    REQUIRE(cursor != NULL);
    return cursor;
}

/* The next snapshot, or NULL at the end. */
static etslock_tuples *next_of(etslock_cursor *cursor)
{
    etslock_tuples *none = NULL;
    etslock_tuples *tuples = (etslock_tuples *)&none;
    etslock_status status = etslock_cursor_next(cursor, &tuples);
    if (status != ETSLOCK_OK) {
        CHECK_STATUS(status, ETSLOCK_NOT_FOUND);
        CHECK(tuples == NULL);
        return NULL;
    }
    CHECK(tuples != NULL);
    return tuples;
}

/* --- one thread --- */

static void a_set(void)
{
    etslock_table *table = NULL;
    CASE("ETS: a table is a set unless the options say otherwise");
    CHECK_STATUS(etslock_table_new(NULL, &table), ETSLOCK_OK);
    CHECK_STATUS(put(table, "k", "a"), ETSLOCK_OK);
    CHECK_STATUS(put(table, "k", "b"), ETSLOCK_OK);
    CHECK_ROW(table, "k", "b");
    etslock_table_free(table);

    CASE("ETS: in a set an insert replaces");
    table = new_table();
    CHECK_ROW(table, "k", "");
    CHECK(count_of(table) == 0);
    CHECK_STATUS(put(table, "k", "a"), ETSLOCK_OK);
    CHECK_ROW(table, "k", "a");
    CHECK_STATUS(put(table, "k", "bb"), ETSLOCK_OK);
    CHECK_ROW(table, "k", "bb");
    CHECK_STATUS(put(table, "k", "bb"), ETSLOCK_OK);
    CHECK_ROW(table, "k", "bb");
    CHECK(count_of(table) == 1);
    CHECK_STATUS(put(table, "kk", "c"), ETSLOCK_OK);
    CHECK_ROW(table, "k", "bb");
    CHECK_ROW(table, "kk", "c");
    CHECK(count_of(table) == 2);
    etslock_table_free(table);
}

static void a_bag(void)
{
    etslock_table *table = new_table_of(ETSLOCK_BAG);
    CASE("C-9: a bag keeps one of equal tuples, in its first place");
    CHECK_ROW(table, "k", "");
    CHECK_STATUS(put(table, "k", "a"), ETSLOCK_OK);
    CHECK_STATUS(put(table, "k", "a"), ETSLOCK_OK);
    CHECK_ROW(table, "k", "a");
    CHECK(count_of(table) == 1);
    CHECK_STATUS(put(table, "k", "b"), ETSLOCK_OK);
    CHECK_STATUS(put(table, "k", "c"), ETSLOCK_OK);
    CHECK_ROW(table, "k", "a b c");
    CHECK_STATUS(put(table, "k", "b"), ETSLOCK_OK);
    CHECK_STATUS(put(table, "k", "a"), ETSLOCK_OK);
    CHECK_ROW(table, "k", "a b c");
    CHECK(count_of(table) == 3);

    CASE("C-9: a tuple that was deleted and comes again stands last");
    CHECK_STATUS(drop_tuple(table, "k", "a"), ETSLOCK_OK);
    CHECK_ROW(table, "k", "b c");
    CHECK_STATUS(put(table, "k", "a"), ETSLOCK_OK);
    CHECK_ROW(table, "k", "b c a");
    CHECK(count_of(table) == 3);
    etslock_table_free(table);
}

static void a_duplicate_bag(void)
{
    etslock_table *table = new_table_of(ETSLOCK_DUPLICATE_BAG);
    CASE("C-9: a duplicate bag keeps all tuples, in order of insertion");
    CHECK_STATUS(put(table, "k", "a"), ETSLOCK_OK);
    CHECK_STATUS(put(table, "k", "a"), ETSLOCK_OK);
    CHECK_ROW(table, "k", "a a");
    CHECK_STATUS(put(table, "k", "b"), ETSLOCK_OK);
    CHECK_STATUS(put(table, "k", "a"), ETSLOCK_OK);
    CHECK_STATUS(put(table, "k", "c"), ETSLOCK_OK);
    CHECK_ROW(table, "k", "a a b a c");
    CHECK(count_of(table) == 5);
    etslock_table_free(table);
}

static void inserting_new(void)
{
    size_t i;
    CASE("ETS: insert_new inserts only if the key has no tuple");
    for (i = 0; i < COUNT_OF(types); i++) {
        etslock_table *table = new_table_of(types[i]);
        CHECK_STATUS(put_new(table, "k", "a"), ETSLOCK_OK);
        CHECK_STATUS(put_new(table, "k", "a"), ETSLOCK_EXISTS);
        CHECK_STATUS(put_new(table, "k", "b"), ETSLOCK_EXISTS);
        CHECK_ROW(table, "k", "a");
        CHECK_STATUS(put_new(table, "l", "a"), ETSLOCK_OK);
        CHECK(count_of(table) == 2);
        CHECK_STATUS(drop(table, "k"), ETSLOCK_OK);
        CHECK_STATUS(put_new(table, "k", "b"), ETSLOCK_OK);
        CHECK_ROW(table, "k", "b");
        CHECK_STATUS(drop_tuple(table, "k", "b"), ETSLOCK_OK);
        CHECK_STATUS(put_new(table, "k", "c"), ETSLOCK_OK);
        CHECK_ROW(table, "k", "c");
        CHECK_STATUS(etslock_table_clear(table), ETSLOCK_OK);
        CHECK_STATUS(put_new(table, "k", "d"), ETSLOCK_OK);
        CHECK_ROW(table, "k", "d");
        CHECK(count_of(table) == 1);
        etslock_table_free(table);
    }
}

/* A key "k" on which a, b, a, c were inserted, and a key "l" with a. */
static etslock_table *filled(int32_t type)
{
    etslock_table *table = new_table_of(type);
    CHECK_STATUS(put(table, "k", "a"), ETSLOCK_OK);
    CHECK_STATUS(put(table, "k", "b"), ETSLOCK_OK);
    CHECK_STATUS(put(table, "k", "a"), ETSLOCK_OK);
    CHECK_STATUS(put(table, "k", "c"), ETSLOCK_OK);
    CHECK_STATUS(put(table, "l", "a"), ETSLOCK_OK);
    return table;
}

static const char *const filled_row[] = {"c", "a b c", "a b a c"};
static const size_t filled_count[] = {1, 3, 4};

static void taking(void)
{
    size_t i;
    CASE("ETS: take removes all tuples of a key and returns them");
    for (i = 0; i < COUNT_OF(types); i++) {
        etslock_table *table = filled(types[i]);
        etslock_tuples *tuples = NULL;
        CHECK_STATUS(etslock_table_take(table, "k", 1, &tuples), ETSLOCK_OK);
        CHECK(shows(tuples, "k", filled_row[i]));
        CHECK_ROW(table, "k", "");
        CHECK_ROW(table, "l", "a");
        CHECK(count_of(table) == 1);
        CHECK_STATUS(put(table, "k", "z"), ETSLOCK_OK);
        CHECK_ROW(table, "k", "z");
        CHECK(shows(tuples, "k", filled_row[i]));
        etslock_tuples_free(tuples);

        tuples = (etslock_tuples *)&tuples;
        CHECK_STATUS(etslock_table_take(table, "absent", 6, &tuples), ETSLOCK_NOT_FOUND);
        CHECK(tuples == NULL);
        CHECK(count_of(table) == 2);
        etslock_table_free(table);
    }
}

static void deleting(void)
{
    size_t i;
    for (i = 0; i < COUNT_OF(types); i++) {
        etslock_table *table = filled(types[i]);
        CASE("ETS: delete removes all tuples of a key, and is OK when there are none");
        CHECK(count_of(table) == filled_count[i] + 1);
        CHECK_STATUS(drop(table, "absent"), ETSLOCK_OK);
        CHECK(count_of(table) == filled_count[i] + 1);
        CHECK_STATUS(drop(table, "k"), ETSLOCK_OK);
        CHECK_ROW(table, "k", "");
        CHECK_ROW(table, "l", "a");
        CHECK(count_of(table) == 1);
        CHECK_STATUS(drop(table, "k"), ETSLOCK_OK);
        CHECK(count_of(table) == 1);
        etslock_table_free(table);

        CASE("ETS: delete_tuple removes every equal instance, and is OK when there is none");
        table = filled(types[i]);
        CHECK_STATUS(drop_tuple(table, "absent", "a"), ETSLOCK_OK);
        CHECK_STATUS(drop_tuple(table, "k", "z"), ETSLOCK_OK);
        CHECK_STATUS(drop_tuple(table, "k", ""), ETSLOCK_OK);
        CHECK_STATUS(drop_tuple(table, "k", "cc"), ETSLOCK_OK);
        CHECK_ROW(table, "k", filled_row[i]);
        CHECK_STATUS(drop_tuple(table, "k", "a"), ETSLOCK_OK);
        CHECK_ROW(table, "k", types[i] == ETSLOCK_SET ? "c" : "b c");
        CHECK_ROW(table, "l", "a");
        CHECK_STATUS(drop_tuple(table, "k", "b"), ETSLOCK_OK);
        CHECK_ROW(table, "k", "c");
        CHECK(count_of(table) == 2);
        CHECK_STATUS(drop_tuple(table, "k", "c"), ETSLOCK_OK);
        CHECK_ROW(table, "k", "");
        CHECK(count_of(table) == 1);
        etslock_table_free(table);
    }
}

static void clearing(void)
{
    enum { KEYS = 500 };
    size_t i;
    CASE("ETS: clear removes everything, and count counts tuples");
    for (i = 0; i < COUNT_OF(types); i++) {
        etslock_table *table = new_table_of(types[i]);
        etslock_cursor *cursor;
        int32_t key;
        CHECK_STATUS(etslock_table_clear(table), ETSLOCK_OK);
        CHECK(count_of(table) == 0);
        for (key = 0; key < KEYS; key++) {
            CHECK_STATUS(etslock_table_insert(table, &key, sizeof key, "a", 1), ETSLOCK_OK);
            CHECK_STATUS(etslock_table_insert(table, &key, sizeof key, "b", 1), ETSLOCK_OK);
            CHECK_STATUS(etslock_table_insert(table, &key, sizeof key, "b", 1), ETSLOCK_OK);
        }
        CHECK(count_of(table) == KEYS * (i + 1));
        CHECK_STATUS(etslock_table_clear(table), ETSLOCK_OK);
        CHECK(count_of(table) == 0);
        for (key = 0; key < KEYS; key++)
            CHECK_STATUS(etslock_table_member(table, &key, sizeof key), ETSLOCK_NOT_FOUND);
        cursor = new_cursor(table);
        CHECK(next_of(cursor) == NULL);
        etslock_cursor_free(cursor);
        CHECK_STATUS(put(table, "k", "a"), ETSLOCK_OK);
        CHECK_ROW(table, "k", "a");
        CHECK(count_of(table) == 1);
        etslock_table_free(table);
    }
}

static int64_t number_of(etslock_table *table, const char *key)
{
    etslock_tuples *tuples = look(table, key);
    size_t count = 0;
    const etslock_tuple *data = etslock_tuples_data(tuples, &count);
    int64_t number = 0;
    REQUIRE(count == 1 && data->value_len == sizeof number);
    memcpy(&number, data->value, sizeof number);
    etslock_tuples_free(tuples);
    return number;
}

static void counting_up(void)
{
    etslock_table *table = new_table();
    const int64_t start = 40;
    int64_t value = -7;
    size_t i;

    CASE("update_counter: an absent key gets initial + add");
    CHECK_STATUS(etslock_table_update_counter(table, "k", 1, 3, 100, &value), ETSLOCK_OK);
    CHECK(value == 103 && number_of(table, "k") == 103);

    CASE("update_counter: a number that is there is added to");
    CHECK_STATUS(etslock_table_update_counter(table, "k", 1, -113, 100, &value), ETSLOCK_OK);
    CHECK(value == -10 && number_of(table, "k") == -10);
    CHECK_STATUS(etslock_table_update_counter(table, "k", 1, 0, 100, &value), ETSLOCK_OK);
    CHECK(value == -10 && number_of(table, "k") == -10);
    CHECK(count_of(table) == 1);
    CHECK_STATUS(etslock_table_insert(table, "l", 1, &start, sizeof start), ETSLOCK_OK);
    CHECK_STATUS(etslock_table_update_counter(table, "l", 1, 2, 0, &value), ETSLOCK_OK);
    CHECK(value == 42 && number_of(table, "l") == 42);

    CASE("update_counter: an overflow is invalid and changes nothing");
    CHECK_STATUS(etslock_table_update_counter(table, "max", 3, INT64_MAX, 0, &value), ETSLOCK_OK);
    CHECK(value == INT64_MAX);
    value = -7;
    CHECK_STATUS(etslock_table_update_counter(table, "max", 3, 1, 0, &value),
                 ETSLOCK_ERR_INVALID);
    CHECK(value == -7 && number_of(table, "max") == INT64_MAX);
    CHECK_STATUS(etslock_table_update_counter(table, "min", 3, -1, INT64_MIN + 1, &value),
                 ETSLOCK_OK);
    CHECK(value == INT64_MIN);
    value = -7;
    CHECK_STATUS(etslock_table_update_counter(table, "min", 3, -1, 0, &value),
                 ETSLOCK_ERR_INVALID);
    CHECK(value == -7 && number_of(table, "min") == INT64_MIN);
    CHECK_STATUS(etslock_table_update_counter(table, "absent", 6, 1, INT64_MAX, &value),
                 ETSLOCK_ERR_INVALID);
    CHECK_STATUS(etslock_table_update_counter(table, "absent", 6, INT64_MIN, -1, &value),
                 ETSLOCK_ERR_INVALID);
    CHECK(value == -7);
    CHECK_ROW(table, "absent", "");
    CHECK(count_of(table) == 4);

    CASE("update_counter: from one end to the other");
    CHECK_STATUS(etslock_table_update_counter(table, "max", 3, INT64_MIN, 0, &value), ETSLOCK_OK);
    CHECK(value == -1);

    CASE("update_counter: a value that is not 8 bytes long is of the wrong type");
    value = -7;
    CHECK_STATUS(put(table, "text", ""), ETSLOCK_OK);
    CHECK_STATUS(etslock_table_update_counter(table, "text", 4, 1, 0, &value), ETSLOCK_ERR_TYPE);
    CHECK_STATUS(put(table, "text", "7 bytes"), ETSLOCK_OK);
    CHECK_STATUS(etslock_table_update_counter(table, "text", 4, 1, 0, &value), ETSLOCK_ERR_TYPE);
    CHECK_STATUS(put(table, "text", "9-bytes-."), ETSLOCK_OK);
    CHECK_STATUS(etslock_table_update_counter(table, "text", 4, 1, 0, &value), ETSLOCK_ERR_TYPE);
    CHECK_ROW(table, "text", "9-bytes-.");
    CHECK(value == -7);
    etslock_table_free(table);

    CASE("update_counter: sets only");
    for (i = 1; i < COUNT_OF(types); i++) {
        table = new_table_of(types[i]);
        CHECK_STATUS(etslock_table_update_counter(table, "k", 1, 1, 0, &value), ETSLOCK_ERR_TYPE);
        CHECK_ROW(table, "k", "");
        CHECK_STATUS(etslock_table_insert(table, "k", 1, &start, sizeof start), ETSLOCK_OK);
        CHECK_STATUS(etslock_table_update_counter(table, "k", 1, 1, 0, &value), ETSLOCK_ERR_TYPE);
        CHECK(value == -7 && number_of(table, "k") == 40 && count_of(table) == 1);
        etslock_table_free(table);
    }
}

/* --- bytes --- */

static const size_t lengths[] = {0, 1, 7, 8, 9, 22, 23, 24, 25, 100, (size_t)1 << 20};

/* `bytes` holds 1 MiB; a value of each length begins at its start. */
static int has_lengths(etslock_table *table, const uint8_t *key, size_t key_len,
                       const uint8_t *bytes, size_t first, size_t end)
{
    etslock_tuples *tuples = NULL;
    size_t count = 0;
    size_t i;
    int right;
    const etslock_tuple *data;
    if (etslock_table_lookup(table, key, key_len, &tuples) != ETSLOCK_OK)
        return first == end;
    data = etslock_tuples_data(tuples, &count);
    right = count == end - first;
    for (i = 0; right && i < count; i++)
        right = is_bytes(data[i].key, data[i].key_len, key, key_len) &&
                is_bytes(data[i].value, data[i].value_len, bytes, lengths[first + i]);
    etslock_tuples_free(tuples);
    return right;
}

static void bytes_of_every_kind(void)
{
    uint8_t *zeros = calloc(1, MIB);
    uint8_t *bytes = malloc(MIB);
    size_t i, j, k;
    REQUIRE(zeros != NULL && bytes != NULL);
    for (i = 0; i < MIB; i++)
        bytes[i] = (uint8_t)(i % 251);

    CASE("tuples: keys and values of any length, NUL bytes and all");
    for (i = 0; i < COUNT_OF(types); i++) {
        etslock_table *table = new_table_of(types[i]);
        size_t values = types[i] == ETSLOCK_SET ? 1 : COUNT_OF(lengths);
        for (j = 0; j < COUNT_OF(lengths); j++) {
            for (k = 0; k < COUNT_OF(lengths); k++) {
                CHECK_STATUS(etslock_table_insert(table, zeros, lengths[j], bytes, lengths[k]),
                             ETSLOCK_OK);
                if (types[i] == ETSLOCK_SET)
                    CHECK(has_lengths(table, zeros, lengths[j], bytes, k, k + 1));
            }
            CHECK(has_lengths(table, zeros, lengths[j], bytes, COUNT_OF(lengths) - values,
                              COUNT_OF(lengths)));
        }
        CHECK(count_of(table) == COUNT_OF(lengths) * values);
        for (j = 0; j < COUNT_OF(lengths); j++) {
            CHECK_STATUS(etslock_table_member(table, zeros, lengths[j]), ETSLOCK_OK);
            for (k = 0; k < COUNT_OF(lengths); k++) {
                CHECK_STATUS(
                    etslock_table_delete_tuple(table, zeros, lengths[j], bytes, lengths[k]),
                    ETSLOCK_OK);
                if (types[i] != ETSLOCK_SET)
                    CHECK(has_lengths(table, zeros, lengths[j], bytes, k + 1, COUNT_OF(lengths)));
            }
            CHECK_STATUS(etslock_table_member(table, zeros, lengths[j]), ETSLOCK_NOT_FOUND);
            CHECK(count_of(table) == (COUNT_OF(lengths) - j - 1) * values);
        }
        etslock_table_free(table);
    }

    CASE("tuples: what differs behind a NUL byte differs");
    for (i = 0; i < COUNT_OF(types); i++) {
        etslock_table *table = new_table_of(types[i]);
        CHECK_STATUS(etslock_table_insert(table, "a", 1, "1", 1), ETSLOCK_OK);
        CHECK_STATUS(etslock_table_insert(table, "a\0", 2, "2", 1), ETSLOCK_OK);
        CHECK_STATUS(etslock_table_insert(table, "a\0b", 3, "3\0x", 3), ETSLOCK_OK);
        CHECK_STATUS(etslock_table_insert(table, "a\0c", 3, "4", 1), ETSLOCK_OK);
        CHECK(count_of(table) == 4);
        CHECK_STATUS(etslock_table_delete_tuple(table, "a\0b", 3, "3", 1), ETSLOCK_OK);
        CHECK_STATUS(etslock_table_delete_tuple(table, "a\0b", 3, "3\0y", 3), ETSLOCK_OK);
        CHECK_STATUS(etslock_table_member(table, "a\0b", 3), ETSLOCK_OK);
        CHECK_STATUS(etslock_table_delete_tuple(table, "a\0b", 3, "3\0x", 3), ETSLOCK_OK);
        CHECK_STATUS(etslock_table_member(table, "a\0b", 3), ETSLOCK_NOT_FOUND);
        CHECK_STATUS(etslock_table_delete(table, "a", 1), ETSLOCK_OK);
        CHECK_STATUS(etslock_table_member(table, "a\0", 2), ETSLOCK_OK);
        CHECK_STATUS(etslock_table_member(table, "a\0c", 3), ETSLOCK_OK);
        CHECK(count_of(table) == 2);
        etslock_table_free(table);
    }

    CASE("tuples: NULL with length 0 is the empty string");
    for (i = 0; i < COUNT_OF(types); i++) {
        etslock_table *table = new_table_of(types[i]);
        CHECK_STATUS(etslock_table_insert(table, NULL, 0, NULL, 0), ETSLOCK_OK);
        CHECK_STATUS(etslock_table_insert_new(table, "", 0, "x", 1), ETSLOCK_EXISTS);
        CHECK(has_lengths(table, zeros, 0, bytes, 0, 1));
        CHECK_STATUS(etslock_table_delete_tuple(table, bytes, 0, bytes, 0), ETSLOCK_OK);
        CHECK(count_of(table) == 0);
        etslock_table_free(table);
    }

    CASE("tuples: key and value are copied");
    {
        etslock_table *table = new_table_of(ETSLOCK_BAG);
        char key[] = "a key of more than 24 bytes.";
        char value[] = "a value of more than 24 bytes";
        CHECK_STATUS(put(table, key, value), ETSLOCK_OK);
        memset(key, '?', sizeof key - 1);
        memset(value, '?', sizeof value - 1);
        CHECK_STATUS(etslock_table_member(table, key, sizeof key - 1), ETSLOCK_NOT_FOUND);
        CHECK_STATUS(drop_tuple(table, "a key of more than 24 bytes.",
                                "a value of more than 24 bytes"),
                     ETSLOCK_OK);
        CHECK(count_of(table) == 0);
        etslock_table_free(table);
    }
    free(bytes);
    free(zeros);
}

/* --- snapshots --- */

static void snapshots_never_change(void)
{
    size_t i;
    CASE("snapshots: later writes change none, and neither does the end of the table (C-14)");
    for (i = 0; i < COUNT_OF(types); i++) {
        etslock_table *table = filled(types[i]);
        etslock_cursor *cursor;
        etslock_tuples *first = look(table, "k");
        etslock_tuples *second, *taken, *from_cursor;
        size_t count = 0;
        const etslock_tuple *place = etslock_tuples_data(first, &count);

        CHECK(count == filled_count[i]);
        CHECK_STATUS(put(table, "k", "d"), ETSLOCK_OK);
        CHECK(shows(first, "k", filled_row[i]));
        second = look(table, "k");
        CHECK_STATUS(drop_tuple(table, "k", "d"), ETSLOCK_OK);
        CHECK_STATUS(drop_tuple(table, "k", "b"), ETSLOCK_OK);
        CHECK(shows(first, "k", filled_row[i]));
        CHECK_STATUS(put(table, "k", "e"), ETSLOCK_OK);
        CHECK_STATUS(etslock_table_take(table, "k", 1, &taken), ETSLOCK_OK);
        CHECK_STATUS(put(table, "k", "f"), ETSLOCK_OK);
        CHECK_STATUS(drop(table, "l"), ETSLOCK_OK);
        cursor = new_cursor(table);
        from_cursor = next_of(cursor);
        etslock_cursor_free(cursor);
        CHECK_STATUS(put(table, "k", "g"), ETSLOCK_OK);
        CHECK_STATUS(drop(table, "k"), ETSLOCK_OK);
        CHECK_STATUS(etslock_table_clear(table), ETSLOCK_OK);
        etslock_table_free(table);

        CHECK(shows(first, "k", filled_row[i]));
        CHECK(etslock_tuples_data(first, NULL) == place);
        CHECK(shows(second, "k", i == 0 ? "d" : i == 1 ? "a b c d" : "a b a c d"));
        CHECK(shows(taken, "k", i == 0 ? "e" : i == 1 ? "a c e" : "a a c e"));
        CHECK(shows(from_cursor, "k", "f"));
        etslock_tuples_free(first);
        etslock_tuples_free(second);
        etslock_tuples_free(taken);
        etslock_tuples_free(from_cursor);
    }

    CASE("snapshots: a counter's is as immutable as any");
    {
        etslock_table *table = new_table();
        etslock_tuples *tuples;
        int64_t value = 0, seen = 0;
        CHECK_STATUS(etslock_table_update_counter(table, "k", 1, 1, 0, &value), ETSLOCK_OK);
        tuples = look(table, "k");
        CHECK_STATUS(etslock_table_update_counter(table, "k", 1, 1, 0, &value), ETSLOCK_OK);
        CHECK(value == 2);
        memcpy(&seen, etslock_tuples_data(tuples, NULL)->value, sizeof seen);
        CHECK(seen == 1);
        etslock_tuples_free(tuples);
        etslock_table_free(table);
    }
}

static const uint8_t *place_of_value(const etslock_tuples *tuples, size_t index)
{
    size_t count = 0;
    const etslock_tuple *data = etslock_tuples_data(tuples, &count);
    REQUIRE(index < count && data[index].value_len == MIB);
    return data[index].value;
}

static void large_values_are_shared(void)
{
    uint8_t *bytes = calloc(1, MIB);
    size_t i;
    REQUIRE(bytes != NULL);
    CASE("snapshots: a large value is shared, not copied");
    for (i = 0; i < COUNT_OF(types); i++) {
        etslock_table *table = new_table_of(types[i]);
        etslock_guard *guard = NULL;
        etslock_cursor *cursor;
        etslock_tuples *one, *two, *three, *four = NULL, *five = NULL;
        CHECK_STATUS(etslock_table_insert(table, "k", 1, bytes, MIB), ETSLOCK_OK);
        one = look(table, "k");
        two = look(table, "k");
        CHECK(place_of_value(one, 0) != bytes);
        CHECK(place_of_value(one, 0) == place_of_value(two, 0));
        cursor = new_cursor(table);
        three = next_of(cursor);
        CHECK(place_of_value(three, 0) == place_of_value(one, 0));
        CHECK_STATUS(etslock_acquire(table, "k", 1, NULL, &guard), ETSLOCK_OK);
        CHECK_STATUS(etslock_guard_lookup(guard, "k", 1, &four), ETSLOCK_OK);
        CHECK(place_of_value(four, 0) == place_of_value(one, 0));
        CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
        if (types[i] != ETSLOCK_SET)
            CHECK_STATUS(put(table, "k", "another"), ETSLOCK_OK);
        CHECK_STATUS(etslock_table_take(table, "k", 1, &five), ETSLOCK_OK);
        CHECK(place_of_value(five, 0) == place_of_value(one, 0));

        etslock_cursor_free(cursor);
        etslock_table_free(table);
        etslock_tuples_free(one);
        etslock_tuples_free(three);
        etslock_tuples_free(four);
        etslock_tuples_free(five);
        CHECK(memcmp(place_of_value(two, 0), bytes, MIB) == 0);
        etslock_tuples_free(two);
    }
    free(bytes);
}

/* --- cursors --- */

static void put_number(etslock_table *table, int32_t key, int32_t value)
{
    CHECK_STATUS(etslock_table_insert(table, &key, sizeof key, &value, sizeof value), ETSLOCK_OK);
}

/* A whole number from 0 to `limit` - 1; -1 if the bytes are none. */
static int32_t number_in(const uint8_t *data, size_t len, int32_t limit)
{
    int32_t number = -1;
    if (len == sizeof number)
        memcpy(&number, data, sizeof number);
    return number >= 0 && number < limit ? number : -1;
}

static int32_t key_number(const etslock_tuples *tuples, int32_t limit)
{
    const etslock_tuple *data = etslock_tuples_data(tuples, NULL);
    return number_in(data->key, data->key_len, limit);
}

static void cursors(void)
{
    enum { KEYS = 1000, NEW_KEYS = 3000 };
    static unsigned char seen[NEW_KEYS];
    size_t i;
    CASE("cursor: an empty table has no key");
    for (i = 0; i < COUNT_OF(types); i++) {
        etslock_table *table = new_table_of(types[i]);
        etslock_cursor *cursor = new_cursor(table);
        CHECK(next_of(cursor) == NULL);
        CHECK(next_of(cursor) == NULL);
        etslock_cursor_free(cursor);
        etslock_table_free(table);
    }

    CASE("cursor: each key once with all its tuples, then the end for ever");
    for (i = 0; i < COUNT_OF(types); i++) {
        etslock_table *table = new_table_of(types[i]);
        etslock_cursor *cursor;
        etslock_tuples *tuples;
        int32_t key;
        size_t keys = 0;
        for (key = 0; key < KEYS; key++) {
            put_number(table, key, key);
            put_number(table, key, key + 1);
            put_number(table, key, key + 1);
        }
        memset(seen, 0, sizeof seen);
        cursor = new_cursor(table);
        while ((tuples = next_of(cursor)) != NULL) {
            size_t count = 0, j;
            const etslock_tuple *data = etslock_tuples_data(tuples, &count);
            key = key_number(tuples, KEYS);
            REQUIRE(key >= 0);
            seen[key]++;
            keys++;
            CHECK(count == i + 1);
            for (j = 0; j < count; j++) {
                int32_t wanted = types[i] == ETSLOCK_SET || j > 0 ? key + 1 : key;
                CHECK(number_in(data[j].key, data[j].key_len, KEYS) == key);
                CHECK(number_in(data[j].value, data[j].value_len, KEYS + 1) == wanted);
            }
            etslock_tuples_free(tuples);
        }
        CHECK(keys == KEYS);
        for (key = 0; key < KEYS; key++)
            CHECK(seen[key] == 1);
        put_number(table, KEYS, 0);
        CHECK(next_of(cursor) == NULL);
        CHECK(next_of(cursor) == NULL);
        etslock_cursor_free(cursor);
        etslock_table_free(table);
    }

    CASE("cursor: tuples come as they are then, not as they were at the start");
    for (i = 0; i < COUNT_OF(types); i++) {
        etslock_table *table = new_table_of(types[i]);
        etslock_cursor *cursor;
        etslock_tuples *tuples;
        int32_t key;
        for (key = 0; key < KEYS; key++)
            put_number(table, key, 0);
        cursor = new_cursor(table);
        /* A quarter is gone, a quarter is other tuples, a quarter went and came again. */
        for (key = 0; key < KEYS; key++) {
            if (key % 4 != 3)
                CHECK_STATUS(etslock_table_delete(table, &key, sizeof key), ETSLOCK_OK);
            if (key % 4 == 1 || key % 4 == 2)
                put_number(table, key, key % 4);
        }
        for (key = KEYS; key < NEW_KEYS; key++)
            put_number(table, key, 5);
        memset(seen, 0, sizeof seen);
        while ((tuples = next_of(cursor)) != NULL) {
            size_t count = 0;
            const etslock_tuple *data = etslock_tuples_data(tuples, &count);
            int32_t value = number_in(data->value, data->value_len, 6);
            key = key_number(tuples, NEW_KEYS);
            REQUIRE(key >= 0 && count == 1);
            seen[key]++;
            CHECK(value == (key >= KEYS ? 5 : key % 4 == 3 ? 0 : key % 4));
            etslock_tuples_free(tuples);
        }
        for (key = 0; key < NEW_KEYS; key++) {
            if (key >= KEYS || key % 4 == 1 || key % 4 == 2)
                CHECK(seen[key] <= 1);
            else
                CHECK(seen[key] == (key % 4 == 3));
        }
        etslock_cursor_free(cursor);
        etslock_table_free(table);
    }

    CASE("cursor: two cursors of a table know nothing of each other; one may end early");
    {
        etslock_table *table = new_table();
        etslock_cursor *one, *two;
        etslock_tuples *tuples;
        int32_t key;
        size_t keys = 0;
        for (key = 0; key < KEYS; key++)
            put_number(table, key, 0);
        one = new_cursor(table);
        two = new_cursor(table);
        tuples = next_of(one);
        CHECK(tuples != NULL);
        etslock_tuples_free(tuples);
        etslock_cursor_free(one);
        while ((tuples = next_of(two)) != NULL) {
            keys++;
            etslock_tuples_free(tuples);
        }
        CHECK(keys == KEYS);
        etslock_cursor_free(two);
        etslock_table_free(table);
    }
}

struct walk {
    etslock_cursor *cursor;
    etslock_tuples *last;
    int steps;
    int keys;
};

static void *walk_on(void *argument)
{
    struct walk *walk = argument;
    etslock_tuples *tuples;
    int step;
    for (step = 0; step < walk->steps && (tuples = next_of(walk->cursor)) != NULL; step++) {
        etslock_tuples_free(walk->last);
        walk->last = tuples;
        walk->keys++;
    }
    return NULL;
}

static void cursors_outlive_the_table(void)
{
    enum { KEYS = 200 };
    size_t i;
    CASE("C-14: cursors and snapshots outlive the handle, and move between threads");
    for (i = 0; i < COUNT_OF(types); i++) {
        etslock_table *table = new_table_of(types[i]);
        struct walk walk = {NULL, NULL, KEYS / 2, 0};
        pthread_t thread;
        int32_t key;
        size_t count = 0;
        for (key = 0; key < KEYS; key++) {
            put_number(table, key, key);
            put_number(table, key, key + 1);
        }
        walk.cursor = new_cursor(table);
        walk_on(&walk);
        CHECK(walk.keys == KEYS / 2);
        etslock_table_free(table);
        walk.steps = KEYS;
        REQUIRE(pthread_create(&thread, NULL, walk_on, &walk) == 0);
        REQUIRE(pthread_join(thread, NULL) == 0);
        CHECK(walk.keys == KEYS);
        CHECK(next_of(walk.cursor) == NULL);
        etslock_cursor_free(walk.cursor);
        etslock_tuples_data(walk.last, &count);
        CHECK(count == (types[i] == ETSLOCK_SET ? 1 : 2));
        CHECK(key_number(walk.last, KEYS) >= 0);
        etslock_tuples_free(walk.last);
    }
}

/* --- several threads --- */

enum { STEADY = 300, FLEETING = 300, FRESH = 2000, CHURNERS = 3 };

struct churn {
    etslock_table *table;
    int32_t type;
    int part; /* which of the keys are this thread's */
    int stop; /* of the first one only; touched with the __atomic builtins */
    sem_t *began;
    struct churn *first;
};

/* A key that stays: a set's tuple is replaced, in bags one comes and goes behind the first. */
static void touch_steady(struct churn *churn, int32_t key, int32_t round)
{
    const int32_t other = 1;
    if (churn->type == ETSLOCK_SET || round % 2 == 1)
        put_number(churn->table, key, churn->type == ETSLOCK_SET ? round % 100 : other);
    else
        CHECK_STATUS(etslock_table_delete_tuple(churn->table, &key, sizeof key, &other,
                                                sizeof other),
                     ETSLOCK_OK);
}

/* Touches keys that stay, and makes and deletes others, which makes the map grow. */
static void *churn(void *argument)
{
    struct churn *churn = argument;
    int32_t key, round;
    for (round = 1; !__atomic_load_n(&churn->first->stop, __ATOMIC_ACQUIRE); round++) {
        for (key = churn->part; key < STEADY + FLEETING + FRESH; key += CHURNERS) {
            if (key < STEADY)
                touch_steady(churn, key, round);
            else if (key < STEADY + FLEETING ? (key + round) % 2 == 0 : round % 4 == 1)
                put_number(churn->table, key, round % 100);
            else
                CHECK_STATUS(etslock_table_delete(churn->table, &key, sizeof key), ETSLOCK_OK);
            if (round == 1 && key == churn->part)
                sem_post(churn->began);
        }
    }
    return NULL;
}

static void cursors_among_writers(int32_t type)
{
    static unsigned char seen[STEADY + FLEETING + FRESH];
    etslock_table *table = new_table_of(type);
    struct churn churners[CHURNERS];
    pthread_t threads[CHURNERS];
    sem_t began;
    int32_t key;
    int pass, passes = scaled(40);
    int i;
    CASE("cursor: among writers, what stays comes exactly once, what comes or goes at most once");
    REQUIRE(sem_init(&began, 0, 0) == 0);
    for (key = 0; key < STEADY; key++)
        put_number(table, key, 0);
    for (i = 0; i < CHURNERS; i++) {
        churners[i].table = table;
        churners[i].type = type;
        churners[i].part = i;
        churners[i].stop = 0;
        churners[i].began = &began;
        churners[i].first = &churners[0];
        REQUIRE(pthread_create(&threads[i], NULL, churn, &churners[i]) == 0);
    }
    for (i = 0; i < CHURNERS; i++)
        while (sem_wait(&began) != 0)
            continue;
    for (pass = 0; pass < passes; pass++) {
        etslock_cursor *cursor = new_cursor(table);
        etslock_tuples *tuples;
        int most = 0, missing = 0, keys = 0;
        memset(seen, 0, sizeof seen);
        while ((tuples = next_of(cursor)) != NULL) {
            size_t count = 0, j;
            const etslock_tuple *data = etslock_tuples_data(tuples, &count);
            key = key_number(tuples, STEADY + FLEETING + FRESH);
            REQUIRE(key >= 0 && count > 0);
            REQUIRE(type != ETSLOCK_SET || count == 1);
            for (j = 0; j < count; j++)
                REQUIRE(number_in(data[j].key, data[j].key_len, INT32_MAX) == key &&
                        number_in(data[j].value, data[j].value_len, 100) >= 0);
            seen[key]++;
            etslock_tuples_free(tuples);
            if (pass % 2 == 0 && keys++ % 64 == 0)
                sched_yield();
        }
        etslock_cursor_free(cursor);
        for (key = 0; key < STEADY + FLEETING + FRESH; key++) {
            most = seen[key] > most ? seen[key] : most;
            missing += key < STEADY && seen[key] == 0;
        }
        CHECK(most == 1);
        CHECK(missing == 0);
    }
    __atomic_store_n(&churners[0].stop, 1, __ATOMIC_RELEASE);
    for (i = 0; i < CHURNERS; i++)
        REQUIRE(pthread_join(threads[i], NULL) == 0);
    sem_destroy(&began);
    etslock_table_free(table);
}

enum { HANDS = 4, HOT_KEYS = 3 };

struct hand {
    pthread_t thread;
    etslock_table *table;
    int32_t number;
    int32_t rounds;
    int64_t sum;
    unsigned char *seen; /* shared; touched with the __atomic builtins */
    pthread_barrier_t *start;
    int inserted, taken; /* of tuples */
};

static void run_hands(etslock_table *table, struct hand *hands, int32_t rounds,
                      unsigned char *seen, void *(*work)(void *))
{
    pthread_barrier_t start;
    int i;
    REQUIRE(pthread_barrier_init(&start, NULL, HANDS) == 0);
    for (i = 0; i < HANDS; i++) {
        memset(&hands[i], 0, sizeof hands[i]);
        hands[i].table = table;
        hands[i].number = i;
        hands[i].rounds = rounds;
        hands[i].seen = seen;
        hands[i].start = &start;
        REQUIRE(pthread_create(&hands[i].thread, NULL, work, &hands[i]) == 0);
    }
    for (i = 0; i < HANDS; i++)
        REQUIRE(pthread_join(hands[i].thread, NULL) == 0);
    pthread_barrier_destroy(&start);
}

static void *count_together(void *argument)
{
    struct hand *hand = argument;
    int32_t round;
    pthread_barrier_wait(hand->start);
    for (round = 0; round < hand->rounds; round++) {
        int64_t value = 0;
        int64_t add = round % 2 == 0 ? hand->number + 1 : -round;
        CHECK_STATUS(etslock_table_update_counter(hand->table, "one", 3, 1, 0, &value),
                     ETSLOCK_OK);
        REQUIRE(value >= 1 && value <= (int64_t)HANDS * hand->rounds);
        CHECK(__atomic_fetch_add(&hand->seen[value - 1], 1, __ATOMIC_RELAXED) == 0);
        CHECK_STATUS(etslock_table_update_counter(hand->table, "sum", 3, add, 1000, &value),
                     ETSLOCK_OK);
        hand->sum += add;
    }
    return NULL;
}

static void counters_among_threads(void)
{
    struct hand hands[HANDS];
    etslock_table *table = new_table();
    int32_t rounds = scaled(20000);
    unsigned char *seen = calloc((size_t)rounds * HANDS, 1);
    int64_t sum = 1000;
    int i;
    CASE("update_counter: among threads each sum is given out once, and none is lost");
    REQUIRE(seen != NULL);
    run_hands(table, hands, rounds, seen, count_together);
    for (i = 0; i < HANDS; i++)
        sum += hands[i].sum;
    CHECK(number_of(table, "one") == (int64_t)HANDS * rounds);
    CHECK(number_of(table, "sum") == sum);
    CHECK(count_of(table) == 2);
    etslock_table_free(table);
    free(seen);
}

/* Reads the tokens of a snapshot that was taken out of the table; each may be taken once. A
 * token is round * HANDS + hand: those of one hand must stand in order. */
static void take_tokens(struct hand *hand, const etslock_tuples *tuples)
{
    int32_t last[HANDS];
    size_t count = 0, i;
    const etslock_tuple *data = etslock_tuples_data(tuples, &count);
    CHECK(count > 0);
    for (i = 0; i < HANDS; i++)
        last[i] = -1;
    for (i = 0; i < count; i++) {
        int32_t token = number_in(data[i].value, data[i].value_len, hand->rounds * HANDS);
        REQUIRE(token >= 0);
        CHECK(__atomic_fetch_add(&hand->seen[token], 1, __ATOMIC_RELAXED) == 0);
        CHECK(token > last[token % HANDS]);
        last[token % HANDS] = token;
    }
    hand->taken += (int)count;
}

static void *insert_and_take(void *argument)
{
    struct hand *hand = argument;
    int32_t round;
    pthread_barrier_wait(hand->start);
    for (round = 0; round < hand->rounds; round++) {
        int32_t key = round % HOT_KEYS;
        int32_t token = round * HANDS + hand->number;
        etslock_tuples *tuples = NULL;
        etslock_status status =
            etslock_table_insert(hand->table, &key, sizeof key, &token, sizeof token);
        CHECK_STATUS(status, ETSLOCK_OK);
        hand->inserted++;
        if (round % 5 == hand->number) {
            status = etslock_table_take(hand->table, &key, sizeof key, &tuples);
            if (status == ETSLOCK_OK)
                take_tokens(hand, tuples);
            else
                CHECK_STATUS(status, ETSLOCK_NOT_FOUND);
            etslock_tuples_free(tuples);
        }
    }
    return NULL;
}

static void *insert_new_and_take(void *argument)
{
    struct hand *hand = argument;
    int32_t round;
    pthread_barrier_wait(hand->start);
    for (round = 0; round < hand->rounds; round++) {
        int32_t key = round % HOT_KEYS;
        int32_t token = round * HANDS + hand->number;
        etslock_tuples *tuples = NULL;
        etslock_status status =
            etslock_table_insert_new(hand->table, &key, sizeof key, &token, sizeof token);
        if (status == ETSLOCK_OK)
            hand->inserted++;
        else
            CHECK_STATUS(status, ETSLOCK_EXISTS);
        status = etslock_table_take(hand->table, &key, sizeof key, &tuples);
        if (status == ETSLOCK_OK) {
            size_t count = 0;
            etslock_tuples_data(tuples, &count);
            CHECK(count == 1);
            take_tokens(hand, tuples);
        } else {
            CHECK_STATUS(status, ETSLOCK_NOT_FOUND);
        }
        etslock_tuples_free(tuples);
    }
    return NULL;
}

/* What was inserted was taken once or is still there: `left` tuples, by every way of counting. */
static void check_left(struct hand *hands, etslock_table *table)
{
    etslock_cursor *cursor = new_cursor(table);
    etslock_tuples *tuples;
    size_t left = 0;
    size_t found = 0;
    int32_t key;
    int i;
    int inserted = 0, taken = 0;
    for (i = 0; i < HANDS; i++) {
        inserted += hands[i].inserted;
        taken += hands[i].taken;
    }
    CHECK(inserted > 0 && taken > 0 && inserted >= taken);
    left = (size_t)(inserted - taken);
    CHECK(count_of(table) == left);
    while ((tuples = next_of(cursor)) != NULL) {
        size_t count = 0;
        etslock_tuples_data(tuples, &count);
        found += count;
        etslock_tuples_free(tuples);
    }
    etslock_cursor_free(cursor);
    CHECK(found == left);
    for (key = 0; key < HOT_KEYS; key++) {
        if (etslock_table_take(table, &key, sizeof key, &tuples) == ETSLOCK_OK) {
            size_t count = 0;
            etslock_tuples_data(tuples, &count);
            take_tokens(&hands[0], tuples);
            left -= count;
        }
        etslock_tuples_free(tuples);
    }
    CHECK(left == 0);
    CHECK(count_of(table) == 0);
}

static void takes_among_threads(void)
{
    struct hand hands[HANDS];
    int32_t rounds = scaled(15000);
    unsigned char *seen = malloc((size_t)rounds * HANDS);
    size_t i;
    int32_t token;
    REQUIRE(seen != NULL);

    CASE("take: among threads, every tuple of a bag is taken once, in order of insertion");
    for (i = 1; i < COUNT_OF(types); i++) {
        etslock_table *table = new_table_of(types[i]);
        int once = 1;
        memset(seen, 0, (size_t)rounds * HANDS);
        run_hands(table, hands, rounds, seen, insert_and_take);
        check_left(hands, table);
        for (token = 0; token < rounds * HANDS; token++)
            once &= seen[token] == 1;
        CHECK(once);
        etslock_table_free(table);
    }

    CASE("insert_new: among threads, one inserts and one takes");
    for (i = 0; i < COUNT_OF(types); i++) {
        etslock_table *table = new_table_of(types[i]);
        memset(seen, 0, (size_t)rounds * HANDS);
        run_hands(table, hands, rounds, seen, insert_new_and_take);
        check_left(hands, table);
        etslock_table_free(table);
    }
    free(seen);
}

/* Each hand has tuples of its own under keys that all share, and toggles them. */
static void *toggle(void *argument)
{
    struct hand *hand = argument;
    int32_t round;
    pthread_barrier_wait(hand->start);
    for (round = 0; round < hand->rounds; round++) {
        int32_t key = round % HOT_KEYS;
        CHECK_STATUS(etslock_table_insert(hand->table, &key, sizeof key, &hand->number,
                                          sizeof hand->number),
                     ETSLOCK_OK);
        CHECK_STATUS(etslock_table_insert(hand->table, &key, sizeof key, "all", 3), ETSLOCK_OK);
        if (round + HOT_KEYS < hand->rounds) {
            CHECK_STATUS(etslock_table_delete_tuple(hand->table, &key, sizeof key, &hand->number,
                                                    sizeof hand->number),
                         ETSLOCK_OK);
            CHECK_STATUS(etslock_table_delete_tuple(hand->table, &key, sizeof key, "all", 3),
                         ETSLOCK_OK);
        }
    }
    return NULL;
}

static void bags_among_threads(void)
{
    struct hand hands[HANDS];
    size_t i;
    CASE("delete_tuple: among threads, nobody loses what only he deletes; a bag has no equals");
    for (i = 1; i < COUNT_OF(types); i++) {
        etslock_table *table = new_table_of(types[i]);
        size_t total = 0;
        int32_t key;
        run_hands(table, hands, scaled(15000), NULL, toggle);
        for (key = 0; key < HOT_KEYS; key++) {
            etslock_tuples *tuples = NULL;
            size_t count = 0, of_all = 0, j;
            int own[HANDS] = {0};
            const etslock_tuple *data;
            CHECK_STATUS(etslock_table_lookup(table, &key, sizeof key, &tuples), ETSLOCK_OK);
            data = etslock_tuples_data(tuples, &count);
            for (j = 0; j < count; j++) {
                int32_t number = number_in(data[j].value, data[j].value_len, HANDS);
                if (number >= 0)
                    own[number]++;
                else
                    of_all += is_bytes(data[j].value, data[j].value_len, "all", 3);
            }
            for (j = 0; j < HANDS; j++)
                CHECK(own[j] == 1);
            CHECK(of_all >= 1 && of_all <= (types[i] == ETSLOCK_BAG ? 1 : HANDS));
            CHECK(count == HANDS + of_all);
            total += count;
            etslock_tuples_free(tuples);
        }
        CHECK(count_of(table) == total);
        etslock_table_free(table);
    }
}

/* Makes, deletes and clears keys without agreement. */
static void *scramble(void *argument)
{
    struct hand *hand = argument;
    uint32_t random = (uint32_t)hand->number * 2654435769u + 12345u;
    int32_t round;
    pthread_barrier_wait(hand->start);
    for (round = 0; round < hand->rounds; round++) {
        int32_t key;
        random = random * 1664525u + 1013904223u;
        key = (int32_t)(random >> 24) % 40;
        if ((random >> 20) % 8 < 4)
            CHECK_STATUS(etslock_table_insert(hand->table, &key, sizeof key, &random, 1),
                         ETSLOCK_OK);
        else if (round % 500 != 0)
            CHECK_STATUS(etslock_table_delete(hand->table, &key, sizeof key), ETSLOCK_OK);
        else
            CHECK_STATUS(etslock_table_clear(hand->table), ETSLOCK_OK);
    }
    return NULL;
}

static void everything_among_threads(void)
{
    struct hand hands[HANDS];
    size_t i;
    CASE("count: exact again when nothing writes, and so are lookup, member and cursor");
    for (i = 0; i < COUNT_OF(types); i++) {
        etslock_table *table = new_table_of(types[i]);
        etslock_cursor *cursor;
        etslock_tuples *tuples;
        size_t by_lookup = 0, by_cursor = 0, count;
        int32_t key;
        int keys = 0;
        run_hands(table, hands, scaled(30000), NULL, scramble);
        for (key = 0; key < 40; key++) {
            etslock_status status = etslock_table_lookup(table, &key, sizeof key, &tuples);
            CHECK_STATUS(etslock_table_member(table, &key, sizeof key), status);
            keys += status == ETSLOCK_OK;
            etslock_tuples_data(tuples, &count);
            CHECK((count > 0) == (status == ETSLOCK_OK));
            by_lookup += count;
            etslock_tuples_free(tuples);
        }
        cursor = new_cursor(table);
        while ((tuples = next_of(cursor)) != NULL) {
            keys--;
            etslock_tuples_data(tuples, &count);
            by_cursor += count;
            etslock_tuples_free(tuples);
        }
        etslock_cursor_free(cursor);
        CHECK(keys == 0);
        CHECK(count_of(table) == by_lookup);
        CHECK(by_cursor == by_lookup);
        CHECK_STATUS(etslock_table_clear(table), ETSLOCK_OK);
        CHECK(count_of(table) == 0);
        etslock_table_free(table);
    }
}

/* --- reads beside writes of other threads --- */

static void put_b(etslock_table *table)
{
    CHECK_STATUS(put(table, "k", "b"), ETSLOCK_OK);
}

static void put_other(etslock_table *table)
{
    CHECK_STATUS(put(table, "k", "other"), ETSLOCK_OK);
}

static void put_long(etslock_table *table)
{
    CHECK_STATUS(put(table, "k", "a-value-that-is-not-kept-in-place"), ETSLOCK_OK);
}

static void put_new_a(etslock_table *table)
{
    CHECK_STATUS(put_new(table, "k", "a"), ETSLOCK_OK);
}

static void drop_k(etslock_table *table)
{
    CHECK_STATUS(drop(table, "k"), ETSLOCK_OK);
}

static void drop_and_put_b(etslock_table *table)
{
    drop_k(table);
    put_b(table);
}

static void drop_b(etslock_table *table)
{
    CHECK_STATUS(drop_tuple(table, "k", "b"), ETSLOCK_OK);
}

static void take_k(etslock_table *table)
{
    etslock_tuples *tuples = NULL;
    CHECK_STATUS(etslock_table_take(table, "k", 1, &tuples), ETSLOCK_OK);
    etslock_tuples_free(tuples);
}

static void clear(etslock_table *table)
{
    CHECK_STATUS(etslock_table_clear(table), ETSLOCK_OK);
}

static void put_c_by_guard(etslock_table *table)
{
    etslock_guard *guard = NULL;
    CHECK_STATUS(etslock_acquire(table, "k", 1, NULL, &guard), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_insert(guard, "k", 1, "c", 1), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
}

struct change {
    int32_t type;
    void (*make)(etslock_table *table);
    const char *then; /* the values */
};

static const struct change changes[] = {
    {ETSLOCK_SET, put_b, "b"},
    {ETSLOCK_SET, put_other, "other"},
    {ETSLOCK_SET, put_long, "a-value-that-is-not-kept-in-place"},
    {ETSLOCK_SET, put_c_by_guard, "c"},
    {ETSLOCK_SET, drop_b, "a"},
    {ETSLOCK_SET, drop_k, ""},
    {ETSLOCK_SET, drop_and_put_b, "b"},
    {ETSLOCK_SET, take_k, ""},
    {ETSLOCK_SET, clear, ""},
    {ETSLOCK_BAG, put_b, "a b"},
    {ETSLOCK_BAG, put_c_by_guard, "a c"},
    {ETSLOCK_BAG, drop_k, ""},
    {ETSLOCK_DUPLICATE_BAG, put_b, "a b"},
    {ETSLOCK_DUPLICATE_BAG, drop_and_put_b, "b"},
};

struct elsewhere {
    etslock_table *table;
    void (*make)(etslock_table *table);
};

static void *make_elsewhere(void *argument)
{
    const struct elsewhere *elsewhere = argument;
    elsewhere->make(elsewhere->table);
    return NULL;
}

static void change_elsewhere(etslock_table *table, void (*make)(etslock_table *table))
{
    struct elsewhere elsewhere = {table, make};
    pthread_t thread;
    REQUIRE(pthread_create(&thread, NULL, make_elsewhere, &elsewhere) == 0);
    REQUIRE(pthread_join(thread, NULL) == 0);
}

static void reads_follow_other_threads(void)
{
    size_t i;
    CASE("a thread that reads a key all the time sees every change of another thread");
    for (i = 0; i < COUNT_OF(changes); i++) {
        const struct change *change = &changes[i];
        etslock_table *table = new_table_of(change->type);
        change_elsewhere(table, put_new_a);
        CHECK_ROW(table, "k", "a");
        CHECK_ROW(table, "k", "a");
        change_elsewhere(table, change->make);
        CHECK_ROW(table, "k", change->then);
        CHECK_ROW(table, "k", change->then);
        if (change->then[0] == '\0') {
            change_elsewhere(table, put_new_a);
            CHECK_ROW(table, "k", "a");
        }
        etslock_table_free(table);
    }
}

struct climb {
    pthread_t thread;
    etslock_table *table;
    int64_t *written; /* shared; touched with the __atomic builtins */
    int64_t top;
};

static void *climb(void *argument)
{
    struct climb *climb = argument;
    int64_t value = 0;
    while (value < climb->top) {
        CHECK_STATUS(etslock_table_update_counter(climb->table, "k", 1, 1, 0, &value), ETSLOCK_OK);
        __atomic_store_n(climb->written, value, __ATOMIC_SEQ_CST);
    }
    return NULL;
}

static void *watch_climb(void *argument)
{
    struct climb *climb = argument;
    int64_t value = 0;
    while (value < climb->top) {
        int64_t before = value;
        int64_t written = __atomic_load_n(climb->written, __ATOMIC_SEQ_CST);
        value = number_of(climb->table, "k");
        REQUIRE(value >= written && value >= before);
        if (value == before)
            sched_yield();
    }
    return NULL;
}

static void reads_never_go_back(void)
{
    struct climb climbers[HANDS];
    etslock_table *table = new_table();
    int64_t written = 0, zero;
    int i;
    CASE("reads beside a writer see what it has written, and never what was before");
    CHECK_STATUS(etslock_table_update_counter(table, "k", 1, 0, 0, &zero), ETSLOCK_OK);
    for (i = 0; i < HANDS; i++) {
        struct climb it = {0, table, &written, scaled(200000)};
        climbers[i] = it;
        REQUIRE(pthread_create(&climbers[i].thread, NULL, i == 0 ? climb : watch_climb,
                               &climbers[i]) == 0);
    }
    for (i = 0; i < HANDS; i++)
        REQUIRE(pthread_join(climbers[i].thread, NULL) == 0);
    etslock_table_free(table);
}

int main(void)
{
    size_t i;
    RUN(a_set());
    RUN(a_bag());
    RUN(a_duplicate_bag());
    RUN(inserting_new());
    RUN(taking());
    RUN(deleting());
    RUN(clearing());
    RUN(counting_up());
    RUN(bytes_of_every_kind());
    RUN(snapshots_never_change());
    RUN(large_values_are_shared());
    RUN(cursors());
    RUN(cursors_outlive_the_table());
    for (i = 0; i < COUNT_OF(types); i++)
        RUN(cursors_among_writers(types[i]));
    RUN(counters_among_threads());
    RUN(takes_among_threads());
    RUN(bags_among_threads());
    RUN(everything_among_threads());
    RUN(reads_follow_other_threads());
    RUN(reads_never_go_back());
    return check_report();
}
