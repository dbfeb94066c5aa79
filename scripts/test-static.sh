#!/usr/bin/env bash
# Links the static library as its users may: beside another archive out of Rust, with every
# compiler and linker that is here, with and without link-time optimisation, and into plug-ins.
set -u
. "$(dirname "$0")/results.sh"
results_begin static-links
sources=$root/tests/static
directory=$stage/tests/static-links
rm -rf "$directory"
mkdir -p "$directory"
library=$stage/lib/libetslock.a
read -ra system < <(sed -n 's/^Libs.private: //p' "$stage/lib/pkgconfig/etslock.pc")
flags=(-std=c99 -D_POSIX_C_SOURCE=200809L -O1 -g -Wall -Wextra -Werror -pthread "-I$stage/include")

# With `fat`, an archive carries other symbols of Rust's library than without.
for lto in off fat; do
    step "another archive out of Rust, lto=$lto" rustc --edition 2024 --crate-type staticlib \
        -C opt-level=2 -C lto=$lto -C panic=unwind --crate-name neighbour \
        "$sources/neighbour.rs" -o "$directory/libneighbour-$lto.a"
done

links() { # COMPILER LINKER NAME FLAG...
    local compiler=$1 linker=$2 name=$3 lto
    shift 3
    for lto in off fat; do
        step "beside an archive of lto=$lto, $compiler, $linker$name" \
            linked_and_run "$compiler" "$linker" "$directory/libneighbour-$lto.a" "$@"
    done
}

# linked_and_run COMPILER LINKER NEIGHBOUR FLAG...: in both orders of the archives.
linked_and_run() {
    local compiler=$1 linker=$2 neighbour=$3 program=$directory/neighbours archives
    shift 3
    for archives in "$library $neighbour" "$neighbour $library"; do
        rm -f "$program"
        # shellcheck disable=SC2086  # two words on purpose
        "$compiler" "${flags[@]}" "-fuse-ld=$linker" "$@" "$sources/neighbours.c" $archives \
            "${system[@]}" -o "$program" || return 1
        timeout -k 5 60 "$program" || return 1
    done
}

for compiler in gcc clang; do
    needs $compiler || continue
    for linker in bfd gold lld; do
        needs ld.$linker || continue
        links $compiler $linker ""
        links $compiler $linker ", sections collected" -Wl,--gc-sections
        # Each compiler's intermediate code is read by its own plugin, and clang's by lld too.
        case $compiler.$linker in
        gcc.lld) ;;
        clang.bfd | clang.gold) [ ! -e "$(clang -print-file-name=LLVMgold.so)" ] ||
            links $compiler $linker ", -flto" -flto ;;
        *) links $compiler $linker ", -flto" -flto ;;
        esac
    done
done

# Each plug-in with a copy of its own, in a program that has the shared library.
plugins() {
    local number
    for number in 1 2; do
        gcc "${flags[@]}" -fPIC -shared "$sources/plugin.c" "$library" "${system[@]}" \
            -Wl,--exclude-libs,libetslock.a -o "$directory/plugin$number.so" || return 1
    done
    gcc "${flags[@]}" "$sources/plugins.c" -o "$directory/plugins" -L"$stage/lib" -letslock -ldl \
        -Wl,-rpath,"$stage/lib" &&
        timeout -k 5 60 "$directory/plugins" "$directory/plugin1.so" "$directory/plugin2.so"
}
step "two plug-ins and a program, a copy each" plugins
results_end
