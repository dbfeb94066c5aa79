/* valgrind: skip (it has rounding, signals and processors of its own)
 *
 * citizens.c - a callback on a worker finds what a fresh thread of the main thread would, whoever
 * started the worker and whatever ran on it before. Checks C-22.
 */
#define _GNU_SOURCE /* processors, scheduling, gettid */
#include "check.h"
#include "locks.h"
#include "processes.h"
#include "threads.h"

#include <fenv.h>
#include <sched.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#if defined(__linux__) && defined(__x86_64__)
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <ucontext.h>
#endif

static etslock_table *table;

/* --- what a thread has --- */

struct surroundings {
    pid_t thread;
    sigset_t blocked;
    cpu_set_t processors;
    int policy, nice;
    int rounding, exceptions;
    int cancel_state, cancel_type;
    int error;
};

static void look(struct surroundings *seen)
{
    seen->error = errno;
    seen->rounding = fegetround();
    seen->exceptions = fetestexcept(FE_ALL_EXCEPT);
    seen->thread = (pid_t)syscall(SYS_gettid);
    REQUIRE(pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &seen->cancel_state) == 0);
    REQUIRE(pthread_setcancelstate(seen->cancel_state, NULL) == 0);
    REQUIRE(pthread_setcanceltype(PTHREAD_CANCEL_DEFERRED, &seen->cancel_type) == 0);
    REQUIRE(pthread_setcanceltype(seen->cancel_type, NULL) == 0);
    REQUIRE(pthread_sigmask(SIG_BLOCK, NULL, &seen->blocked) == 0);
    REQUIRE(sched_getaffinity(0, sizeof seen->processors, &seen->processors) == 0);
    seen->policy = sched_getscheduler(0);
    errno = 0;
    seen->nice = getpriority(PRIO_PROCESS, (id_t)seen->thread);
    REQUIRE(errno == 0);
}

static void *look_on_a_fresh_thread(void *seen)
{
    look(seen);
    return NULL;
}

static struct surroundings of_a_fresh_thread(void)
{
    struct surroundings seen;
    pthread_t thread;
    REQUIRE(pthread_create(&thread, NULL, look_on_a_fresh_thread, &seen) == 0);
    REQUIRE(pthread_join(thread, NULL) == 0);
    return seen;
}

static int block_the_same(const sigset_t *a, const sigset_t *b)
{
    int signal, same = 1;
    for (signal = 1; signal <= SIGRTMAX; signal++)
        same = same && sigismember(a, signal) == sigismember(b, signal);
    return same;
}

/* What is put right before every callback. */
static void check_modes(const struct surroundings *seen, const struct surroundings *fresh)
{
    CHECK(block_the_same(&seen->blocked, &fresh->blocked));
    CHECK(seen->rounding == fresh->rounding);
    CHECK(seen->exceptions == 0);
    CHECK(seen->cancel_state == PTHREAD_CANCEL_ENABLE);
    CHECK(seen->cancel_type == PTHREAD_CANCEL_DEFERRED);
    CHECK(seen->error == 0);
}

static void check_place(const struct surroundings *seen, const struct surroundings *fresh)
{
    CHECK(CPU_EQUAL(&seen->processors, &fresh->processors));
    CHECK(seen->policy == fresh->policy);
    CHECK(seen->nice == fresh->nice);
}

/* --- callbacks --- */

static int32_t look_in_callback(etslock_guard *guard, const etslock_tuple *tuples,
                                size_t tuple_count, void *seen)
{
    (void)guard, (void)tuples, (void)tuple_count;
    look(seen);
    return 0;
}

static void call(etslock_callback callback, void *user_data)
{
    etslock_options options = patient(NULL);
    CHECK_STATUS(etslock_with_lock(table, "k", 1, callback, user_data, &options, NULL), ETSLOCK_OK);
}

static struct surroundings of_a_callback(void)
{
    struct surroundings seen;
    call(look_in_callback, &seen);
    return seen;
}

static void await_no_worker(void)
{
    WAIT_UNTIL(stats_of(NULL).workers == 0);
}

/* Everything that a thread may change of itself. */
static void become_a_stranger(void)
{
    volatile double zero = 0;
    struct sched_param param;
    cpu_set_t one;
    sigset_t all;
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    REQUIRE(sched_setaffinity(0, sizeof one, &one) == 0);
    REQUIRE(setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), 10) == 0);
    memset(&param, 0, sizeof param);
    REQUIRE(sched_setscheduler(0, SCHED_BATCH, &param) == 0);
    sigfillset(&all);
    REQUIRE(pthread_sigmask(SIG_SETMASK, &all, NULL) == 0);
    REQUIRE(pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL) == 0);
    REQUIRE(pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL) == 0);
    REQUIRE(fesetround(FE_UPWARD) == 0);
    zero = 1 / zero;
    errno = ERANGE;
}

static int32_t become_a_strange_callback(etslock_guard *guard, const etslock_tuple *tuples,
                                         size_t tuple_count, void *seen)
{
    (void)guard, (void)tuples, (void)tuple_count;
    look(seen);
    become_a_stranger();
    return 0;
}

static void *call_as_a_stranger(void *seen)
{
    become_a_stranger();
    /* The library calls nothing that is cancelled, but for itself: C-5. */
    REQUIRE(pthread_setcanceltype(PTHREAD_CANCEL_DEFERRED, NULL) == 0);
    *(struct surroundings *)seen = of_a_callback();
    return NULL;
}

/* Only who may raise a priority gets it back. */
static int may_raise_priority(void)
{
    pid_t child = fork();
    int state = 0;
    REQUIRE(child >= 0);
    if (child == 0)
        _exit(setpriority(PRIO_PROCESS, 0, 10) == 0 && setpriority(PRIO_PROCESS, 0, 0) == 0 ? 0 : 1);
    REQUIRE(waitpid(child, &state, 0) == child);
    return WIFEXITED(state) && WEXITSTATUS(state) == 0;
}

static void strangers(void)
{
    struct surroundings fresh = of_a_fresh_thread(), seen, own, again;
    int raises = may_raise_priority(), rounds = is_small_scale() ? 3 : 50, round;
    pthread_t thread;
    memset(&seen, 0, sizeof seen);

    CASE("C-22: nothing of the thread that made a worker start");
    await_no_worker();
    REQUIRE(pthread_create(&thread, NULL, call_as_a_stranger, &seen) == 0);
    REQUIRE(pthread_join(thread, NULL) == 0);
    own = of_a_callback();
    check_modes(&seen, &fresh);
    check_modes(&own, &fresh);
    if (!raises)
        own.nice = seen.nice = fresh.nice;
    check_place(&seen, &fresh);
    check_place(&own, &fresh);
    CHECK(own.thread == seen.thread); /* else it shows little */

    CASE("C-22: signals, modes and errno of an earlier callback");
    for (round = 0; round < rounds; round++) {
        call(become_a_strange_callback, &seen);
        check_modes(&seen, &fresh);
        own = of_a_callback();
        check_modes(&own, &fresh);
        CHECK(own.thread == seen.thread);
    }

    CASE("C-22: processors and priority of an earlier caller's callback");
    for (round = 0; round < rounds; round++) {
        struct surroundings other;
        call(become_a_strange_callback, &seen);
        REQUIRE(pthread_create(&thread, NULL, call_as_a_stranger, &other) == 0);
        REQUIRE(pthread_join(thread, NULL) == 0);
        check_modes(&other, &fresh);
        if (!raises)
            other.nice = fresh.nice;
        check_place(&other, &fresh);
    }

    CASE("C-22: of the same caller's, once the worker was idle");
    call(become_a_strange_callback, &seen);
    for (round = 0; round < 100; round++) {
        sleep_ms(20); /* it is idle after 5 */
        again = of_a_callback();
        if (CPU_EQUAL(&again.processors, &fresh.processors))
            break;
    }
    check_place(&again, &fresh);
}

/* --- the main thread's signals --- */

static void set_main_mask(int how, int signal)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, signal);
    REQUIRE(pthread_sigmask(how, &set, NULL) == 0);
}

static void *start_a_worker(void *seen)
{
    sigset_t all;
    sigfillset(&all);
    REQUIRE(pthread_sigmask(SIG_SETMASK, &all, NULL) == 0);
    *(struct surroundings *)seen = of_a_callback();
    return NULL;
}

static int blocks(int signal)
{
    struct surroundings seen = of_a_callback();
    return sigismember(&seen.blocked, signal);
}

static void main_thread_masks(void)
{
    struct surroundings seen;
    pthread_t thread;
    memset(&seen, 0, sizeof seen);
    CASE("C-22: what the main thread blocks, a callback blocks");
    await_no_worker();
    set_main_mask(SIG_BLOCK, SIGUSR2);
    sleep_ms(250); /* no worker lives to look; the next one's starter finds it out */
    REQUIRE(pthread_create(&thread, NULL, start_a_worker, &seen) == 0);
    REQUIRE(pthread_join(thread, NULL) == 0);
    WAIT_UNTIL(blocks(SIGUSR2));
    CHECK(!sigismember(&seen.blocked, SIGUSR1));
    CASE("C-22: also when it changes its mind");
    set_main_mask(SIG_BLOCK, SIGRTMIN + 1);
    WAIT_UNTIL(blocks(SIGRTMIN + 1));
    set_main_mask(SIG_UNBLOCK, SIGRTMIN + 1);
    set_main_mask(SIG_UNBLOCK, SIGUSR2);
    WAIT_UNTIL(!blocks(SIGRTMIN + 1));
    CHECK(!blocks(SIGUSR2));
}

/* --- signals that reach a callback, and a worker --- */

static pid_t taken_by; /* the thread whose handler ran last */
static int taken;

static void take(int signal)
{
    (void)signal;
    __atomic_store_n(&taken_by, (pid_t)syscall(SYS_gettid), __ATOMIC_SEQ_CST);
    __atomic_fetch_add(&taken, 1, __ATOMIC_SEQ_CST);
}

static void set_handler(int signal)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = take;
    action.sa_flags = SA_RESTART;
    REQUIRE(sigaction(signal, &action, NULL) == 0);
}

static int32_t signal_itself(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                             void *signal)
{
    int before = taken;
    (void)guard, (void)tuples, (void)tuple_count;
    taken_by = 0;
    REQUIRE(pthread_kill(pthread_self(), *(const int *)signal) == 0);
    CHECK(taken == before + 1 && taken_by == (pid_t)syscall(SYS_gettid));
    return 0;
}

static int32_t tell_thread(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                           void *thread)
{
    (void)guard, (void)tuples, (void)tuple_count;
    *(pid_t *)thread = (pid_t)syscall(SYS_gettid);
    return 0;
}

static int is_blocked_by(pid_t thread, int signal)
{
    char path[64], line[256];
    unsigned long long blocked = 0;
    FILE *file;
    snprintf(path, sizeof path, "/proc/self/task/%d/status", (int)thread);
    file = fopen(path, "r");
    if (file == NULL)
        return -1; /* it has ended */
    while (fgets(line, sizeof line, file) != NULL)
        if (sscanf(line, "SigBlk: %llx", &blocked) == 1)
            break;
    fclose(file);
    return (int)(blocked >> (signal - 1) & 1);
}

/* A worker that sleeps. */
static pid_t sleeping_worker(void)
{
    pid_t thread = 0;
    call(tell_thread, &thread);
    WAIT_UNTIL(is_blocked_by(thread, SIGTERM) != 0);
    REQUIRE(is_blocked_by(thread, SIGTERM) == 1);
    return thread;
}

static void signals(void)
{
    static const int of_runtimes[] = {SIGURG, SIGPWR, SIGXCPU, SIGPROF, SIGVTALRM, SIGSYS, SIGXFSZ};
    static const int of_programs[] = {SIGHUP,  SIGINT,  SIGQUIT, SIGUSR1, SIGUSR2, SIGPIPE,
                                      SIGALRM, SIGTERM, SIGCHLD, SIGCONT, SIGTSTP, SIGTTIN,
                                      SIGTTOU, SIGIO,   SIGWINCH};
    int signal;
    size_t i;
    pid_t sleeper;

    CASE("C-22: a signal to a callback's thread reaches it");
    for (signal = SIGRTMIN; signal <= SIGRTMAX; signal++) {
        set_handler(signal);
        call(signal_itself, &signal);
    }
    for (i = 0; i < COUNT_OF(of_runtimes); i++) {
        signal = of_runtimes[i];
        set_handler(signal);
        call(signal_itself, &signal);
    }
    for (i = 0; i < COUNT_OF(of_programs); i++) {
        signal = of_programs[i];
        set_handler(signal);
        call(signal_itself, &signal);
    }

    CASE("C-22: a runtime's signal reaches a worker that sleeps");
    for (i = 0; i < COUNT_OF(of_runtimes) + 2; i++) {
        int before = taken;
        signal = i < COUNT_OF(of_runtimes) ? of_runtimes[i] : i % 2 == 0 ? SIGRTMIN : SIGRTMAX;
        sleeper = sleeping_worker();
        taken_by = 0;
        REQUIRE(syscall(SYS_tgkill, getpid(), sleeper, signal) == 0);
        WAIT_UNTIL(__atomic_load_n(&taken, __ATOMIC_SEQ_CST) == before + 1);
        CHECK(taken_by == sleeper);
    }

    CASE("C-22: one to the process is not taken by a worker that sleeps");
    for (i = 0; i < COUNT_OF(of_programs); i++) {
        sigset_t pending;
        int before = taken;
        signal = of_programs[i];
        sleeper = sleeping_worker();
        set_main_mask(SIG_BLOCK, signal);
        REQUIRE(kill(getpid(), signal) == 0);
        REQUIRE(sigpending(&pending) == 0);
        CHECK(sigismember(&pending, signal) == 1 && taken == before);
        CHECK(is_blocked_by(sleeper, signal) != 0);
        set_main_mask(SIG_UNBLOCK, signal);
        CHECK(taken == before + 1 && taken_by == getpid());
    }
}

/* --- programs that a callback starts --- */

static int32_t start_a_program(etslock_guard *guard, const etslock_tuple *tuples,
                               size_t tuple_count, void *out_child)
{
    pid_t child = fork();
    (void)guard, (void)tuples, (void)tuple_count;
    REQUIRE(child >= 0);
    if (child == 0) {
        execlp("sleep", "sleep", "30", (char *)NULL);
        _exit(127);
    }
    *(pid_t *)out_child = child;
    return 0;
}

static void programs(void)
{
    static const int ending[] = {SIGTERM, SIGHUP, SIGINT, SIGQUIT, SIGALRM};
    size_t i;
    CASE("C-22: a program that a callback starts can be ended");
    for (i = 0; i < COUNT_OF(ending); i++) {
        pid_t child = 0;
        int state = 0;
        /* The first on a worker that begins, the second on one that has slept. */
        if (i == 0)
            await_no_worker();
        if (i == 1)
            sleeping_worker();
        call(start_a_program, &child);
        REQUIRE(child > 0 && kill(child, ending[i]) == 0);
        REQUIRE(waitpid(child, &state, 0) == child); /* the alarm finds a hang */
        CHECK(WIFSIGNALED(state) && WTERMSIG(state) == ending[i]);
    }
}

/* --- system calls that are trapped --- */

#if defined(__linux__) && defined(__x86_64__) && !SANITIZED
static void emulate(int signal, siginfo_t *info, void *context)
{
    (void)signal, (void)info;
    ((ucontext_t *)context)->uc_mcontext.gregs[REG_RAX] = 42;
}

static int32_t call_trapped(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                            void *unused)
{
    (void)guard, (void)tuples, (void)tuple_count, (void)unused;
    CHECK(syscall(SYS_getpgid, 0) == 42);
    return 0;
}

static int trap(void)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getpgid, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program;
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = emulate;
    action.sa_flags = SA_SIGINFO;
    REQUIRE(sigaction(SIGSYS, &action, NULL) == 0);
    program.len = COUNT_OF(filter);
    program.filter = filter;
    REQUIRE(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
        return 0; /* not on this system */
    table = new_table();
    call(call_trapped, NULL);
    sleeping_worker();
    call(call_trapped, NULL);
    etslock_table_free(table);
    return check_report();
}
#else
static int trap(void)
{
    return 0;
}
#endif

/* --- stacks --- */

static int32_t measure_stack(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                             void *out_size)
{
    pthread_attr_t attributes;
    void *lowest;
    (void)tuples, (void)tuple_count;
    REQUIRE(pthread_getattr_np(pthread_self(), &attributes) == 0);
    REQUIRE(pthread_attr_getstack(&attributes, &lowest, out_size) == 0);
    REQUIRE(pthread_attr_destroy(&attributes) == 0);
    return etslock_guard_insert(guard, "k", 1, "v", 1);
}

/* Run again with a variable of the environment. */
static int check_stack(const char *wanted_kib)
{
    size_t size = 0, wanted = (size_t)atol(wanted_kib) * 1024;
    pthread_attr_t attributes;
    if (wanted == 0) {
        REQUIRE(pthread_attr_init(&attributes) == 0);
        REQUIRE(pthread_attr_getstacksize(&attributes, &wanted) == 0);
        REQUIRE(pthread_attr_destroy(&attributes) == 0);
    }
    table = new_table();
    call(measure_stack, &size);
    if (!CHECK(size == wanted))
        fprintf(stderr, "    %lu bytes, wanted %lu\n", (unsigned long)size, (unsigned long)wanted);
    etslock_table_free(table);
    return check_report();
}

static void stacks(const char *program)
{
    static const char *const settings[][2] = {{"64", "64"},   {"1024", "1024"}, {"63", "default"},
                                              {"", "default"}, {"-1", "default"}, {"4x", "default"}};
    size_t i;
    CASE("threads: the stacks of workers have the size that is set, or the system's");
    if (SANITIZED || !memory_can_be_measured())
        return; /* these have stacks of their own */
    CHECK(run_again(program, "default") == 0);
    for (i = 0; i < COUNT_OF(settings); i++) {
        REQUIRE(setenv("ETSLOCK_WORKER_STACK_KIB", settings[i][0], 1) == 0);
        CHECK(run_again(program, settings[i][1]) == 0);
    }
    REQUIRE(unsetenv("ETSLOCK_WORKER_STACK_KIB") == 0);
}

int main(int argc, char **argv)
{
    alarm(120); /* a hang is a failure */
    if (argc == 2 && strcmp(argv[1], "trap") == 0)
        return trap();
    if (argc == 2 && (strcmp(argv[1], "default") == 0 || (argv[1][0] >= '0' && argv[1][0] <= '9')))
        return check_stack(argv[1]);
    table = new_table();
    RUN(strangers());
    RUN(main_thread_masks());
    RUN(programs());
    RUN(stacks(argv[0]));
    CASE("C-22: a trapped system call in a callback reaches its handler");
    CHECK(run_again(argv[0], "trap") == 0);
    RUN(signals()); /* sets handlers */
    etslock_table_free(table);
    return check_report();
}
