"""What the tests of moevar place and moevar export share."""

import json

from moevar_cli import Case, start

EXPERTS = 16
FORMATS = {"sglang": "e.json", "vllm": "e.json", "tensorrt-llm": "e.yaml"}


def counts(layers=3, experts=EXPERTS, step=0):
    return [[float(1 + (e * 7 + l * 3 + step * 5) % 11) for e in range(experts)] for l in range(layers)]


class PlaceCase(Case):
    def setUp(self):
        super().setUp()
        self.out = self.dir / "out.json"
        self.loads = self.write_loads(counts())

    def write_loads(self, logical_count, name="loads.json"):
        return self.write(name, json.dumps({"logical_count": logical_count}))

    def relative(self, times, name="speeds.csv"):
        return self.write(name, "device,relative_time\n" + "".join(f"{d},{t}\n" for d, t in enumerate(times)))

    def place(self, *options, loads=None, devices=4, policy="eplb", out=None):
        out = out or self.out
        run = start(["place", "--loads", loads or self.loads, "--devices", devices, "--policy", policy, "--out", out,
                     *options])
        self.assertEqual((run.returncode, run.stderr), (0, ""))
        self.said = run.stdout
        return self.check(json.loads(out.read_text()))

    def check(self, placement):
        """Every documented field has its documented shape, and the placement is one."""
        slots = placement["devices"] * placement["slots_per_device"]
        layers = len(placement["layers"])
        for key, kind in {"policy": str, "loads": str, "even_shares": bool, "devices": int, "slots_per_device": int,
                          "experts": int, "redundant_experts": int, "groups": int, "nodes": int, "seed": int,
                          "steps": int, "model_layers": int, "solve_ms": float}.items():
            self.assertIsInstance(placement[key], kind, key)
        self.assertEqual(slots - placement["experts"], placement["redundant_experts"])
        self.assertGreaterEqual(placement["model_layers"], layers)
        for key in ("predicted_us", "lower_bound_us", "physical_to_logical_map", "slot_share"):
            self.assertEqual(len(placement[key]), layers, key)
        for predicted, bound in zip(placement["predicted_us"], placement["lower_bound_us"]):
            self.assertGreaterEqual(predicted, bound * (1 - 1e-9))
        for experts, shares in zip(placement["physical_to_logical_map"], placement["slot_share"]):
            self.assertEqual((len(experts), len(shares)), (slots, slots))
            self.assertEqual(set(experts), set(range(placement["experts"])))
            for expert in set(experts):
                self.assertAlmostEqual(sum(s for e, s in zip(experts, shares) if e == expert), 1.0, places=9)
        return placement

    def refused(self, arguments, *parts, status=2):
        """Refused with one line that holds all `parts`; leaves nothing. The file, where it was there, stays."""
        before = {p.name: p.read_bytes() for p in self.dir.iterdir() if p.is_file()}
        run = start(arguments, timeout=30)
        self.assertEqual(run.returncode, status, run.stderr)
        self.assertEqual((run.stdout, run.stderr.count("\n")), ("", 1), run.stderr)
        self.assertTrue(run.stderr.startswith("moevar: "), run.stderr)
        for part in parts:
            self.assertIn(part, run.stderr)
        self.assertEqual({p.name: p.read_bytes() for p in self.dir.iterdir() if p.is_file()}, before)

    def refused_place(self, *parts, options=(), loads=None, devices=4, policy="eplb", out=None, status=2):
        self.refused(["place", "--loads", loads or self.loads, "--devices", devices, "--policy", policy, "--out",
                      out or self.out, *options], *parts, status=status)
