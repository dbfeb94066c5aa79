/* 06_bag - several tuples under one key, changed together.
 *
 * Shows: a bag keeps insertion order and holds equal tuples once; a callback that sees all tuples
 *        of its key, removes one and adds one; readers see both changes or neither.
 * Run:   make example-06        Prints: the tags before and after
 */
#include <etslock.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char key[] = "tags:42";
enum { KEY_LEN = sizeof key - 1 };

static int has_value(const etslock_tuple *tuple, const char *value)
{
    return tuple->value_len == strlen(value) && memcmp(tuple->value, value, tuple->value_len) == 0;
}

/* Publishes a draft; anything that is not a draft is left as it is. */
static int32_t publish_draft(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                             void *user_data)
{
    (void)user_data;
    for (size_t i = 0; i < tuple_count; i++) {
        if (!has_value(&tuples[i], "draft"))
            continue;
        if (etslock_guard_delete_tuple(guard, key, KEY_LEN, "draft", 5) != ETSLOCK_OK)
            return 1;
        return etslock_guard_insert(guard, key, KEY_LEN, "published", 9);
    }
    return 0;
}

static size_t print_tags(etslock_table *table, const char *title)
{
    etslock_tuples *snapshot = NULL;
    etslock_table_lookup(table, key, KEY_LEN, &snapshot);

    size_t count;
    const etslock_tuple *tuples = etslock_tuples_data(snapshot, &count);
    printf("%s", title);
    for (size_t i = 0; i < count; i++)
        printf(" %.*s", (int)tuples[i].value_len, (const char *)tuples[i].value);
    printf("\n");
    etslock_tuples_free(snapshot);
    return count;
}

int main(void)
{
    etslock_table_options options;
    etslock_table_options_init(&options, sizeof options);
    options.type = ETSLOCK_BAG;

    etslock_table *table = NULL;
    etslock_status status = etslock_table_new(&options, &table);

    const char *tags[] = {"draft", "poetry", "short", "poetry"};
    for (size_t i = 0; i < sizeof tags / sizeof *tags && status == ETSLOCK_OK; i++)
        status = etslock_table_insert(table, key, KEY_LEN, tags[i], strlen(tags[i]));
    if (status != ETSLOCK_OK)
        return EXIT_FAILURE;

    size_t before = print_tags(table, "before:");
    status = etslock_with_lock(table, key, KEY_LEN, publish_draft, NULL, NULL, NULL);
    size_t after = print_tags(table, "after: ");

    etslock_table_free(table);
    return status == ETSLOCK_OK && before == 3 && after == 3 ? EXIT_SUCCESS : EXIT_FAILURE;
}
