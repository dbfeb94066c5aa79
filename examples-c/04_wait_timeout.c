/* 04_wait_timeout - a held lock costs a waiter the time it offers, and no more.
 *
 * Shows: wait_timeout_ms; a waiter that gave up has left no trace; a try-lock with 0.
 * Run:   make example-04        Prints: a line for each attempt
 */
#include <etslock.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

struct attempt {
    etslock_table *table;
    int64_t wait_timeout_ms;
    etslock_status status;
};

static int32_t do_nothing(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                          void *user_data)
{
    (void)guard, (void)tuples, (void)tuple_count, (void)user_data;
    return 0;
}

static void *try_to_lock(void *data)
{
    struct attempt *attempt = data;

    etslock_options options;
    etslock_options_init(&options, sizeof options);
    options.wait_timeout_ms = attempt->wait_timeout_ms;
    attempt->status =
        etslock_with_lock(attempt->table, "door", 4, do_nothing, NULL, &options, NULL);
    return NULL;
}

/* In a thread of its own: a thread that waited for a lock it holds itself would be told
 * ETSLOCK_DEADLOCK at once. */
static etslock_status attempt_elsewhere(etslock_table *table, int64_t wait_timeout_ms)
{
    struct attempt attempt = {table, wait_timeout_ms, ETSLOCK_ERR_NO_THREAD};
    pthread_t thread;

    if (pthread_create(&thread, NULL, try_to_lock, &attempt) == 0)
        pthread_join(thread, NULL);
    return attempt.status;
}

static int expect(const char *what, etslock_status got, etslock_status wanted)
{
    printf("%-21s %s\n", what, etslock_status_name(got));
    return got == wanted;
}

int main(void)
{
    etslock_table *table = NULL;
    etslock_guard *guard = NULL;
    int as_expected = 1;

    if (etslock_table_new(NULL, &table) != ETSLOCK_OK ||
        etslock_acquire(table, "door", 4, NULL, &guard) != ETSLOCK_OK)
        return EXIT_FAILURE;

    as_expected &= expect("held, waits 50 ms:", attempt_elsewhere(table, 50), ETSLOCK_WAIT_TIMEOUT);
    as_expected &= expect("held, a try-lock:", attempt_elsewhere(table, 0), ETSLOCK_WAIT_TIMEOUT);
    as_expected &= expect("the holder releases:", etslock_guard_release(guard), ETSLOCK_OK);
    as_expected &= expect("free, a try-lock:", attempt_elsewhere(table, 0), ETSLOCK_OK);

    etslock_table_free(table);
    return as_expected ? EXIT_SUCCESS : EXIT_FAILURE;
}
