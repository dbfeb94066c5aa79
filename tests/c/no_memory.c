/* valgrind: skip (it has an allocator of its own)
 *
 * no_memory.c - what a caller asks for does not fit into memory. Checks C-7, C-12, C-17 and
 * C-18.
 *
 * This program has an allocator of its own, which the library finds before the system's. During a
 * shortage it refuses whatever is larger than the library needs by itself. Each call that meets
 * one answers ETSLOCK_ERR_NO_MEMORY; nothing has changed then, and nothing is lost.
 */
#include "check.h"
#include "locks.h"

#include <errno.h>
#include <malloc.h>

/* --- the allocator --- */

enum { SHORTAGE = 64 * 1024 };

static int is_short;
static int refused; /* requests, since the shortage began */
static long live;   /* bytes */

void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);
void __libc_free(void *);

static int refuses(size_t size)
{
    if (size < SHORTAGE || !__atomic_load_n(&is_short, __ATOMIC_SEQ_CST))
        return 0;
    __atomic_fetch_add(&refused, 1, __ATOMIC_SEQ_CST);
    errno = ENOMEM;
    return 1;
}

static void *count_in(void *block)
{
    __atomic_fetch_add(&live, (long)malloc_usable_size(block), __ATOMIC_RELAXED);
    return block;
}

static void count_out(void *block)
{
    __atomic_fetch_sub(&live, (long)malloc_usable_size(block), __ATOMIC_RELAXED);
}

void *malloc(size_t size)
{
    return refuses(size) ? NULL : count_in(__libc_malloc(size));
}

void *calloc(size_t count, size_t size)
{
    return refuses(count * size) ? NULL : count_in(__libc_calloc(count, size));
}

void *realloc(void *block, size_t size)
{
    if (refuses(size))
        return NULL;
    count_out(block);
    return count_in(__libc_realloc(block, size));
}

int posix_memalign(void **out_block, size_t alignment, size_t size)
{
    if (refuses(size))
        return ENOMEM;
    *out_block = count_in(__libc_memalign(alignment, size));
    return *out_block == NULL ? ENOMEM : 0;
}

void *aligned_alloc(size_t alignment, size_t size)
{
    return refuses(size) ? NULL : count_in(__libc_memalign(alignment, size));
}

void free(void *block)
{
    count_out(block);
    __libc_free(block);
}

/* --- what must not change --- */

/* A key, a value, a list of tuples and one of keys that do not fit, and a key that does. */
enum { BIG = 1024 * 1024, LONG = 16 * 1024, TUPLES = 5000, KEYS = 4096 };

static char big[BIG];
static etslock_table *set; /* {"k", "old"} */
static etslock_table *bag; /* TUPLES of "many", and {key, "old"} of the other `bag_keys` */
static size_t locked;      /* how many locks this program holds */

/* They are published in any order, but the same one always: "many" is hardly ever the first. */
static const etslock_key bag_keys[] = {{"a", 1}, {"b", 1}, {"c", 1}, {"d", 1}, {"e", 1},
                                       {"f", 1}, {"g", 1}, {"h", 1}, {"many", 4}};
enum { BAG_KEYS = COUNT_OF(bag_keys), BAG_TUPLES = TUPLES + BAG_KEYS - 1 };

static int is_many(const etslock_key *key)
{
    return key->key_len > 1;
}

static void check_unchanged(int line)
{
    size_t in_set = 0, in_bag = 0, i;
    etslock_stats stats = stats_of(NULL);
    check_that(etslock_table_count(set, &in_set) == ETSLOCK_OK && in_set == 1 &&
                   has_value(set, "k", "old"),
               __FILE__, line, "the set is as before");
    check_that(etslock_table_count(bag, &in_bag) == ETSLOCK_OK && in_bag == BAG_TUPLES, __FILE__,
               line, "the bag has its tuples");
    for (i = 0; i < BAG_KEYS; i++)
        check_that(is_many(&bag_keys[i]) || has_value(bag, bag_keys[i].key, "old"), __FILE__, line,
                   "the bag is as before");
    check_that(count_locks(NULL, NULL) == locked && stats.held == locked && stats.waiting == 0,
               __FILE__, line, "nothing is locked");
}

static void begin_shortage(void)
{
    __atomic_store_n(&refused, 0, __ATOMIC_SEQ_CST);
    __atomic_store_n(&is_short, 1, __ATOMIC_SEQ_CST);
}

static void end_shortage(void)
{
    __atomic_store_n(&is_short, 0, __ATOMIC_SEQ_CST);
    CHECK(__atomic_load_n(&refused, __ATOMIC_SEQ_CST) > 0);
}

static void check_no_memory(etslock_status got, const char *what, int line)
{
    end_shortage();
    check_status(got, ETSLOCK_ERR_NO_MEMORY, __FILE__, line, what);
    check_unchanged(line);
}

#define NO_MEMORY(call) check_no_memory((begin_shortage(), (call)), #call, __LINE__)

/* --- keys and values --- */

static char garbage_place;
#define GARBAGE ((void *)&garbage_place)

static void values(void)
{
    CASE("C-17: values");
    NO_MEMORY(etslock_table_insert(set, "k", 1, big, BIG));
    NO_MEMORY(etslock_table_insert(set, big, LONG, big, BIG));
    NO_MEMORY(etslock_table_insert_new(set, "new", 3, big, BIG));
    NO_MEMORY(etslock_table_insert_new(set, big, LONG, big, BIG));
    NO_MEMORY(etslock_table_delete_tuple(set, "k", 1, big, BIG));
    NO_MEMORY(etslock_table_delete_tuple(set, big, LONG, big, BIG));
    NO_MEMORY(etslock_table_insert(bag, "a", 1, big, BIG));
}

static void keys(void)
{
    etslock_tuples *tuples = GARBAGE;
    int64_t number = 7;
    CASE("C-17: keys");
    NO_MEMORY(etslock_table_insert(set, big, BIG, "v", 1));
    NO_MEMORY(etslock_table_insert_new(set, big, BIG, "v", 1));
    NO_MEMORY(etslock_table_lookup(set, big, BIG, &tuples));
    CHECK(tuples == NULL);
    NO_MEMORY(etslock_table_member(set, big, BIG));
    tuples = GARBAGE;
    NO_MEMORY(etslock_table_take(set, big, BIG, &tuples));
    CHECK(tuples == NULL);
    NO_MEMORY(etslock_table_delete(set, big, BIG));
    NO_MEMORY(etslock_table_delete_tuple(set, big, BIG, "v", 1));
    NO_MEMORY(etslock_table_update_counter(set, big, BIG, 1, 0, &number));
    CHECK(number == 7);
    NO_MEMORY(etslock_lock_table_force_release(NULL, set, big, BIG));
}

static const int32_t run_ons[] = {ETSLOCK_RUN_ON_WORKER, ETSLOCK_RUN_ON_CALLER};

static int is_empty(const etslock_result *result)
{
    return result->code == 0 && result->data == NULL && result->data_len == 0;
}

static void locks(void)
{
    static const etslock_key several[] = {{"k", 1}, {big, LONG}, {big, BIG}, {"other", 5}};
    size_t i;
    CASE("C-12, C-17: keys to be locked");
    for (i = 0; i < COUNT_OF(run_ons); i++) {
        etslock_options options = patient(NULL);
        etslock_guard *guard = GARBAGE;
        etslock_result result;
        int frees = 0;
        options.run_on = run_ons[i];
        options.user_data_free = add_one;
        memset(&result, 0xff, sizeof result);
        NO_MEMORY(etslock_with_lock(set, big, BIG, must_not_run, &frees, &options, &result));
        CHECK(frees == 1 && is_empty(&result));
        memset(&result, 0xff, sizeof result);
        NO_MEMORY(etslock_with_locks(set, several, 4, must_not_run, &frees, &options, &result));
        CHECK(frees == 2 && is_empty(&result));
        NO_MEMORY(etslock_acquire(set, big, BIG, &options, &guard));
        CHECK(guard == NULL);
        guard = GARBAGE;
        NO_MEMORY(etslock_acquire_locks(set, several, 4, &options, &guard));
        CHECK(guard == NULL);
    }
}

/* --- snapshots --- */

static void snapshots(void)
{
    etslock_tuples *tuples = GARBAGE;
    etslock_guard *guard;
    size_t count = 0, i;

    CASE("C-17: the tuples of a lookup");
    NO_MEMORY(etslock_table_lookup(bag, "many", 4, &tuples));
    CHECK(tuples == NULL);
    guard = hold(bag, "many");
    locked = 1;
    tuples = GARBAGE;
    NO_MEMORY(etslock_guard_lookup(guard, "many", 4, &tuples));
    CHECK(tuples == NULL);
    CHECK_STATUS(etslock_guard_lookup(guard, "many", 4, &tuples), ETSLOCK_OK);
    CHECK(etslock_tuples_data(tuples, &count) != NULL && count == TUPLES);
    etslock_tuples_free(tuples);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    locked = 0;

    CASE("C-12, C-17: the tuples of a callback");
    for (i = 0; i < COUNT_OF(run_ons); i++) {
        etslock_options options = patient(NULL);
        int frees = 0;
        options.run_on = run_ons[i];
        options.user_data_free = add_one;
        NO_MEMORY(etslock_with_lock(bag, "many", 4, must_not_run, &frees, &options, NULL));
        CHECK(frees == 1);
    }
}

/* --- what a holder writes --- */

static void staged_writes(void)
{
    etslock_guard *guard = hold(set, "k");
    etslock_tuples *tuples = NULL;
    CASE("C-17: a write that cannot be staged leaves those before it");
    locked = 1;
    CHECK_STATUS(etslock_guard_insert(guard, "k", 1, "staged", 6), ETSLOCK_OK);
    NO_MEMORY(etslock_guard_insert(guard, "k", 1, big, BIG));
    NO_MEMORY(etslock_guard_delete_tuple(guard, "k", 1, big, BIG));
    CHECK_STATUS(etslock_guard_lookup(guard, "k", 1, &tuples), ETSLOCK_OK);
    CHECK(tuple_is(etslock_tuples_data(tuples, NULL), "staged"));
    etslock_tuples_free(tuples);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    locked = 0;
    CHECK(has_value(set, "k", "staged"));
    CHECK_STATUS(etslock_table_insert(set, "k", 1, "old", 3), ETSLOCK_OK);
}

static void too_many_staged_writes(void)
{
    etslock_guard *guard = hold(bag, "many");
    etslock_status status = ETSLOCK_OK;
    int i;
    CASE("C-17: more writes than can be staged");
    locked = 1;
    begin_shortage();
    for (i = 0; i < SHORTAGE && status == ETSLOCK_OK; i++)
        status = etslock_guard_insert(guard, "many", 4, "new", 3);
    check_no_memory(status, "etslock_guard_insert", __LINE__);
    CHECK_STATUS(etslock_guard_commit(guard), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_delete_tuple(guard, "many", 4, "new", 3), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    locked = 0;
}

static int32_t set_results(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                           void *user_data)
{
    (void)tuples, (void)tuple_count, (void)user_data;
    CHECK_STATUS(etslock_guard_set_result(guard, "first", 5), ETSLOCK_OK);
    NO_MEMORY(etslock_guard_set_result(guard, big, BIG));
    return 0;
}

static void results(void)
{
    size_t i;
    CASE("C-17: a result that does not fit leaves the one before");
    for (i = 0; i < COUNT_OF(run_ons); i++) {
        etslock_options options = patient(NULL);
        etslock_result result;
        options.run_on = run_ons[i];
        locked = 1;
        CHECK_STATUS(etslock_with_lock(set, "k", 1, set_results, NULL, &options, &result),
                     ETSLOCK_OK);
        locked = 0;
        CHECK(result.data_len == 5 && memcmp(result.data, "first", 5) == 0);
        etslock_result_free(&result);
    }
}

/* --- publishing: the long list of tuples gets longer by as much --- */

static void stage_all(etslock_guard *guard)
{
    size_t i;
    for (i = 0; i < BAG_KEYS; i++) {
        const etslock_key *key = &bag_keys[i];
        CHECK_STATUS(etslock_guard_insert(guard, key->key, key->key_len, "new", 3), ETSLOCK_OK);
    }
    for (i = TUPLES; i < 2 * TUPLES; i++)
        CHECK_STATUS(etslock_guard_insert(guard, "many", 4, &i, sizeof i), ETSLOCK_OK);
}

static void unstage_all(void)
{
    size_t i;
    for (i = 0; i < BAG_KEYS; i++) {
        const etslock_key *key = &bag_keys[i];
        CHECK_STATUS(etslock_table_delete_tuple(bag, key->key, key->key_len, "new", 3), ETSLOCK_OK);
    }
    for (i = TUPLES; i < 2 * TUPLES; i++)
        CHECK_STATUS(etslock_table_delete_tuple(bag, "many", 4, &i, sizeof i), ETSLOCK_OK);
}

/* The list as it was, in the memory that it had. */
static void remake_many(void)
{
    etslock_guard *guard = hold(bag, "many");
    size_t i;
    CHECK_STATUS(etslock_guard_delete(guard, "many", 4), ETSLOCK_OK);
    for (i = 0; i < TUPLES; i++)
        CHECK_STATUS(etslock_guard_insert(guard, "many", 4, &i, sizeof i), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
}

static int32_t stage_and_begin_shortage(etslock_guard *guard, const etslock_tuple *tuples,
                                        size_t tuple_count, void *user_data)
{
    (void)tuples, (void)tuple_count, (void)user_data;
    stage_all(guard);
    begin_shortage();
    return 0;
}

static void publishing(void)
{
    etslock_options options = patient(NULL);
    etslock_tuples *shares = NULL;
    etslock_guard *guard = NULL;
    size_t i, count = 0;
    CHECK_STATUS(etslock_table_lookup(bag, "many", 4, &shares), ETSLOCK_OK);

    CASE("C-7, C-17: a commit publishes nothing, or all, and can be tried again");
    CHECK_STATUS(etslock_acquire_locks(bag, bag_keys, BAG_KEYS, &options, &guard), ETSLOCK_OK);
    locked = BAG_KEYS;
    stage_all(guard);
    NO_MEMORY(etslock_guard_commit(guard));
    CHECK_STATUS(etslock_guard_commit(guard), ETSLOCK_OK);
    CHECK_STATUS(etslock_table_count(bag, &count), ETSLOCK_OK);
    CHECK(count == BAG_TUPLES + BAG_KEYS + TUPLES);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    locked = 0;
    unstage_all();
    remake_many();
    etslock_tuples_free(shares);

    CASE("C-7, C-17: a release publishes nothing, or all, and frees the locks");
    CHECK_STATUS(etslock_table_lookup(bag, "many", 4, &shares), ETSLOCK_OK);
    CHECK_STATUS(etslock_acquire_locks(bag, bag_keys, BAG_KEYS, &options, &guard), ETSLOCK_OK);
    stage_all(guard);
    NO_MEMORY(etslock_guard_release(guard));

    CASE("C-7, C-12, C-17: so does the end of a callback");
    for (i = 0; i < COUNT_OF(run_ons); i++) {
        etslock_result result;
        etslock_status status;
        int frees = 0;
        options.run_on = run_ons[i];
        options.user_data_free = add_one;
        memset(&result, 0xff, sizeof result);
        status = etslock_with_locks(bag, bag_keys, BAG_KEYS, stage_and_begin_shortage, &frees,
                                    &options, &result);
        check_no_memory(status, "etslock_with_locks", __LINE__);
        CHECK(frees == 1 && is_empty(&result));
    }
    etslock_tuples_free(shares);
}

/* --- lists of tuples that grow --- */

static void shared_list(void)
{
    etslock_tuples *shares = NULL;
    CASE("C-17: a list that a snapshot shares is not copied when it changes");
    remake_many();
    CHECK_STATUS(etslock_table_lookup(bag, "many", 4, &shares), ETSLOCK_OK);
    __atomic_store_n(&is_short, 1, __ATOMIC_SEQ_CST);
    CHECK_STATUS(etslock_table_insert(bag, "many", 4, "new", 3), ETSLOCK_OK);
    CHECK_STATUS(etslock_table_delete_tuple(bag, "many", 4, "new", 3), ETSLOCK_OK);
    __atomic_store_n(&is_short, 0, __ATOMIC_SEQ_CST);
    etslock_tuples_free(shares);
}

static void own_list(void)
{
    etslock_table *table = new_table_of(ETSLOCK_DUPLICATE_BAG);
    etslock_status status = ETSLOCK_OK;
    size_t inserted = 0, count = 0;
    CASE("C-17: a list that nobody shares grows as far as there is memory");
    begin_shortage();
    while (inserted < SHORTAGE) {
        status = etslock_table_insert(table, "k", 1, "v", 1);
        if (status != ETSLOCK_OK)
            break;
        inserted++;
    }
    check_no_memory(status, "etslock_table_insert", __LINE__);
    CHECK_STATUS(etslock_table_count(table, &count), ETSLOCK_OK);
    CHECK(count == inserted && inserted > 1);
    etslock_table_free(table);
}

static void staged_list(void)
{
    etslock_tuples *tuples = GARBAGE;
    etslock_guard *guard = hold(bag, "many");
    size_t count = 0;
    CASE("C-17: a long list as it would be with what is staged");
    locked = 1;
    CHECK_STATUS(etslock_guard_insert(guard, "many", 4, "new", 3), ETSLOCK_OK);
    NO_MEMORY(etslock_guard_lookup(guard, "many", 4, &tuples));
    CHECK(tuples == NULL);
    CHECK_STATUS(etslock_guard_lookup(guard, "many", 4, &tuples), ETSLOCK_OK);
    CHECK(etslock_tuples_data(tuples, &count) != NULL && count == TUPLES + 1);
    etslock_tuples_free(tuples);
    CHECK_STATUS(etslock_guard_cancel(guard), ETSLOCK_OK);
    locked = 0;
}

/* The list is made by the commit: after those of other keys, and before. */
static void new_list(void)
{
    static const etslock_key list_keys[] = {{"a", 1}, {"new list", 8}, {"e", 1}, {"h", 1}};
    etslock_options options = patient(NULL);
    etslock_guard *guard = NULL;
    etslock_tuples *tuples = GARBAGE;
    size_t i;
    CASE("C-7, C-17: a list that a commit makes");
    CHECK_STATUS(etslock_acquire_locks(bag, list_keys, 4, &options, &guard), ETSLOCK_OK);
    locked = 4;
    for (i = 0; i < TUPLES; i++)
        CHECK_STATUS(etslock_guard_insert(guard, "new list", 8, &i, sizeof i), ETSLOCK_OK);
    NO_MEMORY(etslock_guard_commit(guard)); /* this key alone */
    for (i = 0; i < COUNT_OF(list_keys); i++)
        CHECK_STATUS(etslock_guard_insert(guard, list_keys[i].key, list_keys[i].key_len, "new", 3),
                     ETSLOCK_OK);
    NO_MEMORY(etslock_guard_lookup(guard, "new list", 8, &tuples));
    CHECK(tuples == NULL);
    NO_MEMORY(etslock_guard_commit(guard));
    CHECK_STATUS(etslock_guard_commit(guard), ETSLOCK_OK);
    CHECK_STATUS(etslock_table_count(bag, &i), ETSLOCK_OK);
    CHECK(i == BAG_TUPLES + TUPLES + COUNT_OF(list_keys));
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    locked = 0;
    CHECK_STATUS(etslock_table_delete(bag, "new list", 8), ETSLOCK_OK);
    for (i = 0; i < COUNT_OF(list_keys); i++)
        CHECK_STATUS(etslock_table_delete_tuple(bag, list_keys[i].key, list_keys[i].key_len, "new", 3),
                     ETSLOCK_OK);
    check_unchanged(__LINE__);
}

/* --- what needs no memory --- */

static void many_staged_writes(void)
{
    enum { WRITES = 2 * SHORTAGE };
    etslock_guard *guard = hold(set, "k");
    int i;
    CASE("C-17: to publish many writes takes no memory of itself");
    CHECK_STATUS(etslock_guard_insert(guard, "k", 1, "new", 3), ETSLOCK_OK);
    for (i = 0; i < WRITES; i++)
        CHECK_STATUS(etslock_guard_delete_tuple(guard, "k", 1, "other", 5), ETSLOCK_OK);
    __atomic_store_n(&is_short, 1, __ATOMIC_SEQ_CST);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    __atomic_store_n(&is_short, 0, __ATOMIC_SEQ_CST);
    CHECK(has_value(set, "k", "new"));
    CHECK_STATUS(etslock_table_insert(set, "k", 1, "old", 3), ETSLOCK_OK);
}

static void removals(void)
{
    etslock_tuples *shares = NULL;
    etslock_guard *guard = hold(bag, "many");
    CASE("C-17: a removal of everything takes no memory");
    CHECK_STATUS(etslock_table_lookup(bag, "many", 4, &shares), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_delete(guard, "many", 4), ETSLOCK_OK);
    __atomic_store_n(&is_short, 1, __ATOMIC_SEQ_CST);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    __atomic_store_n(&is_short, 0, __ATOMIC_SEQ_CST);
    CHECK_STATUS(etslock_table_member(bag, "many", 4), ETSLOCK_NOT_FOUND);
    etslock_tuples_free(shares);
}

static void lists_of_rows(void)
{
    enum { KEYS = 32 * 1024 };
    etslock_table *table = new_table();
    etslock_cursor *cursor = NULL;
    etslock_tuples *tuples = NULL;
    size_t count = 0, i;
    CASE("C-17: the keys of a range that do not fit have their turn again");
    for (i = 0; i < KEYS; i++)
        CHECK_STATUS(etslock_table_insert(table, &i, sizeof i, "v", 1), ETSLOCK_OK);
    CHECK_STATUS(etslock_table_cursor(table, &cursor), ETSLOCK_OK);
    for (i = 0; i < 2; i++) {
        __atomic_store_n(&is_short, i == 0, __ATOMIC_SEQ_CST);
        for (; etslock_cursor_next(cursor, &tuples) == ETSLOCK_OK; count++)
            etslock_tuples_free(tuples);
        __atomic_store_n(&is_short, 0, __ATOMIC_SEQ_CST);
    }
    CHECK(__atomic_load_n(&refused, __ATOMIC_SEQ_CST) > 0);
    CHECK(count == KEYS);
    etslock_cursor_free(cursor);
    etslock_table_free(table);
}

/* --- */

/* What a refused call has allocated before, it frees. */
static void check_nothing_leaks(void (*refusals)(void))
{
    enum { ROUNDS = 100 };
    long before, grown;
    int i;
    refusals();
    before = __atomic_load_n(&live, __ATOMIC_RELAXED);
    for (i = 0; i < ROUNDS; i++)
        refusals();
    grown = __atomic_load_n(&live, __ATOMIC_RELAXED) - before;
    if (!CHECK(grown < ROUNDS * LONG / 4))
        fprintf(stderr, "    grown by %ld bytes\n", grown);
}

/* --- many keys, and what is removed or passed by as it is looked at --- */

static void key_lists(void)
{
    static char names[KEYS][8];
    static etslock_key list[KEYS];
    etslock_options options = patient(NULL);
    etslock_guard *guard = GARBAGE;
    int frees = 0, i;
    CASE("C-17, C-18: lists of keys");
    for (i = 0; i < KEYS; i++) {
        snprintf(names[i], sizeof names[i], "%d", i);
        list[i].key = names[i];
        list[i].key_len = strlen(names[i]);
    }
    NO_MEMORY(etslock_acquire_locks(set, list, KEYS, &options, &guard));
    CHECK(guard == NULL);
    options.user_data_free = add_one;
    NO_MEMORY(etslock_with_locks(set, list, KEYS, must_not_run, &frees, &options, NULL));
    CHECK(frees == 1);
}

static void taken_tuples(void)
{
    etslock_tuples *tuples = GARBAGE;
    CASE("C-17: tuples that cannot be shown are not removed");
    NO_MEMORY(etslock_table_take(bag, "many", 4, &tuples));
    CHECK(tuples == NULL);
}

static void cursors(void)
{
    etslock_cursor *cursor = NULL;
    etslock_tuples *tuples = NULL;
    etslock_status status;
    int seen = 0;
    CASE("C-17: a cursor stays where it could not show a key");
    CHECK_STATUS(etslock_table_cursor(bag, &cursor), ETSLOCK_OK);
    begin_shortage();
    while ((status = etslock_cursor_next(cursor, &tuples)) == ETSLOCK_OK) {
        CHECK(etslock_tuples_data(tuples, NULL)->key_len == 1);
        etslock_tuples_free(tuples);
    }
    end_shortage();
    CHECK_STATUS(status, ETSLOCK_ERR_NO_MEMORY);
    while ((status = etslock_cursor_next(cursor, &tuples)) == ETSLOCK_OK) {
        seen += etslock_tuples_data(tuples, NULL)->key_len == 4;
        etslock_tuples_free(tuples);
    }
    CHECK_STATUS(status, ETSLOCK_NOT_FOUND);
    CHECK(seen == 1);
    etslock_cursor_free(cursor);
}

int main(void)
{
    etslock_options options = patient(NULL);
    etslock_guard *guard = NULL;
    size_t i;
    memset(big, 'b', sizeof big);
    set = new_table();
    bag = new_table_of(ETSLOCK_BAG);
    CHECK_STATUS(etslock_table_insert(set, "k", 1, "old", 3), ETSLOCK_OK);
    CHECK_STATUS(etslock_acquire_locks(bag, bag_keys, BAG_KEYS, &options, &guard), ETSLOCK_OK);
    for (i = 0; i < BAG_KEYS; i++)
        if (!is_many(&bag_keys[i]))
            CHECK_STATUS(etslock_guard_insert(guard, bag_keys[i].key, 1, "old", 3), ETSLOCK_OK);
    for (i = 0; i < TUPLES; i++)
        CHECK_STATUS(etslock_guard_insert(guard, "many", 4, &i, sizeof i), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    RUN(check_unchanged(__LINE__));

    RUN(check_nothing_leaks(values));
    RUN(check_nothing_leaks(keys));
    RUN(check_nothing_leaks(locks));
    RUN(check_nothing_leaks(snapshots));
    RUN(check_nothing_leaks(staged_writes));
    RUN(check_nothing_leaks(too_many_staged_writes));
    RUN(check_nothing_leaks(results));
    RUN(check_nothing_leaks(publishing));
    RUN(check_nothing_leaks(key_lists));
    RUN(check_nothing_leaks(taken_tuples));
    RUN(check_nothing_leaks(cursors));
    RUN(shared_list());
    RUN(check_nothing_leaks(own_list));
    RUN(check_nothing_leaks(staged_list));
    RUN(check_nothing_leaks(new_list));
    RUN(lists_of_rows());
    RUN(many_staged_writes());
    RUN(removals());

    etslock_table_free(set);
    etslock_table_free(bag);
    return check_report();
}
