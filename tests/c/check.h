/* check.h - the few macros the C tests are written with, and time.
 *
 * A test program is one .c file with a `main` that ends with `return check_report();`.
 * CASE("C-2: a try-lock makes one attempt") names what follows; CHECK(expression) and
 * CHECK_STATUS(call, ETSLOCK_OK) count and go on; REQUIRE(expression) ends the program, and so
 * does WAIT_UNTIL(expression) if it does not come true. Safe to use from several threads.
 *
 * `main` calls each of its cases as RUN(function(arguments)), or RUN_AS("name", statement). Then
 * `program --list` prints their names and runs none, and `program NAME` runs one: the name is the
 * call as it is listed, or that of the function, for each call of it. What `main` does between is
 * done always; what needs that all cases have run stands under `if (check_runs_all())`. Arguments
 * that begin with a digit are the program's own: CHECK_NUMBER(otherwise) reads one.
 */
#ifndef ETSLOCK_TESTS_CHECK_H
#define ETSLOCK_TESTS_CHECK_H

#include <etslock.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

static const char *check_case = "(no case)";
static int check_failures; /* touched with the __atomic builtins only */
static int check_count;

static inline int check_that(int passed, const char *file, int line, const char *what)
{
    __atomic_fetch_add(&check_count, 1, __ATOMIC_RELAXED);
    if (!passed) {
        __atomic_fetch_add(&check_failures, 1, __ATOMIC_RELAXED);
        fprintf(stderr, "%s:%d: [%s] failed: %s\n", file, line, check_case, what);
        /* Who only asks whether anything fails need not wait for the rest. */
        if (getenv("ETSLOCK_TEST_FIRST_FAILURE") != NULL)
            _Exit(EXIT_FAILURE);
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

enum check_choice { CHECK_ALL, CHECK_LIST, CHECK_ONE };
static enum check_choice check_choice = CHECK_ALL;
static const char *check_argument; /* the program's first, or NULL */
static int check_ran, check_passed_over;
static FILE *check_list;

/* Before `main`, which need not hand on its arguments: the C library gives them here too. */
__attribute__((constructor)) static void check_choose(int argc, char **argv)
{
    check_argument = argc > 1 ? argv[1] : NULL;
    if (check_argument == NULL)
        return;
    if (strcmp(check_argument, "--list") == 0) {
        /* Whatever else the program prints is not part of the list. */
        check_choice = CHECK_LIST;
        check_list = fopen("/dev/stdout", "a");
        if (check_list == NULL || freopen("/dev/null", "w", stdout) == NULL)
            abort();
    } else if (check_argument[0] < '0' || check_argument[0] > '9') {
        check_choice = CHECK_ONE;
    }
}

/* `met` is the place's own: a call in a loop is one case, listed once. */
static inline int check_runs(const char *name, int *met)
{
    int is_new = !*met;
    size_t length;
    *met = 1;
    switch (check_choice) {
    case CHECK_LIST:
        if (is_new)
            fprintf(check_list, "%s\n", name);
        return 0;
    case CHECK_ONE:
        length = strlen(check_argument);
        if (strncmp(name, check_argument, length) == 0 &&
            (name[length] == '\0' || name[length] == '(')) {
            check_ran = 1;
            return 1;
        }
        check_passed_over = 1;
        return 0;
    default:
        return 1;
    }
}

static inline int check_runs_all(void)
{
    return check_choice == CHECK_ALL;
}

#define RUN_AS(name, ...)                                                                          \
    do {                                                                                           \
        static int check_met;                                                                      \
        if (check_runs((name), &check_met)) {                                                      \
            __VA_ARGS__;                                                                           \
        }                                                                                          \
    } while (0)
#define RUN(...) RUN_AS(#__VA_ARGS__, __VA_ARGS__)

/* The number that the program was given, as in `program 42`. */
#define CHECK_NUMBER(otherwise)                                                                    \
    (check_argument != NULL && check_choice == CHECK_ALL ? strtoull(check_argument, NULL, 0)       \
                                                         : (unsigned long long)(otherwise))

#define CASE(name) (check_case = (name))
#define CHECK(expression) check_that(!!(expression), __FILE__, __LINE__, #expression)
#define CHECK_STATUS(call, wanted) check_status((call), (wanted), __FILE__, __LINE__, #call)
#define REQUIRE(expression)                                                                        \
    do {                                                                                           \
        if (!CHECK(expression))                                                                    \
            abort();                                                                               \
    } while (0)

/* On the monotonic clock, as the library's deadlines. */
static inline int64_t now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static inline int64_t now_ms(void)
{
    return now_us() / 1000;
}

static inline void sleep_us(int64_t us)
{
    struct timespec pause;
    pause.tv_sec = (time_t)(us / 1000000);
    pause.tv_nsec = (long)(us % 1000000) * 1000;
    nanosleep(&pause, NULL);
}

static inline void sleep_ms(int64_t ms)
{
    sleep_us(ms * 1000);
}

/* What a test waits for comes soon, or never. */
#define HANGS_MS 20000

#define WAIT_UNTIL(expression)                                                                     \
    do {                                                                                           \
        int64_t check_end = now_ms() + HANGS_MS;                                                   \
        int check_met = !!(expression);                                                            \
        while (!check_met && now_ms() < check_end) {                                               \
            sleep_ms(1);                                                                           \
            check_met = !!(expression);                                                            \
        }                                                                                          \
        if (!check_that(check_met, __FILE__, __LINE__, #expression))                               \
            abort();                                                                               \
    } while (0)

/* Whether to do less of everything: valgrind is slow. */
static inline int is_small_scale(void)
{
    const char *scale = getenv("ETSLOCK_TEST_SCALE");
    return scale != NULL && strcmp(scale, "small") == 0;
}

static inline int check_report(void)
{
    int failures = __atomic_load_n(&check_failures, __ATOMIC_RELAXED);
    int count = __atomic_load_n(&check_count, __ATOMIC_RELAXED);
    if (check_choice == CHECK_LIST)
        return fclose(check_list) == 0 && failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
    if (check_passed_over && !check_ran) {
        fprintf(stderr, "no case is called \"%s\"; --list names them\n", check_argument);
        return EXIT_FAILURE;
    }
    printf("%d checks, %d failed\n", count, failures);
    return failures == 0 && count > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

#endif
