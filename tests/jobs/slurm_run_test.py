#!/usr/bin/env python3
"""The batch scripts of jobs/slurm on a real Slurm: from the submission to the report."""

import re
import subprocess
import unittest

from slurm_case import MANY, ONE, ROOT, SMALL, SlurmCase

SMALL_PHASES = 6


class Runs(SlurmCase):
    def phases_equal(self, one, other):
        difference = subprocess.run(["h5diff", one / "study.h5", other / "study.h5", "/phases"], capture_output=True,
                                    text=True)
        self.assertEqual(difference.returncode, 0, difference.stdout[:500] + difference.stderr[:500])

    def test_one_node_and_many_with_both_launchers(self):
        study = self.write("small.toml", SMALL)
        outs = {"one": (ONE, ["-N1"], "mpirun"), "mpirun": (MANY, ["-N3"], "mpirun"), "srun": (MANY, ["-N3"], "srun")}
        for name, (script, options, launcher) in outs.items():
            with self.subTest(name):
                out = self.dir / name
                job = self.submit(script, study, out, *options, LAUNCHER=launcher)
                self.assert_over(job, "COMPLETED")
                self.assert_whole(out, SMALL_PHASES)
                self.assertIn("<html", (out / "report.html").read_text())
                ranks = 2 * int(options[0][2:])
                self.assertRegex(self.said(job), rf"{launcher} .*(-np |--ntasks=){ranks} ")
                self.assertIn(f"complete: {out}", self.said(job))
                self.assertIn(f"report: {out}/report.html", self.said(job))
        # over nodes and ranks as in one place
        self.phases_equal(self.dir / "one", self.dir / "mpirun")
        self.phases_equal(self.dir / "one", self.dir / "srun")

    def test_a_whole_run_submitted_again_only_reports(self):
        study, out = self.write("small.toml", SMALL), self.dir / "out"
        self.assert_over(self.submit(ONE, study, out, REPORT="no"), "COMPLETED")
        self.assertFalse((out / "report.html").exists())
        job = self.submit(ONE, study, out)
        self.assert_over(job, "COMPLETED")
        self.assertIn("complete already", self.said(job))
        self.assertNotIn("mpirun", self.said(job))
        self.assertTrue((out / "report.html").exists())

    def test_settings_reach_the_study(self):
        study, out = self.write("small.toml", SMALL), self.dir / "out"
        self.assert_over(self.submit(ONE, study, out, POWER_CAPS="650,450,350", SETTINGS="study.seed=9 study.repeats=2",
                                     REPORT="no"), "COMPLETED")
        self.assert_whole(out, 3 * 3 * 2)

    def test_what_cannot_be_used_is_not_tried_again(self):
        study = self.write("small.toml", SMALL)
        for settings, says in (({"STUDY": "absent.toml"}, "STUDY=absent.toml: no such file"),
                               ({"LAUNCHER": "rsh"}, "LAUNCHER=rsh: must be mpirun or srun"),
                               ({"MOEVAR": "", "MOEVAR_HOME": str(self.home_without_program())}, "no program"),
                               ({"MOEVAR_HOME": str(self.dir)}, "set MOEVAR_HOME"),
                               ({"SETTINGS": "study.sed=1"}, "not requeued: the study or the settings")):
            with self.subTest(says):
                job = self.submit(ONE, study, self.dir / "out", **settings)
                known = self.assert_over(job, "FAILED")
                self.assertEqual((known["ExitCode"], known["Restarts"]), ("2:0", "0"), self.said(job))
                self.assertIn(says, self.said(job))

    def home_without_program(self):
        home = self.dir / "a/b/home"
        home.mkdir(parents=True, exist_ok=True)
        if not (home / "jobs").exists():
            (home / "jobs").symlink_to(ROOT / "jobs")
        return home

    def ladder(self, *options, **settings):
        study, out = self.write("small.toml", SMALL), self.dir / "ladder"
        env = {**self.settings, "STUDY": str(study), "OUT": str(out), **settings}
        told = self.cluster.run("bash", ROOT / "jobs/slurm/submit-scale.sh", *options, env=env, cwd=self.dir)
        self.assertEqual(told.returncode, 0, told.stderr)
        jobs = re.findall(r"^job (\d+): (.*)$", told.stdout, re.MULTILINE)
        self.cluster.wait(jobs[-1][0], 120)
        return jobs, self.cluster.job(jobs[-1][0])

    def test_a_ladder_and_its_report(self):
        jobs, report = self.ladder(SIZES="4 8 16", RANKS_PER_NODE="2")
        said = (self.dir / f"moevar-report-{jobs[-1][0]}.out").read_text()
        self.assertEqual(report["JobState"], "COMPLETED", said)
        self.assertEqual([text.split(" devices")[0] for _, text in jobs[:-1]], ["4 8 16"], "one array: modelled GPUs")
        for size in (4, 8, 16):
            self.assert_whole(self.dir / f"ladder/devices-{size:06}", SMALL_PHASES)
            self.assertRegex(said, rf"\| devices-{size:06} \| {size} \|", "a row of the table")
        self.assertIn("<html", (self.dir / "ladder/report.html").read_text())

    def test_a_ladder_with_a_size_that_cannot_run_says_which(self):
        jobs, report = self.ladder(SIZES="4 5", RANKS_PER_NODE="2")  # 16 experts do not divide over 5 devices
        said = (self.dir / f"moevar-report-{jobs[-1][0]}.out").read_text()
        self.assertEqual((report["JobState"], report["ExitCode"]), ("FAILED", "1:0"), said)
        self.assertIn(f"not whole: {self.dir}/ladder/devices-000005", said)
        self.assertIn("<html", (self.dir / "ladder/report.html").read_text())

    def test_real_devices_get_a_node_for_every_eight(self):
        jobs, report = self.ladder(SIZES="1 2 4 8", RANKS_PER_NODE="2", DEVICE="cpu",
                                   SETTINGS="conditions.power_cap_w=[] model.hidden=64 model.intermediate=64")
        self.assertEqual([text for _, text in jobs[:-1]],
                         ["1 devices on 1 node(s) of 1 rank(s)", "2 devices on 1 node(s) of 2 rank(s)",
                          "4 devices on 2 node(s) of 2 rank(s)", "8 devices on 4 node(s) of 2 rank(s)"])
        self.assertEqual(report["JobState"], "COMPLETED")


if __name__ == "__main__":
    unittest.main()
