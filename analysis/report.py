#!/usr/bin/env python3
"""Runs as one self-contained page: fleet, tax, policies, causes, timelines; with every figure's numbers beside it.

    report.py DIR [DIR...] [--out FILE] [--png]

Writes DIR/report.html (of several runs: the first DIR's) and figures/NAME.svg or .png and NAME.json beside it; of
several runs a folder of figures each, figures/RUN/. The numbers of a .json carry the factors that join them with
summary.json. What a study cannot show is said in a sentence, and so is what is missing of a run that did not finish.

Exit status: 0 done; 2 unusable input, in one line.
"""

import argparse
import json
import pathlib
import re
import sys

try:
    import h5py  # noqa: F401  (asked for here, so that its absence is one line)
    import matplotlib  # noqa: F401
    import numpy as np
    import pandas  # noqa: F401
    import scipy  # noqa: F401
except ImportError as error:
    sys.exit(f"report.py: {error}; Debian: python3-h5py python3-scipy python3-pandas python3-matplotlib")

from moevar import chapter, page, style
from moevar.figures import NotCarried, side_by_side
from moevar.study import StudyError, StudyFile

SVG_LIMIT = 1_000_000   # bytes; beyond it a picture of points says the same


class Writer:
    """Puts every figure into its folder, as picture and as numbers, and hands back its HTML."""

    def __init__(self, folder, prefix, as_png):
        self.folder, self.prefix, self.as_png = folder, prefix, as_png
        folder.mkdir(parents=True, exist_ok=True)
        for numbers in folder.glob("*.json"):   # of a report before: this one may draw fewer
            for ending in (".svg", ".png", ".json"):
                numbers.with_suffix(ending).unlink(missing_ok=True)

    def __call__(self, study, drawing):
        picture = style.png(drawing.figure) if drawing.raster or self.as_png else style.svg(drawing.figure)
        if isinstance(picture, str) and len(picture) > SVG_LIMIT:
            picture = style.png(drawing.figure)
        style.close(drawing.figure)
        stem = self.folder / drawing.name
        if isinstance(picture, str):
            stem.with_suffix(".svg").write_text(picture, encoding="utf-8")
        else:
            stem.with_suffix(".png").write_bytes(picture)
        command = chapter.command(study) if study else None
        numbers = {"name": drawing.name, "study": study.name if study else None, "title": drawing.title,
                   "caption": drawing.caption, "command": command, "numbers": drawing.numbers}
        stem.with_suffix(".json").write_text(_row_a_line(_plain(numbers)), encoding="utf-8")
        return page.figure(f"{self.prefix}figure-{drawing.name}", drawing.title, drawing.caption, picture, command)


def _row_a_line(figure):
    """A figure's numbers as JSON text, short and yet to be compared line by line."""
    lines = [f" {json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in figure.items()
             if key != "numbers"]
    rows = ",\n".join(f"  {json.dumps(row, allow_nan=False)}" for row in figure["numbers"])
    lines.append(f' "numbers": [\n{rows}\n ]' if rows else ' "numbers": []')
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _plain(value):
    """value as JSON can hold it: numpy's numbers and arrays as Python's, numbers that do not exist as null."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(part) for part in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value


def run_names(directories):
    """A short name for each run that is a file name and an anchor too, all different."""
    names = []
    for directory in directories:
        base = re.sub(r"[^A-Za-z0-9._-]+", "-", pathlib.Path(directory).resolve().name) or "run"
        name, count = base, 2
        while name in names:
            name, count = f"{base}-{count}", count + 1
        names.append(name)
    return names


def compare(runs, folder, as_png):
    """The first chapter of a report over several runs."""
    keep, figures, missing = Writer(folder, "", as_png), [], []
    for draw in (side_by_side.fleets, side_by_side.taxes):
        try:
            figures.append(keep(None, draw(runs)))
        except NotCarried as reason:
            missing.append(page.paragraph(str(reason), "missing"))
    links = "".join(f"<a href=\"#{page.text(name)}\">{page.text(f'{name}: {study.name}, {study.device}')}</a>"
                    for name, study in runs)
    return "\n".join([page.heading(1, f"{len(runs)} runs side by side"), f"<nav>{links}</nav>",
                      f"<div class=\"figures\">{''.join(figures)}</div>", *missing])


def write(studies, out, as_png=False):
    """The page of these open studies at this path, and its figures beside it."""
    folder = out.parent / "figures"
    names = run_names([study.directory for study in studies])
    if len(studies) == 1:
        body = chapter.build(studies[0], "", Writer(folder, "", as_png))
        title = f"moevar: {studies[0].name}"
    else:
        runs = list(zip(names, studies))
        parts = [compare(runs, folder, as_png)]
        parts += [chapter.build(study, f"{name}-", Writer(folder / name, f"{name}-", as_png)) for name, study in runs]
        body, title = "\n".join(parts), f"moevar: {', '.join(names)}"
    temporary = out.with_name(out.name + ".tmp")
    temporary.write_text(page.document(title, body), encoding="utf-8")
    temporary.replace(out)


def main():
    parser = argparse.ArgumentParser(prog="report.py", description=__doc__,
                                     formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("directories", metavar="DIR", nargs="+", help="a folder that `moevar run` has written")
    parser.add_argument("--out", type=pathlib.Path, help="the page; default DIR/report.html")
    parser.add_argument("--png", action="store_true",
                        help="every figure as PNG of 200 dpi, as results/reference keeps them")
    arguments = parser.parse_args()
    studies = []
    try:
        for directory in arguments.directories:
            studies.append(StudyFile.open(directory))
        out = arguments.out or studies[0].directory / "report.html"
        out.parent.mkdir(parents=True, exist_ok=True)
        write(studies, out, arguments.png)
    except StudyError as error:
        print(f"report.py: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"report.py: {error.filename}: {error.strerror}; a folder that can be written is needed", file=sys.stderr)
        return 2
    finally:
        for study in studies:
            study.close()
    print(out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
