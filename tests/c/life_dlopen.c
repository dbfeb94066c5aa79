/* link: dl */
/* life_dlopen.c - a program that loads the library while it runs, closes it, and loads it again.
 * Checks C-16. It is linked with -ldl and not against the library, which it finds in
 * ETSLOCK_LIBRARY, or in build/lib/libetslock.so.
 */
#include "check.h"

#include <dlfcn.h>
#include <pthread.h>
#include <semaphore.h>
#include <sys/wait.h>
#include <unistd.h>

/* The functions that the tests use, found by name. */
struct library {
    void *handle;
    __typeof__(etslock_version) *version;
    __typeof__(etslock_table_new) *table_new;
    __typeof__(etslock_table_free) *table_free;
    __typeof__(etslock_table_member) *table_member;
    __typeof__(etslock_table_insert) *table_insert;
    __typeof__(etslock_options_init) *options_init;
    __typeof__(etslock_with_lock) *with_lock;
    __typeof__(etslock_acquire) *acquire;
    __typeof__(etslock_guard_insert) *guard_insert;
    __typeof__(etslock_guard_status) *guard_status;
    __typeof__(etslock_guard_release) *guard_release;
    __typeof__(etslock_stats_init) *stats_init;
    __typeof__(etslock_lock_table_stats) *lock_table_stats;
};

static const char *library_path(void)
{
    const char *path = getenv("ETSLOCK_LIBRARY");
    return path != NULL ? path : "build/lib/libetslock.so";
}

/* ISO C knows no cast from an object pointer to a function pointer. */
static void find(void *handle, const char *name, void *out_function)
{
    void *symbol = dlsym(handle, name);
    REQUIRE(symbol != NULL);
    memcpy(out_function, &symbol, sizeof symbol);
}

#define FIND(name) find(library->handle, "etslock_" #name, &library->name)

static void load(struct library *library)
{
    library->handle = dlopen(library_path(), RTLD_NOW | RTLD_LOCAL);
    if (library->handle == NULL)
        fprintf(stderr, "%s\n", dlerror());
    REQUIRE(library->handle != NULL);
    FIND(version);
    FIND(table_new);
    FIND(table_free);
    FIND(table_member);
    FIND(table_insert);
    FIND(options_init);
    FIND(with_lock);
    FIND(acquire);
    FIND(guard_insert);
    FIND(guard_status);
    FIND(guard_release);
    FIND(stats_init);
    FIND(lock_table_stats);
}

static etslock_stats get_stats(const struct library *library)
{
    etslock_stats stats;
    library->stats_init(&stats, sizeof stats);
    REQUIRE(library->lock_table_stats(NULL, &stats) == ETSLOCK_OK);
    return stats;
}

static int32_t write_k(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                       void *user_data)
{
    const struct library *library = user_data;
    (void)tuples, (void)tuple_count;
    return library->guard_insert(guard, "k", 1, "v", 1);
}

static void use(struct library *library)
{
    etslock_table *table = NULL;
    etslock_guard *guard = NULL;
    etslock_options options;
    library->options_init(&options, sizeof options);
    CHECK(library->table_new(NULL, &table) == ETSLOCK_OK);
    CHECK(library->with_lock(table, "k", 1, write_k, library, &options, NULL) == ETSLOCK_OK);
    CHECK(library->table_member(table, "k", 1) == ETSLOCK_OK);
    options.run_on = ETSLOCK_RUN_ON_CALLER;
    CHECK(library->with_lock(table, "k", 1, write_k, library, &options, NULL) == ETSLOCK_OK);
    CHECK(library->acquire(table, "k", 1, &options, &guard) == ETSLOCK_OK);
    CHECK(library->guard_insert(guard, "k", 1, "w", 1) == ETSLOCK_OK);
    CHECK(library->guard_release(guard) == ETSLOCK_OK);
    library->table_free(table);
}

/* A thread that uses the library, and ends only after it was closed. */
struct user {
    pthread_t thread;
    struct library *library;
    sem_t used;
    sem_t end;
};

static void *use_and_stay(void *argument)
{
    struct user *user = argument;
    use(user->library);
    sem_post(&user->used);
    sem_wait(&user->end);
    return NULL;
}

static void start_user(struct user *user, struct library *library)
{
    user->library = library;
    REQUIRE(sem_init(&user->used, 0, 0) == 0 && sem_init(&user->end, 0, 0) == 0);
    REQUIRE(pthread_create(&user->thread, NULL, use_and_stay, user) == 0);
    REQUIRE(sem_wait(&user->used) == 0);
}

static void end_user(struct user *user)
{
    sem_post(&user->end);
    REQUIRE(pthread_join(user->thread, NULL) == 0);
    sem_destroy(&user->used);
    sem_destroy(&user->end);
}

static void close_and_load_again(void)
{
    struct library library;
    struct user users[3];
    uint64_t acquired;
    void *resident;
    int i;

    CASE("C-16: threads may end after dlclose");
    load(&library);
    CHECK(strcmp(library.version(), ETSLOCK_VERSION) == 0);
    use(&library);
    for (i = 0; i < 3; i++)
        start_user(&users[i], &library);
    acquired = get_stats(&library).acquired;
    CHECK(acquired == 4 * 3);
    CHECK(dlclose(library.handle) == 0);
    end_user(&users[0]);
    end_user(&users[1]);

    CASE("C-16: dlclose never unmaps the library");
    resident = dlopen(library_path(), RTLD_NOW | RTLD_NOLOAD);
    REQUIRE(resident != NULL);
    CHECK(dlclose(resident) == 0);

    CASE("C-16: loaded again it is the same library, and works");
    load(&library);
    CHECK(get_stats(&library).acquired == acquired);
    use(&library);
    end_user(&users[2]);
    start_user(&users[0], &library);
    CHECK(get_stats(&library).acquired == acquired + 2 * 3);
    end_user(&users[0]);
    CHECK(dlclose(library.handle) == 0);
}

/* A callback that outlives its call and the closing of the library. */
struct outliving {
    struct library library;
    sem_t entered;
    sem_t leave;
    sem_t freed;
    etslock_status seen;
};

static int32_t outlive(etslock_guard *guard, const etslock_tuple *tuples, size_t tuple_count,
                       void *user_data)
{
    struct outliving *outliving = user_data;
    (void)tuples, (void)tuple_count;
    sem_post(&outliving->entered);
    sem_wait(&outliving->leave);
    outliving->seen = outliving->library.guard_status(guard);
    return 0;
}

static void post_freed(void *user_data)
{
    sem_post(&((struct outliving *)user_data)->freed);
}

static void close_with_a_callback_running(void)
{
    struct outliving outliving;
    etslock_options options;
    etslock_table *table = NULL;

    CASE("C-16: a callback may still be running at dlclose");
    memset(&outliving, 0, sizeof outliving);
    load(&outliving.library);
    REQUIRE(sem_init(&outliving.entered, 0, 0) == 0 && sem_init(&outliving.leave, 0, 0) == 0);
    REQUIRE(sem_init(&outliving.freed, 0, 0) == 0);
    outliving.library.options_init(&options, sizeof options);
    /* Enough for a worker to start the callback on a busy machine. */
    options.exec_timeout_ms = 300;
    options.user_data_free = post_freed;
    CHECK(outliving.library.table_new(NULL, &table) == ETSLOCK_OK);
    CHECK(outliving.library.with_lock(table, "k", 1, outlive, &outliving, &options, NULL)
          == ETSLOCK_EXEC_TIMEOUT);
    REQUIRE(sem_wait(&outliving.entered) == 0);
    outliving.library.table_free(table);
    CHECK(dlclose(outliving.library.handle) == 0);
    sem_post(&outliving.leave);
    REQUIRE(sem_wait(&outliving.freed) == 0);
    CHECK(outliving.seen == ETSLOCK_REVOKED);

    load(&outliving.library);
    WAIT_UNTIL(get_stats(&outliving.library).abandoned == 0);
    CHECK(dlclose(outliving.library.handle) == 0);
    sem_destroy(&outliving.entered);
    sem_destroy(&outliving.leave);
    sem_destroy(&outliving.freed);
}

static void again_and_again(void)
{
    struct library library;
    int i;
    CASE("C-16: loading and closing again and again leaves no worker behind");
    for (i = 0; i < 10; i++) {
        struct user user;
        load(&library);
        start_user(&user, &library);
        CHECK(dlclose(library.handle) == 0);
        end_user(&user);
    }
    load(&library);
    CHECK(get_stats(&library).workers <= 16);
    CHECK(get_stats(&library).held == 0);
    CHECK(dlclose(library.handle) == 0);
}

/* --- handlers that were there before the library --- */

static struct library *forking; /* NULL: a fork that is of no interest */
static etslock_table *forked;

static void before_fork(void)
{
    if (forking != NULL)
        CHECK(forking->table_insert(forked, "k", 1, "v", 1) == ETSLOCK_OK);
}

static void in_parent(void)
{
    if (forking != NULL)
        CHECK(forking->table_member(forked, "k", 1) == ETSLOCK_OK);
}

static void in_child(void)
{
    etslock_table *made = NULL;
    alarm(20); /* so that a child that hangs ends */
    if (forking == NULL)
        return;
    CHECK(forking->table_insert(forked, "k", 1, "v", 1) == ETSLOCK_ERR_FORKED);
    CHECK(forking->table_new(NULL, &made) == ETSLOCK_OK);
    CHECK(forking->table_insert(made, "k", 1, "v", 1) == ETSLOCK_OK);
    forked = made;
}

static void *fork_once(void *unused)
{
    int state = 0;
    pid_t child = fork();
    (void)unused;
    REQUIRE(child >= 0);
    if (child == 0) {
        CHECK(forking->table_member(forked, "k", 1) == ETSLOCK_OK);
        if (check_failures == 0)
            execlp("true", "true", (char *)NULL);
        _exit(1);
    }
    REQUIRE(waitpid(child, &state, 0) == child);
    CHECK(WIFEXITED(state) && WEXITSTATUS(state) == 0);
    return NULL;
}

static void fork_with_earlier_handlers(void)
{
    struct library library;
    pthread_t thread;
    int i;
    CASE("C-16: fork handlers that were registered before the library was loaded may call it");
    load(&library);
    CHECK(library.table_new(NULL, &forked) == ETSLOCK_OK);
    forking = &library;
    for (i = 0; i < 10; i++) { /* on threads that are new to it */
        REQUIRE(pthread_create(&thread, NULL, fork_once, NULL) == 0);
        REQUIRE(pthread_join(thread, NULL) == 0);
    }
    fork_once(NULL);
    forking = NULL;
    library.table_free(forked);
    CHECK(dlclose(library.handle) == 0);
}

int main(void)
{
    alarm(120); /* a hang is a failure */
    REQUIRE(pthread_atfork(before_fork, in_parent, in_child) == 0);
    RUN(fork_with_earlier_handlers());
    RUN(close_and_load_again());
    RUN(close_with_a_callback_running());
    RUN(again_and_again());
    return check_report();
}
