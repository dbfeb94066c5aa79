/* etslock_waits - how long after a release a parked waiter has the lock, and how long after its
 * time a call returns.
 *
 * Subjects: fair, fifo, polling. Workloads: wake, timeout-wait, timeout-exec.
 */
#define _GNU_SOURCE
#include "etslock_bench.h"

#include <semaphore.h>

static const uint64_t key = BENCH_KEY(0);
static sem_t go, done;
static uint64_t acquired_at;
static size_t rounds;

static etslock_guard *acquire(void)
{
    etslock_guard *guard = NULL;
    need_ok(etslock_acquire(table, &key, sizeof key, &options, &guard));
    return guard;
}

static void *wait_for_the_lock(void *unused)
{
    for (size_t i = 0; i < rounds; i++) {
        sem_wait(&go);
        etslock_guard *guard = acquire();
        acquired_at = bench_now();
        need_ok(etslock_guard_release(guard));
        sem_post(&done);
    }
    return unused;
}

static void wake(const char *subject)
{
    struct bench_samples samples = bench_samples(rounds);
    pthread_t waiter;
    pthread_create(&waiter, NULL, wait_for_the_lock, NULL);
    for (size_t i = 0; i < rounds; i++) {
        etslock_guard *guard = acquire();
        sem_post(&go);
        bench_sleep(1000000 + i * 7919 % 2000000); /* parked by then, and at any phase of a poll */
        uint64_t released_at = bench_now();
        need_ok(etslock_guard_release(guard));
        sem_wait(&done);
        samples.ns[i] = acquired_at - released_at;
    }
    pthread_join(waiter, NULL);
    bench_print_samples(subject, "wake", samples, NULL);
}

static void timeout_wait(const char *subject)
{
    struct bench_samples samples = bench_samples(rounds);
    etslock_guard *holder = acquire();
    etslock_options usual = options;
    options.wait_timeout_ms = 50;
    options.owner = ETSLOCK_OWNER_NONE; /* waits for its own thread: no deadlock, a wait */
    for (size_t i = 0; i < rounds; i++) {
        etslock_guard *guard = NULL;
        uint64_t began = bench_now();
        etslock_status status = etslock_acquire(table, &key, sizeof key, &options, &guard);
        samples.ns[i] = bench_now() - began - 50000000;
        bench_need(status == ETSLOCK_WAIT_TIMEOUT, "no timeout");
    }
    options = usual;
    need_ok(etslock_guard_cancel(holder));
    bench_print_samples(subject, "timeout-wait", samples, NULL);
}

static int32_t oversleep(etslock_guard *guard, const etslock_tuple *tuples, size_t count,
                         void *user_data)
{
    (void)guard, (void)tuples, (void)count, (void)user_data;
    bench_sleep(80000000);
    return 0;
}

static void timeout_exec(const char *subject)
{
    struct bench_samples samples = bench_samples(rounds);
    options.exec_timeout_ms = 50;
    for (size_t i = 0; i < rounds; i++) {
        uint64_t began = bench_now();
        etslock_status status =
            etslock_with_lock(table, &key, sizeof key, oversleep, NULL, &options, NULL);
        samples.ns[i] = bench_now() - began - 50000000;
        bench_need(status == ETSLOCK_EXEC_TIMEOUT, "no timeout");
    }
    bench_sleep(100000000); /* the last callbacks run out */
    bench_print_samples(subject, "timeout-exec", samples, NULL);
}

int main(int argc, char **argv)
{
    struct bench_arguments arguments = bench_arguments(argc, argv);
    open_table(1);
    options.exec_timeout_ms = ETSLOCK_INFINITE;
    options.queue = strcmp(arguments.subject, "polling") == 0 ? ETSLOCK_QUEUE_POLLING
                    : strcmp(arguments.subject, "fifo") == 0  ? ETSLOCK_QUEUE_FIFO
                                                              : ETSLOCK_QUEUE_FAIR;
    sem_init(&go, 0, 0);
    sem_init(&done, 0, 0);
    rounds = bench_number(&arguments, "wakes", 100);
    if (bench_wants(&arguments, "wake"))
        wake(arguments.subject);
    rounds = bench_number(&arguments, "timeouts", 10);
    if (bench_wants(&arguments, "timeout-wait"))
        timeout_wait(arguments.subject);
    if (bench_wants(&arguments, "timeout-exec"))
        timeout_exec(arguments.subject);
    sem_destroy(&go);
    sem_destroy(&done);
    etslock_table_free(table);
    return EXIT_SUCCESS;
}
