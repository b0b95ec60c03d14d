#!/usr/bin/env python3
"""The architecture's arrows: a room links rooms of lower floors alone, and cannot include those above it.

    arrows.py COMPILE_COMMANDS_JSON
"""

import json
import pathlib
import re
import shlex
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
FLOORS = [
    {"base"},
    {"system", "workload", "study", "stats"},
    {"burn", "checksum", "device_clock", "expert_ffn", "gating", "token_exchange", "placement", "timeline", "serving"},
    {"fleet", "exchange", "record"},
    {"conditions"},
    {"run"},
    {"cli"},
]
FLOOR = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}


def rooms_and_uses():
    """Every moevar_room(...) of the tree: name → rooms it links."""
    found = {}
    for path in list(ROOT.glob("src/*/CMakeLists.txt")) + list(ROOT.glob("kernels/**/CMakeLists.txt")):
        text = re.sub(r"#.*", "", path.read_text())
        for body in re.findall(r"moevar_room\(([^)]*)\)", text):
            words = body.split()
            uses = []
            if "USES" in words:
                for word in words[words.index("USES") + 1:]:
                    if word in ("SOURCES", "HEADERS", "LIBS", "PRIVATE_LIBS", "DIR"):
                        break
                    uses.append(word)
            found[words[0]] = uses
    return found


def main():
    found = rooms_and_uses()
    errors = [f"room {room} stands on no floor; tests/house/arrows.py lists them"
              for room in found if room not in FLOOR]
    arrows = 0
    for room, uses in found.items():
        for used in uses:
            arrows += 1
            if FLOOR.get(used, 99) >= FLOOR.get(room, -1):
                errors.append(f"{room} links {used}, which stands on no lower floor")

    # a wrong include does not build: base cannot see run
    entries = json.load(open(sys.argv[1]))
    entry = next(e for e in entries if e["file"].endswith("src/base/error.cpp"))
    words = shlex.split(entry["command"])
    words = words[1:] if "ccache" in words[0] else words
    flags = [w for w in words[1:] if w.startswith(("-I", "-std", "-D"))]
    for header, builds in (("base/error.hpp", True), ("run/runner.hpp", False)):
        run = subprocess.run([words[0], *flags, "-x", "c++", "-fsyntax-only", "-"],
                             input=f'#include "{header}"\n', text=True, capture_output=True)
        if (run.returncode == 0) != builds:
            errors.append(f"from base, {header} {'does not build' if builds else 'builds'}")

    for error in errors:
        print(error)
    print(f"{len(found)} rooms, {arrows} arrows, {len(errors)} wrong")
    sys.exit(1 if errors or len(found) < 10 else 0)


if __name__ == "__main__":
    main()
