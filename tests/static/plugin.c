/* plugin.c - a plug-in that contains the static library. See plugins.c. */
#include "plugin.h"

/* What a plug-in's own calls say: 0, or the line of the first that is wrong. */
int plugin_check(const char *name)
{
    etslock_table_options table_options;
    etslock_options options;
    etslock_table *table = NULL;
    etslock_guard *first = NULL, *second = NULL;
    etslock_tuples *found = NULL;
    size_t count = 0;

    etslock_table_options_init(&table_options, sizeof table_options);
    table_options.name = name;
    if (etslock_table_new(&table_options, &table) != ETSLOCK_OK)
        return __LINE__;
    etslock_options_init(&options, sizeof options);
    options.wait_timeout_ms = 0;
    if (etslock_acquire(table, "key", 3, &options, &first) != ETSLOCK_OK)
        return __LINE__;
    if (etslock_acquire(table, "key", 3, &options, &second) != ETSLOCK_WAIT_TIMEOUT)
        return __LINE__;
    if (etslock_guard_insert(first, "key", 3, name, 1) != ETSLOCK_OK)
        return __LINE__;
    if (etslock_guard_release(first) != ETSLOCK_OK)
        return __LINE__;
    if (etslock_table_lookup(table, "key", 3, &found) != ETSLOCK_OK)
        return __LINE__;
    if (etslock_tuples_data(found, &count) == NULL || count != 1)
        return __LINE__;
    etslock_tuples_free(found);
    /* The table is left open: its name stays taken in this copy. */
    return 0;
}
