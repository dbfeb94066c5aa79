#!/usr/bin/env bash
# Writes build/share/doc/etslock/etslock.cdx.json: what is linked into the library, as CycloneDX.
set -u
. "$(dirname "$0")/results.sh"
. "$root/scripts/rust-tools.sh"
results_begin sbom
sbom=$stage/share/doc/etslock/etslock.cdx.json
copy=$stage/sbom

# cargo-cyclonedx writes beside Cargo.toml: hence the copy.
written() {
    rm -rf "$copy"
    mkdir -p "$copy" "$(dirname "$sbom")" &&
        cp -r Cargo.toml Cargo.lock build.rs src "$copy" &&
        cargo cyclonedx --quiet --manifest-path "$copy/Cargo.toml" --format json \
            --spec-version 1.5 --no-build-deps --override-filename crates &&
        scripts/sbom.py "$copy/crates.json" "$(rustc -vV | sed -n 's/^release: //p')" >"$sbom"
}

complete() {
    local name version listed=0 absent=0
    while read -r name version; do
        listed=$((listed + 1))
        grep -qF "\"purl\": \"pkg:cargo/$name@$version\"" "$sbom" && continue
        echo "absent: $name $version"
        absent=1
    done < <(scripts/linked.sh)
    [ "$listed" -gt 0 ] && [ "$absent" -eq 0 ]
}

needs python3 && needs_cargo_tool cargo-cyclonedx "$cargo_cyclonedx" || results_end
step "the SBOM is written" written
step "every crate that is linked is in it" complete
results_end
