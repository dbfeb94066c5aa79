#!/usr/bin/env bash
# Compares licences, versions and sources of the dependencies with deny.toml.
set -u
. "$(dirname "$0")/results.sh"
. "$root/scripts/rust-tools.sh"
results_begin deny

needs_cargo_tool cargo-deny "$cargo_deny" || results_end
for check in licenses bans sources; do
    step "$check" cargo deny --locked check "$check"
done
results_end
