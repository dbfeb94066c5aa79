/* books.h - the soak's own books, which ask the library for nothing but its answers: what was found
 * wrong, how often things happened, and for each key who was inside and what its rows must count.
 */
#ifndef ETSLOCK_SOAK_BOOKS_H
#define ETSLOCK_SOAK_BOOKS_H

#include "../c/locks.h"

#include <pthread.h>
#include <stdarg.h>

/* --- numbers that threads share --- */

static uint64_t load(const uint64_t *word)
{
    return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

static void store(uint64_t *word, uint64_t value)
{
    __atomic_store_n(word, value, __ATOMIC_RELEASE);
}

static void add(uint64_t *word, int64_t value)
{
    __atomic_fetch_add(word, (uint64_t)value, __ATOMIC_ACQ_REL);
}

/* What stood there before. */
static uint64_t raise_to(uint64_t *word, uint64_t value)
{
    uint64_t seen = load(word);
    while (seen < value &&
           !__atomic_compare_exchange_n(word, &seen, value, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
        ;
    return seen;
}

static uint64_t draw(uint64_t *random, uint64_t below)
{
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    return *random % below;
}

static int once_in(uint64_t *random, uint64_t times)
{
    return draw(random, times) == 0;
}

/* --- what was found wrong --- */

enum finding {
    TWO_HOLDERS,  /* C-1: live, although a later lock of the key had been granted */
    TOKEN_ORDER,  /* a token that is not larger than that of every earlier lock of the key */
    LATE_WRITE,   /* C-8: the rows changed under their live holder */
    LOST_UPDATE,  /* C-7: the rows do not count the successes that were reported */
    REVIVED,      /* C-6: a guard that had lost its lock answered as if it had not */
    WRONG_ANSWER, /* a status that this call cannot give here */
    WRONG_TIME,   /* C-2, C-4: earlier than the timeout, or much later */
    STALLED,      /* C-3, C-5: somebody waits for a key that nobody is given */
    DATA_FREED,   /* C-12: early, twice or never */
    NOT_KILLED,   /* C-11 */
    BAD_SNAPSHOT, /* statistics, lists of locks and cursors that cannot be true */
    BAD_CHILD,    /* C-16 */
    LEFT_BEHIND,  /* C-15, C-16: something is not back where it was */
    NOT_TRIED,    /* the soak itself did not come to what it is for */
    FINDINGS
};

static const char *const finding_names[FINDINGS] = {
    "two holders",  "token order", "late write", "lost update",  "revived guard",
    "wrong answer", "wrong time",  "stalled",    "data freed",   "not killed",
    "bad snapshot", "bad child",   "left behind", "not tried"};

static uint64_t found[FINDINGS];
static int64_t soak_began_us;

/* Says the first few of each kind. */
static void report(enum finding kind, const char *format, ...)
{
    enum { SAID = 3 };
    int before;
    va_list arguments;
    if (__atomic_fetch_add(&found[kind], 1, __ATOMIC_ACQ_REL) >= SAID)
        return;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
    va_start(arguments, format);
    flockfile(stderr);
    fprintf(stderr, "FOUND after %.2f s: %s: ", (double)(now_us() - soak_began_us) / 1e6,
            finding_names[kind]);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    funlockfile(stderr);
    va_end(arguments);
    pthread_setcancelstate(before, &before);
}

/* --- keys --- */

/* The keys of each table: hot ones, cold ones, calm ones, and one of each of the rest. */
enum {
    TABLES = 3,
    HOT = 3,
    COLD = 32,
    CALMS = 4,
    RACED = HOT + COLD + CALMS,
    TURNED,
    HELD,
    KEYS
};

enum temper {
    WILD,  /* short deadlines, runaways, dropped guards, force releases */
    CALM,  /* nobody loses it: whoever is inside is alone, and plain memory tells */
    TURN,  /* wild, but left to a few players: nobody else's coming and going wakes a sleeper */
    STONE, /* held all the time */
};

/* What the soak knows of a key. */
struct book {
    char key[64];
    size_t key_len;
    int table;
    enum temper temper;
    uint64_t newest;    /* the largest token seen inside */
    uint64_t reported;  /* commits that were answered with ETSLOCK_OK */
    uint64_t pending;   /* askers and commits that may still be answered so */
    uint64_t patient;   /* who waits in the queue for as long as it takes */
    uint64_t moved_us;  /* when it was last granted, or somebody began to wait for it */
    uint64_t in_cursor; /* used by the reader alone */
    uint64_t last_seen; /* likewise: the token in the last list of locks */
    /* For calm keys, in plain memory: nothing but the lock keeps two threads from them. */
    uint64_t inside; /* the token of the holder */
    uint64_t visits;
};

static const char *const table_names[TABLES] = {"set", "bag", "duplicate bag"};
static etslock_table *tables[TABLES];
static etslock_lock_table *own_lock_table; /* of the last table; the others use the default one */
static struct book books[TABLES][KEYS];

static etslock_lock_table *lock_table_of(int table)
{
    return table == TABLES - 1 ? own_lock_table : NULL;
}

static enum temper temper_of(int key)
{
    if (key < HOT + COLD || key == RACED)
        return WILD;
    return key == TURNED ? TURN : key == HELD ? STONE : CALM;
}

static struct book *draw_book(uint64_t *random, int table, enum temper temper)
{
    switch (temper) {
    case WILD:
        if (!once_in(random, 4))
            return &books[table][draw(random, HOT)];
        return &books[table][HOT + draw(random, COLD)];
    case CALM:
        return &books[table][HOT + COLD + draw(random, CALMS)];
    case TURN:
        return &books[table][TURNED];
    default:
        return &books[table][HELD];
    }
}

/* Keys begin with the number of their book. */
static struct book *book_of(int table, const void *key, size_t key_len)
{
    char number[4] = {0};
    int index;
    if (key_len < 3)
        return NULL;
    memcpy(number, key, 3);
    index = atoi(number);
    if (index >= KEYS || books[table][index].key_len != key_len ||
        memcmp(books[table][index].key, key, key_len) != 0)
        return NULL;
    return &books[table][index];
}

/* --- rows --- */

/* What is stored: the rows of a key count its successes together. A set and a bag have one row, a
 * duplicate bag gets one more with each success, until they are drawn together.
 */
struct row {
    uint64_t count;
    uint64_t token; /* of the guard that wrote it */
};

struct rows {
    uint64_t count;
    uint64_t token; /* of the last row */
    size_t rows;
    const char *fault; /* what no rows of a key can be, or NULL */
};

static int same_rows(const struct rows *a, const struct rows *b)
{
    return a->count == b->count && a->token == b->token && a->rows == b->rows;
}

static struct rows add_up(const struct book *book, const etslock_tuple *tuples, size_t count)
{
    struct rows rows = {0, 0, count, NULL};
    size_t i;
    for (i = 0; i < count; i++) {
        struct row row = {0, 0};
        if (tuples[i].value_len == sizeof row)
            memcpy(&row, tuples[i].value, sizeof row);
        else
            rows.fault = "a row of another size";
        if (row.token < rows.token)
            rows.fault = "rows that are not in the order of their tokens";
        rows.count += row.count;
        rows.token = row.token;
    }
    if (count == 0 || (count > 1 && book->table != TABLES - 1))
        rows.fault = count == 0 ? "no row" : "several rows";
    return rows;
}

static void report_fault(const struct book *book, const struct rows *rows)
{
    report(LOST_UPDATE, "%s of the %s has %s", book->key, table_names[book->table], rows->fault);
}

/* What is committed now. */
static struct rows look(const struct book *book)
{
    etslock_tuples *found_rows = NULL;
    const etslock_tuple *data;
    struct rows rows;
    size_t count = 0;
    etslock_table_lookup(tables[book->table], book->key, book->key_len, &found_rows);
    data = etslock_tuples_data(found_rows, &count);
    rows = add_up(book, data, count);
    if (rows.fault != NULL)
        report_fault(book, &rows);
    etslock_tuples_free(found_rows);
    return rows;
}

/* Every success is counted, and nothing else: exact at every moment, up to those under way. */
static void audit(const struct book *book)
{
    uint64_t least = load(&book->reported);
    struct rows rows = look(book);
    uint64_t most = load(&book->pending); /* before `reported`, into which they go first */
    most += load(&book->reported);
    if (rows.count < least || rows.count > most)
        report(LOST_UPDATE, "%s of the %s counts %llu; reported: at least %llu, at most %llu",
               book->key, table_names[book->table], (unsigned long long)rows.count,
               (unsigned long long)least, (unsigned long long)most);
}

static void open_books(void)
{
    static const int32_t types[TABLES] = {ETSLOCK_SET, ETSLOCK_BAG, ETSLOCK_DUPLICATE_BAG};
    int table, i;
    own_lock_table = new_lock_table();
    for (table = 0; table < TABLES; table++) {
        etslock_table_options options;
        etslock_table_options_init(&options, sizeof options);
        options.type = types[table];
        options.name = table_names[table];
        options.access = types[table] == ETSLOCK_BAG ? ETSLOCK_GUARDED : ETSLOCK_PUBLIC;
        tables[table] = new_table_with(&options);
        for (i = 0; i < KEYS; i++) {
            static const char *const tails[] = {"", "-stored beside", "-of more bytes than fit in"};
            struct book *book = &books[table][i];
            const struct row row = {0, 0};
            etslock_guard *guard;
            snprintf(book->key, sizeof book->key, "%03d%s", i, tails[i % 3]);
            book->key_len = strlen(book->key);
            book->table = table;
            book->temper = temper_of(i);
            guard = hold(tables[table], book->key);
            REQUIRE(etslock_guard_insert(guard, book->key, book->key_len, &row, sizeof row) ==
                    ETSLOCK_OK);
            REQUIRE(etslock_guard_release(guard) == ETSLOCK_OK);
        }
    }
}

static void close_books(void)
{
    int table;
    for (table = 0; table < TABLES; table++)
        etslock_table_free(tables[table]);
    etslock_lock_table_free(own_lock_table);
}

/* --- how often things happened --- */

enum figure {
    WITH_LOCK, WITH_LOCKS, ACQUIRE, ACQUIRE_LOCKS, FRESH_KEYS, /* the kinds of calls first */
    NESTED, TRIES, COMMITS, MOVED, DROPPED, RAN_AWAY, LINGERED, EXITED, KILLED, FORCED, FORKS,
    CALLERS, CANCELLED, TURNS, RACES, LOOKS, FIGURES
};

static const char *const figure_names[FIGURES] = {
    "with_lock", "with_locks", "acquire", "acquire_locks", "fresh keys", "nested calls",
    "try-locks", "commits in between", "guards moved", "guards dropped", "runaways", "lingering",
    "ended their thread", "killed", "force releases", "forks", "callers", "callers cancelled",
    "turns", "races", "looks"};

static uint64_t figures[FIGURES];

enum { STATUSES = 10 };
static uint64_t statuses[STATUSES];

static void count(enum figure figure)
{
    add(&figures[figure], 1);
}

/* By how much the worst wait, and the worst return of a call whose callback did not end, came too
 * late; and the worst sleep of a thread that asked for 10 ms: the machine's own share of that. */
static uint64_t worst_wait_us, worst_return_us, worst_sleep_us;

#endif
