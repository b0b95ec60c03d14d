#!/usr/bin/env python3
"""moevar export from outside: the engines' files, their way back into moevar place, and unusable input."""

import json
import unittest

from moevar_cli import start
from placement_case import EXPERTS, FORMATS, PlaceCase, counts


class Export(PlaceCase):
    def setUp(self):
        super().setUp()
        dense = [0.0] * EXPERTS
        self.loads = self.write_loads([dense, *counts(3)], "dense.json")
        # not eplb, whose copies may share a device, which vLLM-Ascend refuses
        self.plan = self.place("--redundant", 4, policy="vibe")

    def export(self, format, *options, name=None):
        file = self.dir / (name or FORMATS[format])
        run = start(["export", self.out, "--format", format, "--out", file, *options])
        self.assertEqual((run.returncode, run.stderr), (0, ""))
        self.said = run.stdout
        return file

    def test_sglang(self):
        document = json.loads(self.export("sglang").read_text())
        self.assertEqual(list(document), ["physical_to_logical_map"])
        rows = document["physical_to_logical_map"]
        self.assertEqual(rows[0], [s % EXPERTS for s in range(20)])  # layer 0 is dense
        self.assertEqual(rows[1:], self.plan["physical_to_logical_map"])

    def test_sglang_of_loads_without_their_dense_layers(self):
        self.out = self.dir / "moe.json"
        plan = self.place(loads=self.write_loads(counts(3)), out=self.out)
        rows = json.loads(self.export("sglang", "--dense-layers", 3, "--model-layers", 8).read_text())
        rows = rows["physical_to_logical_map"]
        self.assertEqual(len(rows), 8)
        self.assertEqual(rows[3:6], plan["physical_to_logical_map"])
        self.assertEqual(rows[6], list(range(EXPERTS)))

    def test_vllm(self):
        document = json.loads(self.export("vllm").read_text())
        self.assertEqual(document["moe_layer_count"], 3)
        for index, (layer, row) in enumerate(zip(document["layer_list"], self.plan["physical_to_logical_map"])):
            self.assertEqual((layer["layer_id"], layer["device_count"]), (index, 4))
            self.assertEqual([d["device_id"] for d in layer["device_list"]], [0, 1, 2, 3])
            self.assertEqual([e for d in layer["device_list"] for e in d["device_expert"]], row)

    def test_tensorrt_llm(self):
        lines = self.export("tensorrt-llm").read_text().splitlines()
        self.assertEqual(lines[0], "initial_global_assignments:")
        self.assertEqual(lines[1], f"  1: {self.plan['physical_to_logical_map'][0]}")
        self.assertEqual(lines[4:], ["num_slots: 20", "layer_updates_per_iter: 0"])

    def test_round_trips(self):
        for format in FORMATS:
            with self.subTest(format=format):
                file = self.export(format, name=f"{format}.{FORMATS[format]}")
                back = self.place("--from", file, policy="vibe", out=self.dir / f"{format}.out.json")
                self.assertEqual((back["moved_experts"], back["redundant_experts"]), (0, 4))
                other = self.place("--from", file, policy="contiguous", out=self.dir / f"{format}.other.json")
                self.assertGreater(other["moved_experts"], 0)

    def test_uneven_shares_are_noted(self):
        self.export("sglang", name="even.json")
        self.assertNotIn("note:", self.said)
        share, experts = self.plan["slot_share"][1], self.plan["physical_to_logical_map"][1]
        twice = next(e for e in experts if experts.count(e) == 2)
        share[experts.index(twice)], share[len(experts) - 1 - experts[::-1].index(twice)] = 0.25, 0.75
        self.out.write_text(json.dumps(self.plan))
        self.export("sglang", name="uneven.json")
        for part in ("note:", "1 of 3 layers", "SGLang splits evenly", "--even-shares"):
            self.assertIn(part, self.said)

    def test_an_ending_that_the_engine_does_not_read_is_noted(self):
        self.export("sglang", name="e.txt")
        self.assertIn("note: SGLang", self.said)

    # ---- unusable input
    def refused_export(self, *parts, file=None, format="sglang", out=None, options=(), status=2):
        self.refused(["export", file or self.out, "--format", format, "--out", out or self.dir / "e.json", *options],
                     *parts, status=status)

    def test_unknown_format(self):
        self.refused_export("slgang", "nearest is sglang", format="slgang")

    def test_no_placement(self):
        self.refused_export("nothing.json", "cannot be read", file=self.dir / "nothing.json")

    def test_not_a_placement(self):
        self.refused_export("loads.json", "moevar place", file=self.write_loads(counts()))

    def test_an_engines_file_is_not_exported_again(self):
        self.refused_export("moevar place", file=self.export("sglang", name="sglang.json"))

    def test_corrupt_placement(self):
        self.refused_export("cut.json", "not JSON", file=self.write("cut.json", self.out.read_text()[:900]))

    def test_placement_without_an_expert(self):
        self.plan["physical_to_logical_map"][1] = [0] * 20
        self.refused_export("layer 2", "no slot holds expert 1", file=self.write("p.json", json.dumps(self.plan)))

    def test_vllm_with_an_expert_twice_on_a_device(self):
        row = self.plan["physical_to_logical_map"][0]
        row[:] = [0, 0, 1, 2, 3, *range(4, 16), 1, 2, 3]
        del self.plan["slot_share"]
        path = self.write("p.json", json.dumps(self.plan))
        self.refused_export("layer 1", "device 0 holds expert 0 twice", file=path, format="vllm")

    def test_model_with_too_few_layers(self):
        self.refused_export("model of 3", "4 to", options=["--model-layers", 3])

    def test_export_exists(self):
        self.refused_export("e.json", "exists", out=self.write("e.json", "mine"))

    def test_export_folder_missing(self):
        self.refused_export("none/e.json", "cannot be created", out=self.dir / "none" / "e.json", status=3)


if __name__ == "__main__":
    unittest.main()
