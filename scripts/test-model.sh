#!/usr/bin/env bash
# Runs the models: the state machines in every interleaving, under loom, and whole scenarios in many
# schedules, under shuttle; counts every model. What a model is worth: bugs are planted in what it
# runs, and it must find them.
set -u
. "$(dirname "$0")/results.sh"
results_begin model
cargo_limit 300

flags=${RUSTFLAGS:-}
builds=${CARGO_TARGET_DIR:-target}
host=$(rustc -vV | sed -n 's/^host: //p')

# with TOOL: a build of its own, beside the one without models. Nothing but the models uses the
# tool: offline, the rest may be there without it.
with() {
    export RUSTFLAGS="$flags --cfg $1" CARGO_TARGET_DIR=$builds/$1
    cargo fetch --quiet --locked --target "$host" >"$results_log" 2>&1 </dev/null && return
    missing "$1 cannot be fetched"
    return 1
}

models() { cargo test --release --locked --lib "$1"; }

finds() { # BUG MODEL
    ! PLANTED=$1 models "$2" || return 1
    grep -q "^test .*$2.* \.\.\.\|panicked" "$results_log"
}

# Reads lines BUG|MODEL.
find_all() {
    while IFS='|' read -r bug model; do
        step "$model finds: $bug" finds "$bug" "$model"
    done
}

if with loom; then
    cargo_tests "models" models model
    find_all <<'BUGS'
commit without looking|a_commit_races_with_the_deadline
commits are not waited for|a_commit_races_with_the_deadline
commits are not waited for|an_overdue_holder_races_with_its_heir
no wake-up|one_holder_at_a_time_and_the_waiter_is_woken
left in the queue|a_waiter_that_gives_up_leaves_no_trace
die without looking|those_who_only_look_change_nothing
wait without looking|closing_races_with_waiting
count without looking|it_ends_once_and_with_its_last_reference
alone without looking|alone_is_after_all_others
watch without a fence|who_watches_is_woken
abandon without a fence|becoming_an_owner_races_with_being_abandoned
sleep without looking|no_wake_up_is_lost
give up without looking|giving_up_races_with_the_end
retire without looking|retiring_races_with_the_next_call
go on without looking|the_next_call_does_not_meet_a_worker_that_ends
BUGS
fi

if with shuttle; then
    cargo_tests "scenarios" models scenario_model
    find_all <<'BUGS'
no wake-up|random_schedules
no wake-up|schedules_by_priority
left in the queue|random_schedules
commits are not waited for|schedules_by_priority
die without looking|random_schedules
token without looking|schedules_by_priority
BUGS
fi
results_end
