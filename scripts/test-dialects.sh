#!/usr/bin/env bash
# Compiles, without running, what users compile: the headers alone and every C and C++ program, in
# each promised dialect, with gcc and clang; and what the C++ header must refuse.
set -u
. "$(dirname "$0")/results.sh"
results_begin dialects

flags=(-fsyntax-only -Wall -Wextra -Wpedantic -Werror -pthread -I "$stage/include" -I tests/c)

# header_alone COMPILER LANGUAGE DIALECT HEADER: included twice, as the first thing of a file.
header_alone() {
    printf '#include <%s>\n#include <%s>\nint main(void) { return 0; }\n' "$4" "$4" |
        "$1" -std="$3" "${flags[@]}" -x "$2" -
}

programs() { # COMPILER DIALECT FLAG-OR-FILE...
    local compiler=$1 dialect=$2
    shift 2
    "$compiler" -std="$dialect" "${flags[@]}" "$@"
}

for compiler in gcc clang; do
    needs $compiler || continue
    for dialect in c99 c11; do
        step "etslock.h alone, $dialect, $compiler" header_alone $compiler c $dialect etslock.h
        step "C tests, $dialect, $compiler" \
            programs $compiler $dialect -D_POSIX_C_SOURCE=200809L tests/c/*.c
        step "examples, $dialect, $compiler" programs $compiler $dialect examples-c/*.c
    done
done

for compiler in g++ clang++; do
    needs $compiler || continue
    for dialect in c++17 c++20; do
        [ $dialect = c++17 ] || header_alone $compiler c++ $dialect cstddef 2>/dev/null || continue
        for header in etslock.h etslock.hpp; do
            step "$header alone, $dialect, $compiler" header_alone $compiler c++ $dialect $header
        done
        step "C++ programs, $dialect, $compiler" programs $compiler $dialect tests/c/*.cpp
    done
    while read -r number name; do
        step "refused: $name, $compiler" scripts/test-refused.sh $compiler c++17 "$number"
    done < <(scripts/test-refused.sh)
done
results_end
