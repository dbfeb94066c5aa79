/* processes.h - test programs that run themselves again, processes that can start no thread, and
 * the memory of this one.
 */
#ifndef ETSLOCK_TESTS_PROCESSES_H
#define ETSLOCK_TESTS_PROCESSES_H

#include "check.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

/* Runs this program again with `role`; its exit code, or -1 if it crashed or hung. */
static inline int run_again(const char *program, const char *role)
{
    int64_t end = now_ms() + 60000;
    int state = 0;
    pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        execlp(program, program, role, (char *)NULL);
        _exit(127);
    }
    while (waitpid(child, &state, WNOHANG) == 0) {
        if (now_ms() > end) {
            kill(child, SIGKILL);
            waitpid(child, &state, 0);
            fprintf(stderr, "child \"%s\" hangs\n", role);
            return -1;
        }
        sleep_ms(5);
    }
    if (WIFSIGNALED(state))
        fprintf(stderr, "child \"%s\" ended by signal %d\n", role, WTERMSIG(state));
    return WIFEXITED(state) ? WEXITSTATUS(state) : -1;
}

/* In pages: the address space, and what of it is resident. */
static inline void read_memory(long *out_total, long *out_resident)
{
    FILE *statm = fopen("/proc/self/statm", "r");
    REQUIRE(statm != NULL);
    REQUIRE(fscanf(statm, "%ld %ld", out_total, out_resident) == 2);
    fclose(statm);
}

static inline long resident_bytes(void)
{
    long total = 0, resident = 0;
    read_memory(&total, &resident);
    return resident * sysconf(_SC_PAGESIZE);
}

/* Sanitizers and valgrind keep memory for their own purposes: they look for leaks themselves. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

static inline int memory_can_be_measured(void)
{
    const char *preload = getenv("LD_PRELOAD");
    return !SANITIZED && (preload == NULL || strstr(preload, "vgpreload") == NULL);
}

/* What `forbid_threads` changed. */
struct without_threads {
    struct rlimit usual;
    void *pin;
};

/* A limit on the address space stops even root from getting a stack for a new thread. The heap
 * keeps free memory, below a block that holds it there.
 */
static inline struct without_threads forbid_threads(void)
{
    enum { BLOCKS = 64, BLOCK = 64 * 1024 };
    void *blocks[BLOCKS];
    struct without_threads changed;
    struct rlimit tight;
    long total = 0, resident = 0;
    int i;
    for (i = 0; i < BLOCKS; i++)
        REQUIRE((blocks[i] = malloc(BLOCK)) != NULL);
    REQUIRE((changed.pin = malloc(BLOCK)) != NULL);
    for (i = 0; i < BLOCKS; i++)
        free(blocks[i]);
    read_memory(&total, &resident);
    REQUIRE(getrlimit(RLIMIT_AS, &changed.usual) == 0);
    tight = changed.usual;
    tight.rlim_cur = (rlim_t)total * (rlim_t)sysconf(_SC_PAGESIZE);
    REQUIRE(setrlimit(RLIMIT_AS, &tight) == 0);
    return changed;
}

static inline void allow_threads(struct without_threads *changed)
{
    REQUIRE(setrlimit(RLIMIT_AS, &changed->usual) == 0);
    free(changed->pin);
}

#endif
