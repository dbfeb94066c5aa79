#!/usr/bin/env bash
# Fills a template: fill.sh FILE.in PREFIX LIBDIR INCLUDEDIR INCLUDE_FROM_CMAKE
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)

version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$root/Cargo.toml" | head -n 1)

# What `cargo rustc -- --print native-static-libs` names.
static_libs="-lgcc_s -lutil -lrt -lpthread -lm -ldl -lc"

sed -e "s|@VERSION@|$version|g" -e "s|@SONUMBER@|${version%%.*}|g" \
    -e "s|@STATIC_LIBS@|$static_libs|g" -e "s|@PREFIX@|$2|g" -e "s|@LIBDIR@|$3|g" \
    -e "s|@INCLUDEDIR@|$4|g" -e "s|@INCLUDE_FROM_CMAKE@|$5|g" "$1"
