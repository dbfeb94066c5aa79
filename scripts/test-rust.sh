#!/usr/bin/env bash
# Runs the Rust tests; counts every test. Each test program has two minutes.
set -u
. "$(dirname "$0")/results.sh"
results_begin rust

cargo_test() { cargo test --release --locked --no-fail-fast "$@"; }

host=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
export "CARGO_TARGET_${host}_RUNNER=timeout -k 5 120"

status=0
cargo_test >"$results_log" 2>&1 </dev/null || status=$?
passes=$(awk '/^test result:/ { n += $4 } END { print n + 0 }' "$results_log")
failures=$(awk '/^test result:/ { n += $6 } END { print n + 0 }' "$results_log")
# A build error, a crash or a timeout leaves no line of its own.
if [ "$status" -ne 0 ] && [ "$failures" -eq 0 ]; then failures=1; fi

[ "$passes" -eq 0 ] || record passed "$passes" "Rust tests"
[ "$failures" -eq 0 ] || { record failed "$failures" "Rust tests"; cat "$results_log"; }
printf '%s Rust tests passed, %s failed\n' "$passes" "$failures"
results_end
