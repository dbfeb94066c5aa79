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
for library in libetslock.so libetslock.a; do
    step "$library is the same" cmp "$CARGO_TARGET_DIR/release/$library" "$stage/lib/$library"
done
results_end
