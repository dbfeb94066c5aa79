#!/usr/bin/env bash
# Runs the tests of the other languages against the shared library.
set -u
. "$(dirname "$0")/results.sh"
results_begin ffi
export ETSLOCK_LIBRARY=$stage/lib/libetslock.so PYTHONDONTWRITEBYTECODE=1

needs python3 || results_end
for test in examples-ffi/python/test_*.py; do
    step "$test" timeout -k 5 120 python3 "$test"
done
results_end
