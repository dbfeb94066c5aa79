/* forks.c - handlers of the program's own around a fork, children that `fork` did not make, what a
 * child's threads are called, and children of children. Checks C-16.
 *
 * The handlers are registered before the first handle is made. Those of a program that loads the
 * library later than it registers its own are in life_dlopen.c.
 */
#define _GNU_SOURCE /* clone, gettid */
#include "check.h"
#include "locks.h"
#include "processes.h"
#include "threads.h"

#include <dlfcn.h>
#include <sys/syscall.h>

static etslock_table *table;
static etslock_lock_table *lock_table;
static etslock_guard *guard; /* of "held" */

/* --- children --- */

/* A child that ends by itself; whether all went well there. */
static int ended_well(pid_t child)
{
    int state = 0;
    REQUIRE(child > 0 && waitpid(child, &state, 0) == child);
    if (WIFSIGNALED(state))
        fprintf(stderr, "    the child ended by signal %d\n", WTERMSIG(state));
    return WIFEXITED(state) && WEXITSTATUS(state) == 0;
}

/* Leak checkers do not look at what a child inherited and cannot free. */
static void end_child(void)
{
    if (__atomic_load_n(&check_failures, __ATOMIC_RELAXED) == 0)
        execlp("true", "true", (char *)NULL);
    _exit(1);
}

/* Every kind of call on inherited handles. Makes no memory, waits for nobody. */
static int is_refused(void)
{
    etslock_options options = options_of(ETSLOCK_INFINITE, ETSLOCK_INFINITE, ETSLOCK_INFINITE);
    etslock_tuples *tuples = NULL;
    etslock_cursor *cursor = NULL;
    etslock_guard *none = NULL;
    etslock_locks *locks = NULL;
    etslock_stats stats;
    int64_t number = 0;
    size_t count = 0;
    int good = 1;
    etslock_stats_init(&stats, sizeof stats);
#define REFUSED(call) good = good && (call) == ETSLOCK_ERR_FORKED
    REFUSED(etslock_table_insert(table, "k", 1, "v", 1));
    REFUSED(etslock_table_lookup(table, "k", 1, &tuples));
    REFUSED(etslock_table_member(table, "k", 1));
    REFUSED(etslock_table_take(table, "k", 1, &tuples));
    REFUSED(etslock_table_clear(table));
    REFUSED(etslock_table_count(table, &count));
    REFUSED(etslock_table_update_counter(table, "n", 1, 1, 1, &number));
    REFUSED(etslock_table_cursor(table, &cursor));
    REFUSED(etslock_acquire(table, "held", 4, &options, &none));
    REFUSED(etslock_with_lock(table, "held", 4, must_not_run, NULL, &options, NULL));
    REFUSED(etslock_guard_insert(guard, "held", 4, "v", 1));
    REFUSED(etslock_guard_lookup(guard, "held", 4, &tuples));
    REFUSED(etslock_guard_status(guard));
    REFUSED(etslock_guard_sleep(guard, 1));
    REFUSED(etslock_guard_release(guard));
    REFUSED(etslock_lock_table_stats(lock_table, &stats));
    REFUSED(etslock_lock_table_locks(lock_table, table, &locks));
    REFUSED(etslock_lock_table_force_release(lock_table, table, "held", 4));
#undef REFUSED
    etslock_table_free(table);
    etslock_lock_table_free(lock_table);
    return good;
}

/* --- handlers of the program's own --- */

static int insert_before; /* in the prepare handler */
static int ask_another;   /* which waits for a thread that makes its first call */
static int look_after;    /* in the child handler */
static etslock_table *made_in_handler;
static sem_t asked, answered;

static void before_fork(void)
{
    if (insert_before)
        CHECK_STATUS(etslock_table_insert(table, "log", 3, "v", 1), ETSLOCK_OK);
    if (ask_another) {
        sem_post(&asked);
        REQUIRE(wait_for(&answered));
    }
}

static void in_parent(void)
{
    if (insert_before)
        CHECK_STATUS(etslock_table_insert(table, "log", 3, "w", 1), ETSLOCK_OK);
}

static void in_child(void)
{
    alarm(20); /* so that a child that hangs ends */
    if (look_after) {
        CHECK(is_refused());
        made_in_handler = new_table();
        CHECK_STATUS(etslock_table_insert(made_in_handler, "k", 1, "v", 1), ETSLOCK_OK);
    }
}

static void *fork_once(void *unused)
{
    pid_t child = fork();
    (void)unused;
    if (child == 0) {
        CHECK(is_refused());
        if (look_after) {
            CHECK(has_value(made_in_handler, "k", "v"));
            CHECK_STATUS(try_lock(made_in_handler, "k"), ETSLOCK_OK);
        }
        end_child();
    }
    CHECK(ended_well(child));
    return NULL;
}

static void *answer(void *unused)
{
    (void)unused;
    REQUIRE(wait_for(&asked));
    CHECK_STATUS(etslock_table_insert(table, "answer", 6, "v", 1), ETSLOCK_OK);
    sem_post(&answered);
    return NULL;
}

/* On a thread that has not called the library before, and on this one, which has. */
static void fork_on_both(void)
{
    pthread_t thread;
    REQUIRE(pthread_create(&thread, NULL, fork_once, NULL) == 0);
    REQUIRE(pthread_join(thread, NULL) == 0);
    fork_once(NULL);
}

static void handlers(void)
{
    pthread_t thread;
    CASE("C-16: a handler before a fork may call the library");
    insert_before = 1;
    fork_on_both();
    CHECK(has_value(table, "log", "w"));

    CASE("C-16: and wait for a thread that calls it for the first time");
    ask_another = 1;
    REQUIRE(pthread_create(&thread, NULL, answer, NULL) == 0);
    fork_once(NULL);
    REQUIRE(pthread_join(thread, NULL) == 0);
    insert_before = ask_another = 0;

    CASE("C-16: a handler in the child finds that it is one, and what it makes stays");
    look_after = 1;
    fork_on_both();
    look_after = 0;
}

/* --- children that `fork` did not make --- */

static pid_t make_by_clone(void)
{
    return (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
}

static pid_t (*quick_fork)(void); /* `_Fork`, of newer libraries */

static volatile int stop;

static void *be_busy(void *argument)
{
    unsigned seed = *(const unsigned *)argument;
    while (!stop) {
        etslock_guard *mine = NULL;
        unsigned key;
        seed = seed * 1103515245 + 12345;
        key = (seed >> 16) % 4;
        if (etslock_acquire(table, &key, sizeof key, NULL, &mine) == ETSLOCK_OK)
            etslock_guard_release(mine);
        etslock_table_insert(table, &key, sizeof key, "0123456789012345678901", 22);
    }
    return NULL;
}

struct maker {
    pid_t (*make)(void);
    int children;
};

static void *make_children(void *argument)
{
    const struct maker *maker = argument;
    int i;
    for (i = 0; i < maker->children; i++) {
        pid_t child = maker->make();
        if (child == 0) {
            alarm(10);
            _exit(is_refused() ? 0 : 1);
        }
        CHECK(ended_well(child));
    }
    return NULL;
}

static void other_children(const char *how, pid_t (*make)(void))
{
    static const unsigned seeds[] = {1, 2};
    struct maker maker;
    pthread_t busy[COUNT_OF(seeds)], fresh;
    size_t i;
    CASE(how);
    maker.make = make;
    maker.children = is_small_scale() ? 5 : 100;
    stop = 0;
    for (i = 0; i < COUNT_OF(seeds); i++)
        REQUIRE(pthread_create(&busy[i], NULL, be_busy, (void *)&seeds[i]) == 0);
    make_children(&maker);
    REQUIRE(pthread_create(&fresh, NULL, make_children, &maker) == 0);
    REQUIRE(pthread_join(fresh, NULL) == 0);
    stop = 1;
    for (i = 0; i < COUNT_OF(seeds); i++)
        REQUIRE(pthread_join(busy[i], NULL) == 0);
}

/* --- what is remembered --- */

static uint64_t thread_id_of_a_lock(etslock_table *any)
{
    etslock_guard *mine = hold(any, "mine");
    etslock_locks *locks = locks_of(NULL, any);
    etslock_lock_info info;
    REQUIRE(find_lock(locks, "mine", &info));
    etslock_locks_free(locks);
    CHECK_STATUS(etslock_guard_cancel(mine), ETSLOCK_OK);
    return info.thread_id;
}

static int32_t look_at_thread_id(etslock_guard *lent, const etslock_tuple *tuples,
                                 size_t tuple_count, void *any)
{
    (void)lent, (void)tuples, (void)tuple_count;
    CHECK(thread_id_of_a_lock(any) == (uint64_t)syscall(SYS_gettid));
    return 0;
}

static void check_thread_ids(void)
{
    etslock_table *fresh = new_table();
    etslock_options options = patient(NULL);
    CHECK(thread_id_of_a_lock(fresh) == (uint64_t)syscall(SYS_gettid));
    CHECK_STATUS(etslock_with_lock(fresh, "k", 1, look_at_thread_id, fresh, &options, NULL),
                 ETSLOCK_OK);
    options.run_on = ETSLOCK_RUN_ON_CALLER;
    CHECK_STATUS(etslock_with_lock(fresh, "k", 1, look_at_thread_id, fresh, &options, NULL),
                 ETSLOCK_OK);
    etslock_table_free(fresh);
}

static void *check_thread_ids_and_fork(void *unused)
{
    pid_t child;
    (void)unused;
    check_thread_ids();
    child = fork();
    if (child == 0) {
        pid_t grandchild;
        check_thread_ids();
        grandchild = fork();
        if (grandchild == 0) {
            check_thread_ids();
            end_child();
        }
        CHECK(ended_well(grandchild));
        end_child();
    }
    CHECK(ended_well(child));
    return NULL;
}

static void thread_ids(void)
{
    pthread_t thread;
    CASE("C-16: a child's threads have the numbers by which the system knows them");
    check_thread_ids_and_fork(NULL);
    REQUIRE(pthread_create(&thread, NULL, check_thread_ids_and_fork, NULL) == 0);
    REQUIRE(pthread_join(thread, NULL) == 0);
}

/* The fastest of many: what a call costs when nothing is in its way. */
static int64_t cost_of_calls(void)
{
    etslock_table *fresh = new_table();
    int64_t best = INT64_MAX;
    int round, i;
    for (round = 0; round < 100; round++) {
        int64_t began = now_us(), took;
        for (i = 0; i < 500; i++) {
            etslock_guard *mine = NULL;
            etslock_acquire(fresh, "k", 1, NULL, &mine);
            etslock_guard_release(mine);
        }
        took = now_us() - began;
        best = took < best ? took : best;
    }
    etslock_table_free(fresh);
    return best;
}

static void lines_of_forks(void)
{
    int generations = is_small_scale() ? 20 : 200, generation;
    int64_t first = cost_of_calls();
    CASE("C-16: calls cost the same in every generation");
    for (generation = 0; generation < generations; generation++) {
        pid_t child = fork();
        if (child != 0) {
            if (generation == 0) {
                CHECK(ended_well(child));
                return;
            }
            _exit(ended_well(child) ? 0 : 1);
        }
        alarm(100);
        CHECK_STATUS(try_lock(new_table(), "k"), ETSLOCK_OK);
    }
    {
        int64_t last = cost_of_calls();
        if (!CHECK(last < 2 * first + 50))
            fprintf(stderr, "    500 calls: %lld us, and %lld us after %d forks\n",
                    (long long)first, (long long)last, generations);
    }
    end_child();
}

int main(void)
{
    void *symbol = dlsym(RTLD_DEFAULT, "_Fork");
    alarm(300); /* a hang is a failure */
    REQUIRE(pthread_atfork(before_fork, in_parent, in_child) == 0);
    REQUIRE(sem_init(&asked, 0, 0) == 0 && sem_init(&answered, 0, 0) == 0);
    table = new_table();
    lock_table = new_lock_table();
    CHECK_STATUS(etslock_table_insert(table, "k", 1, "v", 1), ETSLOCK_OK);
    guard = hold(table, "held");

    RUN(handlers());
    RUN(other_children("C-16: a child made by clone finds that it is one", make_by_clone));
    if (symbol != NULL) {
        memcpy(&quick_fork, &symbol, sizeof symbol);
        RUN(other_children("C-16: a child made by _Fork finds that it is one", quick_fork));
    }
    RUN(thread_ids());
    RUN(lines_of_forks());

    CHECK_STATUS(etslock_guard_cancel(guard), ETSLOCK_OK);
    etslock_lock_table_free(lock_table);
    etslock_table_free(table);
    return check_report();
}
