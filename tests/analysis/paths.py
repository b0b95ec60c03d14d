"""Where the analysis tests find the repository, its analysis package and measured data."""

import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
sys.path.insert(0, str(ROOT / "analysis"))
