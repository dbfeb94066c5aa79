/* tsan.c - what ThreadSanitizer cannot see by itself. Linked into every program that it watches.
 *
 * Rust's standard library comes compiled without instrumentation. Of its mutex and its once-cell
 * the fast paths are seen, because they are inlined into the code that uses them; a mutex that was
 * waited for, a cell's value, and the end of a scope of threads look like races. Here the slow
 * paths get the edges that belong there. So no suppression is needed, and a real race beside a
 * mutex is still found.
 *
 * The linker's --wrap leads here; LOCK_CONTENDED, ONCE_CALL and SCOPE_LEFT are the mangled names of std's
 * functions, whose arguments are taken as this version of the compiler passes them.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>

void __tsan_acquire(void *address);
void __tsan_release(void *address);

#define JOIN(a, b) a##b
#define NAME(a, b) JOIN(a, b)
#define REAL(name) NAME(__real_, name)
#define WRAP(name) NAME(__wrap_, name)

/* std::sys::sync::mutex::futex::Mutex::lock_contended(&self). The mutex begins with the word that
 * `unlock`, which is seen, swaps.
 */
void REAL(LOCK_CONTENDED)(void *mutex);
void WRAP(LOCK_CONTENDED)(void *mutex)
{
    REAL(LOCK_CONTENDED)(mutex);
    __tsan_acquire(mutex);
}

/* A `&mut dyn FnMut(&OnceState)` is its data and this table. */
struct methods {
    void *drop;
    size_t size, align;
    void (*call_once)(void *data, void *state);
    void (*call_mut)(void *data, void *state);
};

struct call {
    void *data;
    const struct methods *methods;
    void *once;
};

/* Others see that the cell is full only after this has returned. */
static void call_and_release(void *data, void *state)
{
    struct call *call = data;
    call->methods->call_mut(call->data, state);
    __tsan_release(call->once);
}

/* std::sys::sync::once::futex::Once::call(&self, ignore_poisoning, f). */
void REAL(ONCE_CALL)(void *once, bool ignore_poisoning, void *data, const struct methods *methods);
void WRAP(ONCE_CALL)(void *once, bool ignore_poisoning, void *data, const struct methods *methods)
{
    static const struct methods releasing = {NULL, sizeof(struct call), sizeof(void *),
                                             call_and_release, call_and_release};
    struct call call = {data, methods, once};
    REAL(ONCE_CALL)(once, ignore_poisoning, &call, &releasing);
    __tsan_acquire(once);
}

/* std::thread::scoped::ScopeData::decrement_num_running_threads(&self, panicked): a scope waits for
 * the last of its threads on a word of the data, wherever the compiler has put it.
 */
void REAL(SCOPE_LEFT)(void *scope, bool panicked);
void WRAP(SCOPE_LEFT)(void *scope, bool panicked)
{
    void **words = scope;
    __tsan_release(&words[0]);
    __tsan_release(&words[1]);
    __tsan_release(&words[2]);
    REAL(SCOPE_LEFT)(scope, panicked);
}

/* Who gives up the last reference to an Arc comes after all others by a fence behind its decrement,
 * which ThreadSanitizer does not understand. So the decrement itself does what the two do together.
 */
enum order { RELEASE = 3, ACQ_REL = 4 }; /* as ThreadSanitizer counts */

uint64_t REAL(__tsan_atomic64_fetch_sub)(volatile uint64_t *word, uint64_t less, int order);
uint64_t WRAP(__tsan_atomic64_fetch_sub)(volatile uint64_t *word, uint64_t less, int order)
{
    return REAL(__tsan_atomic64_fetch_sub)(word, less, order == RELEASE ? ACQ_REL : order);
}

/* A thread that is cancelled inside ThreadSanitizer's own version of a call is not watched any
 * more: what it does to mutexes and memory afterwards is taken for races. The tests cancel threads
 * in these two; glibc's other names for them lead past ThreadSanitizer.
 */
int __nanosleep(const struct timespec *time, struct timespec *left);
ssize_t __read(int file, void *bytes, size_t count);

int __wrap_nanosleep(const struct timespec *time, struct timespec *left)
{
    return __nanosleep(time, left);
}

ssize_t __wrap_read(int file, void *bytes, size_t count)
{
    return __read(file, bytes, count);
}
