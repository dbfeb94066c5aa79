#!/usr/bin/env bash
# Looks the dependencies up in the RustSec advisory database, which is a git repository. Its answer
# may change while the sources stay the same.
set -u
. "$(dirname "$0")/results.sh"
. "$root/scripts/rust-tools.sh"
results_begin advisories

needs_cargo_tool cargo-deny "$cargo_deny" || results_end
if cargo deny fetch db >"$results_log" 2>&1 </dev/null; then
    step "advisories" cargo deny --locked check advisories
else
    missing "the advisory database cannot be fetched"
fi
results_end
