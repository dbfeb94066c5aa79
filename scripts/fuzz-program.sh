# Sourced after results.sh: the fuzzer, built into target/fuzz. Needs Rust nightly and a C++ compiler.
. "$root/scripts/rust-tools.sh"

corpus=$root/fuzz/corpus/c_api
learned=$stage/fuzz/corpus
failures=$stage/fuzz/failures
mkdir -p "$corpus" "$learned" "$failures"

# AddressSanitizer, and the counters that guide the fuzzer, in the library too.
# crossbeam_sanitize: crossbeam-epoch frees as early as it may.
fuzz_flags="-Zsanitizer=address --cfg crossbeam_sanitize -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=3 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table"

# Fake stacks: on real ones, a cancelled thread leaves marks that the next thread trips over
# (google/sanitizers#1399). Leaks are looked for at the end, with LEAKS=1: after each input, what
# waits to be reclaimed would be taken for one.
fuzzer() {
    ASAN_OPTIONS=detect_leaks=${LEAKS:-0}:detect_stack_use_after_return=1 \
        "$program" -detect_leaks=0 -timeout=120 -max_len=300 -len_control=10 \
        -artifact_prefix="$failures/" "$@"
}

build_fuzzer() {
    RUSTFLAGS=$fuzz_flags cargo +nightly build --release --locked \
        --manifest-path fuzz/Cargo.toml --target "$target" --target-dir target/fuzz
}

# has_fuzzer: false when it cannot be built, which is counted.
has_fuzzer() {
    needs_toolchain nightly && needs "${CXX:-c++}" || return 1
    target=$(rustc +nightly -vV | sed -n 's/^host: //p')
    program=$root/target/fuzz/$target/release/c_api
    step "build" build_fuzzer
    [ "$results_failed" -eq 0 ]
}
