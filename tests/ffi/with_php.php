<?php
// etslock_ffi.h, taken by FFI::cdef as it is.
//
// Usage: with_php.php HEADER LIBRARY
$ffi = FFI::cdef(file_get_contents($argv[1]), $argv[2]);

function check(int $status, int $wanted = 0): void
{
    global $ffi;
    if ($status !== $wanted) {
        $name = $ffi->etslock_status_name($status);
        throw new Exception(is_string($name) ? $name : FFI::string($name));
    }
}

function must(bool $good): void
{
    if (!$good) {
        throw new Exception('not as it should be');
    }
}

function new_table(): FFI\CData
{
    global $ffi;
    $table = $ffi->new('etslock_table *');
    check($ffi->etslock_table_new(null, FFI::addr($table)));
    return $table;
}

function value_of(FFI\CData $table, string $key): string
{
    global $ffi;
    $tuples = $ffi->new('etslock_tuples *');
    check($ffi->etslock_table_lookup($table, $key, strlen($key), FFI::addr($tuples)));
    $count = $ffi->new('size_t');
    $data = $ffi->etslock_tuples_data($tuples, FFI::addr($count));
    must($count->cdata === 1);
    $value = FFI::string($ffi->cast('char *', $data[0]->value), $data[0]->value_len);
    $ffi->etslock_tuples_free($tuples);
    return $value;
}

must($ffi->ETSLOCK_ERR_NOT_COVERED === 23 && $ffi->ETSLOCK_INFINITE === -1);
must($ffi->etslock_owner_none() === -1); // PHP's numbers are signed

$options = $ffi->new('etslock_options');
$ffi->etslock_options_init(FFI::addr($options), FFI::sizeof($options));
must($options->struct_size === FFI::sizeof($options));
must($options->wait_timeout_ms === 5000 && $options->commit_code === 0);

$accounts = new_table();
$orders = new_table();
$guard = $ffi->new('etslock_guard *');
check($ffi->etslock_acquire($accounts, 'k', 1, FFI::addr($options), FFI::addr($guard)));
check($ffi->etslock_guard_insert($guard, 'k', 1, 'from PHP', 8));
check($ffi->etslock_guard_insert($guard, 'l', 1, '', 0), $ffi->ETSLOCK_ERR_NOT_COVERED);
check($ffi->etslock_guard_release($guard));
must(value_of($accounts, 'k') === 'from PHP');

$key = $ffi->new('char[1]');
$key[0] = 'k';
$keys = $ffi->new('etslock_table_key[2]');
foreach ([$accounts, $orders] as $i => $table) {
    $keys[$i]->table = $table;
    $keys[$i]->key = $ffi->cast('void *', FFI::addr($key));
    $keys[$i]->key_len = 1;
}
check($ffi->etslock_acquire_locks_across($keys, 2, null, FFI::addr($guard)));
check($ffi->etslock_guard_insert_in($guard, $orders, 'k', 1, '7', 1));
check($ffi->etslock_guard_release($guard));
must(value_of($orders, 'k') === '7');
$ffi->etslock_table_free($accounts);
$ffi->etslock_table_free($orders);
echo "ok\n";
