#!/usr/bin/env bash
# Runs the Rust tests; counts every test. Each test program has two minutes.
set -u
. "$(dirname "$0")/results.sh"
results_begin rust
cargo_limit 120

cargo_tests "Rust tests" cargo test --release --locked --no-fail-fast
results_end
