#!/usr/bin/env bash
# Runs the chaos soak: soak.sh SECONDS [SEED]. First its controls: where a promise of the library is
# broken on purpose, the soak has to find just that.
set -u
. "$(dirname "$0")/results.sh"
seconds=$1 seed=${2:-}
soak=$stage/tests/soak/soak
results_begin soak

# finds PROMISE FINDING...: the soak with PROMISE broken names every FINDING; it ends when it does,
# which takes a second or two, and more on a busy machine.
finds() {
    local output finding
    output=$(timeout -k 5 240 "$soak" --broken "$1" 60 2>&1) && { echo "$output"; return 1; }
    shift
    for finding in "$@"; do
        grep "^FOUND .*: $finding: " <<<"$output" | head -n 1 | grep . ||
            { echo "$output"; echo "not found: $finding"; return 1; }
    done
}

if [ -x "$soak" ]; then
    step "control: no exclusion is found" finds exclusion "two holders" "lost update"
    step "control: no fence is found" finds fence "late write" "lost update"
    # shellcheck disable=SC2086  # no seed is no argument
    step "soak of $seconds s" timeout -k 5 $((seconds + 240)) "$soak" "$seconds" $seed
    [ "$results_failed" -ne 0 ] || cat "$results_log"
else
    failed "soak (does not build)"
fi
results_end
