/* threads.h - waiting for another thread, but not for ever. */
#ifndef ETSLOCK_TESTS_THREADS_H
#define ETSLOCK_TESTS_THREADS_H

#include "check.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>

/* Whether a post came before its absence counts as a hang. */
static inline int wait_for(sem_t *semaphore)
{
    struct timespec end;
    clock_gettime(CLOCK_REALTIME, &end); /* the clock of sem_timedwait */
    end.tv_sec += HANGS_MS / 1000;
    while (sem_timedwait(semaphore, &end) != 0) {
        if (errno != EINTR)
            return 0;
    }
    return 1;
}

#endif
