"""The runs that the page is made of: which there should be, which there are, and what they hold.

jobs/studies/papers/runs.txt lists them: name, study file, settings. A run is used when it is complete. `Runs.get` of
one that is not raises NotRun, whose text says what is wrong with it; whoever asks names it on the page.
"""

import hashlib
import json
import pathlib
from dataclasses import dataclass, field

from moevar.study import StudyError, StudyFile

TRACES = "{traces}"


class NotRun(Exception):
    """A run that is missing, not complete or unreadable; the text says which and why, in a line."""


class LeftOut(NotRun):
    """A run on recorded loads that nobody asked for."""


@dataclass(frozen=True)
class Listed:
    name: str
    file: str
    settings: tuple

    @property
    def needs_traces(self):
        return any(TRACES in setting for setting in self.settings)


def listed(path):
    """[Listed] of a runs.txt."""
    runs = []
    for line in path.read_text(encoding="utf-8").splitlines():
        words = line.split()
        if words and not words[0].startswith("#"):
            runs.append(Listed(words[0], words[1], tuple(words[2:])))
    return runs


def _without_folder(setting):
    """section.key=value; of a path the file's name alone, for the folder is one machine's."""
    key, _, value = setting.partition("=")
    return f"{key}={value.rsplit('/', 1)[-1]}" if key.endswith(".path") else setting


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


@dataclass(eq=False)
class Run:
    """A complete run, open for reading. config: its study, every key; cells: summary.json's, of the study's own."""

    name: str
    folder: pathlib.Path
    study: StudyFile
    cells: list

    @property
    def config(self):
        return self.study.config

    def by_repeat(self, policy, **factors):
        """{repeat: cell} of a policy."""
        return {
            cell["repeat"]: cell
            for cell in self.cells
            if cell["policy"] == policy and all(cell.get(name) == value for name, value in factors.items())
        }

    def phases(self, policy=None, **factors):
        """{repeat: phase} of a policy; without one, of the first policy of each repeat."""
        found = {}
        for phase in self.study.phases:
            if (
                phase.natural
                and policy in (None, phase.policy)
                and all(getattr(phase, name) == value for name, value in factors.items())
            ):
                found.setdefault(phase.repeat, phase)
        return found

    def policies(self):
        return self.config["placement"]["policies"]


@dataclass(eq=False)
class Runs:
    """directory: a folder per run; studies: jobs/studies/papers."""

    directory: pathlib.Path
    studies: pathlib.Path
    _open: dict = field(default_factory=dict)

    def __post_init__(self):
        self.listed = listed(self.studies / "runs.txt")

    def get(self, name):
        if name not in self._open:
            try:
                self._open[name] = self._read(name)
            except NotRun as reason:
                self._open[name] = reason
        if isinstance(self._open[name], NotRun):
            raise self._open[name]
        return self._open[name]

    def _read(self, name):
        entry = next((entry for entry in self.listed if entry.name == name), None)
        if entry is None:
            raise NotRun(f"{name}: not in {self.studies.name}/runs.txt")
        folder = self.directory / name
        if not (folder / "study.h5").exists() or not (folder / "summary.json").exists():
            if entry.needs_traces:
                raise LeftOut(f"{name}: not run, for it needs recorded expert counts")
            raise NotRun(f"{name}: not run")
        try:
            study = StudyFile.open(folder)
        except StudyError as error:
            raise NotRun(f"{name}: unreadable ({error})") from None
        if not study.complete or study.summary is None:
            study.close()
            raise NotRun(f"{name}: not complete ({'; '.join(study.problems[:1]) or 'summary.json is damaged'})")
        cells = [cell for cell in study.summary["cells"] if not cell.get("even_load") and not cell.get("equal_fleet")]
        return Run(name, folder, study, cells)

    def missing(self):
        """(reasons of runs that should be there, reasons of those left out)."""
        missing, left_out = [], []
        for entry in self.listed:
            try:
                self.get(entry.name)
            except LeftOut as reason:
                left_out.append(str(reason))
            except NotRun as reason:
                missing.append(str(reason))
        return missing, left_out

    def present(self):
        """[(Listed, Run)] in the list's order."""
        found = []
        for entry in self.listed:
            try:
                found.append((entry, self.get(entry.name)))
            except NotRun:
                continue
        return found

    def inputs(self):
        """A row per run: what it was made of and what it left, with SHA-256."""
        rows = []
        for entry, run in self.present():
            manifest = self._manifest(run.folder)
            as_run = hashlib.sha256(manifest.get("study_text", "").encode()).hexdigest()
            file = self.studies / entry.file
            rows.append(
                {
                    "run": entry.name,
                    "study_file": entry.file,
                    "settings": [_without_folder(setting) for setting in manifest.get("overrides", [])],
                    "study_file_sha256": as_run,
                    "study_file_unchanged": file.exists() and sha256(file) == as_run,
                    "files_read": [
                        {"sha256": read.get("sha256"), "name": pathlib.Path(read.get("path", "")).name}
                        for read in manifest.get("inputs", [])
                    ],
                    "study_h5_sha256": sha256(run.folder / "study.h5"),
                    "summary_json_sha256": sha256(run.folder / "summary.json"),
                    "study_sha256": run.study.sha256,
                    "moevar_version": run.study.version,
                    "device": run.study.device,
                    "phases": len(run.study.phases),
                }
            )
        return rows

    @staticmethod
    def _manifest(folder):
        try:
            return json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}

    def close(self):
        for run in self._open.values():
            if isinstance(run, Run):
                run.study.close()
