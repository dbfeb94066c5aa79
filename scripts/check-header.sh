#!/usr/bin/env bash
# Compares include/etslock.h with the header that the sources give.
set -u
. "$(dirname "$0")/results.sh"
results_begin header

fresh() {
    diff -u include/etslock.h "$stage/include/etslock.h" && return
    echo "include/etslock.h is stale: run \`make header\`"
    return 1
}

step "include/etslock.h is fresh" fresh
results_end
