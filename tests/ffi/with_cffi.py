"""etslock_ffi.h, taken by cffi as it is.

Usage: with_cffi.py HEADER LIBRARY
"""

import sys

from cffi import FFI

ffi = FFI()
ffi.cdef(open(sys.argv[1]).read())
lib = ffi.dlopen(sys.argv[2])


def check(status, wanted=0):
    assert status == wanted, ffi.string(lib.etslock_status_name(status)).decode()


def new_table():
    table = ffi.new("etslock_table **")
    check(lib.etslock_table_new(ffi.NULL, table))
    return table[0]


def value_of(table, key):
    tuples = ffi.new("etslock_tuples **")
    check(lib.etslock_table_lookup(table, key, len(key), tuples))
    count = ffi.new("size_t *")
    data = lib.etslock_tuples_data(tuples[0], count)
    assert count[0] == 1
    value = ffi.buffer(data[0].value, data[0].value_len)[:]
    lib.etslock_tuples_free(tuples[0])
    return value


@ffi.callback("etslock_callback", error=0)
def put(guard, tuples, tuple_count, user_data):
    assert tuple_count == 0
    check(lib.etslock_guard_insert(guard, b"k", 1, b"from Python", 11))
    return 1


@ffi.callback("etslock_callback", error=0, onerror=lambda *_: None)
def raises(guard, tuples, tuple_count, user_data):
    check(lib.etslock_guard_insert(guard, b"k", 1, b"half", 4))
    raise RuntimeError("half done")


assert lib.ETSLOCK_ERR_NOT_COVERED == 23 and lib.ETSLOCK_INFINITE == -1
assert lib.etslock_owner_none() == 2**64 - 1

accounts, orders = new_table(), new_table()
options = ffi.new("etslock_options *")
lib.etslock_options_init(options, ffi.sizeof("etslock_options"))
assert options.struct_size == ffi.sizeof("etslock_options") and options.wait_timeout_ms == 5000
options.commit_code = 1
result = ffi.new("etslock_result *")
check(lib.etslock_with_lock(accounts, b"k", 1, put, ffi.NULL, options, result))
assert result.code == 1 and value_of(accounts, b"k") == b"from Python"

# What a callback that raises returns publishes nothing.
check(
    lib.etslock_with_lock(accounts, b"k", 1, raises, ffi.NULL, options, result),
    lib.ETSLOCK_CALLBACK_FAILED,
)
assert value_of(accounts, b"k") == b"from Python"

keys = ffi.new("etslock_table_key[2]")
for named, table in zip(keys, (accounts, orders)):
    named.table, named.key, named.key_len = table, ffi.from_buffer(b"k"), 1
guard = ffi.new("etslock_guard **")
check(lib.etslock_acquire_locks_across(keys, 2, ffi.NULL, guard))
check(lib.etslock_guard_insert_in(guard[0], orders, b"k", 1, b"7", 1))
check(lib.etslock_guard_release(guard[0]))
assert value_of(orders, b"k") == b"7"
lib.etslock_table_free(accounts)
lib.etslock_table_free(orders)
print("ok")
