"""etslock_ffi.h as text: plain declarations, and those of every export.

Usage: declarations.py HEADER SYMBOLS
"""

import re
import sys


def main():
    header = open(sys.argv[1]).read()
    names = [line.split()[0] for line in open(sys.argv[2]) if line.strip() and line[0] != "#"]

    for unwanted in ("#", "/*", "*/", "//", "extern", "__", "inline", "static", '"'):
        assert unwanted not in header, f"{unwanted!r} is in the header"
    # A function stands on a line of its own, for those who take prototypes one by one.
    functions = re.findall(r"^[a-z][\w ]*\W(etslock_\w+)\([^()]*\);$", header, re.MULTILINE)
    assert sorted(functions) == sorted(names), set(functions) ^ set(names)
    assert re.search(r"^  ETSLOCK_OK = 0,$", header, re.MULTILINE)
    assert re.search(r"^  ETSLOCK_INFINITE = -1,$", header, re.MULTILINE)
    assert re.search(r"[^,]\n}", header) and not re.search(r",\s*}", header)
    assert header.count("{") == header.count("}")
    print(f"{len(functions)} functions")


main()
