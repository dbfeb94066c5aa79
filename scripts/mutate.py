#!/usr/bin/env python3
"""mutate.py: reads the mutants of tests/mutants/ and plants them into a copy of the sources.

mutate.py list PATTERN       a line for each: name, how it is killed, marks
mutate.py plant TREE [NAME]  makes TREE a copy of the sources with that mutant, or with none
mutate.py check              every mutant says what it must, and fits the sources

Only what differs is written, so that a build of TREE builds little.
"""

import fnmatch
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
MUTANTS = ROOT / "tests" / "mutants"
HEAD = {"Breaks", "Killer", "Few", "Hangs", "Limit", "Equivalent"}
KILLERS = {"test", "api", "loom", "shuttle", "c", "static", "cpp", "memory", "header", "symbols",
           "python"}


PARTS = {"<<<<": (None, "find"), "====": ("find", "replace"), ">>>>": ("replace", None)}


class Wrong(Exception):
    """A mutant that cannot be planted, and why."""


class Edit:
    """One place of one file: what stands there, and what is to stand there instead."""

    def __init__(self, path, inside):
        self.path, self.inside = path, inside
        self.find, self.replace = [], []

    def apply(self, text):
        """WHY: words and signs, not lines. What is only wrapped anew is still found."""
        start = 0
        find, new = "\n".join(self.find), "\n".join(self.replace).strip()
        if self.inside:
            start = text.find(self.inside)
            if start < 0:
                raise Wrong(f"{self.path} has no {self.inside!r}")
        tokens = re.findall(r"\w+|[^\w\s]", find)
        if not tokens:
            raise Wrong("nothing to find")
        pattern = re.compile(
            (r"\b" if tokens[0].isidentifier() else "")
            + r"\s*".join(map(re.escape, tokens))
            + (r"\b" if tokens[-1].isidentifier() else "")
        )
        found = list(pattern.finditer(text, start))
        if not found or (len(found) > 1 and not self.inside):
            raise Wrong(f"{self.path}: found {len(found)} times: {' '.join(tokens)}")
        return text[:found[0].start()] + new + text[found[0].end():]


class Mutant:
    """A file of tests/mutants/: fields, then edits."""

    def __init__(self, path):
        self.name = path.stem
        self.fields, self.edits = {}, []
        part = None
        for line in path.read_text(encoding="utf-8").splitlines():
            if part is None and not line.strip():
                continue
            if line in ("<<<<", "====", ">>>>"):
                edit = self.edits[-1] if self.edits else None
                before, after = PARTS[line]
                if part != before or edit is None:
                    raise Wrong(f"{line} out of place")
                part = after
            elif part:
                getattr(self.edits[-1], part).append(line)
            else:
                self._field(line)
        if part:
            raise Wrong("an edit without >>>>")
        self._complete()

    @classmethod
    def of_patch(cls, path):
        """A unified diff, whose hunks are edits; its line numbers count for nothing."""
        mutant = cls.__new__(cls)
        mutant.name, mutant.fields, mutant.edits = path.stem, {}, []
        file = None
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("# ") and not mutant.edits:
                mutant._field(line[2:])
            elif line.startswith("+++ "):
                file = line[4:].split("\t")[0].removeprefix("b/")
            elif line.startswith("@@ "):
                mutant.edits.append(Edit(file, ""))
            elif mutant.edits and not line.startswith(("--- ", "diff ", "index ", "\\")):
                if line[:1] in (" ", "-", ""):
                    mutant.edits[-1].find.append(line[1:])
                if line[:1] in (" ", "+", ""):
                    mutant.edits[-1].replace.append(line[1:])
        mutant._complete()
        return mutant

    def _complete(self):
        if not self.fields.get("Breaks"):
            raise Wrong("does not say what it breaks")
        if not self.edits:
            raise Wrong("changes nothing")
        if "Equivalent" not in self.fields:
            words = self.killer.split()
            alone = {"header", "symbols", "python"}
            if not words or words[0] not in KILLERS or (len(words) == 1) != (words[0] in alone):
                raise Wrong(f"no killer: {self.killer!r}")

    def _field(self, line):
        key, colon, value = line.partition(":")
        value = value.strip()
        if line.startswith(" ") and self.fields:
            last = list(self.fields)[-1]
            self.fields[last] += " " + line.strip()
        elif colon and key == "File":
            path, _, inside = value.partition(" at ")
            self.edits.append(Edit(path.strip(), inside.strip()))
        elif colon and key in HEAD and value:
            self.fields[key] = value
        else:
            raise Wrong(f"cannot be read: {line!r}")

    @property
    def killer(self):
        return self.fields.get("Killer", "")

    @property
    def marks(self):
        return " ".join(
            f"{key.lower()}={self.fields[key]}"
            for key in ("Few", "Hangs", "Limit")
            if key in self.fields
        ) + (" equivalent" if "Equivalent" in self.fields else "")

    def changed(self):
        """The files that it changes, with what they hold then."""
        texts = {}
        for edit in self.edits:
            text = texts.get(edit.path)
            if text is None:
                path = ROOT / edit.path
                if not path.is_file():
                    raise Wrong(f"there is no {edit.path}")
                text = path.read_text(encoding="utf-8")
            texts[edit.path] = edit.apply(text)
        return {path: text.encode() for path, text in texts.items()}


def files():
    return sorted([*MUTANTS.glob("*.mutant"), *MUTANTS.glob("*.patch")])


def named(path):
    try:
        return Mutant.of_patch(path) if path.suffix == ".patch" else Mutant(path)
    except (Wrong, KeyError) as error:
        raise Wrong(f"{path.stem}: {error}") from None


def all_mutants(pattern="*"):
    return [named(path) for path in files()
            if any(fnmatch.fnmatch(path.stem, one) for one in pattern.split())]


def sources():
    """What is tracked, and what is new: the work tree as it stands."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, check=False,
    )
    if listed.returncode == 0:
        return [name for name in listed.stdout.decode().split("\0") if name]
    left_out = {"build", "target", ".git"}
    files = (path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file())
    return [str(path) for path in files if path.parts[0] not in left_out]


def plant(tree, name):
    changed = {}
    for path in files():
        if name and path.stem == name:
            changed = named(path).changed()
    if name and not changed:
        raise Wrong(f"there is no {name}")
    wanted = set()
    for source in sources():
        path = ROOT / source
        if not path.is_file() or source.startswith(("tests/mutants/", "benches/results/")):
            continue
        wanted.add(source)
        content = changed.get(source) or path.read_bytes()
        copy = tree / source
        if copy.is_file() and copy.read_bytes() == content:
            continue
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(content)
        copy.chmod(path.stat().st_mode)
    for copy in tree.rglob("*"):
        here = copy.relative_to(tree)
        if copy.is_file() and here.parts[0] not in ("build", "target") and str(here) not in wanted:
            copy.unlink()


def check():
    wrong = 0
    for path in files():
        try:
            named(path).changed()
        except Wrong as error:
            wrong += 1
            print(f"{path.stem}: {error}")
    return wrong


def main():
    verb, *rest = sys.argv[1:]
    try:
        if verb == "list":
            for mutant in all_mutants(*rest):
                print(f"{mutant.name}|{mutant.killer}|{mutant.marks}")
        elif verb == "plant":
            plant(pathlib.Path(rest[0]), rest[1] if len(rest) > 1 else "")
        elif verb == "check":
            return 1 if check() else 0
    except Wrong as error:
        print(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
