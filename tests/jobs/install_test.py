#!/usr/bin/env python3
"""cmake --install: the program, its jobs and its analysis work from another folder, without the repository."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

BUILD = os.environ["MOEVAR_BUILD"]


class Install(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dir = pathlib.Path(tempfile.mkdtemp(prefix="moevar-test-"))
        cls.addClassCleanup(shutil.rmtree, cls.dir, ignore_errors=True)
        first = cls.dir / "first"
        subprocess.run(["cmake", "--install", BUILD, "--prefix", first], check=True, stdout=subprocess.DEVNULL)
        # what a package manager does: the tree moves after it was installed
        cls.prefix = cls.dir / "opt/moevar"
        cls.prefix.parent.mkdir()
        first.rename(cls.prefix)
        cls.share = cls.prefix / "share/moevar"
        cls.work = cls.dir / "work"
        cls.work.mkdir()
        cls.environment = {key: value for key, value in os.environ.items() if not key.startswith("MOEVAR")}
        cls.environment.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", MOEVAR_PROGRESS="none")

    def run_here(self, *words):
        run = subprocess.run(list(map(str, words)), cwd=self.work, env=self.environment, capture_output=True, text=True,
                             timeout=120)
        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)
        return run.stdout

    def test_what_is_installed(self):
        there = {str(path.relative_to(self.prefix)) for path in self.prefix.rglob("*") if path.is_file()}
        for name in ("bin/moevar", "share/moevar/jobs/workstation.sh", "share/moevar/jobs/slurm/one-node.sbatch",
                     "share/moevar/jobs/studies/quickstart.toml", "share/moevar/analysis/report.py",
                     "share/moevar/results/README.md", "share/doc/moevar/LICENSE", "share/doc/moevar/README.md"):
            self.assertIn(name, there)
        self.assertFalse([name for name in there if name.endswith((".pyc", ".a", ".o"))])

    def test_a_study_and_its_report_from_another_folder(self):
        told = self.run_here("bash", self.share / "jobs/workstation.sh", "quickstart.toml", "--set", "study.repeats=1",
                             "--set", "phases.steps=4")
        self.assertIn(str(self.prefix / "bin/moevar"), told)
        out = self.work / "results/quickstart"
        self.assertTrue(json.loads((out / "summary.json").read_text())["complete"])
        self.run_here(sys.executable, self.share / "analysis/report.py", out)
        self.assertIn("<html", (out / "report.html").read_text())

    def test_the_program_needs_nothing_of_the_build(self):
        needs = subprocess.run(["ldd", self.prefix / "bin/moevar"], capture_output=True, text=True, check=True).stdout
        self.assertNotIn("not found", needs)
        self.assertNotIn(BUILD, needs)
        text = subprocess.run(["readelf", "-d", self.prefix / "bin/moevar"], capture_output=True, text=True).stdout
        self.assertNotIn(BUILD, text)


if __name__ == "__main__":
    unittest.main()
