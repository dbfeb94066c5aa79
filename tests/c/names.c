/* names.c - tables with a name, several handles to one table, and tables that take writes
 * through a guard only. Checks C-1, C-9, C-14 and the access ETSLOCK_GUARDED.
 */
#include "check.h"
#include "locks.h"

#include <pthread.h>
#include <unistd.h>

static etslock_status make(const char *name, int32_t type, int32_t access,
                           etslock_table **out_table)
{
    etslock_table_options options;
    etslock_table_options_init(&options, sizeof options);
    options.type = type;
    options.access = access;
    options.name = name;
    return etslock_table_new(&options, out_table);
}

static etslock_table *open_named(const char *name)
{
    etslock_table *table = NULL;
    REQUIRE(etslock_table_open(name, &table) == ETSLOCK_OK);
    REQUIRE(table != NULL);
    return table;
}

struct waiter {
    pthread_t thread;
    etslock_table *table;
    int32_t queue;
    int use_callback;
    etslock_status status;
};

static void *wait_for_k(void *argument)
{
    struct waiter *waiter = argument;
    etslock_options options;
    etslock_options_init(&options, sizeof options);
    options.wait_timeout_ms = ETSLOCK_INFINITE;
    options.queue = waiter->queue;
    if (waiter->use_callback) {
        waiter->status = etslock_with_lock(waiter->table, "k", 1, do_nothing, NULL, &options,
                                           NULL);
    } else {
        etslock_guard *guard = NULL;
        waiter->status = etslock_acquire(waiter->table, "k", 1, &options, &guard);
        if (waiter->status == ETSLOCK_OK)
            CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
        else
            CHECK(guard == NULL);
    }
    return NULL;
}

static void start_waiter(struct waiter *waiter, etslock_table *table, int32_t queue,
                         int use_callback)
{
    waiter->table = table;
    waiter->queue = queue;
    waiter->use_callback = use_callback;
    waiter->status = -1;
    REQUIRE(pthread_create(&waiter->thread, NULL, wait_for_k, waiter) == 0);
}

static void join_waiter(struct waiter *waiter, etslock_status wanted)
{
    REQUIRE(pthread_join(waiter->thread, NULL) == 0);
    CHECK_STATUS(waiter->status, wanted);
}

static void a_name_finds_its_table(void)
{
    etslock_table *table = NULL;
    etslock_table *again = (etslock_table *)&table;
    etslock_table *opened;

    CASE("names: nobody has it");
    CHECK_STATUS(etslock_table_open("n", &again), ETSLOCK_NOT_FOUND);
    CHECK(again == NULL);

    CASE("names: a name is taken once");
    table = new_table_named("n");
    again = (etslock_table *)&table;
    CHECK_STATUS(make("n", ETSLOCK_SET, ETSLOCK_PUBLIC, &again), ETSLOCK_EXISTS);
    CHECK(again == NULL);
    CHECK_STATUS(make("n", ETSLOCK_BAG, ETSLOCK_GUARDED, &again), ETSLOCK_EXISTS);
    CHECK_STATUS(etslock_table_open("N", &again), ETSLOCK_NOT_FOUND);
    CHECK_STATUS(etslock_table_open("nn", &again), ETSLOCK_NOT_FOUND);

    CASE("names: tables without a name cannot be found, and never collide");
    {
        etslock_table *nameless = NULL;
        CHECK_STATUS(etslock_table_new(NULL, &nameless), ETSLOCK_OK);
        CHECK_STATUS(etslock_table_insert(nameless, "k", 1, "v", 1), ETSLOCK_OK);
        CHECK_STATUS(etslock_table_member(table, "k", 1), ETSLOCK_NOT_FOUND);
        etslock_table_free(nameless);
    }

    CASE("names: the name is copied");
    {
        char name[] = "copied";
        again = new_table_named(name);
        name[0] = 'x';
        CHECK_STATUS(etslock_table_open("xopied", &opened), ETSLOCK_NOT_FOUND);
        opened = open_named("copied");
        etslock_table_free(opened);
        etslock_table_free(again);
    }

    CASE("C-14: the name is free when the last handle is closed, not before");
    opened = open_named("n");
    etslock_table_free(table);
    CHECK_STATUS(make("n", ETSLOCK_SET, ETSLOCK_PUBLIC, &again), ETSLOCK_EXISTS);
    table = open_named("n");
    etslock_table_free(opened);
    CHECK_STATUS(make("n", ETSLOCK_SET, ETSLOCK_PUBLIC, &again), ETSLOCK_EXISTS);
    etslock_table_free(table);
    CHECK_STATUS(etslock_table_open("n", &again), ETSLOCK_NOT_FOUND);
    table = new_table_named("n");
    etslock_table_free(table);
}

static void bad_names(void)
{
    char name[300];
    etslock_table *table = NULL;

    CASE("names: UTF-8, 1 to 255 bytes");
    memset(name, 'n', sizeof name);
    name[256] = '\0';
    CHECK_STATUS(make(name, ETSLOCK_SET, ETSLOCK_PUBLIC, &table), ETSLOCK_ERR_INVALID);
    CHECK_STATUS(etslock_table_open(name, &table), ETSLOCK_ERR_INVALID);
    name[255] = '\0';
    CHECK_STATUS(make(name, ETSLOCK_SET, ETSLOCK_PUBLIC, &table), ETSLOCK_OK);
    etslock_table_free(table);
    CHECK_STATUS(make("", ETSLOCK_SET, ETSLOCK_PUBLIC, &table), ETSLOCK_ERR_INVALID);
    CHECK_STATUS(etslock_table_open("", &table), ETSLOCK_ERR_INVALID);
    CHECK_STATUS(make("\xff\xfe", ETSLOCK_SET, ETSLOCK_PUBLIC, &table),
                 ETSLOCK_ERR_INVALID);
    CHECK_STATUS(etslock_table_open("\xff\xfe", &table), ETSLOCK_ERR_INVALID);
    CHECK(table == NULL);
    table = new_table_named("\xc3\xa4\xc3\xb6\xc3\xbc");
    etslock_table_free(table);

    CASE("names: NULL");
    CHECK_STATUS(etslock_table_open(NULL, &table), ETSLOCK_ERR_NULL);
    CHECK_STATUS(etslock_table_open("n", NULL), ETSLOCK_ERR_NULL);
    etslock_table_free(NULL);
}

static void two_handles_are_one_table(void)
{
    etslock_table *one = new_table_named("shared");
    etslock_table *two = open_named("shared");
    etslock_guard *guard;
    etslock_locks *locks = NULL;
    size_t count = 0;

    CASE("C-1: two handles share the data");
    CHECK_STATUS(etslock_table_insert(one, "k", 1, "1", 1), ETSLOCK_OK);
    CHECK_STATUS(etslock_table_member(two, "k", 1), ETSLOCK_OK);
    CHECK_STATUS(etslock_table_insert_new(two, "k", 1, "2", 1), ETSLOCK_EXISTS);
    CHECK_STATUS(etslock_table_count(two, &count), ETSLOCK_OK);
    CHECK(count == 1);

    CASE("C-1: two handles share the locks");
    guard = hold(one, "k");
    CHECK_STATUS(try_lock(two, "k"), ETSLOCK_WAIT_TIMEOUT);
    CHECK_STATUS(etslock_lock_table_locks(NULL, two, &locks), ETSLOCK_OK);
    CHECK(etslock_locks_count(locks) == 1);
    etslock_locks_free(locks);

    CASE("C-14: the data and the locks stay when one handle is closed");
    etslock_table_free(one);
    CHECK_STATUS(etslock_table_member(two, "k", 1), ETSLOCK_OK);
    CHECK_STATUS(try_lock(two, "k"), ETSLOCK_WAIT_TIMEOUT);
    CHECK_STATUS(etslock_guard_delete(guard, "k", 1), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    CHECK_STATUS(etslock_table_member(two, "k", 1), ETSLOCK_NOT_FOUND);
    CHECK_STATUS(try_lock(two, "k"), ETSLOCK_OK);

    CASE("C-1: force_release through the other handle");
    one = open_named("shared");
    guard = hold(one, "k");
    CHECK_STATUS(etslock_lock_table_force_release(NULL, two, "k", 1), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_REVOKED);
    etslock_table_free(one);
    etslock_table_free(two);
}

static void closing_one_handle(void)
{
    static const int32_t queues[] = {ETSLOCK_QUEUE_FAIR, ETSLOCK_QUEUE_FIFO,
                                     ETSLOCK_QUEUE_POLLING};
    etslock_table *one = new_table_named("shared");
    etslock_table *two = open_named("shared");
    etslock_guard *guard = hold(one, "k");
    struct waiter through_one[3];
    struct waiter through_two[3];
    int i;

    CASE("C-14: closing a handle gives CLOSED to the waiters through it, to nobody else");
    for (i = 0; i < 3; i++) {
        start_waiter(&through_one[i], one, queues[i], i % 2);
        start_waiter(&through_two[i], two, queues[i], (i + 1) % 2);
    }
    await_waiting(NULL, 6);
    etslock_table_free(one);
    for (i = 0; i < 3; i++)
        join_waiter(&through_one[i], ETSLOCK_CLOSED);
    await_waiting(NULL, 3);
    CHECK_STATUS(etslock_guard_status(guard), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    for (i = 0; i < 3; i++)
        join_waiter(&through_two[i], ETSLOCK_OK);

    CASE("C-14: the last handle's waiters get CLOSED too");
    guard = hold(two, "k");
    start_waiter(&through_two[0], two, ETSLOCK_QUEUE_FAIR, 0);
    await_waiting(NULL, 1);
    etslock_table_free(two);
    join_waiter(&through_two[0], ETSLOCK_CLOSED);
    CHECK_STATUS(etslock_guard_cancel(guard), ETSLOCK_OK);
}

static void a_new_table_of_an_old_name(void)
{
    etslock_table *old = new_table_named("reborn");
    etslock_table *table = NULL;
    etslock_guard *guard = hold(old, "k");
    etslock_guard *fresh;
    etslock_tuples *tuples = NULL;
    const etslock_tuple *data;
    size_t count = 0;

    CASE("C-14: with guards left over, a new table of the name is another table");
    CHECK_STATUS(etslock_table_insert(old, "k", 1, "old", 3), ETSLOCK_OK);
    etslock_table_free(old);
    CHECK_STATUS(etslock_table_open("reborn", &table), ETSLOCK_NOT_FOUND);
    CHECK_STATUS(make("reborn", ETSLOCK_BAG, ETSLOCK_PUBLIC, &table), ETSLOCK_OK);
    CHECK_STATUS(etslock_table_member(table, "k", 1), ETSLOCK_NOT_FOUND);
    fresh = hold(table, "k");

    CASE("C-14: the old guard lives on, in the old table");
    CHECK_STATUS(etslock_guard_status(guard), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_insert(guard, "k", 1, "new", 3), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_commit(guard), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_lookup(guard, "k", 1, &tuples), ETSLOCK_OK);
    data = etslock_tuples_data(tuples, &count);
    CHECK(count == 1 && data[0].value_len == 3 && memcmp(data[0].value, "new", 3) == 0);
    etslock_tuples_free(tuples);
    CHECK_STATUS(etslock_table_member(table, "k", 1), ETSLOCK_NOT_FOUND);
    CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
    CHECK_STATUS(etslock_guard_status(fresh), ETSLOCK_OK);
    CHECK_STATUS(try_lock(table, "k"), ETSLOCK_WAIT_TIMEOUT);
    CHECK_STATUS(etslock_guard_release(fresh), ETSLOCK_OK);
    etslock_table_free(table);
}

/* Every write that goes around the lock. */
static void check_refusals(etslock_table *table, int32_t type)
{
    etslock_tuples *tuples = (etslock_tuples *)table;
    int64_t value = 77;
    CHECK_STATUS(etslock_table_insert(table, "k", 1, "x", 1), ETSLOCK_ERR_GUARDED);
    CHECK_STATUS(etslock_table_insert(table, "new", 3, "x", 1), ETSLOCK_ERR_GUARDED);
    CHECK_STATUS(etslock_table_insert_new(table, "new", 3, "x", 1), ETSLOCK_ERR_GUARDED);
    CHECK_STATUS(etslock_table_take(table, "k", 1, &tuples), ETSLOCK_ERR_GUARDED);
    CHECK(tuples == NULL);
    CHECK_STATUS(etslock_table_delete(table, "k", 1), ETSLOCK_ERR_GUARDED);
    CHECK_STATUS(etslock_table_delete_tuple(table, "k", 1, "v", 1), ETSLOCK_ERR_GUARDED);
    CHECK_STATUS(etslock_table_clear(table), ETSLOCK_ERR_GUARDED);
    /* A bag has no counters: which of its two errors it gives is left open. */
    if (type == ETSLOCK_SET)
        CHECK_STATUS(etslock_table_update_counter(table, "c", 1, 1, 0, &value),
                     ETSLOCK_ERR_GUARDED);
    else
        CHECK(etslock_table_update_counter(table, "c", 1, 1, 0, &value) != ETSLOCK_OK);
    CHECK(value == 77);
}

static int32_t write_inside(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                            void *user_data)
{
    etslock_table *table = user_data;
    CHECK(tuple_count == 1 && tuples != NULL);
    check_refusals(table, ETSLOCK_SET);
    CHECK_STATUS(etslock_guard_insert(guard, "k", 1, "w", 1), ETSLOCK_OK);
    return 0;
}

static void guarded_tables(void)
{
    static const int32_t types[] = {ETSLOCK_SET, ETSLOCK_BAG, ETSLOCK_DUPLICATE_BAG};
    size_t i;

    for (i = 0; i < 3; i++) {
        etslock_table *table = NULL;
        etslock_table *opened;
        etslock_guard *guard;
        etslock_cursor *cursor = NULL;
        etslock_tuples *tuples = NULL;
        size_t count = 0;

        CASE("guarded: writes through a guard work");
        CHECK_STATUS(make("guarded", types[i], ETSLOCK_GUARDED, &table), ETSLOCK_OK);
        guard = hold(table, "k");
        CHECK_STATUS(etslock_guard_insert(guard, "k", 1, "v", 1), ETSLOCK_OK);
        CHECK_STATUS(etslock_guard_commit(guard), ETSLOCK_OK);

        CASE("guarded: every other write is refused, also by who holds the key");
        check_refusals(table, types[i]);
        CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
        check_refusals(table, types[i]);
        CHECK_STATUS(etslock_table_member(table, "new", 3), ETSLOCK_NOT_FOUND);

        CASE("guarded: a second handle is no way around");
        opened = open_named("guarded");
        check_refusals(opened, types[i]);

        CASE("guarded: reads need no guard");
        CHECK(has_value(table, "k", "v") && has_value(opened, "k", "v"));
        CHECK_STATUS(etslock_table_member(table, "k", 1), ETSLOCK_OK);
        CHECK_STATUS(etslock_table_count(table, &count), ETSLOCK_OK);
        CHECK(count == 1);
        CHECK_STATUS(etslock_table_cursor(table, &cursor), ETSLOCK_OK);
        CHECK_STATUS(etslock_cursor_next(cursor, &tuples), ETSLOCK_OK);
        etslock_tuples_free(tuples);
        CHECK_STATUS(etslock_cursor_next(cursor, &tuples), ETSLOCK_NOT_FOUND);
        etslock_cursor_free(cursor);
        etslock_table_free(opened);

        CASE("guarded: the same holds inside a callback");
        if (types[i] == ETSLOCK_SET) {
            CHECK_STATUS(etslock_with_lock(table, "k", 1, write_inside, table, NULL, NULL),
                         ETSLOCK_OK);
            CHECK(has_value(table, "k", "w"));
        }

        CASE("guarded: deletions through a guard work");
        guard = hold(table, "k");
        CHECK_STATUS(etslock_guard_delete_tuple(guard, "k", 1, "w", 1), ETSLOCK_OK);
        CHECK_STATUS(etslock_guard_delete_tuple(guard, "k", 1, "v", 1), ETSLOCK_OK);
        CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
        CHECK_STATUS(etslock_table_member(table, "k", 1), ETSLOCK_NOT_FOUND);
        guard = hold(table, "k");
        CHECK_STATUS(etslock_guard_insert(guard, "k", 1, "v", 1), ETSLOCK_OK);
        CHECK_STATUS(etslock_guard_delete(guard, "k", 1), ETSLOCK_OK);
        CHECK_STATUS(etslock_guard_release(guard), ETSLOCK_OK);
        CHECK_STATUS(etslock_table_count(table, &count), ETSLOCK_OK);
        CHECK(count == 0);
        etslock_table_free(table);
    }
}

/* One name, many threads that make, open and free its table. */
struct opener {
    pthread_t thread;
    int made;
    int opened;
};

static void *make_or_open(void *argument)
{
    struct opener *opener = argument;
    int i;
    for (i = 0; i < 200; i++) {
        etslock_table *table = NULL;
        etslock_status status = make("contested", ETSLOCK_SET, ETSLOCK_PUBLIC, &table);
        if (status == ETSLOCK_OK) {
            opener->made++;
        } else {
            CHECK_STATUS(status, ETSLOCK_EXISTS);
            status = etslock_table_open("contested", &table);
            CHECK(status == ETSLOCK_OK || status == ETSLOCK_NOT_FOUND);
            opener->opened += status == ETSLOCK_OK;
        }
        if (table != NULL) {
            CHECK_STATUS(etslock_table_insert(table, "k", 1, "v", 1), ETSLOCK_OK);
            CHECK_STATUS(etslock_table_member(table, "k", 1), ETSLOCK_OK);
        }
        etslock_table_free(table);
    }
    return NULL;
}

static void many_threads_and_one_name(void)
{
    struct opener openers[4];
    etslock_table *table = NULL;
    int made = 0;
    int i;

    CASE("C-14: many threads make, open and free one name; in the end it is free");
    memset(openers, 0, sizeof openers);
    for (i = 0; i < 4; i++)
        REQUIRE(pthread_create(&openers[i].thread, NULL, make_or_open, &openers[i]) == 0);
    for (i = 0; i < 4; i++) {
        REQUIRE(pthread_join(openers[i].thread, NULL) == 0);
        made += openers[i].made;
    }
    CHECK(made > 0);
    CHECK_STATUS(etslock_table_open("contested", &table), ETSLOCK_NOT_FOUND);
}

int main(void)
{
    alarm(120); /* a hang is a failure */
    RUN(a_name_finds_its_table());
    RUN(bad_names());
    RUN(two_handles_are_one_table());
    RUN(closing_one_handle());
    RUN(a_new_table_of_an_old_name());
    RUN(guarded_tables());
    RUN(many_threads_and_one_name());
    return check_report();
}
