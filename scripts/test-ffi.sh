#!/usr/bin/env bash
# Runs the tests of the other languages against the shared library, and gives etslock_ffi.h to the
# parsers that it is made for.
set -u
. "$(dirname "$0")/results.sh"
results_begin ffi
CC=${CC:-gcc}
export ETSLOCK_LIBRARY=$stage/lib/libetslock.so PYTHONDONTWRITEBYTECODE=1
header=$stage/include/etslock_ffi.h
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

bounded() { timeout -k 5 120 "$@"; }

compiled_alone() {
    "$CC" -std=c99 -Wall -Wextra -Wpedantic -Werror -I"$stage/include" tests/ffi/only_header.c \
        -o "$scratch/only_header" -L"$stage/lib" -letslock -Wl,-rpath,"$stage/lib" &&
        bounded "$scratch/only_header"
}

has_module() { # MODULE
    python3 -c "import $1" 2>/dev/null && return
    missing "the Python module $1 is not there"
    return 1
}

step "etslock_ffi.h compiles as C" compiled_alone
if needs luajit; then
    step "etslock_ffi.h, LuaJIT" bounded luajit tests/ffi/with_luajit.lua "$header" "$ETSLOCK_LIBRARY"
fi
if needs php; then
    step "etslock_ffi.h, PHP" bounded php -d ffi.enable=1 tests/ffi/with_php.php "$header" \
        "$ETSLOCK_LIBRARY"
fi

needs python3 || results_end
step "etslock_ffi.h declares, and nothing else" \
    bounded python3 tests/ffi/declarations.py "$header" exports/etslock.symbols
if has_module cffi; then
    step "etslock_ffi.h, cffi" bounded python3 tests/ffi/with_cffi.py "$header" "$ETSLOCK_LIBRARY"
fi
if has_module pycparser; then
    step "etslock_ffi.h, pycparser" bounded python3 tests/ffi/with_pycparser.py "$header"
fi
for test in examples-ffi/python/test_*.py; do
    step "$test" bounded python3 "$test"
done
results_end
