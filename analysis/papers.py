#!/usr/bin/env python3
"""Papers' claims beside runs of jobs/studies/papers: one page, papers.html, and its numbers, papers.json.

    papers.py DIR --out FOLDER [--studies FOLDER]

DIR holds a folder per run, as jobs/papers.sh leaves them. For every claim: the paper's figure, ours with its interval,
a verdict that is computed from them, and why. Runs that are missing or not complete are named on the page.

Exit status: 0 done; 2 unusable input, in one line.
"""

import argparse
import datetime
import json
import pathlib
import re
import sys

try:
    import h5py  # noqa: F401  (asked for here, so that its absence is one line)
    import matplotlib  # noqa: F401
    import pandas  # noqa: F401
    import scipy  # noqa: F401
except ImportError as error:
    sys.exit(f"papers.py: {error}; Debian: python3-h5py python3-scipy python3-pandas python3-matplotlib")

from moevar import page
from moevar.papers import beyond, document, drawing, findings, gem, others, serving, slowed, vibe_kernels, vibe_layers
from moevar.papers.runs import Runs

STUDIES = pathlib.Path(__file__).resolve().parents[1] / "jobs" / "studies" / "papers"


def place(claim):
    """V1 before V2 before V10, ViBE before GEM before the others."""
    letters, number, part = re.fullmatch(r"([A-Z]+)([0-9]+)([a-z]*)", claim.identity).groups()
    return "VG".find(letters) % 3, letters, int(number), part


def claims():
    every = (*vibe_kernels.CLAIMS, *vibe_layers.CLAIMS, *serving.CLAIMS, *gem.CLAIMS, *slowed.CLAIMS, *others.CLAIMS)
    return sorted(every, key=place)


def command(inputs):
    """What makes the runs that are there, and this page of them."""
    traces = "TRACES=FOLDER " if any(row["files_read"] for row in inputs) else ""
    return f"{traces}bash jobs/papers.sh OUT && python3 analysis/papers.py OUT --out FOLDER"


def write(runs, out):
    """The page and its numbers in folder `out`."""
    found = [findings.find(claim, runs) for claim in claims()]
    inputs = runs.inputs()
    versions = sorted({row["moevar_version"] for row in inputs}) or ["none"]
    devices = sorted({row["device"] for row in inputs}) or ["none"]
    date = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d")
    left = document.Beyond(beyond.rows(runs), serving.frontier_rows(runs), slowed.rows(runs))
    figures = [figure for figure in (*drawing.frontiers(runs), drawing.scale(runs)) if figure]
    said = f"Device kind: {', '.join(devices)}. moevar {', '.join(versions)}. {date}. Made by: {command(inputs)}"
    body = document.body(found, runs, figures, left, inputs, said)
    provenance = {"devices": devices, "moevar": versions, "date": date, "command": command(inputs)}
    numbers = json.dumps(document.numbers(found, left, runs, inputs, provenance), indent=1, allow_nan=False)
    out.mkdir(parents=True, exist_ok=True)
    for name, text in (("papers.html", page.document("moevar: papers' claims", body)), ("papers.json", numbers + "\n")):
        temporary = out / (name + ".tmp")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(out / name)


def main():
    parser = argparse.ArgumentParser(
        prog="papers.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("directory", metavar="DIR", type=pathlib.Path, help="the folder with a folder per run")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder for papers.html and papers.json")
    parser.add_argument(
        "--studies", type=pathlib.Path, default=STUDIES, help="the folder with runs.txt and the study files"
    )
    arguments = parser.parse_args()
    if not arguments.directory.is_dir():
        print(
            f"papers.py: {arguments.directory}: no such folder; one that jobs/papers.sh has filled is needed",
            file=sys.stderr,
        )
        return 2
    if not (arguments.studies / "runs.txt").is_file():
        print(f"papers.py: {arguments.studies}: no runs.txt; the list of runs is needed", file=sys.stderr)
        return 2
    runs = Runs(arguments.directory, arguments.studies)
    try:
        write(runs, arguments.out)
    except OSError as error:
        print(f"papers.py: {error.filename}: {error.strerror}; a folder that can be written is needed", file=sys.stderr)
        return 2
    finally:
        runs.close()
    print(arguments.out / "papers.html")
    return 0


if __name__ == "__main__":
    sys.exit(main())
