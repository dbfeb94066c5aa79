// peers_waits - how long after its release std::mutex is held by a parked waiter (workload wake),
// and how long after its time a timed wait on std::condition_variable returns (timeout-wait).
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "bench.h"

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <semaphore.h>
#include <thread>

static void wake(const char *subject, size_t rounds)
{
    struct bench_samples samples = ::bench_samples(rounds);
    std::mutex mutex;
    sem_t go, done;
    uint64_t acquired_at = 0;
    sem_init(&go, 0, 0);
    sem_init(&done, 0, 0);
    std::thread waiter([&] {
        for (size_t i = 0; i < rounds; i++) {
            sem_wait(&go);
            mutex.lock();
            acquired_at = bench_now();
            mutex.unlock();
            sem_post(&done);
        }
    });
    for (size_t i = 0; i < rounds; i++) {
        mutex.lock();
        sem_post(&go);
        bench_sleep(1000000 + i * 7919 % 2000000);
        uint64_t released_at = bench_now();
        mutex.unlock();
        sem_wait(&done);
        samples.ns[i] = acquired_at - released_at;
    }
    waiter.join();
    bench_print_samples(subject, "wake", samples, NULL);
}

static void timeout_wait(const char *subject, size_t rounds)
{
    struct bench_samples samples = ::bench_samples(rounds);
    std::mutex mutex;
    std::condition_variable never;
    std::unique_lock<std::mutex> locked(mutex);
    for (size_t i = 0; i < rounds; i++) {
        uint64_t began = bench_now();
        never.wait_for(locked, std::chrono::milliseconds(50), [] { return false; });
        samples.ns[i] = bench_now() - began - 50000000;
    }
    bench_print_samples(subject, "timeout-wait", samples, NULL);
}

int main(int argc, char **argv)
{
    struct bench_arguments arguments = ::bench_arguments(argc, argv);
    if (bench_wants(&arguments, "wake"))
        wake(arguments.subject, bench_number(&arguments, "wakes", 100));
    if (bench_wants(&arguments, "timeout-wait"))
        timeout_wait(arguments.subject, bench_number(&arguments, "timeouts", 10));
    return EXIT_SUCCESS;
}
