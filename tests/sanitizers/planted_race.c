/* planted_race.c - two threads count in one variable without atomics, each under a lock.
 *
 * With "one-key" under the lock of the same key, with acquired guards on one side and callbacks of
 * workers on the other: that is correct (C-1), and nothing may be reported. With "two-keys" under
 * the locks of different keys, a mistake: ThreadSanitizer must report it, or it watches nothing.
 */
#include <etslock.h>

#include <pthread.h>
#include <stdio.h>
#include <string.h>

enum { ROUNDS = 2000 };

struct counter {
    etslock_table *table;
    const char *key;
    int failures;
};

static long count;

static int32_t count_in_callback(etslock_guard *guard, const etslock_tuple *tuples,
                                 size_t tuple_count, void *user_data)
{
    (void)guard, (void)tuples, (void)tuple_count, (void)user_data;
    count++;
    return 0;
}

static void *count_with_callbacks(void *argument)
{
    struct counter *counter = argument;
    int i;
    for (i = 0; i < ROUNDS; i++)
        if (etslock_with_lock(counter->table, counter->key, 1, count_in_callback, NULL, NULL,
                              NULL) != ETSLOCK_OK)
            counter->failures++;
    return NULL;
}

static void *count_with_guards(void *argument)
{
    struct counter *counter = argument;
    etslock_guard *guard;
    int i;
    for (i = 0; i < ROUNDS; i++) {
        if (etslock_acquire(counter->table, counter->key, 1, NULL, &guard) != ETSLOCK_OK) {
            counter->failures++;
            continue;
        }
        count++;
        if (etslock_guard_release(guard) != ETSLOCK_OK)
            counter->failures++;
    }
    return NULL;
}

int main(int argc, char **argv)
{
    etslock_table *table = NULL;
    struct counter by_callbacks = {NULL, "a", 0}, by_guards = {NULL, "a", 0};
    pthread_t callbacks, guards;
    if (argc != 2 || etslock_table_new(NULL, &table) != ETSLOCK_OK)
        return 2;
    by_callbacks.table = by_guards.table = table;
    if (strcmp(argv[1], "two-keys") == 0)
        by_guards.key = "b";
    if (pthread_create(&callbacks, NULL, count_with_callbacks, &by_callbacks) != 0 ||
        pthread_create(&guards, NULL, count_with_guards, &by_guards) != 0)
        return 2;
    pthread_join(callbacks, NULL);
    pthread_join(guards, NULL);
    printf("counted to %ld, %d failures\n", count, by_callbacks.failures + by_guards.failures);
    etslock_table_free(table);
    return by_callbacks.failures + by_guards.failures == 0 ? 0 : 2;
}
