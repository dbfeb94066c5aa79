/* tokens.c - fencing tokens: unique, growing by key and from one life of a program to the next,
 * raised on demand; locks that are taken away by their token. Checks C-21, and what C-4, C-5 and
 * C-6 say of a lock that the clock takes away in the moment it is got.
 */
#include "check.h"
#include "locks.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#define KEY(text) {(text), sizeof(text) - 1}

static uint64_t token_of_next_lock(etslock_table *table, const char *key)
{
    etslock_guard *guard = hold(table, key);
    uint64_t token = etslock_guard_token(guard);
    CHECK_STATUS(etslock_guard_cancel(guard), ETSLOCK_OK);
    return token;
}

/* --- threads --- */

enum { THREADS = 4, SHARED = 24, MOST_KEYS = 4 };

struct drawer {
    pthread_t thread;
    etslock_table *table;
    etslock_table *other;
    uint32_t random;
    uint64_t *tokens;
    size_t count;
};

static char shared_names[SHARED][4];
static uint64_t last_of_key[2][SHARED]; /* touched by the holder of the key's lock */

static uint32_t next_random(uint32_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

/* The token is larger than that of the holder before, of each key. */
static void check_growth(uint64_t *last, uint64_t token)
{
    if (*last >= token)
        CHECK(!"a token that is not larger than that of an earlier lock of its key");
    *last = token;
}

static void *draw_tokens(void *argument)
{
    struct drawer *drawer = argument;
    etslock_options options = patient(NULL);
    size_t i;
    for (i = 0; i < drawer->count; i++) {
        etslock_table_key keys[MOST_KEYS];
        size_t number[MOST_KEYS];
        int in_other[MOST_KEYS];
        size_t count = 1 + next_random(&drawer->random) % MOST_KEYS;
        etslock_guard *guard = NULL;
        etslock_status status;
        size_t k;
        for (k = 0; k < count; k++) {
            number[k] = next_random(&drawer->random) % SHARED;
            in_other[k] = count == 3 && next_random(&drawer->random) % 2;
            keys[k].table = in_other[k] ? drawer->other : drawer->table;
            keys[k].key = shared_names[number[k]];
            keys[k].key_len = 3;
        }
        if (count == 1)
            status = etslock_acquire(drawer->table, keys[0].key, 3, &options, &guard);
        else
            status = etslock_acquire_locks_across(keys, count, &options, &guard);
        if (status != ETSLOCK_OK) {
            CHECK_STATUS(status, ETSLOCK_OK);
            return NULL;
        }
        drawer->tokens[i] = etslock_guard_token(guard);
        for (k = 0; k < count; k++) {
            size_t before;
            for (before = 0; before < k; before++)
                if (number[before] == number[k] && in_other[before] == in_other[k])
                    break;
            if (before == k)
                check_growth(&last_of_key[in_other[k]][number[k]], drawer->tokens[i]);
        }
        etslock_guard_cancel(guard);
    }
    return NULL;
}

static int by_number(const void *a, const void *b)
{
    uint64_t one = *(const uint64_t *)a;
    uint64_t other = *(const uint64_t *)b;
    return one < other ? -1 : one > other;
}

static void unique_and_growing(void)
{
    size_t each = is_small_scale() ? 2000 : 60000;
    uint64_t *tokens = calloc(THREADS * each, sizeof *tokens);
    struct drawer drawers[THREADS];
    size_t i;

    CASE("C-21: one key and several, by several threads: no token twice, and they grow by key");
    REQUIRE(tokens != NULL);
    for (i = 0; i < SHARED; i++)
        snprintf(shared_names[i], sizeof shared_names[i], "k%02u", (unsigned)i);
    for (i = 0; i < THREADS; i++) {
        memset(&drawers[i], 0, sizeof drawers[i]);
        drawers[i].random = 2463534242u + (uint32_t)i * 7919u;
        drawers[i].tokens = tokens + i * each;
        drawers[i].count = each;
    }
    drawers[0].table = new_table();
    drawers[0].other = new_table();
    for (i = 0; i < THREADS; i++) {
        drawers[i].table = drawers[0].table;
        drawers[i].other = drawers[0].other;
        REQUIRE(pthread_create(&drawers[i].thread, NULL, draw_tokens, &drawers[i]) == 0);
    }
    for (i = 0; i < THREADS; i++)
        REQUIRE(pthread_join(drawers[i].thread, NULL) == 0);
    qsort(tokens, THREADS * each, sizeof *tokens, by_number);
    CHECK(tokens[0] != 0);
    for (i = 1; i < THREADS * each; i++)
        if (tokens[i - 1] == tokens[i])
            CHECK(!"a token that two guards have");
    free(tokens);
    etslock_table_free(drawers[0].table);
    etslock_table_free(drawers[0].other);
}

/* Disjoint keys: nothing but the tokens themselves orders these threads. */
static void *draw_apart(void *argument)
{
    struct drawer *drawer = argument;
    etslock_options options = patient(NULL);
    size_t i;
    for (i = 0; i < drawer->count; i++) {
        char names[2][24];
        etslock_key keys[2];
        etslock_guard *guard = NULL;
        int k;
        for (k = 0; k < 2; k++) {
            unsigned number = (unsigned)(next_random(&drawer->random) % 64);
            keys[k].key = names[k];
            keys[k].key_len = (size_t)snprintf(names[k], sizeof names[k], "%p-%u",
                                               (void *)drawer, number);
        }
        REQUIRE(etslock_acquire_locks(drawer->table, keys, 2, &options, &guard) == ETSLOCK_OK);
        drawer->tokens[i] = etslock_guard_token(guard);
        etslock_guard_cancel(guard);
    }
    return NULL;
}

static void unique_on_disjoint_keys(void)
{
    size_t each = is_small_scale() ? 2000 : 200000;
    uint64_t *tokens = calloc(2 * each, sizeof *tokens);
    struct drawer drawers[2];
    etslock_table *table = new_table();
    size_t i;

    CASE("C-21: two threads with several keys each, none in common: no token twice");
    REQUIRE(tokens != NULL);
    for (i = 0; i < 2; i++) {
        memset(&drawers[i], 0, sizeof drawers[i]);
        drawers[i].table = table;
        drawers[i].random = 88172645u + (uint32_t)i;
        drawers[i].tokens = tokens + i * each;
        drawers[i].count = each;
        REQUIRE(pthread_create(&drawers[i].thread, NULL, draw_apart, &drawers[i]) == 0);
    }
    for (i = 0; i < 2; i++)
        REQUIRE(pthread_join(drawers[i].thread, NULL) == 0);
    qsort(tokens, 2 * each, sizeof *tokens, by_number);
    for (i = 1; i < 2 * each; i++)
        if (tokens[i - 1] == tokens[i])
            CHECK(!"a token that two guards have");
    free(tokens);
    etslock_table_free(table);
}

/* --- processes --- */

/* A life: locks one key and several as fast as it can, and says its first and its last token. */
static int live(void)
{
    const etslock_key keys[] = {KEY("account 7"), KEY("b"), KEY("c"), KEY("d"), KEY("e")};
    etslock_table *table = new_table();
    etslock_options options = patient(NULL);
    uint64_t first = token_of_next_lock(table, "account 7");
    uint64_t last = 0;
    int i;
    for (i = 0; i < (is_small_scale() ? 1000 : 100000); i++) {
        etslock_guard *guard = NULL;
        REQUIRE(etslock_acquire_locks(table, keys, 1 + (size_t)i % COUNT_OF(keys), &options,
                                      &guard) == ETSLOCK_OK);
        last = etslock_guard_token(guard);
        etslock_guard_cancel(guard);
    }
    printf("%" PRIu64 " %" PRIu64 "\n", first, last);
    return EXIT_SUCCESS;
}

static const char *program; /* WHY: not /proc/self/exe, which is valgrind's under valgrind */

static void one_life(uint64_t *first, uint64_t *last)
{
    char said[64] = "";
    size_t length = 0;
    ssize_t got;
    int ends[2];
    int state = 0;
    pid_t child;
    REQUIRE(pipe(ends) == 0);
    child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        dup2(ends[1], STDOUT_FILENO);
        close(ends[0]);
        close(ends[1]);
        execl(program, program, "live", (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    while (length < sizeof said - 1 &&
           ((got = read(ends[0], said + length, sizeof said - 1 - length)) > 0 ||
            (got < 0 && errno == EINTR)))
        length += got > 0 ? (size_t)got : 0;
    close(ends[0]);
    REQUIRE(waitpid(child, &state, 0) == child);
    REQUIRE(WIFEXITED(state) && WEXITSTATUS(state) == EXIT_SUCCESS);
    REQUIRE(sscanf(said, "%" SCNu64 " %" SCNu64, first, last) == 2);
}

static void from_life_to_life(void)
{
    uint64_t seen = 0;
    int life;
    CASE("C-21: tokens grow from one life of a program to the next, however fast it lived");
    for (life = 0; life < 5; life++) {
        uint64_t first = 0;
        uint64_t last = 0;
        one_life(&first, &last);
        CHECK(first > seen);
        CHECK(last > first);
        seen = last;
    }
}

static void in_a_forked_child(void)
{
    etslock_table *table = new_table();
    uint64_t before = token_of_next_lock(table, "k");
    int state = 0;
    pid_t child;
    CASE("C-21: the child of a fork has tokens above those before the fork");
    child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        etslock_table *own = NULL;
        etslock_guard *guard = NULL;
        int good = etslock_table_new(NULL, &own) == ETSLOCK_OK &&
                   etslock_acquire(own, "k", 1, NULL, &guard) == ETSLOCK_OK &&
                   etslock_guard_token(guard) > before;
        _exit(good ? 0 : 1);
    }
    REQUIRE(waitpid(child, &state, 0) == child);
    CHECK(WIFEXITED(state) && WEXITSTATUS(state) == 0);
    CHECK(token_of_next_lock(table, "k") > before);
    etslock_table_free(table);
}

/* --- what is raised --- */

/* Whether locks of keys of every kind have tokens above. */
static int all_are_above(etslock_table *table, uint64_t above)
{
    char name[8];
    int all = 1;
    int i;
    for (i = 0; i < 200; i++) {
        snprintf(name, sizeof name, "%d", i);
        all = all && token_of_next_lock(table, name) > above;
    }
    return all;
}

static void raised(void)
{
    etslock_table *table = new_table();
    uint64_t now = token_of_next_lock(table, "k");
    uint64_t step;

    CASE("C-21: every token after etslock_token_raise is larger");
    for (step = 1; step < ((uint64_t)1 << 40); step *= 1024) {
        CHECK_STATUS(etslock_token_raise(now + step), ETSLOCK_OK);
        CHECK(all_are_above(table, now + step));
        now += step;
    }

    CASE("C-21: raising to less changes nothing");
    now = token_of_next_lock(table, "k");
    CHECK_STATUS(etslock_token_raise(0), ETSLOCK_OK);
    CHECK_STATUS(etslock_token_raise(now / 2), ETSLOCK_OK);
    CHECK(token_of_next_lock(table, "k") > now);

    CASE("C-21: a held lock keeps its token");
    {
        etslock_guard *guard = hold(table, "held");
        uint64_t token = etslock_guard_token(guard);
        CHECK_STATUS(etslock_token_raise(token + 12345), ETSLOCK_OK);
        CHECK(etslock_guard_token(guard) == token);
        CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
        CHECK(token_of_next_lock(table, "held") > token + 12345);
    }

    CASE("C-21: where there would be no room it is refused, and tokens do not wrap");
    now = token_of_next_lock(table, "k");
    CHECK_STATUS(etslock_token_raise(UINT64_MAX), ETSLOCK_ERR_INVALID);
    CHECK_STATUS(etslock_token_raise(UINT64_MAX - 1), ETSLOCK_ERR_INVALID);
    CHECK_STATUS(etslock_token_raise(UINT64_MAX - ((uint64_t)1 << 60) + 1), ETSLOCK_ERR_INVALID);
    CHECK(token_of_next_lock(table, "k") > now);
    CHECK(token_of_next_lock(table, "k") < now + ((uint64_t)1 << 40));

    CASE("C-21: the largest that can be asked for");
    CHECK_STATUS(etslock_token_raise(UINT64_MAX - ((uint64_t)1 << 60)), ETSLOCK_OK);
    CHECK(all_are_above(table, UINT64_MAX - ((uint64_t)1 << 60)));
    {
        const etslock_key keys[] = {KEY("a"), KEY("b"), KEY("c"), KEY("d")};
        uint64_t last = 0;
        int i;
        for (i = 0; i < 1000; i++) {
            etslock_guard *guard = NULL;
            REQUIRE(etslock_acquire_locks(table, keys, 1 + (size_t)i % 4, NULL, &guard) ==
                    ETSLOCK_OK);
            CHECK(etslock_guard_token(guard) > last);
            last = etslock_guard_token(guard);
            etslock_guard_cancel(guard);
        }
    }
    etslock_table_free(table);
}

/* --- force release by token --- */

static void a_successor_is_not_hit(void)
{
    etslock_table *table = new_table();
    etslock_lock_table *other = new_lock_table();
    etslock_options options = patient(NULL);
    etslock_guard *stuck = hold(table, "k");
    etslock_guard *innocent;
    uint64_t seen = etslock_guard_token(stuck);

    CASE("force_release_token: the holder that was meant, and no successor");
    CHECK_STATUS(etslock_guard_release(stuck), ETSLOCK_OK);
    innocent = hold(table, "k");
    CHECK_STATUS(etslock_guard_insert(innocent, "k", 1, "work", 4), ETSLOCK_OK);
    CHECK_STATUS(etslock_lock_table_force_release_token(NULL, table, "k", 1, seen),
                 ETSLOCK_NOT_FOUND);
    CHECK_STATUS(etslock_guard_status(innocent), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_commit(innocent), ETSLOCK_OK);

    CASE("force_release_token: another token, another key, table or lock table, and 0");
    seen = etslock_guard_token(innocent);
    CHECK_STATUS(etslock_lock_table_force_release_token(NULL, table, "k", 1, seen + 1),
                 ETSLOCK_NOT_FOUND);
    CHECK_STATUS(etslock_lock_table_force_release_token(NULL, table, "k", 1, 0),
                 ETSLOCK_NOT_FOUND);
    CHECK_STATUS(etslock_lock_table_force_release_token(NULL, table, "l", 1, seen),
                 ETSLOCK_NOT_FOUND);
    CHECK_STATUS(etslock_lock_table_force_release_token(other, table, "k", 1, seen),
                 ETSLOCK_NOT_FOUND);
    CHECK_STATUS(etslock_lock_table_force_release_token(NULL, NULL, "k", 1, seen),
                 ETSLOCK_ERR_NULL);
    CHECK_STATUS(etslock_lock_table_force_release_token(NULL, table, NULL, 1, seen),
                 ETSLOCK_ERR_NULL);
    CHECK_STATUS(etslock_lock_table_force_release_token(NULL, table, "k", SIZE_MAX, seen),
                 ETSLOCK_ERR_INVALID);
    CHECK_STATUS(etslock_guard_status(innocent), ETSLOCK_OK);

    CASE("force_release_token: the holder itself is revoked, and the lock is free");
    CHECK_STATUS(etslock_lock_table_force_release_token(NULL, table, "k", 1, seen), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_status(innocent), ETSLOCK_REVOKED);
    CHECK_STATUS(try_lock(table, "k"), ETSLOCK_OK);
    CHECK_STATUS(etslock_lock_table_force_release_token(NULL, table, "k", 1, seen),
                 ETSLOCK_NOT_FOUND);
    CHECK_STATUS(etslock_guard_release(innocent), ETSLOCK_REVOKED);
    CHECK(has_value(table, "k", "work"));

    CASE("force_release_token: by any key of several, all go");
    {
        const etslock_key keys[] = {KEY("a"), KEY("b")};
        etslock_guard *guard = NULL;
        REQUIRE(etslock_acquire_locks(table, keys, 2, &options, &guard) == ETSLOCK_OK);
        CHECK_STATUS(etslock_lock_table_force_release_token(NULL, table, "b", 1,
                                                            etslock_guard_token(guard)),
                     ETSLOCK_OK);
        CHECK(count_locks(NULL, table) == 0);
        CHECK_STATUS(etslock_guard_cancel(guard), ETSLOCK_OK);
    }
    etslock_lock_table_free(other);
    etslock_table_free(table);
}

struct waiter {
    pthread_t thread;
    etslock_table *table;
    etslock_status status;
};

static void *wait_for_both(void *argument)
{
    const etslock_key keys[] = {KEY("a"), KEY("b")};
    struct waiter *waiter = argument;
    etslock_options options = patient(NULL);
    etslock_guard *guard = NULL;
    waiter->status = etslock_acquire_locks(waiter->table, keys, 2, &options, &guard);
    if (waiter->status == ETSLOCK_OK)
        etslock_guard_cancel(guard);
    return NULL;
}

static void who_still_waits_has_no_token(void)
{
    int held;
    CASE("force_release_token: 0 does not hit a holder that waits for more keys");
    for (held = 0; held < 2; held++) {
        /* Which of the two keys is taken first is the library's affair. */
        const char *names[] = {"a", "b"};
        etslock_table *table = new_table();
        etslock_options options = patient(NULL);
        etslock_guard *other;
        struct waiter waiter;
        options.owner = etslock_owner_none();
        other = hold_with(options, table, names[held]);
        waiter.table = table;
        REQUIRE(pthread_create(&waiter.thread, NULL, wait_for_both, &waiter) == 0);
        await_queue(NULL, table, names[held], 1);
        CHECK_STATUS(etslock_lock_table_force_release_token(NULL, table, names[1 - held], 1, 0),
                     ETSLOCK_NOT_FOUND);
        CHECK_STATUS(etslock_guard_release(other), ETSLOCK_OK);
        REQUIRE(pthread_join(waiter.thread, NULL) == 0);
        CHECK_STATUS(waiter.status, ETSLOCK_OK);
        etslock_table_free(table);
    }
}

/* --- locks that the clock takes away at once --- */

enum { KINDS = 4 };

struct hasty {
    pthread_t thread;
    etslock_table *table;
    int exec_ms;
    int64_t end_ms;
    uint32_t random;
};

static void *lock_for_no_time(void *argument)
{
    static const etslock_key keys[] = {KEY("k"), KEY("l")};
    struct hasty *hasty = argument;
    etslock_options options = options_of(HANGS_MS, hasty->exec_ms, 0);
    while (now_ms() < hasty->end_ms) {
        int kind = (int)(next_random(&hasty->random) % KINDS);
        etslock_guard *guard = NULL;
        etslock_status status;
        options.run_on = kind == 0 ? ETSLOCK_RUN_ON_WORKER : ETSLOCK_RUN_ON_CALLER;
        if (kind < 2) {
            status = etslock_with_lock(hasty->table, "k", 1, do_nothing, NULL, &options, NULL);
            if (hasty->exec_ms == 0 || status != ETSLOCK_OK)
                CHECK_STATUS(status, ETSLOCK_EXEC_TIMEOUT);
            continue;
        }
        if (kind == 2)
            status = etslock_acquire(hasty->table, "k", 1, &options, &guard);
        else
            status = etslock_acquire_locks(hasty->table, keys, 2, &options, &guard);
        if (!CHECK_STATUS(status, ETSLOCK_OK))
            continue;
        CHECK(etslock_guard_token(guard) != 0);
        status = etslock_guard_release(guard);
        /* Late, or taken away by somebody who waited. */
        if (hasty->exec_ms == 0 || status != ETSLOCK_OK)
            CHECK(status == ETSLOCK_EXEC_TIMEOUT || status == ETSLOCK_REVOKED);
    }
    return NULL;
}

static void nobody_forces(void)
{
    struct hasty hasty[8];
    int exec_ms;
    size_t i;
    CASE("C-4, C-5: a lock that the clock takes away is a timeout to a call, and a guard to acquire");
    for (exec_ms = 0; exec_ms < 2; exec_ms++) {
        etslock_table *table = new_table();
        for (i = 0; i < COUNT_OF(hasty); i++) {
            hasty[i].table = table;
            hasty[i].exec_ms = exec_ms;
            hasty[i].end_ms = now_ms() + (is_small_scale() ? 200 : 1000);
            hasty[i].random = 123456789u + (uint32_t)i * 7919u;
            REQUIRE(pthread_create(&hasty[i].thread, NULL, lock_for_no_time, &hasty[i]) == 0);
        }
        for (i = 0; i < COUNT_OF(hasty); i++)
            REQUIRE(pthread_join(hasty[i].thread, NULL) == 0);
        CHECK(count_locks(NULL, table) == 0);
        etslock_table_free(table);
    }
}

static void owner_none(void)
{
    CASE("etslock_owner_none is the macro");
    CHECK(etslock_owner_none() == ETSLOCK_OWNER_NONE);
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "live") == 0)
        return live();
    program = argv[0];
    RUN(unique_and_growing());
    RUN(unique_on_disjoint_keys());
    RUN(from_life_to_life());
    RUN(in_a_forked_child());
    RUN(owner_none());
    RUN(a_successor_is_not_hit());
    RUN(who_still_waits_has_no_token());
    RUN(nobody_forces());
    RUN(raised()); /* last: from here on tokens are as large as they can be */
    return check_report();
}
