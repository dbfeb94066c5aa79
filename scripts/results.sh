# Sourced by the test scripts: runs steps, says how they ended, and counts them.
#
# Every kind of test writes build/results/KIND, a line "passed|failed|skipped COUNT NAME" a step;
# scripts/summary.sh adds the files up. Usage: results_begin KIND; step NAME COMMAND...;
# needs TOOL || exit; results_end.

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
root=$PWD
stage=$root/build
results_failed=0

results_begin() {
    mkdir -p "$stage/results" "$stage/logs"
    results_file=$stage/results/$1
    results_log=$stage/logs/$1.log
    : >"$results_file"
    printf '== %s\n' "$1"
}

# record passed|failed|skipped COUNT NAME
record() {
    printf '%s %s %s\n' "$1" "$2" "$3" >>"$results_file"
    if [ "$1" = failed ] && [ "$2" -gt 0 ]; then results_failed=1; fi
}

passed() { # NAME SECONDS
    if [ "$2" -gt 0 ]; then printf 'ok      %s (%s s)\n' "$1" "$2"; else printf 'ok      %s\n' "$1"; fi
    record passed 1 "$1"
}
failed() { printf 'FAILED  %s\n' "$1"; record failed 1 "$1"; }

# step NAME COMMAND...: one counted step; its output is shown only when it fails.
step() {
    local name=$1 status=0 start=$SECONDS
    shift
    # In a subshell, so that bash tells of a crash in the log.
    ("$@"; exit $?) >"$results_log" 2>&1 </dev/null || status=$?
    if [ "$status" -eq 0 ]; then
        passed "$name" "$((SECONDS - start))"
        return
    fi
    failed "$name (exit status $status$(status_note "$status"))"
    sed 's/^/        /' "$results_log"
}

status_note() {
    case $1 in
    124 | 137) echo ": out of time" ;;
    99) echo ": valgrind found an error" ;;
    134 | 139) echo ": crashed" ;;
    esac
}

# cargo_tests NAME COMMAND...: runs tests through cargo and counts each; shows the output if one
# failed.
cargo_tests() {
    local name=$1 status=0 passes failures
    shift
    "$@" >"$results_log" 2>&1 </dev/null || status=$?
    passes=$(awk '/^test result:/ { n += $4 } END { print n + 0 }' "$results_log")
    failures=$(awk '/^test result:/ { n += $6 } END { print n + 0 }' "$results_log")
    # A build error, a crash or a timeout leaves no line of its own.
    if [ "$status" -ne 0 ] && [ "$failures" -eq 0 ]; then failures=1; fi

    [ "$passes" -eq 0 ] || record passed "$passes" "$name"
    [ "$failures" -eq 0 ] || { record failed "$failures" "$name"; cat "$results_log"; }
    printf '%s %s passed, %s failed\n' "$passes" "$name" "$failures"
}

# cargo_limit SECONDS: the time that each test program has which cargo runs.
cargo_limit() {
    local host
    host=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
    export "CARGO_TARGET_${host}_RUNNER=timeout -k 5 $1"
}

# cargo_quickly: from here on cargo builds for one run or two, and not for release.
cargo_quickly() {
    export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
        CARGO_PROFILE_RELEASE_INCREMENTAL=true
}

# needs TOOL: false when it is missing.
needs() {
    command -v "$1" >/dev/null && return
    missing "$1 not found"
    return 1
}

# missing WHAT: tests cannot run for want of it, which STRICT=1 makes a failure.
missing() {
    printf 'skipped: %s\n' "$1"
    if [ "${STRICT:-}" = 1 ]; then record failed 1 "$1"; else record skipped 1 "$1"; fi
}

# A kind that ran nothing and skipped nothing has lost its tests.
results_end() {
    [ -s "$results_file" ] || failed "no test found"
    exit "$results_failed"
}
