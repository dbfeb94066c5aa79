/* check.h - the few macros the C tests are written with.
 *
 * A test program is one .c file with a `main` that ends with `return check_report();`.
 * CASE("C-2: a try-lock makes one attempt") names what follows; CHECK(expression) and
 * CHECK_STATUS(call, ETSLOCK_OK) count and go on; REQUIRE(expression) ends the program.
 * Safe to use from several threads.
 */
#ifndef ETSLOCK_TESTS_CHECK_H
#define ETSLOCK_TESTS_CHECK_H

#include <etslock.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *check_case = "(no case)";
static int check_failures; /* touched with the __atomic builtins only */
static int check_count;

static inline int check_that(int passed, const char *file, int line, const char *what)
{
    __atomic_fetch_add(&check_count, 1, __ATOMIC_RELAXED);
    if (!passed) {
        __atomic_fetch_add(&check_failures, 1, __ATOMIC_RELAXED);
        fprintf(stderr, "%s:%d: [%s] failed: %s\n", file, line, check_case, what);
    }
    return passed;
}

static inline int check_status(etslock_status got, etslock_status wanted, const char *file,
                               int line, const char *what)
{
    int passed = check_that(got == wanted, file, line, what);
    if (!passed)
        fprintf(stderr, "    got %s, wanted %s\n", etslock_status_name(got),
                etslock_status_name(wanted));
    return passed;
}

#define CASE(name) (check_case = (name))
#define CHECK(expression) check_that(!!(expression), __FILE__, __LINE__, #expression)
#define CHECK_STATUS(call, wanted) check_status((call), (wanted), __FILE__, __LINE__, #call)
#define REQUIRE(expression)                                                                        \
    do {                                                                                           \
        if (!CHECK(expression))                                                                    \
            abort();                                                                               \
    } while (0)

static inline int check_report(void)
{
    int failures = __atomic_load_n(&check_failures, __ATOMIC_RELAXED);
    int count = __atomic_load_n(&check_count, __ATOMIC_RELAXED);
    printf("%d checks, %d failed\n", count, failures);
    return failures == 0 && count > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

#endif
