#!/usr/bin/env bash
# Makes fuzz/corpus anew, from what is there and from what the fuzzer learned: few inputs that
# together reach every line which all of them reach.
set -u
. "$(dirname "$0")/results.sh"
. "$root/scripts/fuzz-program.sh"
results_begin fuzz-corpus

# WHY no counters: how often a line is reached is for the fuzzer to find out, from seeds that are few.
choose() {
    local chosen=$stage/fuzz/chosen
    rm -rf "$chosen"
    mkdir -p "$chosen"
    fuzzer -set_cover_merge=1 -use_counters=0 "$chosen" "$corpus" "$learned" || return
    rm -rf "$corpus"
    mv "$chosen" "$corpus"
}

has_fuzzer || results_end
step "choose" choose
printf '        %s inputs, %s bytes\n' "$(find "$corpus" -type f | wc -l)" \
    "$(cat "$corpus"/* | wc -c)"
results_end
