/* plugins.c - plug-ins of one process that each contain the static library, in a program that
 * has the shared one: plugins PLUGIN...
 *
 * Each copy is a world of its own: it has its own names and lock tables, and works by itself. A
 * handle of one copy must not be given to another; nothing here does. */
#include "../c/check.h"

#include <dlfcn.h>

typedef int check_function(const char *name);

static check_function *load(const char *path)
{
    check_function *function = NULL;
    /* GLOBAL: the worst of neighbours, whose names all later ones are offered. */
    void *library = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
    if (library == NULL)
        fprintf(stderr, "%s\n", dlerror());
    REQUIRE(library != NULL);
    *(void **)&function = dlsym(library, "plugin_check");
    REQUIRE(function != NULL);
    return function;
}

int main(int argc, char **argv)
{
    etslock_table_options options;
    etslock_table *table = NULL;
    int i;

    CASE("C-1, C-14: copies of the library in one process, each by itself");
    REQUIRE(argc == 3);
    etslock_table_options_init(&options, sizeof options);
    options.name = "plugins";
    CHECK_STATUS(etslock_table_new(&options, &table), ETSLOCK_OK);
    for (i = 1; i < argc; i++)
        CHECK(load(argv[i])("plugins") == 0);
    CHECK_STATUS(etslock_table_new(&options, &table), ETSLOCK_EXISTS);
    return check_report();
}
