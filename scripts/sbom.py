#!/usr/bin/env python3
"""sbom.py FILE RUST-VERSION: prints the SBOM of the crates in FILE, made fit to be passed on.

Adds Rust's standard library, which is linked too, and leaves out where the sources lay.
"""

import json
import os
import re
import sys

path, rust_version = sys.argv[1:]
with open(path, encoding="utf-8") as file:
    text = file.read()
text = text.replace(f"path+file://{os.path.dirname(path)}#", "")
text = re.sub(r"\?download_url=file://[^\"#]*", "", text)

sbom = json.loads(text)
std = {
    "type": "library",
    "bom-ref": f"rust-std@{rust_version}",
    "name": "rust-std",
    "version": rust_version,
    "description": "The Rust standard library",
    "scope": "required",
    "licenses": [{"expression": "MIT OR Apache-2.0"}],
    "purl": f"pkg:generic/rust-std@{rust_version}",
}
sbom["components"].append(std)
sbom["dependencies"].append({"ref": std["bom-ref"]})
library = sbom["metadata"]["component"]["bom-ref"]
for dependency in sbom["dependencies"]:
    if dependency["ref"] == library:
        dependency["dependsOn"].append(std["bom-ref"])

json.dump(sbom, sys.stdout, indent=2)
print()
