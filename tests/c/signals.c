/* tsan: skip (it keeps signals back from a thread that waits)
 *
 * signals.c - a storm of signals, each of which interrupts whatever waits. No wait ends early for
 * it, and none is missed. Checks C-1, C-2, C-3, C-4, C-5, C-8, C-11 and C-22.
 *
 * An alarm comes each millisecond, to the main thread as long as that blocks none: it does the
 * waiting. The handler runs there on a stack of its own.
 */
#define _XOPEN_SOURCE 700 /* setitimer, sigaltstack */
#include "check.h"
#include "locks.h"
#include "threads.h"

#include <signal.h>
#include <stdint.h>
#include <sys/time.h>
#include <unistd.h>

enum { TIMEOUT_MS = 100, MANY = 30 };

/* --- the storm --- */

static pthread_t main_thread;
static char stack[1 << 16]; /* the handler's */
static int alarms;          /* taken by the handler */
static int strays;          /* on another stack of the main thread */

static int load(const int *word)
{
    return __atomic_load_n(word, __ATOMIC_SEQ_CST);
}

static void handle(int signal)
{
    uintptr_t here = (uintptr_t)__builtin_frame_address(0);
    (void)signal;
    if (pthread_equal(pthread_self(), main_thread) &&
        (here < (uintptr_t)stack || here >= (uintptr_t)stack + sizeof stack))
        add_one(&strays);
    add_one(&alarms);
}

static void set_handler(int signal, int flags)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = handle;
    action.sa_flags = SA_ONSTACK | flags;
    REQUIRE(sigaction(signal, &action, NULL) == 0);
}

static void set_alarm_each_ms(int64_t ms)
{
    struct itimerval timer;
    memset(&timer, 0, sizeof timer);
    timer.it_value.tv_usec = timer.it_interval.tv_usec = (long)ms * 1000;
    REQUIRE(setitimer(ITIMER_REAL, &timer, NULL) == 0);
}

/* A thread that takes no signal, from its birth on. */
static pthread_t start(void *(*routine)(void *), void *argument)
{
    pthread_t thread;
    sigset_t all, before;
    sigfillset(&all);
    REQUIRE(pthread_sigmask(SIG_SETMASK, &all, &before) == 0);
    REQUIRE(pthread_create(&thread, NULL, routine, argument) == 0);
    REQUIRE(pthread_sigmask(SIG_SETMASK, &before, NULL) == 0);
    return thread;
}

/* A call that takes TIMEOUT_MS. */
#define CHECK_WAITED(call, wanted)                                                                 \
    do {                                                                                           \
        int64_t began_us = now_us(), waited_us;                                                    \
        CHECK_STATUS((call), (wanted));                                                            \
        waited_us = now_us() - began_us;                                                           \
        CHECK(waited_us >= (TIMEOUT_MS - 1) * 1000);                                               \
        CHECK(waited_us < HANGS_MS * 1000);                                                        \
    } while (0)

/* The main thread handles so many, whatever it waits for. */
static void await_alarms(int count)
{
    int enough = load(&alarms) + count;
    WAIT_UNTIL(load(&alarms) >= enough);
}

/* --- waiting for a lock --- */

static etslock_table *table;

static const int32_t queues[] = {ETSLOCK_QUEUE_FAIR, ETSLOCK_QUEUE_FIFO, ETSLOCK_QUEUE_POLLING};

/* What the main thread waits with, for a lock that it holds itself: as another owner. */
static etslock_options as_another(int64_t wait_timeout_ms, int32_t queue)
{
    etslock_options options = patient(NULL);
    options.wait_timeout_ms = wait_timeout_ms;
    options.queue = queue;
    options.owner = 1;
    return options;
}

static void wait_timeouts(void)
{
    static const etslock_key both[] = {{"k", 1}, {"free", 4}};
    etslock_guard *held = hold(table, "k");
    size_t i;
    CASE("C-2: a wait is not shortened by signals");
    for (i = 0; i < COUNT_OF(queues); i++) {
        etslock_options options = as_another(TIMEOUT_MS, queues[i]);
        etslock_guard *guard = NULL;
        CHECK_WAITED(etslock_acquire(table, "k", 1, &options, &guard), ETSLOCK_WAIT_TIMEOUT);
        CHECK_WAITED(etslock_acquire_locks(table, both, 2, &options, &guard), ETSLOCK_WAIT_TIMEOUT);
        CHECK_WAITED(etslock_with_lock(table, "k", 1, must_not_run, NULL, &options, NULL),
                     ETSLOCK_WAIT_TIMEOUT);
        CHECK(count_locks(NULL, table) == 1 && stats_of(NULL).waiting == 0);
    }
    CHECK_STATUS(etslock_guard_cancel(held), ETSLOCK_OK);
}

static void *release_after_many(void *guard)
{
    await_waiting(NULL, 1);
    await_alarms(MANY);
    CHECK(stats_of(NULL).waiting == 1);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    return NULL;
}

static void waits_that_are_granted(void)
{
    size_t i;
    CASE("C-3: a release ends a wait that signals interrupted");
    for (i = 0; i < COUNT_OF(queues); i++) {
        etslock_options options = as_another(ETSLOCK_INFINITE, queues[i]);
        etslock_guard *guard = NULL;
        pthread_t holder = start(release_after_many, hold(table, "k"));
        CHECK_STATUS(etslock_acquire(table, "k", 1, &options, &guard), ETSLOCK_OK);
        REQUIRE(pthread_join(holder, NULL) == 0);
        CHECK_STATUS(etslock_guard_cancel(guard), ETSLOCK_OK);
    }
}

static void release_times(void)
{
    etslock_options late = options_of(0, TIMEOUT_MS / 2, TIMEOUT_MS / 2);
    etslock_options waits = as_another(ETSLOCK_INFINITE, ETSLOCK_QUEUE_FAIR);
    etslock_guard *held, *guard = NULL;
    CASE("C-5: a lock is taken at its release time, and not before");
    held = hold_with(late, table, "k");
    CHECK_WAITED(etslock_acquire(table, "k", 1, &waits, &guard), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_cancel(guard), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_release(held), ETSLOCK_REVOKED);
}

/* --- waiting for a callback --- */

struct scene {
    sem_t leave;
    int ended;
};

static int32_t stay_for_many(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                             void *user_data)
{
    (void)tuples, (void)tuple_count, (void)user_data;
    await_alarms(MANY);
    return etslock_guard_insert(guard, "k", 1, "written", 7);
}

static int32_t stay(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                    void *user_data)
{
    struct scene *scene = user_data;
    (void)guard, (void)tuples, (void)tuple_count;
    REQUIRE(wait_for(&scene->leave));
    return 0;
}

static int32_t outstay(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                       void *user_data)
{
    struct scene *scene = user_data;
    (void)tuples, (void)tuple_count;
    CHECK_STATUS(etslock_guard_sleep(guard, ETSLOCK_INFINITE), ETSLOCK_REVOKED);
    await_alarms(MANY);
    add_one(&scene->ended);
    return 0;
}

static void callbacks(void)
{
    etslock_options options = patient(NULL);
    struct scene scene;
    scene.ended = 0;
    REQUIRE(sem_init(&scene.leave, 0, 0) == 0);

    CASE("C-4: a call waits for its callback, whatever interrupts it");
    CHECK_STATUS(etslock_with_lock(table, "k", 1, stay_for_many, NULL, &options, NULL), ETSLOCK_OK);
    CHECK(has_value(table, "k", "written"));

    CASE("C-4: and until its exec deadline");
    options.exec_timeout_ms = TIMEOUT_MS;
    CHECK_WAITED(etslock_with_lock(table, "k", 1, stay, &scene, &options, NULL),
                 ETSLOCK_EXEC_TIMEOUT);
    sem_post(&scene.leave);
    await_abandoned(0);

    CASE("C-11: JOIN waits for the callback's end");
    options.on_exec_timeout = ETSLOCK_JOIN;
    CHECK_WAITED(etslock_with_lock(table, "k", 1, outstay, &scene, &options, NULL),
                 ETSLOCK_EXEC_TIMEOUT);
    CHECK(load(&scene.ended) == 1);
    sem_destroy(&scene.leave);
}

/* --- sleeping --- */

static void *force_release_after_many(void *unused)
{
    (void)unused;
    await_alarms(MANY);
    CHECK_STATUS(etslock_lock_table_force_release(NULL, table, "k", 1), ETSLOCK_OK);
    return NULL;
}

static int32_t sleep_in_callback(etslock_guard *guard, const etslock_tuple *tuples,
                                 size_t tuple_count, void *user_data)
{
    (void)tuples, (void)tuple_count, (void)user_data;
    CHECK_WAITED(etslock_guard_sleep(guard, TIMEOUT_MS), ETSLOCK_OK);
    return 0;
}

static void sleeps(void)
{
    etslock_guard *guard = hold(table, "k");
    etslock_options options = patient(NULL);
    pthread_t thread;

    CASE("guards: a sleep is not shortened by signals");
    CHECK_WAITED(etslock_guard_sleep(guard, TIMEOUT_MS), ETSLOCK_OK);

    CASE("C-8: but by the loss of the lock");
    thread = start(force_release_after_many, NULL);
    CHECK_STATUS(etslock_guard_sleep(guard, ETSLOCK_INFINITE), ETSLOCK_REVOKED);
    REQUIRE(pthread_join(thread, NULL) == 0);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_REVOKED);

    CASE("C-4: and by the exec deadline");
    guard = hold_with(options_of(0, TIMEOUT_MS, ETSLOCK_INFINITE), table, "k");
    CHECK_WAITED(etslock_guard_sleep(guard, ETSLOCK_INFINITE), ETSLOCK_EXEC_TIMEOUT);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_EXEC_TIMEOUT);

    CASE("guards: the same in a callback");
    CHECK_STATUS(etslock_with_lock(table, "k", 1, sleep_in_callback, NULL, &options, NULL),
                 ETSLOCK_OK);
    options.run_on = ETSLOCK_RUN_ON_CALLER;
    CHECK_STATUS(etslock_with_lock(table, "k", 1, sleep_in_callback, NULL, &options, NULL),
                 ETSLOCK_OK);
}

/* --- writing --- */

static int32_t count_up(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                        void *user_data)
{
    int number = 0;
    (void)user_data;
    if (tuple_count > 0)
        memcpy(&number, tuples->value, sizeof number);
    number++;
    return etslock_guard_insert(guard, "number", 6, &number, sizeof number);
}

static void count_up_often(int times)
{
    etslock_options options = patient(NULL);
    int i;
    for (i = 0; i < times; i++) {
        options.run_on = i % 2 == 0 ? ETSLOCK_RUN_ON_WORKER : ETSLOCK_RUN_ON_CALLER;
        CHECK_STATUS(etslock_with_lock(table, "number", 6, count_up, NULL, &options, NULL),
                     ETSLOCK_OK);
    }
}

static void *count_up_elsewhere(void *times)
{
    count_up_often(*(int *)times);
    return NULL;
}

static void counting(void)
{
    int times = is_small_scale() ? 300 : 3000, number = 0;
    etslock_tuples *tuples = NULL;
    pthread_t thread;
    CASE("C-1: nothing is written twice or not at all");
    CHECK_STATUS(etslock_table_delete(table, "number", 6), ETSLOCK_OK);
    thread = start(count_up_elsewhere, &times);
    count_up_often(times);
    REQUIRE(pthread_join(thread, NULL) == 0);
    CHECK_STATUS(etslock_table_lookup(table, "number", 6, &tuples), ETSLOCK_OK);
    memcpy(&number, etslock_tuples_data(tuples, NULL)->value, sizeof number);
    etslock_tuples_free(tuples);
    CHECK(number == 2 * times);
}

/* --- workers --- */

static int32_t send_a_signal(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                             void *user_data)
{
    (void)guard, (void)tuples, (void)tuple_count, (void)user_data;
    return kill(getpid(), SIGUSR1); /* any thread may take it that does not block it */
}

static void workers_take_no_others_signals(void)
{
    sigset_t set, pending;
    int alarms_before = load(&alarms);
    CASE("C-22: no signal that the main thread blocks is handled on a worker");
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    REQUIRE(pthread_sigmask(SIG_BLOCK, &set, NULL) == 0);
    CHECK_STATUS(etslock_with_lock(table, "k", 1, send_a_signal, NULL, NULL, NULL), ETSLOCK_OK);
    REQUIRE(sigpending(&pending) == 0);
    CHECK(sigismember(&pending, SIGUSR1) == 1 && load(&alarms) == alarms_before);
    REQUIRE(pthread_sigmask(SIG_UNBLOCK, &set, NULL) == 0);
    WAIT_UNTIL(load(&alarms) == alarms_before + 1);
}

int main(void)
{
    static const int flags[] = {0, SA_RESTART};
    stack_t alternate;
    size_t i;
    memset(&alternate, 0, sizeof alternate);
    alternate.ss_sp = stack;
    alternate.ss_size = sizeof stack;
    REQUIRE(sigaltstack(&alternate, NULL) == 0);
    main_thread = pthread_self();
    table = new_table();

    set_handler(SIGUSR1, 0);
    RUN(workers_take_no_others_signals());
    for (i = 0; i < COUNT_OF(flags); i++) {
        set_handler(SIGALRM, flags[i]);
        set_alarm_each_ms(1);
        RUN(wait_timeouts());
        RUN(waits_that_are_granted());
        RUN(release_times());
        RUN(callbacks());
        RUN(sleeps());
        RUN(counting());
        set_alarm_each_ms(0);
    }
    CASE("threads: the handler ran on its own stack");
    CHECK(load(&strays) == 0);
    etslock_table_free(table);
    return check_report();
}
