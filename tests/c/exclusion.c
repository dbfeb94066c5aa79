/* exclusion.c - C-1: two live guards never hold the same key at once.
 *
 * Run: exclusion [seed]. Threads lock a few keys in every way there is. Inside, each looks for
 * another holder in three ways that know nothing of the lock: a per-key owner word and a counter
 * in plain memory, read, held through a pause and written back; a count of those inside; and a
 * counter in the table, read and written through the guard.
 *
 * "strict" rounds give everybody time enough, so one holder inside is the whole truth. In "hasty"
 * rounds many outlive their time. The library cannot stop their code, it only refuses their
 * writes; so a holder accuses the lock only if it has seen a later token on its key and its own
 * guard is live *afterwards*. The table's counter is exact in both: it grows once per ETSLOCK_OK.
 *
 * First the detectors are tried on a lock that does not exclude: each thread has a lock table of
 * its own. They must find that out, else the test says nothing.
 */
#include "check.h"

#include <pthread.h>
#include <sched.h>

enum { THREADS = 8, KEYS = 4, AMPLE_MS = 60000 };

struct slot {
    char key[8];
    uint64_t owner;  /* the token inside, or 0: separate loads and stores, never one step */
    uint64_t plain;  /* likewise */
    int inside;
    uint64_t newest; /* the largest token seen inside */
    uint64_t successes;
};

/* What the table holds under a key. */
struct row {
    uint64_t count;
    uint64_t token; /* of the guard that wrote it */
};

struct job {
    struct slot *slot;
    int strict;
    int pause;
};

struct round {
    int strict;
    int broken;     /* each thread has its own lock table */
    long length_ms; /* a broken round ends early, when it is found out */
};

struct player {
    const struct round *round;
    etslock_lock_table *lock_table;
    uint64_t random;
    int64_t end_ms;
    uint64_t timeouts;
    uint64_t strange; /* answers that no call may give here */
    pthread_t thread;
};

static struct slot slots[KEYS];
static etslock_table *table;
static uint64_t seed = 20240607;
static uint64_t overlaps;       /* accusations of the lock */
static uint64_t given, returned; /* jobs handed to the library, and freed by it */

static uint64_t load(const uint64_t *word)
{
    return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

static void store(uint64_t *word, uint64_t value)
{
    __atomic_store_n(word, value, __ATOMIC_RELEASE);
}

static void add(uint64_t *word)
{
    __atomic_fetch_add(word, 1, __ATOMIC_RELAXED);
}

static void raise_to(uint64_t *word, uint64_t value)
{
    uint64_t seen = load(word);
    while (seen < value &&
           !__atomic_compare_exchange_n(word, &seen, value, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
        ;
}

static uint64_t draw(uint64_t *random, uint64_t below)
{
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    return *random % below;
}

static void pause_inside(int kind)
{
    switch (kind) {
    case 0:
        break;
    case 1:
        sched_yield();
        break;
    case 2:
        sleep_us(5);
        break;
    default:
        sleep_us(1000L * (kind - 2)); /* long enough for a hasty holder to be late */
    }
}

/* A later lock of this key was granted, and yet this one is live. */
static void accuse_if_live(const etslock_guard *guard)
{
    if (etslock_guard_status(guard) == ETSLOCK_OK)
        add(&overlaps);
}

static void count_in_plain_memory(const etslock_guard *guard, const struct job *job)
{
    struct slot *slot = job->slot;
    uint64_t token = etslock_guard_token(guard);
    uint64_t plain;
    if (__atomic_fetch_add(&slot->inside, 1, __ATOMIC_ACQ_REL) != 0 || load(&slot->owner) != 0)
        add(&overlaps);
    store(&slot->owner, token);
    plain = load(&slot->plain);
    pause_inside(job->pause);
    store(&slot->plain, plain + 1);
    if (load(&slot->owner) != token)
        add(&overlaps);
    store(&slot->owner, 0);
    __atomic_fetch_sub(&slot->inside, 1, __ATOMIC_ACQ_REL);
}

/* Adds one to the row, unless the guard is refused. */
static void count_in_the_table(etslock_guard *guard, const struct job *job)
{
    struct slot *slot = job->slot;
    uint64_t token = etslock_guard_token(guard);
    etslock_tuples *found = NULL;
    size_t count = 0;
    struct row row = {0, 0};
    if (etslock_guard_lookup(guard, slot->key, sizeof slot->key, &found) != ETSLOCK_OK)
        return;
    memcpy(&row, etslock_tuples_data(found, &count)[0].value, sizeof row);
    etslock_tuples_free(found);
    if (count != 1 || row.token >= token)
        accuse_if_live(guard);
    raise_to(&slot->newest, token);
    pause_inside(job->pause);
    if (load(&slot->newest) > token)
        accuse_if_live(guard);
    row.count++;
    row.token = token;
    /* Refused when late: the call's status then says so, and nothing is counted. */
    etslock_guard_insert(guard, slot->key, sizeof slot->key, &row, sizeof row);
}

static int32_t count_once(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                          void *user_data)
{
    const struct job *job = user_data;
    (void)tuples;
    (void)tuple_count;
    if (job->strict)
        count_in_plain_memory(guard, job);
    count_in_the_table(guard, job);
    return 0;
}

static void free_job(void *user_data)
{
    free(user_data);
    __atomic_fetch_add(&returned, 1, __ATOMIC_RELEASE);
}

static int64_t pick(uint64_t *random, const int64_t *from, size_t count)
{
    return from[draw(random, count)];
}

static etslock_options draw_options(struct player *player)
{
    static const int64_t waits[] = {0, 1, 5, 50, AMPLE_MS, AMPLE_MS, AMPLE_MS};
    static const int64_t hasty_execs[] = {1, 2, 3, 50, AMPLE_MS};
    static const int64_t hasty_fails[] = {0, 1, 5, 50};
    static const int32_t queues[] = {ETSLOCK_QUEUE_FAIR, ETSLOCK_QUEUE_FIFO, ETSLOCK_QUEUE_POLLING};
    uint64_t *random = &player->random;
    etslock_options options;
    etslock_options_init(&options, sizeof options);
    options.lock_table = player->lock_table;
    options.wait_timeout_ms = pick(random, waits, sizeof waits / sizeof *waits);
    options.spin_delay_ms = (int64_t)draw(random, 2);
    options.queue = queues[draw(random, 3)];
    options.run_on = draw(random, 2) ? ETSLOCK_RUN_ON_WORKER : ETSLOCK_RUN_ON_CALLER;
    options.on_exec_timeout = draw(random, 2) ? ETSLOCK_ABANDON : ETSLOCK_JOIN;
    options.exec_timeout_ms = AMPLE_MS;
    options.fail_timeout_ms = AMPLE_MS;
    if (!player->round->strict) {
        options.exec_timeout_ms =
            pick(random, hasty_execs, sizeof hasty_execs / sizeof *hasty_execs);
        options.fail_timeout_ms =
            pick(random, hasty_fails, sizeof hasty_fails / sizeof *hasty_fails);
    }
    options.user_data_free = free_job;
    return options;
}

static etslock_status lock_once(struct player *player, struct slot *slot)
{
    etslock_options options = draw_options(player);
    struct job *job = malloc(sizeof *job);
    REQUIRE(job != NULL);
    job->slot = slot;
    job->strict = player->round->strict;
    job->pause = (int)draw(&player->random, 3);
    if (!job->strict && draw(&player->random, 8) == 0)
        job->pause = 3 + (int)draw(&player->random, 4);

    if (draw(&player->random, 3) == 0) {
        etslock_guard *guard = NULL;
        etslock_status status =
            etslock_acquire(table, slot->key, sizeof slot->key, &options, &guard);
        if (status == ETSLOCK_OK) {
            count_once(guard, NULL, 0, job);
            status = etslock_guard_release(guard);
        }
        free(job);
        return status;
    }
    __atomic_fetch_add(&given, 1, __ATOMIC_RELAXED);
    return etslock_with_lock(table, slot->key, sizeof slot->key, count_once, job, &options, NULL);
}

static void *play(void *user_data)
{
    struct player *player = user_data;
    const struct round *round = player->round;
    while (now_ms() < player->end_ms && !(round->broken && load(&overlaps) > 0)) {
        struct slot *slot = &slots[draw(&player->random, KEYS)];
        switch (lock_once(player, slot)) {
        case ETSLOCK_OK:
            add(&slot->successes);
            break;
        case ETSLOCK_WAIT_TIMEOUT:
            break;
        case ETSLOCK_EXEC_TIMEOUT: /* worker and caller: late */
        case ETSLOCK_REVOKED:      /* an acquired guard, after its release time */
            player->timeouts++;
            break;
        default:
            player->strange++;
        }
    }
    return NULL;
}

static void prepare_keys(void)
{
    struct row row = {0, 0};
    int i;
    REQUIRE(etslock_table_new(NULL, &table) == ETSLOCK_OK);
    memset(slots, 0, sizeof slots);
    for (i = 0; i < KEYS; i++) {
        snprintf(slots[i].key, sizeof slots[i].key, "key-%d", i);
        REQUIRE(etslock_table_insert(table, slots[i].key, sizeof slots[i].key, &row, sizeof row) ==
                ETSLOCK_OK);
    }
    __atomic_store_n(&overlaps, 0, __ATOMIC_RELAXED);
}

/* Abandoned callbacks still use the slots. */
static void await_all_callbacks(void)
{
    WAIT_UNTIL(load(&returned) == load(&given));
}

static void check_counters(const struct round *round)
{
    int i;
    for (i = 0; i < KEYS; i++) {
        etslock_tuples *found = NULL;
        size_t count = 0;
        struct row row;
        REQUIRE(etslock_table_lookup(table, slots[i].key, sizeof slots[i].key, &found) ==
                ETSLOCK_OK);
        memcpy(&row, etslock_tuples_data(found, &count)[0].value, sizeof row);
        etslock_tuples_free(found);
        CHECK(slots[i].successes > 0);
        CHECK(row.count == slots[i].successes);
        if (round->strict)
            CHECK(slots[i].plain == slots[i].successes);
    }
}

static void play_round(const struct round *round)
{
    struct player players[THREADS];
    uint64_t timeouts = 0, successes = 0;
    int i;
    prepare_keys();
    for (i = 0; i < THREADS; i++) {
        memset(&players[i], 0, sizeof players[i]);
        players[i].round = round;
        players[i].random = seed * 0x9e3779b97f4a7c15u + (uint64_t)(i + 1) * 0xd1b54a32d192ed03u;
        players[i].end_ms = now_ms() + round->length_ms;
        if (round->broken)
            REQUIRE(etslock_lock_table_new(&players[i].lock_table) == ETSLOCK_OK);
        REQUIRE(pthread_create(&players[i].thread, NULL, play, &players[i]) == 0);
    }
    for (i = 0; i < THREADS; i++) {
        pthread_join(players[i].thread, NULL);
        CHECK(players[i].strange == 0);
        timeouts += players[i].timeouts;
    }
    await_all_callbacks();
    for (i = 0; i < KEYS; i++)
        successes += slots[i].successes;
    printf("%s, %s: %llu calls done, %llu outlived their time, %llu overlaps\n",
           round->broken ? "no exclusion" : "exclusion", round->strict ? "strict" : "hasty",
           (unsigned long long)successes, (unsigned long long)timeouts,
           (unsigned long long)overlaps);

    if (round->broken) {
        CHECK(overlaps > 0);
    } else {
        CHECK(overlaps == 0);
        check_counters(round);
        CHECK(round->strict ? timeouts == 0 : timeouts > 0);
    }
    for (i = 0; i < THREADS; i++)
        etslock_lock_table_free(players[i].lock_table);
    etslock_table_free(table);
}

int main(void)
{
    long length_ms = is_small_scale() ? 400 : 1500;
    struct round strict = {1, 0, 0}, hasty = {0, 0, 0};
    struct round no_lock_strict = {1, 1, 5000}, no_lock_hasty = {0, 1, 5000};
    strict.length_ms = hasty.length_ms = length_ms;
    seed = CHECK_NUMBER(seed);
    printf("seed %llu\n", (unsigned long long)seed);

    CASE("C-1: the detectors find a lock that does not exclude");
    RUN(play_round(&no_lock_strict));
    RUN(play_round(&no_lock_hasty));
    CASE("C-1, C-7: one holder at a time, when all have time");
    RUN(play_round(&strict));
    CASE("C-1, C-4, C-5, C-6, C-8: one live holder at a time, when many are late");
    RUN(play_round(&hasty));
    return check_report();
}
