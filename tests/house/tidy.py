#!/usr/bin/env python3
"""clang-tidy over the C++ files of src/ and kernels/ in a build folder's compile_commands.json. Tests and benchmarks are
held to the compiler's warnings and to .clang-format alone: GoogleTest's macros trip too many of clang-tidy's checks. Of
CUDA's files it sees the headers that host code includes: it does not take nvcc's options.

    tidy.py BUILD_DIR

A file is not looked at again while it, the headers of ours that it includes, its compiler options, .clang-tidy and
clang-tidy itself stay the same; the marks of clean files are kept under $XDG_CACHE_HOME/moevar-tidy.
"""

import concurrent.futures
import hashlib
import json
import os
import pathlib
import shlex
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "moevar-tidy"


def digest_of(entry, salt):
    """A hash of a file, of every header of ours that it includes, and of how it is compiled; the same in any clone."""
    words = shlex.split(entry["command"])
    if "ccache" in words[0]:
        words = words[1:]
    drop_next = False
    command = []
    for word in words:
        if drop_next:
            drop_next = False
        elif word in ("-o", "-MF", "-MT"):
            drop_next = True
        elif word not in ("-c", "-MD"):
            command.append(word)
    listed = subprocess.run(command + ["-MM"], cwd=entry["directory"], check=True, capture_output=True, text=True).stdout
    files = listed.replace("\\\n", " ").split(":", 1)[1].split()
    digest = hashlib.sha256(salt + " ".join(command).replace(str(ROOT), "").encode())
    for name in sorted(set(files)):
        digest.update(name.replace(str(ROOT), "").encode() + pathlib.Path(entry["directory"], name).read_bytes())
    return digest.hexdigest()


def check(entry, build, salt):
    mark = CACHE / digest_of(entry, salt)
    if mark.exists():
        return entry["file"], 0, ""
    run = subprocess.run(["clang-tidy", "-p", build, "--quiet", entry["file"]],
                         capture_output=True, text=True, cwd=ROOT)
    if run.returncode == 0:
        CACHE.mkdir(parents=True, exist_ok=True)
        mark.touch()
    return entry["file"], run.returncode, run.stdout


def main():
    build = os.path.abspath(sys.argv[1])
    entries = [e for e in json.load(open(os.path.join(build, "compile_commands.json")))
               if e["file"].startswith((f"{ROOT}/src/", f"{ROOT}/kernels/"))
               and not e["file"].endswith(("_test.cpp", "_bench.cpp", ".cu"))]
    if not entries:
        sys.exit("no files in compile_commands.json")
    version = subprocess.run(["clang-tidy", "--version"], check=True, capture_output=True).stdout
    salt = version + (ROOT / ".clang-tidy").read_bytes()
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for name, code, output in pool.map(lambda e: check(e, build, salt), entries):
            if code != 0:
                failed += 1
                print(f"{os.path.relpath(name, ROOT)}:\n{output}")
    print(f"clang-tidy: {len(entries)} files, {failed} with findings")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
