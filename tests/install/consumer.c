/* consumer - the smallest program that an installed library must serve. */
#include <etslock.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(void)
{
    etslock_table *table = NULL;
    etslock_status status = etslock_table_new(NULL, &table);
    if (status == ETSLOCK_OK)
        status = etslock_table_insert(table, "key", 3, "value", 5);
    if (status == ETSLOCK_OK)
        status = etslock_table_member(table, "key", 3);
    etslock_table_free(table);

    printf("%s %s\n", etslock_version(), etslock_status_name(status));
    return status == ETSLOCK_OK && strcmp(etslock_version(), ETSLOCK_VERSION) == 0 ? EXIT_SUCCESS
                                                                                   : EXIT_FAILURE;
}
