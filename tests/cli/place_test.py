#!/usr/bin/env python3
"""moevar place from outside: what it writes, and unusable input, one test per case."""

import csv
import json
import os
import subprocess
import unittest

from moevar_cli import DATA, MOEVAR, start
from placement_case import EXPERTS, FORMATS, PlaceCase, counts


class Place(PlaceCase):
    def test_fields_and_summary(self):
        placement = self.place()
        self.assertEqual(placement["policy"], "eplb")
        self.assertEqual((placement["devices"], placement["slots_per_device"], placement["experts"]), (4, 4, EXPERTS))
        self.assertEqual(placement["layers"], [0, 1, 2])
        self.assertIsNone(placement["from"])
        self.assertIsNone(placement["moved_experts"])
        for word in ("eplb", "4 × 4 slots", "predicted", "lower bound", "left on the table", "solved in"):
            self.assertIn(word, self.said)

    def test_every_policy_named_by_help_places(self):
        run = start(["place", "--loads", self.loads, "--devices", 4, "--policy", "nosuch", "--out", self.out])
        names = run.stderr.split("there are ")[1].strip().replace(" or ", ", ").split(", ")
        self.assertGreaterEqual(len(names), 5)
        for name in names:
            with self.subTest(policy=name):
                self.place(policy=name, out=self.dir / f"{name}.json")

    def test_help_says_what_every_policy_is(self):
        run = start(["place", "--loads", self.loads, "--devices", 4, "--policy", "nosuch", "--out", self.out])
        names = run.stderr.split("there are ")[1].strip().replace(" or ", ", ").split(", ")
        self.assertIn("oracle", names)
        for command in ("place", "run", "plan"):
            lines = start([command, "--help"]).stdout.split("Placement policies:")[1].splitlines()
            told = {line.split()[0]: line.split()[1:] for line in lines if line.strip()}
            self.assertEqual(list(told), names, command)
            self.assertTrue(all(len(words) > 2 for words in told.values()), told)

    def test_prediction_is_the_slowest_devices_time(self):
        times = [1.0, 1.5, 0.8, 1.1]
        placement = self.place("--speeds", self.relative(times), "--redundant", 4, policy="vibe")
        for row, loads in enumerate(counts()):
            tokens = [0.0] * 4
            for slot, (expert, share) in enumerate(zip(placement["physical_to_logical_map"][row],
                                                       placement["slot_share"][row])):
                tokens[slot // placement["slots_per_device"]] += loads[expert] * share
            self.assertAlmostEqual(placement["predicted_us"][row], max(n * t for n, t in zip(tokens, times)), places=6)

    def test_same_input_same_placement(self):
        first = self.place("--seed", 7, policy="random")
        second = self.place("--seed", 7, policy="random", out=self.dir / "second.json")
        other = self.place("--seed", 8, policy="random", out=self.dir / "other.json")
        first.pop("solve_ms"), second.pop("solve_ms")
        self.assertEqual(first, second)
        self.assertNotEqual(first["physical_to_logical_map"], other["physical_to_logical_map"])

    def test_dense_layers_are_skipped(self):
        dense = [0.0] * EXPERTS
        placement = self.place(loads=self.write_loads([dense, dense, *counts(2), dense], "dense.json"))
        self.assertEqual((placement["layers"], placement["model_layers"]), ([2, 3], 5))

    def test_csv_loads_keep_their_layers(self):
        rows = [f"{l},{e},{c}" for l, layer in zip((7, 9), counts(2)) for e, c in enumerate(layer)]
        placement = self.place(loads=self.write("loads.csv", "layer,expert,count\n" + "\n".join(rows)))
        self.assertEqual(placement["layers"], [7, 9])
        self.assertEqual(placement["physical_to_logical_map"],
                         self.place(loads=self.write_loads(counts(2), "same.json"),
                                    out=self.dir / "same_out.json")["physical_to_logical_map"])

    def test_steps_are_kept_or_averaged(self):
        loads = self.write_loads([counts(step=s) for s in range(3)], "steps.json")
        trace = self.place(loads=loads)
        mean = self.place("--steps", "mean", loads=loads, out=self.dir / "mean.json")
        self.assertEqual((trace["steps"], mean["steps"]), (3, 1))
        # the slowest device of every step is slower than the slowest of the mean step, and so is the bound
        for a, b in zip(trace["predicted_us"], mean["predicted_us"]):
            self.assertGreaterEqual(a, b)
        self.assertNotEqual(trace["predicted_us"], mean["predicted_us"])

    def test_a_fleets_csv_is_speeds(self):
        fleet = self.dir / "fleet.csv"
        self.assertEqual(start(["fleet", "--preset", "h100-sxm5", "--devices", 8, "--out", fleet]).returncode, 0)
        placement = self.place("--speeds", fleet, devices=8, policy="vibe")
        with open(fleet) as file:
            slowest = max(float(row["relative_time"]) for row in csv.DictReader(file))
        self.assertGreater(slowest, 1.0)
        self.assertEqual(placement["speeds"], str(fleet))

    def test_curves_are_speeds(self):
        rows = [f"{d},{n},{n * (1 + d) + 10}" for d in range(4) for n in (1, 64, 4096)]
        self.place("--speeds", self.write("curves.csv", "device,tokens,latency_us\n" + "\n".join(rows)), policy="vibe")

    def test_redundancy(self):
        placement = self.place("--redundant", 8)
        self.assertEqual((placement["slots_per_device"], placement["redundant_experts"]), (6, 8))

    def test_redundancy_fills_the_memory(self):
        # 3 layers × 6 slots × 10 MiB = 180 MiB; a seventh slot takes 210
        placement = self.place("--redundant", "fill", "--memory-gib", 0.2, "--expert-mib", 10)
        self.assertEqual(placement["slots_per_device"], 6)
        placement = self.place("--redundant", "fill", "--memory-gib", 1000, "--expert-mib", 10,
                               out=self.dir / "all.json")
        self.assertEqual(placement["slots_per_device"], EXPERTS)  # more than all experts are no use

    def test_from_counts_moves(self):
        self.place(policy="contiguous")
        moved = self.place("--from", self.out, policy="random", out=self.dir / "b.json")
        stayed = self.place("--from", self.out, policy="contiguous", out=self.dir / "c.json")
        expected = 0
        before, after = json.loads(self.out.read_text()), moved
        for old, new in zip(before["physical_to_logical_map"], after["physical_to_logical_map"]):
            for device in range(4):
                expected += len(set(new[4 * device:4 * device + 4]) - set(old[4 * device:4 * device + 4]))
        self.assertGreater(expected, 0)
        self.assertEqual((moved["moved_experts"], stayed["moved_experts"]), (expected, 0))

    def test_from_keeps_its_redundancy(self):
        self.place("--redundant", 4)
        self.assertEqual(self.place("--from", self.out, out=self.dir / "b.json")["redundant_experts"], 4)

    def test_one_rank_of_many_writes(self):
        run = start(["place", "--loads", self.loads, "--devices", 4, "--policy", "eplb", "--out", self.out], ranks=2)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertEqual(run.stdout.count("solved in"), 1)
        self.check(json.loads(self.out.read_text()))

    # ---- real counts
    def test_deepseek_v3(self):
        path = DATA / "deepseek-v3-expert-counts" / "prefill_in4096.json"
        if not path.exists():
            self.skipTest(f"{path} is not here")
        placement = self.place("--redundant", 32, loads=path, devices=32, policy="vibe")
        self.assertEqual((len(placement["layers"]), placement["model_layers"], placement["slots_per_device"]), (58, 61, 9))
        contiguous = self.place(loads=path, devices=32, policy="contiguous", out=self.dir / "b.json")
        self.assertLess(sum(placement["predicted_us"]), sum(contiguous["predicted_us"]))
        for format, name in FORMATS.items():
            file = self.dir / f"{format}-{name}"
            run = start(["export", self.out, "--format", format, "--out", file])
            self.assertEqual(run.returncode, 0, run.stderr)
            back = self.place("--from", file, "--redundant", 32, loads=path, devices=32,
                              policy="vibe", out=self.dir / f"{format}-back.json")
            self.assertEqual(back["moved_experts"], 0)


class BadInput(PlaceCase):
    # ---- options
    def test_unknown_policy(self):
        self.refused_place("elpb", "nearest is eplb", policy="elpb")

    def test_no_policy(self):
        self.refused(["place", "--loads", self.loads, "--devices", 4, "--out", self.out], "--policy")

    def test_no_devices(self):
        self.refused_place("--devices", "1 to", devices=0)

    def test_devices_not_a_number(self):
        self.refused_place("--devices", devices="four")

    def test_fewer_slots_than_experts(self):
        self.refused_place("--redundant -4", "fewer slots than experts", "from 0", options=["--redundant", -4])

    def test_redundancy_not_a_number(self):
        self.refused_place("--redundant some", "whole number from 0", options=["--redundant", "some"])

    def test_redundancy_not_whole(self):
        self.refused_place("--redundant 4.5", "whole number", options=["--redundant", "4.5"])

    def test_redundancy_that_does_not_divide(self):
        self.refused_place("16 experts + 5", "4 devices", "4 and 8", options=["--redundant", 5])

    def test_experts_that_do_not_divide(self):
        self.refused_place("16 slots", "3 devices", "that do: 2", devices=3)

    def test_more_devices_than_slots(self):
        self.refused_place("32 devices", "that do: 16", devices=32)

    def test_redundancy_beyond_all_use(self):
        self.refused_place("--redundant 1000000000000000", "at most 48", options=["--redundant", 10**15])

    def test_more_slots_than_are_of_use_to_anyone(self):
        self.refused_place("slots over all layers", devices=1 << 24,
                           options=["--redundant", 16 * ((1 << 24) - 1)])

    def test_mistyped_devices_take_no_memory(self):
        place = [MOEVAR, "place", "--loads", self.loads, "--devices", str(1 << 24), "--policy", "eplb", "--out", self.out]
        run = subprocess.run(["bash", "-c", 'ulimit -v 2000000; exec "$@"', "place", *place], capture_output=True,
                             text=True, timeout=30)
        self.assertEqual(run.returncode, 2, run.stderr)
        self.assertIn("16777216 devices", run.stderr)

    def test_groups_that_do_not_divide(self):
        self.refused_place("3 expert groups of 16", options=["--groups", 3])

    def test_nodes_that_do_not_divide(self):
        self.refused_place("3 nodes of 4", options=["--nodes", 3])

    def test_no_groups(self):
        self.refused_place("groups", options=["--groups", 0])

    def test_budget_without_from(self):
        self.refused_place("--budget", "--from", options=["--budget", 2])

    def test_budget_for_a_policy_that_keeps_none(self):
        self.place()
        self.refused_place("budget", "eplb", out=self.dir / "b.json", options=["--budget", 2, "--from", self.out])

    def test_negative_budget(self):
        self.refused_place("--budget", options=["--budget", -1])

    def test_memory_without_size(self):
        self.refused_place("--memory-gib without --expert-mib", options=["--memory-gib", 1])

    def test_size_without_memory(self):
        self.refused_place("--expert-mib without --memory-gib", options=["--expert-mib", 1])

    def test_fill_without_memory(self):
        self.refused_place("--memory-gib and --expert-mib", options=["--redundant", "fill"])

    def test_memory_too_small_for_the_redundancy(self):
        # 3 layers × 7 slots × 10 MiB = 210 MiB
        self.refused_place("7 slots", "largest --redundant that fits is 8",
                           options=["--redundant", 12, "--memory-gib", 0.2, "--expert-mib", 10])

    def test_memory_too_small_for_any(self):
        for redundant in ("0", "fill"):
            self.refused_place("without redundancy it takes", "0.117188 GiB",
                               options=["--redundant", redundant, "--memory-gib", 0.1, "--expert-mib", 10])

    def test_memory_holds_for_policies_that_choose_their_slots(self):
        # one expert of 16 takes nearly all tokens: three devices fetch a copy, a fifth slot. 3 × 5 × 10 MiB = 150 MiB
        loads = self.write_loads([[100000.0] + [1.0] * (EXPERTS - 1)] * 3)
        for policy in ("harmoeny", "harmoeny_speed"):
            with self.subTest(policy=policy):
                self.refused_place(policy, "5 slots", "0.146484 GiB", "4 fit", loads=loads, policy=policy,
                                   options=["--memory-gib", 0.12, "--expert-mib", 10])
                self.place("--memory-gib", 0.15, "--expert-mib", 10, loads=loads, policy=policy,
                           out=self.dir / f"{policy}.json")

    def test_memory_not_a_number(self):
        self.refused_place("--memory-gib", options=["--memory-gib", "nan", "--expert-mib", 10])

    def test_unknown_steps(self):
        self.refused_place("--steps", "trace", options=["--steps", "first"])

    def test_negative_seed(self):
        self.refused_place("--seed", options=["--seed", -1])

    # ---- loads
    def test_loads_absent(self):
        self.refused_place("no.json", "cannot be read", loads=self.dir / "no.json")

    def test_loads_empty(self):
        for name in ("empty.json", "empty.csv"):
            self.refused_place(name, "empty", loads=self.write(name, ""))

    def test_loads_of_unknown_kind(self):
        self.refused_place("loads.txt", ".json or .csv", loads=self.write("loads.txt", "x"))

    def test_loads_corrupt(self):
        self.refused_place("cut.json", "not JSON", loads=self.write("cut.json", self.loads.read_text()[:100]))

    def test_loads_negative(self):
        bad = counts()
        bad[1][2] = -1.0
        self.refused_place("layer 1, expert 2", "from 0", loads=self.write_loads(bad, "bad.json"))

    def test_loads_nan(self):
        rows = [f"{l},{e},{'nan' if (l, e) == (1, 2) else 5}" for l in range(2) for e in range(EXPERTS)]
        self.refused_place("layer 1, expert 2", "from 0",
                           loads=self.write("bad.csv", "layer,expert,count\n" + "\n".join(rows)))

    def test_loads_ragged(self):
        bad = counts()
        bad[2].pop()
        self.refused_place("layer 2: 15 experts; expected 16", loads=self.write_loads(bad, "bad.json"))

    def test_loads_all_dense(self):
        self.refused_place("no layer has tokens", loads=self.write_loads([[0.0] * EXPERTS], "dense.json"))

    # ---- speeds
    def refused_speeds(self, text, *parts):
        self.refused_place("speeds.csv", *parts, options=["--speeds", self.write("speeds.csv", text)], policy="vibe")

    def test_speeds_that_fall_with_tokens(self):
        rows = [f"{d},{n},{t}" for d in range(4) for n, t in ((64, 10), (128, 9 if d == 2 else 11))]
        self.refused_speeds("device,tokens,latency_us\n" + "\n".join(rows), "row 7", "device 2", "do not fall")

    def test_speeds_of_more_devices(self):
        self.refused_place("speeds.csv", "device 4", "4 devices, 0 to 3",
                           options=["--speeds", self.relative([1] * 5)])

    def test_speeds_of_fewer_devices(self):
        self.refused_place("no row for device 3", options=["--speeds", self.relative([1] * 3)])

    def test_speeds_of_a_device_twice(self):
        self.refused_speeds("device,relative_time\n0,1\n1,1\n2,1\n3,1\n1,2\n", "row 6", "device 1 again", "row 3")

    def test_speeds_without_a_device(self):
        self.refused_speeds("device,relative_time\n0,1\n1,1\n3,1\n", "no row for device 2")

    def test_speeds_that_are_no_numbers(self):
        for value in ("fast", "", "nan", "-1", "0", "inf"):
            self.refused_speeds(f"device,relative_time\n0,1\n1,{value}\n2,1\n3,1\n", "row 3", "relative_time",
                                "expected a number")

    def test_speeds_empty(self):
        self.refused_speeds("", "empty")
        self.refused_speeds("device,relative_time\n", "no rows")

    def test_speeds_absent(self):
        self.refused_place("none.csv", "cannot be read", options=["--speeds", self.dir / "none.csv"])

    def test_speeds_of_another_kind(self):
        self.refused_speeds("a,b\n0,1\n", "row 1", "device,tokens,latency_us or device,relative_time")

    def test_speeds_binary(self):
        path = self.dir / "speeds.csv"
        path.write_bytes(os.urandom(3000))
        self.refused_place("speeds.csv", options=["--speeds", path])

    # ---- the present placement
    def refused_from(self, change, *parts, **how):
        self.place()
        document = json.loads(self.out.read_text())
        change(document)
        path = self.write("from.json", json.dumps(document))
        self.refused_place("from.json", *parts, options=["--from", path], out=self.dir / "b.json", **how)

    def test_from_absent(self):
        self.refused_place("none.json", "cannot be read", options=["--from", self.dir / "none.json"])

    def test_from_corrupt(self):
        self.place()
        path = self.write("from.json", self.out.read_text()[:700])
        self.refused_place("from.json", "not JSON", options=["--from", path], out=self.dir / "b.json")

    def test_from_of_no_format(self):
        self.refused_place("loads.json", "SGLang", "vLLM-Ascend", "TensorRT-LLM", options=["--from", self.loads])

    def test_from_of_other_layers(self):
        self.refused_from(lambda _: None, "3 layers; expected 2", loads=self.write_loads(counts(2), "two.json"))

    def test_from_of_layers_with_other_numbers(self):
        self.refused_from(lambda p: p.update(layers=[1, 2, 3], model_layers=4), "layer 1", "layer 0")

    def test_from_of_other_experts(self):
        self.refused_from(lambda _: None, "16 experts; expected 8", loads=self.write_loads(counts(experts=8), "8.json"))

    def test_from_on_other_devices(self):
        self.refused_from(lambda _: None, "4 devices; expected 8", devices=8)

    def test_from_of_other_slots(self):
        self.place()
        self.refused_place("must be the same", out=self.dir / "b.json",
                           options=["--from", self.out, "--redundant", 4])

    def test_from_without_an_expert(self):
        def change(placement):
            row = placement["physical_to_logical_map"][1]
            row[row.index(5)] = 4
        self.refused_from(change, "layer 1", "no slot holds expert 5")

    def test_from_with_shares_that_do_not_sum_to_one(self):
        def change(placement):
            placement["slot_share"][1][0] = 0.5
        self.refused_from(change, "layer 1", "sum to 0.5", "expected 1")

    def test_from_with_a_list_too_deep_to_write_out(self):
        self.place()
        text = self.out.read_text().replace('"devices": 4', f'"devices": {"[" * 100000}{"]" * 100000}')
        self.refused_place("from.json", "devices is array", "whole number from 1", out=self.dir / "b.json",
                           options=["--from", self.write("from.json", text)])

    def test_from_of_an_engine_on_other_devices(self):
        path = self.write("e.json", json.dumps({"physical_to_logical_map": [list(range(EXPERTS))] * 3}))
        self.refused_place("16 slots", "3 devices", options=["--from", path, "--redundant", 2], devices=3)

    # ---- where the placement goes
    def test_out_exists(self):
        self.refused_place("mine.json", "exists", out=self.write("mine.json", "mine"))

    def test_out_folder_missing(self):
        self.refused_place("none/out.json", "cannot be created", out=self.dir / "none" / "out.json", status=3)

    def test_out_is_a_folder(self):
        self.refused_place("exists", out=self.dir)

    def test_no_out(self):
        self.refused(["place", "--loads", self.loads, "--devices", 4, "--policy", "eplb"], "--out")


if __name__ == "__main__":
    unittest.main()
