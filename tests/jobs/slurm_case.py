"""What the tests of jobs/slurm share: a cluster, short studies, and a look at what a job left."""

import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "cli"))

from moevar_cli import MOEVAR, ROOT, SMALL  # noqa: E402
from slurm_cluster import Cluster, lacking  # noqa: E402

# Six phases of real steps that take about a second each: until the time is over, or more steps gain nothing.
PACED = """
[study]
name = "paced"
repeats = 3
[model]
hidden = 64
intermediate = 64
experts = 4
top_k = 2
layers = 2
[workload]
kind = "synthetic"
tokens_per_device = 16
[fleet]
device = "cpu"
devices = [2]
[placement]
policies = ["contiguous", "eplb"]
[phases]
steps = 8
warmup_steps = 1
profile = "once"
precision = 1e-9
max_steps = 1000000
time_limit_s = 1
[record]
timelines = false
"""
PACED_PHASES = 6
ONE, MANY = ROOT / "jobs/slurm/one-node.sbatch", ROOT / "jobs/slurm/many-nodes.sbatch"


@unittest.skipIf(lacking(), f"not installed: {', '.join(lacking())} (Debian: slurm-wlm munge)")
class SlurmCase(unittest.TestCase):
    """A test with a cluster of its own and a folder that jobs are submitted from."""

    NODES = 4

    def more_configuration(self):
        """Further lines of slurm.conf; self.dir is there already."""
        return ""

    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="moevar-test-"))
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)
        self.cluster = Cluster(self.NODES, more=self.more_configuration())
        self.addCleanup(self.cluster.close)
        self.cluster.start()
        # Open MPI takes the nodes for one host, and its ranks for neighbours in shared memory; they share a few cores
        self.settings = {"MOEVAR_HOME": str(ROOT), "MOEVAR": MOEVAR, "PYTHON": sys.executable,
                         "OMPI_MCA_btl": "tcp,self", "OMPI_MCA_mpi_yield_when_idle": "1", "BIND": "none",
                         "MOEVAR_PROGRESS": "lines"}

    def write(self, name, text):
        path = self.dir / name
        path.write_text(text)
        return path

    def submit(self, script, study, out, *options, **settings):
        """Submits a study with two tasks a node; the job's number."""
        env = {**self.settings, "STUDY": str(study), "OUT": str(out), **settings}
        return self.cluster.submit(script, "--ntasks-per-node=2", "--output=%x-%A_%a.out" if "--array" in options
                                   else "--output=job-%j.out", *options, env=env, cwd=self.dir)

    def said(self, job):
        """What the job has written so far, over all its starts."""
        path = self.dir / f"job-{job}.out"
        return path.read_text(errors="replace") if path.exists() else ""

    def finished(self, out):
        """Phases that the run in `out` has recorded while it is not whole."""
        return sorted(path.stem for path in (out / "phases").glob("[0-9]*.h5"))

    def assert_over(self, job, state, limit_s=120):
        try:
            known = self.cluster.wait(job, limit_s)
        except RuntimeError as late:
            self.fail(f"{late}\n== the job said\n{self.said(job)}")
        self.assertEqual(known["JobState"], state, self.said(job))
        return known

    def assert_whole(self, out, phases):
        """The run is complete, every documented field of it is there, and it has this many phases."""
        summary = json.loads((out / "summary.json").read_text())
        self.assertTrue(summary["complete"])
        self.assertEqual(len(summary["cells"]), phases)
        schema = subprocess.run([sys.executable, ROOT / "tests/analysis/schema_test.py", out], capture_output=True,
                                text=True)
        self.assertEqual(schema.returncode, 0, schema.stdout[-2000:] + schema.stderr[-2000:])

    def assert_each_phase_once(self, job, phases):
        """Over all starts, no phase was run to its end twice. One may be on disk and not yet said when a start ends."""
        said = self.said(job)
        counts = [int(count) for count in re.findall(rf"\] (\d+)/{phases} phases", said)]
        self.assertEqual(counts, sorted(set(counts)), said)
        self.assertEqual(counts[-1], phases, said)
        starts = len(re.findall(r": start \d+ on ", said))
        self.assertGreaterEqual(len(counts), phases - (starts - 1), said)
