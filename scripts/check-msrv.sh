#!/usr/bin/env bash
# Builds the library with the oldest Rust that Cargo.toml promises to be enough.
set -u
. "$(dirname "$0")/results.sh"
. "$root/scripts/rust-tools.sh"
results_begin msrv
export CARGO_TARGET_DIR=$root/target/msrv

oldest=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
needs_toolchain "$oldest" || results_end
step "the library builds with Rust $oldest" cargo "+$oldest" build --release --locked --lib
results_end
