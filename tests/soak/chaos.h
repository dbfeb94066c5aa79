/* chaos.h - what goes on around the callers: somebody takes locks away, some race, somebody reads
 * everything all the time, CPU hogs come and go; and the watch, which sees who waits in vain.
 */
#ifndef ETSLOCK_SOAK_CHAOS_H
#define ETSLOCK_SOAK_CHAOS_H

#include "callers.h"

struct troublemaker {
    pthread_t thread;
    uint64_t random;
};

/* --- the bystander --- */

static void force_release(const struct book *book)
{
    etslock_status status = etslock_lock_table_force_release(
        lock_table_of(book->table), tables[book->table], book->key, book->key_len);
    if (status == ETSLOCK_OK)
        count(FORCED);
    else if (status != ETSLOCK_NOT_FOUND)
        report(WRONG_ANSWER, "%s for a force release", etslock_status_name(status));
}

static void *force_releases(void *argument)
{
    struct troublemaker *bystander = argument;
    while (!is_stopping()) {
        force_release(draw_book(&bystander->random, (int)draw(&bystander->random, TABLES), WILD));
        sleep_us((int64_t)draw(&bystander->random, 10000));
    }
    return NULL;
}

/* --- racers --- */

/* What others do with time to sleep, these do as often as they can, all with one key at a time: a
 * wrong answer that takes a thread being stopped at one instruction takes many attempts.
 */
static void *race(void *argument)
{
    struct troublemaker *racer = argument;
    uint64_t *random = &racer->random;
    while (!is_stopping()) {
        int64_t end = now_ms() + (int64_t)draw(random, 100);
        struct book *book = &books[now_ms() / 1000 % TABLES][RACED];
        while (now_ms() < end) {
            struct call *call = begin_call(once_in(random, 3) ? CALLS_BACK : RETURNS_A_GUARD, 0,
                                           draw(random, UINT64_MAX) | 1);
            call->handle = tables[book->table];
            call->visit.books[0] = book;
            draw_question(call, 1);
            call->behaviour = (enum behaviour)PICK(random, READ, WRITE, COMMIT_TWICE);
            call->options.wait_timeout_ms = PICK(random, 0, 0, 1, SHORT_WAIT_MS);
            call->options.exec_timeout_ms = PICK(random, 1, LONG_MS);
            if (once_in(random, 4))
                force_release(book);
            ask(call);
            count(RACES);
        }
        sleep_ms((int64_t)draw(random, 200));
    }
    return NULL;
}

/* --- the reader --- */

static void read_stats(int table, etslock_stats *before)
{
    etslock_stats now = stats_of(lock_table_of(table));
    if (now.acquired < before->acquired || now.contended < before->contended ||
        now.wait_timeouts < before->wait_timeouts || now.exec_timeouts < before->exec_timeouts ||
        now.forced_releases < before->forced_releases || now.deadlocks < before->deadlocks)
        report(BAD_SNAPSHOT, "a counter of the %s went back", table_names[table]);
    *before = now;
}

/* Lists of locks that are made one after the other show each key's tokens in order. */
static void read_locks(int table)
{
    etslock_locks *locks = locks_of(lock_table_of(table), tables[table]);
    etslock_lock_info info;
    size_t i;
    for (i = 0; i < etslock_locks_count(locks); i++) {
        struct book *book;
        info.struct_size = sizeof info;
        REQUIRE(etslock_locks_get(locks, i, &info) == ETSLOCK_OK);
        book = book_of(table, info.key, info.key_len);
        if (book == NULL || info.token == 0)
            continue;
        if (info.token < book->last_seen)
            report(BAD_SNAPSHOT, "%s is held with %llu after %llu", book->key,
                   (unsigned long long)info.token, (unsigned long long)book->last_seen);
        book->last_seen = info.token;
    }
    etslock_locks_free(locks);
}

/* Each key that is there all the time comes once. */
static void read_table(int table)
{
    etslock_cursor *cursor = NULL;
    etslock_tuples *tuples = NULL;
    int i;
    for (i = 0; i < KEYS; i++)
        books[table][i].in_cursor = 0;
    REQUIRE(etslock_table_cursor(tables[table], &cursor) == ETSLOCK_OK);
    while (etslock_cursor_next(cursor, &tuples) == ETSLOCK_OK) {
        size_t rows = 0;
        const etslock_tuple *data = etslock_tuples_data(tuples, &rows);
        struct book *book = rows > 0 ? book_of(table, data[0].key, data[0].key_len) : NULL;
        if (book != NULL) {
            struct rows seen = add_up(book, data, rows);
            if (seen.fault != NULL)
                report_fault(book, &seen);
            book->in_cursor++;
        }
        etslock_tuples_free(tuples);
    }
    etslock_cursor_free(cursor);
    for (i = 0; i < KEYS; i++)
        if (books[table][i].in_cursor != 1)
            report(BAD_SNAPSHOT, "a cursor shows %s %llu times", books[table][i].key,
                   (unsigned long long)books[table][i].in_cursor);
}

static void *read_everything(void *unused)
{
    static etslock_stats stats[TABLES]; /* they go on from round to round */
    int table, i;
    (void)unused;
    while (!is_stopping()) {
        for (table = 0; table < TABLES; table++) {
            read_stats(table, &stats[table]);
            read_locks(table);
            read_table(table);
            for (i = 0; i < KEYS; i++)
                audit(&books[table][i]);
        }
        count(LOOKS);
        sleep_ms(1);
    }
    return NULL;
}

/* --- CPU hogs --- */

static void *hog(void *argument)
{
    struct troublemaker *hog = argument;
    while (!is_stopping()) {
        int64_t end = now_ms() + (int64_t)draw(&hog->random, 300);
        while (now_ms() < end && !is_stopping())
            ;
        sleep_ms((int64_t)draw(&hog->random, 700));
    }
    return NULL;
}

/* --- the watch --- */

/* A key that somebody waits for patiently is granted again and again: holders have 50 ms, or are
 * soon done; several keys are waited for for two seconds at most. The rest is for busy machines,
 * and comes on top of what the watch itself overslept.
 */
enum { STALL_US = 5000000, BEAT_MS = 10, ENDS_WITHIN_MS = 60000 };

static sem_t watch_ends;
static int64_t must_end_ms;

static void print_figures(void);

static void look_for_stalls(void)
{
    int table, i;
    for (table = 0; table < TABLES; table++) {
        for (i = 0; i < KEYS; i++) {
            struct book *book = &books[table][i];
            int64_t moved = (int64_t)load(&book->moved_us);
            if (load(&book->patient) == 0 ||
                now_us() - moved < STALL_US + (int64_t)load(&worst_sleep_us))
                continue;
            report(STALLED, "%llu wait for %s of the %s, and nobody has got it for %lld ms",
                   (unsigned long long)load(&book->patient), book->key, table_names[table],
                   (long long)(now_us() - moved) / 1000);
            store(&book->moved_us, (uint64_t)now_us());
        }
    }
}

static void *watch(void *unused)
{
    (void)unused;
    while (sem_trywait(&watch_ends) != 0) {
        int64_t slept = now_us();
        sleep_ms(BEAT_MS);
        slept = now_us() - slept - BEAT_MS * 1000;
        raise_to(&worst_sleep_us, (uint64_t)(slept > 0 ? slept : 0));
        look_for_stalls();
        if (now_ms() > must_end_ms) {
            report(STALLED, "the soak does not end");
            print_figures();
            abort();
        }
    }
    return NULL;
}

#endif
