#!/usr/bin/env bash
# Fuzzes the C API for some time: fuzz.sh SECONDS. Before that, planted mistakes must be found. What
# the fuzzer learns goes to build/fuzz/corpus, an input that fails to build/fuzz/failures.
set -u
. "$(dirname "$0")/results.sh"
. "$root/scripts/fuzz-program.sh"
seconds=$1
results_begin fuzz

# The compiler refuses a declared function that is never called.
every_export_is_declared() {
    diff -u <(sed -n 's/^\(etslock_[a-z_]*\) .*/\1/p' exports/etslock.symbols) \
        <(sed -n 's/.*safe fn \(etslock_[a-z_]*\)(.*/\1/p' fuzz/src/api.rs | LC_ALL=C sort)
}

# reported MISTAKE PATTERN: fails unless the fuzzer finds what is planted.
reported() {
    local output
    output=$(PLANTED=$1 LEAKS=1 fuzzer -artifact_prefix="$failures/planted-" -runs=0 \
        "$corpus" 2>&1) &&
        { echo "$output"; echo "not reported: $2"; return 1; }
    grep -q "$2" <<<"$output" && { rm -f "$failures"/planted-*; return; }
    echo "$output"
    return 1
}

fuzz() { fuzzer -max_total_time="$seconds" -print_final_stats=1 "$learned" "$corpus"; }

# WHY a thousand inputs a process: a thread may get the number of one that ended before. The leak
# check takes it for that one, and what only it refers to for lost.
leaks_nothing() {
    local inputs i
    mapfile -t inputs < <(find "$learned" "$corpus" -type f)
    for ((i = 0; i < ${#inputs[@]}; i += 1000)); do
        LEAKS=1 fuzzer "${inputs[@]:i:1000}" || return
    done
}

step "every export is declared" every_export_is_declared
has_fuzzer || results_end
step "a wrong answer is reported" reported model "assertion .* failed"
step "a use after free is reported" reported freed heap-use-after-free
step "a leak is reported" reported leak "detected memory leaks"
step "$seconds seconds without a failure" fuzz
sed -n 's/^\(Done [0-9]* runs\).*/        \1/p' "$results_log"
step "nothing that was learned leaks" leaks_nothing
results_end
