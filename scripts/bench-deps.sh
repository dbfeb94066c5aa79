#!/usr/bin/env bash
# Installs what the peers of the benchmarks need, where apt-get and root are at hand.
set -u

packages=()
wanted() { [ -e "$1" ] || packages+=("$2"); }
wanted /usr/include/tbb/concurrent_hash_map.h libtbb-dev
wanted /usr/include/libcuckoo/cuckoohash_map.hh libcuckoo-dev
command -v g++ >/dev/null || packages+=(g++)
command -v python3 >/dev/null || packages+=(python3)

if [ ${#packages[@]} -eq 0 ]; then
    echo "every package is there"
elif [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq </dev/null &&
        apt-get install -y -qq --no-install-recommends "${packages[@]}" </dev/null
else
    echo "missing, and only root with apt-get can install: ${packages[*]}" >&2
    exit 1
fi
