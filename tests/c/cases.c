/* cases.c - check.h itself: a program lists its cases, and runs the one that it is asked for. */
#include "check.h"

static const char *program;
static int ran_first, ran_second;

static void first(int number)
{
    CHECK(number == 1 || number == 2);
    ran_first += number;
}

static void second(void)
{
    CHECK(1);
    ran_second++;
}

/* What this program prints with `argument` and its exit status; "" for what is left out. */
static void run_with(const char *argument, const char *wanted, int wanted_status)
{
    char command[4096], output[4096];
    size_t length;
    int status;
    FILE *pipe;
    REQUIRE(snprintf(command, sizeof command, "'%s' %s 2>/dev/null", program, argument) <
            (int)sizeof command);
    REQUIRE((pipe = popen(command, "r")) != NULL);
    length = fread(output, 1, sizeof output - 1, pipe);
    output[length] = '\0';
    status = pclose(pipe);
    if (!CHECK(strcmp(output, wanted) == 0))
        fprintf(stderr, "    %s prints \"%s\"\n", argument, output);
    CHECK((status == 0) == (wanted_status == EXIT_SUCCESS));
}

static void everything(void)
{
    CASE("a list of the cases, each once, and nothing else");
    run_with("--list", "first(i)\nfirst(2)\nsecond()\neverything\n", EXIT_SUCCESS);
    CASE("one case, by its call or its function");
    run_with("second", "ran 0 1\n1 checks, 0 failed\n", EXIT_SUCCESS);
    run_with("'second()'", "ran 0 1\n1 checks, 0 failed\n", EXIT_SUCCESS);
    run_with("'first(2)'", "ran 2 0\n1 checks, 0 failed\n", EXIT_SUCCESS);
    run_with("first", "ran 5 0\n3 checks, 0 failed\n", EXIT_SUCCESS);
    CASE("a name that no case has");
    run_with("seco", "ran 0 0\n", EXIT_FAILURE);
    run_with("'second()x'", "ran 0 0\n", EXIT_FAILURE);
}

int main(int argc, char **argv)
{
    int i;
    (void)argc;
    program = argv[0];
    for (i = 1; i <= 2; i++)
        RUN(first(i));
    RUN(first(2));
    RUN(second());
    printf("ran %d %d\n", ran_first, ran_second);
    RUN_AS("everything", everything());
    if (check_runs_all())
        CHECK(ran_first == 5 && ran_second == 1);
    return check_report();
}
