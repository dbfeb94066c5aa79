"""What was measured on: machine, compilers, versions of the peers."""

import os
import pathlib
import platform
import re
import subprocess

HERE = pathlib.Path(__file__).resolve().parent


def first_line_of(*command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=HERE)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip().split("\n")[0]


def load():
    return " ".join(f"{number:.1f}" for number in os.getloadavg())


def processor():
    found = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    return found.group(1) if found else platform.machine()


def crates():
    """Versions of the Rust peers, as locked."""
    lock = (HERE / "peers-rust" / "Cargo.lock").read_text(encoding="utf-8")
    versions = dict(re.findall(r'name = "(.*)"\nversion = "(.*)"', lock))
    return ", ".join(f"{name} {versions.get(name, 'unknown')}"
                     for name in ("lockable", "dashmap", "scc", "flurry"))


def distribution():
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "unknown")
    except OSError:
        return "unknown"


def package(name):
    return f"{name} " + first_line_of("dpkg-query", "-W", "-f", "${Version}", name)


def describe():
    commit = first_line_of("git", "rev-parse", "--short", "HEAD")
    changed = first_line_of("git", "status", "--porcelain", "--", "../src", "../Cargo.toml")
    return {
        "library": f"commit {commit}" + (", with changes" if changed else ""),
        "processor": f"{os.cpu_count()} x {processor()}",
        "system": f"{distribution()}, {platform.system()} {platform.release()}, "
                  f"{platform.libc_ver()[0]} {platform.libc_ver()[1]}",
        "compilers": f"{first_line_of('rustc', '--version')}; {first_line_of('gcc', '--version')}",
        "peers": f"{package('libtbb-dev')}, {package('libcuckoo-dev')}, {crates()}",
        "date": first_line_of("date", "-u", "+%Y-%m-%d %H:%M UTC"),
        "load before": load(),
    }
