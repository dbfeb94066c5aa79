#!/usr/bin/env bash
# Builds the library and lays build/ out like an installed prefix: lib/, include/, pkg-config and
# CMake files. A file is replaced only when its content changed, so that make rebuilds little.
set -euo pipefail
cd "$(dirname "$0")/.."

# The recipes of `make` itself run at level 1; deeper ones only make sure that all is fresh.
quiet=()
[ "${MAKELEVEL:-0}" -le 1 ] || quiet=(--quiet)

messages=$(cargo build --release --locked --lib --message-format=json-render-diagnostics \
    "${quiet[@]}" </dev/null)

# Cargo says where it wrote; guessing would find the files of an earlier build.
artifact() { grep -o "\"[^\"]*/$1\"" <<<"$messages" | tail -n 1 | tr -d '"'; }
out_dir=$(grep '"reason":"build-script-executed"' <<<"$messages" | grep '/etslock-[0-9a-f]*/out"' |
    sed 's/.*"out_dir":"\([^"]*\)".*/\1/' | tail -n 1)

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
so=libetslock.so.$version
soname=libetslock.so.${version%%.*}

# place SOURCE TARGET: a running program keeps the file it has mapped, thanks to the rename.
place() {
    cmp -s "$1" "build/$2" && return
    mkdir -p "build/$(dirname "$2")"
    cp "$1" "build/$2.new"
    mv "build/$2.new" "build/$2"
}

fill() { # TEMPLATE TARGET
    mkdir -p build
    # shellcheck disable=SC2016  # pkg-config expands them
    scripts/fill.sh "$1" '${pcfiledir}/../..' '${prefix}/lib' '${prefix}/include' \
        ../../../include >build/filled
    place build/filled "$2"
    rm build/filled
}

place "$(artifact 'libetslock\.so')" "lib/$so"
scripts/static-library.sh "$(artifact 'libetslock\.a')" build/narrowed.a
place build/narrowed.a lib/libetslock.a
rm build/narrowed.a
place "$out_dir/etslock.h" include/etslock.h
place "$out_dir/etslock_ffi.h" include/etslock_ffi.h
place include/etslock.hpp include/etslock.hpp
ln -sfn "$so" "build/lib/$soname"
ln -sfn "$soname" build/lib/libetslock.so
fill etslock.pc.in lib/pkgconfig/etslock.pc
fill cmake/etslockConfig.cmake.in lib/cmake/etslock/etslockConfig.cmake
fill cmake/etslockConfigVersion.cmake.in lib/cmake/etslock/etslockConfigVersion.cmake
