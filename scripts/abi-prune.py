#!/usr/bin/env python3
"""abi-prune.py: from what abidw says of the library, keeps what C sees.

Reads abidw's XML, writes the exported functions and the types that they reach. Handles are opaque: of
those the name is kept, and nothing that lies behind.
"""

import sys
import xml.etree.ElementTree as ET

HANDLES = {"etslock_" + name for name in
           ("table", "tuples", "cursor", "guard", "lock_table", "locks", "stop", "completions")}


def main():
    corpus = ET.parse(sys.stdin).getroot()
    types = {}
    functions = {}
    for element in corpus.iter():
        if element.tag != "function-decl" and element.get("id"):
            # One of several equal ones is as good as another; a whole one is better than a name.
            known = types.get(element.get("id"))
            if known is None or known.get("is-declaration-only"):
                types[element.get("id")] = element
        elif element.get("elf-symbol-id", "").startswith("etslock_"):
            functions[element.get("elf-symbol-id")] = element

    kept = {}

    def keep(element):
        for part in element.iter():
            identity = part.get("type-id")
            if identity is None or identity in kept or identity not in types:
                continue
            found = types[identity]
            if found.tag == "class-decl":
                for unwanted in found.findall("member-function") + found.findall("member-type"):
                    found.remove(unwanted)
            if found.get("name") in HANDLES:
                found = ET.Element("class-decl", {
                    "name": found.get("name"), "is-struct": "yes", "visibility": "default",
                    "is-declaration-only": "yes", "id": identity})
            kept[identity] = found
            keep(found)

    for name in sorted(functions):
        keep(functions[name])

    pruned = ET.Element("abi-corpus", corpus.attrib)
    pruned.append(corpus.find("elf-function-symbols"))
    instructions = ET.SubElement(pruned, "abi-instr", {
        "address-size": "64", "path": "etslock", "language": "LANG_Rust"})
    for element in [kept[identity] for identity in sorted(kept)] + [
            functions[name] for name in sorted(functions)]:
        for part in element.iter():
            for where in ("filepath", "line", "column", "mangled-name"):
                part.attrib.pop(where, None)
        instructions.append(element)
    ET.indent(pruned)
    ET.ElementTree(pruned).write(sys.stdout, encoding="unicode")
    print()


main()
