#!/usr/bin/env bash
# Prints the crates that are linked into the library besides its own, a line "NAME VERSION" each.
set -euo pipefail
cd "$(dirname "$0")/.."

# The library itself is followed by its path, a crate named before by "(*)".
cargo tree --locked --edges normal,no-proc-macro --prefix none --format '{p}' </dev/null |
    sed -n 's/^\([^ ]*\) v\([^ ]*\)$/\1 \2/p' | LC_ALL=C sort -u
