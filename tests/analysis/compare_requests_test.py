"""compare.py of runs that served requests: planted slowdowns are found, chance is not, nothing is left unsaid."""

import contextlib
import io
import json
import pathlib
import shutil
import sys
import tempfile
import unittest

import paths
import h5py
import numpy as np
from moevar.intervals import NOT_SUPPORTED
from synthetic import autoregressive
from synthetic_serving import DEVICES, found, phase, write

sys.path.insert(0, str(paths.ROOT / "analysis"))
import compare  # noqa: E402

PAIRS = 200
NOISE = 0.02    # sd of log service times: of the run itself


def queue_ms(rng, arrived, work, noise=NOISE):
    """Sojourn times of requests in a queue of one server, whose noise is autocorrelated."""
    service = work * np.exp(noise * autoregressive(rng, (len(arrived), 1), 0.5)[:, 0])
    free, sojourn = 0.0, np.empty(len(arrived))
    for i, (now, takes) in enumerate(zip(arrived, service)):
        free = max(free, now) + takes
        sojourn[i] = free - now
    return 1e3 * sojourn


def requests(rng, load, count):
    return np.cumsum(rng.exponential(1 / load, count)), np.exp(0.3 * rng.standard_normal(count))


class Compared(unittest.TestCase):
    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="moevar-test-"))
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)

    def compare(self, *arguments):
        """Exit status, standard output and standard error of compare.py."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                status = compare.main([str(argument) for argument in (self.dir / "a", self.dir / "b", *arguments)])
            except SystemExit as error:
                status = error.code
        return status, out.getvalue(), err.getvalue()

    def pair(self, a, b, **options):
        write(self.dir / "a", a, **options)
        write(self.dir / "b", b, **options)

    def cells(self, *arguments):
        status, out, err = self.compare("--json", *arguments)
        self.assertEqual(err, "")
        return status, json.loads(out)


class FalseAlarms(Compared):
    def alarms(self, load, count, paired):
        """Of PAIRS equal queues: how many got a verdict, and how many a wrong one."""
        rng = np.random.default_rng(int(1000 * load) + count)
        blank = [phase(rate=2.0, ttft_ms=np.ones(count))]
        self.pair(blank, blank, summary=False)
        wrong = judged = 0
        for _ in range(PAIRS):
            arrived, work = requests(rng, load, count)
            for name in ("a", "b"):
                if name == "b" and not paired:
                    arrived, work = requests(rng, load, count)
                with h5py.File(self.dir / name / "study.h5", "r+") as file:
                    group = file["phases/0000/serving/requests"]
                    group["intended_s"][...] = arrived
                    group["first_token_s"][...] = arrived + queue_ms(rng, arrived, work) / 1e3
                    group["finished_s"][...] = group["first_token_s"][...] + 1
            _, out, _ = self.compare("--json")
            (cell,) = json.loads(out)["requests"]
            self.assertEqual(cell["paired"], paired)
            wrong += cell["verdict"] in ("slower", "faster")
            judged += cell["p"] is not None
        print(f"load {load}, {count} requests, {'paired' if paired else 'independent'}: {judged} of {PAIRS} judged, "
              f"{wrong} wrongly", flush=True)
        # 5 % of 200 are 10; 19 or more has a probability of 0.5 %
        self.assertLess(wrong, 19)
        return judged

    def test_far_from_saturation(self):
        self.assertGreater(self.alarms(0.4, 300, True), 190)
        self.assertGreater(self.alarms(0.4, 300, False), 190)

    def test_near_saturation(self):
        self.alarms(0.9, 1000, True)
        self.alarms(0.9, 1000, False)

    def test_beyond_saturation_there_is_no_verdict(self):
        self.assertLess(self.alarms(1.1, 300, True), 20)


class Requests(Compared):
    def rated(self, slower, count=400, repeats=1, load=0.4, policies=("contiguous", "vibe"), arrivals_too=False):
        rng, other = np.random.default_rng(1), np.random.default_rng(2)
        a, b = [], []
        for policy in policies:
            for repeat in range(repeats):
                arrived, work = requests(rng, load, count)
                for runs, times in ((a, 1.0), (b, slower.get(policy, 1.0))):
                    if arrivals_too:
                        arrived, work = requests(rng, load, count)
                    runs.append(phase(rate=load / DEVICES, policy=policy, repeat=repeat, arrived_s=arrived, tax=np.full(
                        32, 0.1), ttft_ms=queue_ms(other, arrived, times * work)))
        self.pair(a, b, slo=(2000.0, 0.0))

    def test_a_planted_slowdown_is_found_where_it_is(self):
        self.rated({"vibe": 1.05})
        status, found_cells = self.cells()
        verdicts = {cell["policy"]: cell["verdict"] for cell in found_cells["requests"]}
        self.assertEqual((status, verdicts), (1, {"contiguous": "no difference shown", "vibe": "slower"}))
        cell = found_cells["requests"][1]
        self.assertTrue(cell["paired"])
        with h5py.File(self.dir / "a/study.h5") as a, h5py.File(self.dir / "b/study.h5") as b:
            ttft = [1e3 * (file["phases/0001/serving/requests/first_token_s"][...]
                           - file["phases/0001/serving/requests/intended_s"][...]) for file in (a, b)]
        change = cell["ttft_ms"]["mean"]["change"]
        self.assertAlmostEqual(change["value"], ttft[1].mean() / ttft[0].mean() - 1)
        self.assertLess(change["low"], change["value"])
        for name, percent in (("p50", 50), ("p90", 90)):
            ordered = [np.sort(values)[-(-percent * len(values) // 100) - 1] for values in ttft]
            self.assertAlmostEqual(cell["ttft_ms"][name]["a"], ordered[0])
            self.assertAlmostEqual(cell["ttft_ms"][name]["change"]["value"], ordered[1] / ordered[0] - 1)
        shares = [(values <= 2000).mean() for values in ttft]
        self.assertAlmostEqual(cell["slo_attainment"]["difference"]["value"], shares[1] - shares[0])
        _, out, _ = self.compare()
        self.assertIn("2 of 2 cells paired by request", out)
        self.assertIn("requests/s per device", out)

    def test_other_requests_are_independent(self):
        self.rated({"contiguous": 1.5, "vibe": 1.5}, arrivals_too=True)
        status, cells = self.cells()
        self.assertEqual((status, {cell["paired"] for cell in cells["requests"]}), (1, {False}))

    def test_a_run_is_the_same_as_itself(self):
        self.rated({}, load=1.1)
        shutil.copy(self.dir / "a/study.h5", self.dir / "b/study.h5")
        status, cells = self.cells()
        self.assertEqual((status, {cell["verdict"] for cell in cells["requests"]}), (0, {"same"}))

    def test_beyond_saturation_repeats_decide(self):
        self.rated({"vibe": 1.3}, load=1.1, policies=("vibe",), count=200)
        self.assertEqual(self.cells()[1]["requests"][0]["verdict"], NOT_SUPPORTED)
        self.rated({"vibe": 1.3}, load=1.1, policies=("vibe",), count=200, repeats=5)
        status, cells = self.cells()
        self.assertEqual((status, cells["requests"][0]["verdict"]), (1, "slower"))

    def test_rates_are_not_mixed_up(self):
        slow, fast = np.full(50, 900.0), np.full(50, 100.0)
        self.pair([phase(rate=1.0, ttft_ms=fast), phase(rate=2.0, ttft_ms=slow)],
                  [phase(rate=2.0, ttft_ms=slow), phase(rate=4.0, ttft_ms=slow)])
        status, cells = self.cells()
        self.assertEqual([cell["rate"] for cell in cells["requests"]], [2.0])
        self.assertEqual((status, cells["requests"][0]["verdict"]), (0, "same"))
        self.assertEqual([cells[name][0]["rate"] for name in ("only_a", "only_b")], [1.0, 4.0])
        _, out, _ = self.compare()
        self.assertIn("Only in A: 1 cells", out)
        self.assertIn("Devices are not compared over phases that served requests", out)

    def test_other_limits_are_said(self):
        fast = [phase(rate=1.0, ttft_ms=np.full(50, 100.0))]
        write(self.dir / "a", fast, slo=(300.0, 0.0))
        write(self.dir / "b", fast, slo=(400.0, 0.0))
        self.assertIsNone(self.cells()[1]["requests"][0]["slo_attainment"])
        self.assertIn("not the same in A and B", self.compare()[1])


class Rates(Compared):
    def searched(self, *rates):
        return [phase(rate=rate or 64.0, repeat=repeat, max_rate=found(rate, 1.0, 64.0, [[1.0, 1.0]]))
                for repeat, rate in enumerate(rates)]

    def test_a_lower_rate_is_slower(self):
        self.pair(self.searched(2.0, 2.2, 2.1), self.searched(1.81, 1.97, 1.9), find_rate=True)
        status, cells = self.cells()
        (cell,) = cells["rates"]
        self.assertEqual((status, cell["verdict"], cell["rate"]), (1, "slower", "found"))
        logs = np.log([1.81 / 2.0, 1.97 / 2.2, 1.9 / 2.1])
        self.assertAlmostEqual(cell["max_rate"]["change"]["value"], np.expm1(logs.mean()))
        self.assertLess(cell["max_rate"]["change"]["high"], 0)

    def test_a_higher_rate_is_no_alarm(self):
        self.pair(self.searched(1.81, 1.97, 1.9), self.searched(2.0, 2.2, 2.1), find_rate=True)
        status, cells = self.cells()
        self.assertEqual((status, cells["rates"][0]["verdict"]), (0, "faster"))

    def test_two_repeats_support_no_verdict_and_the_same_are_the_same(self):
        self.pair(self.searched(2.0, 2.2), self.searched(1.8, 1.9), find_rate=True)
        self.assertEqual(self.cells()[1]["rates"][0]["verdict"], NOT_SUPPORTED)
        self.pair(self.searched(2.0, 2.2), self.searched(2.0, 2.2), find_rate=True)
        self.assertEqual(self.cells()[1]["rates"][0]["verdict"], "same")

    def test_what_was_not_found_is_said(self):
        self.pair(self.searched(2.0, None), self.searched(2.0, 2.2), find_rate=True)
        status, out, _ = self.compare()
        self.assertEqual(status, 0)
        self.assertIn("| not found | 2.1 | – |", out)

    def test_without_summary_it_is_refused(self):
        self.pair(self.searched(2.0), self.searched(2.0), find_rate=True, summary=False)
        status, _, err = self.compare()
        self.assertEqual(status, 2)
        self.assertIn("phase 0000 has no serving.max_rate", err)

    def test_searched_and_given_rates_have_no_cell_in_common(self):
        write(self.dir / "a", self.searched(2.0), find_rate=True)
        write(self.dir / "b", [phase(rate=2.0)])
        self.assertEqual(self.compare()[0], 2)


if __name__ == "__main__":
    unittest.main()
