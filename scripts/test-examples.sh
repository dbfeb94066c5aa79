#!/usr/bin/env bash
# Runs the built examples: test-examples.sh DIRECTORY SOURCE...
# Each must print exactly examples-c/expected/NAME.txt and exit with 0.
set -u
. "$(dirname "$0")/results.sh"
directory=$1
shift
results_begin examples

as_expected() { # NAME
    local printed status=0
    printed=$(mktemp)
    timeout -k 5 120 "$directory/$1" >"$printed" || status=$?
    diff -u "examples-c/expected/$1.txt" "$printed" || status=1
    rm -f "$printed"
    return $status
}

for source in "$@"; do
    name=$(basename "${source%.*}")
    step "$name" as_expected "$name"
done
results_end
