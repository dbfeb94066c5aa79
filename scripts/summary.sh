#!/usr/bin/env bash
# Adds up build/results/*: names what failed, prints the counts, fails if a step failed or none ran.
set -u
cd "$(dirname "$0")/.." || exit 1

cat build/results/* 2>/dev/null | awk '
    { count[$1] += $2 }
    $1 == "failed" && $2 > 0 { print }
    END {
        if (count["skipped"]) printf "%d skipped\n", count["skipped"]
        printf "%d passed, %d failed\n", count["passed"], count["failed"]
        exit count["failed"] > 0 || count["passed"] == 0
    }'
