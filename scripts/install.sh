#!/usr/bin/env bash
# install.sh install|uninstall: copies build/ to $DESTDIR$PREFIX, or removes what it copied.
# Reads PREFIX, LIBDIR, INCLUDEDIR, DESTDIR. Runs no cargo: root may have none.
set -euo pipefail
cd "$(dirname "$0")/.."

prefix=${PREFIX:-/usr/local}
libdir=${LIBDIR:-$prefix/lib}
includedir=${INCLUDEDIR:-$prefix/include}
dest=${DESTDIR:-}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
cmakedir=$libdir/cmake/etslock

fill() { # TEMPLATE TARGET
    # shellcheck disable=SC2016  # pkg-config expands it
    scripts/fill.sh "$1" "$prefix" "${libdir/#$prefix\//'${prefix}'/}" \
        "${includedir/#$prefix\//'${prefix}'/}" \
        "$(realpath -ms --relative-to="$cmakedir" "$includedir")" >"$2"
    chmod 644 "$2"
}

do_install() {
    install -d "$dest$libdir/pkgconfig" "$dest$includedir" "$dest$cmakedir"
    install -m 755 "build/lib/libetslock.so.$version" "$dest$libdir/"
    install -m 644 build/lib/libetslock.a "$dest$libdir/"
    ln -sfn "libetslock.so.$version" "$dest$libdir/libetslock.so.${version%%.*}"
    ln -sfn "libetslock.so.${version%%.*}" "$dest$libdir/libetslock.so"
    install -m 644 build/include/etslock.h build/include/etslock_ffi.h build/include/etslock.hpp \
        "$dest$includedir/"
    fill etslock.pc.in "$dest$libdir/pkgconfig/etslock.pc"
    fill cmake/etslockConfig.cmake.in "$dest$cmakedir/etslockConfig.cmake"
    fill cmake/etslockConfigVersion.cmake.in "$dest$cmakedir/etslockConfigVersion.cmake"
    echo "installed in $dest$prefix; \`ldconfig\` may be needed before programs find the library"
}

do_uninstall() {
    rm -f "$dest$libdir/libetslock.so.$version" "$dest$libdir/libetslock.so.${version%%.*}" \
        "$dest$libdir/libetslock.so" "$dest$libdir/libetslock.a" \
        "$dest$includedir/etslock.h" "$dest$includedir/etslock_ffi.h" \
        "$dest$includedir/etslock.hpp" \
        "$dest$libdir/pkgconfig/etslock.pc" "$dest$cmakedir/etslockConfig.cmake" \
        "$dest$cmakedir/etslockConfigVersion.cmake"
    [ ! -d "$dest$cmakedir" ] || rmdir "$dest$cmakedir"
}

case ${1:-} in
install) do_install ;;
uninstall) do_uninstall ;;
*) echo "usage: $0 install|uninstall" >&2; exit 2 ;;
esac
