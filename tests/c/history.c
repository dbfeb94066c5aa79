/* history.c - what threads see of a key while others write it in every way there is, checked
 * against every order that could explain it. Checks C-1, C-2, C-4, C-6, C-7, C-8 and C-9.
 *
 * Run: history [seed]. First the checker is tried on histories written by hand, good ones and bad
 * ones. Then rounds of a few threads on a few keys are recorded and have to be explained; and with
 * a read made stale, or with the writes of a call taken away as if it had failed, they must not be.
 */
#include "check.h"
#include "history.h"
#include "locks.h"

#include <pthread.h>
#include <sched.h>

/* --- the checker itself --- */

#define AT(from, to) .start = (from), .end = (to)
#define LOCKS(who) .kind = LOCK, .holder = (who)
#define UNLOCKS(who) .kind = UNLOCK, .holder = (who)
#define LOOKS(who) .kind = LOOKUP, .holder = (who)
#define WRITES .kind = WRITE
#define SEES_NOTHING .saw = 1
#define SEES(count, ...) .saw = 1, .seen = {(count), {__VA_ARGS__}}
#define AND(...) .writes = {__VA_ARGS__}

struct example {
    const char *name;
    int32_t type;
    enum verdict verdict;
    struct step steps[8]; /* up to the first that lasts no time */
};

static const struct example examples[] = {
    {"a read sees what was written before", ETSLOCK_SET, EXPLAINED,
     {{AT(0, 1), WRITES, AND({INSERT, 1})},
      {AT(2, 3), WRITES, AND({INSERT, 2})},
      {AT(4, 5), LOOKS(0), SEES(1, 2)}}},
    {"a stale read", ETSLOCK_SET, UNEXPLAINED,
     {{AT(0, 1), WRITES, AND({INSERT, 1})},
      {AT(2, 3), WRITES, AND({INSERT, 2})},
      {AT(4, 5), LOOKS(0), SEES(1, 1)}}},
    {"reads during a write see it or not", ETSLOCK_SET, EXPLAINED,
     {{AT(0, 9), WRITES, AND({INSERT, 1})},
      {AT(1, 2), LOOKS(0), SEES_NOTHING},
      {AT(3, 4), LOOKS(0), SEES(1, 1)}}},
    {"a write that is seen and then not", ETSLOCK_SET, UNEXPLAINED,
     {{AT(0, 9), WRITES, AND({INSERT, 1})},
      {AT(1, 2), LOOKS(0), SEES(1, 1)},
      {AT(3, 4), LOOKS(0), SEES_NOTHING}}},
    {"of two takers one gets the tuples", ETSLOCK_SET, EXPLAINED,
     {{AT(0, 1), WRITES, AND({INSERT, 1})},
      {AT(2, 9), WRITES, SEES_NOTHING, AND({DELETE, 0})},
      {AT(3, 8), WRITES, SEES(1, 1), AND({DELETE, 0})}}},
    {"two takers get the same tuple", ETSLOCK_SET, UNEXPLAINED,
     {{AT(0, 1), WRITES, AND({INSERT, 1})},
      {AT(2, 9), WRITES, SEES(1, 1), AND({DELETE, 0})},
      {AT(3, 8), WRITES, SEES(1, 1), AND({DELETE, 0})}}},

    {"two calls, one after the other", ETSLOCK_SET, EXPLAINED,
     {{AT(0, 2), LOCKS(1)},
      {AT(0, 2), LOOKS(1), SEES_NOTHING},
      {AT(6, 8), UNLOCKS(1), AND({INSERT, 1})},
      {AT(1, 9), LOCKS(2)},
      {AT(1, 9), LOOKS(2), SEES(1, 1)},
      {AT(10, 12), UNLOCKS(2), AND({INSERT, 2})}}},
    {"a lost update", ETSLOCK_SET, UNEXPLAINED,
     {{AT(0, 2), LOCKS(1)},
      {AT(0, 2), LOOKS(1), SEES_NOTHING},
      {AT(6, 8), UNLOCKS(1), AND({INSERT, 1})},
      {AT(1, 9), LOCKS(2)},
      {AT(1, 9), LOOKS(2), SEES_NOTHING},
      {AT(10, 12), UNLOCKS(2), AND({INSERT, 2})}}},
    {"two holders at once", ETSLOCK_SET, UNEXPLAINED,
     {{AT(0, 2), LOCKS(1)}, {AT(1, 3), LOCKS(2)}, {AT(4, 5), UNLOCKS(1)}, {AT(4, 5), UNLOCKS(2)}}},

    {"a call that failed, and wrote nothing", ETSLOCK_SET, EXPLAINED,
     {{AT(0, 2), LOCKS(1)}, {AT(3, 4), UNLOCKS(1)}, {AT(5, 6), LOOKS(0), SEES_NOTHING}}},
    {"the write of a call that failed", ETSLOCK_SET, UNEXPLAINED,
     {{AT(0, 2), LOCKS(1)}, {AT(3, 4), UNLOCKS(1)}, {AT(5, 6), LOOKS(0), SEES(1, 1)}}},
    {"a call that lost its lock at some time", ETSLOCK_SET, EXPLAINED,
     {{AT(0, 1), LOCKS(1)},
      {AT(0, 9), UNLOCKS(1)},
      {AT(2, 5), LOCKS(2)},
      {AT(6, 7), UNLOCKS(2), AND({INSERT, 2})},
      {AT(8, 10), LOOKS(0), SEES(1, 2)}}},
    {"its late write", ETSLOCK_SET, UNEXPLAINED,
     {{AT(0, 1), LOCKS(1)},
      {AT(0, 9), UNLOCKS(1)},
      {AT(2, 5), LOCKS(2)},
      {AT(6, 7), UNLOCKS(2), AND({INSERT, 2})},
      {AT(8, 10), LOOKS(0), SEES(1, 1)}}},

    {"staged writes are seen by their guard alone", ETSLOCK_SET, EXPLAINED,
     {{AT(0, 1), LOCKS(1)},
      {AT(2, 3), LOOKS(1), SEES(1, 1), AND({INSERT, 1})},
      {AT(4, 5), LOOKS(0), SEES_NOTHING},
      {AT(6, 7), UNLOCKS(1), AND({INSERT, 1})}}},
    {"staged writes are seen by others", ETSLOCK_SET, UNEXPLAINED,
     {{AT(0, 1), LOCKS(1)},
      {AT(2, 3), LOOKS(1), SEES(1, 1), AND({INSERT, 1})},
      {AT(4, 5), LOOKS(0), SEES(1, 1)},
      {AT(6, 7), UNLOCKS(1), AND({INSERT, 1})}}},
    {"a commit is seen whole", ETSLOCK_BAG, EXPLAINED,
     {{AT(0, 1), LOCKS(1)},
      {AT(2, 9), UNLOCKS(1), AND({INSERT, 1}, {INSERT, 2})},
      {AT(3, 4), LOOKS(0), SEES_NOTHING},
      {AT(5, 6), LOOKS(0), SEES(2, 1, 2)}}},
    {"a commit is seen half done", ETSLOCK_BAG, UNEXPLAINED,
     {{AT(0, 1), LOCKS(1)},
      {AT(2, 9), UNLOCKS(1), AND({INSERT, 1}, {INSERT, 2})},
      {AT(3, 4), LOOKS(0), SEES(1, 1)}}},

    {"bags keep order, and the inserts of others", ETSLOCK_BAG, EXPLAINED,
     {{AT(0, 1), LOCKS(1)},
      {AT(2, 3), WRITES, AND({INSERT, 7})},
      {AT(4, 5), UNLOCKS(1), AND({INSERT, 1}, {INSERT, 7})},
      {AT(6, 7), LOOKS(0), SEES(2, 7, 1)}}},
    {"a bag that lost its order", ETSLOCK_BAG, UNEXPLAINED,
     {{AT(0, 1), LOCKS(1)},
      {AT(2, 3), WRITES, AND({INSERT, 7})},
      {AT(4, 5), UNLOCKS(1), AND({INSERT, 1}, {INSERT, 7})},
      {AT(6, 7), LOOKS(0), SEES(2, 1, 7)}}},
    {"a bag that lost another's insert", ETSLOCK_BAG, UNEXPLAINED,
     {{AT(0, 1), LOCKS(1)},
      {AT(2, 3), WRITES, AND({INSERT, 7})},
      {AT(4, 5), UNLOCKS(1), AND({INSERT, 1})},
      {AT(6, 7), LOOKS(0), SEES(1, 1)}}},
    {"duplicate bags keep what is equal", ETSLOCK_DUPLICATE_BAG, EXPLAINED,
     {{AT(0, 1), WRITES, AND({INSERT, 1}, {INSERT, 2}, {INSERT, 1})},
      {AT(2, 3), LOOKS(0), SEES(3, 1, 2, 1)},
      {AT(4, 5), WRITES, AND({DELETE_TUPLE, 1})},
      {AT(6, 7), LOOKS(0), SEES(1, 2)}}},
};

enum { EFFORT = 1 << 15 };

static void the_checker(void)
{
    static struct history history;
    uint32_t i;
    CASE("the checker tells good histories from bad ones");
    for (i = 0; i < COUNT_OF(examples); i++) {
        const struct step *steps = examples[i].steps;
        history.type = examples[i].type;
        for (history.count = 0; steps[history.count].end > 0; history.count++)
            history.steps[history.count] = steps[history.count];
        if (!CHECK(history_explain(&history, EFFORT) == examples[i].verdict))
            fprintf(stderr, "    %s\n", examples[i].name);
    }

    CASE("a search that gives up is not an explanation");
    history.type = ETSLOCK_DUPLICATE_BAG;
    history.count = 0;
    for (i = 1; i <= 20; i++) {
        struct write insert = {INSERT, i};
        history_add(&history, WRITE, 0, 0, 1)->writes[0] = insert;
    }
    history_add(&history, LOOKUP, 0, 2, 3)->saw = 1;
    CHECK(history_explain(&history, EFFORT) == GAVE_UP);
}

/* --- chance --- */

/* splitmix64 */
static uint64_t random_bits(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static int one_in(uint64_t *state, uint64_t chances)
{
    return random_bits(state) % chances == 0;
}

/* --- what the threads do --- */

enum { THREADS = 4, CALLS = 12, KEYS = 2, HASTY_MS = 2 };

enum way { ON_WORKER, ON_CALLER, ACQUIRED, WAYS };

enum unlocked { LOOK, PUT, ERASE, ERASE_ONE, TAKE, FORCE, UNLOCKED };

/* What one thread does once: a call with a lock, or without. Read when all threads have ended. */
struct call {
    size_t key;
    int locked;
    enum way way;
    enum unlocked unlocked;
    int tries_once;  /* does not wait */
    int is_hasty;    /* has a deadline, which it may meet or not */
    int outlives_it; /* which it does not */
    int fails;       /* returns non-zero, or cancels */
    int commits;     /* its writes before the end */
    uint64_t random;
    struct write writes[HISTORY_WRITES];

    int64_t start, entered, left, returned;
    int64_t look_start, look_end, commit_start, commit_end;
    struct values shown, seen; /* at the entry, and by the look */
    etslock_status look, commit, status;
};

struct player {
    pthread_t thread;
    uint64_t random;
    struct call calls[CALLS];
};

static const char *const keys[KEYS] = {"one", "other"};

static etslock_table *table;
static etslock_lock_table *lock_table;
static int32_t type, access;
static struct player players[THREADS];
static pthread_barrier_t begin;
static uint32_t last_value;

static uint32_t new_value(void)
{
    return __atomic_add_fetch(&last_value, 1, __ATOMIC_RELAXED);
}

static struct values values_of(const etslock_tuple *tuples, size_t count)
{
    struct values values;
    memset(&values, 0, sizeof values);
    REQUIRE(count <= HISTORY_TUPLES);
    for (values.count = 0; values.count < count; values.count++) {
        const etslock_tuple *tuple = &tuples[values.count];
        REQUIRE(tuple->value_len == sizeof(uint32_t));
        memcpy(&values.value[values.count], tuple->value, sizeof(uint32_t));
    }
    return values;
}

/* Of a lookup's answer; ends the snapshot. */
static struct values values_in(etslock_tuples *tuples)
{
    size_t count = 0;
    const etslock_tuple *data = etslock_tuples_data(tuples, &count);
    struct values values = values_of(data, count);
    etslock_tuples_free(tuples);
    return values;
}

static int found(etslock_status status)
{
    return status == ETSLOCK_OK || status == ETSLOCK_NOT_FOUND;
}

/* New values, but for those that are meant to be equal to what is there. */
static void choose_writes(struct call *call)
{
    const struct values *shown = &call->shown;
    struct write *write = call->writes;
    uint64_t *random = &call->random;
    uint32_t known = shown->count > 0 ? shown->value[random_bits(random) % shown->count] : 0;
    if (shown->count > 6)
        (write++)->kind = DELETE;
    if (shown->count > 0 && one_in(random, 4)) {
        write->kind = one_in(random, 2) ? DELETE_TUPLE : INSERT;
        (write++)->value = known;
    }
    if (one_in(random, 8))
        (write++)->kind = DELETE;
    write->kind = INSERT;
    write->value = new_value();
}

static etslock_status stage(etslock_guard *guard, const char *key, const struct write *write)
{
    switch (write->kind) {
    case INSERT:
        return etslock_guard_insert(guard, key, strlen(key), &write->value, sizeof write->value);
    case DELETE:
        return etslock_guard_delete(guard, key, strlen(key));
    case DELETE_TUPLE:
        return etslock_guard_delete_tuple(guard, key, strlen(key), &write->value,
                                          sizeof write->value);
    default:
        return ETSLOCK_OK;
    }
}

/* Inside the lock, the tuples having been shown. */
static void work(struct call *call, etslock_guard *guard)
{
    const char *key = keys[call->key];
    etslock_tuples *tuples;
    size_t i;
    choose_writes(call);
    for (i = 0; i < HISTORY_WRITES; i++)
        stage(guard, key, &call->writes[i]);

    call->look_start = history_now();
    call->look = etslock_guard_lookup(guard, key, strlen(key), &tuples);
    call->look_end = history_now();
    if (found(call->look))
        call->seen = values_in(tuples);

    if (one_in(&call->random, 2))
        sched_yield();
    if (call->is_hasty && one_in(&call->random, 2))
        etslock_guard_sleep(guard, HASTY_MS);
    if (call->outlives_it)
        CHECK(etslock_guard_sleep(guard, ETSLOCK_INFINITE) != ETSLOCK_OK);
    if (call->commits) {
        call->commit_start = history_now();
        call->commit = etslock_guard_commit(guard);
        call->commit_end = history_now();
    }
    if (call->outlives_it)
        stage(guard, key, &call->writes[0]);
}

static int32_t callback(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                        void *user_data)
{
    struct call *call = user_data;
    call->entered = history_now();
    call->shown = values_of(tuples, tuple_count);
    work(call, guard);
    call->left = history_now();
    return call->fails;
}

static void acquire_and_release(struct call *call, const etslock_options *options)
{
    const char *key = keys[call->key];
    etslock_guard *guard = NULL;
    etslock_tuples *tuples;
    call->status = etslock_acquire(table, key, strlen(key), options, &guard);
    if (call->status != ETSLOCK_OK)
        return;
    if (found(etslock_guard_lookup(guard, key, strlen(key), &tuples))) {
        call->shown = values_in(tuples);
        call->entered = history_now();
    }
    work(call, guard);
    call->left = history_now();
    call->status = call->fails ? etslock_guard_cancel(guard) : etslock_guard_release(guard);
}

static void call_locked(struct call *call)
{
    const char *key = keys[call->key];
    uint64_t *random = &call->random;
    etslock_options options = patient(lock_table);
    options.wait_timeout_ms = call->tries_once ? 0 : HANGS_MS;
    if (call->is_hasty) {
        options.exec_timeout_ms = HASTY_MS;
        options.fail_timeout_ms = one_in(random, 2) ? 0 : ETSLOCK_INFINITE;
    }
    options.queue = (int32_t)(random_bits(random) % 3);
    options.on_exec_timeout = one_in(random, 2) ? ETSLOCK_ABANDON : ETSLOCK_JOIN;
    options.run_on = call->way == ON_CALLER ? ETSLOCK_RUN_ON_CALLER : ETSLOCK_RUN_ON_WORKER;
    if (call->way == ACQUIRED)
        acquire_and_release(call, &options);
    else
        call->status =
            etslock_with_lock(table, key, strlen(key), callback, call, &options, NULL);
}

static void call_unlocked(struct call *call)
{
    const char *key = keys[call->key];
    size_t len = strlen(key);
    struct write *write = &call->writes[0];
    etslock_tuples *tuples = NULL;
    switch (call->unlocked) {
    case LOOK:
        call->status = etslock_table_lookup(table, key, len, &tuples);
        break;
    case PUT:
        write->kind = INSERT;
        write->value = new_value();
        call->status = etslock_table_insert(table, key, len, &write->value, sizeof write->value);
        break;
    case ERASE:
        write->kind = DELETE;
        call->status = etslock_table_delete(table, key, len);
        break;
    case ERASE_ONE:
        write->kind = DELETE_TUPLE;
        write->value = __atomic_load_n(&last_value, __ATOMIC_RELAXED);
        call->status =
            etslock_table_delete_tuple(table, key, len, &write->value, sizeof write->value);
        break;
    case TAKE:
        write->kind = DELETE;
        call->status = etslock_table_take(table, key, len, &tuples);
        break;
    default:
        call->status = etslock_lock_table_force_release(lock_table, table, key, len);
    }
    call->seen = values_in(tuples);
}

static void *play(void *argument)
{
    struct player *player = argument;
    uint64_t *random = &player->random;
    size_t i;
    pthread_barrier_wait(&begin);
    for (i = 0; i < CALLS; i++) {
        struct call *call = &player->calls[i];
        memset(call, 0, sizeof *call);
        call->key = random_bits(random) % KEYS;
        call->locked = one_in(random, 2);
        call->way = (enum way)(random_bits(random) % WAYS);
        call->unlocked = (enum unlocked)(random_bits(random) % UNLOCKED);
        call->tries_once = one_in(random, 4);
        call->fails = one_in(random, 6);
        call->is_hasty = one_in(random, 4);
        call->outlives_it = call->is_hasty && one_in(random, 2);
        call->commits = one_in(random, 3);
        call->random = random_bits(random);
        call->look = call->commit = call->status = -1;
        call->start = history_now();
        if (call->locked)
            call_locked(call);
        else
            call_unlocked(call);
        call->returned = history_now();
    }
    return NULL;
}

/* --- what they did, as steps --- */

static struct history histories[KEYS];

/* How often each outcome came, over all rounds. */
static struct {
    unsigned ok, failed, cancelled, wait_timeouts, exec_timeouts, revoked, unlocked;
} outcomes;

static void see(struct step *step, const struct values *values)
{
    step->saw = 1;
    step->seen = *values;
}

static void write_all(struct step *step, const struct write *writes)
{
    memcpy(step->writes, writes, sizeof step->writes);
}

static void record_unlocked(const struct call *call)
{
    static const int looks[UNLOCKED] = {[LOOK] = 1, [TAKE] = 1};
    int is_write = call->writes[0].kind != NO_WRITE;
    struct step *step;
    if (call->unlocked == FORCE) {
        CHECK(found(call->status));
        return;
    }
    if (is_write && access == ETSLOCK_GUARDED) {
        CHECK_STATUS(call->status, ETSLOCK_ERR_GUARDED);
        return;
    }
    CHECK(looks[call->unlocked] ? found(call->status) : call->status == ETSLOCK_OK);
    step = history_add(&histories[call->key], is_write ? WRITE : LOOKUP, 0, call->start,
                       call->returned);
    write_all(step, call->writes);
    if (looks[call->unlocked])
        see(step, &call->seen);
    outcomes.unlocked++;
}

/* Who kept the lock needs it in every step; who lost it may have done so at any time. */
static void record_locked(const struct call *call, uint32_t id)
{
    static const struct write none[HISTORY_WRITES];
    struct history *history = &histories[call->key];
    int was_told = call->way != ACQUIRED || !call->fails; /* cancelling is always fine */
    int kept = was_told && (call->status == ETSLOCK_OK || call->status == ETSLOCK_CALLBACK_FAILED);
    int committed = call->commit == ETSLOCK_OK;
    int64_t locked = call->returned;
    if (call->entered != 0 && call->entered < locked)
        locked = call->entered;

    history_add(history, LOCK, id, call->start, locked);
    if (call->entered != 0)
        see(history_add(history, LOOKUP, kept ? id : 0, call->start, call->entered), &call->shown);
    if (found(call->look)) {
        struct step *look = history_add(history, LOOKUP, kept ? id : 0, call->look_start,
                                        call->look_end);
        write_all(look, call->writes);
        see(look, &call->seen);
    }
    if (committed)
        write_all(history_add(history, COMMIT, id, call->commit_start, call->commit_end),
                  call->writes);
    write_all(history_add(history, UNLOCK, id, kept ? call->left : call->start, call->returned),
              kept && !call->fails && !committed ? call->writes : none);
}

static void record(const struct call *call, uint32_t id)
{
    if (!call->locked) {
        record_unlocked(call);
        return;
    }
    switch (call->status) {
    case ETSLOCK_OK:
        if (call->way == ACQUIRED && call->fails) {
            outcomes.cancelled++;
            break;
        }
        CHECK(!call->fails && !call->outlives_it);
        CHECK(found(call->look));
        CHECK(!call->commits || call->commit == ETSLOCK_OK);
        outcomes.ok++;
        break;
    case ETSLOCK_CALLBACK_FAILED:
        CHECK(call->fails && !call->outlives_it);
        outcomes.failed++;
        break;
    case ETSLOCK_WAIT_TIMEOUT:
        CHECK(call->tries_once);
        CHECK(call->entered == 0);
        outcomes.wait_timeouts++;
        return;
    case ETSLOCK_EXEC_TIMEOUT:
        CHECK(call->is_hasty);
        outcomes.exec_timeouts++;
        break;
    default:
        CHECK_STATUS(call->status, ETSLOCK_REVOKED);
        outcomes.revoked++;
    }
    record_locked(call, id);
}

/* --- mutations of what was recorded --- */

static int is_set_to(const struct step *step, uint32_t *out_value)
{
    int is_write = step->kind == WRITE || step->kind == COMMIT || step->kind == UNLOCK;
    size_t i, last = 0;
    if (!is_write || step->writes[0].kind == NO_WRITE)
        return 0;
    for (i = 0; i < HISTORY_WRITES && step->writes[i].kind != NO_WRITE; i++)
        last = i;
    *out_value = step->writes[last].value;
    return step->writes[last].kind == INSERT;
}

/* In a set: makes a read see a value that another had replaced before the read began. */
static int make_stale(struct history *history)
{
    struct step *steps = history->steps;
    size_t read, old, new;
    uint32_t value, newer;
    for (read = 0; read < history->count; read++) {
        if (steps[read].kind != LOOKUP || steps[read].holder != 0)
            continue;
        for (old = 0; old < history->count; old++) {
            if (!is_set_to(&steps[old], &value))
                continue;
            for (new = 0; new < history->count; new++) {
                if (is_set_to(&steps[new], &newer) && steps[old].end < steps[new].start &&
                    steps[new].end < steps[read].start) {
                    memset(&steps[read].seen, 0, sizeof steps[read].seen);
                    memset(steps[read].writes, 0, sizeof steps[read].writes);
                    steps[read].seen.count = 1;
                    steps[read].seen.value[0] = value;
                    return 1;
                }
            }
        }
    }
    return 0;
}

/* Takes the writes of a call away of which one was seen. */
static int make_failed(struct history *history)
{
    struct step *steps = history->steps;
    size_t i, j;
    uint32_t k, value;
    for (i = 0; i < history->count; i++) {
        if (steps[i].kind != UNLOCK || !is_set_to(&steps[i], &value))
            continue;
        for (j = 0; j < history->count; j++) {
            if (steps[j].kind != LOOKUP || steps[j].holder != 0 || !steps[j].saw)
                continue;
            for (k = 0; k < steps[j].seen.count; k++) {
                if (steps[j].seen.value[k] == value && steps[j].writes[0].kind == NO_WRITE) {
                    memset(steps[i].writes, 0, sizeof steps[i].writes);
                    return 1;
                }
            }
        }
    }
    return 0;
}

static unsigned stale, unwritten;

static void mutate(const struct history *history)
{
    static struct history changed;
    changed = *history;
    if (type == ETSLOCK_SET && make_stale(&changed)) {
        CHECK(history_explain(&changed, EFFORT) == UNEXPLAINED);
        stale++;
    }
    changed = *history;
    if (make_failed(&changed)) {
        CHECK(history_explain(&changed, EFFORT) == UNEXPLAINED);
        unwritten++;
    }
}

/* --- rounds --- */

static void round_of(uint64_t seed)
{
    etslock_table_options options;
    uint32_t id = 0;
    size_t i, j;
    etslock_table_options_init(&options, sizeof options);
    options.type = type;
    options.access = access;
    table = new_table_with(&options);
    lock_table = seed % 2 == 0 ? NULL : new_lock_table();
    last_value = 0;
    for (i = 0; i < THREADS; i++) {
        players[i].random = seed * THREADS + i;
        REQUIRE(pthread_create(&players[i].thread, NULL, play, &players[i]) == 0);
    }
    for (i = 0; i < THREADS; i++)
        REQUIRE(pthread_join(players[i].thread, NULL) == 0);
    await_abandoned(0);

    for (i = 0; i < KEYS; i++) {
        histories[i].type = type;
        histories[i].count = 0;
    }
    for (i = 0; i < THREADS; i++)
        for (j = 0; j < CALLS; j++)
            record(&players[i].calls[j], ++id);
    for (i = 0; i < KEYS; i++) {
        enum verdict verdict = history_explain(&histories[i], EFFORT);
        if (!CHECK(verdict == EXPLAINED)) {
            fprintf(stderr, "    round %llu, key \"%s\"%s:\n", (unsigned long long)seed, keys[i],
                    verdict == GAVE_UP ? ", too much to search" : "");
            history_print(&histories[i]);
            exit(check_report());
        }
        mutate(&histories[i]);
    }
    etslock_lock_table_free(lock_table);
    etslock_table_free(table);
}

int main(void)
{
    static const struct {
        const char *name;
        int32_t type, access;
    } kinds[] = {{"C-1, C-7, C-8: a set, written through guards", ETSLOCK_SET, ETSLOCK_GUARDED},
                 {"C-7, C-8, C-9: a set", ETSLOCK_SET, ETSLOCK_PUBLIC},
                 {"C-1, C-7, C-8: a bag, written through guards", ETSLOCK_BAG, ETSLOCK_GUARDED},
                 {"C-7, C-8, C-9: a bag", ETSLOCK_BAG, ETSLOCK_PUBLIC},
                 {"C-7, C-8, C-9: a duplicate bag", ETSLOCK_DUPLICATE_BAG, ETSLOCK_PUBLIC}};
    uint64_t seed = CHECK_NUMBER(20260117);
    int rounds = is_small_scale() ? 4 : 40;
    size_t i;
    int j;
    printf("seed %llu\n", (unsigned long long)seed);
    RUN(the_checker());

    REQUIRE(pthread_barrier_init(&begin, NULL, THREADS) == 0);
    for (i = 0; i < COUNT_OF(kinds); i++) {
        CASE(kinds[i].name);
        type = kinds[i].type;
        access = kinds[i].access;
        for (j = 0; j < rounds; j++)
            RUN_AS("rounds", round_of(seed++));
    }
    pthread_barrier_destroy(&begin);

    if (!check_runs_all())
        return check_report();
    CASE("the rounds have had something of everything");
    printf("%u ok, %u failed, %u cancelled, %u wait timeouts, %u exec timeouts, %u revoked, "
           "%u unlocked\n",
           outcomes.ok, outcomes.failed, outcomes.cancelled, outcomes.wait_timeouts,
           outcomes.exec_timeouts, outcomes.revoked, outcomes.unlocked);
    printf("%u reads made stale, %u calls made to have failed\n", stale, unwritten);
    CHECK(outcomes.ok > 0 && outcomes.failed > 0 && outcomes.cancelled > 0);
    CHECK(outcomes.wait_timeouts > 0 && outcomes.exec_timeouts > 0 && outcomes.revoked > 0);
    CHECK(outcomes.unlocked > 0);
    CHECK(stale > 0 && unwritten > 0);
    return check_report();
}
