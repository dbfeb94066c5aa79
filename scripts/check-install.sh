#!/usr/bin/env bash
# Installs to two places, builds a program against each as a user would, runs it, uninstalls.
set -u
. "$(dirname "$0")/results.sh"
results_begin install
MAKE=${MAKE:-make}
CC=${CC:-gcc}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# A user's machine: nothing of the calling make, and nothing of another installation.
unset MAKEFLAGS MFLAGS PREFIX LIBDIR INCLUDEDIR DESTDIR LD_LIBRARY_PATH CMAKE_PREFIX_PATH
installer() { "$MAKE" --no-print-directory "$@"; }

prefix=$scratch/prefix
multiarch=(PREFIX=/opt/ets DESTDIR="$scratch/dest" LIBDIR=/opt/ets/lib/somewhere)
multiarch_lib=$scratch/dest/opt/ets/lib/somewhere

built_with_pkg_config() { # LIBRARY-DIRECTORY
    local flags
    flags=$(PKG_CONFIG_PATH=$1/pkgconfig pkg-config --cflags --libs etslock) &&
        echo "$flags" &&
        # shellcheck disable=SC2086  # several words on purpose
        "$CC" -std=c99 -Wall -Werror tests/install/consumer.c -o "$scratch/consumer" $flags &&
        LD_LIBRARY_PATH=$1 "$scratch/consumer"
}

built_with_cmake() { # LIBRARY-DIRECTORY
    rm -rf "$scratch/cmake"
    cmake -S tests/install -B "$scratch/cmake" -Detslock_DIR="$1/cmake/etslock" &&
        cmake --build "$scratch/cmake" && cd "$scratch/cmake" && ctest --output-on-failure
}

names_its_place() { # the .pc file of a package names the final place, not the package's
    grep -x 'prefix=/opt/ets' "$multiarch_lib/pkgconfig/etslock.pc" &&
        ! grep -F "$scratch" -r "$multiarch_lib/pkgconfig" "$multiarch_lib/cmake"
}

installed_headers() {
    diff <(ls "$prefix/include") <(printf '%s\n' etslock.h etslock.hpp etslock_ffi.h)
}

left_nothing() { # TREE
    ! find "$1" ! -type d -o -name '*etslock*' | grep .
}

step "make install PREFIX=..." installer install PREFIX="$prefix"
step "make install DESTDIR=... LIBDIR=..." installer install "${multiarch[@]}"
step "the .pc file names the final place" names_its_place
step "the headers for C, C++ and parsers" installed_headers
if needs pkg-config; then
    step "pkg-config, build/" built_with_pkg_config "$stage/lib"
    step "pkg-config, PREFIX" built_with_pkg_config "$prefix/lib"
    export PKG_CONFIG_SYSROOT_DIR=$scratch/dest
    step "pkg-config, DESTDIR" built_with_pkg_config "$multiarch_lib"
    unset PKG_CONFIG_SYSROOT_DIR
fi
if needs cmake; then
    step "CMake, build/" built_with_cmake "$stage/lib"
    step "CMake, PREFIX" built_with_cmake "$prefix/lib"
    step "CMake, LIBDIR" built_with_cmake "$multiarch_lib"
fi
step "make uninstall PREFIX=..." installer uninstall PREFIX="$prefix"
step "make uninstall DESTDIR=... LIBDIR=..." installer uninstall "${multiarch[@]}"
step "uninstall leaves nothing" left_nothing "$scratch/prefix"
step "uninstall leaves nothing in DESTDIR" left_nothing "$scratch/dest"
results_end
