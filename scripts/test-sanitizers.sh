#!/usr/bin/env bash
# Runs the Rust tests and the C tests under a sanitizer: test-sanitizers.sh asan|tsan SOURCE...
# Needs the nightly toolchain. Builds into target/asan, target/tsan and build/tests/asan,
# build/tests/tsan. Before the tests, planted mistakes must be reported. A source that has
# "valgrind: skip (reason)" in its first lines is left out here too, as is one with its own kind there.
set -u
. "$(dirname "$0")/results.sh"
kind=$1
shift
results_begin "$kind"

case $kind in
asan) sanitizer=address ;;
tsan) sanitizer=thread ;;
*) echo "usage: $0 asan|tsan SOURCE..." >&2; exit 2 ;;
esac

target=x86_64-unknown-linux-gnu
if ! cargo +nightly --version >/dev/null 2>&1 ||
    ! libdir=$(rustc +nightly --print target-libdir --target $target 2>/dev/null); then
    printf 'skipped: no nightly toolchain (rustup toolchain install nightly)\n'
    [ "${STRICT:-}" = 1 ] && record failed 1 "$kind: no nightly toolchain"
    record skipped 1 "$kind: no nightly toolchain"
    results_end
fi

sources=$root/tests/sanitizers
directory=$stage/tests/$kind
cc=${CC:-gcc}
export CARGO_TARGET_DIR=$root/target/$kind
library=$CARGO_TARGET_DIR/$target/debug/libetslock
mkdir -p "$directory"

# The sanitizer's run-time has to be the one that fits rustc, in C programs too.
runtime=(-Wl,--whole-archive "$libdir/librustc-nightly_rt.$kind.a" -Wl,--no-whole-archive
    -Wl,--export-dynamic -lgcc_s -lutil -lrt -lpthread -lm -ldl -lresolv)
support=("$directory/support.o")
# crossbeam_sanitize: crossbeam-epoch frees as early as it may.
rustflags="-Zsanitizer=$sanitizer -Cunsafe-allow-abi-mismatch=sanitizer --cfg crossbeam_sanitize"

# The mangled name of a function of std.
std_symbol() { nm -D --defined-only "$libdir"/libstd-*.so | grep -o "_R[A-Za-z0-9_]*$1\$"; }

case $kind in
asan)
    # Uses of a returned function's stack are looked for where stacks are fake; on real ones, a
    # cancelled thread leaves marks that the next thread trips over (google/sanitizers#1399).
    export ASAN_OPTIONS=detect_leaks=1:detect_stack_use_after_return=1:allocator_may_return_null=1
    support+=(-Wl,--wrap=setrlimit -Wl,--wrap=pthread_create)
    names=()
    ;;
tsan)
    TSAN_OPTIONS=suppressions=$sources/tsan.supp:die_after_fork=0:allocator_may_return_null=1
    export TSAN_OPTIONS
    lock=$(std_symbol 3std3sys4sync5mutex5futex.*14lock_contended)
    once=$(std_symbol 3std3sys4sync4once5futex.*4Once4call)
    scope=$(std_symbol 3std6thread6scoped.*29decrement_num_running_threads)
    names=(-D "LOCK_CONTENDED=$lock" -D "ONCE_CALL=$once" -D "SCOPE_LEFT=$scope")
    std=(-Wl,--wrap="$lock" -Wl,--wrap="$once" -Wl,--wrap="$scope"
        -Wl,--wrap=__tsan_atomic64_fetch_sub)
    support+=("${std[@]}" -Wl,--wrap=nanosleep -Wl,--wrap=read)
    for argument in "$directory/support.o" "${std[@]}"; do
        rustflags+=" -Clink-arg=$argument"
    done
    ;;
esac
export RUSTFLAGS=$rustflags

compile() { # SOURCE PROGRAM
    rm -f "$2"
    "$cc" -std=c99 -D_POSIX_C_SOURCE=200809L -O1 -g -Wall -Wextra -fno-omit-frame-pointer \
        -fsanitize="$sanitizer" -pthread -Iinclude -c "$1" -o "$2.o" &&
        "$cc" "$2.o" -o "$2" "${support[@]}" "$library.a" "${runtime[@]}"
}

# reported PATTERN COMMAND...: fails unless the sanitizer finds what is planted.
reported() {
    local pattern=$1 output
    shift
    output=$("$@" 2>&1) && { echo "$output"; echo "not reported: $pattern"; return 1; }
    grep -q "$pattern" <<<"$output" && return
    echo "$output"
    return 1
}

planted() { # NAME PATTERN ARGUMENT...
    local name=$1 pattern=$2
    shift 2
    compile "$sources/$name.c" "$directory/$name" || { failed "$name (does not build)"; return; }
    step "$name $* is reported" reported "$pattern" timeout -k 5 120 "$directory/$name" "$@"
}

build() {
    "$cc" -O1 -g -Wall -Wextra "${names[@]}" -c "$sources/$kind.c" -o "$directory/support.o" &&
        cargo +nightly build --locked --lib --target "$target"
}

step "build" build
[ "$results_failed" -eq 0 ] || results_end

case $kind in
asan)
    planted planted_use_after_free heap-use-after-free
    planted planted_leak "detected memory leaks"
    ;;
tsan)
    planted planted_race "data race" two-keys
    step "planted_race one-key is clean" timeout -k 5 120 "$directory/planted_race" one-key
    ;;
esac

step "Rust tests" timeout -k 5 600 \
    cargo +nightly test --locked --lib --tests --target "$target"

export ETSLOCK_LIBRARY=$library.so ETSLOCK_TEST_SCALE=small
for source in "$@"; do
    name=$(basename "${source%.c}")
    reason=$(head -n 25 "$source" | sed -n "s/.*\(valgrind\|$kind\): skip (\([^)]*\)).*/\2/p" | head -n 1)
    if [ -n "$reason" ]; then
        printf 'skipped %s: %s\n' "$name" "$reason"
        record skipped 1 "$name under $kind: $reason"
    elif compile "$source" "$directory/$name"; then
        step "$name" timeout -k 5 300 "$directory/$name"
    else
        failed "$name (does not build)"
    fi
done
results_end
