/* pending.h - acquires that are pending, and what is fetched of them. */
#ifndef ETSLOCK_TESTS_PENDING_H
#define ETSLOCK_TESTS_PENDING_H

#include "check.h"
#include "locks.h"

#include <poll.h>

static inline etslock_completions *new_completions(void)
{
    etslock_completions *queue = NULL;
    REQUIRE(etslock_completions_new(&queue) == ETSLOCK_OK);
    REQUIRE(queue != NULL);
    return queue;
}

/* Begins to acquire what is held, as task `number`. Its ticket. */
static inline uint64_t begin_with(etslock_options options, etslock_completions *queue,
                                  etslock_table *table, const char *key, uintptr_t number)
{
    etslock_guard *guard = NULL;
    uint64_t ticket = 0;
    REQUIRE(etslock_acquire_begin(table, key, strlen(key), &options, queue, (void *)number,
                                  &ticket, &guard) == ETSLOCK_PENDING);
    REQUIRE(ticket != 0 && guard == NULL);
    return ticket;
}

static inline uint64_t begin(etslock_completions *queue, etslock_table *table, const char *key,
                             uintptr_t number)
{
    return begin_with(patient(NULL), queue, table, key, number);
}

static inline uintptr_t number_of(const etslock_completion *completion)
{
    return (uintptr_t)completion->user_data;
}

/* Whether there was one in time. */
static inline int fetch_within(int64_t timeout_ms, etslock_completions *queue,
                               etslock_completion *out_completion)
{
    size_t count = 0;
    etslock_status status =
        etslock_completions_wait(queue, out_completion, 1, timeout_ms, &count);
    if (status != ETSLOCK_OK) {
        CHECK_STATUS(status, ETSLOCK_WAIT_TIMEOUT);
        return 0;
    }
    CHECK(count == 1 && out_completion->reserved == 0);
    CHECK((out_completion->status == ETSLOCK_OK) == (out_completion->guard != NULL));
    return 1;
}

/* A completion that is there or comes soon. */
static inline etslock_completion fetch(etslock_completions *queue)
{
    etslock_completion completion;
    REQUIRE(fetch_within(HANGS_MS, queue, &completion));
    return completion;
}

static inline int is_empty(etslock_completions *queue)
{
    etslock_completion completion;
    return !fetch_within(0, queue, &completion);
}

/* The next completion is this one's. Its guard. */
static inline etslock_guard *fetch_as(etslock_completions *queue, uint64_t ticket,
                                      etslock_status status)
{
    etslock_completion completion = fetch(queue);
    CHECK(completion.ticket == ticket);
    CHECK_STATUS(completion.status, status);
    return completion.guard;
}

static inline int descriptor_of(etslock_completions *queue)
{
    int descriptor = etslock_completions_fd(queue);
    REQUIRE(descriptor >= 0);
    return descriptor;
}

static inline int readable_within(int timeout_ms, int descriptor)
{
    struct pollfd wanted;
    wanted.fd = descriptor;
    wanted.events = POLLIN;
    wanted.revents = 0;
    return poll(&wanted, 1, timeout_ms) == 1 && (wanted.revents & POLLIN) != 0;
}

static inline int is_readable(int descriptor)
{
    return readable_within(0, descriptor);
}

static inline etslock_options strict(void)
{
    etslock_options options = patient(NULL);
    options.queue = ETSLOCK_QUEUE_FIFO;
    return options;
}

static inline void release(etslock_guard *guard)
{
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
}

#endif
