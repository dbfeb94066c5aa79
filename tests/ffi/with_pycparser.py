"""etslock_ffi.h, taken by pycparser as it is, once it knows the fixed-width types.

Usage: with_pycparser.py HEADER
"""

import sys

from pycparser import c_ast, c_parser

TYPES = ("size_t", "uint8_t", "uint32_t", "uint64_t", "int32_t", "int64_t")
prelude = "".join(f"typedef int {name};\n" for name in TYPES)
tree = c_parser.CParser().parse(prelude + open(sys.argv[1]).read())
functions = [
    node.name
    for node in tree.ext
    if isinstance(node, c_ast.Decl) and isinstance(node.type, c_ast.FuncDecl)
]
assert "etslock_with_lock" in functions and "etslock_acquire_locks_across" in functions
print(len(functions), "functions")
