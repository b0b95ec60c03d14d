#!/usr/bin/env python3
"""moevar doctor: what it finds with no NVML, with fake GPUs, under mpirun, and that it changes nothing."""

import json
import os
import re
import subprocess
import unittest

from fake_nvml import FakeGpus
from moevar_cli import ENVIRONMENT, MOEVAR, ROOT, Case

NOWHERE = "/nonexistent.so"
# two sockets of four cores of two threads, GPUs at the buses of fake_nvml.PCI_BUSES; hwloc then binds nothing
TWO_SOCKETS = {"HWLOC_XMLFILE": str(ROOT / "tests/topologies/two-sockets.xml")}


def has_gpu():
    return os.path.exists("/dev/nvidiactl")


class Doctor(Case):
    def doctor(self, *words, ranks=0, status=0, **environment):
        command = [MOEVAR, "doctor", *words]
        if ranks:
            command = ["mpirun", "--oversubscribe", "-np", str(ranks), *command]
        run = subprocess.run(command, env=dict(ENVIRONMENT, **environment), capture_output=True, text=True, timeout=120)
        self.assertEqual(run.returncode, status, run.stderr)
        return run.stdout

    def facts(self, *words, **options):
        return json.loads(self.doctor("--json", *words, **options))

    def fake(self, gpus, **words):
        self.gpus = FakeGpus(self.dir / "gpus", gpus, **words)
        return self.gpus.environment(self.dir / "state")

    def assert_nothing_written(self):
        self.assertEqual([self.gpus.get(gpu, "writes") for gpu in range(self.gpus.count)], [0] * self.gpus.count)
        self.assertFalse((self.dir / "state").exists(), "looking leaves nothing behind")

    def kinds(self, facts):
        return {device["kind"]: device for device in facts["devices"]}

    # ---- without NVML

    def test_without_nvml(self):
        facts = self.facts(MOEVAR_NVML=NOWHERE)
        self.assertEqual(facts["schema"], 1)
        [host] = facts["hosts"]
        self.assertIn("NVML cannot be loaded", host["nvml_problem"])
        self.assertIsNone(host["driver"])
        self.assertEqual(host["caps"], {"settable": False, "why": "NVML shows no GPU"})
        self.assertEqual((facts["mpi"]["ranks"], facts["mpi"]["threads"]), (1, "funneled"))
        self.assertRegex(facts["mpi"]["library"], r"\d")
        self.assertRegex(facts["hdf5"]["version"], r"^1\.\d+\.\d+$")
        text = self.doctor(MOEVAR_NVML=NOWHERE)
        self.assertIn("NVML cannot be loaded", text)

    @unittest.skipIf(has_gpu(), "there is a GPU")
    def test_without_a_gpu_it_says_why_and_what_to_do(self):
        facts = self.facts(MOEVAR_NVML=NOWHERE)
        kinds = self.kinds(facts)
        self.assertEqual([kinds[kind]["usable"] for kind in ("cuda", "cpu", "model")], [False, True, True])
        self.assertRegex(kinds["cuda"]["why"], "driver|without CUDA")
        self.assertRegex(kinds["cuda"]["advice"], "install|build")
        self.assertEqual(facts["hosts"][0]["gpus"], [])
        self.assertEqual(facts["ranks"][0]["visible"], [])
        lines = self.doctor(MOEVAR_NVML=NOWHERE).splitlines()
        at = next(i for i, line in enumerate(lines) if line.startswith("cuda: no: "))
        self.assertEqual(lines[at + 1].strip(), kinds["cuda"]["advice"])
        self.assertTrue(any(line.startswith("cpu: yes: ") for line in lines), lines)
        self.assertTrue(any(line.startswith("model: yes: ") for line in lines), lines)

    # ---- with fake GPUs

    def test_one_gpu(self):
        facts = self.facts(**self.fake(1), **TWO_SOCKETS)
        [host] = facts["hosts"]
        [gpu] = host["gpus"]
        self.assertEqual((host["driver"], host["driver_cuda"], host["nvml_problem"]), ("580.00.00", "13.0", None))
        power = {"min_w": 200, "default_w": 700, "max_w": 700, "requested_w": 700, "enforced_w": 700}
        expected = {"nvml_index": 0, "uuid": self.gpus.uuids[0], "name": "Fake GPU", "pci": "0000:1b:00.0",
                    "compute_capability": "9.0", "memory_total_bytes": 80 << 30, "memory_free_bytes": 80 << 30,
                    "persistence": True, "power": power, "compute_mode": "default", "mig": False, "processes": [],
                    "near_cores": [0, 2, 4, 6], "memory_nodes": [0], "problem": None}
        self.assertEqual({field: gpu[field] for field in expected}, expected)
        self.assert_nothing_written()

    @unittest.skipIf(has_gpu(), "there is a GPU")
    def test_gpus_that_cuda_does_not_see(self):
        facts = self.facts(**self.fake(4))
        for gpu in facts["hosts"][0]["gpus"]:
            self.assertEqual((gpu["cuda_ordinal"], gpu["sms"], gpu["ranks"]), (None, None, []))
        cuda = self.kinds(facts)["cuda"]
        self.assertFalse(cuda["usable"])

    def test_four_gpus_near_two_sockets(self):
        gpus = self.facts(**self.fake(4), **TWO_SOCKETS)["hosts"][0]["gpus"]
        self.assertEqual([gpu["near_cores"] for gpu in gpus], [[0, 2, 4, 6]] * 2 + [[8, 10, 12, 14]] * 2)
        self.assertEqual([gpu["memory_nodes"] for gpu in gpus], [[0], [0], [1], [1]])
        self.assertEqual([gpu["nvml_index"] for gpu in gpus], [0, 1, 2, 3])

    def test_sixteen_gpus_fit_a_screen(self):
        environment = self.fake(16)
        text = self.doctor(**environment)
        facts = self.facts(**environment)
        self.assertEqual([gpu["uuid"] for gpu in facts["hosts"][0]["gpus"]], self.gpus.uuids)
        lines = text.splitlines()
        for uuid in self.gpus.uuids:
            self.assertEqual(sum(uuid in line for line in lines), 1, "a line a GPU")
        self.assertLessEqual(len(lines), 2 * 16 + 20)
        header = next(line for line in lines if "UUID" in line)
        self.assertEqual({line.index("GPU-") for line in lines if "GPU-" in line}, {header.index("UUID")},
                         "columns stand below each other")
        text = self.doctor(**self.fake(8))
        self.assertLessEqual(len(text.splitlines()), 40, "one screen for a node of eight")

    def test_states_that_differ(self):
        environment = self.fake(4)
        self.gpus.set(0, requested_mw=500_000, clamp_mw=550_000)
        self.gpus.set(1, not_persistent=1, mig=1)
        self.gpus.set(2, compute_mode=3, mig=2)
        self.gpus.set(3, compute_mode=2)
        gpus = self.facts(**environment)["hosts"][0]["gpus"]
        self.assertEqual((gpus[0]["power"]["requested_w"], gpus[0]["power"]["enforced_w"]), (500, 550))
        self.assertEqual([gpu["persistence"] for gpu in gpus], [True, False, True, True])
        self.assertEqual([gpu["mig"] for gpu in gpus], [False, True, None, False])
        self.assertEqual([gpu["compute_mode"] for gpu in gpus],
                         ["default", "default", "exclusive-process", "prohibited"])
        states = [line for line in self.doctor(**environment).splitlines() if "200 / 700 / 700" in line]
        self.assertEqual([re.split(r"\s{2,}", line.strip()) for line in states], [
            ["0", "200 / 700 / 700", "500 / 550", "on", "default", "off", "-"],
            ["1", "200 / 700 / 700", "700 / 700", "off", "default", "on", "-"],
            ["2", "200 / 700 / 700", "700 / 700", "on", "exclusive-process", "?", "-"],
            ["3", "200 / 700 / 700", "700 / 700", "on", "prohibited", "off", "-"]])

    def test_lost_gpus_do_not_hide_the_others(self):
        environment = self.fake(4)
        self.gpus.set(1, lost=1)
        self.gpus.set(2, lost=2)
        gpus = self.facts(**environment)["hosts"][0]["gpus"]
        self.assertEqual(len(gpus), 4)
        for index in (1, 2):
            self.assertIn("GPU is lost", gpus[index]["problem"])
            self.assertIsNone(gpus[index]["memory_total_bytes"])
        self.assertEqual(gpus[1]["uuid"], self.gpus.uuids[1])
        for index in (0, 3):
            self.assertIsNone(gpus[index]["problem"])
            self.assertEqual(gpus[index]["power"]["enforced_w"], 700)
        self.assertEqual(self.doctor(**environment).count("GPU is lost"), 2)

    def test_a_gpu_that_does_not_answer_is_waited_for_once(self):
        environment = self.fake(2)
        self.gpus.set(0, block_get_ms=60_000)
        gpus = self.facts(**environment)["hosts"][0]["gpus"]
        self.assertIn("did not answer within 10 s", gpus[0]["problem"])
        self.assertEqual(gpus[1]["power"]["enforced_w"], 700)

    def test_other_processes(self):
        environment = self.fake(2)
        with subprocess.Popen(["sleep", "60"]) as sleeper:
            try:
                self.gpus.set(0, pid0=sleeper.pid, process_bytes0=3 << 30, pid2=4_194_305, process_bytes2=2**64 - 1)
                gpus = self.facts(**environment)["hosts"][0]["gpus"]
                text = self.doctor(**environment)
            finally:
                sleeper.kill()
        self.assertEqual(gpus[0]["processes"], [
            {"pid": sleeper.pid, "name": "sleep", "memory_bytes": 3 << 30},
            {"pid": 4_194_305, "name": None, "memory_bytes": None}])
        self.assertEqual(gpus[0]["memory_free_bytes"], 77 << 30)
        self.assertEqual(gpus[1]["processes"], [])
        self.assertIn(f"{sleeper.pid} sleep (3.0 GiB), 4194305 ? (? GiB)", text)

    @unittest.skipIf(os.geteuid() != 0, "needs root")
    def test_whether_caps_could_be_set_is_said_without_trying(self):
        environment = self.fake(1, refuse=1)
        self.assertEqual(self.facts(**environment)["hosts"][0]["caps"],
                         {"settable": True, "why": "CAP_SYS_ADMIN; not tried"})
        self.dir.chmod(0o755)
        self.gpus.path.chmod(0o666)
        run = subprocess.run([MOEVAR, "doctor", "--json"], env=dict(ENVIRONMENT, **environment, HOME="/tmp"),
                             capture_output=True, text=True, timeout=60, user=65534, group=65534, extra_groups=[],
                             cwd="/tmp")
        self.assertEqual(run.returncode, 0, run.stderr)
        caps = json.loads(run.stdout)["hosts"][0]["caps"]
        self.assertFalse(caps["settable"])
        self.assertIn("user 65534 is not root", caps["why"])
        self.assert_nothing_written()

    # ---- libraries

    def test_libraries_that_are_absent_are_no_error(self):
        absent = {"MOEVAR_NCCL": NOWHERE, "MOEVAR_CUBLASLT": NOWHERE}
        [host] = self.facts(**absent)["hosts"]
        for library in ("nccl", "cublaslt"):
            self.assertEqual((host[library]["library"], host[library]["version"]), (NOWHERE, None))
            self.assertIn("cannot open", host[library]["problem"])
        self.assertIsNone(host["nccl_shares_gpus"])
        self.assertRegex(self.doctor(**absent), r"NCCL +none \(.*cannot open")

    def test_another_library_is_told_apart(self):
        other = {"MOEVAR_NCCL": os.environ["MOEVAR_FAKE_NVML"]}
        [host] = self.facts(**other)["hosts"]
        self.assertIn("does not tell its version", host["nccl"]["problem"])

    def stand_in(self, function, body):
        """A library with one function."""
        source = self.write("library.c", f"{function} {{ {body} }}\n")
        library = self.dir / "library.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
        return str(library)

    def test_which_nccl_lets_ranks_share_a_gpu(self):
        for version, readable, shares in ((22809, "2.28.9", False), (23003, "2.30.3", True)):
            library = self.stand_in("int ncclGetVersion(int* version)", f"*version = {version}; return 0;")
            [host] = self.facts(MOEVAR_NCCL=library)["hosts"]
            self.assertEqual((host["nccl"]["version"], host["nccl_shares_gpus"]), (readable, shares))
            self.assertEqual("ranks may share a GPU" in self.doctor(MOEVAR_NCCL=library), shares)

    def test_cublaslt(self):
        library = self.stand_in("unsigned long cublasLtGetVersion(void)", "return 130100;")
        self.assertEqual(self.facts(MOEVAR_CUBLASLT=library)["hosts"][0]["cublaslt"],
                         {"library": library, "version": "13.1.0", "problem": None})

    # ---- under mpirun

    def test_under_mpirun(self):
        for ranks in (2, 4):
            environment = self.fake(4)
            facts = self.facts(ranks=ranks, **environment)
            self.assertEqual(len(facts["hosts"]), 1, "a host is looked at once")
            self.assertEqual(facts["mpi"]["ranks"], ranks)
            self.assertEqual([(rank["rank"], rank["local_rank"], rank["node"]) for rank in facts["ranks"]],
                             [(rank, rank, 0) for rank in range(ranks)])
            self.assertEqual(self.kinds(facts)["cpu"]["why"], f"{ranks} device(s), a rank each")
            text = self.doctor(ranks=ranks, **environment)
            self.assertEqual(text.count("cuda: "), 1, "rank 0 alone prints")
            self.assertIn(f"{ranks} rank(s) on 1 host(s)", text)

    # ---- the schema

    def documented(self):
        """Field names of each table of results/README.md's section on this command, in their order."""
        page = (ROOT / "results/README.md").read_text()
        section = page.split("## moevar doctor --json")[1].split("\n## ")[0]
        tables = re.split(r"\| name \| type \| meaning \|", section)[1:]
        return [{name for row in re.findall(r"^\| (`[^|]+) \|", table, re.M) for name in re.findall(r"`(\w+)`", row)}
                for table in tables]

    def test_every_field_is_documented_and_there(self):
        facts = self.facts(**self.fake(1))
        host = facts["hosts"][0]
        self.assertEqual(self.documented(), [set(facts), set(host), set(host["gpus"][0]), set(facts["ranks"][0])])

    # ---- bad use

    def test_unknown_options(self):
        run = subprocess.run([MOEVAR, "doctor", "--fix"], env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
        self.assertEqual(run.returncode, 2)


if __name__ == "__main__":
    unittest.main()
