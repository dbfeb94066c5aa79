#!/usr/bin/env bash
# Runs built test programs under valgrind: test-memory.sh KIND DIRECTORY SOURCE...
# A source whose first lines hold "valgrind: skip (reason)" is left out. NEEDS names a
# tool that built the programs.
set -u
. "$(dirname "$0")/results.sh"
kind=$1 directory=$2
shift 2
results_begin "$kind"
needs valgrind && needs "${NEEDS:-true}" || results_end
export ETSLOCK_LIBRARY=$stage/lib/libetslock.so ETSLOCK_TEST_SCALE=small

# fair-sched: a thread that spins must not keep the one it waits for from running.
# Leaks are read from the log, which a fork's child does not write to: it has lost, rightly, what
# the other threads' stacks pointed to. Its other errors still end it with 99.
memcheck() {
    local status=0 log=$stage/logs/valgrind.log
    timeout -k 5 300 valgrind --quiet --fair-sched=try --error-exitcode=99 --leak-check=full \
        --show-leak-kinds=definite --errors-for-leak-kinds=none --child-silent-after-fork=yes \
        --log-file="$log" "$@" || status=$?
    cat "$log"
    if grep -q 'definitely lost' "$log"; then status=99; fi
    return $status
}

for source in "$@"; do
    name=$(basename "${source%.*}")
    reason=$(head -n 25 "$source" | sed -n 's/.*valgrind: skip (\([^)]*\)).*/\1/p' | head -n 1)
    if [ -n "$reason" ]; then
        printf 'skipped %s: %s\n' "$name" "$reason"
        record skipped 1 "$name under valgrind: $reason"
    elif [ -x "$directory/$name" ]; then
        step "$name" memcheck "$directory/$name"
    else
        failed "$name (does not build)"
    fi
done
results_end
