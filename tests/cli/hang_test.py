#!/usr/bin/env python3
"""A rank that hangs is named, and the job ends."""

import os
import signal
import time
import unittest

from moevar_cli import SMALL, Case
from resume_test import CPU, Session, ranks_of

LIMIT_S = 3


class Hang(Case):
    def stop_a_rank(self, text, victim, *options):
        """Stops a rank of two in the midst of a long study; what was said, and after how many seconds it ended."""
        study = self.write("study.toml", text)
        session = Session(study, self.dir / "out", 2, "--hang-limit", LIMIT_S, "--set", "study.repeats=5000", *options)
        session.wait_for_a_phase(more=3)
        time.sleep(1)  # signs of life, which say where a rank is, come four times a second
        os.kill(ranks_of(session.out)[victim], signal.SIGSTOP)
        stopped = time.monotonic()
        status, said = session.end()
        took = time.monotonic() - stopped
        self.assertEqual(status, 3, said)
        named = [line for line in said if f"no sign of life for {LIMIT_S} s of rank {victim} on {os.uname().nodename.split('.')[0]}"
                 in line]
        self.assertEqual(len(named), 1, said)
        self.assertRegex(named[0], r"last in phase \d+, [a-z]")
        self.assertEqual([line for line in said if "no sign of life" in line], named, "nobody else is blamed")
        self.assertLess(took, LIMIT_S + 5)
        print(f"rank {victim} named after {took:.1f} s, limit {LIMIT_S} s: {named[0]}")
        return named[0]

    def test_a_rank_of_cpu_cores(self):
        self.assertIn("(device 1)", self.stop_a_rank(CPU, 1))

    def test_rank_0_of_cpu_cores(self):
        self.assertIn("(device 0)", self.stop_a_rank(CPU, 0))

    def test_a_rank_of_modelled_gpus(self):
        self.assertIn("(devices 4-7)", self.stop_a_rank(SMALL, 1, "--set", "phases.steps=256"))

    def test_rank_0_of_modelled_gpus(self):
        self.assertIn("(devices 0-3)", self.stop_a_rank(SMALL, 0, "--set", "phases.steps=256"))

    def test_a_job_that_sleeps_as_a_whole_goes_on(self):
        study = self.write("study.toml", SMALL)
        session = Session(study, self.dir / "out", 2, "--hang-limit", LIMIT_S, "--set", "study.repeats=5000")
        session.wait_for_a_phase()
        ranks = ranks_of(session.out).values()
        for pid in ranks:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(LIMIT_S + 2)
        for pid in ranks:
            os.kill(pid, signal.SIGCONT)
        time.sleep(LIMIT_S - 1)
        self.assertIsNone(session.process.poll())
        session.process.send_signal(signal.SIGUSR1)
        self.assertEqual(session.end()[0], 4)


if __name__ == "__main__":
    unittest.main()
