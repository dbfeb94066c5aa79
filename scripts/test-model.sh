#!/usr/bin/env bash
# Runs the models: the state machines, in every interleaving, under loom; counts every model.
set -u
. "$(dirname "$0")/results.sh"
results_begin model
cargo_limit 300

# A build of its own, beside the one without models.
export RUSTFLAGS="${RUSTFLAGS:-} --cfg loom" CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/loom

# Nothing but the models uses loom: offline, the rest may be there without it.
host=$(rustc -vV | sed -n 's/^host: //p')
if cargo fetch --quiet --locked --target "$host" >"$results_log" 2>&1 </dev/null; then
    cargo_tests "models" cargo test --release --locked --lib model
    # What a model is worth: each of these bugs is planted in a machine, and must be found.
    finds() { # BUG MODEL
        ! PLANTED=$1 cargo test --release --locked --lib "$2" || return 1
        grep -q "^test .*$2.* \.\.\.\|panicked" "$results_log"
    }
    while IFS='|' read -r bug model; do
        step "$model finds: $bug" finds "$bug" "$model"
    done <<'BUGS'
commit without looking|a_commit_races_with_the_deadline
commits are not waited for|a_commit_races_with_the_deadline
commits are not waited for|an_overdue_holder_races_with_its_heir
no wake-up|one_holder_at_a_time_and_the_waiter_is_woken
left in the queue|a_waiter_that_gives_up_leaves_no_trace
die without looking|those_who_only_look_change_nothing
sleep without looking|no_wake_up_is_lost
give up without looking|giving_up_races_with_the_end
BUGS
else
    missing "loom cannot be fetched"
fi
results_end
