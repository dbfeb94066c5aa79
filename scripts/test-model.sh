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
else
    missing "loom cannot be fetched"
fi
results_end
