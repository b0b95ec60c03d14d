"""Where the analysis tests find the repository, its analysis package, what starts the program, and measured data."""

import os
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
sys.path.insert(0, str(ROOT / "analysis"))
sys.path.insert(0, str(ROOT / "tests" / "cli"))
os.environ.setdefault("MOEVAR", str(ROOT / "build" / "moevar"))  # ctest names it; by hand the release build
