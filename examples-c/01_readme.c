/* 01_readme - of two writers of one key, the later holder of the lock writes last.
 *
 * Shows: two threads, one key; the callback runs on an internal thread while the lock is held.
 *        Without the lock "yup" would be written after 50 ms and overwritten after 100 ms.
 * Run:   make example-01        Prints: yup
 */
#define _POSIX_C_SOURCE 200809L

#include <etslock.h>

#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static etslock_table *table;
static sem_t lock_is_held;

static int32_t write_yup(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                         void *user_data)
{
    (void)tuples, (void)tuple_count, (void)user_data;
    return etslock_guard_insert(guard, "key", 3, "yup", 3);
}

static int32_t hold_and_write_nope(etslock_guard *guard, const etslock_tuple *tuples,
                                   size_t tuple_count, void *user_data)
{
    (void)tuples, (void)tuple_count, (void)user_data;
    sem_post(&lock_is_held);
    etslock_guard_sleep(guard, 100);
    return etslock_guard_insert(guard, "key", 3, "nope", 4);
}

/* Comes 50 ms after the other thread has got the lock, and waits for it. */
static void *late_writer(void *out_status)
{
    struct timespec pause = {0, 50 * 1000 * 1000};
    while (sem_wait(&lock_is_held) != 0)
        continue;
    nanosleep(&pause, NULL);
    *(etslock_status *)out_status = etslock_with_lock(table, "key", 3, write_yup, NULL, NULL, NULL);
    return NULL;
}

static void *early_writer(void *out_status)
{
    *(etslock_status *)out_status =
        etslock_with_lock(table, "key", 3, hold_and_write_nope, NULL, NULL, NULL);
    return NULL;
}

static int key_holds(const char *expected)
{
    etslock_tuples *tuples = NULL;
    etslock_table_lookup(table, "key", 3, &tuples);

    size_t count;
    const etslock_tuple *found = etslock_tuples_data(tuples, &count);
    int same = 0;
    if (count == 1) {
        printf("%.*s\n", (int)found->value_len, (const char *)found->value);
        same = found->value_len == strlen(expected) &&
               memcmp(found->value, expected, found->value_len) == 0;
    }
    etslock_tuples_free(tuples); /* NULL is fine in every _free */
    return same;
}

int main(void)
{
    etslock_status early_status = ETSLOCK_ERR_NO_THREAD, late_status = ETSLOCK_ERR_NO_THREAD;
    pthread_t early, late;

    if (etslock_table_new(NULL, &table) != ETSLOCK_OK || sem_init(&lock_is_held, 0, 0) != 0 ||
        pthread_create(&late, NULL, late_writer, &late_status) != 0 ||
        pthread_create(&early, NULL, early_writer, &early_status) != 0)
        return EXIT_FAILURE;
    pthread_join(late, NULL);
    pthread_join(early, NULL);

    int as_expected = early_status == ETSLOCK_OK && late_status == ETSLOCK_OK && key_holds("yup");
    sem_destroy(&lock_is_held);
    etslock_table_free(table);
    return as_expected ? EXIT_SUCCESS : EXIT_FAILURE;
}
