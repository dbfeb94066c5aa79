/* 03_exec_timeout - the callback outlives its time, and nothing breaks.
 *
 * Shows: options, a callback that checks its guard, who frees its data.
 * Run:   make example-03        Prints: ETSLOCK_EXEC_TIMEOUT
 */
#define _POSIX_C_SOURCE 200809L

#include <etslock.h>

#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>

struct tally { unsigned long steps; };

static sem_t tally_is_freed;

/* Runs on an internal thread. Stops soon after the lock is taken away. */
static int32_t count_until_revoked(etslock_guard *guard, const etslock_tuple *tuples,
                                   size_t tuple_count, void *user_data)
{
    struct tally *tally = user_data;
    (void)tuples, (void)tuple_count;

    while (etslock_guard_status(guard) == ETSLOCK_OK)
        tally->steps++;
    return 0;
}

static void free_tally(void *user_data)
{
    free(user_data);
    sem_post(&tally_is_freed);
}

static etslock_status run_past_the_deadline(etslock_table *table)
{
    struct tally *tally = calloc(1, sizeof *tally);
    if (tally == NULL)
        return ETSLOCK_ERR_NO_MEMORY;

    etslock_options options;
    etslock_options_init(&options, sizeof options);
    options.exec_timeout_ms = 50;
    options.user_data_free = free_tally;

    /* From here on the library owns `tally`: the callback may still be using it
     * when this function has returned. The library frees it exactly once. */
    return etslock_with_lock(table, "cart:42", 7, count_until_revoked, tally, &options, NULL);
}

int main(void)
{
    etslock_table *table = NULL;
    if (sem_init(&tally_is_freed, 0, 0) != 0)
        return EXIT_FAILURE;

    etslock_status status = etslock_table_new(NULL, &table);
    if (status == ETSLOCK_OK)
        status = run_past_the_deadline(table);

    puts(etslock_status_name(status));
    etslock_table_free(table); /* NULL is fine in every _free */

    /* A program may exit while an abandoned callback runs. This one waits for it, so that a leak
     * checker finds nothing. */
    if (status == ETSLOCK_EXEC_TIMEOUT) {
        while (sem_wait(&tally_is_freed) != 0)
            continue;
        sem_destroy(&tally_is_freed);
    }
    return status == ETSLOCK_EXEC_TIMEOUT ? EXIT_SUCCESS : EXIT_FAILURE;
}
