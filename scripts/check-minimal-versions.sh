#!/usr/bin/env bash
# Runs the Rust tests with the oldest versions of the direct dependencies that Cargo.toml allows, in
# a copy, so that Cargo.lock stays as it is. Only cargo's nightly can choose them.
set -u
. "$(dirname "$0")/results.sh"
. "$root/scripts/rust-tools.sh"
results_begin minimal-versions
cargo_limit 120
export CARGO_TARGET_DIR=$root/target/minimal-versions

needs_toolchain nightly || results_end
copy=$stage/minimal-versions
rm -rf "$copy"
mkdir -p "$copy"
tar -c --exclude=./build --exclude=target --exclude=./.git . | tar -x -C "$copy"
cd "$copy" || exit 1

step "the oldest versions go together" cargo +nightly update -Z direct-minimal-versions
[ "$results_failed" -eq 0 ] || results_end
cargo_tests "Rust tests" cargo test --locked --no-fail-fast
results_end
