#!/usr/bin/env bash
# Runs built test programs one at a time: test-programs.sh KIND DIRECTORY SOURCE...
# One at a time because many of them measure time. NEEDS names a tool that built them. With CASE
# in the environment, as in `make test-c CASE=two_threads`, that case only, wherever it is.
set -u
. "$(dirname "$0")/results.sh"
kind=$1 directory=$2
shift 2
results_begin "$kind"
needs "${NEEDS:-true}" || results_end
export ETSLOCK_LIBRARY=$stage/lib/libetslock.so

cases_of() { timeout -k 5 60 "$directory/$1" --list </dev/null 2>/dev/null; }
has_case() {
    cases_of "$1" | awk -v wanted="$CASE" '$0 == wanted || index($0, wanted "(") == 1' | grep -q .
}
each_lists_its_cases() {
    local source name without=0
    for source in "$@"; do
        name=$(basename "${source%.*}")
        [ ! -x "$directory/$name" ] || [ -n "$(cases_of "$name")" ] ||
            { echo "$name lists no case"; without=1; }
    done
    return $without
}

for source in "$@"; do
    name=$(basename "${source%.*}")
    if [ ! -x "$directory/$name" ]; then
        failed "$name (does not build)"
    elif [ -z "${CASE:-}" ]; then
        step "$name" timeout -k 5 120 "$directory/$name"
    elif has_case "$name"; then
        step "$name $CASE" timeout -k 5 120 "$directory/$name" "$CASE"
    fi
done
if [ -z "${CASE:-}" ]; then
    step "each lists its cases" each_lists_its_cases "$@"
elif [ ! -s "$results_file" ]; then
    missing "no program has a case $CASE"
fi
results_end
