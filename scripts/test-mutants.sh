#!/usr/bin/env bash
# Plants bugs, one at a time, into a copy of the sources, and runs what must see them. Who survives
# is a failure: of the tests. See tests/mutants/README.md.
#
#   test-mutants.sh all|few     MUTANTS="hold_* entry_*" selects by name,
#                               KILLERS="loom test" by what kills them
set -u
. "$(dirname "$0")/results.sh"
which=${1:-all}
case $which in few) results_begin mutants-few ;; *) results_begin mutants ;; esac
needs python3 || results_end

tree=$stage/mutants/tree
plain=$stage/mutants/target
# What the models are built on is there already where `make test-model` ran.
models=${CARGO_TARGET_DIR:-$root/target}
mkdir -p "$tree" "$plain"
unset RUSTFLAGS
mutate=("$root/scripts/mutate.py")

# WHY: not as it is released. Link time optimization of each would take longer than all the tests,
# and no bug in here depends on it.
cargo_quickly
# The plain tests are small: to build them takes longer than to run them. Without what `debug_assert`
# says, as in what is released: the tests are to see it by themselves.
export CARGO_PROFILE_DEV_DEBUG=0 CARGO_PROFILE_DEV_DEBUG_ASSERTIONS=false
export CARGO_TERM_COLOR=never
# A failure is enough: the rest of a program need not run.
export ETSLOCK_TEST_FIRST_FAILURE=1 RUST_BACKTRACE=0

limited() { timeout -k 5 "$limit" "$@"; }

# build KIND NAME: 0, or it does not build.
build() {
    local program=${2%% *}
    cd "$tree" || return
    case $1 in
    test) CARGO_TARGET_DIR=$plain cargo test --locked --lib --no-run ;;
    api) CARGO_TARGET_DIR=$plain cargo test --locked --test rust_api --no-run ;;
    loom | shuttle)
        RUSTFLAGS="--cfg $1" CARGO_TARGET_DIR=$models/$1 \
            cargo test --release --locked --lib --no-run ;;
    # Whether it agrees is the test itself.
    header | python) library ;;
    symbols) CARGO_TARGET_DIR=$plain MAKELEVEL=2 scripts/stage.sh ;;
    c | memory) library && make -s "build/tests/c99/$program" ;;
    static) library && make -s "build/tests/static/$program" ;;
    cpp) library && make -s "build/tests/cpp/$program" ;;
    esac
}

library() {
    CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_TARGET_DIR=$plain MAKELEVEL=2 scripts/stage.sh
}

# run KIND NAME: 0, or somebody has seen it.
run() {
    # A program, and one of its cases if it is not all of them.
    local -a program=()
    read -ra program <<<"$2"
    cd "$tree" || return
    export ETSLOCK_LIBRARY=$tree/build/lib/libetslock.so
    case $1 in
    test) CARGO_TARGET_DIR=$plain limited cargo test --locked --lib "$2" ;;
    api)
        CARGO_TARGET_DIR=$plain \
            limited cargo test --locked --test rust_api "$2" ;;
    loom | shuttle)
        RUSTFLAGS="--cfg $1" CARGO_TARGET_DIR=$models/$1 \
            limited cargo test --release --locked --lib "$2" ;;
    c) limited "build/tests/c99/${program[0]}" "${program[@]:1}" ;;
    static) limited "build/tests/static/${program[0]}" "${program[@]:1}" ;;
    cpp) limited "build/tests/cpp/${program[0]}" "${program[@]:1}" ;;
    memory)
        ETSLOCK_TEST_SCALE=small limited valgrind --quiet --error-exitcode=99 --fair-sched=yes \
            --leak-check=full "build/tests/c99/${program[0]}" "${program[@]:1}" ;;
    header) CARGO_TARGET_DIR=$plain cmp build/include/etslock.h include/etslock.h ;;
    symbols) CARGO_TARGET_DIR=$plain STRICT=1 limited scripts/check-symbols.sh ;;
    python) CARGO_TARGET_DIR=$plain limited scripts/test-ffi.sh ;;
    esac
}

# What is not broken passes, and something ran at all.
passes() { # KIND NAME
    build "$@" && run "$@" || return
    case $1 in
    test | api | loom | shuttle) grep -q '^test result: ok. [1-9]' "$results_log" ;;
    esac
}

dies() { # NAME KILLER MARKS
    local kind=${2%% *} name=${2#* } status=0
    "${mutate[@]}" plant "$tree" "$1" || return
    build "$kind" "$name" || { echo "it does not build"; return 1; }
    run "$kind" "$name" || status=$?
    case $status in
    0) echo "it survives: $2"; return 1 ;;
    124 | 137)
        case " $3 " in *" hangs="*) return 0 ;; esac
        echo "neither seen nor survived in $limit s: $2"
        return 1
        ;;
    esac
}

limit_of() { # MARKS
    limit=120
    case " $1 " in *" limit="*) limit=${1#*limit=} limit=${limit%% *} ;; esac
}

step "every mutant fits the sources" "${mutate[@]}" check
[ "$results_failed" -eq 0 ] || results_end

mutants=$("${mutate[@]}" list "${MUTANTS:-*}")
[ "$which" != few ] || mutants=$(grep '|[^|]*few=' <<<"$mutants")
if [ -n "${KILLERS:-}" ]; then
    mutants=$(grep -E "^[^|]*\|(${KILLERS// /|})( |\|)" <<<"$mutants")
fi
[ -n "$mutants" ] || { failed "no mutant is called ${MUTANTS:-*}"; results_end; }

# Sorted by what kills them: those of one kind build on each other's builds.
mutants=$(grep -v '|[^|]* equivalent$' <<<"$mutants" | sort -t '|' -k 2)
killers=$(cut -d '|' -f 2 <<<"$mutants" | sort -u)

"${mutate[@]}" plant "$tree" || { failed "the sources cannot be copied"; results_end; }
# Few: the rest of `make test` runs them without a bug.
[ "$which" != few ] || killers=
limit=300
unsound=
while read -r killer; do
    before=$results_failed results_failed=0
    step "without a bug: $killer" passes "${killer%% *}" "${killer#* }"
    [ "$results_failed" -eq 0 ] || unsound="$unsound|$killer|"
    results_failed=$((before | results_failed))
done < <(grep . <<<"$killers")

while IFS='|' read -r name killer marks; do
    case $unsound in *"|$killer|"*) failed "$name: what must kill it fails without it"; continue ;; esac
    limit_of "$marks"
    step "$name" dies "$name" "$killer" "$marks"
done <<<"$mutants"
results_end
