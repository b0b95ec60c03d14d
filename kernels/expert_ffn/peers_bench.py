#!/usr/bin/env python3
"""The experts' work by moevar's kernels and by PyTorch's grouped matrix product, on one GPU, as one table of ratios.

    python3 kernels/expert_ffn/peers_bench.py build/kernels/expert_ffn_cuda_bench [--out FILE.json] [--filter REGEX]

runs the benchmark program, then the same points (same sizes, same rows of every expert, CUDA graphs, events) with PyTorch:
torch._grouped_mm (or torch.nn.functional.grouped_mm), silu and product, torch._grouped_mm. vLLM's fused MoE kernel is timed
where vLLM can be imported; what is not there is a dash in the table. MOEVAR_LOADS=FILE: recorded counts, whose layer in the
middle the skewed points follow. With --results FILE.json an earlier output of the program is read instead of a run. Exit
status 1 where a result of PyTorch is not a number or too far from float's.
"""
import argparse
import json
import math
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile

SPAN_S = 5e-3  # of a timed batch of launches
BATCHES = 20
FLUSH_BYTES = 256 << 20


def run_program(program, pattern, folder):
    out = pathlib.Path(folder) / "expert_ffn.json"
    command = [program, f"--benchmark_out={out}", "--benchmark_out_format=json"]
    if pattern:
        command.append(f"--benchmark_filter={pattern}")
    subprocess.run(command, check=True)
    return json.loads(out.read_text())


def points_of(results):
    """{(model, tokens, skewed, cold): {"rows", "hidden", "intermediate", kind: {"us", "of_dense", "label"}}}"""
    points = {}
    for run in results["benchmarks"]:
        name = re.match(r"experts/(\w+)/model:(\d+)/tokens:(\d+)/skewed:(\d)/cold:(\d)", run["name"])
        if not name or run.get("run_type") == "aggregate":
            continue
        if run.get("error_occurred"):
            print(f"skipped: {run['name']}: {run['error_message']}", file=sys.stderr)
            continue
        label = re.match(r"(\S+) hidden=(\d+) intermediate=(\d+) rows=([\d,]+) \[(.*)\]", run["label"])
        key = (label[1], int(name[3]), int(name[4]), int(name[5]))
        point = points.setdefault(key, {"hidden": int(label[2]), "intermediate": int(label[3]),
                                        "rows": [int(n) for n in label[4].split(",")]})
        point[name[1]] = {"us": run["real_time"], "of_dense": run["of_dense"], "label": label[5]}
    return points


class Peers:
    """What else can do the work here, by name: called with x [rows, hidden], the ends of the groups, w13 [experts, 2
    intermediate, hidden] and w2 [experts, hidden, intermediate]."""

    def __init__(self):
        import torch
        self.torch = torch
        self.grouped_mm = getattr(torch, "_grouped_mm", None) or getattr(torch.nn.functional, "grouped_mm", None)
        self.fused_moe = None
        try:
            from vllm.model_executor.layers.fused_moe import fused_experts
            self.fused_moe = fused_experts
        except Exception as error:  # vLLM has many ways not to import
            print(f"vLLM's fused MoE is not here: {type(error).__name__}: {error}".splitlines()[0], file=sys.stderr)
        self.flush = torch.empty(FLUSH_BYTES, dtype=torch.int8, device="cuda")

    def torch_grouped(self, x, ends, w13, w2):
        silu = self.torch.nn.functional.silu
        gate, up = self.grouped_mm(x, w13.transpose(1, 2), offs=ends).chunk(2, dim=1)
        return self.grouped_mm(silu(gate) * up, w2.transpose(1, 2), offs=ends)

    def vllm_fused(self, x, ids, w13, w2):
        ones = self.torch.ones(ids.shape, dtype=self.torch.float32, device="cuda")
        return self.fused_moe(x, w13, w2, ones, ids)

    def time_us(self, work, cold):
        """Median time of a run as a CUDA graph; without one where the work cannot be captured."""
        torch = self.torch
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            for _ in range(3):
                work()
        torch.cuda.synchronize()
        launch = work
        try:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                work()
            launch = graph.replay
        except RuntimeError as error:
            print(f"not in a graph: {str(error).splitlines()[0]}", file=sys.stderr)
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

        def span_us(launches):
            if cold:
                self.flush.zero_()
            start.record()
            for _ in range(launches):
                launch()
            end.record()
            end.synchronize()
            return 1e3 * start.elapsed_time(end) / launches

        first = span_us(1)
        launches = 1 if cold else max(1, min(100, math.ceil(1e6 * SPAN_S / first)))
        return statistics.median(span_us(launches) for _ in range(BATCHES))

    def check(self, work, x, rows, w13, w2):
        """Relative error of the first rows of the first experts that have some, against float32."""
        torch = self.torch
        y = work()
        first = 0
        worst = 0.0
        for expert, count in list(enumerate(rows))[:3]:
            few = slice(first, first + min(count, 16))
            first += count
            if count == 0:
                continue
            gate, up = (x[few].float() @ w13[expert].float().T).chunk(2, dim=1)
            expected = (torch.nn.functional.silu(gate) * up) @ w2[expert].float().T
            worst = max(worst, float((y[few].float() - expected).norm() / expected.norm()))
        return worst

    def measure(self, key, point):
        torch = self.torch
        rows, hidden, intermediate = point["rows"], point["hidden"], point["intermediate"]
        experts, total = len(rows), sum(rows)
        need = 2 * (3 * experts * hidden * intermediate + total * (2 * hidden + 5 * intermediate))
        if need > torch.cuda.mem_get_info()[0]:
            print(f"skipped: PyTorch at {key}: {need >> 20} MiB", file=sys.stderr)
            return {}
        torch.manual_seed(1)
        random = lambda *shape: torch.empty(*shape, dtype=torch.bfloat16, device="cuda").uniform_(-1, 1)
        x = random(total, hidden)
        w13 = random(experts, 2 * intermediate, hidden) / math.sqrt(hidden)
        w2 = random(experts, hidden, intermediate) / math.sqrt(intermediate)
        ends = torch.tensor(rows, device="cuda").cumsum(0).to(torch.int32)
        works = {}
        if self.grouped_mm is not None:
            works["torch_grouped_mm"] = lambda: self.torch_grouped(x, ends, w13, w2)
        if self.fused_moe is not None:
            ids = torch.repeat_interleave(torch.arange(experts, device="cuda", dtype=torch.int32),
                                          torch.tensor(rows, device="cuda"))[:, None]
            works["vllm_fused_moe"] = lambda: self.vllm_fused(x, ids, w13, w2)
        measured = {}
        for name, work in works.items():
            try:
                error = self.check(work, x, rows, w13, w2)
                measured[name] = {"us": self.time_us(work, key[3]), "error": error}
            except (RuntimeError, ValueError) as failure:
                print(f"{name} at {key}: {str(failure).splitlines()[0]}", file=sys.stderr)
        return measured


def table(points):
    """Lines: a point each, then the worst ratio to every other."""
    head = (f"{'model':12} {'tokens':>6} {'rows':8} {'L2':4} {'bf16 us':>9} {'of dense':>8} {'vs loop':>8} {'vs torch':>8} "
            f"{'vs vLLM':>8} {'fp8 vs bf16':>11}  chosen")
    lines = [head]
    for key, point in sorted(points.items()):
        ours = point.get("bf16")
        if ours is None:
            continue

        def ratio(name):
            other = point.get(name)
            return f"{other['us'] / ours['us']:8.2f}" if other else f"{'-':>8}"

        faster = f"{ours['us'] / point['fp8']['us']:11.2f}" if "fp8" in point else f"{'-':>11}"
        lines.append(f"{key[0]:12} {key[1]:6} {('uniform', 'skewed')[key[2]]:8} {('warm', 'cold')[key[3]]:4} {ours['us']:9.1f} "
                     f"{100 * ours['of_dense']:7.1f}% {ratio('cublaslt_loop')} {ratio('torch_grouped_mm')} "
                     f"{ratio('vllm_fused_moe')} {faster}  {ours['label']}")
    for name in ("cublaslt_loop", "torch_grouped_mm", "vllm_fused_moe"):
        ratios = {key: p[name]["us"] / p["bf16"]["us"] for key, p in points.items() if name in p and "bf16" in p}
        if ratios:
            worst = min(ratios, key=ratios.get)
            lines.append(f"worst against {name}: {ratios[worst]:.2f}, {worst[0]} at {worst[1]} tokens, "
                         f"{('uniform', 'skewed')[worst[2]]}, {('warm', 'cold')[worst[3]]}")
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", nargs="?", help="expert_ffn_cuda_bench")
    parser.add_argument("--results", help="its JSON from an earlier run")
    parser.add_argument("--filter", help="which of its benchmarks to run (regular expression)")
    parser.add_argument("--out", help="all measurements as JSON")
    args = parser.parse_args()
    if bool(args.program) == bool(args.results):
        parser.error("either the benchmark program or --results")
    if args.results:
        results = json.loads(pathlib.Path(args.results).read_text())
    else:
        with tempfile.TemporaryDirectory() as folder:
            results = run_program(args.program, args.filter, folder)
    points = points_of(results)
    peers = Peers()
    wrong = []
    for key, point in points.items():
        measured = peers.measure(key, point)
        point.update(measured)
        wrong += [f"{name} at {key}: relative error {m['error']:.3g}" for name, m in measured.items()
                  if not m["error"] < 2e-2]
    print("\n".join(table(points)))
    print("ratios above 1: moevar is faster; of dense: of a cuBLASLt product of 8192 x 8192 x 8192 in the same run")
    if args.out:
        named = [{"model": k[0], "tokens": k[1], "skewed": k[2], "cold": k[3], **p} for k, p in points.items()]
        pathlib.Path(args.out).write_text(json.dumps({"context": results["context"], "points": named}, indent=1))
    print("\n".join(wrong), file=sys.stderr, end="\n" if wrong else "")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
