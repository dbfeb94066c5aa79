/* valgrind: skip (it has an allocator of its own)
 *
 * no_memory_each.c - every single allocation of a call on a table fails once. Checks C-7, C-17 and
 * C-24.
 *
 * This program has an allocator of its own, which the library finds before the system's. A call is
 * made again and again; at first its first allocation is refused and all that follow, then its second
 * and all that follow, until it needs none of those that are refused. Each time but the last it answers
 * ETSLOCK_ERR_NO_MEMORY and nothing has changed.
 *
 * The crates below cannot be refused (docs/CAVEATS.md names what they ask for): where the library
 * makes sure beforehand that there is memory for them, the same request again is granted.
 */
#include "check.h"
#include "locks.h"

#include <errno.h>

/* --- the allocator --- */

enum { ROUND = 16, SIZES = 4096 / ROUND };

static int counts;                  /* on the thread of the test */
static long granted_yet;            /* so many more are granted */
static long refused;
static unsigned char asked[SIZES];  /* sizes that were granted during this call */

void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);

/* What flurry takes for a row, and crossbeam for a bag of garbage: 64 deferred calls. */
static int is_of_a_crate(size_t size)
{
    return (size == 96 || size == 24) ? asked[size / ROUND] : size > 2048 && size <= 2176;
}

static int refuses(size_t size)
{
    if (!counts)
        return 0;
    if (is_of_a_crate(size))
        return 0;
    if (granted_yet == 0) {
        refused++;
        errno = ENOMEM;
        return 1;
    }
    granted_yet--;
    if (size < SIZES * ROUND)
        asked[size / ROUND] = 1;
    return 0;
}

void *malloc(size_t size)
{
    return refuses(size) ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    return refuses(count * size) ? NULL : __libc_calloc(count, size);
}

void *realloc(void *block, size_t size)
{
    return refuses(size) ? NULL : __libc_realloc(block, size);
}

int posix_memalign(void **out_block, size_t alignment, size_t size)
{
    if (refuses(size))
        return ENOMEM;
    *out_block = __libc_memalign(alignment, size);
    return *out_block == NULL ? ENOMEM : 0;
}

void *aligned_alloc(size_t alignment, size_t size)
{
    return refuses(size) ? NULL : __libc_memalign(alignment, size);
}

/* --- what must not change --- */

static const char *const keys[] = {"short", "a key that is too long for its place", "absent"};
static const char *const values[] = {"8 bytes.", "eleven byte",
                                     "a value that is too long to be kept in place"};
enum { KEYS = COUNT_OF(keys), VALUES = COUNT_OF(values), LONG_LIST = 300 };

static etslock_table *table;
static int table_type;

/* All tuples that a lookup shows, as one number. */
static uint64_t sum_of(const etslock_tuples *tuples)
{
    uint64_t sum = 14695981039346656037u;
    size_t count = 0, i, j;
    const etslock_tuple *data = etslock_tuples_data(tuples, &count);
    for (i = 0; i < count; i++) {
        sum = sum * 31 + data[i].value_len;
        for (j = 0; j < data[i].value_len; j++)
            sum = (sum ^ data[i].value[j]) * 1099511628211u;
    }
    return sum + count;
}

static uint64_t contents(void)
{
    uint64_t sum = 0;
    size_t count = 0, i;
    for (i = 0; i < KEYS; i++) {
        etslock_tuples *tuples = NULL;
        etslock_table_lookup(table, keys[i], strlen(keys[i]), &tuples);
        sum = sum * 1000003 + sum_of(tuples);
        etslock_tuples_free(tuples);
    }
    etslock_table_count(table, &count);
    return sum + count;
}

/* --- the calls --- */

/* What a call is made with. */
static const char *key, *value;
static etslock_guard *guard; /* of all keys */
static etslock_cursor *cursor;
static etslock_tuples *tuples;
static int64_t number;

#define KEY   key, strlen(key)
#define VALUE value, strlen(value)

static etslock_status insert(void) { return etslock_table_insert(table, KEY, VALUE); }
static etslock_status insert_new(void) { return etslock_table_insert_new(table, KEY, VALUE); }
static etslock_status lookup(void) { return etslock_table_lookup(table, KEY, &tuples); }
static etslock_status member(void) { return etslock_table_member(table, KEY); }
static etslock_status take(void) { return etslock_table_take(table, KEY, &tuples); }
static etslock_status delete_key(void) { return etslock_table_delete(table, KEY); }
static etslock_status delete_tuple(void) { return etslock_table_delete_tuple(table, KEY, VALUE); }
static etslock_status counter(void)
{
    return etslock_table_update_counter(table, KEY, 1, 0, &number);
}
static etslock_status cursor_new(void) { return etslock_table_cursor(table, &cursor); }
static etslock_status cursor_next(void) { return etslock_cursor_next(cursor, &tuples); }
static etslock_status guard_insert(void) { return etslock_guard_insert(guard, KEY, VALUE); }
static etslock_status guard_delete(void) { return etslock_guard_delete(guard, KEY); }
static etslock_status guard_delete_tuple(void)
{
    return etslock_guard_delete_tuple(guard, KEY, VALUE);
}
static etslock_status guard_lookup(void) { return etslock_guard_lookup(guard, KEY, &tuples); }
static etslock_status guard_commit(void) { return etslock_guard_commit(guard); }

/* Makes the call with one allocation more each time. */
static etslock_status each(etslock_status (*call)(void), const char *what)
{
    uint64_t before = contents();
    long granted;
    for (granted = 0;; granted++) {
        etslock_status status;
        tuples = NULL;
        memset(asked, 0, sizeof asked);
        refused = 0;
        granted_yet = granted;
        counts = 1;
        status = call();
        counts = 0;
        if (refused == 0) {
            etslock_tuples_free(tuples);
            return status;
        }
        /* What it can do without it may be refused. */
        if (status != ETSLOCK_ERR_NO_MEMORY && contents() != before) {
            etslock_tuples_free(tuples);
            return status;
        }
        if (!check_that(status == ETSLOCK_ERR_NO_MEMORY && tuples == NULL, __FILE__, __LINE__, what))
            fprintf(stderr, "    type %d, key %s, value %s, %ld granted: %s\n", table_type, key, value,
                    granted, etslock_status_name(status));
        if (!check_that(contents() == before, __FILE__, __LINE__, what)) {
            fprintf(stderr, "    changed: type %d, key %s, value %s, %ld granted\n", table_type, key,
                    value, granted);
            return status;
        }
        REQUIRE(granted < 10000);
    }
}

#define EACH(call) each(call, #call)

/* {short, values[0]}, {long, values[2]}; in bags a long list besides. */
static void fill(int list)
{
    long i;
    etslock_table_clear(table);
    CHECK_STATUS(etslock_table_insert(table, keys[0], strlen(keys[0]), values[0], 8), ETSLOCK_OK);
    CHECK_STATUS(etslock_table_insert(table, keys[1], strlen(keys[1]), values[2], strlen(values[2])),
                 ETSLOCK_OK);
    for (i = 0; i < list; i++)
        CHECK_STATUS(etslock_table_insert(table, keys[i % 2], strlen(keys[i % 2]), &i, sizeof i),
                     ETSLOCK_OK);
}

static void without_a_guard(int list)
{
    static etslock_status (*const calls[])(void) = {lookup, member, insert, insert_new, delete_tuple,
                                                    take,   insert, delete_key};
    size_t c, k, v;
    CASE("C-24: calls without a guard");
    for (k = 0; k < KEYS; k++)
        for (v = 0; v < VALUES; v++) {
            key = keys[k], value = values[v];
            fill(list);
            for (c = 0; c < COUNT_OF(calls); c++)
                CHECK(each(calls[c], "a call without a guard") != ETSLOCK_ERR_NO_MEMORY);
        }
    fill(list);
    key = keys[2];
    EACH(counter);
    CHECK_STATUS(EACH(cursor_new), ETSLOCK_OK);
    while (EACH(cursor_next) == ETSLOCK_OK)
        ;
    etslock_cursor_free(cursor);
}

static void with_a_guard(int list)
{
    etslock_key all[KEYS];
    etslock_options options = patient(NULL);
    size_t k, v;
    for (k = 0; k < KEYS; k++)
        all[k].key = keys[k], all[k].key_len = strlen(keys[k]);
    CASE("C-7, C-24: what is staged, seen and committed");
    fill(list);
    CHECK_STATUS(etslock_acquire_locks(table, all, KEYS, &options, &guard), ETSLOCK_OK);
    for (k = 0; k < KEYS; k++)
        for (v = 0; v < VALUES; v++) {
            key = keys[k], value = values[v];
            CHECK_STATUS(EACH(guard_insert), ETSLOCK_OK);
            CHECK_STATUS(EACH(guard_lookup), ETSLOCK_OK);
        }
    CHECK_STATUS(EACH(guard_commit), ETSLOCK_OK);
    for (k = 0; k < KEYS; k++)
        for (v = 0; v < VALUES; v++) {
            key = keys[k], value = values[v];
            CHECK_STATUS(EACH(guard_delete_tuple), ETSLOCK_OK);
            EACH(guard_lookup);
        }
    CHECK_STATUS(EACH(guard_commit), ETSLOCK_OK);
    key = keys[0];
    CHECK_STATUS(EACH(guard_delete), ETSLOCK_OK);
    CHECK_STATUS(EACH(guard_insert), ETSLOCK_OK);
    CHECK_STATUS(EACH(guard_commit), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
}

/* More staged than a short list takes, so that a commit makes long ones, of several keys. */
static void long_commits(void)
{
    etslock_key all[KEYS];
    etslock_options options = patient(NULL);
    size_t k;
    long i;
    CASE("C-7, C-24: a commit of several keys is published wholly or not at all");
    for (k = 0; k < KEYS; k++)
        all[k].key = keys[k], all[k].key_len = strlen(keys[k]);
    for (i = 0; i < 2; i++) {
        long n;
        fill(i == 0 ? 0 : LONG_LIST);
        CHECK_STATUS(etslock_acquire_locks(table, all, KEYS, &options, &guard), ETSLOCK_OK);
        for (n = 0; n < 100 * KEYS; n++)
            CHECK_STATUS(etslock_guard_insert(guard, keys[n % KEYS], strlen(keys[n % KEYS]),
                                              &(long){-n}, sizeof n),
                         ETSLOCK_OK);
        CHECK_STATUS(EACH(guard_commit), ETSLOCK_OK);
        CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    }
}

int main(void)
{
    for (table_type = ETSLOCK_SET; table_type <= ETSLOCK_DUPLICATE_BAG; table_type++) {
        table = new_table_of(table_type);
        RUN(without_a_guard(0));
        RUN(with_a_guard(0));
        if (table_type != ETSLOCK_SET) {
            RUN(without_a_guard(LONG_LIST));
            RUN(with_a_guard(LONG_LIST));
            RUN(long_commits());
        }
        etslock_table_free(table);
    }
    return check_report();
}
