#!/usr/bin/env bash
# Fuzzes the C API for some time: fuzz.sh SECONDS. Needs Rust nightly and a C++ compiler. Builds into
# target/fuzz. Before that, planted mistakes must be found. What the fuzzer learns goes to
# build/fuzz/corpus, an input that fails to build/fuzz/failures.
set -u
. "$(dirname "$0")/results.sh"
seconds=$1
results_begin fuzz

has_nightly() { cargo +nightly --version >/dev/null 2>&1; }
if ! has_nightly && [ "${STRICT:-}" = 1 ]; then
    rustup toolchain install nightly --profile minimal >"$results_log" 2>&1 </dev/null
fi
has_nightly || { missing "no nightly toolchain (rustup toolchain install nightly)"; results_end; }
needs "${CXX:-c++}" || results_end

target=$(rustc +nightly -vV | sed -n 's/^host: //p')
export CARGO_TARGET_DIR=$root/target/fuzz
program=$CARGO_TARGET_DIR/$target/release/c_api
learned=$stage/fuzz/corpus
failures=$stage/fuzz/failures
mkdir -p "$learned" "$failures"

# AddressSanitizer, and the counters that guide the fuzzer, in the library too.
# crossbeam_sanitize: crossbeam-epoch frees as early as it may.
export RUSTFLAGS="-Zsanitizer=address --cfg crossbeam_sanitize -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=3 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table"

# Fake stacks: on real ones, a cancelled thread leaves marks that the next thread trips over
# (google/sanitizers#1399). Leaks are looked for once, at the end: after each input, what waits to be
# reclaimed would be taken for one.
export ASAN_OPTIONS=detect_leaks=1:detect_stack_use_after_return=1
fuzzer() {
    "$program" -detect_leaks=0 -timeout=120 -max_len=300 -len_control=10 \
        -artifact_prefix="$failures/" "$@"
}

build() {
    cargo +nightly build --release --locked --manifest-path fuzz/Cargo.toml --target "$target"
}

# The compiler warns of a declared function that is never called.
every_export_is_declared() {
    diff -u <(sed -n 's/^\(etslock_[a-z_]*\) .*/\1/p' exports/etslock.symbols) \
        <(sed -n 's/.*safe fn \(etslock_[a-z_]*\)(.*/\1/p' fuzz/src/api.rs | LC_ALL=C sort)
}

# reported MISTAKE PATTERN: fails unless the fuzzer finds what is planted.
reported() {
    local output
    output=$(PLANTED=$1 fuzzer -runs=0 fuzz/corpus/c_api 2>&1) &&
        { echo "$output"; echo "not reported: $2"; return 1; }
    grep -q "$2" <<<"$output" && return
    echo "$output"
    return 1
}

fuzz() { fuzzer -max_total_time="$seconds" -print_final_stats=1 "$learned" fuzz/corpus/c_api; }

step "every export is declared" every_export_is_declared
step "build" build
[ "$results_failed" -eq 0 ] || results_end
step "a wrong answer is reported" reported model "assertion .* failed"
step "a use after free is reported" reported freed heap-use-after-free
step "a leak is reported" reported leak "detected memory leaks"
step "$seconds seconds without a failure" fuzz
sed -n 's/^\(Done [0-9]* runs\).*/        \1/p' "$results_log"
results_end
