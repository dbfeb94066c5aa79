-- etslock_ffi.h, taken by LuaJIT's ffi.cdef as it is.
--
-- Usage: with_luajit.lua HEADER LIBRARY
local ffi = require("ffi")

local header = assert(io.open(arg[1])):read("*a")
ffi.cdef(header)
local lib = ffi.load(arg[2])

local function check(status, wanted)
    if status ~= (wanted or 0) then
        error(ffi.string(lib.etslock_status_name(status)), 2)
    end
end

local function new_table()
    local table = ffi.new("etslock_table *[1]")
    check(lib.etslock_table_new(nil, table))
    return ffi.gc(table[0], lib.etslock_table_free)
end

local function value_of(table, key)
    local tuples = ffi.new("etslock_tuples *[1]")
    check(lib.etslock_table_lookup(table, key, #key, tuples))
    local count = ffi.new("size_t[1]")
    local data = lib.etslock_tuples_data(tuples[0], count)
    assert(count[0] == 1)
    local value = ffi.string(data[0].value, data[0].value_len)
    lib.etslock_tuples_free(tuples[0])
    return value
end

assert(lib.ETSLOCK_ERR_NOT_COVERED == 23 and lib.ETSLOCK_INFINITE == -1)
assert(lib.etslock_owner_none() == 0xFFFFFFFFFFFFFFFFULL)

local options = ffi.new("etslock_options")
lib.etslock_options_init(options, ffi.sizeof(options))
assert(options.struct_size == ffi.sizeof("etslock_options"))
assert(options.wait_timeout_ms == 5000 and options.commit_code == 0)

-- No callback: LuaJIT cannot be entered from another thread.
local accounts, orders = new_table(), new_table()
local guard = ffi.new("etslock_guard *[1]")
check(lib.etslock_acquire(accounts, "k", 1, options, guard))
check(lib.etslock_guard_insert(guard[0], "k", 1, "from Lua", 8))
check(lib.etslock_guard_insert(guard[0], "l", 1, "", 0), lib.ETSLOCK_ERR_NOT_COVERED)
check(lib.etslock_guard_release(guard[0]))
assert(value_of(accounts, "k") == "from Lua")

local key = "k"
local keys = ffi.new("etslock_table_key[2]", { { accounts, key, 1 }, { orders, key, 1 } })
check(lib.etslock_acquire_locks_across(keys, 2, nil, guard))
check(lib.etslock_guard_insert_in(guard[0], orders, "k", 1, "7", 1))
check(lib.etslock_guard_release(guard[0]))
assert(value_of(orders, "k") == "7")
print("ok")
