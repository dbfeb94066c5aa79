/* etslock_rates - rates and call latencies of the library, as C programs use it.
 *
 * Subjects: a way (caller, guards, worker, polling), then "-infinite" for no deadlines at all.
 */
#define _GNU_SOURCE
#include "etslock_bench.h"

BENCH_ROUTINE(call_until_stopped, add_by_call)
BENCH_ROUTINE(guard_until_stopped, add_by_guard)

int main(int argc, char **argv)
{
    struct bench_arguments arguments = bench_arguments(argc, argv);
    int by_guards = strstr(arguments.subject, "guards") != NULL;

    open_table(bench_number(&arguments, "keys", 64));
    if (strstr(arguments.subject, "infinite") != NULL)
        options.exec_timeout_ms = ETSLOCK_INFINITE;
    if (strstr(arguments.subject, "worker") == NULL)
        options.run_on = ETSLOCK_RUN_ON_CALLER;
    if (strstr(arguments.subject, "polling") != NULL)
        options.queue = ETSLOCK_QUEUE_POLLING;

    bench_calls(&arguments, by_guards ? add_by_guard : add_by_call);
    bench_rates(&arguments, by_guards ? guard_until_stopped : call_until_stopped, read_key);
    etslock_table_free(table);
    return EXIT_SUCCESS;
}
