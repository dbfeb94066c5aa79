#!/usr/bin/env bash
# Builds the libraries once more, from nothing, and compares them with those in build/: the same
# sources, toolchain and place have to give the same bytes.
set -u
. "$(dirname "$0")/results.sh"
results_begin reproducible
export CARGO_TARGET_DIR=$root/target/reproducible

rm -rf "$CARGO_TARGET_DIR"
step "the libraries are built again" cargo build --release --locked --lib
[ "$results_failed" -eq 0 ] || results_end
step "the static library is made of it" scripts/static-library.sh \
    "$CARGO_TARGET_DIR/release/libetslock.a" "$CARGO_TARGET_DIR/libetslock.a"
step "libetslock.so is the same" \
    cmp "$CARGO_TARGET_DIR/release/libetslock.so" "$stage/lib/libetslock.so"
step "libetslock.a is the same" cmp "$CARGO_TARGET_DIR/libetslock.a" "$stage/lib/libetslock.a"
results_end
