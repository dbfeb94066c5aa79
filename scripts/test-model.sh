#!/usr/bin/env bash
# Runs the models: the state machines in every interleaving, under loom, and whole scenarios in many
# schedules, under shuttle; counts every model. What a model is worth show the bugs of tests/mutants/
# that it has to find.
set -u
. "$(dirname "$0")/results.sh"
results_begin model
cargo_limit 300
cargo_quickly

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

if with loom; then
    cargo_tests "models" models model
fi

if with shuttle; then
    cargo_tests "scenarios" models scenario_model
fi
results_end
