/* stopped.c - a process that is stopped, and goes on when its deadlines have passed. Checks C-2,
 * C-4, C-5, C-6, C-8, C-10, C-11 and C-12.
 *
 * The child brings calls, guards and waiters of every kind into place, most of them with a
 * deadline, and stops itself; its parent lets it go on. Then everything ends as the clock asks for,
 * nothing late is written, and what has no deadline goes on as if nothing had been.
 */
#include "check.h"
#include "locks.h"
#include "processes.h"
#include "threads.h"

/* Ample time to bring everything into place, and a stop that is longer. */
enum { DEADLINE_MS = 1500, STOPPED_MS = 2000 };

static etslock_table *table;

/* --- calls: a key and a callback each --- */

/* Waits to be told to leave, sleeps until it has lost its lock, or stays until it is killed. */
enum inside { WAITS, SLEEPS, STAYS };

struct call {
    const char *key;
    int64_t exec_timeout_ms;
    int32_t run_on, on_exec_timeout;
    enum inside inside;
    etslock_status wanted;

    pthread_t thread;
    sem_t entered, leave;
    int ran_out, frees;
    etslock_status status;
};

static struct call calls[] = {
    {.key = "abandoned", .exec_timeout_ms = DEADLINE_MS, .wanted = ETSLOCK_EXEC_TIMEOUT},
    {.key = "joined", .exec_timeout_ms = DEADLINE_MS, .wanted = ETSLOCK_EXEC_TIMEOUT,
     .on_exec_timeout = ETSLOCK_JOIN},
    {.key = "asleep", .exec_timeout_ms = DEADLINE_MS, .wanted = ETSLOCK_EXEC_TIMEOUT,
     .on_exec_timeout = ETSLOCK_JOIN, .inside = SLEEPS},
    {.key = "killed", .exec_timeout_ms = DEADLINE_MS, .wanted = ETSLOCK_EXEC_TIMEOUT,
     .on_exec_timeout = ETSLOCK_KILL, .inside = STAYS},
    {.key = "late on caller", .exec_timeout_ms = DEADLINE_MS, .wanted = ETSLOCK_EXEC_TIMEOUT,
     .run_on = ETSLOCK_RUN_ON_CALLER},
    {.key = "patient", .exec_timeout_ms = ETSLOCK_INFINITE, .wanted = ETSLOCK_OK},
    {.key = "patient on caller", .exec_timeout_ms = ETSLOCK_INFINITE, .wanted = ETSLOCK_OK,
     .run_on = ETSLOCK_RUN_ON_CALLER},
};

static int32_t callback(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                        void *user_data)
{
    struct call *call = user_data;
    size_t len = strlen(call->key);
    int in_time = call->wanted == ETSLOCK_OK;
    (void)tuples, (void)tuple_count;
    CHECK_STATUS(etslock_guard_insert(guard, call->key, len, "written", 7), ETSLOCK_OK);
    sem_post(&call->entered);
    switch (call->inside) {
    case WAITS:
        REQUIRE(wait_for(&call->leave));
        break;
    case SLEEPS:
        CHECK_STATUS(etslock_guard_sleep(guard, ETSLOCK_INFINITE), ETSLOCK_REVOKED);
        break;
    case STAYS:
        sleep_ms(600000);
    }
    CHECK((etslock_guard_commit(guard) == ETSLOCK_OK) == in_time);
    CHECK((etslock_guard_insert(guard, call->key, len, "written", 7) == ETSLOCK_OK) == in_time);
    add_one(&call->ran_out);
    return 0;
}

static void free_call(void *user_data)
{
    add_one(&((struct call *)user_data)->frees);
}

static void *make_call(void *argument)
{
    struct call *call = argument;
    etslock_options options = patient(NULL);
    options.exec_timeout_ms = call->exec_timeout_ms;
    options.fail_timeout_ms = ETSLOCK_INFINITE;
    options.run_on = call->run_on;
    options.on_exec_timeout = call->on_exec_timeout;
    options.user_data_free = free_call;
    call->status = etslock_with_lock(table, call->key, strlen(call->key), callback, call,
                                     &options, NULL);
    return NULL;
}

static void begin_calls(void)
{
    size_t i;
    for (i = 0; i < COUNT_OF(calls); i++) {
        struct call *call = &calls[i];
        REQUIRE(sem_init(&call->entered, 0, 0) == 0 && sem_init(&call->leave, 0, 0) == 0);
        REQUIRE(pthread_create(&call->thread, NULL, make_call, call) == 0);
        REQUIRE(wait_for(&call->entered));
    }
}

static void end_calls(void)
{
    size_t i;
    for (i = 0; i < COUNT_OF(calls); i++)
        sem_post(&calls[i].leave);
    for (i = 0; i < COUNT_OF(calls); i++) {
        struct call *call = &calls[i];
        CASE(call->key);
        REQUIRE(pthread_join(call->thread, NULL) == 0);
        CHECK_STATUS(call->status, call->wanted);
        WAIT_UNTIL(__atomic_load_n(&call->frees, __ATOMIC_SEQ_CST) > 0);
    }
    await_abandoned(0);
    for (i = 0; i < COUNT_OF(calls); i++) {
        struct call *call = &calls[i];
        CASE(call->key);
        CHECK(call->frees == 1);
        CHECK(call->ran_out == (call->inside != STAYS));
        CHECK(has_value(table, call->key, "written") == (call->wanted == ETSLOCK_OK));
        CHECK_STATUS(try_lock(table, call->key), ETSLOCK_OK);
        sem_destroy(&call->entered);
        sem_destroy(&call->leave);
    }
}

/* --- guards, held by the main thread --- */

static etslock_guard *late, *overdue, *extended, *held;

static etslock_guard *hold_and_write(const char *key, int64_t exec_timeout_ms,
                                     int64_t fail_timeout_ms)
{
    etslock_guard *guard = hold_with(options_of(0, exec_timeout_ms, fail_timeout_ms), table, key);
    CHECK_STATUS(etslock_guard_insert(guard, key, strlen(key), "written", 7), ETSLOCK_OK);
    return guard;
}

static void begin_guards(void)
{
    late = hold_and_write("late", DEADLINE_MS, ETSLOCK_INFINITE);
    overdue = hold_and_write("overdue", DEADLINE_MS / 2, DEADLINE_MS / 2);
    extended = hold_and_write("extended", DEADLINE_MS, 0);
    CHECK_STATUS(etslock_guard_extend(extended, STOPPED_MS + HANGS_MS), ETSLOCK_OK);
    held = hold_and_write("held", ETSLOCK_INFINITE, ETSLOCK_INFINITE);
}

/* --- waiters for them --- */

struct waiter {
    const char *key;
    int64_t wait_timeout_ms;
    int32_t queue;
    etslock_status wanted;

    pthread_t thread;
    etslock_status status;
};

static struct waiter waiters[] = {
    {.key = "overdue", .wait_timeout_ms = ETSLOCK_INFINITE, .wanted = ETSLOCK_OK},
    {.key = "held", .wait_timeout_ms = DEADLINE_MS, .wanted = ETSLOCK_WAIT_TIMEOUT},
    {.key = "held", .wait_timeout_ms = DEADLINE_MS, .wanted = ETSLOCK_WAIT_TIMEOUT,
     .queue = ETSLOCK_QUEUE_FIFO},
    {.key = "held", .wait_timeout_ms = DEADLINE_MS, .wanted = ETSLOCK_WAIT_TIMEOUT,
     .queue = ETSLOCK_QUEUE_POLLING},
    {.key = "held", .wait_timeout_ms = ETSLOCK_INFINITE, .wanted = ETSLOCK_OK},
};

static void *await_lock(void *argument)
{
    struct waiter *waiter = argument;
    etslock_options options = patient(NULL);
    etslock_guard *guard = NULL;
    options.wait_timeout_ms = waiter->wait_timeout_ms;
    options.queue = waiter->queue;
    waiter->status =
        etslock_acquire(table, waiter->key, strlen(waiter->key), &options, &guard);
    if (guard != NULL)
        CHECK_STATUS(etslock_guard_cancel(guard), ETSLOCK_OK);
    return NULL;
}

static void begin_waiters(void)
{
    size_t i;
    for (i = 0; i < COUNT_OF(waiters); i++)
        REQUIRE(pthread_create(&waiters[i].thread, NULL, await_lock, &waiters[i]) == 0);
    await_waiting(NULL, COUNT_OF(waiters));
}

static void end_waiter(struct waiter *waiter)
{
    REQUIRE(pthread_join(waiter->thread, NULL) == 0);
    CHECK_STATUS(waiter->status, waiter->wanted);
}

static void end_waiters_and_guards(void)
{
    enum { LAST = COUNT_OF(waiters) - 1 };
    size_t i;

    CASE("C-2, C-5: waits end at their timeout, or with a lock that is overdue");
    for (i = 0; i < LAST; i++)
        end_waiter(&waiters[i]);
    CHECK(stats_of(NULL).waiting == 1);
    CASE("C-2: a wait without end goes on, and ends with the lock");
    CHECK_STATUS(etslock_guard_release(held), ETSLOCK_OK);
    end_waiter(&waiters[LAST]);
    CHECK(has_value(table, "held", "written"));

    CASE("C-6: a late guard publishes nothing");
    CHECK(etslock_guard_remaining_ms(late) == 0);
    CHECK_STATUS(etslock_guard_insert(late, "late", 4, "later", 5), ETSLOCK_EXEC_TIMEOUT);
    CHECK_STATUS(etslock_guard_commit(late), ETSLOCK_EXEC_TIMEOUT);
    CHECK_STATUS(etslock_guard_extend(late, HANGS_MS), ETSLOCK_EXEC_TIMEOUT);
    CHECK_STATUS(try_lock(table, "late"), ETSLOCK_WAIT_TIMEOUT); /* it has no release time */
    CHECK_STATUS(etslock_guard_release(late), ETSLOCK_EXEC_TIMEOUT);
    CASE("C-8: nor does a revoked one");
    CHECK_STATUS(etslock_guard_release(overdue), ETSLOCK_REVOKED);
    CHECK_STATUS(etslock_table_member(table, "late", 4), ETSLOCK_NOT_FOUND);
    CHECK_STATUS(etslock_table_member(table, "overdue", 7), ETSLOCK_NOT_FOUND);
    CASE("C-4: an extended one is in time");
    CHECK_STATUS(etslock_guard_release(extended), ETSLOCK_OK);
    CHECK(has_value(table, "extended", "written"));
}

/* --- the two processes --- */

static int child(void)
{
    etslock_stats stats;
    int64_t stopped_at;
    alarm(60); /* a hang is a failure */
    table = new_table();
    begin_guards();
    begin_calls();
    begin_waiters();
    stopped_at = now_ms();
    REQUIRE(raise(SIGSTOP) == 0); /* the whole process */
    CHECK(now_ms() - stopped_at >= STOPPED_MS - 1);
    end_calls();
    end_waiters_and_guards();

    CASE("every lock can be had");
    stats = stats_of(NULL);
    CHECK(stats.held == 0 && stats.waiting == 0 && stats.abandoned == 0);
    CHECK_STATUS(try_lock(table, "late"), ETSLOCK_OK);
    CHECK_STATUS(try_lock(table, "overdue"), ETSLOCK_OK);
    CHECK_STATUS(try_lock(table, "extended"), ETSLOCK_OK);
    CHECK_STATUS(try_lock(table, "held"), ETSLOCK_OK);
    etslock_table_free(table);
    return check_report();
}

/* The child has stopped or ended. */
static int state_of(pid_t pid)
{
    int state = 0;
    WAIT_UNTIL(waitpid(pid, &state, WNOHANG | WUNTRACED) == pid);
    return state;
}

static void a_stopped_process(const char *program)
{
    pid_t pid;
    int state;
    CASE("a process that was stopped past its deadlines (see the child's report)");
    pid = fork();
    REQUIRE(pid >= 0);
    if (pid == 0) {
        execlp(program, program, "child", (char *)NULL);
        _exit(127);
    }
    state = state_of(pid);
    if (CHECK(WIFSTOPPED(state))) {
        sleep_ms(STOPPED_MS);
        REQUIRE(kill(pid, SIGCONT) == 0);
        state = state_of(pid);
    }
    CHECK(WIFEXITED(state) && WEXITSTATUS(state) == EXIT_SUCCESS);
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "child") == 0)
        return child();
    RUN(a_stopped_process(argv[0]));
    return check_report();
}
