/* 05_acquire_release - a lock that outlives the function that took it.
 *
 * Shows: acquire and release without a callback; two keys under one guard; staged writes that
 *        appear together or, after a cancel, not at all.
 * Run:   make example-05        Prints: the balances after each transfer
 */
#include <etslock.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Takes both accounts; the library puts them in order, so two opposite transfers are safe. */
static etslock_status begin(etslock_table *table, const char *from, const char *to,
                            etslock_guard **out_guard)
{
    etslock_key keys[2] = {{from, strlen(from)}, {to, strlen(to)}};
    return etslock_acquire_locks(table, keys, 2, NULL, out_guard);
}

static etslock_status add(etslock_guard *guard, const char *account, long amount, long *out_balance)
{
    etslock_tuples *tuples = NULL;
    etslock_status status = etslock_guard_lookup(guard, account, strlen(account), &tuples);
    if (status != ETSLOCK_OK)
        return status;

    size_t count;
    memcpy(out_balance, etslock_tuples_data(tuples, &count)->value, sizeof *out_balance);
    etslock_tuples_free(tuples);
    *out_balance += amount;
    return etslock_guard_insert(guard, account, strlen(account), out_balance, sizeof *out_balance);
}

/* Release publishes both writes; cancel forgets them. Either ends the guard. */
static etslock_status finish(etslock_guard *guard, int agreed)
{
    return agreed ? etslock_guard_release(guard) : etslock_guard_cancel(guard);
}

static etslock_status transfer(etslock_table *table, const char *from, const char *to, long amount)
{
    etslock_guard *guard = NULL;
    etslock_status status = begin(table, from, to, &guard);
    if (status != ETSLOCK_OK)
        return status;

    long from_balance, to_balance;
    status = add(guard, from, -amount, &from_balance);
    if (status == ETSLOCK_OK)
        status = add(guard, to, amount, &to_balance);

    int agreed = status == ETSLOCK_OK && from_balance >= 0;
    etslock_status end = finish(guard, agreed);
    return status == ETSLOCK_OK ? end : status;
}

static long balance(etslock_table *table, const char *account)
{
    etslock_tuples *tuples = NULL;
    etslock_table_lookup(table, account, strlen(account), &tuples);

    size_t count;
    const etslock_tuple *tuple = etslock_tuples_data(tuples, &count);
    long balance = -1;
    if (count == 1)
        memcpy(&balance, tuple->value, sizeof balance);
    etslock_tuples_free(tuples);
    return balance;
}

int main(void)
{
    etslock_table *table = NULL;
    long hundred = 100, nothing = 0;

    if (etslock_table_new(NULL, &table) != ETSLOCK_OK ||
        etslock_table_insert(table, "ann", 3, &hundred, sizeof hundred) != ETSLOCK_OK ||
        etslock_table_insert(table, "bob", 3, &nothing, sizeof nothing) != ETSLOCK_OK)
        return EXIT_FAILURE;

    etslock_status first = transfer(table, "ann", "bob", 30);
    printf("30 sent:     ann %ld, bob %ld\n", balance(table, "ann"), balance(table, "bob"));
    etslock_status second = transfer(table, "ann", "bob", 80);
    printf("80 refused:  ann %ld, bob %ld\n", balance(table, "ann"), balance(table, "bob"));

    int as_expected = first == ETSLOCK_OK && second == ETSLOCK_OK &&
                      balance(table, "ann") == 70 && balance(table, "bob") == 30;
    etslock_table_free(table);
    return as_expected ? EXIT_SUCCESS : EXIT_FAILURE;
}
