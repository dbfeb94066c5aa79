#!/usr/bin/env bash
# Compares exports/etslock.symbols with what the libraries show and the header declares, and the
# version of Cargo.toml with header and library.
set -u
. "$(dirname "$0")/results.sh"
results_begin symbols
export LC_ALL=C
CC=${CC:-gcc}
header=include/etslock.h
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

listed() { sed 's/#.*//; /^[[:space:]]*$/d' exports/etslock.symbols; }
names() { listed | cut -d ' ' -f 1; }
exported() { nm -D --defined-only "$stage/lib/libetslock.so" | awk '{ print $NF }' | sort; }
# The plugins of compilers that nm may load have nothing to read in this archive.
archived() { nm -g --defined-only "$stage/lib/libetslock.a" | awk 'NF == 3 { print $3 }' | sort; }
declared() { "$CC" -E -P "$header" | grep -oE '\betslock_[a-z0-9_]+ *\(' | tr -d ' (' | sort; }

# births: "name version" of each function, from the last "Since:" above it.
births() {
    awk '/^\/\*\*/ { since = "none" }
         /Since:/ { since = $NF }
         /^[a-z]/ && match($0, /etslock_[a-z0-9_]+\(/) {
             print substr($0, RSTART, RLENGTH - 1), since
         }' "$header" | sort
}

listed_in_order() { diff -u <(listed | sort -u) <(listed); }
library_exports_them() { diff -u <(names) <(exported); }
archive_shows_them() { diff -u <(names) <(archived); }
header_declares_them() { diff -u <(names) <(declared); }
header_dates_them() { diff -u <(listed) <(births); }

# versions: those of the header's macros and of the library, each once.
versions() {
    cat >"$scratch/version.c" <<'END'
#include <etslock.h>
#include <stdio.h>
int main(void)
{
    printf("%s\n%d.%d.%d\n%s\n", ETSLOCK_VERSION, ETSLOCK_VERSION_MAJOR, ETSLOCK_VERSION_MINOR,
           ETSLOCK_VERSION_PATCH, etslock_version());
    return 0;
}
END
    "$CC" -Iinclude "$scratch/version.c" -o "$scratch/version" -L"$stage/lib" -letslock \
        -Wl,-rpath,"$stage/lib" && "$scratch/version" | sort -u
}

versions_agree() { diff -u <(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml) <(versions); }
soname_fits() {
    local version
    version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
    readelf -d "$stage/lib/libetslock.so" | grep -F "soname: [libetslock.so.${version%%.*}]"
}

step "exports/etslock.symbols is in order" listed_in_order
step "the library exports exactly the listed symbols" library_exports_them
step "the static library shows exactly the listed symbols" archive_shows_them
step "the header declares exactly the listed symbols" header_declares_them
step "the header's \`Since:\` are the listed versions" header_dates_them
step "Cargo.toml, header and library have one version" versions_agree
step "the soname is the major version" soname_fits
results_end
