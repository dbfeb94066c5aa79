/* guards.c - what a guard answers, and what becomes of its writes.
 *
 * Real time passes only where a deadline is the subject. Lower bounds allow for the clock's
 * rounding; upper bounds are wide, since the machine may be busy.
 */
#include "check.h"
#include "locks.h"

#include <pthread.h>
#include <semaphore.h>

#define KEY "k", 1

enum {
    SLACK_MS = 2,
    SHORT_MS = 150,   /* a deadline to be missed, but not before the first few calls are made */
    AMPLE_MS = 60000, /* a deadline to be met; also a sleep that must be cut short */
    SOON_MS = 20000
};

static const int32_t run_ons[] = {ETSLOCK_RUN_ON_WORKER, ETSLOCK_RUN_ON_CALLER};

static etslock_table *table_with(const char *value)
{
    etslock_table *table = new_table();
    REQUIRE(etslock_table_insert(table, KEY, value, strlen(value)) == ETSLOCK_OK);
    return table;
}

static etslock_guard *acquired(etslock_table *table, int64_t exec_ms, int64_t fail_ms)
{
    return hold_with(options_of(0, exec_ms, fail_ms), table, "k");
}

/* Whether nobody holds the key: a try-lock gets it. */
static int is_free(etslock_table *table)
{
    return try_lock(table, "k") == ETSLOCK_OK;
}

static etslock_status revoke(etslock_table *table)
{
    return etslock_lock_table_force_release(NULL, table, KEY);
}

/* Whether these are the values, in order: "a,b". */
static int are(const etslock_tuple *tuples, size_t count, const char *values)
{
    char joined[256];
    size_t length = 0;
    size_t i;
    for (i = 0; i < count; i++) {
        if (length + tuples[i].value_len + 2 > sizeof joined)
            return 0;
        if (i > 0)
            joined[length++] = ',';
        if (tuples[i].value_len > 0)
            memcpy(joined + length, tuples[i].value, tuples[i].value_len);
        length += tuples[i].value_len;
    }
    joined[length] = '\0';
    return strcmp(joined, values) == 0;
}

static int snapshot_is(etslock_status status, etslock_tuples *snapshot, const char *values)
{
    size_t count = 0;
    const etslock_tuple *tuples = etslock_tuples_data(snapshot, &count);
    int same = are(tuples, count, values) &&
               status == (count > 0 ? ETSLOCK_OK : ETSLOCK_NOT_FOUND);
    etslock_tuples_free(snapshot);
    return same;
}

static int table_has(etslock_table *table, const char *values)
{
    etslock_tuples *snapshot = NULL;
    etslock_status status = etslock_table_lookup(table, KEY, &snapshot);
    return snapshot_is(status, snapshot, values);
}

static int guard_sees(etslock_guard *guard, const char *values)
{
    etslock_tuples *snapshot = NULL;
    etslock_status status = etslock_guard_lookup(guard, KEY, &snapshot);
    return snapshot_is(status, snapshot, values);
}

static etslock_status stage(etslock_guard *guard, const char *value)
{
    return etslock_guard_insert(guard, KEY, value, strlen(value));
}

static etslock_status put(etslock_table *table, const char *value)
{
    return etslock_table_insert(table, KEY, value, strlen(value));
}

/* What the callbacks below share with their tests. */
struct scene {
    etslock_table *table;
    int32_t returns;
    int runs;
    int plays; /* calls whose callback may still run */
    sem_t entered, go, ended;
};

static void scene_init(struct scene *scene, etslock_table *table)
{
    memset(scene, 0, sizeof *scene);
    scene->table = table;
    sem_init(&scene->entered, 0, 0);
    sem_init(&scene->go, 0, 0);
    sem_init(&scene->ended, 0, 0);
}

/* Waits for callbacks that were abandoned. */
static void scene_settle(struct scene *scene)
{
    for (; scene->plays > 0; scene->plays--)
        sem_wait(&scene->ended);
}

/* Closes the scene and its table. */
static void scene_end(struct scene *scene)
{
    scene_settle(scene);
    sem_destroy(&scene->entered);
    sem_destroy(&scene->go);
    sem_destroy(&scene->ended);
    etslock_table_free(scene->table);
}

static void scene_freed(void *user_data)
{
    struct scene *scene = user_data;
    sem_post(&scene->ended);
}

/* One call with the scene as its data. */
static etslock_status play(struct scene *scene, etslock_callback callback, int32_t run_on,
                           int64_t exec_ms, etslock_result *result)
{
    etslock_options options = options_of(AMPLE_MS, exec_ms, ETSLOCK_INFINITE);
    options.run_on = run_on;
    options.user_data_free = scene_freed;
    scene->plays++;
    return etslock_with_lock(scene->table, KEY, callback, scene, &options, result);
}

/* --- C-7: staged writes --- */

static int32_t write_unseen(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                            void *user_data)
{
    struct scene *scene = user_data;
    scene->runs++;
    CHECK(are(tuples, tuple_count, "old"));
    CHECK_STATUS(stage(guard, "new"), ETSLOCK_OK);
    CHECK(table_has(scene->table, "old"));
    CHECK(guard_sees(guard, "new"));
    CHECK(are(tuples, tuple_count, "old")); /* as of acquisition */
    return scene->returns;
}

static int32_t write_twice(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                           void *user_data)
{
    struct scene *scene = user_data;
    (void)tuples;
    (void)tuple_count;
    CHECK_STATUS(stage(guard, "first"), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_commit(guard), ETSLOCK_OK);
    CHECK(table_has(scene->table, "first"));
    CHECK_STATUS(stage(guard, "second"), ETSLOCK_OK);
    CHECK(table_has(scene->table, "first"));
    CHECK(guard_sees(guard, "second"));
    return scene->returns;
}

static void staged_writes(int32_t run_on)
{
    struct scene scene;

    CASE("C-7: a write is the writer's own until the callback returns 0");
    scene_init(&scene, table_with("old"));
    CHECK_STATUS(play(&scene, write_unseen, run_on, AMPLE_MS, NULL), ETSLOCK_OK);
    CHECK(table_has(scene.table, "new"));
    scene_end(&scene);

    CASE("C-7: a non-zero return discards");
    scene_init(&scene, table_with("old"));
    scene.returns = 1;
    CHECK_STATUS(play(&scene, write_unseen, run_on, AMPLE_MS, NULL), ETSLOCK_CALLBACK_FAILED);
    CHECK(table_has(scene.table, "old"));
    CHECK(is_free(scene.table));
    scene_end(&scene);

    CASE("C-7: commit publishes and keeps the lock; only what follows is discarded");
    scene_init(&scene, table_with("old"));
    scene.returns = -1;
    CHECK_STATUS(play(&scene, write_twice, run_on, AMPLE_MS, NULL), ETSLOCK_CALLBACK_FAILED);
    CHECK(table_has(scene.table, "first"));
    scene.returns = 0;
    CHECK_STATUS(play(&scene, write_twice, run_on, AMPLE_MS, NULL), ETSLOCK_OK);
    CHECK(table_has(scene.table, "second"));
    scene_end(&scene);
}

static void acquired_writes(void)
{
    etslock_table *table = table_with("old");
    etslock_guard *guard;

    CASE("C-7: release commits");
    guard = acquired(table, AMPLE_MS, AMPLE_MS);
    CHECK_STATUS(stage(guard, "released"), ETSLOCK_OK);
    CHECK(table_has(table, "old"));
    CHECK(guard_sees(guard, "released"));
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    CHECK(table_has(table, "released"));
    CHECK(is_free(table));

    CASE("C-7: cancel discards");
    guard = acquired(table, AMPLE_MS, AMPLE_MS);
    CHECK_STATUS(stage(guard, "cancelled"), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_cancel(guard), ETSLOCK_OK);
    CHECK(table_has(table, "released"));
    CHECK(is_free(table));

    CASE("C-7: rollback forgets what was not committed");
    guard = acquired(table, AMPLE_MS, AMPLE_MS);
    CHECK_STATUS(stage(guard, "committed"), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_commit(guard), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_delete(guard, KEY), ETSLOCK_OK);
    CHECK(guard_sees(guard, ""));
    CHECK_STATUS(etslock_guard_rollback(guard), ETSLOCK_OK);
    CHECK(guard_sees(guard, "committed"));
    CHECK(!is_free(table));
    CHECK_STATUS(stage(guard, "last"), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    CHECK(table_has(table, "last"));
    etslock_table_free(table);
}

/* "+a" inserts, "-a" deletes the tuple, "-" deletes the key; through the guard if there is one. */
static void apply(etslock_table *table, etslock_guard *guard, const char *writes)
{
    while (*writes != '\0') {
        size_t length = strcspn(writes, " ");
        const char *value = writes + 1;
        etslock_status status;
        if (*writes == '+')
            status = guard ? etslock_guard_insert(guard, KEY, value, length - 1)
                           : etslock_table_insert(table, KEY, value, length - 1);
        else if (length > 1)
            status = guard ? etslock_guard_delete_tuple(guard, KEY, value, length - 1)
                           : etslock_table_delete_tuple(table, KEY, value, length - 1);
        else
            status = guard ? etslock_guard_delete(guard, KEY) : etslock_table_delete(table, KEY);
        CHECK_STATUS(status, ETSLOCK_OK);
        writes += length;
        writes += strspn(writes, " ");
    }
}

struct replay {
    int32_t type;
    const char *before;  /* in the table when the lock is taken */
    const char *staged;  /* through the guard */
    const char *between; /* without a guard, after that */
    const char *after;   /* what the guard sees then, and what the commit leaves */
};

static const struct replay replays[] = {
    {ETSLOCK_SET, "+a", "+b", "+c", "b"},
    {ETSLOCK_SET, "+a", "+b", "-", "b"},
    {ETSLOCK_SET, "+a", "-", "+c", ""},
    {ETSLOCK_SET, "+a", "-a", "+c", "c"},
    {ETSLOCK_SET, "+a", "-c", "+c", ""},
    {ETSLOCK_SET, "", "+a +b", "", "b"},
    {ETSLOCK_BAG, "+a", "+b", "+c", "a,c,b"},
    {ETSLOCK_BAG, "+a", "+b", "+b +c", "a,b,c"},
    {ETSLOCK_BAG, "+a +b", "+a", "+c", "a,b,c"},
    {ETSLOCK_BAG, "+a +b", "+c", "-a", "b,c"},
    {ETSLOCK_BAG, "+a", "- +x", "+c", "x"},
    {ETSLOCK_BAG, "+a", "+b -b", "+c", "a,c"},
    {ETSLOCK_BAG, "", "+a +a +b", "+b", "b,a"},
    {ETSLOCK_DUPLICATE_BAG, "+a", "+b", "+b", "a,b,b"},
    {ETSLOCK_DUPLICATE_BAG, "+a", "+a", "+c", "a,c,a"},
    {ETSLOCK_DUPLICATE_BAG, "+a +b +a", "-a", "+a +c", "b,c"},
    {ETSLOCK_DUPLICATE_BAG, "+a", "+b", "-", "b"},
    {ETSLOCK_DUPLICATE_BAG, "+a", "- +x +x", "+c", "x,x"},
};

static void replay_at_commit(void)
{
    size_t i;
    for (i = 0; i < sizeof replays / sizeof *replays; i++) {
        const struct replay *replay = &replays[i];
        etslock_table *table = new_table_of(replay->type);
        etslock_guard *guard;
        int right;
        apply(table, NULL, replay->before);
        guard = acquired(table, AMPLE_MS, AMPLE_MS);
        apply(table, guard, replay->staged);
        (void)guard_sees(guard, replay->after); /* A look is of that moment, too. */
        apply(table, NULL, replay->between);
        right = CHECK(guard_sees(guard, replay->after));
        /* Odd rows by commit, even rows by release. */
        if (i % 2 == 1) {
            CHECK_STATUS(etslock_guard_commit(guard), ETSLOCK_OK);
            right &= CHECK(table_has(table, replay->after));
        }
        CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
        right &= CHECK(table_has(table, replay->after));
        if (!right)
            fprintf(stderr, "    type %d, \"%s\", staged \"%s\", then \"%s\"\n", (int)replay->type,
                    replay->before, replay->staged, replay->between);
        etslock_table_free(table);
    }
}

/* --- results --- */

enum { LARGE = 8 * 1024 * 1024 };

static int32_t give_text(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                         void *user_data)
{
    struct scene *scene = user_data;
    char text[] = "first";
    (void)tuples;
    (void)tuple_count;
    CHECK_STATUS(etslock_guard_set_result(guard, text, 5), ETSLOCK_OK);
    memcpy(text, "final", 5);
    CHECK_STATUS(etslock_guard_set_result(guard, text, 5), ETSLOCK_OK);
    memcpy(text, "XXXXX", 5); /* the library has its own copy */
    CHECK_STATUS(etslock_guard_set_result(guard, NULL, 5), ETSLOCK_ERR_NULL);
    return scene->returns;
}

static int32_t give_nothing(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                            void *user_data)
{
    struct scene *scene = user_data;
    (void)tuples;
    (void)tuple_count;
    CHECK_STATUS(etslock_guard_set_result(guard, "something", 9), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_set_result(guard, NULL, 0), ETSLOCK_OK);
    return scene->returns;
}

static int32_t give_large(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                          void *user_data)
{
    struct scene *scene = user_data;
    unsigned char *large = malloc(LARGE);
    (void)tuples;
    (void)tuple_count;
    REQUIRE(large != NULL);
    memset(large, 0x5a, LARGE);
    CHECK_STATUS(etslock_guard_set_result(guard, large, LARGE), ETSLOCK_OK);
    free(large);
    return scene->returns;
}

static int32_t give_and_outlive(etslock_guard *guard, const etslock_tuple *tuples,
                                size_t tuple_count, void *user_data)
{
    (void)tuples;
    (void)tuple_count;
    (void)user_data;
    CHECK_STATUS(etslock_guard_set_result(guard, "late", 4), ETSLOCK_OK);
    etslock_guard_sleep(guard, AMPLE_MS);
    return 7;
}

static etslock_result stale_result(void)
{
    static uint8_t byte;
    etslock_result result;
    result.code = 99;
    result.reserved = 99;
    result.data = &byte;
    result.data_len = 99;
    return result;
}

static int is_empty(const etslock_result *result)
{
    return result->reserved == 0 && result->data == NULL && result->data_len == 0;
}

static void results(int32_t run_on)
{
    struct scene scene;
    etslock_result result;
    etslock_guard *guard;
    etslock_options options;
    scene_init(&scene, table_with("old"));

    CASE("results: copied, the last success wins");
    result = stale_result();
    CHECK_STATUS(play(&scene, give_text, run_on, AMPLE_MS, &result), ETSLOCK_OK);
    CHECK(result.code == 0 && result.reserved == 0);
    CHECK(result.data_len == 5 && memcmp(result.data, "final", 5) == 0);
    etslock_result_free(&result);
    CHECK(result.code == 0 && is_empty(&result));
    etslock_result_free(&result);
    CHECK_STATUS(play(&scene, give_text, run_on, AMPLE_MS, NULL), ETSLOCK_OK);

    CASE("results: empty");
    result = stale_result();
    CHECK_STATUS(play(&scene, give_nothing, run_on, AMPLE_MS, &result), ETSLOCK_OK);
    CHECK(result.code == 0 && is_empty(&result));
    etslock_result_free(&result);

    CASE("results: large");
    result = stale_result();
    CHECK_STATUS(play(&scene, give_large, run_on, AMPLE_MS, &result), ETSLOCK_OK);
    CHECK(result.data_len == LARGE && result.data[0] == 0x5a && result.data[LARGE - 1] == 0x5a);
    etslock_result_free(&result);

    CASE("results: a failure has its code and no data");
    scene.returns = -42;
    result = stale_result();
    CHECK_STATUS(play(&scene, give_text, run_on, AMPLE_MS, &result), ETSLOCK_CALLBACK_FAILED);
    CHECK(result.code == -42 && is_empty(&result));
    etslock_result_free(&result);

    CASE("results: a timeout has neither");
    result = stale_result();
    CHECK_STATUS(play(&scene, give_and_outlive, run_on, SHORT_MS, &result), ETSLOCK_EXEC_TIMEOUT);
    CHECK(result.code == 0 && is_empty(&result));
    etslock_result_free(&result);

    guard = acquired(scene.table, AMPLE_MS, AMPLE_MS);
    options = options_of(0, AMPLE_MS, AMPLE_MS);
    options.run_on = run_on;
    result = stale_result();
    CHECK_STATUS(etslock_with_lock(scene.table, KEY, give_text, &scene, &options, &result),
                 ETSLOCK_WAIT_TIMEOUT);
    CHECK(result.code == 0 && is_empty(&result));
    etslock_result_free(&result);
    CHECK_STATUS(etslock_guard_cancel(guard), ETSLOCK_OK);

    CASE("results: bad arguments leave an empty one");
    result = stale_result();
    CHECK_STATUS(etslock_with_lock(NULL, KEY, give_text, &scene, &options, &result),
                 ETSLOCK_ERR_NULL);
    CHECK(result.code == 0 && is_empty(&result));
    etslock_result_free(&result);
    etslock_result_free(NULL);
    scene_end(&scene);
}

/* --- a guard's answers --- */

/* `wanted` from every call but release and cancel. The key has a tuple, and keeps it. */
static void check_answers(etslock_guard *guard, etslock_status wanted, int is_callbacks)
{
    etslock_tuples *tuples = NULL;
    int64_t remaining;
    CHECK_STATUS(etslock_guard_status(guard), wanted);
    CHECK_STATUS(etslock_guard_lookup(guard, KEY, &tuples), wanted);
    CHECK((tuples != NULL) == (wanted == ETSLOCK_OK));
    etslock_tuples_free(tuples);
    CHECK_STATUS(etslock_guard_insert(guard, KEY, "staged", 6), wanted);
    CHECK_STATUS(etslock_guard_delete_tuple(guard, KEY, "staged", 6), wanted);
    CHECK_STATUS(etslock_guard_delete(guard, KEY), wanted);
    CHECK_STATUS(etslock_guard_rollback(guard), wanted);
    CHECK_STATUS(etslock_guard_commit(guard), wanted);
    CHECK_STATUS(etslock_guard_extend(guard, 1), wanted);
    CHECK_STATUS(etslock_guard_sleep(guard, 1), wanted);
    if (is_callbacks)
        CHECK_STATUS(etslock_guard_set_result(guard, "result", 6), wanted);
    CHECK_STATUS(etslock_guard_status(guard), wanted);
    remaining = etslock_guard_remaining_ms(guard);
    CHECK(wanted == ETSLOCK_OK ? remaining > 0 && remaining <= AMPLE_MS : remaining == 0);
    CHECK(etslock_guard_token(guard) != 0);
}

static int32_t answer_live(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                           void *user_data)
{
    (void)tuples;
    (void)tuple_count;
    (void)user_data;
    check_answers(guard, ETSLOCK_OK, 1);
    /* Not for a callback's guard, and they leave it as it was. */
    CHECK_STATUS(stage(guard, "kept"), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_ERR_INVALID);
    CHECK_STATUS(etslock_guard_cancel(guard), ETSLOCK_ERR_INVALID);
    CHECK_STATUS(etslock_guard_status(guard), ETSLOCK_OK);
    CHECK(guard_sees(guard, "kept"));
    return 0;
}

static int32_t answer_late(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                           void *user_data)
{
    struct scene *scene = user_data;
    (void)tuples;
    (void)tuple_count;
    CHECK_STATUS(stage(guard, "late"), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_sleep(guard, AMPLE_MS), ETSLOCK_EXEC_TIMEOUT);
    check_answers(guard, ETSLOCK_EXEC_TIMEOUT, 1);
    CHECK(!is_free(scene->table)); /* late, and still the holder */
    return 0;
}

static int32_t answer_revoked(etslock_guard *guard, const etslock_tuple *tuples,
                              size_t tuple_count, void *user_data)
{
    struct scene *scene = user_data;
    (void)tuples;
    (void)tuple_count;
    CHECK_STATUS(stage(guard, "revoked"), ETSLOCK_OK);
    CHECK_STATUS(revoke(scene->table), ETSLOCK_OK);
    check_answers(guard, ETSLOCK_REVOKED, 1);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_ERR_INVALID);
    CHECK_STATUS(etslock_guard_cancel(guard), ETSLOCK_ERR_INVALID);
    CHECK(is_free(scene->table));
    return 0;
}

static int32_t answer_past_the_deadline(etslock_guard *guard, const etslock_tuple *tuples,
                                        size_t tuple_count, void *user_data)
{
    struct scene *scene = user_data;
    (void)tuples;
    (void)tuple_count;
    CHECK_STATUS(stage(guard, "late"), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_sleep(guard, AMPLE_MS), ETSLOCK_REVOKED);
    sem_wait(&scene->go);
    check_answers(guard, ETSLOCK_REVOKED, 1);
    return 0;
}

static void answers_of_callbacks(void)
{
    struct scene scene;
    size_t i;
    for (i = 0; i < 2; i++) {
        CASE("answers: a live callback");
        scene_init(&scene, table_with("old"));
        CHECK_STATUS(play(&scene, answer_live, run_ons[i], AMPLE_MS, NULL), ETSLOCK_OK);
        CHECK(table_has(scene.table, "kept"));
        scene_end(&scene);

        CASE("answers: a callback whose lock was taken away");
        scene_init(&scene, table_with("old"));
        CHECK_STATUS(play(&scene, answer_revoked, run_ons[i], AMPLE_MS, NULL), ETSLOCK_REVOKED);
        scene_settle(&scene);
        CHECK(table_has(scene.table, "old"));
        scene_end(&scene);
    }

    CASE("answers, C-10: a late callback on the caller's thread");
    scene_init(&scene, table_with("old"));
    CHECK_STATUS(play(&scene, answer_late, ETSLOCK_RUN_ON_CALLER, SHORT_MS, NULL),
                 ETSLOCK_EXEC_TIMEOUT);
    CHECK(table_has(scene.table, "old"));
    CHECK(is_free(scene.table));
    scene_end(&scene);

    CASE("answers, C-4, C-8: a worker's guard goes from live to revoked");
    scene_init(&scene, table_with("old"));
    CHECK_STATUS(play(&scene, answer_past_the_deadline, ETSLOCK_RUN_ON_WORKER, SHORT_MS, NULL),
                 ETSLOCK_EXEC_TIMEOUT);
    CHECK(is_free(scene.table));
    sem_post(&scene.go);
    scene_settle(&scene);
    CHECK(table_has(scene.table, "old"));
    scene_end(&scene);
}

static void answers_of_acquired_guards(void)
{
    etslock_table *table = table_with("old");
    etslock_guard *guard;

    CASE("answers: a live guard");
    guard = acquired(table, AMPLE_MS, AMPLE_MS);
    check_answers(guard, ETSLOCK_OK, 0);
    CHECK_STATUS(etslock_guard_set_result(guard, "x", 1), ETSLOCK_ERR_INVALID);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    guard = acquired(table, AMPLE_MS, AMPLE_MS);
    CHECK_STATUS(etslock_guard_cancel(guard), ETSLOCK_OK);
    CHECK(is_free(table));

    CASE("answers, C-6: a late guard publishes nothing, and release frees its lock");
    guard = acquired(table, SHORT_MS, ETSLOCK_INFINITE);
    CHECK_STATUS(stage(guard, "late"), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_sleep(guard, AMPLE_MS), ETSLOCK_EXEC_TIMEOUT);
    check_answers(guard, ETSLOCK_EXEC_TIMEOUT, 0);
    CHECK(!is_free(table));
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_EXEC_TIMEOUT);
    CHECK(is_free(table));
    CHECK(table_has(table, "old"));

    CASE("answers: a late guard is cancelled");
    guard = acquired(table, SHORT_MS, ETSLOCK_INFINITE);
    CHECK_STATUS(etslock_guard_sleep(guard, AMPLE_MS), ETSLOCK_EXEC_TIMEOUT);
    CHECK(!is_free(table));
    CHECK_STATUS(etslock_guard_cancel(guard), ETSLOCK_OK);
    CHECK(is_free(table));

    CASE("answers, C-8: a revoked guard");
    guard = acquired(table, AMPLE_MS, AMPLE_MS);
    CHECK_STATUS(stage(guard, "revoked"), ETSLOCK_OK);
    CHECK_STATUS(revoke(table), ETSLOCK_OK);
    check_answers(guard, ETSLOCK_REVOKED, 0);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_REVOKED);
    CHECK(table_has(table, "old"));

    guard = acquired(table, AMPLE_MS, AMPLE_MS);
    CHECK_STATUS(revoke(table), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_cancel(guard), ETSLOCK_OK);
    CHECK_STATUS(revoke(table), ETSLOCK_NOT_FOUND);

    CASE("answers: a late guard that is then revoked");
    guard = acquired(table, SHORT_MS, ETSLOCK_INFINITE);
    CHECK_STATUS(etslock_guard_sleep(guard, AMPLE_MS), ETSLOCK_EXEC_TIMEOUT);
    CHECK_STATUS(revoke(table), ETSLOCK_OK);
    check_answers(guard, ETSLOCK_REVOKED, 0);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_REVOKED);
    etslock_table_free(table);
}

/* --- keys, tokens, time --- */

static void uncovered_keys(void)
{
    etslock_table *table = table_with("old");
    etslock_guard *guard = acquired(table, AMPLE_MS, AMPLE_MS);
    etslock_tuples *tuples = NULL;
    size_t count = 0;
    REQUIRE(etslock_table_insert(table, "other", 5, "value", 5) == ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_lookup(guard, "other", 5, &tuples), ETSLOCK_ERR_NOT_COVERED);
    CHECK(tuples == NULL);
    CHECK_STATUS(etslock_guard_insert(guard, "other", 5, "x", 1), ETSLOCK_ERR_NOT_COVERED);
    CHECK_STATUS(etslock_guard_delete(guard, "other", 5), ETSLOCK_ERR_NOT_COVERED);
    CHECK_STATUS(etslock_guard_delete_tuple(guard, "other", 5, "value", 5),
                 ETSLOCK_ERR_NOT_COVERED);
    CHECK_STATUS(etslock_guard_insert(guard, "k\0", 2, "x", 1), ETSLOCK_ERR_NOT_COVERED);
    CHECK_STATUS(etslock_guard_insert(guard, NULL, 0, "x", 1), ETSLOCK_ERR_NOT_COVERED);
    CHECK_STATUS(stage(guard, "new"), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    CHECK(table_has(table, "new"));
    CHECK_STATUS(etslock_table_member(table, "other", 5), ETSLOCK_OK);
    CHECK_STATUS(etslock_table_count(table, &count), ETSLOCK_OK);
    CHECK(count == 2);
    etslock_table_free(table);
}

static int32_t note_token(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                          void *user_data)
{
    uint64_t *token = user_data;
    (void)tuples;
    (void)tuple_count;
    *token = etslock_guard_token(guard);
    return 0;
}

static void tokens(void)
{
    etslock_table *table = table_with("old");
    uint64_t last = 0;
    int i;
    for (i = 0; i < 200; i++) {
        uint64_t token = 0;
        if (i % 2) {
            etslock_guard *guard = acquired(table, AMPLE_MS, AMPLE_MS);
            token = etslock_guard_token(guard);
            CHECK(etslock_guard_token(guard) == token);
            CHECK_STATUS(etslock_guard_cancel(guard), ETSLOCK_OK);
        } else {
            etslock_options options = options_of(0, AMPLE_MS, AMPLE_MS);
            options.run_on = run_ons[i / 2 % 2];
            CHECK_STATUS(etslock_with_lock(table, KEY, note_token, &token, &options, NULL),
                         ETSLOCK_OK);
        }
        CHECK(token > last);
        last = token;
    }
    CHECK(etslock_guard_token(NULL) == 0);
    CHECK(etslock_guard_remaining_ms(NULL) == 0);
    CHECK_STATUS(etslock_guard_status(NULL), ETSLOCK_ERR_NULL);
    etslock_table_free(table);
}

static void remaining_time(void)
{
    etslock_table *table = table_with("old");
    etslock_guard *guard = acquired(table, AMPLE_MS, AMPLE_MS);
    int64_t first = etslock_guard_remaining_ms(guard);
    int64_t before = now_ms();

    CASE("C-4: remaining time runs down");
    CHECK(first > AMPLE_MS - SOON_MS && first <= AMPLE_MS);
    CHECK_STATUS(etslock_guard_sleep(guard, 50), ETSLOCK_OK);
    CHECK(now_ms() - before >= 50 - SLACK_MS);
    CHECK(etslock_guard_remaining_ms(guard) <= first - 50 + SLACK_MS);

    CASE("C-4: extend never shortens");
    first = etslock_guard_remaining_ms(guard);
    CHECK_STATUS(etslock_guard_extend(guard, 1), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_extend(guard, 0), ETSLOCK_OK);
    CHECK(etslock_guard_remaining_ms(guard) > first - SOON_MS);
    CHECK_STATUS(etslock_guard_extend(guard, 10 * AMPLE_MS), ETSLOCK_OK);
    CHECK(etslock_guard_remaining_ms(guard) > 9 * AMPLE_MS);
    CHECK(etslock_guard_remaining_ms(guard) <= 10 * AMPLE_MS);
    CHECK_STATUS(etslock_guard_extend(guard, INT64_MAX), ETSLOCK_OK);
    CHECK(etslock_guard_remaining_ms(guard) > 9 * AMPLE_MS ||
          etslock_guard_remaining_ms(guard) == ETSLOCK_INFINITE);
    CHECK_STATUS(etslock_guard_extend(guard, ETSLOCK_INFINITE), ETSLOCK_OK);
    CHECK(etslock_guard_remaining_ms(guard) == ETSLOCK_INFINITE);
    CHECK_STATUS(etslock_guard_extend(guard, 5), ETSLOCK_OK);
    CHECK(etslock_guard_remaining_ms(guard) == ETSLOCK_INFINITE);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);

    guard = acquired(table, ETSLOCK_INFINITE, 0);
    CHECK(etslock_guard_remaining_ms(guard) == ETSLOCK_INFINITE);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);

    CASE("C-4: sleep ends at the exec deadline and says so");
    before = now_ms();
    guard = acquired(table, 50, ETSLOCK_INFINITE);
    CHECK_STATUS(etslock_guard_sleep(guard, AMPLE_MS), ETSLOCK_EXEC_TIMEOUT);
    CHECK(now_ms() - before >= 50 - SLACK_MS && now_ms() - before < SOON_MS);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_EXEC_TIMEOUT);
    etslock_table_free(table);
}

static void *sleep_long(void *user_data)
{
    etslock_guard *guard = user_data;
    CHECK_STATUS(etslock_guard_sleep(guard, ETSLOCK_INFINITE), ETSLOCK_REVOKED);
    return NULL;
}

static void sleep_and_revocation(void)
{
    etslock_table *table = table_with("old");
    etslock_guard *guard = acquired(table, ETSLOCK_INFINITE, AMPLE_MS);
    pthread_t thread;
    REQUIRE(pthread_create(&thread, NULL, sleep_long, guard) == 0);
    /* Mostly after the thread has fallen asleep; right in either order. */
    sleep_ms(50);
    CHECK_STATUS(revoke(table), ETSLOCK_OK);
    pthread_join(thread, NULL);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_REVOKED);
    etslock_table_free(table);
}

static int32_t extend_and_wait(etslock_guard *guard, const etslock_tuple *tuples,
                               size_t tuple_count, void *user_data)
{
    struct scene *scene = user_data;
    (void)tuples;
    (void)tuple_count;
    CHECK_STATUS(etslock_guard_extend(guard, AMPLE_MS), ETSLOCK_OK);
    CHECK_STATUS(stage(guard, "extended"), ETSLOCK_OK);
    sem_post(&scene->entered);
    sem_wait(&scene->go);
    return 0;
}

static void *play_extended(void *user_data)
{
    struct scene *scene = user_data;
    etslock_options options = options_of(AMPLE_MS, 1000, 0);
    CHECK_STATUS(etslock_with_lock(scene->table, KEY, extend_and_wait, scene, &options, NULL),
                 ETSLOCK_OK);
    return NULL;
}

static void extension_moves_every_deadline(void)
{
    struct scene scene;
    pthread_t thread;
    etslock_guard *guard = NULL;
    /* Past the holder's first exec deadline, which was a second, and its release time. */
    etslock_options options = options_of(1200, AMPLE_MS, AMPLE_MS);
    scene_init(&scene, table_with("old"));
    REQUIRE(pthread_create(&thread, NULL, play_extended, &scene) == 0);
    sem_wait(&scene.entered);
    CHECK_STATUS(etslock_acquire(scene.table, KEY, &options, &guard), ETSLOCK_WAIT_TIMEOUT);
    CHECK(guard == NULL);
    sem_post(&scene.go);
    pthread_join(thread, NULL);
    CHECK(table_has(scene.table, "extended"));
    scene_end(&scene);
}

static void no_time_at_all(void)
{
    struct scene scene;
    size_t i;
    for (i = 0; i < 2; i++) {
        etslock_result result = stale_result();
        scene_init(&scene, table_with("old"));
        CHECK_STATUS(play(&scene, write_unseen, run_ons[i], 0, &result), ETSLOCK_EXEC_TIMEOUT);
        scene_settle(&scene);
        CHECK(scene.runs == 0);
        CHECK(result.code == 0 && is_empty(&result));
        CHECK(is_free(scene.table));
        CHECK(table_has(scene.table, "old"));
        scene_end(&scene);
    }
}

/* --- threads --- */

static void *write_elsewhere(void *user_data)
{
    etslock_guard *guard = user_data;
    CHECK_STATUS(stage(guard, "elsewhere"), ETSLOCK_OK);
    CHECK(guard_sees(guard, "elsewhere"));
    CHECK_STATUS(etslock_guard_status(guard), ETSLOCK_OK);
    return NULL;
}

static void *release_elsewhere(void *user_data)
{
    write_elsewhere(user_data);
    CHECK_STATUS(etslock_guard_release(user_data), ETSLOCK_OK);
    return NULL;
}

static int32_t delegate(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                        void *user_data)
{
    pthread_t thread;
    (void)tuples;
    (void)tuple_count;
    (void)user_data;
    REQUIRE(pthread_create(&thread, NULL, write_elsewhere, guard) == 0);
    pthread_join(thread, NULL);
    CHECK(guard_sees(guard, "elsewhere"));
    return 0;
}

struct heir {
    etslock_table *table;
    etslock_guard *guard;
};

static void *acquire_and_end(void *user_data)
{
    struct heir *heir = user_data;
    heir->guard = acquired(heir->table, AMPLE_MS, AMPLE_MS);
    CHECK_STATUS(stage(heir->guard, "inherited"), ETSLOCK_OK);
    return NULL;
}

static void guards_and_threads(void)
{
    struct scene scene;
    struct heir heir;
    pthread_t thread;
    size_t i;

    CASE("guards: acquired here, used and released there");
    scene_init(&scene, table_with("old"));
    REQUIRE(pthread_create(&thread, NULL, release_elsewhere,
                           acquired(scene.table, AMPLE_MS, AMPLE_MS)) == 0);
    pthread_join(thread, NULL);
    CHECK(table_has(scene.table, "elsewhere"));
    CHECK(is_free(scene.table));
    scene_end(&scene);

    CASE("guards: a callback's guard, used by a thread of the callback's");
    for (i = 0; i < 2; i++) {
        scene_init(&scene, table_with("old"));
        CHECK_STATUS(play(&scene, delegate, run_ons[i], AMPLE_MS, NULL), ETSLOCK_OK);
        CHECK(table_has(scene.table, "elsewhere"));
        scene_end(&scene);
    }

    CASE("C-5: a guard outlives its thread");
    heir.table = table_with("old");
    heir.guard = NULL;
    REQUIRE(pthread_create(&thread, NULL, acquire_and_end, &heir) == 0);
    pthread_join(thread, NULL);
    CHECK_STATUS(etslock_guard_status(heir.guard), ETSLOCK_OK);
    CHECK(!is_free(heir.table));
    CHECK(guard_sees(heir.guard, "inherited"));
    CHECK_STATUS(etslock_guard_release(heir.guard), ETSLOCK_OK);
    CHECK(table_has(heir.table, "inherited"));
    etslock_table_free(heir.table);
}

/* --- fencing --- */

static void successors_are_safe(void)
{
    etslock_table *table = table_with("old");
    etslock_guard *late = acquired(table, SHORT_MS, 0);
    etslock_guard *successor = NULL;
    etslock_options options = options_of(AMPLE_MS, AMPLE_MS, AMPLE_MS);
    /* Of its own: the same owner would be told of a deadlock instead of waiting. */
    options.owner = 1;
    CHECK_STATUS(stage(late, "late"), ETSLOCK_OK);
    CHECK_STATUS(etslock_acquire(table, KEY, &options, &successor), ETSLOCK_OK);
    CHECK(etslock_guard_token(successor) > etslock_guard_token(late));
    CHECK_STATUS(stage(successor, "successor"), ETSLOCK_OK);

    CHECK_STATUS(etslock_guard_commit(late), ETSLOCK_REVOKED);
    CHECK_STATUS(etslock_guard_extend(late, AMPLE_MS), ETSLOCK_REVOKED);
    CHECK_STATUS(etslock_guard_release(late), ETSLOCK_REVOKED);
    CHECK(!is_free(table));
    CHECK(table_has(table, "old"));
    CHECK_STATUS(etslock_guard_release(successor), ETSLOCK_OK);
    CHECK(table_has(table, "successor"));
    CHECK(is_free(table));
    etslock_table_free(table);
}

static int32_t write_late(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                          void *user_data)
{
    struct scene *scene = user_data;
    CHECK_STATUS(stage(guard, "in time"), ETSLOCK_OK);
    sem_wait(&scene->go);
    CHECK_STATUS(stage(guard, "late"), ETSLOCK_REVOKED);
    CHECK_STATUS(etslock_guard_commit(guard), ETSLOCK_REVOKED);
    CHECK(are(tuples, tuple_count, "old")); /* valid until the callback returns */
    CHECK(etslock_guard_token(guard) != 0);
    return 0;
}

static void late_writes_are_refused(void)
{
    struct scene scene;
    etslock_guard *successor;
    scene_init(&scene, table_with("old"));
    CHECK_STATUS(play(&scene, write_late, ETSLOCK_RUN_ON_WORKER, SHORT_MS, NULL),
                 ETSLOCK_EXEC_TIMEOUT);
    successor = acquired(scene.table, AMPLE_MS, AMPLE_MS);
    CHECK_STATUS(stage(successor, "successor"), ETSLOCK_OK);
    sem_post(&scene.go);
    scene_settle(&scene);
    CHECK(table_has(scene.table, "old"));
    CHECK_STATUS(etslock_guard_release(successor), ETSLOCK_OK);
    CHECK(table_has(scene.table, "successor"));
    scene_end(&scene);
}

enum { MOST_KEYS = 8000, KEY_LEN = 4 };

struct revoker {
    etslock_table *table;
    char (*keys)[KEY_LEN];
    size_t key_count;
    int64_t delay_us;
    sem_t start;
    int first, last; /* what the first and the last key held right after the revocation */
    pthread_t thread;
};

static int number_under(etslock_table *table, const char *key)
{
    etslock_tuples *tuples = NULL;
    size_t count = 0;
    int number = -1;
    REQUIRE(etslock_table_lookup(table, key, KEY_LEN, &tuples) == ETSLOCK_OK);
    memcpy(&number, etslock_tuples_data(tuples, &count)->value, sizeof number);
    etslock_tuples_free(tuples);
    return number;
}

static void *revoke_after_delay(void *user_data)
{
    struct revoker *revoker = user_data;
    etslock_status status;
    sem_wait(&revoker->start);
    sleep_us(revoker->delay_us);
    status = etslock_lock_table_force_release(NULL, revoker->table, revoker->keys[0], KEY_LEN);
    CHECK(status == ETSLOCK_OK || status == ETSLOCK_NOT_FOUND);
    revoker->first = number_under(revoker->table, revoker->keys[0]);
    revoker->last = number_under(revoker->table, revoker->keys[revoker->key_count - 1]);
    return NULL;
}

/* A commit of many keys takes long enough to be met halfway by a revocation. */
static void commits_under_way(void)
{
    static char names[MOST_KEYS][KEY_LEN];
    static etslock_key keys[MOST_KEYS];
    int small = is_small_scale();
    size_t key_count = small ? 200 : MOST_KEYS;
    int attempts = small ? 10 : 40;
    etslock_options options = options_of(AMPLE_MS, ETSLOCK_INFINITE, ETSLOCK_INFINITE);
    etslock_table *table = new_table();
    int64_t commit_us = 0;
    int value = 0;
    size_t i;
    int attempt;
    for (i = 0; i < key_count; i++) {
        uint32_t number = (uint32_t)i;
        memcpy(names[i], &number, KEY_LEN);
        keys[i].key = names[i];
        keys[i].key_len = KEY_LEN;
        REQUIRE(etslock_table_insert(table, names[i], KEY_LEN, &value, sizeof value) ==
                ETSLOCK_OK);
    }
    for (attempt = 1; attempt <= attempts; attempt++) {
        struct revoker revoker;
        etslock_guard *guard = NULL;
        etslock_status status;
        size_t changed = 0;
        int64_t began;
        REQUIRE(etslock_acquire_locks(table, keys, key_count, &options, &guard) == ETSLOCK_OK);
        for (i = 0; i < key_count; i++)
            REQUIRE(etslock_guard_insert(guard, names[i], KEY_LEN, &attempt, sizeof attempt) ==
                    ETSLOCK_OK);
        revoker.table = table;
        revoker.keys = names;
        revoker.key_count = key_count;
        revoker.delay_us = commit_us * (attempt % 20) / 16;
        sem_init(&revoker.start, 0, 0);
        /* The first attempt is not disturbed: it tells how long a commit takes. */
        if (attempt > 1) {
            REQUIRE(pthread_create(&revoker.thread, NULL, revoke_after_delay, &revoker) == 0);
            sem_post(&revoker.start);
        }
        began = now_us();
        status = etslock_guard_release(guard);
        if (attempt > 1) {
            pthread_join(revoker.thread, NULL);
            CHECK(number_under(table, names[0]) == revoker.first);
            CHECK(number_under(table, names[key_count - 1]) == revoker.last);
        } else {
            commit_us = now_us() - began < 500000 ? now_us() - began : 500000;
        }
        sem_destroy(&revoker.start);
        CHECK(status == ETSLOCK_OK || status == ETSLOCK_REVOKED);
        for (i = 0; i < key_count; i++)
            changed += number_under(table, names[i]) == attempt;
        CHECK(changed == (status == ETSLOCK_OK ? key_count : 0));
    }
    etslock_table_free(table);
}

static int32_t write_straight(etslock_guard *guard, const etslock_tuple *tuples,
                              size_t tuple_count, void *user_data)
{
    struct scene *scene = user_data;
    (void)tuples;
    (void)tuple_count;
    CHECK_STATUS(put(scene->table, "straight"), ETSLOCK_OK);
    CHECK(table_has(scene->table, "straight"));
    CHECK(guard_sees(guard, "straight"));
    CHECK_STATUS(stage(guard, "staged"), ETSLOCK_OK);
    CHECK(table_has(scene->table, "straight"));
    return scene->returns;
}

static int32_t write_straight_late(etslock_guard *guard, const etslock_tuple *tuples,
                                   size_t tuple_count, void *user_data)
{
    struct scene *scene = user_data;
    (void)tuples;
    (void)tuple_count;
    sem_wait(&scene->go);
    CHECK_STATUS(etslock_guard_status(guard), ETSLOCK_REVOKED);
    CHECK_STATUS(put(scene->table, "straight"), ETSLOCK_OK);
    return 0;
}

static void unguarded_writes(void)
{
    struct scene scene;
    size_t i;

    CASE("C-9: unguarded writes are visible at once and not rolled back");
    for (i = 0; i < 2; i++) {
        scene_init(&scene, table_with("old"));
        scene.returns = 1;
        CHECK_STATUS(play(&scene, write_straight, run_ons[i], AMPLE_MS, NULL),
                     ETSLOCK_CALLBACK_FAILED);
        CHECK(table_has(scene.table, "straight"));
        scene_end(&scene);
    }

    CASE("C-9: unguarded writes are not fenced");
    scene_init(&scene, table_with("old"));
    CHECK_STATUS(play(&scene, write_straight_late, ETSLOCK_RUN_ON_WORKER, SHORT_MS, NULL),
                 ETSLOCK_EXEC_TIMEOUT);
    CHECK(table_has(scene.table, "old"));
    sem_post(&scene.go);
    scene_settle(&scene);
    CHECK(table_has(scene.table, "straight"));
    scene_end(&scene);
}

int main(void)
{
    size_t i;
    for (i = 0; i < 2; i++) {
        RUN(staged_writes(run_ons[i]));
        RUN(results(run_ons[i]));
    }
    RUN(acquired_writes());
    CASE("C-7: commit replays on the tuples of that moment");
    RUN(replay_at_commit());
    RUN(answers_of_acquired_guards());
    RUN(answers_of_callbacks());
    CASE("C-18: a key that was not named is not covered");
    RUN(uncovered_keys());
    CASE("tokens grow");
    RUN(tokens());
    RUN(remaining_time());
    CASE("C-8: sleep wakes when the lock is taken away");
    RUN(sleep_and_revocation());
    CASE("C-4: an extension moves the caller's deadline and the release time");
    RUN(extension_moves_every_deadline());
    CASE("C-4, C-12: with no time to run, nothing runs");
    RUN(no_time_at_all());
    RUN(guards_and_threads());
    CASE("C-6: a late release cannot free a successor's lock");
    RUN(successors_are_safe());
    CASE("C-8: no write lands after revocation");
    RUN(late_writes_are_refused());
    CASE("C-7, C-8: a commit under way is waited for, and is all or nothing");
    RUN(commits_under_way());
    RUN(unguarded_writes());
    return check_report();
}
