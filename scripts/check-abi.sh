#!/usr/bin/env bash
# Is the library what programs of release 0.1 were linked with? A client that was compiled against
# the header of 0.1 runs; and abidiff compares the library with a dump of 0.1, to which it may add.
#
# check-abi.sh dump LIBRARY.so: writes such a dump, of a library that was built with debug information.
set -u

dump() { # LIBRARY
    abidw --no-show-locs --no-comp-dir-path --no-corpus-path --no-elf-needed --no-architecture \
        --no-parameter-names --type-id-style hash "$1" | scripts/abi-prune.py
}

if [ "${1:-}" = dump ]; then
    cd "$(dirname "$0")/.." && dump "$2"
    exit
fi

. "$(dirname "$0")/results.sh"
results_begin abi
CC=${CC:-gcc}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

client_builds() {
    "$CC" -std=c99 -D_POSIX_C_SOURCE=200809L -Wall -Wextra -Werror -pthread -Itests/abi/0.1 \
        -Itests/c tests/abi/client.c -o "$scratch/client" -L"$stage/lib" -letslock \
        -Wl,-rpath,"$stage/lib"
}

client_calls_everything() {
    diff -u <(sed -n 's/^\(etslock_[a-z_]*\) 0\.1$/\1/p' exports/etslock.symbols) \
        <(nm -D --undefined-only "$scratch/client" | grep -o 'etslock_[a-z_]*' | LC_ALL=C sort)
}

client_runs() { timeout -k 5 60 "$scratch/client"; }

only_additions() {
    local built
    # The release build says nothing of types.
    built=$(cargo build --locked --lib --message-format=json-render-diagnostics --quiet |
        grep -o '"[^"]*/libetslock\.so"' | tail -n 1 | tr -d '"')
    dump "$built" >"$scratch/now.abi" && is_compatible "$scratch/now.abi"
}

is_compatible() { # DUMP
    abidiff --no-added-syms --suppressions tests/abi/grows.suppr tests/abi/0.1/libetslock.abi "$1"
}

# What the comparison is worth: an argument that is gone, and a field that became wider, are seen.
finds_breaks() {
    local old=tests/abi/0.1/libetslock.abi
    python3 - "$old" "$scratch" <<'END' || return
import re
import sys
text = open(sys.argv[1]).read()
function = re.search(r"<function-decl name=.etslock_table_member.*?</function-decl>", text, re.S)
fewer = re.sub(r"<parameter [^>]*/>", "", function[0], count=1)
open(sys.argv[2] + "/fewer.abi", "w").write(text.replace(function[0], fewer))
wider = text.replace('name="etslock_tuple" size-in-bits="256"',
                     'name="etslock_tuple" size-in-bits="320"')
assert fewer != function[0] and wider != text
open(sys.argv[2] + "/wider.abi", "w").write(wider)
END
    ! is_compatible "$scratch/fewer.abi" && ! is_compatible "$scratch/wider.abi"
}

step "a client of 0.1 compiles against its header" client_builds
step "it calls every function of 0.1" client_calls_everything
step "it runs with this library" client_runs
if needs python3 && needs abidw && needs abidiff; then
    step "abidiff finds breaks" finds_breaks
    step "abidiff finds additions only" only_additions
fi
results_end
