#!/usr/bin/env bash
# Collects, in build/share/doc/etslock, the licences of what is linked into the library: whoever
# passes the library on owes them to those who get it.
set -u
. "$(dirname "$0")/results.sh"
results_begin third-party
doc=$stage/share/doc/etslock
rust=$(rustc --print sysroot)/share/doc/rust/COPYRIGHT-library.html
mkdir -p "$doc"

licence() { # NAME VERSION; all crates are to be had under MIT, says deny.toml
    local directory file
    directory=$(grep -o "\"manifest_path\":\"[^\"]*/$1-$2/Cargo.toml\"" <<<"$metadata" |
        sed 's/^"manifest_path":"\(.*\)\/Cargo.toml"$/\1/')
    for file in "$directory"/LICENSE-MIT "$directory"/LICENSE; do
        [ -e "$file" ] || continue
        printf '\n%s\n\n' "---- $1 $2 ----"
        cat "$file"
        grep -q 'Permission is hereby granted, free of charge' "$file" && return
    done
    echo "$1 $2: no MIT licence found" >&2
    return 1
}

crates() {
    local metadata linked name version
    metadata=$(cargo metadata --locked --format-version 1) && linked=$(scripts/linked.sh) || return
    [ -n "$linked" ] || return
    cat <<'END'
The library etslock contains code of the crates below, each under the licence that follows its name,
and of Rust's standard library, whose licences stand in rust-standard-library.html.
END
    while read -r name version; do licence "$name" "$version" || return; done <<<"$linked"
}

written() {
    crates >"$doc/third-party.new" && mv "$doc/third-party.new" "$doc/third-party.txt"
}

step "licences of the crates" written
if [ -e "$rust" ]; then
    step "licences of the standard library" cp "$rust" "$doc/rust-standard-library.html"
else
    missing "$rust not found"
fi
results_end
