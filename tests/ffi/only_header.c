/* only_header.c - etslock_ffi.h is C: with the fixed-width types it is all that a program needs. */
#include <stddef.h>
#include <stdint.h>

#include <etslock_ffi.h>

int main(void)
{
    etslock_table *table = NULL;
    etslock_status status = etslock_table_new(NULL, &table);
    etslock_table_free(table);
    return status == ETSLOCK_OK ? 0 : 1;
}
