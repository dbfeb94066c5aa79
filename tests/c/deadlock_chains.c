/* deadlock_chains.c - long chains of waiters, and many waits of one owner. Checks C-13 and C-23.
 *
 * Chains are built from both ends and by joining, on the smallest stacks there are. What is measured is
 * the processor time of the waiters' threads, beside that of as many waits that are no chain: a search
 * for each wait that goes through all the others would be many times as much.
 */
#define _GNU_SOURCE
#include "check.h"
#include "locks.h"

#include <limits.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SMALL_STACK ((size_t)16 * 1024)

static etslock_status acquire(etslock_table *table, uint32_t key, uint64_t owner,
                              etslock_guard **out_guard)
{
    etslock_options options = patient(NULL);
    options.owner = owner;
    return etslock_acquire(table, &key, sizeof key, &options, out_guard);
}

static etslock_guard *hold_key(etslock_table *table, uint32_t key, uint64_t owner)
{
    etslock_guard *guard = NULL;
    REQUIRE(acquire(table, key, owner, &guard) == ETSLOCK_OK);
    return guard;
}

/* Of this thread. */
static int64_t cpu_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static uint64_t waiting(void)
{
    return stats_of(NULL).waiting;
}

/* One who waits for `wants` with an owner of its own. */
struct link {
    pthread_t thread;
    etslock_table *table;
    uint32_t wants;
    uint64_t owner;
    pid_t id; /* as the system numbers it; 0 before it runs */
    int64_t used_us;
    etslock_status status;
};

static void *wait_for_it(void *argument)
{
    struct link *link = argument;
    etslock_guard *guard = NULL;
    etslock_status status;
    int64_t begin;
    /* What a thread's first call costs is not asked for. */
    try_lock(link->table, "a key of nobody else");
    begin = cpu_us();
    __atomic_store_n(&link->id, (pid_t)syscall(SYS_gettid), __ATOMIC_RELEASE);
    status = acquire(link->table, link->wants, link->owner, &guard);
    __atomic_store_n(&link->status, status, __ATOMIC_RELEASE);
    link->used_us = cpu_us() - begin;
    if (status == ETSLOCK_OK)
        CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    return NULL;
}

/* Whether the system has put it to sleep. WHY: it tells the order of waits that are many; statistics
 * look at every lock. That a thread may sleep for another reason costs no more than the order.
 */
static int sleeps(struct link *link)
{
    char path[64];
    char text[128];
    ssize_t length;
    const char *state;
    int file;
    pid_t id = __atomic_load_n(&link->id, __ATOMIC_ACQUIRE);
    if (id == 0)
        return 0;
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", (int)id);
    file = open(path, O_RDONLY);
    if (file < 0)
        return 0;
    length = read(file, text, sizeof text - 1);
    close(file);
    if (length <= 0)
        return 0;
    text[length] = '\0';
    state = strrchr(text, ')');
    return state != NULL && state[1] == ' ' && state[2] == 'S';
}

static void start(struct link *link, etslock_table *table, uint32_t wants, uint64_t owner)
{
    pthread_attr_t attributes;
    size_t stack = SMALL_STACK < (size_t)PTHREAD_STACK_MIN ? (size_t)PTHREAD_STACK_MIN : SMALL_STACK;
    link->table = table;
    link->wants = wants;
    link->owner = owner;
    REQUIRE(pthread_attr_init(&attributes) == 0);
    REQUIRE(pthread_attr_setstacksize(&attributes, stack) == 0);
    REQUIRE(pthread_create(&link->thread, &attributes, wait_for_it, link) == 0);
    pthread_attr_destroy(&attributes);
}

enum order { APART, FROM_THE_HEAD, FROM_THE_END, JOINED };

/* Owner i holds key i and waits for key i + 1; owner n holds key n and does not wait. Which owner begins
 * to wait as the k-th.
 */
static uint32_t turn(enum order order, uint32_t k, uint32_t n)
{
    uint32_t half = n / 2;
    switch (order) {
    case FROM_THE_HEAD: /* each new one waits for the head of the chain */
        return n - 1 - k;
    case APART:
    case FROM_THE_END: /* the end of the chain begins to wait for one more */
        return k;
    default: /* two chains, and in the end a link between them */
        if (k < half)
            return half - 1 - k;
        return k < n - 1 ? n - 1 - (k - half) : half;
    }
}

/* Builds a chain of n waits, closes it, and takes it apart. Processor time of all. */
static int64_t chain(enum order order, uint32_t n)
{
    etslock_table *table = new_table();
    struct link *links = calloc(n, sizeof *links);
    etslock_guard **guards = calloc(n + 1, sizeof(etslock_guard *));
    etslock_guard *refused = NULL;
    uint64_t deadlocks = stats_of(NULL).deadlocks;
    uint32_t k;
    int64_t begin;
    int64_t used = 0;
    REQUIRE(links != NULL && guards != NULL);
    for (k = 0; k <= n; k++)
        guards[k] = hold_key(table, k, k + 1);
    for (k = 0; k < n; k++) {
        uint32_t i = turn(order, k, n);
        start(&links[i], table, i + 1, order == APART ? n + 2 + i : i + 1);
        while (!sleeps(&links[i]))
            sleep_us(10);
    }
    WAIT_UNTIL(waiting() == n);

    /* The one that closes it is refused at once, and nobody else. */
    begin = now_ms();
    if (order != APART) {
        CHECK_STATUS(acquire(table, 0, n + 1, &refused), ETSLOCK_DEADLOCK);
        CHECK(now_ms() - begin < 2000);
        CHECK(stats_of(NULL).deadlocks == deadlocks + 1);
    }
    CHECK(waiting() == n);
    for (k = 0; k <= n; k++)
        CHECK_STATUS(etslock_guard_release(guards[k]), ETSLOCK_OK);
    for (k = 0; k < n; k++) {
        REQUIRE(pthread_join(links[k].thread, NULL) == 0);
        CHECK_STATUS(links[k].status, ETSLOCK_OK);
        used += links[k].used_us;
    }
    CHECK(waiting() == 0);
    free(links);
    free(guards);
    etslock_table_free(table);
    return used;
}

/* Whether a chain costs about what as many waits cost that are no chain. WHY: three attempts, since other
 * programs run beside this one. What grows as the square fails all of them.
 */
static void costs_no_more_than_apart(enum order order, const char *name)
{
    uint32_t n = is_small_scale() ? 100 : 3000;
    int attempts = is_small_scale() ? 1 : 3;
    int is_cheap = 0;
    while (attempts-- > 0 && !is_cheap) {
        int64_t apart = chain(APART, n);
        int64_t used = chain(order, n);
        printf("%u waits apart: %lld us, %s: %lld us\n", n, (long long)apart, name, (long long)used);
        is_cheap = used < 3 * apart;
    }
    CHECK(is_cheap || is_small_scale());
}

int main(void)
{
    alarm(300);
    CASE("C-13: a chain that grows at its head");
    RUN(costs_no_more_than_apart(FROM_THE_HEAD, "a chain that grows at its head"));
    CASE("C-13: a chain that grows at its end");
    RUN(costs_no_more_than_apart(FROM_THE_END, "a chain that grows at its end"));
    CASE("C-13: two chains that are joined");
    RUN(costs_no_more_than_apart(JOINED, "two chains that are joined"));
    return check_report();
}
