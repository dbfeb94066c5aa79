#!/usr/bin/env bash
# Runs built test programs one at a time: test-programs.sh KIND DIRECTORY SOURCE...
# One at a time because many of them measure time. NEEDS names a tool that built them.
set -u
. "$(dirname "$0")/results.sh"
kind=$1 directory=$2
shift 2
results_begin "$kind"
needs "${NEEDS:-true}" || results_end
export ETSLOCK_LIBRARY=$stage/lib/libetslock.so

for source in "$@"; do
    name=$(basename "${source%.*}")
    if [ -x "$directory/$name" ]; then
        step "$name" timeout -k 5 120 "$directory/$name"
    else
        failed "$name (does not build)"
    fi
done
results_end
