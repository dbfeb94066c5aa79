/* tables_model.c - random operations on a table and on a plain model of it, an array of pairs
 * in order of insertion; every answer of the two must be the same. Checks C-9 and the functions
 * etslock_table_*, for sets, bags and duplicate bags.
 *
 * The seed is fixed, and printed; another one is given as the first argument.
 */
#include "check.h"

#include <limits.h>

enum { KEYS = 48, VALUES = 16, PAIRS = 4096, SNAPSHOTS = 16, COMPARE_EVERY = 500 };

/* --- chance --- */

static uint64_t random_state;

/* splitmix64: the same numbers on every machine. */
static uint64_t random_bits(void)
{
    uint64_t z = random_state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static size_t random_below(size_t limit)
{
    return (size_t)(random_bits() % limit);
}

/* --- the byte strings that the operations choose from --- */

struct bytes {
    size_t len;
    unsigned char data[128];
};

static struct bytes keys[KEYS];
static struct bytes values[VALUES];

static int same(const struct bytes *one, const void *data, size_t len)
{
    return one->len == len && (len == 0 || memcmp(one->data, data, len) == 0);
}

/* All different; many are prefixes of others, or differ in or behind a NUL byte only. */
static void choose(struct bytes *all, size_t count)
{
    static const size_t lengths[] = {0, 1, 2, 3, 8, 8, 8, 21, 22, 23, 24, 100, 128};
    size_t i, j;
    for (i = 0; i < count; i++) {
        int known;
        do {
            all[i].len = lengths[random_below(COUNT_OF(lengths))];
            memset(all[i].data, 0, sizeof all[i].data);
            if (all[i].len > 0 && random_below(3) > 0)
                all[i].data[random_below(all[i].len)] = (unsigned char)random_below(4);
            if (all[i].len > 0 && random_below(3) == 0)
                all[i].data[all[i].len - 1] = (unsigned char)random_below(256);
            known = 0;
            for (j = 0; j < i; j++)
                known |= same(&all[j], all[i].data, all[i].len);
        } while (known);
    }
}

/* --- the model --- */

struct pair {
    size_t key; /* an index into keys */
    struct bytes value;
};

static struct pair pairs[PAIRS];
static size_t pair_count;
static int32_t type;

static size_t model_count(size_t key)
{
    size_t i, count = 0;
    for (i = 0; i < pair_count; i++)
        count += pairs[i].key == key;
    return count;
}

/* Removes the tuples of the key, or only those with this value. */
static void model_remove(size_t key, const struct bytes *value)
{
    size_t i, kept = 0;
    for (i = 0; i < pair_count; i++) {
        int goes = pairs[i].key == key &&
                   (value == NULL || same(value, pairs[i].value.data, pairs[i].value.len));
        if (!goes)
            pairs[kept++] = pairs[i];
    }
    pair_count = kept;
}

static void model_insert(size_t key, const struct bytes *value)
{
    size_t i;
    if (type == ETSLOCK_SET)
        model_remove(key, NULL);
    for (i = 0; type == ETSLOCK_BAG && i < pair_count; i++)
        if (pairs[i].key == key && same(value, pairs[i].value.data, pairs[i].value.len))
            return;
    REQUIRE(pair_count < PAIRS);
    pairs[pair_count].key = key;
    pairs[pair_count].value = *value;
    pair_count++;
}

static etslock_status model_update_counter(size_t key, int64_t add, int64_t initial,
                                           int64_t *out_value)
{
    struct bytes value = {sizeof(int64_t), {0}};
    int64_t number = initial;
    size_t i;
    if (type != ETSLOCK_SET)
        return ETSLOCK_ERR_TYPE;
    for (i = 0; i < pair_count; i++) {
        if (pairs[i].key == key) {
            if (pairs[i].value.len != sizeof number)
                return ETSLOCK_ERR_TYPE;
            memcpy(&number, pairs[i].value.data, sizeof number);
        }
    }
    if (add >= 0 ? number > INT64_MAX - add : number < INT64_MIN - add)
        return ETSLOCK_ERR_INVALID;
    number += add;
    memcpy(value.data, &number, sizeof number);
    model_insert(key, &value);
    *out_value = number;
    return ETSLOCK_OK;
}

/* Does the snapshot show what the model has for the key? */
static int shows(const etslock_tuples *tuples, size_t key)
{
    size_t count = 0, i, next = 0;
    const etslock_tuple *data = etslock_tuples_data(tuples, &count);
    for (i = 0; i < pair_count; i++) {
        if (pairs[i].key != key)
            continue;
        if (next == count || !same(&keys[key], data[next].key, data[next].key_len) ||
            !same(&pairs[i].value, data[next].value, data[next].value_len))
            return 0;
        next++;
    }
    return next == count;
}

/* --- snapshots that are kept for a while, with a copy of what they showed --- */

struct kept {
    etslock_tuples *tuples;
    size_t count;
    etslock_tuple *copy;
    unsigned char *bytes;
};

static struct kept kept[SNAPSHOTS];

static void let_go(struct kept *old)
{
    size_t count = 0, i;
    const etslock_tuple *data = etslock_tuples_data(old->tuples, &count);
    const unsigned char *bytes = old->bytes;
    CHECK(count == old->count);
    for (i = 0; i < count; i++) {
        CHECK(data[i].key == old->copy[i].key && data[i].key_len == old->copy[i].key_len);
        CHECK(data[i].value == old->copy[i].value && data[i].value_len == old->copy[i].value_len);
        CHECK(data[i].key_len == 0 || memcmp(bytes, data[i].key, data[i].key_len) == 0);
        bytes += data[i].key_len;
        CHECK(data[i].value_len == 0 || memcmp(bytes, data[i].value, data[i].value_len) == 0);
        bytes += data[i].value_len;
    }
    etslock_tuples_free(old->tuples);
    free(old->copy);
    free(old->bytes);
    memset(old, 0, sizeof *old);
}

static void keep(etslock_tuples *tuples)
{
    struct kept *place = &kept[random_below(SNAPSHOTS)];
    const etslock_tuple *data;
    unsigned char *bytes;
    size_t size = 0, i;
    let_go(place);
    place->tuples = tuples;
    data = etslock_tuples_data(tuples, &place->count);
    for (i = 0; i < place->count; i++)
        size += data[i].key_len + data[i].value_len;
    place->copy = malloc(place->count * sizeof *data + 1);
    place->bytes = bytes = malloc(size + 1);
    REQUIRE(place->copy != NULL && bytes != NULL);
    for (i = 0; i < place->count; i++) {
        place->copy[i] = data[i];
        memcpy(bytes, data[i].key, data[i].key_len);
        bytes += data[i].key_len;
        memcpy(bytes, data[i].value, data[i].value_len);
        bytes += data[i].value_len;
    }
}

/* --- the two side by side --- */

static etslock_table *table;

/* The whole content, each way it can be seen. */
static void compare(void)
{
    static unsigned char seen[KEYS];
    etslock_cursor *cursor = NULL;
    etslock_tuples *tuples;
    etslock_status status;
    size_t key, count = SIZE_MAX;
    CHECK_STATUS(etslock_table_count(table, &count), ETSLOCK_OK);
    CHECK(count == pair_count);
    for (key = 0; key < KEYS; key++) {
        etslock_status wanted = model_count(key) > 0 ? ETSLOCK_OK : ETSLOCK_NOT_FOUND;
        CHECK_STATUS(etslock_table_member(table, keys[key].data, keys[key].len), wanted);
        CHECK_STATUS(etslock_table_lookup(table, keys[key].data, keys[key].len, &tuples), wanted);
        CHECK(shows(tuples, key));
        etslock_tuples_free(tuples);
    }
    memset(seen, 0, sizeof seen);
    CHECK_STATUS(etslock_table_cursor(table, &cursor), ETSLOCK_OK);
    while ((status = etslock_cursor_next(cursor, &tuples)) == ETSLOCK_OK) {
        const etslock_tuple *data = etslock_tuples_data(tuples, NULL);
        for (key = 0; key < KEYS && !same(&keys[key], data->key, data->key_len); key++)
            continue;
        REQUIRE(key < KEYS);
        CHECK(shows(tuples, key));
        seen[key]++;
        etslock_tuples_free(tuples);
    }
    CHECK_STATUS(status, ETSLOCK_NOT_FOUND);
    etslock_cursor_free(cursor);
    for (key = 0; key < KEYS; key++)
        CHECK(seen[key] == (model_count(key) > 0));
}

static void count_up(size_t key)
{
    static const int64_t edges[] = {0, 1, -1, 1000, INT64_MAX, INT64_MIN, INT64_MAX - 1};
    int64_t add = edges[random_below(COUNT_OF(edges))];
    int64_t initial = edges[random_below(COUNT_OF(edges))];
    int64_t value = 77, wanted_value = 77;
    etslock_status wanted = model_update_counter(key, add, initial, &wanted_value);
    CHECK_STATUS(etslock_table_update_counter(table, keys[key].data, keys[key].len, add, initial,
                                              &value),
                 wanted);
    CHECK(value == wanted_value);
}

static void one_operation(void)
{
    size_t key = random_below(KEYS);
    const struct bytes *k = &keys[key];
    const struct bytes *v = &values[random_below(VALUES)];
    etslock_status present = model_count(key) > 0 ? ETSLOCK_OK : ETSLOCK_NOT_FOUND;
    etslock_tuples *tuples = NULL;
    size_t count = SIZE_MAX;
    size_t chance = random_below(1000);
    if (chance < 400) {
        CHECK_STATUS(etslock_table_insert(table, k->data, k->len, v->data, v->len), ETSLOCK_OK);
        model_insert(key, v);
    } else if (chance < 480) {
        CHECK_STATUS(etslock_table_insert_new(table, k->data, k->len, v->data, v->len),
                     present == ETSLOCK_OK ? ETSLOCK_EXISTS : ETSLOCK_OK);
        if (present != ETSLOCK_OK)
            model_insert(key, v);
    } else if (chance < 600) {
        CHECK_STATUS(etslock_table_lookup(table, k->data, k->len, &tuples), present);
        CHECK(shows(tuples, key));
        keep(tuples);
    } else if (chance < 650) {
        CHECK_STATUS(etslock_table_member(table, k->data, k->len), present);
    } else if (chance < 690) {
        CHECK_STATUS(etslock_table_take(table, k->data, k->len, &tuples), present);
        CHECK(shows(tuples, key));
        keep(tuples);
        model_remove(key, NULL);
    } else if (chance < 730) {
        CHECK_STATUS(etslock_table_delete(table, k->data, k->len), ETSLOCK_OK);
        model_remove(key, NULL);
    } else if (chance < 900) {
        CHECK_STATUS(etslock_table_delete_tuple(table, k->data, k->len, v->data, v->len),
                     ETSLOCK_OK);
        model_remove(key, v);
    } else if (chance < 980) {
        count_up(key);
    } else if (chance < 999) {
        CHECK_STATUS(etslock_table_count(table, &count), ETSLOCK_OK);
        CHECK(count == pair_count);
    } else {
        CHECK_STATUS(etslock_table_clear(table), ETSLOCK_OK);
        pair_count = 0;
    }
}

static void run(int operations)
{
    etslock_table_options options;
    int i;
    size_t j;
    etslock_table_options_init(&options, sizeof options);
    options.type = type;
    REQUIRE(etslock_table_new(&options, &table) == ETSLOCK_OK);
    pair_count = 0;
    choose(keys, KEYS);
    choose(values, VALUES);
    for (i = 0; i < operations; i++) {
        one_operation();
        if (i % COMPARE_EVERY == 0)
            compare();
        if (__atomic_load_n(&check_failures, __ATOMIC_RELAXED) > 0) {
            fprintf(stderr, "at operation %d of type %d\n", i, (int)type);
            exit(check_report());
        }
    }
    compare();
    etslock_table_free(table);
    for (j = 0; j < SNAPSHOTS; j++)
        let_go(&kept[j]);
}

int main(void)
{
    int operations = is_small_scale() ? 5000 : 100000;
    random_state = CHECK_NUMBER(20260117);
    printf("seed %llu\n", (unsigned long long)random_state);

    CASE("C-9: a set answers as the model does");
    type = ETSLOCK_SET;
    RUN_AS("set", run(operations));
    CASE("C-9: a bag answers as the model does");
    type = ETSLOCK_BAG;
    RUN_AS("bag", run(operations));
    CASE("C-9: a duplicate bag answers as the model does");
    type = ETSLOCK_DUPLICATE_BAG;
    RUN_AS("duplicate_bag", run(operations));
    return check_report();
}
