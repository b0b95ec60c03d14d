#!/usr/bin/env python3
"""A disk that fills up, turns read-only or goes away in the midst of a run: what was recorded stays, the run says what
happened and ends with status 3, and goes on from there once the disk is back."""

import pathlib
import shutil
import subprocess
import tempfile
import unittest

import h5py

from moevar_cli import SMALL, start
from resume_test import ResumeCase, Session, finished

OPTIONS = ("--set", "study.repeats=6", "--set", "phases.steps=512")


class Disk(ResumeCase):
    @classmethod
    def setUpClass(cls):
        folder = pathlib.Path(tempfile.mkdtemp(prefix="moevar-test-"))
        cls.addClassCleanup(shutil.rmtree, folder)
        (folder / "study.toml").write_text(SMALL)
        cls.whole = folder / "whole"
        run = start(["run", folder / "study.toml", "--out", cls.whole, *OPTIONS])
        if run.returncode:
            raise RuntimeError(run.stderr)

    def setUp(self):
        super().setUp()
        self.study = self.write("study.toml", SMALL)
        self.disk = self.dir / "disk"
        self.disk.mkdir()
        self.mount("-t", "tmpfs", "-o", "size=64m", "none", self.disk)
        self.addCleanup(subprocess.run, ["umount", "-l", self.disk], capture_output=True)
        self.out = self.disk / "out"

    def mount(self, *arguments):
        if subprocess.run(["mount", *map(str, arguments)], capture_output=True).returncode:
            self.skipTest("a file system cannot be mounted here")

    def run_until(self, harm):
        """Runs under two ranks until `harm` has been done to the disk; its only line about that."""
        session = Session(self.study, self.out, 2, *OPTIONS)
        session.wait_for_a_phase(more=3)
        harm()
        status, said = session.end()
        self.assertEqual(status, 3, said)
        self.assertEqual(len(said), 1, said)
        return said[0]

    def assert_goes_on(self):
        status, said = Session(self.study, self.out, 2, *OPTIONS).end(timeout=120)
        self.assertEqual(status, 0, said)
        self.assert_equal_runs(self.whole, self.out)

    def test_a_full_disk(self):
        filler = self.disk / "filler"
        line = self.run_until(lambda: subprocess.run(["dd", "if=/dev/zero", f"of={filler}", "bs=1M"],
                                                     capture_output=True))
        self.assertRegex(line, r"phase \d+ is not recorded: .*No space left on device.*; \d+ finished phases are kept in")
        kept = finished(self.out)
        self.assertGreaterEqual(len(kept), 3)
        self.assertEqual(list(self.out.rglob("*.tmp")), [])
        self.assert_opens(self.out)
        filler.unlink()
        self.assert_goes_on()
        print(f"full disk: {len(kept)} phases kept, and gone on with")

    def test_a_disk_that_turns_read_only(self):
        def turn():
            # what is open for writing must be closed first: it is, most of the time
            for _ in range(500):
                if subprocess.run(["mount", "-o", "remount,ro", self.disk], capture_output=True).returncode == 0:
                    return
            self.skipTest("the file system cannot be made read-only here")

        line = self.run_until(turn)
        self.assertRegex(line, r"phase \d+ is not recorded: .*Read-only file system.*; \d+ finished phases are kept in")
        self.assert_opens(self.out)
        self.mount("-o", "remount,rw", self.disk)
        self.assert_goes_on()

    def test_a_mount_that_is_lost(self):
        other = self.dir / "other"
        other.mkdir()
        self.mount("--bind", self.disk, other)
        self.addCleanup(subprocess.run, ["umount", "-l", other], capture_output=True)
        line = self.run_until(lambda: subprocess.run(["umount", "-l", self.disk], check=True))
        # the second is HDF5's word where the mount goes between its making of a file and its look at it
        self.assertRegex(line, r"phase \d+ is not recorded: .*(No such file or directory|can't retrieve stat info).*; \d+ finished phases")
        kept = finished(other / "out")
        self.assertGreaterEqual(len(kept), 3)
        self.assert_opens(other / "out")
        self.mount("--bind", other, self.disk)
        self.assert_goes_on()

    def test_a_summary_that_cannot_be_written(self):
        # the study is whole by then: nothing is measured twice
        session = Session(self.study, self.out, 0, *OPTIONS)
        session.wait_for_a_phase(more=2)
        (self.out / "summary.json.tmp").mkdir()
        status, said = session.end()
        self.assertEqual(status, 3, said)
        self.assert_opens(self.out)
        shutil.rmtree(self.out / "summary.json.tmp")
        self.assert_goes_on()
        with h5py.File(self.out / "study.h5") as file:
            self.assertEqual(file.attrs["complete"], 1)


if __name__ == "__main__":
    unittest.main()
