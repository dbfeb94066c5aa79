/* 02_counter_threads - no increment is lost, however many threads count.
 *
 * Shows: read, change and write of one key as one step; a callback that reads the tuples it is
 *        given; data on the caller's stack made safe with ETSLOCK_JOIN.
 * Run:   make example-02        Prints: 8 threads counted to 4000
 */
#include <etslock.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS = 8, STEPS = 500 };

struct addition { unsigned long add, total; };

/* The value is an unsigned long, copied because a tuple's bytes are not aligned. */
static int32_t add_to_counter(etslock_guard *guard, const etslock_tuple *tuples,
                              size_t tuple_count, void *user_data)
{
    struct addition *addition = user_data;
    unsigned long counter = 0;

    if (tuple_count == 1 && tuples->value_len == sizeof counter)
        memcpy(&counter, tuples->value, sizeof counter);
    counter += addition->add;
    addition->total = counter;
    return etslock_guard_insert(guard, "visits", 6, &counter, sizeof counter);
}

static etslock_status add(etslock_table *table, unsigned long add, unsigned long *out_total)
{
    struct addition addition = {add, 0};

    etslock_options options;
    etslock_options_init(&options, sizeof options);
    options.wait_timeout_ms = ETSLOCK_INFINITE;
    /* `addition` is on this stack: the call must not return before the callback has. */
    options.on_exec_timeout = ETSLOCK_JOIN;

    etslock_status status =
        etslock_with_lock(table, "visits", 6, add_to_counter, &addition, &options, NULL);
    *out_total = addition.total;
    return status;
}

struct counting { pthread_t thread; etslock_table *table; etslock_status status; };

static void *count_up(void *data)
{
    struct counting *counting = data;
    unsigned long total;

    for (int step = 0; step < STEPS && counting->status == ETSLOCK_OK; step++)
        counting->status = add(counting->table, 1, &total);
    return NULL;
}

int main(void)
{
    etslock_table *table = NULL;
    if (etslock_table_new(NULL, &table) != ETSLOCK_OK)
        return EXIT_FAILURE;

    struct counting all[THREADS];
    for (int i = 0; i < THREADS; i++) {
        all[i].table = table;
        all[i].status = ETSLOCK_OK;
        if (pthread_create(&all[i].thread, NULL, count_up, &all[i]) != 0)
            return EXIT_FAILURE;
    }

    etslock_status status = ETSLOCK_OK;
    for (int i = 0; i < THREADS; i++) {
        pthread_join(all[i].thread, NULL);
        if (status == ETSLOCK_OK)
            status = all[i].status;
    }

    unsigned long total = 0;
    if (status == ETSLOCK_OK)
        status = add(table, 0, &total);
    if (status == ETSLOCK_OK)
        printf("%d threads counted to %lu\n", THREADS, total);
    else
        puts(etslock_status_text(status));

    etslock_table_free(table);
    return total == THREADS * STEPS ? EXIT_SUCCESS : EXIT_FAILURE;
}
