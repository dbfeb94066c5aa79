/* asan.c - threads that cannot be started, under AddressSanitizer.
 *
 * The tests bring that about by a limit on the address space, which AddressSanitizer does not
 * survive. Here the limit only makes `pthread_create` fail. The linker's --wrap leads here.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sys/resource.h>

typedef void *start_routine(void *);

int __real_pthread_create(pthread_t *, const pthread_attr_t *, start_routine *, void *);
int __real_setrlimit(int, const struct rlimit *);

static int forbidden; /* touched with the __atomic builtins only */

int __wrap_setrlimit(int resource, const struct rlimit *limit)
{
    if (resource != RLIMIT_AS)
        return __real_setrlimit(resource, limit);
    __atomic_store_n(&forbidden, limit->rlim_cur != RLIM_INFINITY, __ATOMIC_SEQ_CST);
    return 0;
}

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                          start_routine *routine, void *argument)
{
    if (__atomic_load_n(&forbidden, __ATOMIC_SEQ_CST))
        return EAGAIN;
    return __real_pthread_create(thread, attributes, routine, argument);
}
