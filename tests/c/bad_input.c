/* bad_input.c - NULL for every pointer of every function, and every other argument that a
 * function refuses: each gives its documented status, and changes nothing. Checks C-12, C-17,
 * C-18 and the section on growth at the top of the header.
 *
 * After each refusal the table is as before and nothing is locked beyond what this program locks.
 */
#include "check.h"
#include "locks.h"

#include <limits.h>
#include <stddef.h>

/* --- what must not change --- */

static etslock_table *table; /* a set of {"", "e"}, {"a", "1"} and {"b", "2"} */
static size_t locked;        /* how many locks this program holds */

static int holds(const char *key, const char *value)
{
    etslock_tuples *tuples = NULL;
    size_t count = 0;
    int right = etslock_table_lookup(table, key, strlen(key), &tuples) == ETSLOCK_OK;
    const etslock_tuple *data = etslock_tuples_data(tuples, &count);
    right = right && count == 1 && data->value_len == strlen(value) &&
            memcmp(data->value, value, data->value_len) == 0;
    etslock_tuples_free(tuples);
    return right;
}

static void check_unchanged(int line)
{
    etslock_locks *locks = NULL;
    etslock_stats stats;
    size_t count = 0;
    etslock_status status = etslock_table_count(table, &count);
    check_that(status == ETSLOCK_OK && count == 3, __FILE__, line, "the table has its 3 tuples");
    check_that(holds("", "e") && holds("a", "1") && holds("b", "2"), __FILE__, line,
               "the table is as before");
    status = etslock_lock_table_locks(NULL, NULL, &locks);
    check_that(status == ETSLOCK_OK && etslock_locks_count(locks) == locked, __FILE__, line,
               "nothing is locked");
    etslock_locks_free(locks);
    etslock_stats_init(&stats, sizeof stats);
    status = etslock_lock_table_stats(NULL, &stats);
    check_that(status == ETSLOCK_OK && stats.held == locked && stats.waiting == 0, __FILE__, line,
               "nobody holds or waits");
}

/* One call that is refused; if two arguments are wrong, either status will do. */
static void check_refused(etslock_status got, etslock_status wanted, etslock_status or_this,
                          const char *what, int line)
{
    check_status(got, got == or_this ? or_this : wanted, __FILE__, line, what);
    check_unchanged(line);
}

#define REFUSED(call, wanted) check_refused((call), (wanted), (wanted), #call, __LINE__)
#define REFUSED_2(call, one, other) check_refused((call), (one), (other), #call, __LINE__)

/* What a handle output holds before a call that must set it to NULL. */
static char garbage_place;
#define GARBAGE ((void *)&garbage_place)

/* Lengths past PTRDIFF_MAX, and lengths of which no memory can be had. */
static const size_t too_long[] = {(size_t)PTRDIFF_MAX + 1, SIZE_MAX - 7, SIZE_MAX};
static const size_t too_big[] = {PTRDIFF_MAX, PTRDIFF_MAX - 1, PTRDIFF_MAX - 4096,
                                 PTRDIFF_MAX / 2};

struct bad_length {
    size_t len;
    etslock_status wanted;
};

enum { BAD_LENGTHS = COUNT_OF(too_long) + COUNT_OF(too_big) };

static struct bad_length bad_length(size_t index)
{
    struct bad_length bad;
    if (index < COUNT_OF(too_long)) {
        bad.len = too_long[index];
        bad.wanted = ETSLOCK_ERR_INVALID;
    } else {
        bad.len = too_big[index - COUNT_OF(too_long)];
        bad.wanted = ETSLOCK_ERR_NO_MEMORY;
    }
    return bad;
}

/* --- tables --- */

static void null_for_tables(void)
{
    etslock_table_options options;
    etslock_table *made = GARBAGE;
    etslock_tuples *tuples;
    etslock_cursor *cursor;
    int64_t value = -7;
    size_t count = 77;

    CASE("NULL: making, opening and freeing tables");
    etslock_table_options_init(NULL, 0);
    etslock_table_options_init(NULL, sizeof options);
    etslock_table_options_init(&options, sizeof options);
    REFUSED(etslock_table_new(NULL, NULL), ETSLOCK_ERR_NULL);
    REFUSED(etslock_table_new(&options, NULL), ETSLOCK_ERR_NULL);
    REFUSED(etslock_table_open(NULL, &made), ETSLOCK_ERR_NULL);
    CHECK(made == NULL);
    REFUSED_2(etslock_table_open("bad_input: no such table", NULL), ETSLOCK_ERR_NULL,
              ETSLOCK_NOT_FOUND);
    REFUSED(etslock_table_open(NULL, NULL), ETSLOCK_ERR_NULL);
    options.name = "bad_input: not made";
    REFUSED(etslock_table_new(&options, NULL), ETSLOCK_ERR_NULL);
    made = GARBAGE;
    REFUSED(etslock_table_open("bad_input: not made", &made), ETSLOCK_NOT_FOUND);
    CHECK(made == NULL);
    etslock_table_free(NULL);

    CASE("NULL: writing");
    REFUSED(etslock_table_insert(NULL, "a", 1, "x", 1), ETSLOCK_ERR_NULL);
    REFUSED(etslock_table_insert(table, NULL, 1, "x", 1), ETSLOCK_ERR_NULL);
    REFUSED(etslock_table_insert(table, "a", 1, NULL, 1), ETSLOCK_ERR_NULL);
    REFUSED(etslock_table_insert_new(NULL, "n", 1, "x", 1), ETSLOCK_ERR_NULL);
    REFUSED(etslock_table_insert_new(table, NULL, 1, "x", 1), ETSLOCK_ERR_NULL);
    REFUSED(etslock_table_insert_new(table, "n", 1, NULL, 1), ETSLOCK_ERR_NULL);
    REFUSED(etslock_table_delete(NULL, "a", 1), ETSLOCK_ERR_NULL);
    REFUSED(etslock_table_delete(table, NULL, 1), ETSLOCK_ERR_NULL);
    REFUSED(etslock_table_delete_tuple(NULL, "a", 1, "1", 1), ETSLOCK_ERR_NULL);
    REFUSED(etslock_table_delete_tuple(table, NULL, 1, "1", 1), ETSLOCK_ERR_NULL);
    REFUSED(etslock_table_delete_tuple(table, "a", 1, NULL, 1), ETSLOCK_ERR_NULL);
    REFUSED(etslock_table_clear(NULL), ETSLOCK_ERR_NULL);
    tuples = GARBAGE;
    REFUSED(etslock_table_take(NULL, "a", 1, &tuples), ETSLOCK_ERR_NULL);
    CHECK(tuples == NULL);
    tuples = GARBAGE;
    REFUSED(etslock_table_take(table, NULL, 1, &tuples), ETSLOCK_ERR_NULL);
    CHECK(tuples == NULL);
    REFUSED(etslock_table_take(table, "a", 1, NULL), ETSLOCK_ERR_NULL);
    REFUSED_2(etslock_table_take(table, "absent", 6, NULL), ETSLOCK_ERR_NULL, ETSLOCK_NOT_FOUND);
    REFUSED(etslock_table_update_counter(NULL, "n", 1, 1, 0, &value), ETSLOCK_ERR_NULL);
    REFUSED(etslock_table_update_counter(table, NULL, 1, 1, 0, &value), ETSLOCK_ERR_NULL);
    REFUSED(etslock_table_update_counter(table, "n", 1, 1, 0, NULL), ETSLOCK_ERR_NULL);
    CHECK(value == -7);

    CASE("NULL: reading");
    REFUSED(etslock_table_member(NULL, "a", 1), ETSLOCK_ERR_NULL);
    REFUSED(etslock_table_member(table, NULL, 1), ETSLOCK_ERR_NULL);
    tuples = GARBAGE;
    REFUSED(etslock_table_lookup(NULL, "a", 1, &tuples), ETSLOCK_ERR_NULL);
    CHECK(tuples == NULL);
    tuples = GARBAGE;
    REFUSED(etslock_table_lookup(table, NULL, 1, &tuples), ETSLOCK_ERR_NULL);
    CHECK(tuples == NULL);
    REFUSED(etslock_table_lookup(table, "a", 1, NULL), ETSLOCK_ERR_NULL);
    REFUSED(etslock_table_count(NULL, &count), ETSLOCK_ERR_NULL);
    CHECK(count == 77);
    REFUSED(etslock_table_count(table, NULL), ETSLOCK_ERR_NULL);
    cursor = GARBAGE;
    REFUSED(etslock_table_cursor(NULL, &cursor), ETSLOCK_ERR_NULL);
    CHECK(cursor == NULL);
    REFUSED(etslock_table_cursor(table, NULL), ETSLOCK_ERR_NULL);
    tuples = GARBAGE;
    REFUSED(etslock_cursor_next(NULL, &tuples), ETSLOCK_ERR_NULL);
    CHECK(tuples == NULL);
    CHECK_STATUS(etslock_table_cursor(table, &cursor), ETSLOCK_OK);
    REFUSED(etslock_cursor_next(cursor, NULL), ETSLOCK_ERR_NULL);
    etslock_cursor_free(cursor);
    etslock_cursor_free(NULL);

    CASE("NULL: snapshots of tuples");
    CHECK(etslock_tuples_data(NULL, NULL) == NULL);
    CHECK(etslock_tuples_data(NULL, &count) == NULL && count == 0);
    CHECK_STATUS(etslock_table_lookup(table, "a", 1, &tuples), ETSLOCK_OK);
    CHECK(etslock_tuples_data(tuples, NULL) != NULL);
    etslock_tuples_free(tuples);
    etslock_tuples_free(NULL);

    CASE("NULL: a call that was refused for its output did not move the cursor");
    CHECK_STATUS(etslock_table_cursor(table, &cursor), ETSLOCK_OK);
    for (count = 0; count < 3; count++) {
        REFUSED(etslock_cursor_next(cursor, NULL), ETSLOCK_ERR_NULL);
        CHECK_STATUS(etslock_cursor_next(cursor, &tuples), ETSLOCK_OK);
        etslock_tuples_free(tuples);
    }
    CHECK_STATUS(etslock_cursor_next(cursor, &tuples), ETSLOCK_NOT_FOUND);
    etslock_cursor_free(cursor);
}

static void empty_keys_may_be_null(void)
{
    etslock_table *other = NULL;
    etslock_tuples *tuples = NULL;
    etslock_guard *guard = NULL;
    etslock_key none = {NULL, 0};
    int64_t value = 0;
    CASE("NULL: a key or value of no bytes may be NULL");
    CHECK_STATUS(etslock_table_new(NULL, &other), ETSLOCK_OK);
    CHECK_STATUS(etslock_table_insert(other, NULL, 0, NULL, 0), ETSLOCK_OK);
    CHECK_STATUS(etslock_table_insert_new(other, NULL, 0, NULL, 0), ETSLOCK_EXISTS);
    CHECK_STATUS(etslock_table_lookup(other, NULL, 0, &tuples), ETSLOCK_OK);
    etslock_tuples_free(tuples);
    CHECK_STATUS(etslock_table_member(other, "", 0), ETSLOCK_OK);
    CHECK_STATUS(etslock_table_delete_tuple(other, NULL, 0, NULL, 0), ETSLOCK_OK);
    CHECK_STATUS(etslock_table_member(other, NULL, 0), ETSLOCK_NOT_FOUND);
    CHECK_STATUS(etslock_table_insert(other, "", 0, "", 0), ETSLOCK_OK);
    CHECK_STATUS(etslock_table_take(other, NULL, 0, &tuples), ETSLOCK_OK);
    etslock_tuples_free(tuples);
    CHECK_STATUS(etslock_table_update_counter(other, NULL, 0, 1, 1, &value), ETSLOCK_OK);
    CHECK(value == 2);
    CHECK_STATUS(etslock_table_delete(other, NULL, 0), ETSLOCK_OK);

    CHECK_STATUS(etslock_acquire(other, NULL, 0, NULL, &guard), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_insert(guard, NULL, 0, NULL, 0), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_lookup(guard, NULL, 0, &tuples), ETSLOCK_OK);
    etslock_tuples_free(tuples);
    CHECK_STATUS(etslock_guard_delete_tuple(guard, NULL, 0, NULL, 0), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_delete(guard, NULL, 0), ETSLOCK_OK);
    CHECK_STATUS(etslock_lock_table_force_release(NULL, other, NULL, 0), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_REVOKED);
    CHECK_STATUS(etslock_acquire_locks(other, &none, 1, NULL, &guard), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    etslock_table_free(other);
    check_unchanged(__LINE__);
}

static void lengths_for_tables(void)
{
    etslock_tuples *tuples;
    int64_t value = -7;
    size_t i;
    CASE("C-17: lengths past PTRDIFF_MAX, and lengths of which no memory can be had");
    for (i = 0; i < BAD_LENGTHS; i++) {
        const struct bad_length bad = bad_length(i);
        REFUSED(etslock_table_insert(table, "a", bad.len, "x", 1), bad.wanted);
        REFUSED(etslock_table_insert(table, "a", 1, "x", bad.len), bad.wanted);
        REFUSED(etslock_table_insert_new(table, "n", bad.len, "x", 1), bad.wanted);
        REFUSED(etslock_table_insert_new(table, "n", 1, "x", bad.len), bad.wanted);
        REFUSED(etslock_table_delete(table, "a", bad.len), bad.wanted);
        REFUSED(etslock_table_delete_tuple(table, "a", bad.len, "1", 1), bad.wanted);
        REFUSED(etslock_table_delete_tuple(table, "a", 1, "1", bad.len), bad.wanted);
        REFUSED(etslock_table_member(table, "a", bad.len), bad.wanted);
        REFUSED(etslock_table_update_counter(table, "a", bad.len, 1, 0, &value), bad.wanted);
        CHECK(value == -7);
        tuples = GARBAGE;
        REFUSED(etslock_table_lookup(table, "a", bad.len, &tuples), bad.wanted);
        CHECK(tuples == NULL);
        tuples = GARBAGE;
        REFUSED(etslock_table_take(table, "a", bad.len, &tuples), bad.wanted);
        CHECK(tuples == NULL);
        REFUSED(etslock_lock_table_force_release(NULL, table, "a", bad.len), bad.wanted);
    }

    CASE("C-17: NULL with such a length");
    REFUSED_2(etslock_table_insert(table, NULL, SIZE_MAX, "x", 1), ETSLOCK_ERR_NULL,
              ETSLOCK_ERR_INVALID);
    REFUSED_2(etslock_table_insert(table, "a", 1, NULL, SIZE_MAX), ETSLOCK_ERR_NULL,
              ETSLOCK_ERR_INVALID);
}

static const int32_t odd_numbers[] = {-1, 4, 255, INT32_MAX, INT32_MIN};

static void options_for_tables(void)
{
    etslock_table_options options;
    etslock_table *made;
    size_t i;
    CASE("table options: type, access and reserved out of range");
    for (i = 0; i < COUNT_OF(odd_numbers); i++) {
        etslock_table_options_init(&options, sizeof options);
        options.type = odd_numbers[i];
        made = GARBAGE;
        REFUSED(etslock_table_new(&options, &made), ETSLOCK_ERR_INVALID);
        CHECK(made == NULL);
        etslock_table_options_init(&options, sizeof options);
        options.access = odd_numbers[i];
        made = GARBAGE;
        REFUSED(etslock_table_new(&options, &made), ETSLOCK_ERR_INVALID);
        CHECK(made == NULL);
        etslock_table_options_init(&options, sizeof options);
        options.reserved = (uint32_t)odd_numbers[i];
        made = GARBAGE;
        REFUSED(etslock_table_new(&options, &made), ETSLOCK_ERR_INVALID);
        CHECK(made == NULL);
    }
    etslock_table_options_init(&options, sizeof options);
    options.type = ETSLOCK_DUPLICATE_BAG + 1;
    REFUSED(etslock_table_new(&options, &made), ETSLOCK_ERR_INVALID);
    etslock_table_options_init(&options, sizeof options);
    options.access = ETSLOCK_GUARDED + 1;
    REFUSED(etslock_table_new(&options, &made), ETSLOCK_ERR_INVALID);

    CASE("table options: refused options leave their name free");
    options.name = "bad_input: refused";
    REFUSED(etslock_table_new(&options, &made), ETSLOCK_ERR_INVALID);
    REFUSED(etslock_table_open(options.name, &made), ETSLOCK_NOT_FOUND);
}

/* Refused by new and open alike. */
static void check_bad_name(const char *name)
{
    etslock_table_options options;
    etslock_table *made = GARBAGE;
    etslock_table_options_init(&options, sizeof options);
    options.name = name;
    REFUSED(etslock_table_new(&options, &made), ETSLOCK_ERR_INVALID);
    CHECK(made == NULL);
    made = GARBAGE;
    REFUSED(etslock_table_open(name, &made), ETSLOCK_ERR_INVALID);
    CHECK(made == NULL);
}

static void check_good_name(const char *name)
{
    etslock_table_options options;
    etslock_table *made = NULL, *opened = NULL;
    etslock_table_options_init(&options, sizeof options);
    options.name = name;
    CHECK_STATUS(etslock_table_new(&options, &made), ETSLOCK_OK);
    CHECK_STATUS(etslock_table_open(name, &opened), ETSLOCK_OK);
    etslock_table_free(made);
    etslock_table_free(opened);
}

static void names(void)
{
    static const char *const broken[] = {
        "\xff", "\x80", "a\xc3", "\xc3(", "\xc0\x80",  "\xe2\x82",
        "\xed\xa0\x80",                     /* half of a surrogate pair */
        "\xf4\x90\x80\x80",                 /* past U+10FFFF */
        "a name that ends in \xf0\x9f\x94", /* cut in the middle of a character */
    };
    char name[300];
    size_t i;
    CASE("names: 1 to 255 bytes");
    check_bad_name("");
    check_good_name("n");
    memset(name, 'n', sizeof name);
    name[255] = '\0';
    check_good_name(name);
    name[255] = 'n';
    name[256] = '\0';
    check_bad_name(name);
    name[256] = 'n';
    name[sizeof name - 1] = '\0';
    check_bad_name(name);

    CASE("names: bytes are counted, not characters");
    for (i = 0; i < 256; i += 2)
        memcpy(name + i, "\xc3\xa9", 2);
    name[254] = '\0';
    check_good_name(name);
    name[254] = '\xc3';
    name[256] = '\0';
    check_bad_name(name);

    CASE("names: UTF-8");
    for (i = 0; i < COUNT_OF(broken); i++)
        check_bad_name(broken[i]);
    check_good_name("\xf0\x9f\x94\x92 \xe2\x82\xac");
}

/* --- struct sizes --- */

/* A struct of `size` bytes alone on the heap, so that tools find a read or write past its end. */
static void *sized_copy(const void *known, size_t known_size, size_t size)
{
    uint32_t struct_size = (uint32_t)size;
    size_t room = size < sizeof struct_size ? sizeof struct_size : size;
    unsigned char *copy = calloc(1, room);
    REQUIRE(copy != NULL);
    memcpy(copy, known, room < known_size ? room : known_size);
    memcpy(copy, &struct_size, sizeof struct_size);
    return copy;
}

static const size_t tails[] = {1, 4, 8, 4000};

static void sizes_of_table_options(void)
{
    etslock_table_options options;
    unsigned char *copy;
    etslock_table *made;
    size_t i;
    etslock_table_options_init(&options, sizeof options);
    CASE("struct_size: table options that are too small");
    for (i = 0; i < sizeof options; i++) {
        copy = sized_copy(&options, sizeof options, i);
        made = GARBAGE;
        REFUSED(etslock_table_new((void *)copy, &made), ETSLOCK_ERR_STRUCT_SIZE);
        CHECK(made == NULL);
        free(copy);
    }
    CASE("struct_size: table options with a tail");
    options.type = ETSLOCK_BAG;
    for (i = 0; i < COUNT_OF(tails); i++) {
        size_t size = sizeof options + tails[i];
        copy = sized_copy(&options, sizeof options, size);
        CHECK_STATUS(etslock_table_new((void *)copy, &made), ETSLOCK_OK);
        CHECK_STATUS(etslock_table_insert(made, "k", 1, "a", 1), ETSLOCK_OK);
        etslock_table_free(made);
        copy[size - 1] = 1;
        made = GARBAGE;
        REFUSED(etslock_table_new((void *)copy, &made), ETSLOCK_ERR_STRUCT_SIZE);
        CHECK(made == NULL);
        copy[size - 1] = 0;
        copy[sizeof options] = 0x80;
        REFUSED(etslock_table_new((void *)copy, &made), ETSLOCK_ERR_STRUCT_SIZE);
        free(copy);
    }
}

/* Writes `size` bytes and no more: struct_size, defaults, and zeros behind what is known. */
static void check_init(void (*init)(void *, size_t), const void *defaults, size_t known_size)
{
    unsigned char bytes[512];
    size_t size, i;
    uint32_t struct_size;
    for (size = 0; size < known_size + 64; size++) {
        int right = 1;
        memset(bytes, 0x5a, sizeof bytes);
        init(bytes, size);
        memcpy(&struct_size, bytes, sizeof struct_size);
        CHECK(size < sizeof struct_size ? struct_size == 0x5a5a5a5a : struct_size == size);
        for (i = sizeof struct_size; i < sizeof bytes; i++) {
            unsigned char wanted = i < known_size ? ((const unsigned char *)defaults)[i] : 0;
            if (size < sizeof struct_size || i >= size)
                wanted = 0x5a;
            right &= bytes[i] == wanted;
        }
        CHECK(right);
    }
}

static void init_table_options(void *place, size_t size)
{
    etslock_table_options_init(place, size);
}

static void init_options(void *place, size_t size)
{
    etslock_options_init(place, size);
}

static void init_stats(void *place, size_t size)
{
    etslock_stats_init(place, size);
}

static void inits(void)
{
    etslock_table_options table_options;
    etslock_options options;
    etslock_stats stats;
    CASE("init: writes the defaults, in the room that it is given");
    memset(&table_options, 0, sizeof table_options);
    check_init(init_table_options, &table_options, sizeof table_options);
    memset(&options, 0, sizeof options);
    options.wait_timeout_ms = 5000;
    options.exec_timeout_ms = 5000;
    options.fail_timeout_ms = 1000;
    options.spin_delay_ms = 2;
    check_init(init_options, &options, sizeof options);
    memset(&stats, 0, sizeof stats);
    check_init(init_stats, &stats, sizeof stats);

    CASE("NULL: init does nothing");
    etslock_options_init(NULL, 0);
    etslock_options_init(NULL, sizeof options);
    etslock_stats_init(NULL, 0);
    etslock_stats_init(NULL, sizeof stats);
}

/* --- lock calls --- */

enum lock_call { WITH_LOCK, WITH_LOCKS, ACQUIRE, ACQUIRE_LOCKS, LOCK_CALLS };

static char user_data;
static int freed; /* how often user_data was */

static void count_free(void *data)
{
    CHECK(data == &user_data);
    __atomic_fetch_add(&freed, 1, __ATOMIC_RELAXED);
}

static int32_t take_user_data(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                          void *data)
{
    (void)guard, (void)tuples, (void)tuple_count;
    CHECK(data == &user_data);
    return 0;
}

struct request {
    etslock_table *table;
    const etslock_key *keys;
    size_t key_count;
    etslock_callback callback;
    const void *options; /* an etslock_options, of whatever size */
};

static etslock_options freeing_options(void)
{
    etslock_options options;
    etslock_options_init(&options, sizeof options);
    options.user_data_free = count_free;
    return options;
}

/* A request that is fine, for the caller to spoil. */
static struct request fine(const etslock_options *options)
{
    static const etslock_key keys[] = {{"a", 1}, {"b", 1}, {"c", 1}};
    struct request request = {NULL, keys, 3, must_not_run, NULL};
    request.table = table;
    request.options = options;
    return request;
}

/* The calls for one key take the first one. */
static etslock_status try_call(enum lock_call call, const struct request *request,
                               etslock_result *result, etslock_guard **guard)
{
    const void *key = request->keys == NULL ? NULL : request->keys[0].key;
    size_t key_len = request->keys == NULL ? 0 : request->keys[0].key_len;
    switch (call) {
    case WITH_LOCK:
        return etslock_with_lock(request->table, key, key_len, request->callback, &user_data,
                                 request->options, result);
    case WITH_LOCKS:
        return etslock_with_locks(request->table, request->keys, request->key_count,
                                  request->callback, &user_data, request->options, result);
    case ACQUIRE:
        return etslock_acquire(request->table, key, key_len, request->options, guard);
    default:
        return etslock_acquire_locks(request->table, request->keys, request->key_count,
                                     request->options, guard);
    }
}

static int has_callback(enum lock_call call)
{
    return call == WITH_LOCK || call == WITH_LOCKS;
}

/* Refused with and without a place for the answer, which is emptied; and the user data freed
 * once, unless struct_size is wrong or the call takes none. */
static void check_call(enum lock_call call, const struct request *request, etslock_status wanted,
                       int line)
{
    int with_place;
    for (with_place = 0; with_place < 2; with_place++) {
        etslock_result result = {-1, 77, (uint8_t *)&garbage_place, 5};
        etslock_guard *guard = GARBAGE;
        int place_matters = !with_place && !has_callback(call);
        int frees = has_callback(call) && request->options != NULL;
        etslock_status status;
        __atomic_store_n(&freed, 0, __ATOMIC_RELAXED);
        status = try_call(call, request, with_place ? &result : NULL, with_place ? &guard : NULL);
        check_refused(status, wanted, place_matters ? ETSLOCK_ERR_NULL : wanted, "lock call",
                      line);
        if (status == ETSLOCK_ERR_STRUCT_SIZE)
            frees = 0;
        check_that(__atomic_load_n(&freed, __ATOMIC_RELAXED) == frees, __FILE__, line,
                   "the user data is freed once");
        if (with_place && has_callback(call))
            check_that(result.code == 0 && result.reserved == 0 && result.data == NULL &&
                           result.data_len == 0,
                       __FILE__, line, "the result is empty");
        if (with_place && !has_callback(call))
            check_that(guard == NULL, __FILE__, line, "the guard is NULL");
    }
}

#define CALL_REFUSED(call, request, wanted) check_call((call), (request), (wanted), __LINE__)

static void check_accepted(enum lock_call call, const void *options, int line)
{
    struct request request = fine(NULL);
    etslock_result result;
    etslock_guard *guard = NULL;
    request.options = options;
    request.callback = take_user_data;
    __atomic_store_n(&freed, 0, __ATOMIC_RELAXED);
    check_status(try_call(call, &request, &result, &guard), ETSLOCK_OK, __FILE__, line, "accepted");
    if (has_callback(call)) {
        etslock_result_free(&result);
    } else {
        check_that(guard != NULL, __FILE__, line, "a guard");
        check_status(etslock_guard_cancel(guard), ETSLOCK_OK, __FILE__, line, "cancel");
    }
    check_that(__atomic_load_n(&freed, __ATOMIC_RELAXED) == has_callback(call), __FILE__, line,
               "the user data is freed once");
    check_unchanged(line);
}

#define CALL_ACCEPTED(call, options) check_accepted((call), (options), __LINE__)

static void null_for_lock_calls(void)
{
    etslock_options options = freeing_options();
    etslock_result result;
    etslock_guard *guard = NULL;
    int call;
    size_t i;
    CASE("C-12: NULL for each pointer of a lock call");
    for (call = 0; call < LOCK_CALLS; call++) {
        struct request request = fine(&options);
        CALL_ACCEPTED(call, &options);
        request.table = NULL;
        CALL_REFUSED(call, &request, ETSLOCK_ERR_NULL);
        if (has_callback(call)) {
            request = fine(&options);
            request.callback = NULL;
            CALL_REFUSED(call, &request, ETSLOCK_ERR_NULL);
        }
        for (i = 0; i < 3; i++) {
            etslock_key keys[] = {{"a", 1}, {"b", 1}, {"c", 1}};
            request = fine(&options);
            request.keys = keys;
            keys[i].key = NULL;
            if (i == 0 || call == WITH_LOCKS || call == ACQUIRE_LOCKS)
                CALL_REFUSED(call, &request, ETSLOCK_ERR_NULL);
        }
        if (call == WITH_LOCKS || call == ACQUIRE_LOCKS) {
            request = fine(&options);
            request.keys = NULL;
            CALL_REFUSED(call, &request, ETSLOCK_ERR_NULL);
        }
        /* Without options nothing is freed. */
        request = fine(NULL);
        request.table = NULL;
        CALL_REFUSED(call, &request, ETSLOCK_ERR_NULL);
    }
    REFUSED(etslock_acquire(table, "a", 1, &options, NULL), ETSLOCK_ERR_NULL);
    REFUSED(etslock_acquire_locks(table, fine(NULL).keys, 3, &options, NULL), ETSLOCK_ERR_NULL);

    CASE("NULL: the options, the result and the user data may be NULL");
    CHECK_STATUS(etslock_acquire(table, "a", 1, NULL, &guard), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_cancel(guard), ETSLOCK_OK);
    CHECK_STATUS(etslock_with_lock(table, "a", 1, take_user_data, &user_data, NULL, NULL),
                 ETSLOCK_OK);
    CHECK_STATUS(etslock_with_locks(table, fine(NULL).keys, 3, take_user_data, &user_data, NULL,
                                    NULL),
                 ETSLOCK_OK);

    CASE("NULL: results");
    etslock_result_free(NULL);
    memset(&result, 0, sizeof result);
    etslock_result_free(&result);
    etslock_result_free(&result);
    CHECK(result.data == NULL && result.data_len == 0);
    check_unchanged(__LINE__);
}

static void lengths_for_lock_calls(void)
{
    etslock_options options = freeing_options();
    int call;
    size_t i, j;
    CASE("C-12, C-17: keys of lengths past PTRDIFF_MAX, and of which no memory can be had");
    for (call = 0; call < LOCK_CALLS; call++) {
        size_t places = call == WITH_LOCKS || call == ACQUIRE_LOCKS ? 3 : 1;
        for (i = 0; i < BAD_LENGTHS; i++) {
            const struct bad_length bad = bad_length(i);
            for (j = 0; j < places; j++) {
                etslock_key keys[] = {{"a", 1}, {"b", 1}, {"c", 1}};
                struct request request = fine(&options);
                request.keys = keys;
                keys[j].key_len = bad.len;
                CALL_REFUSED(call, &request, bad.wanted);
            }
        }
    }
}

static void numbers_of_keys(void)
{
    enum { TOO_MANY = ETSLOCK_MAX_KEYS + 1 };
    static const size_t beyond[] = {TOO_MANY, 1000000, PTRDIFF_MAX / sizeof(etslock_key),
                                    PTRDIFF_MAX / sizeof(etslock_key) + 1,
                                    SIZE_MAX / sizeof(etslock_key) + 2, SIZE_MAX};
    etslock_options options = freeing_options();
    etslock_key *keys = malloc(TOO_MANY * sizeof *keys);
    int call;
    size_t i;
    REQUIRE(keys != NULL);
    for (i = 0; i < TOO_MANY; i++) {
        keys[i].key = "a";
        keys[i].key_len = 1;
    }
    CASE("C-18: no key, and more than ETSLOCK_MAX_KEYS, even if all are the same one");
    for (call = WITH_LOCKS; call < LOCK_CALLS; call += ACQUIRE_LOCKS - WITH_LOCKS) {
        struct request request = fine(&options);
        request.keys = keys;
        request.key_count = 0;
        CALL_REFUSED(call, &request, ETSLOCK_ERR_INVALID);
        for (i = 0; i < COUNT_OF(beyond); i++) {
            request.key_count = beyond[i];
            CALL_REFUSED(call, &request, ETSLOCK_ERR_INVALID);
        }
    }
    free(keys);
    REFUSED_2(etslock_with_locks(table, NULL, 0, must_not_run, NULL, NULL, NULL),
              ETSLOCK_ERR_INVALID, ETSLOCK_ERR_NULL);
    REFUSED_2(etslock_with_locks(table, NULL, SIZE_MAX, must_not_run, NULL, NULL, NULL),
              ETSLOCK_ERR_INVALID, ETSLOCK_ERR_NULL);
}

static void options_for_lock_calls(void)
{
#define FIELD(name) #name, offsetof(etslock_options, name)
    static const struct {
        const char *what;
        size_t offset;
        size_t size;
        int64_t value;
    } bad[] = {
        {FIELD(reserved), 4, 1},
        {FIELD(reserved), 4, -1},
        {FIELD(run_on), 4, ETSLOCK_RUN_ON_CALLER + 1},
        {FIELD(run_on), 4, -1},
        {FIELD(run_on), 4, INT32_MAX},
        {FIELD(queue), 4, ETSLOCK_QUEUE_POLLING + 1},
        {FIELD(queue), 4, -1},
        {FIELD(queue), 4, INT32_MIN},
        {FIELD(on_exec_timeout), 4, ETSLOCK_KILL + 1},
        {FIELD(on_exec_timeout), 4, -1},
        {FIELD(on_exec_timeout), 4, INT32_MAX},
        {FIELD(wait_timeout_ms), 8, -2},
        {FIELD(wait_timeout_ms), 8, INT64_MIN},
        {FIELD(exec_timeout_ms), 8, -2},
        {FIELD(exec_timeout_ms), 8, INT64_MIN},
        {FIELD(fail_timeout_ms), 8, -2},
        {FIELD(fail_timeout_ms), 8, INT64_MIN},
        {FIELD(spin_delay_ms), 8, ETSLOCK_INFINITE},
        {FIELD(spin_delay_ms), 8, -2},
        {FIELD(spin_delay_ms), 8, INT64_MIN},
    };
#undef FIELD
    etslock_options options;
    struct request request;
    int call;
    size_t i;
    for (i = 0; i < COUNT_OF(bad); i++) {
        CASE(bad[i].what);
        for (call = 0; call < LOCK_CALLS; call++) {
            int32_t narrow = (int32_t)bad[i].value;
            options = freeing_options();
            if (bad[i].size == sizeof narrow)
                memcpy((char *)&options + bad[i].offset, &narrow, sizeof narrow);
            else
                memcpy((char *)&options + bad[i].offset, &bad[i].value, sizeof bad[i].value);
            request = fine(&options);
            CALL_REFUSED(call, &request, ETSLOCK_ERR_INVALID);
        }
    }

    CASE("C-11: ETSLOCK_KILL on the caller's thread");
    options = freeing_options();
    options.run_on = ETSLOCK_RUN_ON_CALLER;
    options.on_exec_timeout = ETSLOCK_KILL;
    request = fine(&options);
    CALL_REFUSED(WITH_LOCK, &request, ETSLOCK_ERR_INVALID);
    CALL_REFUSED(WITH_LOCKS, &request, ETSLOCK_ERR_INVALID);

    CASE("options: the largest times, and no times, are fine");
    for (call = 0; call < LOCK_CALLS; call++) {
        options = freeing_options();
        options.wait_timeout_ms = INT64_MAX;
        options.exec_timeout_ms = INT64_MAX;
        options.fail_timeout_ms = INT64_MAX;
        options.spin_delay_ms = INT64_MAX;
        CALL_ACCEPTED(call, &options);
        options.wait_timeout_ms = 0;
        options.exec_timeout_ms = ETSLOCK_INFINITE;
        options.fail_timeout_ms = 0;
        options.spin_delay_ms = 0;
        CALL_ACCEPTED(call, &options);
        options.wait_timeout_ms = ETSLOCK_INFINITE;
        options.fail_timeout_ms = ETSLOCK_INFINITE;
        options.owner = ETSLOCK_OWNER_NONE;
        options.queue = ETSLOCK_QUEUE_POLLING;
        CALL_ACCEPTED(call, &options);
    }
}

/* The size of etslock_options in 0.1. */
enum { FIRST_OPTIONS = offsetof(etslock_options, stop) };

static void sizes_of_options(void)
{
    etslock_options options = freeing_options();
    struct request request;
    unsigned char *copy;
    int call;
    size_t i;
    for (call = 0; call < LOCK_CALLS; call++) {
        CASE("C-12, struct_size: options that are too small; the user data stays the caller's");
        for (i = 0; i < FIRST_OPTIONS; i++) {
            copy = sized_copy(&options, sizeof options, i);
            request = fine((void *)copy);
            CALL_REFUSED(call, &request, ETSLOCK_ERR_STRUCT_SIZE);
            free(copy);
        }
        CASE("struct_size: options as the first release had them");
        copy = sized_copy(&options, sizeof options, FIRST_OPTIONS);
        CALL_ACCEPTED(call, copy);
        free(copy);
        CASE("C-12, struct_size: options with a tail");
        for (i = 0; i < COUNT_OF(tails); i++) {
            size_t size = sizeof options + tails[i];
            copy = sized_copy(&options, sizeof options, size);
            CALL_ACCEPTED(call, copy);
            request = fine((void *)copy);
            copy[size - 1] = 1;
            CALL_REFUSED(call, &request, ETSLOCK_ERR_STRUCT_SIZE);
            copy[size - 1] = 0;
            copy[sizeof options] = 0x80;
            CALL_REFUSED(call, &request, ETSLOCK_ERR_STRUCT_SIZE);
            free(copy);
        }
    }

    CASE("C-12: whatever else is wrong, the status tells whose the user data is");
    for (i = 0; i < 2; i++) {
        etslock_status status;
        if (i == 1)
            options.reserved = 1;
        copy = sized_copy(&options, sizeof options, sizeof options - 1 + i);
        __atomic_store_n(&freed, 0, __ATOMIC_RELAXED);
        status = etslock_with_lock(NULL, NULL, SIZE_MAX, NULL, &user_data, (void *)copy, NULL);
        CHECK(status == ETSLOCK_ERR_NULL || status == ETSLOCK_ERR_INVALID ||
              (i == 0 && status == ETSLOCK_ERR_STRUCT_SIZE));
        CHECK(__atomic_load_n(&freed, __ATOMIC_RELAXED) == (status != ETSLOCK_ERR_STRUCT_SIZE));
        check_unchanged(__LINE__);
        free(copy);
    }
}

/* --- guards --- */

static void null_for_guards(void)
{
    etslock_tuples *tuples = GARBAGE;
    CASE("NULL: a guard");
    REFUSED(etslock_guard_lookup(NULL, "a", 1, &tuples), ETSLOCK_ERR_NULL);
    CHECK(tuples == NULL);
    REFUSED(etslock_guard_lookup(NULL, "a", 1, NULL), ETSLOCK_ERR_NULL);
    REFUSED(etslock_guard_insert(NULL, "a", 1, "x", 1), ETSLOCK_ERR_NULL);
    REFUSED(etslock_guard_delete(NULL, "a", 1), ETSLOCK_ERR_NULL);
    REFUSED(etslock_guard_delete_tuple(NULL, "a", 1, "1", 1), ETSLOCK_ERR_NULL);
    REFUSED(etslock_guard_commit(NULL), ETSLOCK_ERR_NULL);
    REFUSED(etslock_guard_rollback(NULL), ETSLOCK_ERR_NULL);
    REFUSED(etslock_guard_release(NULL), ETSLOCK_ERR_NULL);
    REFUSED(etslock_guard_cancel(NULL), ETSLOCK_ERR_NULL);
    REFUSED(etslock_guard_set_result(NULL, "r", 1), ETSLOCK_ERR_NULL);
    REFUSED(etslock_guard_extend(NULL, 1000), ETSLOCK_ERR_NULL);
    REFUSED(etslock_guard_sleep(NULL, 0), ETSLOCK_ERR_NULL);
    REFUSED(etslock_guard_status(NULL), ETSLOCK_ERR_NULL);
    CHECK(etslock_guard_remaining_ms(NULL) == 0);
    CHECK(etslock_guard_token(NULL) == 0);
}

/* Does the guard, of key "a", show the tuple {"a", "staged"} and nothing else? */
static int shows_staged(etslock_guard *guard)
{
    etslock_tuples *tuples = NULL;
    size_t count = 0;
    int right = etslock_guard_lookup(guard, "a", 1, &tuples) == ETSLOCK_OK;
    const etslock_tuple *data = etslock_tuples_data(tuples, &count);
    right = right && count == 1 && data->value_len == 6 && memcmp(data->value, "staged", 6) == 0;
    etslock_tuples_free(tuples);
    return right;
}

/* A guard with one staged write, whose refused calls change neither guard nor table. */
#define GUARD_REFUSED(call, wanted)                                                                \
    do {                                                                                           \
        REFUSED((call), (wanted));                                                                 \
        CHECK_STATUS(etslock_guard_status(guard), ETSLOCK_OK);                                     \
        CHECK(shows_staged(guard));                                                                \
    } while (0)

/* What every guard of key "a" refuses. The table has {"a", "1"}, the guard has staged another. */
static void refusals_of_a_guard(etslock_guard *guard)
{
    static const etslock_key foreign[] = {{"b", 1}, {"", 0}, {"a\0", 2}, {"aa", 2}, {"absent", 6}};
    etslock_tuples *tuples;
    size_t i;
    int64_t remaining;
    const uint64_t token = etslock_guard_token(guard);

    CASE("NULL: the pointers of a guard's functions");
    tuples = GARBAGE;
    GUARD_REFUSED(etslock_guard_lookup(guard, NULL, 1, &tuples), ETSLOCK_ERR_NULL);
    CHECK(tuples == NULL);
    GUARD_REFUSED(etslock_guard_lookup(guard, "a", 1, NULL), ETSLOCK_ERR_NULL);
    GUARD_REFUSED(etslock_guard_insert(guard, NULL, 1, "x", 1), ETSLOCK_ERR_NULL);
    GUARD_REFUSED(etslock_guard_insert(guard, "a", 1, NULL, 1), ETSLOCK_ERR_NULL);
    GUARD_REFUSED(etslock_guard_delete(guard, NULL, 1), ETSLOCK_ERR_NULL);
    GUARD_REFUSED(etslock_guard_delete_tuple(guard, NULL, 1, "staged", 6), ETSLOCK_ERR_NULL);
    GUARD_REFUSED(etslock_guard_delete_tuple(guard, "a", 1, NULL, 6), ETSLOCK_ERR_NULL);

    CASE("C-18: keys that the guard does not cover");
    for (i = 0; i < COUNT_OF(foreign); i++) {
        const void *key = foreign[i].key;
        size_t key_len = foreign[i].key_len;
        tuples = GARBAGE;
        GUARD_REFUSED(etslock_guard_lookup(guard, key, key_len, &tuples), ETSLOCK_ERR_NOT_COVERED);
        CHECK(tuples == NULL);
        GUARD_REFUSED(etslock_guard_insert(guard, key, key_len, "x", 1), ETSLOCK_ERR_NOT_COVERED);
        GUARD_REFUSED(etslock_guard_delete(guard, key, key_len), ETSLOCK_ERR_NOT_COVERED);
        GUARD_REFUSED(etslock_guard_delete_tuple(guard, key, key_len, "1", 1),
                      ETSLOCK_ERR_NOT_COVERED);
    }

    CASE("C-17: a guard's keys and values of lengths that cannot be");
    for (i = 0; i < BAD_LENGTHS; i++) {
        const struct bad_length bad = bad_length(i);
        /* A key that long is not covered either. */
        etslock_status or_this = bad.wanted == ETSLOCK_ERR_NO_MEMORY ? ETSLOCK_ERR_NOT_COVERED
                                                                     : bad.wanted;
        tuples = GARBAGE;
        REFUSED_2(etslock_guard_lookup(guard, "a", bad.len, &tuples), bad.wanted, or_this);
        CHECK(tuples == NULL);
        REFUSED_2(etslock_guard_insert(guard, "a", bad.len, "x", 1), bad.wanted, or_this);
        REFUSED_2(etslock_guard_delete(guard, "a", bad.len), bad.wanted, or_this);
        REFUSED_2(etslock_guard_delete_tuple(guard, "a", bad.len, "staged", 6), bad.wanted,
                  or_this);
        GUARD_REFUSED(etslock_guard_insert(guard, "a", 1, "x", bad.len), bad.wanted);
        GUARD_REFUSED(etslock_guard_delete_tuple(guard, "a", 1, "staged", bad.len), bad.wanted);
    }

    CASE("negative times for a guard");
    remaining = etslock_guard_remaining_ms(guard);
    CHECK(remaining > 0);
    GUARD_REFUSED(etslock_guard_extend(guard, -2), ETSLOCK_ERR_INVALID);
    GUARD_REFUSED(etslock_guard_extend(guard, INT64_MIN), ETSLOCK_ERR_INVALID);
    GUARD_REFUSED(etslock_guard_sleep(guard, -2), ETSLOCK_ERR_INVALID);
    GUARD_REFUSED(etslock_guard_sleep(guard, INT64_MIN), ETSLOCK_ERR_INVALID);
    CHECK(etslock_guard_remaining_ms(guard) > 0);
    CHECK(etslock_guard_remaining_ms(guard) <= remaining);
    CHECK(etslock_guard_token(guard) == token);
}

/* Long enough for every machine: no guard of this file is ever late. */
enum { AMPLE_MS = 600000 };

static void restore(void)
{
    CHECK_STATUS(etslock_table_insert(table, "a", 1, "1", 1), ETSLOCK_OK);
    check_unchanged(__LINE__);
}

static void an_acquired_guard(void)
{
    etslock_options options = freeing_options();
    etslock_guard *guard = NULL;
    options.exec_timeout_ms = AMPLE_MS;
    REQUIRE(etslock_acquire(table, "a", 1, &options, &guard) == ETSLOCK_OK);
    locked = 1;
    CHECK_STATUS(etslock_guard_insert(guard, "a", 1, "staged", 6), ETSLOCK_OK);
    refusals_of_a_guard(guard);

    CASE("an acquired guard has no result to set");
    GUARD_REFUSED(etslock_guard_set_result(guard, "r", 1), ETSLOCK_ERR_INVALID);
    GUARD_REFUSED(etslock_guard_set_result(guard, NULL, 0), ETSLOCK_ERR_INVALID);
    REFUSED_2(etslock_guard_set_result(guard, NULL, 1), ETSLOCK_ERR_INVALID, ETSLOCK_ERR_NULL);
    REFUSED_2(etslock_guard_set_result(guard, "r", PTRDIFF_MAX), ETSLOCK_ERR_INVALID,
              ETSLOCK_ERR_NO_MEMORY);

    CASE("after all the refusals the guard works");
    locked = 0;
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    CHECK(holds("a", "staged"));
    restore();
}

static int32_t refuse_and_succeed(etslock_guard *guard, const etslock_tuple *tuples,
                                  size_t tuple_count, void *data)
{
    size_t i;
    (void)tuples;
    CHECK(tuple_count == 1 && data == &user_data);
    CHECK_STATUS(etslock_guard_insert(guard, "a", 1, "staged", 6), ETSLOCK_OK);
    refusals_of_a_guard(guard);

    CASE("a callback cannot end its own guard");
    GUARD_REFUSED(etslock_guard_release(guard), ETSLOCK_ERR_INVALID);
    GUARD_REFUSED(etslock_guard_cancel(guard), ETSLOCK_ERR_INVALID);

    CASE("a result that is refused leaves the one before");
    GUARD_REFUSED(etslock_guard_set_result(guard, NULL, 1), ETSLOCK_ERR_NULL);
    CHECK_STATUS(etslock_guard_set_result(guard, NULL, 0), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_set_result(guard, "result", 6), ETSLOCK_OK);
    GUARD_REFUSED(etslock_guard_set_result(guard, NULL, 1), ETSLOCK_ERR_NULL);
    for (i = 0; i < BAD_LENGTHS; i++) {
        const struct bad_length bad = bad_length(i);
        GUARD_REFUSED(etslock_guard_set_result(guard, "r", bad.len), bad.wanted);
    }
    return 0;
}

static void a_callbacks_guard(int32_t run_on)
{
    etslock_options options = freeing_options();
    etslock_result result;
    options.exec_timeout_ms = AMPLE_MS;
    options.run_on = run_on;
    __atomic_store_n(&freed, 0, __ATOMIC_RELAXED);
    locked = 1;
    CHECK_STATUS(etslock_with_lock(table, "a", 1, refuse_and_succeed, &user_data, &options,
                                   &result),
                 ETSLOCK_OK);
    locked = 0;
    CASE("after all the refusals the callback's call succeeds");
    CHECK(__atomic_load_n(&freed, __ATOMIC_RELAXED) == 1);
    CHECK(result.code == 0 && result.data_len == 6 && memcmp(result.data, "result", 6) == 0);
    etslock_result_free(&result);
    CHECK(result.data == NULL && result.data_len == 0);
    CHECK(holds("a", "staged"));
    restore();
}

/* --- lock tables --- */

static int all_bytes_are(const unsigned char *bytes, size_t first, size_t end, unsigned char value)
{
    size_t i;
    for (i = first; i < end; i++)
        if (bytes[i] != value)
            return 0;
    return 1;
}

static void null_for_lock_tables(void)
{
    etslock_lock_table *apart = NULL;
    etslock_locks *locks = NULL;
    etslock_lock_info info;
    etslock_stats stats;

    CASE("NULL: lock tables");
    REFUSED(etslock_lock_table_new(NULL), ETSLOCK_ERR_NULL);
    CHECK_STATUS(etslock_lock_table_new(&apart), ETSLOCK_OK);
    REFUSED(etslock_lock_table_locks(NULL, NULL, NULL), ETSLOCK_ERR_NULL);
    REFUSED(etslock_lock_table_locks(apart, table, NULL), ETSLOCK_ERR_NULL);
    REFUSED(etslock_lock_table_stats(NULL, NULL), ETSLOCK_ERR_NULL);
    REFUSED(etslock_lock_table_stats(apart, NULL), ETSLOCK_ERR_NULL);
    REFUSED(etslock_lock_table_force_release(NULL, NULL, "a", 1), ETSLOCK_ERR_NULL);
    REFUSED(etslock_lock_table_force_release(apart, NULL, "a", 1), ETSLOCK_ERR_NULL);
    REFUSED(etslock_lock_table_force_release(NULL, table, NULL, 1), ETSLOCK_ERR_NULL);
    REFUSED(etslock_lock_table_force_release(apart, table, NULL, 1), ETSLOCK_ERR_NULL);

    CASE("NULL: snapshots of locks");
    CHECK(etslock_locks_count(NULL) == 0);
    memset(&info, 0x5a, sizeof info);
    info.struct_size = sizeof info;
    REFUSED(etslock_locks_get(NULL, 0, &info), ETSLOCK_ERR_NULL);
    REFUSED(etslock_locks_get(NULL, 0, NULL), ETSLOCK_ERR_NULL);
    CHECK_STATUS(etslock_lock_table_locks(apart, NULL, &locks), ETSLOCK_OK);
    CHECK(etslock_locks_count(locks) == 0);
    REFUSED_2(etslock_locks_get(locks, 0, NULL), ETSLOCK_ERR_NULL, ETSLOCK_NOT_FOUND);
    REFUSED(etslock_locks_get(locks, 0, &info), ETSLOCK_NOT_FOUND);
    REFUSED(etslock_locks_get(locks, SIZE_MAX, &info), ETSLOCK_NOT_FOUND);
    CHECK(info.struct_size == sizeof info);
    CHECK(all_bytes_are((unsigned char *)&info, sizeof info.struct_size, sizeof info, 0x5a));
    etslock_locks_free(locks);
    etslock_locks_free(NULL);

    CASE("NULL: freeing no lock table leaves the default one alone");
    etslock_lock_table_free(apart);
    etslock_lock_table_free(NULL);
    etslock_stats_init(&stats, sizeof stats);
    CHECK_STATUS(etslock_lock_table_stats(NULL, &stats), ETSLOCK_OK);
    check_unchanged(__LINE__);
}

/* A struct that the library fills, by etslock_locks_get or etslock_lock_table_stats. */
static etslock_status fill(int with_info, const etslock_locks *locks, void *place)
{
    return with_info ? etslock_locks_get(locks, 0, place) : etslock_lock_table_stats(NULL, place);
}

static void sizes_of_outputs(void)
{
    etslock_locks *locks = NULL;
    etslock_guard *guard = NULL;
    int with_info;
    CHECK_STATUS(etslock_acquire(table, "a", 1, NULL, &guard), ETSLOCK_OK);
    CHECK_STATUS(etslock_lock_table_locks(NULL, table, &locks), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_cancel(guard), ETSLOCK_OK);
    REQUIRE(etslock_locks_count(locks) == 1);
    for (with_info = 0; with_info < 2; with_info++) {
        size_t known = with_info ? sizeof(etslock_lock_info) : sizeof(etslock_stats);
        unsigned char garbage[256];
        unsigned char *copy;
        uint32_t struct_size;
        size_t i;
        REQUIRE(known <= sizeof garbage);
        memset(garbage, 0x5a, sizeof garbage);
        CASE("struct_size: outputs that are too small are not touched");
        for (i = 0; i < known; i++) {
            copy = sized_copy(garbage, sizeof garbage, i);
            REFUSED(fill(with_info, locks, copy), ETSLOCK_ERR_STRUCT_SIZE);
            memcpy(&struct_size, copy, sizeof struct_size);
            CHECK(struct_size == i);
            CHECK(i < 4 || all_bytes_are(copy, sizeof struct_size, i, 0x5a));
            free(copy);
        }
        CASE("struct_size: of a larger output the part that is known is filled");
        for (i = 0; i < COUNT_OF(tails); i++) {
            size_t size = known + tails[i];
            copy = sized_copy(garbage, known, size);
            CHECK_STATUS(fill(with_info, locks, copy), ETSLOCK_OK);
            memcpy(&struct_size, copy, sizeof struct_size);
            CHECK(struct_size == size);
            CHECK(!all_bytes_are(copy, sizeof struct_size, known, 0x5a));
            CHECK(all_bytes_are(copy, known, size, 0));
            memset(copy + known, 0x5a, tails[i]);
            CHECK_STATUS(fill(with_info, locks, copy), ETSLOCK_OK);
            CHECK(all_bytes_are(copy, known, size, 0x5a));
            free(copy);
        }
    }
    etslock_locks_free(locks);
    check_unchanged(__LINE__);
}

static void all_still_works(void)
{
    etslock_options options = freeing_options();
    int call;
    CASE("after all the refusals everything works");
    for (call = 0; call < LOCK_CALLS; call++)
        CALL_ACCEPTED(call, &options);
    CHECK_STATUS(etslock_table_clear(table), ETSLOCK_OK);
    CHECK_STATUS(etslock_table_member(table, "a", 1), ETSLOCK_NOT_FOUND);
}

int main(void)
{
    REQUIRE(etslock_table_new(NULL, &table) == ETSLOCK_OK);
    REQUIRE(etslock_table_insert(table, "", 0, "e", 1) == ETSLOCK_OK);
    REQUIRE(etslock_table_insert(table, "a", 1, "1", 1) == ETSLOCK_OK);
    REQUIRE(etslock_table_insert(table, "b", 1, "2", 1) == ETSLOCK_OK);
    check_unchanged(__LINE__);

    RUN(null_for_tables());
    RUN(empty_keys_may_be_null());
    RUN(lengths_for_tables());
    RUN(options_for_tables());
    RUN(names());
    RUN(sizes_of_table_options());
    RUN(inits());
    RUN(null_for_lock_calls());
    RUN(lengths_for_lock_calls());
    RUN(numbers_of_keys());
    RUN(options_for_lock_calls());
    RUN(sizes_of_options());
    RUN(null_for_guards());
    RUN(an_acquired_guard());
    RUN(a_callbacks_guard(ETSLOCK_RUN_ON_WORKER));
    RUN(a_callbacks_guard(ETSLOCK_RUN_ON_CALLER));
    RUN(null_for_lock_tables());
    RUN(sizes_of_outputs());
    RUN(all_still_works());
    etslock_table_free(table);
    return check_report();
}
