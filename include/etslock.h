/**
 * @file etslock.h
 * @brief etslock: per-key exclusive locks with deadlines on in-memory table data.
 *
 * Generated from src/ffi with `make header`: do not edit. SPDX-License-Identifier: MIT
 *
 * A table holds tuples, {key, value}, in the memory of this process. A call locks one key (or
 * several), runs your callback, or gives you a guard, and nobody else who asks for that key gets
 * it meanwhile. Waiting has a deadline, and so has holding: whoever holds a key for too long loses
 * it, and its unpublished writes with it. Link with -letslock, or ask pkg-config for etslock.
 *
 *     #include <etslock.h>
 *     #include <stdio.h>
 *
 *     static int32_t put(etslock_guard *guard, const etslock_tuple *tuples, size_t n, void *word)
 *     {
 *         if (n > 0) printf("was %.*s\n", (int)tuples->value_len, (const char *)tuples->value);
 *         return etslock_guard_insert(guard, "greeting", 8, word, 5);
 *     }
 *
 *     int main(void)
 *     {
 *         etslock_table *table = NULL;
 *         if (etslock_table_new(NULL, &table) != ETSLOCK_OK) return 1;
 *         etslock_status done = etslock_with_lock(table, "greeting", 8, put, "hello", NULL, NULL);
 *         puts(etslock_status_name(done));
 *         etslock_table_free(table);
 *         return done == ETSLOCK_OK ? 0 : 1;
 *     }
 *
 * WORDS
 *
 *   tuple          one {key, value}: two byte strings, which may hold NUL bytes and may be empty
 *   table          tuples, of type set, bag or duplicate bag
 *   lock           the right to one key, or several keys, of one table or several
 *   lock table     where locks live, apart from the data; one per process unless you make more
 *   guard          the handle that stands for a held lock
 *   worker         an internal thread that runs callbacks
 *   exec deadline  acquisition + exec_timeout_ms: the holder must be done
 *   release time   exec deadline + fail_timeout_ms: from here on a waiter may delete the lock
 *   late           said of a guard past its exec deadline whose lock is still held
 *   revoked        said of a guard whose lock was taken away: its writes are refused for ever
 *   token          a number larger than that of every earlier lock of the same key, unique in the
 *                  process: what you hand to other systems as a fence (C-21)
 *
 * Promises have numbers, (C-1) to (C-24), by which tests and documentation cite them.
 *
 * STATUSES
 *
 *    0         ETSLOCK_OK
 *    1 to 19   outcomes that a correct program meets
 *   20 to 39   the caller's bug; nothing changed
 *   40 to 59   the environment: memory, threads, fork
 *   90         a bug of the library
 *
 * Later releases may add statuses: accept unknown positive ones in a default branch. "Errors:"
 * lists what each function can answer. Two are left out there, because they are the same
 * everywhere. ETSLOCK_ERR_PANIC: the library met a bug of its own in this call, and stopped it
 * (C-17). ETSLOCK_ERR_FORKED: a handle given to the call was made before a fork (C-16).
 *
 * An output (out_*) is written only on ETSLOCK_OK, but for two: an output handle is set to NULL
 * when the call fails, and out_result is always written. When several arguments are wrong, which
 * of their statuses comes back is not said.
 *
 * THREADS
 *
 * Every function may be called from every thread, also from inside a callback, unless "Threads:"
 * says otherwise. Tables and lock tables are used by any number of threads at once. A guard or a
 * cursor may move between threads, but is used by one at a time. Snapshots (etslock_tuples,
 * etslock_locks) are immutable. What a holder did before its lock was freed in time is visible to
 * the next holder. No function is safe in a signal handler.
 *
 * Workers are started when callbacks need them and go away when idle. They are threads like others
 * (C-22, and see etslock_callback); while one sleeps, it takes no signal that is sent to the
 * process. Their stacks have the system's default size, or that of ETSLOCK_WORKER_STACK_KIB in the
 * environment: 64 to 4194304 KiB, read when the first worker starts, and ignored if it is anything
 * else.
 *
 * A thread whose cancellation type is deferred, as it is when a thread begins, is never cancelled
 * inside a call of the library: a request stays pending until the call has returned (C-5). While
 * the type is asynchronous no function of the library may be called, as POSIX has it for all
 * functions that it does not except.
 *
 * After fork, in the child: a call on an inherited handle answers ETSLOCK_ERR_FORKED and touches
 * no lock, every _free is harmless, snapshots stay readable, nothing of an interrupted callback is
 * written. The child has a default lock table and names of its own, and may make tables. POSIX
 * promises no more than exec if another thread was then inside the allocator or starting a thread
 * (C-16). The program's own handlers (pthread_atfork) may call the library. A child of _Fork or
 * clone finds that it is one as well (Linux 4.14 and later), but may make tables only if its parent
 * had no other thread. A child that shares its parent's memory, as that of vfork does, must not
 * call the library. The library stays loaded after dlclose. At exit nothing waits for a runaway callback.
 *
 * OWNERSHIP
 *
 * What a call gives out through out_* is yours, until you end it with the _free of its type; an
 * acquired guard ends with etslock_guard_release or etslock_guard_cancel. Every _free takes NULL.
 * Byte strings and names that you pass in are copied where they are kept. Pointers inside a
 * snapshot live as long as it. A handle may be freed while another thread's call with it waits, or
 * runs its callback: such a call keeps what it needs. Until a call is known to have come that far,
 * or to have returned, the handle must stay live: no thread can know that another one is past the
 * first instruction of a call (C-14).
 *
 * What a parameter must be goes by its name. These are the contracts that every caller keeps:
 *
 *   table       from etslock_table_new or etslock_table_open, and not freed before the call is
 *               known to wait, to run its callback or to have returned
 *   lock_table  NULL for the default one; or from etslock_lock_table_new, and not freed before
 *               then, either
 *   key         readable for key_len bytes during the call; may be NULL if key_len is 0. Copied.
 *   value       the same for value and value_len, and for data and data_len. Copied.
 *   keys        readable for key_count elements during the call, each of them a `key`, with a
 *               `table` where it names one. Copied.
 *   name        a NUL-terminated string, readable during the call. Copied.
 *   options     NULL for the defaults; or made by the init function of its type, and readable for
 *               struct_size bytes during the call, each pointer in it NULL or live. For an init
 *               function: NULL, or writable for `size` bytes.
 *   callback    keeps the rules at etslock_callback, and stays loaded until it has returned
 *   user_data   NULL, or what the callback may use on another thread until it returns, which may be
 *               after the call, and what user_data_free may end on any thread then (C-12)
 *   out         writable, aligned, and used by no other thread during the call; a struct with a
 *               struct_size: for that many bytes
 *   guard       a callback's, until that callback returns; an acquired one, until it was released
 *               or cancelled. One thread at a time, unless "Threads:" says otherwise.
 *   completions from etslock_completions_new, and not freed when the call begins
 *   stop        NULL where it is an option; from etslock_stop_new, and not freed when the call begins
 *   tuples      NULL, or a snapshot that was not freed
 *   locks       NULL, or a snapshot that was not freed
 *   cursor      from etslock_table_cursor, and not freed; one thread at a time
 *   free        NULL; or given out by the library, not freed before, and passed to no other call
 *               that has yet to begin
 *
 * A NULL that is not allowed is found, and gives ETSLOCK_ERR_NULL; so is a length past PTRDIFF_MAX,
 * which gives ETSLOCK_ERR_INVALID. A contract broken in another way is undefined behaviour.
 *
 * TIME
 *
 * Times are int64_t milliseconds, and have the unit in their name. ETSLOCK_INFINITE (-1) means for
 * ever; other negative times are ETSLOCK_ERR_INVALID. Clocks are monotonic: setting the system's
 * time moves no deadline. Sums saturate: a deadline too far away to be counted never comes.
 *
 * CAVEATS
 *
 * - A callback that outlives its time is not stopped. With ETSLOCK_ABANDON, the default, the call
 *   returns while the callback still runs and still uses user_data: give user_data to the library
 *   with user_data_free, or choose ETSLOCK_JOIN when it lies on the caller's stack.
 * - A lock keeps out those who lock, and nobody else: in an ETSLOCK_PUBLIC table anyone may write
 *   without one, as in ETS. ETSLOCK_GUARDED refuses such writes.
 * - etslock_table_insert and its like write at once, also inside a callback: not staged, not
 *   fenced, not taken back (C-9). Writes that belong to the lock go through etslock_guard_*.
 * - Staged writes are seen by etslock_guard_lookup only, until they are committed (C-7).
 * - A commit of several keys happens wholly or not at all. A reader without a lock may still see
 *   the new tuples of one key before those of another: each key changes in a step of its own (C-7).
 * - Locks of different lock tables know nothing of each other (C-1).
 * - An acquired guard does not end with its thread. Left alone, its lock is gone only when someone
 *   wants the key after the release time, and never if exec_timeout_ms or fail_timeout_ms is
 *   infinite (C-5). A guard that lost its lock must still be released or cancelled.
 * - Several tasks on one thread (event loops, goroutines, fibers) are one owner: the second to
 *   want a key gets ETSLOCK_DEADLOCK instead of waiting. Set options.owner (C-13).
 * - With ETSLOCK_RUN_ON_CALLER nothing can return early: a late callback is found out when it
 *   returns (C-10).
 * - wait_timeout_ms 0 is a try-lock: one attempt is made (C-2). exec_timeout_ms 0 runs nothing.
 * - Bytes that come back are not aligned and not NUL-terminated: memcpy numbers out of them.
 *
 * GROWTH
 *
 * Structs that you fill, or have filled, begin with struct_size. Make them with their init
 * function and sizeof (etslock_lock_info has none: set struct_size yourself); a zeroed struct is
 * not the defaults. Releases only append fields, in which 0 means the behaviour of the release
 * before. A struct smaller than in its first release, or options with something other than 0 where
 * this release knows no field, give ETSLOCK_ERR_STRUCT_SIZE. Reserved fields must be 0. Structs
 * that "never grow" have no struct_size. A meaning never changes: a new one is a new function.
 */

#ifndef ETSLOCK_H
#define ETSLOCK_H

#include <stddef.h>
#include <stdint.h>

/** The version of this header; `etslock_version()` is the library's. */
#define ETSLOCK_VERSION "0.2.0"
#define ETSLOCK_VERSION_MAJOR 0
#define ETSLOCK_VERSION_MINOR 2
#define ETSLOCK_VERSION_PATCH 0


/**
 * For etslock_options.owner: this call takes no part in deadlock detection (C-13).
 *
 * Since:     0.1
 */
#define ETSLOCK_OWNER_NONE 18446744073709551615ull

/**
 * Every status that this release gives.
 *
 * 1 to 19 are outcomes that a correct program meets; 20 to 39 are the caller's bugs, and nothing
 * changed; 40 to 59 come from the environment; 90 is a bug of the library. Later releases may add
 * some: accept unknown positive ones in a default branch.
 *
 * Since:     0.1
 */
typedef enum {
  /**
   * Done.
   */
  ETSLOCK_OK = 0,
  /**
   * The lock was not free in time; the callback never ran (C-2).
   */
  ETSLOCK_WAIT_TIMEOUT = 1,
  /**
   * The callback or holder outlived its time; nothing was written since its last commit (C-4).
   */
  ETSLOCK_EXEC_TIMEOUT = 2,
  /**
   * The callback returned a code that does not commit (0 does, or options.commit_code), or ended
   * its thread; nothing was written since its last commit (C-7).
   */
  ETSLOCK_CALLBACK_FAILED = 3,
  /**
   * This guard's lock was taken away; nothing was written since its last commit (C-8).
   */
  ETSLOCK_REVOKED = 4,
  /**
   * The wait could end only by a timeout: the holder is yourself, or waits for you (C-13).
   */
  ETSLOCK_DEADLOCK = 5,
  /**
   * There is no such tuple, lock, name or index; or the cursor is at its end.
   */
  ETSLOCK_NOT_FOUND = 6,
  /**
   * The key has a tuple already, or the name is taken.
   */
  ETSLOCK_EXISTS = 7,
  /**
   * The table handle or the lock table was freed while this call waited (C-14).
   */
  ETSLOCK_CLOSED = 8,
  /**
   * Queued: a completion will tell (C-19). Since 0.2.
   */
  ETSLOCK_PENDING = 9,
  /**
   * This wait was told to stop, or withdrawn; the callback never ran. Since 0.2.
   */
  ETSLOCK_STOPPED = 10,
  /**
   * It was sent to the store, and there is no answer: done or not done, the store knows. Since
   * 0.2.
   */
  ETSLOCK_UNKNOWN = 11,
  /**
   * A pointer that must not be NULL is NULL.
   */
  ETSLOCK_ERR_NULL = 20,
  /**
   * An argument is outside its range, or a reserved field is not 0.
   */
  ETSLOCK_ERR_INVALID = 21,
  /**
   * struct_size is smaller than in the first release, or an unknown tail is not zero: was the
   * struct made with its init function?
   */
  ETSLOCK_ERR_STRUCT_SIZE = 22,
  /**
   * The guard does not hold this key (C-18).
   */
  ETSLOCK_ERR_NOT_COVERED = 23,
  /**
   * The operation does not fit the type of the table, or of the value.
   */
  ETSLOCK_ERR_TYPE = 24,
  /**
   * The table is ETSLOCK_GUARDED: it takes writes through a guard only.
   */
  ETSLOCK_ERR_GUARDED = 25,
  /**
   * The store of this table cannot do that. Since 0.2.
   */
  ETSLOCK_ERR_UNSUPPORTED = 26,
  /**
   * Memory of the size asked for cannot be had (C-17).
   */
  ETSLOCK_ERR_NO_MEMORY = 40,
  /**
   * No thread could be started for the callback; the lock was released (C-17).
   */
  ETSLOCK_ERR_NO_THREAD = 41,
  /**
   * The handle was made before a fork, and this is the child (C-16).
   */
  ETSLOCK_ERR_FORKED = 42,
  /**
   * The store cannot be reached, or refuses; nothing changed. Since 0.2.
   */
  ETSLOCK_ERR_STORE = 43,
  /**
   * A bug of the library, caught before it could cross into your code: please report it (C-17).
   */
  ETSLOCK_ERR_PANIC = 90,
} etslock_status_code;

/**
 * Limits that fit an int.
 *
 * Since:     0.1
 */
typedef enum {
  /**
   * For a time in milliseconds: for ever.
   */
  ETSLOCK_INFINITE = -1,
  /**
   * The most keys that one call can lock (C-18).
   */
  ETSLOCK_MAX_KEYS = 65536,
} etslock_limit_code;

/**
 * How many tuples a key may have, and which: for etslock_table_options.type.
 *
 * Since:     0.1
 */
typedef enum {
  /**
   * One tuple per key; an insert replaces it.
   */
  ETSLOCK_SET = 0,
  /**
   * Several tuples per key, all different, in order of insertion; inserting an equal one again
   * changes nothing, its position included (C-9).
   */
  ETSLOCK_BAG = 1,
  /**
   * Several tuples per key, equal ones too, in order of insertion (C-9).
   */
  ETSLOCK_DUPLICATE_BAG = 2,
} etslock_table_type;

/**
 * Who may write: for etslock_table_options.access. Reading needs no lock in either.
 *
 * Since:     0.1
 */
typedef enum {
  /**
   * As in ETS: anyone may write without a lock.
   */
  ETSLOCK_PUBLIC = 0,
  /**
   * Writes only through a guard; every other write, clear included, gives ETSLOCK_ERR_GUARDED.
   */
  ETSLOCK_GUARDED = 1,
} etslock_access;

/**
 * Where the callback runs: for etslock_options.run_on (C-10).
 *
 * Since:     0.1
 */
typedef enum {
  /**
   * On an internal thread: the call can return at the exec deadline.
   */
  ETSLOCK_RUN_ON_WORKER = 0,
  /**
   * On the calling thread: cheaper, but nothing can return early. A late callback is found out
   * when it returns: its writes are refused and the status is ETSLOCK_EXEC_TIMEOUT, even if a
   * waiter has taken the lock at the release time.
   */
  ETSLOCK_RUN_ON_CALLER = 1,
} etslock_run_on;

/**
 * How to wait for a held lock: for etslock_options.queue (C-3).
 *
 * Since:     0.1
 */
typedef enum {
  /**
   * In a queue, woken by the release. A running thread may take a free lock before the woken
   * head of the queue, but once a waiter has been head for 2 ms, the next release hands it the
   * lock.
   */
  ETSLOCK_QUEUE_FAIR = 0,
  /**
   * In a queue, in strict order of arrival: while such a waiter is queued on a key, every
   * release hands the lock to the head. Much slower than fair on a key that many want.
   */
  ETSLOCK_QUEUE_FIFO = 1,
  /**
   * By an attempt every spin_delay_ms, with no place in the queue: gets the lock only when it is
   * free.
   */
  ETSLOCK_QUEUE_POLLING = 2,
} etslock_queue;

/**
 * What happens to a callback that outlived its time: for etslock_options.on_exec_timeout (C-11).
 *
 * On an internal thread its guard is revoked in each case, and its lock goes to the next waiter at
 * once. With ETSLOCK_RUN_ON_CALLER the lock stays held until the callback returns, or a waiter
 * takes it at the release time; ETSLOCK_ABANDON and ETSLOCK_JOIN mean the same then.
 *
 * Since:     0.1
 */
typedef enum {
  /**
   * The call returns at once. The callback runs on until it returns by itself: it may still use
   * user_data, and its writes through the guard are refused.
   */
  ETSLOCK_ABANDON = 0,
  /**
   * The call returns when the callback has returned: for user_data on the caller's stack.
   */
  ETSLOCK_JOIN = 1,
  /**
   * As ETSLOCK_ABANDON, and the callback's thread gets a POSIX deferred cancellation, which acts
   * at its next cancellation point outside the library; a loop without one runs on. With the
   * asynchronous type a callback must not call the library (see THREADS). With
   * ETSLOCK_RUN_ON_CALLER it is ETSLOCK_ERR_INVALID. Never use it with a callback that belongs
   * to a managed runtime, that holds locks or memory without cleanup handlers, or whose C++
   * frames catch everything or are noexcept.
   */
  ETSLOCK_KILL = 2,
} etslock_on_exec_timeout;

/**
 * A queue of completions: where acquires that were begun say how they ended (C-19).
 *
 * An event loop has one. Any number of acquires may be pending in one queue, of any tables; none
 * of them needs a thread, or a descriptor of its own. A pending acquire stands in the queue of its
 * key like a blocked thread: with the same order, the same wait deadline, and the duty to delete a
 * lock at its release time. There is no timer thread: all that is seen to by whoever calls
 * etslock_completions_wait. So call it, with a timeout of 0 if need be, whenever the descriptor is
 * readable: who does not holds up those that are pending behind it, though never a thread that is
 * blocked behind it for longer than the locks it is handed may be held.
 *
 * ```c
 * int fd = etslock_completions_fd(queue);             // add it to your loop, for reading
 * status = etslock_acquire_begin(table, key, key_len, NULL, queue, task, &ticket, &guard);
 * if (status == ETSLOCK_OK) ...                       // the guard is yours already
 * else if (status == ETSLOCK_PENDING) ...             // a completion will tell
 *
 * // when the descriptor is readable:
 * etslock_completion done[64];
 * size_t count;
 * while (etslock_completions_wait(queue, done, 64, 0, &count) == ETSLOCK_OK)
 *     for (size_t i = 0; i < count; i++)
 *         resume(done[i].user_data, done[i].status, done[i].guard);
 * ```
 *
 * It comes from etslock_completions_new and lives until etslock_completions_free. Any number of
 * threads may use it at once. In a forked child every call answers ETSLOCK_ERR_FORKED, and the
 * descriptor is never readable (C-16).
 *
 * Methods:   etslock_completions_new - makes one.
 *            etslock_completions_fd - a descriptor for an event loop.
 *            etslock_completions_wait - fetches completions.
 *            etslock_completions_withdraw - ends a pending acquire early.
 *            etslock_completions_free - ends it, and all that is pending.
 *            etslock_acquire_begin - acquires a lock, or begins to wait for it.
 *            etslock_acquire_locks_begin - the same for several keys.
 *            etslock_acquire_locks_across_begin - the same for keys of several tables.
 * Since:     0.2
 */
typedef struct etslock_completions etslock_completions;

/**
 * An iteration over the keys of a table.
 *
 * Made for each iteration. It comes from etslock_table_cursor and lives until
 * etslock_cursor_free; it outlives the table's handle (C-14). Between calls it holds no lock and
 * keeps no writer from anything, so that it may be left alone for as long as you like. Any thread
 * may use it, one at a time.
 *
 * Methods:   etslock_cursor_next - the tuples of the next key.
 *            etslock_cursor_free - ends the iteration.
 * Since:     0.1
 */
typedef struct etslock_cursor etslock_cursor;

/**
 * The handle that stands for a held lock: reads and writes of its keys, until its deadline.
 *
 * One for each lock that is held, or set of locks. A callback is given one, which is valid until the callback returns,
 * also when it was abandoned; the callback cannot end it. etslock_acquire returns one, which lives
 * until etslock_guard_release or etslock_guard_cancel: losing its lock, the end of its thread or
 * etslock_table_free does not end it (C-5, C-14). Any thread may use a guard, one at a time; the
 * functions that take it as const may be called from any thread meanwhile.
 *
 * Writes are staged: nobody else sees them before they are committed, and then those of a key come
 * in one step (C-7). No write through a revoked guard lands, however late (C-8).
 *
 * A guard's answers:
 *
 * | call                                            | live | late                  | revoked |
 * |-------------------------------------------------|------|-----------------------|---------|
 * | lookup, insert, delete, delete_tuple, commit,   |      |                       |         |
 * | rollback, set_result, extend, sleep, status     | OK   | EXEC_TIMEOUT          | REVOKED |
 * | release                                         | OK   | EXEC_TIMEOUT, unlocks | REVOKED |
 * | cancel                                          | OK   | OK                    | OK      |
 *
 * Late is past the exec deadline with the lock still held; revoked is without the lock, for ever.
 * A worker's guard goes from live to revoked at its deadline; acquired guards, and those of
 * callbacks on the caller's thread, are late in between.
 *
 * Methods:   etslock_guard_lookup - the tuples of a key, staged writes applied.
 *            etslock_guard_insert - stages an insert.
 *            etslock_guard_delete - stages the removal of a key's tuples.
 *            etslock_guard_delete_tuple - stages the removal of one tuple.
 *            etslock_guard_lookup_in, _insert_in, _delete_in, _delete_tuple_in - the same of a key
 *            of a table that is named, for guards of several tables.
 *            etslock_guard_commit - publishes the staged writes, keeps the lock.
 *            etslock_guard_rollback - forgets the staged writes, keeps the lock.
 *            etslock_guard_release - commits, unlocks, ends an acquired guard.
 *            etslock_guard_cancel - rolls back, unlocks, ends an acquired guard.
 *            etslock_guard_set_result - what the call hands to its caller.
 *            etslock_guard_extend - moves the exec deadline away.
 *            etslock_guard_sleep - sleeps, and wakes when the lock is lost.
 *            etslock_guard_status - whether it is live, late or revoked.
 *            etslock_guard_remaining_ms - time to the exec deadline.
 *            etslock_guard_token - the fencing token of the lock.
 * Since:     0.1
 */
typedef struct etslock_guard etslock_guard;

/**
 * A place where locks live, apart from the data.
 *
 * Most programs make none and pass NULL, which stands for the one that every process has and that
 * never ends. Another comes from etslock_lock_table_new and lives until etslock_lock_table_free.
 * Locks of different lock tables know nothing of each other: all who want to exclude each other
 * must use the same one (C-1). A key that nobody holds or waits for costs it no memory (C-15). Any
 * number of threads may use it at once.
 *
 * Methods:   etslock_lock_table_new - makes one.
 *            etslock_lock_table_free - closes it.
 *            etslock_lock_table_locks - who holds what.
 *            etslock_lock_table_stats - counters.
 *            etslock_lock_table_force_release - takes a lock away from its holder.
 *            etslock_lock_table_force_release_token - the same, if it is still that holder.
 * Since:     0.1
 */
typedef struct etslock_lock_table etslock_lock_table;

/**
 * A snapshot of the locks that were held at one time.
 *
 * Made by each look, and short-lived. It comes from etslock_lock_table_locks and lives until
 * etslock_locks_free, whatever happens to the locks. It never changes: any number of threads may
 * read it at once. It stays readable in a forked child (C-16).
 *
 * Methods:   etslock_locks_count - how many locks.
 *            etslock_locks_get - one of them.
 *            etslock_locks_free - frees it.
 * Since:     0.1
 */
typedef struct etslock_locks etslock_locks;

/**
 * Ends waits early: from a signal's handler thread, a cancelled task, a closing connection.
 *
 * Expect one per task or request that may be cancelled; give it to any number of calls in
 * options.stop. It acts on waits only: a callback that runs, or a lock that is held, is left alone.
 * It comes from etslock_stop_new and lives until etslock_stop_free. Any number of threads may use it
 * at once.
 *
 * Methods:   etslock_stop_new - makes one.
 *            etslock_stop_request - ends the waits under it.
 *            etslock_stop_free - frees it.
 * Since:     0.2
 */
typedef struct etslock_stop etslock_stop;

/**
 * A handle to a table: tuples in memory.
 *
 * A program has a few of them, and keeps them for long. Each comes from etslock_table_new or etslock_table_open, and
 * lives until etslock_table_free. Several handles to one named table are the same table, also for
 * locks (C-1). The tuples live until the last handle is closed and the last guard and cursor of
 * the table has ended. Any number of threads may use a handle at once.
 *
 * Methods:   etslock_table_new - makes a table.
 *            etslock_table_open - one more handle to a named table.
 *            etslock_table_free - closes the handle.
 *            etslock_table_insert - inserts a tuple.
 *            etslock_table_insert_new - inserts a tuple if the key has none.
 *            etslock_table_lookup - all tuples of a key.
 *            etslock_table_member - whether a key has a tuple.
 *            etslock_table_take - removes all tuples of a key and returns them.
 *            etslock_table_delete - removes all tuples of a key.
 *            etslock_table_delete_tuple - removes every instance of one tuple.
 *            etslock_table_clear - removes all tuples.
 *            etslock_table_update_counter - adds to a number.
 *            etslock_table_count - how many tuples there are.
 *            etslock_table_cursor - starts an iteration.
 *            etslock_with_lock, etslock_with_locks - run a callback with keys locked.
 *            etslock_acquire, etslock_acquire_locks - return a guard for locked keys.
 * Since:     0.1
 */
typedef struct etslock_table etslock_table;

/**
 * A snapshot of the tuples of a key.
 *
 * Made by each lookup, and short-lived: it keeps the bytes it shows in memory after the table has
 * let go of them. It comes from etslock_table_lookup, etslock_table_take, etslock_cursor_next or
 * etslock_guard_lookup, and lives until etslock_tuples_free, whatever happens to the table, the
 * cursor or the guard (C-14). It never changes: any number of threads may read it at once. It
 * stays readable in a forked child (C-16).
 *
 * Methods:   etslock_tuples_data - its tuples, as an array.
 *            etslock_tuples_free - frees it.
 * Since:     0.1
 */
typedef struct etslock_tuples etslock_tuples;

/**
 * What a call answers: ETSLOCK_OK is 0, the other values are those of etslock_status_code.
 *
 * A plain int32_t, so that later releases may add values: keep a default branch.
 *
 * Since:     0.1
 */
typedef int32_t etslock_status;

/**
 * Options of a table.
 *
 * Make it with etslock_table_options_init, then change what you need. It is read during
 * etslock_table_new only.
 *
 * Since:     0.1
 */
typedef struct {
  /**
   * `sizeof(etslock_table_options)`, written by init.
   */
  uint32_t struct_size;
  /**
   * One of etslock_table_type. Default ETSLOCK_SET (0).
   */
  int32_t type;
  /**
   * One of etslock_access. Default ETSLOCK_PUBLIC (0).
   */
  int32_t access;
  /**
   * Must be 0.
   */
  uint32_t reserved;
  /**
   * NULL, the default: the table has no name. Else a name under which etslock_table_open finds
   * it again in this process: UTF-8, 1 to 255 bytes, NUL-terminated. Copied.
   */
  const char *name;
} etslock_table_options;

/**
 * One {key, value}. Never grows.
 *
 * The bytes are immutable, not aligned and not NUL-terminated. They live as long as the snapshot
 * that shows them, or until the callback returns that was given them.
 *
 * Since:     0.1
 */
typedef struct {
  /**
   * The key; readable for key_len bytes.
   */
  const uint8_t *key;
  /**
   * Bytes in the key; may be 0.
   */
  size_t key_len;
  /**
   * The value; readable for value_len bytes.
   */
  const uint8_t *value;
  /**
   * Bytes in the value; may be 0.
   */
  size_t value_len;
} etslock_tuple;

/**
 * Options of a lock call.
 *
 * Make it with etslock_options_init, then change what you need; NULL in a call means the defaults.
 * It is read during the call only. For etslock_acquire and etslock_acquire_locks, begun or not,
 * run_on, on_exec_timeout and user_data_free have no effect.
 *
 * Since:     0.1
 */
typedef struct {
  /**
   * `sizeof(etslock_options)`, written by init.
   */
  uint32_t struct_size;
  /**
   * Must be 0.
   */
  uint32_t reserved;
  /**
   * How long to wait for the lock, in milliseconds from the call. Default 5000. 0: one attempt,
   * a try-lock, which answers ETSLOCK_WAIT_TIMEOUT where a wait would be ETSLOCK_DEADLOCK.
   * ETSLOCK_INFINITE: until it is free (C-2).
   */
  int64_t wait_timeout_ms;
  /**
   * How long the lock may be held, in milliseconds from the acquisition. Default 5000. 0: the
   * lock is got and given back, and no callback runs; an acquired guard is late at once.
   * ETSLOCK_INFINITE: no exec deadline, and the lock is never deleted by a waiter (C-4, C-5).
   */
  int64_t exec_timeout_ms;
  /**
   * How long after the exec deadline a waiter may forcibly delete a lock that is still held, in
   * milliseconds. Default 1000. 0: at the exec deadline. ETSLOCK_INFINITE: never (C-5).
   */
  int64_t fail_timeout_ms;
  /**
   * Pause between the attempts of a waiter with ETSLOCK_QUEUE_POLLING, in milliseconds; no
   * effect otherwise. Default 2. 0: yields only. ETSLOCK_INFINITE is ETSLOCK_ERR_INVALID.
   */
  int64_t spin_delay_ms;
  /**
   * Where the lock lives. Default NULL: the lock table of the process. Locks of different lock
   * tables know nothing of each other.
   */
  etslock_lock_table *lock_table;
  /**
   * One of etslock_run_on. Default ETSLOCK_RUN_ON_WORKER (0).
   */
  int32_t run_on;
  /**
   * One of etslock_queue. Default ETSLOCK_QUEUE_FAIR (0).
   */
  int32_t queue;
  /**
   * One of etslock_on_exec_timeout. Default ETSLOCK_ABANDON (0).
   */
  int32_t on_exec_timeout;
  /**
   * What the callback returns to have its writes published; anything else drops them and is
   * ETSLOCK_CALLBACK_FAILED. Default 0. Use 1 where the callback is a thunk into another language:
   * one that raised, or forgot to return, gives 0 there, and 0 then publishes nothing. Since 0.2;
   * a reserved field before, which was 0.
   */
  int32_t commit_code;
  /**
   * Who holds and waits, for the detection of deadlocks (C-13). Default 0: the calling thread,
   * or the callback that runs on it. ETSLOCK_OWNER_NONE: takes no part. Else a number of your
   * own, such as a task's: for event loops, fibers and goroutines.
   */
  uint64_t owner;
  /**
   * NULL, the default; or called exactly once with user_data, on any thread, never while the
   * callback may still run, with no lock of the library held. When the callback ended in time,
   * before the call returns. It is called whatever the call returns, except after
   * ETSLOCK_ERR_STRUCT_SIZE; not at process exit, and not in the child of a fork (C-12). Neither
   * an exception nor longjmp may leave it.
   */
  void (*user_data_free)(void *user_data);
  /**
   * Since 0.2. NULL, the default; or what ends the wait of this call early, with ETSLOCK_STOPPED. It must be
   * live when the call begins. Once it was requested a call still gets a lock that is free.
   */
  etslock_stop *stop;
} etslock_options;

/**
 * What runs while a lock is held; 0 commits its writes, anything else drops them, unless
 * options.commit_code says otherwise.
 *
 * `tuples` are those of the locked keys as of the acquisition, NULL if there are none; for several
 * keys they are grouped in the order given. `guard` and `tuples` are valid until the callback
 * returns, also when it was abandoned. What it returns comes back in etslock_result.code.
 *
 * Thread: an internal one, or the calling one with ETSLOCK_RUN_ON_CALLER (C-10). Held: the locks
 * of the named keys, and no lock inside the library. It may call everything in this header, other
 * locks and other tables included; a wait that could never end answers ETSLOCK_DEADLOCK (C-13). A
 * nested call is otherwise independent: losing the outer lock neither ends its wait nor revokes
 * its guard. The callback's own guard is not its own to end: etslock_guard_release and
 * etslock_guard_cancel refuse it.
 *
 * An internal thread is a citizen of the process (C-22). A callback finds on it what a fresh thread
 * of the main thread would find: the signals that the main thread blocks, its processors and, as
 * far as the system lets it, its priority; the floating-point environment of a program that
 * begins, errno 0, cancellation on and deferred. Signals to the thread reach it, and programs that
 * it starts can be ended. It finds nothing of the thread that made the internal one start, and
 * nothing that an earlier callback left, but for one thing: processors and priority that it sets
 * for its thread are put right before the callback of another calling thread, and when the internal
 * thread was idle for some milliseconds; a callback of the same caller that comes sooner may find
 * them. The system may not let a priority be raised: then the thread ends when it is idle.
 *
 * Time: at the exec deadline the lock goes, not the callback (C-4, C-11). One that works for long
 * asks etslock_guard_status now and then and returns when that is not ETSLOCK_OK, or asks for more
 * time with etslock_guard_extend. A callback that never returns costs one thread; it is counted,
 * and never starves other calls.
 *
 * `user_data` must live until the callback has returned, which may be after the call: free it in
 * etslock_options.user_data_free, or choose ETSLOCK_JOIN (C-11, C-12).
 *
 * Neither an exception nor longjmp may leave it (C-17); etslock.hpp sees to that for C++. On an
 * internal thread it may end its thread with pthread_exit or by cancellation: the call answers
 * ETSLOCK_CALLBACK_FAILED; destructors of its thread-specific data are still part of it. On the
 * calling thread it must not; cancellation is off while it runs.
 *
 * From other languages, where the callback is a thunk into a runtime:
 *
 * - Keep the thunk alive until the callback has returned, which may be after the call, and never
 *   free it inside user_data_free.
 * - Node: call the library asynchronously; the thread of JavaScript must be free to run the thunk.
 * - Go: `keys` and the bytes they point to must be C memory or pinned; `user_data` may be an
 *   integer, such as a cgo.Handle.
 * - Never ETSLOCK_KILL: a managed runtime does not survive the cancellation of a thread in it.
 * - Where foreign threads may not enter the runtime, use ETSLOCK_RUN_ON_CALLER, or no callback at
 *   all: etslock_acquire and etslock_guard_release.
 *
 * Since:     0.1
 */
typedef int32_t (*etslock_callback)(etslock_guard *guard,
                                    const etslock_tuple *tuples,
                                    size_t tuple_count,
                                    void *user_data);

/**
 * What a callback hands to the caller of its call. Never grows.
 *
 * Written by every call that is given one: zeroed first, then filled on ETSLOCK_OK and
 * ETSLOCK_CALLBACK_FAILED. End it with etslock_result_free.
 *
 * Since:     0.1
 */
typedef struct {
  /**
   * On ETSLOCK_OK and ETSLOCK_CALLBACK_FAILED: what the callback returned. Else 0.
   */
  int32_t code;
  /**
   * 0.
   */
  uint32_t reserved;
  /**
   * On ETSLOCK_OK: what the callback set with etslock_guard_set_result. NULL if that was nothing
   * or 0 bytes, and on every other status.
   */
  uint8_t *data;
  /**
   * Bytes in data.
   */
  size_t data_len;
} etslock_result;

/**
 * One key of several. Never grows.
 *
 * Since:     0.1
 */
typedef struct {
  /**
   * The key; readable for key_len bytes during the call. May be NULL if key_len is 0.
   */
  const void *key;
  /**
   * Bytes in the key; may be 0.
   */
  size_t key_len;
} etslock_key;

/**
 * One key of several, and the table that it is a key of. Never grows.
 *
 * Since:     0.2
 */
typedef struct {
  /**
   * The table: any handle to it.
   */
  etslock_table *table;
  /**
   * The key; readable for key_len bytes during the call. May be NULL if key_len is 0.
   */
  const void *key;
  /**
   * Bytes in the key; may be 0.
   */
  size_t key_len;
} etslock_table_key;

/**
 * How an acquire ended that was pending.
 *
 * It never grows.
 *
 * Since:     0.2
 */
typedef struct {
  /**
   * Which one: the number that its beginning gave.
   */
  uint64_t ticket;
  /**
   * What its beginning was given.
   */
  void *user_data;
  /**
   * With ETSLOCK_OK a guard, yours until etslock_guard_release or etslock_guard_cancel; else NULL.
   * Its exec deadline counts from the grant, not from the fetch.
   */
  etslock_guard *guard;
  /**
   * ETSLOCK_OK, or how its wait ended: ETSLOCK_WAIT_TIMEOUT, ETSLOCK_STOPPED, ETSLOCK_DEADLOCK,
   * ETSLOCK_REVOKED, ETSLOCK_CLOSED; ETSLOCK_ERR_NO_MEMORY.
   */
  int32_t status;
  /**
   * 0.
   */
  uint32_t reserved;
} etslock_completion;

/**
 * One lock of a snapshot.
 *
 * Set struct_size to `sizeof(etslock_lock_info)` before the call that fills it. Times are those of
 * the snapshot.
 *
 * Since:     0.1
 */
typedef struct {
  /**
   * `sizeof(etslock_lock_info)`, set by you.
   */
  uint32_t struct_size;
  /**
   * 1 if the holder was past its exec deadline, else 0.
   */
  int32_t late;
  /**
   * The key; lives as long as the snapshot.
   */
  const uint8_t *key;
  /**
   * Bytes in the key; may be 0.
   */
  size_t key_len;
  /**
   * The table's name, or NULL if it has none; lives as long as the snapshot.
   */
  const char *table_name;
  /**
   * The token of the holder's guard, which all its locks share; 0 while the holder still waits
   * for more keys.
   */
  uint64_t token;
  /**
   * For how long the lock had been held, in milliseconds; 0 while the holder still waits for
   * more keys.
   */
  int64_t held_ms;
  /**
   * Milliseconds to the exec deadline; 0 when late; ETSLOCK_INFINITE without one, also while the
   * holder still waits for more keys.
   */
  int64_t exec_remaining_ms;
  /**
   * How many callers stood in the key's queue; polling ones have no place in it.
   */
  uint64_t waiters;
  /**
   * The owner as given in etslock_options.owner: a number of your own, ETSLOCK_OWNER_NONE, or 0.
   */
  uint64_t owner;
  /**
   * The thread that acquired the lock, by the number that the operating system gives it.
   */
  uint64_t thread_id;
} etslock_lock_info;

/**
 * Counters of a lock table: what happened since it was made, and what is the case now.
 *
 * Make it with etslock_stats_init. Each counter is right by itself; together they are no snapshot.
 *
 * Since:     0.1
 */
typedef struct {
  /**
   * `sizeof(etslock_stats)`, written by init.
   */
  uint32_t struct_size;
  /**
   * 0.
   */
  uint32_t reserved;
  /**
   * Locks acquired, counted per key.
   */
  uint64_t acquired;
  /**
   * Acquisitions that had to wait.
   */
  uint64_t contended;
  /**
   * Waits that ended with ETSLOCK_WAIT_TIMEOUT.
   */
  uint64_t wait_timeouts;
  /**
   * Holders that outlived their time.
   */
  uint64_t exec_timeouts;
  /**
   * Locks deleted by a waiter at the release time, or by etslock_lock_table_force_release.
   */
  uint64_t forced_releases;
  /**
   * Waits answered with ETSLOCK_DEADLOCK.
   */
  uint64_t deadlocks;
  /**
   * Locks held now.
   */
  uint64_t held;
  /**
   * Callers waiting now.
   */
  uint64_t waiting;
  /**
   * Internal threads now, in the whole process.
   */
  uint64_t workers;
  /**
   * Abandoned callbacks that still run, each on a thread, in the whole process.
   */
  uint64_t abandoned;
} etslock_stats;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The name of a status, such as "ETSLOCK_WAIT_TIMEOUT".
 *
 * A number that this release does not know gives "ETSLOCK_STATUS_UNKNOWN"; NULL is never returned.
 *
 * Ownership: the string is static; never free it.
 * Threads:   any thread.
 * Blocks:    no.
 * Since:     0.1
 */
const char *etslock_status_name(etslock_status status);

/**
 * What a status means, in a sentence in English.
 *
 * A number that this release does not know gives "unknown status"; NULL is never returned. The
 * wording may change from release to release; compare numbers, not texts.
 *
 * Ownership: the string is static; never free it.
 * Threads:   any thread.
 * Blocks:    no.
 * Since:     0.1
 */
const char *etslock_status_text(etslock_status status);

/**
 * The version of the library that runs, such as "0.1.0".
 *
 * ETSLOCK_VERSION is the version of the header that the program was compiled with. The two may
 * differ; the ABI stays compatible as long as the soname of the library is the same.
 *
 * Ownership: the string is static; never free it.
 * Threads:   any thread.
 * Blocks:    no.
 * Since:     0.1
 */
const char *etslock_version(void);

/**
 * Writes the defaults of etslock_table_options.
 *
 * Call it as `etslock_table_options_init(&options, sizeof options)`. With NULL, or a size without
 * room for struct_size, it does nothing.
 *
 * Threads:   any thread.
 * Blocks:    no.
 * Since:     0.1
 */
void etslock_table_options_init(etslock_table_options *options, size_t size);

/**
 * Makes a table.
 *
 * NULL for `options` means the defaults: a set, public, without a name.
 *
 * Ownership: `*out_table` is yours until etslock_table_free; NULL on failure. The name is copied.
 * Threads:   any thread.
 * Blocks:    no.
 * Errors:    ETSLOCK_EXISTS - another table of this process has the name.
 *            ETSLOCK_ERR_NULL - `out_table` is NULL.
 *            ETSLOCK_ERR_INVALID - type, access or name is out of range, or reserved is not 0.
 *            ETSLOCK_ERR_STRUCT_SIZE - wrong struct_size, or an unknown tail that is not zero.
 *            ETSLOCK_ERR_NO_MEMORY - no memory for a handle that forks can find.
 * Since:     0.1
 */
etslock_status etslock_table_new(const etslock_table_options *options, etslock_table **out_table);

/**
 * One more handle to a named table.
 *
 * The new handle is the same table as every other of that name: same tuples, same locks (C-1). A
 * name is free once its last handle is closed, even if guards remain; a table made under it then
 * is another table (C-14).
 *
 * Ownership: `*out_table` is yours until etslock_table_free; NULL on failure.
 * Threads:   any thread.
 * Blocks:    no.
 * Errors:    ETSLOCK_NOT_FOUND - no table of this process has the name.
 *            ETSLOCK_ERR_NULL - `name` or `out_table` is NULL.
 *            ETSLOCK_ERR_INVALID - the name is empty, past 255 bytes, or not UTF-8.
 *            ETSLOCK_ERR_NO_MEMORY - no memory for a handle that forks can find.
 * Since:     0.1
 */
etslock_status etslock_table_open(const char *name, etslock_table **out_table);

/**
 * Closes a handle to a table.
 *
 * Calls that wait for a lock through this handle return ETSLOCK_CLOSED. Running callbacks,
 * acquired guards, snapshots and cursors live on, and so does the table while they or other
 * handles need it (C-14).
 *
 * Ownership: the handle is gone; NULL is fine.
 * Threads:   any thread, also while calls through the handle are under way, but none may begin.
 * Blocks:    no.
 * Since:     0.1
 */
void etslock_table_free(etslock_table *table);

/**
 * Inserts a tuple at once, without a lock.
 *
 * In a set it replaces the tuple of the key. In a bag an equal tuple keeps its position; otherwise
 * the tuple comes last. The write is visible at once, and neither fenced by a lock nor undone,
 * also when a callback makes it (C-9): etslock_guard_insert is the write that belongs to a lock.
 *
 * Ownership: key and value are copied.
 * Threads:   any thread.
 * Blocks:    no; a write of the same key that is being made is waited for.
 * Errors:    ETSLOCK_ERR_NULL - `table` is NULL, or `key` or `value` with a length above 0.
 *            ETSLOCK_ERR_INVALID - a length is past PTRDIFF_MAX.
 *            ETSLOCK_ERR_GUARDED - the table takes writes through a guard only.
 *            ETSLOCK_ERR_NO_MEMORY - no memory for the copies.
 * Since:     0.1
 */
etslock_status etslock_table_insert(etslock_table *table,
                                    const void *key,
                                    size_t key_len,
                                    const void *value,
                                    size_t value_len);

/**
 * Inserts a tuple at once, without a lock, if its key has none.
 *
 * Of several callers at the same time exactly one succeeds. As etslock_table_insert, it knows
 * nothing of locks (C-9).
 *
 * Ownership: key and value are copied.
 * Threads:   any thread.
 * Blocks:    no; a write of the same key that is being made is waited for.
 * Errors:    ETSLOCK_EXISTS - the key has a tuple; nothing changed.
 *            ETSLOCK_ERR_NULL - `table` is NULL, or `key` or `value` with a length above 0.
 *            ETSLOCK_ERR_INVALID - a length is past PTRDIFF_MAX.
 *            ETSLOCK_ERR_GUARDED - the table takes writes through a guard only.
 *            ETSLOCK_ERR_NO_MEMORY - no memory for the copies.
 * Since:     0.1
 */
etslock_status etslock_table_insert_new(etslock_table *table,
                                        const void *key,
                                        size_t key_len,
                                        const void *value,
                                        size_t value_len);

/**
 * All tuples of a key, as they are now.
 *
 * Needs no lock and waits for none: while somebody holds the key, it gives what was last
 * committed. The bytes are shared with the table, not copied; later writes do not change the
 * snapshot.
 *
 * Ownership: `*out_tuples` is yours until etslock_tuples_free; NULL on failure.
 * Threads:   any thread.
 * Blocks:    no.
 * Errors:    ETSLOCK_NOT_FOUND - the key has no tuple.
 *            ETSLOCK_ERR_NULL - `table` or `out_tuples` is NULL, or `key` with a length above 0.
 *            ETSLOCK_ERR_INVALID - `key_len` is past PTRDIFF_MAX.
 *            ETSLOCK_ERR_NO_MEMORY - no memory for a copy of the key.
 * Since:     0.1
 */
etslock_status etslock_table_lookup(etslock_table *table,
                                    const void *key,
                                    size_t key_len,
                                    etslock_tuples **out_tuples);

/**
 * Whether a key has a tuple now: ETSLOCK_OK or ETSLOCK_NOT_FOUND.
 *
 * Needs no lock and waits for none.
 *
 * Threads:   any thread.
 * Blocks:    no.
 * Errors:    ETSLOCK_NOT_FOUND - the key has no tuple.
 *            ETSLOCK_ERR_NULL - `table` is NULL, or `key` with a length above 0.
 *            ETSLOCK_ERR_INVALID - `key_len` is past PTRDIFF_MAX.
 *            ETSLOCK_ERR_NO_MEMORY - no memory for a copy of the key.
 * Since:     0.1
 */
etslock_status etslock_table_member(etslock_table *table, const void *key, size_t key_len);

/**
 * Removes all tuples of a key at once, without a lock, and returns them.
 *
 * One step: of several callers at the same time one gets the tuples. It knows nothing of locks
 * (C-9).
 *
 * Ownership: `*out_tuples` is yours until etslock_tuples_free; NULL on failure.
 * Threads:   any thread.
 * Blocks:    no; a write of the same key that is being made is waited for.
 * Errors:    ETSLOCK_NOT_FOUND - the key has no tuple.
 *            ETSLOCK_ERR_NULL - `table` or `out_tuples` is NULL, or `key` with a length above 0.
 *            ETSLOCK_ERR_INVALID - `key_len` is past PTRDIFF_MAX.
 *            ETSLOCK_ERR_GUARDED - the table takes writes through a guard only.
 *            ETSLOCK_ERR_NO_MEMORY - no memory for a copy of the key.
 * Since:     0.1
 */
etslock_status etslock_table_take(etslock_table *table,
                                  const void *key,
                                  size_t key_len,
                                  etslock_tuples **out_tuples);

/**
 * Removes all tuples of a key at once, without a lock.
 *
 * A key without a tuple is fine, as in ETS: ETSLOCK_OK. It knows nothing of locks (C-9).
 *
 * Threads:   any thread.
 * Blocks:    no; a write of the same key that is being made is waited for.
 * Errors:    ETSLOCK_ERR_NULL - `table` is NULL, or `key` with a length above 0.
 *            ETSLOCK_ERR_INVALID - `key_len` is past PTRDIFF_MAX.
 *            ETSLOCK_ERR_GUARDED - the table takes writes through a guard only.
 *            ETSLOCK_ERR_NO_MEMORY - no memory for a copy of the key.
 * Since:     0.1
 */
etslock_status etslock_table_delete(etslock_table *table, const void *key, size_t key_len);

/**
 * Removes every instance of one tuple at once, without a lock.
 *
 * Other tuples of the key stay, in their order. No such tuple is fine: ETSLOCK_OK. It knows
 * nothing of locks (C-9).
 *
 * Threads:   any thread.
 * Blocks:    no; a write of the same key that is being made is waited for.
 * Errors:    ETSLOCK_ERR_NULL - `table` is NULL, or `key` or `value` with a length above 0.
 *            ETSLOCK_ERR_INVALID - a length is past PTRDIFF_MAX.
 *            ETSLOCK_ERR_GUARDED - the table takes writes through a guard only.
 *            ETSLOCK_ERR_NO_MEMORY - no memory for copies of key and value.
 * Since:     0.1
 */
etslock_status etslock_table_delete_tuple(etslock_table *table,
                                          const void *key,
                                          size_t key_len,
                                          const void *value,
                                          size_t value_len);

/**
 * Removes all tuples of all keys, without a lock.
 *
 * Each key goes in one step, not the table in one: a key that is inserted meanwhile may stay. It
 * knows nothing of locks (C-9).
 *
 * Threads:   any thread.
 * Blocks:    as etslock_table_delete; takes time in proportion to the number of keys.
 * Errors:    ETSLOCK_ERR_NULL - `table` is NULL.
 *            ETSLOCK_ERR_GUARDED - the table takes writes through a guard only.
 *            ETSLOCK_ERR_NO_MEMORY - no memory for the list of keys; nothing is removed.
 * Since:     0.1
 */
etslock_status etslock_table_clear(etslock_table *table);

/**
 * Adds to the number that a key of a set holds, in one step, without a lock.
 *
 * The value is the 8 bytes of an int64_t in the byte order of the machine. A key without a tuple
 * gets `initial + add`. On failure nothing changes. It knows nothing of locks (C-9).
 *
 * Threads:   any thread.
 * Blocks:    no; a write of the same key that is being made is waited for.
 * Errors:    ETSLOCK_ERR_NULL - `table` or `out_value` is NULL, or `key` with a length above 0.
 *            ETSLOCK_ERR_INVALID - the sum overflows, or `key_len` is past PTRDIFF_MAX.
 *            ETSLOCK_ERR_TYPE - the table is not a set, or the value is not 8 bytes long.
 *            ETSLOCK_ERR_GUARDED - the table takes writes through a guard only.
 *            ETSLOCK_ERR_NO_MEMORY - no memory for a copy of the key.
 * Since:     0.1
 */
etslock_status etslock_table_update_counter(etslock_table *table,
                                            const void *key,
                                            size_t key_len,
                                            int64_t add,
                                            int64_t initial,
                                            int64_t *out_value);

/**
 * How many tuples a table has.
 *
 * Exact when nothing writes; otherwise a number that was nearly right a moment ago.
 *
 * Threads:   any thread.
 * Blocks:    no.
 * Errors:    ETSLOCK_ERR_NULL - `table` or `out_tuples` is NULL.
 * Since:     0.1
 */
etslock_status etslock_table_count(etslock_table *table, size_t *out_tuples);

/**
 * The tuples of a snapshot, as an array.
 *
 * In a bag they stand in order of insertion. NULL for `tuples` gives NULL and a count of 0, so
 * that the answer to an ETSLOCK_NOT_FOUND needs no branch. `out_count` may be NULL.
 *
 * Ownership: the array and its bytes belong to the snapshot, and live until etslock_tuples_free.
 * Threads:   any thread, any number at once.
 * Blocks:    no.
 * Since:     0.1
 */
const etslock_tuple *etslock_tuples_data(const etslock_tuples *tuples, size_t *out_count);

/**
 * Frees a snapshot of tuples.
 *
 * Ownership: the snapshot and every pointer into it are gone; NULL is fine.
 * Threads:   any thread, not while another reads the snapshot.
 * Blocks:    no.
 * Since:     0.1
 */
void etslock_tuples_free(etslock_tuples *tuples);

/**
 * Starts an iteration over the keys of a table.
 *
 * A key that is present throughout comes exactly once; one that comes or goes meanwhile, at most
 * once. The order is any.
 *
 * Ownership: `*out_cursor` is yours until etslock_cursor_free; NULL on failure.
 * Threads:   any thread.
 * Blocks:    no.
 * Errors:    ETSLOCK_ERR_NULL - `table` or `out_cursor` is NULL.
 *            ETSLOCK_ERR_NO_MEMORY - no memory for the list of keys.
 * Since:     0.1
 */
etslock_status etslock_table_cursor(etslock_table *table, etslock_cursor **out_cursor);

/**
 * All tuples of the next key, as they are now.
 *
 * After the last key it answers ETSLOCK_NOT_FOUND, and so does every later call.
 *
 * Ownership: `*out_tuples` is yours until etslock_tuples_free, and outlives the cursor; NULL on
 *            failure.
 * Threads:   one thread at a time per `cursor`.
 * Blocks:    no.
 * Errors:    ETSLOCK_NOT_FOUND - there is no further key.
 *            ETSLOCK_ERR_NULL - `cursor` or `out_tuples` is NULL.
 *            ETSLOCK_ERR_NO_MEMORY - no memory for the tuples; the next call has them.
 * Since:     0.1
 */
etslock_status etslock_cursor_next(etslock_cursor *cursor, etslock_tuples **out_tuples);

/**
 * Ends an iteration, at any point of it.
 *
 * Ownership: the cursor is gone, its snapshots live on; NULL is fine.
 * Threads:   any thread, not while another uses the cursor.
 * Blocks:    no.
 * Since:     0.1
 */
void etslock_cursor_free(etslock_cursor *cursor);

/**
 * Makes a stop that was not requested.
 *
 * Ownership: `*out_stop` is yours until etslock_stop_free; NULL on failure.
 * Threads:   any thread.
 * Blocks:    no.
 * Errors:    ETSLOCK_ERR_NULL - `out_stop` is NULL.
 * Since:     0.2
 */
etslock_status etslock_stop_new(etslock_stop **out_stop);

/**
 * Ends every wait under `stop`, for ever: with ETSLOCK_STOPPED.
 *
 * The waits of calls that have it in options.stop end, blocked or begun, for one key or for several;
 * of several keys, none stays locked. A wait that was granted its lock first is not undone. Calls
 * that come later still make their one attempt (C-2): they get a lock that is free, and
 * ETSLOCK_STOPPED where they would have to wait. To begin anew, make a new stop.
 *
 * Threads:   any thread, any number of times; not in a signal handler.
 * Blocks:    no.
 * Errors:    ETSLOCK_ERR_NULL - `stop` is NULL.
 * Since:     0.2
 */
etslock_status etslock_stop_request(etslock_stop *stop);

/**
 * Frees a stop, without requesting it.
 *
 * Calls under way, and acquires that are pending, keep what they need of it: they wait on, and
 * nothing can stop them any more, if it was not requested before.
 *
 * Ownership: `stop` is gone. NULL is fine; in a forked child nothing happens.
 * Threads:   any thread, not while another call with it is about to begin.
 * Blocks:    no.
 * Since:     0.2
 */
void etslock_stop_free(etslock_stop *stop);

/**
 * ETSLOCK_OWNER_NONE, for languages that read no macros.
 *
 * Threads:   any thread.
 * Blocks:    no.
 * Since:     0.2
 */
uint64_t etslock_owner_none(void);

/**
 * Writes the defaults of etslock_options.
 *
 * Call it as `etslock_options_init(&options, sizeof options)`. With NULL, or a size without room
 * for struct_size, it does nothing.
 *
 * Threads:   any thread.
 * Blocks:    no.
 * Since:     0.1
 */
void etslock_options_init(etslock_options *options, size_t size);

/**
 * Runs `callback` while holding the lock of `key`.
 *
 * Waits for the lock, then for the callback. When the callback returns 0 in time, or what
 * options.commit_code says, its writes are published and the status is ETSLOCK_OK; in every other
 * case none of its unpublished writes happen (C-7). When exec_timeout_ms passes first, the lock is
 * taken back and the call returns, while the callback runs on with a revoked guard (C-4, C-8, C-11).
 * NULL for `options` means the defaults; `out_result` may be NULL. Status and callback's code are
 * two things: look at both.
 *
 * Ownership: `user_data` belongs to the library from here on if user_data_free is set, which is
 *            called exactly once, whatever this returns but ETSLOCK_ERR_STRUCT_SIZE (C-12). `key`
 *            is copied. `*out_result` is always written; end it with etslock_result_free.
 * Threads:   any thread, also from a callback; a key that the owner itself holds is
 *            ETSLOCK_DEADLOCK.
 * Blocks:    at most wait_timeout_ms + exec_timeout_ms and extensions; with ETSLOCK_JOIN or
 *            ETSLOCK_RUN_ON_CALLER until the callback has returned.
 * Errors:    ETSLOCK_WAIT_TIMEOUT - the lock was not free in time; the callback never ran.
 *            ETSLOCK_STOPPED - options.stop was requested during the wait; the callback never ran.
 *            ETSLOCK_EXEC_TIMEOUT - the callback outlived its time, or no thread began it in time.
 *            ETSLOCK_CALLBACK_FAILED - the callback returned another code, or ended its thread.
 *            ETSLOCK_REVOKED - the lock was taken away by etslock_lock_table_force_release.
 *            ETSLOCK_DEADLOCK - the owner holds the key itself, or its holder waits for the owner.
 *            ETSLOCK_CLOSED - `table` or the lock table was freed during the wait.
 *            ETSLOCK_ERR_NULL - `table` or `callback` is NULL, or `key` with a length above 0.
 *            ETSLOCK_ERR_INVALID - an option is out of range, or `key_len` is past PTRDIFF_MAX.
 *            ETSLOCK_ERR_STRUCT_SIZE - wrong struct_size, or an unknown tail that is not zero.
 *            ETSLOCK_ERR_NO_MEMORY - no memory for the key, or to publish the writes.
 *            ETSLOCK_ERR_NO_THREAD - no thread could be started for the callback, or no
 *                                    thread-specific key was left by which its end is noticed.
 * Since:     0.1
 */
etslock_status etslock_with_lock(etslock_table *table,
                                 const void *key,
                                 size_t key_len,
                                 etslock_callback callback,
                                 void *user_data,
                                 const etslock_options *options,
                                 etslock_result *out_result);

/**
 * Runs `callback` while holding the locks of several keys of one table.
 *
 * As etslock_with_lock, for 1 to ETSLOCK_MAX_KEYS keys; duplicates count once. Keys are taken in
 * one global order, so that calls of this kind do not deadlock each other; those already taken
 * stay locked while the rest are waited for, within the one wait deadline. One token, one exec
 * deadline, counted from the last grant. Losing one key revokes the guard for all (C-18). The
 * writes of each key are published in one step, those of all keys are not (C-7).
 *
 * Ownership: `user_data` belongs to the library from here on if user_data_free is set, which is
 *            called exactly once, whatever this returns but ETSLOCK_ERR_STRUCT_SIZE (C-12). `keys`
 *            are copied. `*out_result` is always written; end it with etslock_result_free.
 * Threads:   any thread, also from a callback; a key that the owner itself holds is
 *            ETSLOCK_DEADLOCK.
 * Blocks:    at most wait_timeout_ms + exec_timeout_ms and extensions; with ETSLOCK_JOIN or
 *            ETSLOCK_RUN_ON_CALLER until the callback has returned.
 * Errors:    ETSLOCK_WAIT_TIMEOUT - a lock was not free in time; nothing stays locked.
 *            ETSLOCK_STOPPED - options.stop was requested during the wait; nothing stays locked.
 *            ETSLOCK_EXEC_TIMEOUT - the callback outlived its time, or no thread began it in time.
 *            ETSLOCK_CALLBACK_FAILED - the callback returned another code, or ended its thread.
 *            ETSLOCK_REVOKED - one of the locks was taken away.
 *            ETSLOCK_DEADLOCK - the owner holds a key itself, or its holder waits for the owner.
 *            ETSLOCK_CLOSED - `table` or the lock table was freed during the wait.
 *            ETSLOCK_ERR_NULL - `table`, `keys`, `callback`, or a key that has a length, is NULL.
 *            ETSLOCK_ERR_INVALID - `key_count`, an option, or a key's length is out of range.
 *            ETSLOCK_ERR_STRUCT_SIZE - wrong struct_size, or an unknown tail that is not zero.
 *            ETSLOCK_ERR_NO_MEMORY - no memory for the keys, or to publish the writes.
 *            ETSLOCK_ERR_NO_THREAD - no thread could be started for the callback, or no
 *                                    thread-specific key was left by which its end is noticed.
 * Since:     0.1
 */
etslock_status etslock_with_locks(etslock_table *table,
                                  const etslock_key *keys,
                                  size_t key_count,
                                  etslock_callback callback,
                                  void *user_data,
                                  const etslock_options *options,
                                  etslock_result *out_result);

/**
 * Acquires the lock of `key` and returns a guard for it: no callback, for FFI and event loops.
 *
 * The guard is held until etslock_guard_release or etslock_guard_cancel, on any thread; it does
 * not end with its thread. Past its exec deadline it is late: its writes are refused, and from the
 * release time on a waiter takes its lock (C-5). The owner is the calling thread unless
 * options.owner says otherwise, also when another thread uses the guard: a second acquire of the
 * same key by that owner is ETSLOCK_DEADLOCK (C-13). With short times a waiter may take the lock
 * before this returns: ETSLOCK_OK, and the guard is revoked.
 *
 * Ownership: `*out_guard` is yours until etslock_guard_release or etslock_guard_cancel, also when
 *            its lock was lost; NULL on failure. `key` is copied.
 * Threads:   any thread, also from a callback.
 * Blocks:    until the lock is free, at most wait_timeout_ms.
 * Errors:    ETSLOCK_WAIT_TIMEOUT - the lock was not free in time.
 *            ETSLOCK_STOPPED - options.stop was requested during the wait.
 *            ETSLOCK_REVOKED - the lock was taken away by force in the moment it was got.
 *            ETSLOCK_DEADLOCK - the owner holds the key itself, or its holder waits for the owner.
 *            ETSLOCK_CLOSED - `table` or the lock table was freed during the wait.
 *            ETSLOCK_ERR_NULL - `table` or `out_guard` is NULL, or `key` with a length above 0.
 *            ETSLOCK_ERR_INVALID - an option is out of range, or `key_len` is past PTRDIFF_MAX.
 *            ETSLOCK_ERR_STRUCT_SIZE - wrong struct_size, or an unknown tail that is not zero.
 *            ETSLOCK_ERR_NO_MEMORY - no memory for the key.
 * Since:     0.1
 */
etslock_status etslock_acquire(etslock_table *table,
                               const void *key,
                               size_t key_len,
                               const etslock_options *options,
                               etslock_guard **out_guard);

/**
 * Acquires the locks of several keys of one table and returns one guard for them.
 *
 * As etslock_acquire, for 1 to ETSLOCK_MAX_KEYS keys, which are taken as in etslock_with_locks: in
 * one global order, duplicates once, within one wait deadline, all or none (C-18).
 *
 * Ownership: `*out_guard` is yours until etslock_guard_release or etslock_guard_cancel, also when
 *            its locks were lost; NULL on failure. `keys` are copied.
 * Threads:   any thread, also from a callback.
 * Blocks:    until all locks are got, at most wait_timeout_ms.
 * Errors:    ETSLOCK_WAIT_TIMEOUT - a lock was not free in time; nothing stays locked.
 *            ETSLOCK_STOPPED - options.stop was requested during the wait; nothing stays locked.
 *            ETSLOCK_REVOKED - a lock was taken away while the rest were waited for.
 *            ETSLOCK_DEADLOCK - the owner holds a key itself, or its holder waits for the owner.
 *            ETSLOCK_CLOSED - `table` or the lock table was freed during the wait.
 *            ETSLOCK_ERR_NULL - `table`, `keys`, `out_guard`, or a key that has a length, is NULL.
 *            ETSLOCK_ERR_INVALID - `key_count`, an option, or a key's length is out of range.
 *            ETSLOCK_ERR_STRUCT_SIZE - wrong struct_size, or an unknown tail that is not zero.
 *            ETSLOCK_ERR_NO_MEMORY - no memory for the keys.
 * Since:     0.1
 */
etslock_status etslock_acquire_locks(etslock_table *table,
                                     const etslock_key *keys,
                                     size_t key_count,
                                     const etslock_options *options,
                                     etslock_guard **out_guard);

/**
 * Frees what a result holds and zeroes it.
 *
 * Safe after every status of the call that wrote it, and again on a zeroed result.
 *
 * Ownership: data is gone; the struct itself stays yours. NULL is fine.
 * Threads:   any thread, not while another uses the result.
 * Blocks:    no.
 * Since:     0.1
 */
void etslock_result_free(etslock_result *result);

/**
 * The current tuples of a locked key, with the guard's staged writes applied.
 *
 * The snapshot does not follow later writes.
 *
 * Ownership: `*out_tuples` is yours until etslock_tuples_free, and outlives the guard; NULL on
 *            failure.
 * Threads:   one thread at a time per `guard`.
 * Blocks:    no.
 * Errors:    ETSLOCK_EXEC_TIMEOUT - the guard is late.
 *            ETSLOCK_REVOKED - the guard is revoked.
 *            ETSLOCK_NOT_FOUND - the key has no tuple.
 *            ETSLOCK_ERR_NULL - `guard` or `out_tuples` is NULL, or `key` with a length above 0.
 *            ETSLOCK_ERR_INVALID - `key_len` is past PTRDIFF_MAX; the guard's keys are of several
 *            tables: see etslock_guard_lookup_in.
 *            ETSLOCK_ERR_NOT_COVERED - the guard does not hold this key.
 *            ETSLOCK_ERR_NO_MEMORY - no memory for a copy of the key.
 * Since:     0.1
 */
etslock_status etslock_guard_lookup(etslock_guard *guard,
                                    const void *key,
                                    size_t key_len,
                                    etslock_tuples **out_tuples);

/**
 * Stages the insertion of a tuple under a locked key.
 *
 * Commit replays the staged writes in order on the tuples of that moment: in a set the guard's
 * write wins, in bags the unguarded inserts of others survive (C-7). Works on every table,
 * ETSLOCK_GUARDED ones included.
 *
 * Ownership: key and value are copied.
 * Threads:   one thread at a time per `guard`.
 * Blocks:    no.
 * Errors:    ETSLOCK_EXEC_TIMEOUT - the guard is late.
 *            ETSLOCK_REVOKED - the guard is revoked.
 *            ETSLOCK_ERR_NULL - `guard` is NULL, or `key` or `value` with a length above 0.
 *            ETSLOCK_ERR_INVALID - a length is past PTRDIFF_MAX; the guard's keys are of several
 *            tables.
 *            ETSLOCK_ERR_NOT_COVERED - the guard does not hold this key.
 *            ETSLOCK_ERR_NO_MEMORY - no memory for the copies; earlier writes stay staged.
 * Since:     0.1
 */
etslock_status etslock_guard_insert(etslock_guard *guard,
                                    const void *key,
                                    size_t key_len,
                                    const void *value,
                                    size_t value_len);

/**
 * Stages the removal of all tuples of a locked key.
 *
 * A key without a tuple is fine. At the commit every tuple goes that the key has then (C-7).
 *
 * Threads:   one thread at a time per `guard`.
 * Blocks:    no.
 * Errors:    ETSLOCK_EXEC_TIMEOUT - the guard is late.
 *            ETSLOCK_REVOKED - the guard is revoked.
 *            ETSLOCK_ERR_NULL - `guard` is NULL, or `key` with a length above 0.
 *            ETSLOCK_ERR_INVALID - `key_len` is past PTRDIFF_MAX; the guard's keys are of several
 *            tables.
 *            ETSLOCK_ERR_NOT_COVERED - the guard does not hold this key.
 *            ETSLOCK_ERR_NO_MEMORY - no memory for a copy of the key; earlier writes stay staged.
 * Since:     0.1
 */
etslock_status etslock_guard_delete(etslock_guard *guard, const void *key, size_t key_len);

/**
 * Stages the removal of every instance of one tuple under a locked key.
 *
 * No such tuple is fine; other tuples of the key stay, in their order.
 *
 * Ownership: key and value are copied.
 * Threads:   one thread at a time per `guard`.
 * Blocks:    no.
 * Errors:    ETSLOCK_EXEC_TIMEOUT - the guard is late.
 *            ETSLOCK_REVOKED - the guard is revoked.
 *            ETSLOCK_ERR_NULL - `guard` is NULL, or `key` or `value` with a length above 0.
 *            ETSLOCK_ERR_INVALID - a length is past PTRDIFF_MAX; the guard's keys are of several
 *            tables.
 *            ETSLOCK_ERR_NOT_COVERED - the guard does not hold this key.
 *            ETSLOCK_ERR_NO_MEMORY - no memory for the copies; earlier writes stay staged.
 * Since:     0.1
 */
etslock_status etslock_guard_delete_tuple(etslock_guard *guard,
                                          const void *key,
                                          size_t key_len,
                                          const void *value,
                                          size_t value_len);

/**
 * Publishes the staged writes now and keeps the lock.
 *
 * What is published stays, whatever becomes of the guard. A commit that is under way when the
 * deadline passes is finished, and is then a success (C-8). The writes of each key become visible
 * in one step, those of several keys do not (C-7).
 *
 * Threads:   one thread at a time per `guard`.
 * Blocks:    no; a write of the same key that is being made is waited for.
 * Errors:    ETSLOCK_EXEC_TIMEOUT - the guard is late; nothing was published.
 *            ETSLOCK_REVOKED - the guard is revoked; nothing was published.
 *            ETSLOCK_ERR_NULL - `guard` is NULL.
 *            ETSLOCK_ERR_NO_MEMORY - nothing was published, all stays staged: try again.
 * Since:     0.1
 */
etslock_status etslock_guard_commit(etslock_guard *guard);

/**
 * Forgets the unpublished writes and keeps the lock.
 *
 * What was committed before stays.
 *
 * Threads:   one thread at a time per `guard`.
 * Blocks:    no.
 * Errors:    ETSLOCK_EXEC_TIMEOUT - the guard is late; its writes will never be published.
 *            ETSLOCK_REVOKED - the guard is revoked; its writes will never be published.
 *            ETSLOCK_ERR_NULL - `guard` is NULL.
 * Since:     0.1
 */
etslock_status etslock_guard_rollback(etslock_guard *guard);

/**
 * Publishes the staged writes, unlocks, and ends an acquired guard.
 *
 * It ends the guard whatever it returns, except ETSLOCK_ERR_NULL and ETSLOCK_ERR_INVALID: never
 * call it again. To be able to try a failed write again, call etslock_guard_commit first. A guard
 * that lost its lock publishes nothing and cannot free a successor's lock (C-6).
 *
 * Ownership: the guard is gone.
 * Threads:   any thread, not while another uses the guard; not for a callback's guard.
 * Blocks:    no; a write of the same key that is being made is waited for.
 * Errors:    ETSLOCK_EXEC_TIMEOUT - the guard was late; nothing was published, the lock is free.
 *            ETSLOCK_REVOKED - the guard was revoked; nothing was published.
 *            ETSLOCK_ERR_NULL - `guard` is NULL.
 *            ETSLOCK_ERR_INVALID - the guard is a callback's; it stays as it was.
 *            ETSLOCK_ERR_NO_MEMORY - nothing was published, the lock is free.
 * Since:     0.1
 */
etslock_status etslock_guard_release(etslock_guard *guard);

/**
 * Forgets the staged writes, unlocks, and ends an acquired guard.
 *
 * ETSLOCK_OK also when the guard was late or revoked; what was committed before stays. It ends the
 * guard whatever it returns, except ETSLOCK_ERR_NULL and ETSLOCK_ERR_INVALID.
 *
 * Ownership: the guard is gone.
 * Threads:   any thread, not while another uses the guard; not for a callback's guard.
 * Blocks:    no.
 * Errors:    ETSLOCK_ERR_NULL - `guard` is NULL.
 *            ETSLOCK_ERR_INVALID - the guard is a callback's; it stays as it was.
 * Since:     0.1
 */
etslock_status etslock_guard_cancel(etslock_guard *guard);

/**
 * Sets the bytes that the call hands to its caller in etslock_result.data.
 *
 * The last success wins. They arrive only if the call returns ETSLOCK_OK.
 *
 * Ownership: `data` is copied.
 * Threads:   one thread at a time per `guard`; only for a callback's guard.
 * Blocks:    no.
 * Errors:    ETSLOCK_EXEC_TIMEOUT - the guard is late.
 *            ETSLOCK_REVOKED - the guard is revoked.
 *            ETSLOCK_ERR_NULL - `guard` is NULL, or `data` with a length above 0.
 *            ETSLOCK_ERR_INVALID - the guard was acquired, or `data_len` is past PTRDIFF_MAX.
 *            ETSLOCK_ERR_NO_MEMORY - no memory for the copy; an earlier result stays.
 * Since:     0.1
 */
etslock_status etslock_guard_set_result(etslock_guard *guard, const void *data, size_t data_len);

/**
 * Moves the exec deadline to at least `exec_timeout_ms` from now.
 *
 * It never shortens the time and never revives a guard. The caller that waits for the callback
 * waits longer too, and the release time moves along (C-4). ETSLOCK_INFINITE: no deadline any
 * more; 0 changes nothing.
 *
 * Threads:   one thread at a time per `guard`.
 * Blocks:    no.
 * Errors:    ETSLOCK_EXEC_TIMEOUT - the guard is late.
 *            ETSLOCK_REVOKED - the guard is revoked.
 *            ETSLOCK_ERR_NULL - `guard` is NULL.
 *            ETSLOCK_ERR_INVALID - `exec_timeout_ms` is negative and not ETSLOCK_INFINITE.
 * Since:     0.1
 */
etslock_status etslock_guard_extend(etslock_guard *guard, int64_t exec_timeout_ms);

/**
 * Sleeps for `ms` milliseconds, unless the guard is late or revoked before.
 *
 * It wakes early then, and says so. The lock stays held, and the exec deadline stays where it is.
 * ETSLOCK_INFINITE sleeps until the lock is lost.
 *
 * Threads:   one thread at a time per `guard`.
 * Blocks:    at most `ms`.
 * Errors:    ETSLOCK_EXEC_TIMEOUT - the guard is late.
 *            ETSLOCK_REVOKED - the guard is revoked.
 *            ETSLOCK_ERR_NULL - `guard` is NULL.
 *            ETSLOCK_ERR_INVALID - `ms` is negative and not ETSLOCK_INFINITE.
 * Since:     0.1
 */
etslock_status etslock_guard_sleep(etslock_guard *guard, int64_t ms);

/**
 * Whether a guard is live, late or revoked: ETSLOCK_OK, ETSLOCK_EXEC_TIMEOUT or ETSLOCK_REVOKED.
 *
 * Cheap, one atomic load and a look at the clock: a callback that works for long calls it in its
 * loop. ETSLOCK_OK may be over by the time you read it; the writes are checked again by
 * themselves.
 *
 * Threads:   any thread, any number at once, while the guard lives.
 * Blocks:    no.
 * Errors:    ETSLOCK_EXEC_TIMEOUT - the guard is late.
 *            ETSLOCK_REVOKED - the guard is revoked.
 *            ETSLOCK_ERR_NULL - `guard` is NULL.
 * Since:     0.1
 */
etslock_status etslock_guard_status(const etslock_guard *guard);

/**
 * Milliseconds to the exec deadline of a guard.
 *
 * 0 when it is late, revoked or NULL, or was made before a fork; ETSLOCK_INFINITE when it has no
 * deadline. A part of a millisecond counts as one.
 *
 * Threads:   any thread, any number at once, while the guard lives.
 * Blocks:    no.
 * Since:     0.1
 */
int64_t etslock_guard_remaining_ms(const etslock_guard *guard);

/**
 * The fencing token of a guard's lock.
 *
 * Larger than that of every earlier lock of the same key, and unique in this process; one for all
 * keys of a guard. Hand it to other systems with what you write there: they refuse a token below
 * one that they have seen. Larger too than those of earlier processes on this machine, as long as
 * its clock was not set back (C-21); see etslock_token_raise. It stays the same when the lock is lost. 0 for NULL, and for a guard
 * from before a fork.
 *
 * Threads:   any thread, any number at once, while the guard lives.
 * Blocks:    no.
 * Since:     0.1
 */
uint64_t etslock_guard_token(const etslock_guard *guard);

/**
 * Runs `callback` while holding the locks of several keys, of one table or several.
 *
 * As etslock_with_locks, and each key says its table. The tables may be of different types and
 * access. Two handles to one named table are one table; a key that is named twice in a table counts
 * once, and the same key in two tables is two. All keys are taken in the one order of C-18, whoever
 * else takes several. The callback's tuples are grouped in the order given; they say their key, not
 * their table. Its guard is used through the functions that name a table, such as
 * etslock_guard_lookup_in; if all keys are of one table, the others work too. All writes to all
 * tables are published together or none is; for readers without a lock each key is one step (C-20).
 *
 * Ownership: `user_data` belongs to the library from here on if user_data_free is set, which is
 *            called exactly once, whatever this returns but ETSLOCK_ERR_STRUCT_SIZE (C-12). `keys`
 *            are copied. `*out_result` is always written; end it with etslock_result_free.
 * Threads:   any thread, also from a callback; a key that the owner itself holds is
 *            ETSLOCK_DEADLOCK.
 * Blocks:    at most wait_timeout_ms + exec_timeout_ms and extensions; with ETSLOCK_JOIN or
 *            ETSLOCK_RUN_ON_CALLER until the callback has returned.
 * Errors:    ETSLOCK_WAIT_TIMEOUT - a lock was not free in time; nothing stays locked.
 *            ETSLOCK_EXEC_TIMEOUT - the callback outlived its time, or no thread began it in time.
 *            ETSLOCK_CALLBACK_FAILED - the callback returned another code, or ended its thread.
 *            ETSLOCK_REVOKED - one of the locks was taken away.
 *            ETSLOCK_DEADLOCK - the owner holds a key itself, or its holder waits for the owner.
 *            ETSLOCK_CLOSED - one of the tables or the lock table was freed during the wait; nothing
 *            stays locked.
 *            ETSLOCK_ERR_NULL - `keys`, `callback`, a table, or a key that has a length, is NULL.
 *            ETSLOCK_ERR_INVALID - `key_count`, an option, or a key's length is out of range.
 *            ETSLOCK_ERR_STRUCT_SIZE - wrong struct_size, or an unknown tail that is not zero.
 *            ETSLOCK_ERR_NO_MEMORY - no memory for the keys, or to publish the writes.
 *            ETSLOCK_ERR_NO_THREAD - no thread could be started for the callback.
 * Since:     0.2
 */
etslock_status etslock_with_locks_across(const etslock_table_key *keys,
                                         size_t key_count,
                                         etslock_callback callback,
                                         void *user_data,
                                         const etslock_options *options,
                                         etslock_result *out_result);

/**
 * Acquires the locks of several keys, of one table or several, and returns one guard for them.
 *
 * As etslock_acquire_locks, and each key says its table, as in etslock_with_locks_across (C-20).
 *
 * Ownership: `*out_guard` is yours until etslock_guard_release or etslock_guard_cancel, also when
 *            its locks were lost, and when tables were freed; NULL on failure. `keys` are copied.
 * Threads:   any thread, also from a callback.
 * Blocks:    until all locks are got, at most wait_timeout_ms.
 * Errors:    ETSLOCK_WAIT_TIMEOUT - a lock was not free in time; nothing stays locked.
 *            ETSLOCK_REVOKED - a lock was taken away while the rest were waited for.
 *            ETSLOCK_DEADLOCK - the owner holds a key itself, or its holder waits for the owner.
 *            ETSLOCK_CLOSED - one of the tables or the lock table was freed during the wait; nothing
 *            stays locked.
 *            ETSLOCK_ERR_NULL - `keys`, `out_guard`, a table, or a key that has a length, is NULL.
 *            ETSLOCK_ERR_INVALID - `key_count`, an option, or a key's length is out of range.
 *            ETSLOCK_ERR_STRUCT_SIZE - wrong struct_size, or an unknown tail that is not zero.
 *            ETSLOCK_ERR_NO_MEMORY - no memory for the keys.
 * Since:     0.2
 */
etslock_status etslock_acquire_locks_across(const etslock_table_key *keys,
                                            size_t key_count,
                                            const etslock_options *options,
                                            etslock_guard **out_guard);

/**
 * The current tuples of a locked key of `table`, with the guard's staged writes applied.
 *
 * As etslock_guard_lookup, for every guard: also one of a single table, which `table` must be then.
 * Any handle to the table will do, not only the one that was given for the lock.
 *
 * Ownership: `*out_tuples` is yours until etslock_tuples_free, and outlives the guard; NULL on
 *            failure.
 * Threads:   one thread at a time per `guard`.
 * Blocks:    no.
 * Errors:    ETSLOCK_EXEC_TIMEOUT - the guard is late.
 *            ETSLOCK_REVOKED - the guard is revoked.
 *            ETSLOCK_NOT_FOUND - the key has no tuple.
 *            ETSLOCK_ERR_NULL - `guard`, `table` or `out_tuples` is NULL, or `key` with a length
 *            above 0.
 *            ETSLOCK_ERR_INVALID - `key_len` is past PTRDIFF_MAX.
 *            ETSLOCK_ERR_NOT_COVERED - the guard does not hold this key of this table.
 *            ETSLOCK_ERR_NO_MEMORY - no memory for a copy of the key.
 * Since:     0.2
 */
etslock_status etslock_guard_lookup_in(etslock_guard *guard,
                                       etslock_table *table,
                                       const void *key,
                                       size_t key_len,
                                       etslock_tuples **out_tuples);

/**
 * Stages the insertion of a tuple under a locked key of `table`.
 *
 * As etslock_guard_insert, for every guard.
 *
 * Ownership: key and value are copied.
 * Threads:   one thread at a time per `guard`.
 * Blocks:    no.
 * Errors:    ETSLOCK_EXEC_TIMEOUT - the guard is late.
 *            ETSLOCK_REVOKED - the guard is revoked.
 *            ETSLOCK_ERR_NULL - `guard` or `table` is NULL, or `key` or `value` with a length above
 *            0.
 *            ETSLOCK_ERR_INVALID - a length is past PTRDIFF_MAX.
 *            ETSLOCK_ERR_NOT_COVERED - the guard does not hold this key of this table.
 *            ETSLOCK_ERR_NO_MEMORY - no memory for the copies; earlier writes stay staged.
 * Since:     0.2
 */
etslock_status etslock_guard_insert_in(etslock_guard *guard,
                                       etslock_table *table,
                                       const void *key,
                                       size_t key_len,
                                       const void *value,
                                       size_t value_len);

/**
 * Stages the removal of all tuples of a locked key of `table`.
 *
 * As etslock_guard_delete, for every guard.
 *
 * Threads:   one thread at a time per `guard`.
 * Blocks:    no.
 * Errors:    ETSLOCK_EXEC_TIMEOUT - the guard is late.
 *            ETSLOCK_REVOKED - the guard is revoked.
 *            ETSLOCK_ERR_NULL - `guard` or `table` is NULL, or `key` with a length above 0.
 *            ETSLOCK_ERR_INVALID - `key_len` is past PTRDIFF_MAX.
 *            ETSLOCK_ERR_NOT_COVERED - the guard does not hold this key of this table.
 *            ETSLOCK_ERR_NO_MEMORY - no memory for a copy of the key; earlier writes stay staged.
 * Since:     0.2
 */
etslock_status etslock_guard_delete_in(etslock_guard *guard,
                                       etslock_table *table,
                                       const void *key,
                                       size_t key_len);

/**
 * Stages the removal of every instance of one tuple under a locked key of `table`.
 *
 * As etslock_guard_delete_tuple, for every guard.
 *
 * Ownership: key and value are copied.
 * Threads:   one thread at a time per `guard`.
 * Blocks:    no.
 * Errors:    ETSLOCK_EXEC_TIMEOUT - the guard is late.
 *            ETSLOCK_REVOKED - the guard is revoked.
 *            ETSLOCK_ERR_NULL - `guard` or `table` is NULL, or `key` or `value` with a length above
 *            0.
 *            ETSLOCK_ERR_INVALID - a length is past PTRDIFF_MAX.
 *            ETSLOCK_ERR_NOT_COVERED - the guard does not hold this key of this table.
 *            ETSLOCK_ERR_NO_MEMORY - no memory for the copies; earlier writes stay staged.
 * Since:     0.2
 */
etslock_status etslock_guard_delete_tuple_in(etslock_guard *guard,
                                             etslock_table *table,
                                             const void *key,
                                             size_t key_len,
                                             const void *value,
                                             size_t value_len);

/**
 * Makes a queue of completions.
 *
 * Ownership: `*out_completions` is yours until etslock_completions_free; NULL on failure.
 * Threads:   any thread.
 * Blocks:    no.
 * Errors:    ETSLOCK_ERR_NULL - `out_completions` is NULL.
 * Since:     0.2
 */
etslock_status etslock_completions_new(etslock_completions **out_completions);

/**
 * Frees a queue of completions.
 *
 * What is pending is withdrawn, guards that were not fetched are cancelled, and threads that wait in
 * etslock_completions_wait get ETSLOCK_CLOSED. The descriptor is closed.
 *
 * Ownership: `completions` is gone; guards that were fetched live on. NULL is fine; in a forked child
 *            nothing happens.
 * Threads:   any thread, not while another call with it is about to begin.
 * Blocks:    no.
 * Since:     0.2
 */
void etslock_completions_free(etslock_completions *completions);

/**
 * A file descriptor that is readable while there is something to fetch, or a deadline to see to.
 *
 * For epoll, poll, select, libuv, asyncio and their like: level-triggered. When it is readable, call
 * etslock_completions_wait with a timeout of 0; there may be nothing to fetch then. It is not
 * readable while there is nothing to do. It is made when it is first asked for; a queue that only
 * threads wait in needs none.
 *
 * -1 for NULL, in a forked child, or when no descriptor can be had; everything else works on then,
 * and a later call tries again. In a forked child the number stands for a descriptor that is never
 * readable.
 *
 * Ownership: the library's: never read it, write to it or close it. It is closed on exec.
 * Threads:   any thread.
 * Blocks:    no.
 * Since:     0.2
 */
int32_t etslock_completions_fd(etslock_completions *completions);

/**
 * Fetches completions, and sees to the deadlines of what is pending.
 *
 * Waits until there is one, then fetches up to `capacity` of those that are there. Each completion is
 * fetched once, by one thread.
 *
 * Ownership: each guard in `out_completions` is yours.
 * Threads:   any thread, several at once.
 * Blocks:    until there is a completion, at most `timeout_ms`; with 0 not at all.
 * Errors:    ETSLOCK_WAIT_TIMEOUT - there was none in time.
 *            ETSLOCK_CLOSED - `completions` was freed meanwhile.
 *            ETSLOCK_ERR_NULL - `completions`, `out_completions` or `out_count` is NULL.
 *            ETSLOCK_ERR_INVALID - `capacity` is 0, or `timeout_ms` below ETSLOCK_INFINITE.
 * Since:     0.2
 */
etslock_status etslock_completions_wait(etslock_completions *completions,
                                        etslock_completion *out_completions,
                                        size_t capacity,
                                        int64_t timeout_ms,
                                        size_t *out_count);

/**
 * Ends a pending acquire early: its completion will say ETSLOCK_STOPPED.
 *
 * Either that, or ETSLOCK_NOT_FOUND: it has its completion already, fetched or not, and that says
 * what it would have said. However it races with the grant, it is one of the two.
 *
 * Threads:   any thread.
 * Blocks:    no.
 * Errors:    ETSLOCK_NOT_FOUND - `ticket` has its completion, or is none of this queue.
 *            ETSLOCK_ERR_NULL - `completions` is NULL.
 * Since:     0.2
 */
etslock_status etslock_completions_withdraw(etslock_completions *completions, uint64_t ticket);

/**
 * Acquires the lock of `key`, or begins to wait for it without a thread.
 *
 * ETSLOCK_OK: the lock was got at once; the guard is yours, and no completion follows.
 * ETSLOCK_PENDING: the ticket is set, and exactly one completion follows in `completions`, whatever
 * happens (C-19); where other threads fetch, it may be fetched before this returns. Every other
 * status: nothing follows.
 *
 * As etslock_acquire, but for this: it never blocks; options.owner 0 is ETSLOCK_OWNER_NONE, for tasks
 * of an event loop share a thread, and a task that can wait for itself needs a number of its own;
 * ETSLOCK_QUEUE_POLLING is ETSLOCK_ERR_INVALID. With wait_timeout_ms 0 a lock that is held is
 * ETSLOCK_WAIT_TIMEOUT at once.
 *
 * Ownership: `*out_guard` is yours until etslock_guard_release or etslock_guard_cancel; NULL unless
 *            ETSLOCK_OK. `*out_ticket` is written on ETSLOCK_PENDING only. `key` is copied.
 *            `user_data` is given back with the completion, and not looked at.
 * Threads:   any thread, also from a callback.
 * Blocks:    no.
 * Errors:    ETSLOCK_WAIT_TIMEOUT - the lock is held, and wait_timeout_ms is 0.
 *            ETSLOCK_PENDING - a completion will tell.
 *            ETSLOCK_STOPPED - the lock is held, and options.stop was requested.
 *            ETSLOCK_REVOKED - the lock was taken away by force in the moment it was got.
 *            ETSLOCK_DEADLOCK - the owner holds the key itself, or its holder waits for the owner.
 *            ETSLOCK_CLOSED - `table`, the lock table or `completions` was freed meanwhile.
 *            ETSLOCK_ERR_NULL - `table`, `completions`, `out_ticket` or `out_guard` is NULL, or `key`
 *            with a length above 0.
 *            ETSLOCK_ERR_INVALID - an option is out of range or ETSLOCK_QUEUE_POLLING, or `key_len`
 *            is past PTRDIFF_MAX.
 *            ETSLOCK_ERR_STRUCT_SIZE - wrong struct_size, or an unknown tail that is not zero.
 *            ETSLOCK_ERR_NO_MEMORY - no memory for the key.
 * Since:     0.2
 */
etslock_status etslock_acquire_begin(etslock_table *table,
                                     const void *key,
                                     size_t key_len,
                                     const etslock_options *options,
                                     etslock_completions *completions,
                                     void *user_data,
                                     uint64_t *out_ticket,
                                     etslock_guard **out_guard);

/**
 * Acquires the locks of several keys of one table, or begins to wait for them without a thread.
 *
 * As etslock_acquire_begin, for 1 to ETSLOCK_MAX_KEYS keys, which are taken as in
 * etslock_acquire_locks: in one global order, duplicates once, within one wait deadline, all or none
 * (C-18). Keys already taken stay locked while the rest are waited for.
 *
 * Ownership: `*out_guard` is yours until etslock_guard_release or etslock_guard_cancel; NULL unless
 *            ETSLOCK_OK. `*out_ticket` is written on ETSLOCK_PENDING only. `keys` are copied.
 *            `user_data` is given back with the completion, and not looked at.
 * Threads:   any thread, also from a callback.
 * Blocks:    no.
 * Errors:    ETSLOCK_WAIT_TIMEOUT - a lock is held, and wait_timeout_ms is 0.
 *            ETSLOCK_PENDING - a completion will tell.
 *            ETSLOCK_STOPPED - a lock is held, and options.stop was requested.
 *            ETSLOCK_REVOKED - a lock was taken away by force meanwhile.
 *            ETSLOCK_DEADLOCK - the owner holds a key itself, or its holder waits for the owner.
 *            ETSLOCK_CLOSED - `table`, the lock table or `completions` was freed meanwhile.
 *            ETSLOCK_ERR_NULL - `table`, `keys`, `completions`, `out_ticket` or `out_guard` is NULL,
 *            or a key that has a length.
 *            ETSLOCK_ERR_INVALID - `key_count`, an option, or a key's length is out of range, or the
 *            queue is ETSLOCK_QUEUE_POLLING.
 *            ETSLOCK_ERR_STRUCT_SIZE - wrong struct_size, or an unknown tail that is not zero.
 *            ETSLOCK_ERR_NO_MEMORY - no memory for the keys.
 * Since:     0.2
 */
etslock_status etslock_acquire_locks_begin(etslock_table *table,
                                           const etslock_key *keys,
                                           size_t key_count,
                                           const etslock_options *options,
                                           etslock_completions *completions,
                                           void *user_data,
                                           uint64_t *out_ticket,
                                           etslock_guard **out_guard);

/**
 * Acquires the locks of keys of several tables, or begins to wait for them without a thread.
 *
 * As etslock_acquire_locks_begin, for keys that are named with their tables, as in
 * etslock_acquire_locks_across (C-20).
 *
 * Ownership: `*out_guard` is yours until etslock_guard_release or etslock_guard_cancel; NULL unless
 *            ETSLOCK_OK. `*out_ticket` is written on ETSLOCK_PENDING only. `keys` are copied.
 *            `user_data` is given back with the completion, and not looked at.
 * Threads:   any thread, also from a callback.
 * Blocks:    no.
 * Errors:    ETSLOCK_WAIT_TIMEOUT - a lock is held, and wait_timeout_ms is 0.
 *            ETSLOCK_PENDING - a completion will tell.
 *            ETSLOCK_STOPPED - a lock is held, and options.stop was requested.
 *            ETSLOCK_REVOKED - a lock was taken away by force meanwhile.
 *            ETSLOCK_DEADLOCK - the owner holds a key itself, or its holder waits for the owner.
 *            ETSLOCK_CLOSED - a table, the lock table or `completions` was freed meanwhile.
 *            ETSLOCK_ERR_NULL - `keys`, a table, `completions`, `out_ticket` or `out_guard` is NULL,
 *            or a key that has a length.
 *            ETSLOCK_ERR_INVALID - `key_count`, an option, or a key's length is out of range, or the
 *            queue is ETSLOCK_QUEUE_POLLING.
 *            ETSLOCK_ERR_STRUCT_SIZE - wrong struct_size, or an unknown tail that is not zero.
 *            ETSLOCK_ERR_NO_MEMORY - no memory for the keys.
 * Since:     0.2
 */
etslock_status etslock_acquire_locks_across_begin(const etslock_table_key *keys,
                                                  size_t key_count,
                                                  const etslock_options *options,
                                                  etslock_completions *completions,
                                                  void *user_data,
                                                  uint64_t *out_ticket,
                                                  etslock_guard **out_guard);

/**
 * Sees to it that every later token of this process is larger than `above`.
 *
 * Tokens start from the wall clock: they are larger than those of earlier processes on this machine
 * as long as its clock is not set back (C-21). This is for everything else: call it at the start, with
 * the largest token that a system has seen that you hand tokens to. It acts on this process, and on
 * its locks in every lock table. Locks that are held keep their tokens, and so does whoever is getting
 * one meanwhile.
 *
 * Threads:   any thread.
 * Blocks:    no.
 * Errors:    ETSLOCK_ERR_INVALID - `above` is larger than 2^64 - 2^60 - 1, which leaves no room for
 *            later tokens; nothing changed. Below that they cannot run out.
 * Since:     0.2
 */
etslock_status etslock_token_raise(uint64_t above);

/**
 * Makes a lock table.
 *
 * For parts of a program that must not meet, or that want counters of their own; everybody else
 * passes NULL and shares the one of the process.
 *
 * Ownership: `*out_lock_table` is yours until etslock_lock_table_free; NULL on failure.
 * Threads:   any thread.
 * Blocks:    no.
 * Errors:    ETSLOCK_ERR_NULL - `out_lock_table` is NULL.
 *            ETSLOCK_ERR_NO_MEMORY - no memory for a handle that forks can find.
 * Since:     0.1
 */
etslock_status etslock_lock_table_new(etslock_lock_table **out_lock_table);

/**
 * Closes a lock table.
 *
 * Calls that wait for one of its locks return ETSLOCK_CLOSED. Running callbacks, acquired guards
 * and snapshots live on (C-14).
 *
 * Ownership: the handle is gone; NULL is fine, and does not touch the lock table of the process.
 * Threads:   any thread, also while calls that use it are under way, but none may begin.
 * Blocks:    no.
 * Since:     0.1
 */
void etslock_lock_table_free(etslock_lock_table *lock_table);

/**
 * A snapshot of the locks held now: of one table, or of all with NULL for `table`.
 *
 * For people and monitors, not for decisions: a lock may be gone when you read of it. The snapshot
 * is not taken in one step while others lock and unlock.
 *
 * Ownership: `*out_locks` is yours until etslock_locks_free; NULL on failure.
 * Threads:   any thread.
 * Blocks:    no; takes time in proportion to the number of held locks.
 * Errors:    ETSLOCK_ERR_NULL - `out_locks` is NULL.
 * Since:     0.1
 */
etslock_status etslock_lock_table_locks(etslock_lock_table *lock_table,
                                        etslock_table *table,
                                        etslock_locks **out_locks);

/**
 * How many locks a snapshot has; 0 for NULL.
 *
 * Threads:   any thread, any number at once.
 * Blocks:    no.
 * Since:     0.1
 */
size_t etslock_locks_count(const etslock_locks *locks);

/**
 * One lock of a snapshot.
 *
 * Set `out_info->struct_size` first; bytes that this release does not know stay as they are. The
 * order of the locks is any, but stays the same.
 *
 * Ownership: the pointers in `*out_info` belong to the snapshot, and live until
 *            etslock_locks_free.
 * Threads:   any thread, any number at once.
 * Blocks:    no.
 * Errors:    ETSLOCK_NOT_FOUND - `index` is not below etslock_locks_count.
 *            ETSLOCK_ERR_NULL - `locks` or `out_info` is NULL.
 *            ETSLOCK_ERR_STRUCT_SIZE - `out_info->struct_size` is too small.
 * Since:     0.1
 */
etslock_status etslock_locks_get(const etslock_locks *locks,
                                 size_t index,
                                 etslock_lock_info *out_info);

/**
 * Frees a snapshot of locks.
 *
 * Ownership: the snapshot and every pointer into it are gone; NULL is fine.
 * Threads:   any thread, not while another reads the snapshot.
 * Blocks:    no.
 * Since:     0.1
 */
void etslock_locks_free(etslock_locks *locks);

/**
 * Zeroes the counters of an etslock_stats and writes its struct_size.
 *
 * Call it as `etslock_stats_init(&stats, sizeof stats)`. With NULL, or a size without room for
 * struct_size, it does nothing.
 *
 * Threads:   any thread.
 * Blocks:    no.
 * Since:     0.1
 */
void etslock_stats_init(etslock_stats *stats, size_t size);

/**
 * The counters of a lock table, NULL being the one of the process.
 *
 * Bytes of `out_stats` that this release does not know stay as they are: zero, after
 * etslock_stats_init.
 *
 * Threads:   any thread.
 * Blocks:    no.
 * Errors:    ETSLOCK_ERR_NULL - `out_stats` is NULL.
 *            ETSLOCK_ERR_STRUCT_SIZE - `out_stats->struct_size` is too small.
 * Since:     0.1
 */
etslock_status etslock_lock_table_stats(etslock_lock_table *lock_table, etslock_stats *out_stats);

/**
 * Takes the lock of a key away from its holder.
 *
 * The holder's guard is revoked, for all its keys: its writes are refused from here on, its call
 * returns ETSLOCK_REVOKED, and the next waiter gets the lock. A commit of the holder that is under
 * way is waited for, and stands (C-8). The holder itself is not stopped.
 *
 * Threads:   any thread.
 * Blocks:    until a commit under way is finished, which runs no code of yours.
 * Errors:    ETSLOCK_NOT_FOUND - the key is not locked.
 *            ETSLOCK_ERR_NULL - `table` is NULL, or `key` with a length above 0.
 *            ETSLOCK_ERR_INVALID - `key_len` is past PTRDIFF_MAX.
 *            ETSLOCK_ERR_NO_MEMORY - no memory for a copy of the key.
 * Since:     0.1
 */
etslock_status etslock_lock_table_force_release(etslock_lock_table *lock_table,
                                                etslock_table *table,
                                                const void *key,
                                                size_t key_len);

/**
 * Takes the lock of a key away from the holder that has `token`, and from nobody else.
 *
 * As etslock_lock_table_force_release, for monitors: what was decided about a holder, by its token
 * in a snapshot, never hits a successor that got the key in between. Whether it is still the holder
 * is decided in one step with taking the lock away. A holder that waits for more keys has no token
 * yet.
 *
 * Threads:   any thread.
 * Blocks:    until a commit under way is finished, which runs no code of yours.
 * Errors:    ETSLOCK_NOT_FOUND - the key is not locked, or its holder has another token; `token` is
 *            0.
 *            ETSLOCK_ERR_NULL - `table` is NULL, or `key` with a length above 0.
 *            ETSLOCK_ERR_INVALID - `key_len` is past PTRDIFF_MAX.
 *            ETSLOCK_ERR_NO_MEMORY - no memory for a copy of the key.
 * Since:     0.2
 */
etslock_status etslock_lock_table_force_release_token(etslock_lock_table *lock_table,
                                                      etslock_table *table,
                                                      const void *key,
                                                      size_t key_len,
                                                      uint64_t token);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* ETSLOCK_H */
