#!/usr/bin/env bash
# Compiles what tests/refused/hpp.txt lists: test-refused.sh COMPILER DIALECT NUMBER [bad|good].
# Without a number it prints those there are, each with its name.
#
# What is bad must fail, and for the reason given; what is good must compile without a warning.
set -eu
cd "$(dirname "$0")/.."
list=tests/refused/hpp.txt

field() { # NUMBER WORD
    awk -v number="$1" -v word="$2" '/^=/ { n++ } n == number && $1 == word {
        sub(/^[^ ]+ +/, ""); print }' "$list"
}

program() { # CODE
    cat <<CODE
#include <etslock.hpp>
#include <string>
template <typename T> void use(const T &) {}
void statement(etslock::table &table, etslock::lock_table &own, etslock::guard &guard);
void statement(etslock::table &table, etslock::lock_table &own, etslock::guard &guard)
{
    use(table), use(own), use(guard);
    $1
}
CODE
}

if [ $# -eq 0 ]; then
    awk '/^=/ { sub(/^= /, ""); print ++n, $0 }' "$list"
    exit
fi

compiler=$1 dialect=$2 number=$3
flags=(-fsyntax-only -std="$dialect" -Wall -Wextra -Wpedantic -Werror -pthread
    -I "${ETSLOCK_INCLUDE:-build/include}" -x c++ -)

program "$(field "$number" good)" | "$compiler" "${flags[@]}" ||
    { echo "does not compile: $(field "$number" good)"; exit 1; }
if output=$(program "$(field "$number" bad)" | "$compiler" "${flags[@]}" 2>&1); then
    echo "compiles: $(field "$number" bad)"
    exit 1
fi
grep -E "error:.*($(field "$number" says))" <<<"$output" ||
    { printf 'fails for another reason than "%s":\n%s\n' "$(field "$number" says)" "$output"; exit 1; }
