#!/usr/bin/env bash
# Makes the static library out of the archive that cargo writes: static-library.sh ARCHIVE RESULT.
#
# Cargo's archive shows every symbol of Rust's standard library and of the crates. Beside another
# archive out of Rust that is two definitions of one name, or worse, one definition used by both.
# So all that the functions of exports/etslock.symbols need is linked into one object, in which
# every other name is local.
#
# - Groups (COMDAT) are dissolved: by their names, which stay the same in every archive out of
#   Rust, a linker would throw away one of two and leave ours without it.
# - Each function keeps a section of its own, so that a program may link with --gc-sections. It
#   is not done here: what `ld -r` leaves of .eh_frame then is not read alike by all linkers.
# - The compiler's intermediate code goes: older plugins of nm and ar give up on it. So does the
#   debug information, which is that of the standard library only.
set -euo pipefail
[ $# -eq 2 ] || { echo "usage: $0 ARCHIVE RESULT" >&2; exit 2; }
archive=$(realpath "$1")
mkdir -p "$(dirname "$2")"
result=$(realpath "$(dirname "$2")")/$(basename "$2")
cd "$(dirname "$0")/.."

LD=${LD:-ld} OBJCOPY=${OBJCOPY:-objcopy} AR=${AR:-ar}
for tool in "$LD" "$OBJCOPY" "$AR"; do
    command -v "$tool" >/dev/null || { echo "$0: $tool not found (binutils)" >&2; exit 1; }
done

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
sed 's/#.*//; /^[[:space:]]*$/d; s/ .*//' exports/etslock.symbols >"$scratch/names"

mapfile -t names <"$scratch/names"
"$LD" -r --force-group-allocation "${names[@]/#/--undefined=}" -o "$scratch/all.o" "$archive"
"$OBJCOPY" --keep-global-symbols="$scratch/names" --strip-debug \
    --remove-section=.llvmbc --remove-section=.llvmcmd "$scratch/all.o" "$scratch/etslock.o"
rm -f "$result"
"$AR" rcsD "$result" "$scratch/etslock.o"
