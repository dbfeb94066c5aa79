// peers_memory - bytes per held lock and per row of oneTBB's concurrent_hash_map.
//
// Workloads: tuples, held-locks (accessors of rows that are there already).
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "bench.h"

#include <tbb/concurrent_hash_map.h>

#include <memory>
#include <vector>

int main(int argc, char **argv)
{
    using Map = tbb::concurrent_hash_map<uint64_t, uint64_t>;
    struct bench_arguments arguments = ::bench_arguments(argc, argv);
    const uint64_t count = bench_number(&arguments, "count", 10000);

    struct bench_memory before = ::bench_memory();
    Map map;
    for (uint64_t i = 0; i < count; i++)
        map.insert({BENCH_KEY(i), i});
    if (bench_wants(&arguments, "tuples"))
        bench_print_memory(arguments.subject, "tuples", before, bench_memory(), double(count));

    if (bench_wants(&arguments, "held-locks")) {
        std::vector<std::unique_ptr<Map::accessor>> held(count);
        before = bench_memory();
        for (uint64_t i = 0; i < count; i++) {
            held[i] = std::make_unique<Map::accessor>();
            bench_need(map.find(*held[i], BENCH_KEY(i)), "key");
        }
        bench_print_memory(arguments.subject, "held-locks", before, bench_memory(), double(count));
    }
    return EXIT_SUCCESS;
}
