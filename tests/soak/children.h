/* children.h - forks in the middle of everything: what the child finds (C-16). */
#ifndef ETSLOCK_SOAK_CHILDREN_H
#define ETSLOCK_SOAK_CHILDREN_H

#include "../c/processes.h"
#include "calls.h"

static int32_t write_in_child(etslock_guard *guard, const etslock_tuple *tuples,
                              size_t tuple_count, void *user_data)
{
    (void)tuples, (void)tuple_count, (void)user_data;
    return etslock_guard_insert(guard, "k", 1, "child", 5);
}

/* What was made before the fork is refused, and may be freed. The line that failed, or 0. */
static int refuses_what_is_inherited(struct call *call)
{
    etslock_guard *guard = call->visit.guard, *none;
    etslock_table *table = tables[call->visit.books[0]->table];
    etslock_tuples *tuples;
    etslock_stats stats;
    etslock_stats_init(&stats, sizeof stats);
    if (etslock_guard_status(guard) != ETSLOCK_ERR_FORKED ||
        etslock_guard_insert(guard, "k", 1, "v", 1) != ETSLOCK_ERR_FORKED ||
        etslock_guard_commit(guard) != ETSLOCK_ERR_FORKED)
        return __LINE__;
    if (etslock_table_lookup(table, "k", 1, &tuples) != ETSLOCK_ERR_FORKED ||
        etslock_table_insert(table, "k", 1, "v", 1) != ETSLOCK_ERR_FORKED)
        return __LINE__;
    if (etslock_acquire(table, "k", 1, NULL, &none) != ETSLOCK_ERR_FORKED ||
        etslock_with_lock(table, "k", 1, write_in_child, NULL, NULL, NULL) != ETSLOCK_ERR_FORKED)
        return __LINE__;
    if (etslock_lock_table_stats(own_lock_table, &stats) != ETSLOCK_ERR_FORKED ||
        etslock_lock_table_force_release(own_lock_table, table, "k", 1) != ETSLOCK_ERR_FORKED)
        return __LINE__;
    etslock_table_free(table);
    etslock_lock_table_free(own_lock_table);
    return 0;
}

/* A child has a default lock table, names and workers of its own. */
static int uses_its_own(void)
{
    etslock_table_options options;
    etslock_table *table = NULL;
    etslock_guard *guard = NULL;
    etslock_stats stats;
    etslock_table_options_init(&options, sizeof options);
    options.name = table_names[0];
    etslock_stats_init(&stats, sizeof stats);
    if (etslock_lock_table_stats(NULL, &stats) != ETSLOCK_OK || stats.held != 0 ||
        stats.waiting != 0 || stats.workers != 0 || stats.abandoned != 0)
        return __LINE__;
    if (etslock_table_new(&options, &table) != ETSLOCK_OK ||
        etslock_with_lock(table, "k", 1, write_in_child, NULL, NULL, NULL) != ETSLOCK_OK ||
        !has_value(table, "k", "child"))
        return __LINE__;
    if (etslock_acquire(table, "k", 1, NULL, &guard) != ETSLOCK_OK ||
        etslock_guard_insert(guard, "k", 1, "again", 5) != ETSLOCK_OK ||
        etslock_guard_release(guard) != ETSLOCK_OK || !has_value(table, "k", "again"))
        return __LINE__;
    etslock_table_free(table);
    return 0;
}

static void check_child(pid_t child)
{
    enum { HANGS_FOR_MS = 30000 };
    int64_t end = now_ms() + HANGS_FOR_MS;
    int state = 0;
    while (waitpid(child, &state, WNOHANG) == 0) {
        if (now_ms() > end) {
            kill(child, SIGKILL);
            waitpid(child, &state, 0);
            report(BAD_CHILD, "it hung");
            return;
        }
        sleep_ms(1);
    }
    if (WIFSIGNALED(state))
        report(BAD_CHILD, "signal %d", WTERMSIG(state));
    else if (WEXITSTATUS(state) != 0)
        report(BAD_CHILD, "line %d or so", WEXITSTATUS(state));
}

/* One child at a time. */
static void fork_and_check(struct call *call)
{
    static int busy;
    pid_t child;
    if (__atomic_exchange_n(&busy, 1, __ATOMIC_ACQUIRE))
        return;
    child = fork();
    if (child == 0) {
        int line = refuses_what_is_inherited(call);
        if (line == 0)
            line = uses_its_own();
        if (line == 0 && etslock_guard_status(call->visit.guard) != ETSLOCK_ERR_FORKED)
            line = __LINE__;
        _exit(line);
    }
    if (child > 0) {
        count(FORKS);
        check_child(child);
    }
    __atomic_store_n(&busy, 0, __ATOMIC_RELEASE);
}

#endif
