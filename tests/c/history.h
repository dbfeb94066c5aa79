/* history.h - what several threads did to one key, and whether some order of it explains what they
 * saw: a recorder, and a search for linearizations.
 *
 * A history is a list of steps, each with a time before it and a time after it. It is explained by
 * an order of all steps that leaves those in place that did not overlap, and in which each step is
 * possible on what the steps before it made of the key: its tuples, and who holds its lock. What
 * must have had no effect is no step: if it had one, nothing explains what is seen afterwards.
 *
 * Times are those of a clock and not of a shared counter, which would order the threads that are
 * to be watched.
 */
#ifndef ETSLOCK_TESTS_HISTORY_H
#define ETSLOCK_TESTS_HISTORY_H

#include "check.h"

enum { HISTORY_STEPS = 256, HISTORY_TUPLES = 32, HISTORY_WRITES = 4 };

/* The values of a key's tuples, in order. Unused places are 0. */
struct values {
    uint32_t count;
    uint32_t value[HISTORY_TUPLES];
};

enum write_kind { NO_WRITE, INSERT, DELETE, DELETE_TUPLE };

struct write {
    enum write_kind kind;
    uint32_t value;
};

enum step_kind {
    LOOKUP, /* through a guard: its writes are the staged ones, seen by this step alone */
    WRITE,  /* also one that returns what it removes */
    LOCK,
    COMMIT,
    UNLOCK
};

struct step {
    int64_t start, end; /* ns */
    enum step_kind kind;
    uint32_t holder; /* whose lock it takes or needs; 0: none, it needs no lock */
    int saw;         /* whether it is known what it saw */
    struct values seen;
    struct write writes[HISTORY_WRITES]; /* in one step; up to the first NO_WRITE */
};

struct history {
    int32_t type; /* of the table */
    size_t count;
    struct step steps[HISTORY_STEPS];
};

/* --- the recorder --- */

static inline int64_t history_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* A new step of the history, that saw and wrote nothing so far. */
static inline struct step *history_add(struct history *history, enum step_kind kind,
                                       uint32_t holder, int64_t start, int64_t end)
{
    struct step *step = &history->steps[history->count];
    REQUIRE(history->count < HISTORY_STEPS);
    history->count++;
    memset(step, 0, sizeof *step);
    step->start = start;
    step->end = end;
    step->kind = kind;
    step->holder = holder;
    return step;
}

static inline void history_print(const struct history *history)
{
    static const char *const kinds[] = {"lookup", "write", "lock", "commit", "unlock"};
    static const char *const writes[] = {"", "insert", "delete", "delete tuple"};
    size_t i, j;
    for (i = 0; i < history->count; i++) {
        const struct step *step = &history->steps[i];
        long long start = step->start - history->steps[0].start;
        long long end = step->end - history->steps[0].start;
        fprintf(stderr, "    %8lld to %8lld ns: %s", start, end, kinds[step->kind]);
        if (step->holder != 0)
            fprintf(stderr, " of %u", (unsigned)step->holder);
        for (j = 0; j < HISTORY_WRITES && step->writes[j].kind != NO_WRITE; j++)
            fprintf(stderr, ", %s %u", writes[step->writes[j].kind],
                    (unsigned)step->writes[j].value);
        if (step->saw)
            fprintf(stderr, ", saw");
        for (j = 0; step->saw && j < step->seen.count; j++)
            fprintf(stderr, " %u", (unsigned)step->seen.value[j]);
        fprintf(stderr, "\n");
    }
}

/* --- one key, as a single thread would see it --- */

/* Compared and hashed as bytes: it has no padding. */
struct key_state {
    uint32_t holder;
    struct values values;
};

static inline void values_remove(struct values *values, uint32_t value)
{
    uint32_t i, kept = 0;
    for (i = 0; i < values->count; i++)
        if (values->value[i] != value)
            values->value[kept++] = values->value[i];
    memset(&values->value[kept], 0, (values->count - kept) * sizeof values->value[0]);
    values->count = kept;
}

static inline void values_insert(struct values *values, uint32_t value, int32_t type)
{
    uint32_t i;
    if (type == ETSLOCK_SET)
        memset(values, 0, sizeof *values);
    for (i = 0; type == ETSLOCK_BAG && i < values->count; i++)
        if (values->value[i] == value)
            return;
    REQUIRE(values->count < HISTORY_TUPLES);
    values->value[values->count++] = value;
}

static inline void values_write(struct values *values, const struct write *write, int32_t type)
{
    switch (write->kind) {
    case NO_WRITE:
        break;
    case INSERT:
        values_insert(values, write->value, type);
        break;
    case DELETE:
        memset(values, 0, sizeof *values);
        break;
    case DELETE_TUPLE:
        values_remove(values, write->value);
        break;
    }
}

/* Whether the step is possible now; then the key is as the step leaves it. */
static inline int key_step(struct key_state *key, const struct step *step, int32_t type)
{
    struct values after = key->values;
    size_t i;
    if (step->holder != 0 && key->holder != (step->kind == LOCK ? 0 : step->holder))
        return 0;
    for (i = 0; i < HISTORY_WRITES && step->writes[i].kind != NO_WRITE; i++)
        values_write(&after, &step->writes[i], type);
    if (step->saw && memcmp(step->kind == LOOKUP ? &after : &key->values, &step->seen,
                            sizeof after) != 0)
        return 0;
    if (step->kind == LOCK)
        key->holder = step->holder;
    if (step->kind == UNLOCK)
        key->holder = 0;
    if (step->kind != LOOKUP)
        key->values = after;
    return 1;
}

/* --- the search --- */

/* How far a search has come: which steps it has taken, and what they made of the key. */
struct progress {
    uint64_t taken[HISTORY_STEPS / 64];
    struct key_state key;
};

static inline int is_taken(const struct progress *progress, size_t step)
{
    return progress->taken[step / 64] >> step % 64 & 1;
}

/* Where the search has been: a hash table with a power of two of places. */
struct visited {
    struct progress *places;
    unsigned char *used;
    size_t mask, left;
};

/* Whether it is there for the first time. Not to be asked when none is `left`. */
static inline int visit(struct visited *visited, const struct progress *progress)
{
    const unsigned char *bytes = (const unsigned char *)progress;
    uint64_t hash = 14695981039346656037u;
    size_t i, place;
    for (i = 0; i < sizeof *progress; i++)
        hash = (hash ^ bytes[i]) * 1099511628211u;
    for (place = hash & visited->mask; visited->used[place]; place = (place + 1) & visited->mask)
        if (memcmp(&visited->places[place], progress, sizeof *progress) == 0)
            return 0;
    visited->places[place] = *progress;
    visited->used[place] = 1;
    visited->left--;
    return 1;
}

static inline int by_start(const void *one, const void *other)
{
    const struct step *a = one, *b = other;
    return (a->start > b->start) - (a->start < b->start);
}

enum verdict { EXPLAINED, UNEXPLAINED, GAVE_UP };

static inline enum verdict history_search(const struct history *history, struct visited *visited)
{
    /* At each depth: the way to it, and the step to try next. */
    static struct progress way[HISTORY_STEPS + 1];
    static size_t next[HISTORY_STEPS + 1];
    size_t depth = 0;
    memset(&way[0], 0, sizeof way[0]);
    next[0] = 0;
    while (depth < history->count) {
        struct progress *here = &way[depth], *there = &way[depth + 1];
        int64_t first_end = INT64_MAX;
        size_t i;
        int found = 0;
        for (i = 0; i < history->count; i++)
            if (!is_taken(here, i) && history->steps[i].end < first_end)
                first_end = history->steps[i].end;
        /* A step that begins later than another has ended does not come before it. */
        for (i = next[depth];
             !found && i < history->count && history->steps[i].start <= first_end; i++) {
            if (is_taken(here, i))
                continue;
            *there = *here;
            if (!key_step(&there->key, &history->steps[i], history->type))
                continue;
            there->taken[i / 64] |= (uint64_t)1 << i % 64;
            if (visited->left == 0)
                return GAVE_UP;
            found = visit(visited, there);
        }
        next[depth] = i;
        if (found)
            next[++depth] = 0;
        else if (depth == 0)
            return UNEXPLAINED;
        else
            depth--;
    }
    return EXPLAINED;
}

/* Whether an order explains the history, as far as a search of `effort` states can tell. */
static inline enum verdict history_explain(const struct history *history, size_t effort)
{
    struct history sorted = *history;
    struct visited visited;
    enum verdict verdict;
    size_t places = 1;
    while (places < 2 * effort)
        places *= 2;
    visited.mask = places - 1;
    visited.left = effort;
    visited.places = malloc(places * sizeof *visited.places);
    visited.used = calloc(places, 1);
    REQUIRE(visited.places != NULL && visited.used != NULL);
    qsort(sorted.steps, sorted.count, sizeof sorted.steps[0], by_start);
    verdict = history_search(&sorted, &visited);
    free(visited.places);
    free(visited.used);
    return verdict;
}

#endif
