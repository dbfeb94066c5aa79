#!/usr/bin/env bash
# Counts the instructions that fixed programs execute, under callgrind, and compares them with the
# committed table: a count does not depend on how busy the machine is. WRITE=1 writes the table anew.
set -u
. "$(dirname "$0")/results.sh"
results_begin instructions
needs valgrind || results_end

table=benches/INSTRUCTIONS.md
program=$stage/bench/etslock_instructions
# What a count may grow by, in percent, before the table has to be written anew, in the same commit.
allowed=3

# total WORK CALLS: all instructions of the process.
total() {
    valgrind --tool=callgrind --callgrind-out-file=/dev/null "$program" "$1" "$2" 2>&1 |
        sed -n 's/.*Collected : \([0-9]*\).*/\1/p'
}

# count WORK: instructions of one call. Two runs differ by what their calls cost.
count() {
    local few=$2 many=$3 less more
    less=$(total "$1" "$few")
    more=$(total "$1" "$many")
    [ -n "$less" ] && [ -n "$more" ] || return 1
    echo $(((more - less) / (many - few)))
}

works() { sed -n 's/.*{"\([a-z-]*\)", [a-z_]*, [A-Z0-9]*}.*/\1/p; s/.*}, *{"\([a-z-]*\)", [a-z_]*, [A-Z0-9]*}.*/\1/p' \
    <(grep -o '{"[a-z-]*", [a-z_]*, [A-Z0-9]*}' benches/etslock_instructions.c); }
listed() { sed -n "s/^| $1 | \([0-9]*\) |.*/\1/p" "$table" 2>/dev/null; }

compare() { # WORK COUNT
    local before
    before=$(listed "$1")
    [ -n "$before" ] || { echo "$1 has no row in $table: WRITE=1 make bench-instructions"; return 1; }
    echo "$1: $2, in the table $before"
    [ $(($2 * 100)) -le $((before * (100 + allowed))) ]
}

if [ "${WRITE:-}" = 1 ]; then
    {
        echo "# Instructions per call"
        echo
        echo "Counted by callgrind over a table of 1,000 keys of 8 bytes, through C; see"
        echo "\`benches/etslock_instructions.c\`. \`make bench-instructions\` fails when one grows by more than"
        echo "$allowed % and this table was not written anew, with \`WRITE=1 make bench-instructions\`."
        echo
        echo "| work | instructions |"
        echo "|---|---|"
    } >"$table.new"
fi
for work in $(works); do
    counted=$(count "$work" 2000 12000) || { failed "$work cannot be counted"; continue; }
    if [ "${WRITE:-}" = 1 ]; then
        echo "| $work | $counted |" >>"$table.new"
        passed "$work: $counted" 0
    else
        step "$work: $counted" compare "$work" "$counted"
    fi
done
[ "${WRITE:-}" != 1 ] || mv "$table.new" "$table"
results_end
