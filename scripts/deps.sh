#!/usr/bin/env bash
# Installs the tools that the tests use and that are missing, where apt-get and root are at hand.
set -u

packages=()
wanted() { command -v "$1" >/dev/null || packages+=("${@:2}"); }
wanted clang clang
wanted valgrind valgrind libc6-dbg # memcheck needs the symbols of the dynamic loader
wanted cmake cmake
wanted pkg-config pkg-config
wanted g++ g++
wanted python3 python3
wanted spin spin
wanted luajit luajit
wanted php php-cli
wanted abidw abigail-tools
python3 -c 'import cffi' 2>/dev/null || packages+=(python3-cffi)

if [ ${#packages[@]} -eq 0 ]; then
    echo "every tool is there"
elif [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq </dev/null &&
        apt-get install -y -qq --no-install-recommends "${packages[@]}" </dev/null
else
    echo "missing, and only root with apt-get can install: ${packages[*]}" >&2
    exit 1
fi
