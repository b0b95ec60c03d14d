"""Starts build/moevar for the command-line tests, alone or under mpirun, always with a limit on time."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

MOEVAR = os.environ["MOEVAR"]
ROOT = pathlib.Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
ENVIRONMENT = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1",
                   MOEVAR_PROGRESS="none")

# A study that runs in a blink, for tests to change.
SMALL = """
[study]
name = "small"
seed = 3
[model]
hidden = 512
intermediate = 256
experts = 16
top_k = 2
layers = 3
[workload]
kind = "synthetic"
tokens_per_device = 64
[fleet]
device = "model"
devices = [8]
[conditions]
power_cap_w = [700, 500]
[placement]
policies = ["contiguous", "eplb", "vibe"]
[phases]
steps = 4
warmup_steps = 1
"""


def start(arguments, ranks=0, timeout=60, **options):
    """moevar with these arguments; ranks = 0 without mpirun. A run that hangs fails the test."""
    command = [MOEVAR, *map(str, arguments)]
    if ranks:
        command = ["mpirun", "--oversubscribe", "-np", str(ranks), *command]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=ENVIRONMENT,
                          **options)


class Case(unittest.TestCase):
    """A test with a folder of its own."""

    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="moevar-test-"))
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)

    def write(self, name, text):
        path = self.dir / name
        path.write_text(text)
        return path

    def run_study(self, text, out, *options, ranks=0, timeout=120):
        """Runs a study to its end and checks every documented field of it; its summary."""
        study = self.write("study.toml", text)
        run = start(["run", study, "--out", out, *options], ranks=ranks, timeout=timeout)
        self.assertEqual(run.returncode, 0, run.stderr)
        schema = subprocess.run([sys.executable, ROOT / "tests/analysis/schema_test.py", out], capture_output=True,
                                text=True)
        self.assertEqual(schema.returncode, 0, schema.stdout[-2000:] + schema.stderr[-2000:])
        return json.loads((out / "summary.json").read_text())
