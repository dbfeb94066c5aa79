/* visits.h - a visit: what a holder writes, and how it finds out that it is not alone.
 *
 * A holder may be overtaken at any moment: its time passes, or its lock is taken away, and somebody
 * else is inside by right. So it accuses only with proof that its own lock was in force after what
 * it saw: its guard answers ETSLOCK_OK to a question that was asked later, or a commit that was
 * begun later is answered with ETSLOCK_OK. What it saw is a larger token on its key, or a row that
 * changed. On calm keys nobody is ever overtaken, and plain memory is proof enough.
 */
#ifndef ETSLOCK_SOAK_VISITS_H
#define ETSLOCK_SOAK_VISITS_H

#include "books.h"

enum { MOST_KEYS = 5, ROWS_DRAWN_TOGETHER = 16 };

struct visit {
    etslock_guard *guard;
    struct book *books[MOST_KEYS];
    int count;
    int on_worker;
    int lost; /* the guard said so */
    int staged;
    uint64_t token;
    uint64_t calm_visits[MOST_KEYS];
    struct rows rows[MOST_KEYS]; /* committed, as far as this holder knows */
    struct rows next[MOST_KEYS]; /* with the staged writes */
};

/* Whether the guard was live when it answered, and whether it may answer so. */
static int is_live(struct visit *visit, etslock_status answer)
{
    switch (answer) {
    case ETSLOCK_OK:
        if (visit->lost)
            report(REVIVED, "token %llu of %s", (unsigned long long)visit->token,
                   visit->books[0]->key);
        return 1;
    case ETSLOCK_EXEC_TIMEOUT:
    case ETSLOCK_REVOKED:
        if (visit->books[0]->temper == CALM || (visit->on_worker && answer != ETSLOCK_REVOKED))
            report(WRONG_ANSWER, "a guard for %s says %s", visit->books[0]->key,
                   etslock_status_name(answer));
        visit->lost = 1;
        return 0;
    default:
        report(WRONG_ANSWER, "a guard for %s says %s", visit->books[0]->key,
               etslock_status_name(answer));
        return 0;
    }
}

/* To be asked after what it shall prove. */
static int in_force(struct visit *visit)
{
    return is_live(visit, etslock_guard_status(visit->guard));
}

static int was_overtaken(const struct visit *visit)
{
    int i;
    for (i = 0; i < visit->count; i++)
        if (load(&visit->books[i]->newest) > visit->token)
            return 1;
    return 0;
}

static void accuse(const struct visit *visit, const char *how)
{
    report(TWO_HOLDERS, "%s of the %s: a larger token than %llu was inside before it %s",
           visit->books[0]->key, table_names[visit->books[0]->table],
           (unsigned long long)visit->token, how);
}

/* The rows of a key with the staged writes; `lost` tells if there was no answer. */
static struct rows look_through(struct visit *visit, int key)
{
    const struct book *book = visit->books[key];
    etslock_tuples *found_rows = NULL;
    struct rows rows = {0, 0, 0, NULL};
    size_t rows_found = 0;
    if (is_live(visit,
                etslock_guard_lookup(visit->guard, book->key, book->key_len, &found_rows))) {
        const etslock_tuple *data = etslock_tuples_data(found_rows, &rows_found);
        rows = add_up(book, data, rows_found);
        /* Staged writes on a successor's rows are no fault. */
        if (rows.fault != NULL && in_force(visit))
            report_fault(book, &rows);
    }
    etslock_tuples_free(found_rows);
    return rows;
}

static void begin_visit(struct visit *visit, etslock_guard *guard)
{
    int i;
    visit->guard = guard;
    visit->lost = visit->staged = 0;
    visit->token = etslock_guard_token(guard);
    for (i = 0; i < visit->count; i++) {
        struct book *book = visit->books[i];
        uint64_t newest = raise_to(&book->newest, visit->token);
        store(&book->moved_us, (uint64_t)now_us());
        if (newest > visit->token && in_force(visit))
            accuse(visit, "came");
        if (newest == visit->token)
            report(TOKEN_ORDER, "token %llu twice", (unsigned long long)newest);
        if (book->temper == CALM) {
            if (book->inside != 0)
                accuse(visit, "left");
            book->inside = visit->token;
            visit->calm_visits[i] = book->visits;
        }
    }
    for (i = 0; i < visit->count && !visit->lost; i++) {
        visit->rows[i] = look_through(visit, i);
        if (visit->rows[i].token >= visit->token && in_force(visit))
            report(TOKEN_ORDER, "%s has a row of %llu; the holder is %llu", visit->books[i]->key,
                   (unsigned long long)visit->rows[i].token, (unsigned long long)visit->token);
    }
}

/* The tuples that a callback is given are grouped by key. */
static void check_given(struct visit *visit, const etslock_tuple *tuples, size_t tuple_count)
{
    int i;
    for (i = 0; i < visit->count && !visit->lost; i++) {
        const struct book *book = visit->books[i];
        size_t first = 0, end;
        struct rows given;
        while (first < tuple_count && book_of(book->table, tuples[first].key,
                                              tuples[first].key_len) != book)
            first++;
        end = first;
        while (end < tuple_count && book_of(book->table, tuples[end].key,
                                            tuples[end].key_len) == book)
            end++;
        given = add_up(book, tuples + first, end - first);
        if (given.fault != NULL)
            report_fault(book, &given);
        if (!same_rows(&given, &visit->rows[i]) && in_force(visit))
            report(LATE_WRITE, "%s changed between the lock and the callback", book->key);
    }
}

/* Nobody else writes while the lock is in force. */
static void check_alone(struct visit *visit)
{
    int i;
    if (visit->lost)
        return;
    for (i = 0; i < visit->count; i++) {
        struct rows rows = look(visit->books[i]);
        if (!same_rows(&rows, &visit->rows[i]) && in_force(visit))
            report(LATE_WRITE, "%s of the %s: %llu, token %llu, became %llu, token %llu",
                   visit->books[i]->key, table_names[visit->books[i]->table],
                   (unsigned long long)visit->rows[i].count,
                   (unsigned long long)visit->rows[i].token, (unsigned long long)rows.count,
                   (unsigned long long)rows.token);
    }
    if (was_overtaken(visit) && in_force(visit))
        accuse(visit, "was asked");
}

/* Stages one more success for each key. */
static int stage(struct visit *visit)
{
    int i;
    for (i = 0; i < visit->count && !visit->lost; i++) {
        const struct book *book = visit->books[i];
        const struct rows *now = &visit->rows[i];
        struct rows *next = &visit->next[i];
        struct row row = {now->count + 1, visit->token}, old = {now->count, now->token};
        etslock_guard *guard = visit->guard;
        next->count = row.count;
        next->token = row.token;
        next->rows = 1;
        if (book->table == 1) {
            if (!is_live(visit, etslock_guard_delete_tuple(guard, book->key, book->key_len, &old,
                                                           sizeof old)))
                return 0;
        } else if (book->table == 2 && now->rows < ROWS_DRAWN_TOGETHER) {
            row.count = 1;
            next->rows = now->rows + 1;
        } else if (book->table == 2) {
            if (!is_live(visit, etslock_guard_delete(guard, book->key, book->key_len)))
                return 0;
        }
        is_live(visit, etslock_guard_insert(guard, book->key, book->key_len, &row, sizeof row));
    }
    visit->staged = !visit->lost;
    return visit->staged;
}

static void check_staged(struct visit *visit)
{
    int i;
    for (i = 0; i < visit->count && visit->staged && !visit->lost; i++) {
        struct rows rows = look_through(visit, i);
        if (!same_rows(&rows, &visit->next[i]) && in_force(visit))
            report(LATE_WRITE, "%s does not show its holder what it staged", visit->books[i]->key);
    }
}

/* The books of a success, or of a failure, that was `pending`. */
static void settle_pending(struct book *const *of, int book_count, int succeeded)
{
    int i;
    for (i = 0; i < book_count; i++) {
        if (succeeded)
            add(&of[i]->reported, 1);
        add(&of[i]->pending, -1);
    }
}

static void make_pending(struct book *const *of, int book_count)
{
    int i;
    for (i = 0; i < book_count; i++)
        add(&of[i]->pending, 1);
}

/* Commits in the middle of a visit. */
static int commit(struct visit *visit)
{
    int overtaken = was_overtaken(visit), committed;
    make_pending(visit->books, visit->count);
    committed = is_live(visit, etslock_guard_commit(visit->guard));
    settle_pending(visit->books, visit->count, committed && visit->staged);
    if (committed && overtaken)
        accuse(visit, "committed");
    if (committed && visit->staged)
        memcpy(visit->rows, visit->next, sizeof visit->rows);
    visit->staged = 0;
    count(COMMITS);
    return committed;
}

/* Before the lock is given back: what was staged is decided with that. */
static void end_visit(struct visit *visit)
{
    int i;
    check_alone(visit);
    for (i = 0; i < visit->count; i++) {
        struct book *book = visit->books[i];
        if (book->temper != CALM)
            continue;
        if (book->inside != visit->token || book->visits != visit->calm_visits[i])
            accuse(visit, "left");
        book->visits = visit->calm_visits[i] + 1;
        book->inside = 0;
    }
}

#endif
