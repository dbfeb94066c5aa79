/* planted_leak.c - a mistake: tuples are never freed.
 * LeakSanitizer must report it, or it watches nothing.
 */
#include <etslock.h>

#include <stddef.h>

static int look_and_forget(etslock_table *table)
{
    etslock_tuples *tuples = NULL;
    return etslock_table_lookup(table, "k", 1, &tuples) == ETSLOCK_OK;
}

int main(void)
{
    etslock_table *table = NULL;
    int i;
    if (etslock_table_new(NULL, &table) != ETSLOCK_OK ||
        etslock_table_insert(table, "k", 1, "v", 1) != ETSLOCK_OK)
        return 2;
    /* More than one, lest a register or a stale stack slot still points to it. */
    for (i = 0; i < 10; i++)
        if (!look_and_forget(table))
            return 2;
    etslock_table_free(table);
    return 0;
}
