/* planted_use_after_free.c - a mistake: tuples are read after they were freed.
 * AddressSanitizer must report it, or it watches nothing.
 */
#include <etslock.h>

#include <stdio.h>

int main(void)
{
    etslock_table *table = NULL;
    etslock_tuples *tuples = NULL;
    const etslock_tuple *tuple;
    size_t count = 0;
    if (etslock_table_new(NULL, &table) != ETSLOCK_OK ||
        etslock_table_insert(table, "k", 1, "v", 1) != ETSLOCK_OK ||
        etslock_table_lookup(table, "k", 1, &tuples) != ETSLOCK_OK)
        return 2;
    tuple = etslock_tuples_data(tuples, &count);
    etslock_tuples_free(tuples);
    printf("%u\n", tuple[0].value[0]);
    etslock_table_free(table);
    return 0;
}
