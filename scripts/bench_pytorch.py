#!/usr/bin/env python3
"""Times PyTorch at the same training steps as tools/bench.c.

    scripts/bench_pytorch.py [--json=bench.json] [--filter=TEXT[,TEXT...]] [--batch=N] [--threads=N] [--quick] PYTHON...

Each PYTHON is an interpreter. One that does not exist or has no PyTorch is named and left out.

The model is that of train_gpt.c: the same sizes, RMSNorm, rope or learned positions, gelu (tanh form), the embedding as
output matrix, no biases. A step is micro-steps (forward, loss, backward) until 65,536 tokens have accumulated, then
clipping and AdamW. Its time is computed from the best time of a micro-step and of an update. PyTorch is used in its fastest
form: scaled_dot_product_attention and fused AdamW where the version has them; for bf16 the better of autocast and a
model whose parameters are bf16; and a malloc that keeps freed memory instead of returning it to the system (a tenth
faster than the default). LASER is written as in the paper: log(softmax(QK') exp(V - max)) + max. If the version has
torch.compile, the steps are also timed with every block compiled (this needs a C++ compiler and Python's headers).

After every case a result is added to the JSON file: pytorch/VERSION/step/MODEL/DTYPE/ATTENTION in tokens/s, where VERSION
is 1.13, 2.4, 2.4-compile, ... If the file has our own time of this step, vs_pytorch/[VERSION/]MODEL/DTYPE/ATTENTION is
added too: our tokens/s divided by PyTorch's. The first version in the file is not named there. The ratio in the printed
table is the time of a LASER micro-step divided by that of a standard one.
"""
import argparse
import json
import math
import os
import re
import shutil
import subprocess
import sys
import time

MODELS = {  # layers, heads, head size, width, hidden, T, V, positions
    "c4-301m": (32, 8, 128, 1024, 2048, 1024, 32000, "rope"),
    "gpt2-124m": (12, 12, 64, 768, 3072, 1024, 50257, "learned"),
}
STEP_TOKENS = 65536
KINDS = ("standard", "laser")


# ---- in the interpreter that has PyTorch: one model, one dtype, one way to run it ----


def make_model(torch, name):
    from torch import nn
    from torch.nn import functional as F

    L, H, D, C, hidden, T, V, positions = MODELS[name]
    A = H * D
    angle = torch.arange(T)[:, None] * 10000.0 ** (-2.0 * torch.arange(D // 2) / D)
    cos, sin = (torch.cat((f(angle), f(angle)), 1) for f in (torch.cos, torch.sin))  # (T, D)
    future = torch.ones(T, T, dtype=torch.bool).triu(1)

    class Norm(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(C))

        def forward(self, x):
            if hasattr(F, "rms_norm"):
                return F.rms_norm(x, (C,), self.weight, 1e-6)
            return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight

    def attention(q, k, v):
        if hasattr(F, "scaled_dot_product_attention"):
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)
        scores = (q @ k.transpose(-2, -1) / math.sqrt(D)).masked_fill(future, -math.inf)
        return scores.softmax(-1) @ v

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.attn_norm, self.mlp_norm = Norm(), Norm()
            self.qkv, self.o = nn.Linear(C, 3 * A, bias=False), nn.Linear(A, C, bias=False)
            self.up, self.down = nn.Linear(C, hidden, bias=False), nn.Linear(hidden, C, bias=False)
            if positions == "rope":
                self.register_buffer("cos", cos)
                self.register_buffer("sin", sin)

        def rope(self, x):
            a, b = x.chunk(2, -1)
            return x * self.cos.to(x.dtype) + torch.cat((-b, a), -1) * self.sin.to(x.dtype)

        def forward(self, x, laser: bool):
            B, T, _ = x.shape
            q, k, v = (z.view(B, T, H, D).transpose(1, 2) for z in self.qkv(self.attn_norm(x)).chunk(3, -1))
            if positions == "rope":
                q, k = self.rope(q), self.rope(k)
            if laser:
                largest = v.detach().amax(2, keepdim=True)
                out = attention(q, k, (v - largest).exp().to(v.dtype)).log() + largest
            else:
                out = attention(q, k, v)
            x = x + self.o(out.transpose(1, 2).reshape(B, T, A))
            return x + self.down(F.gelu(self.up(self.mlp_norm(x)), approximate="tanh"))

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(V, C)
            nn.init.normal_(self.embed.weight, 0, 0.02)
            self.position = nn.Parameter(torch.zeros(T, C)) if positions == "learned" else 0
            self.blocks = nn.ModuleList(Block() for _ in range(L))
            self.norm = Norm()

        def forward(self, tokens, targets, laser: bool):
            x = self.embed(tokens) + self.position
            for block in self.blocks:
                x = block(x, laser)
            logits = F.linear(self.norm(x), self.embed.weight).view(-1, V)
            return F.cross_entropy(logits.float(), targets.view(-1))

    return Model()


def make_optimizer(torch, parameters):
    for fast in ({"fused": True}, {}):
        try:
            return torch.optim.AdamW(parameters, lr=1e-5, betas=(0.9, 0.95), weight_decay=0.1, **fast)
        except (TypeError, RuntimeError):  # this version has no fused AdamW, or none for the CPU
            continue
    raise SystemExit("no AdamW")


def work(name, dtype, way, batch, threads, quick):
    """Times one case; the last line of the output is JSON."""
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(threads or len(os.sched_getaffinity(0)))
    T, V = MODELS[name][5], MODELS[name][6]
    model = make_model(torch, name)
    if dtype == "bf16" and way == "pure":
        model = model.bfloat16()
    optimizer = make_optimizer(torch, model.parameters())
    tokens = torch.randint(0, V, (batch, T))
    targets = torch.randint(0, V, (batch, T))
    if way == "compile":
        for block in model.blocks:
            block.compile()

    def micro_step(laser):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == "bf16" and way != "pure"):
            loss = model(tokens, targets, laser)
        loss.backward()
        return loss

    def update():
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)  # keeps the memory of the gradients, so that the next, timed micro-step has no page faults

    best = {"standard": math.inf, "laser": math.inf, "update": math.inf}

    def timed(what, call, *arguments):
        start = time.perf_counter()
        call(*arguments)
        best[what] = min(best[what], time.perf_counter() - start)

    for laser in (False, True):
        loss = micro_step(laser)  # not timed: memory is allocated, kernels are chosen or compiled
    update()
    start, turns = time.perf_counter(), 0
    while turns < 2 or time.perf_counter() - start < (2 if quick else 12):
        for kind in KINDS if turns % 2 == 0 else KINDS[::-1]:
            timed(kind, micro_step, kind == "laser")
        timed("update", update)
        turns += 1
    version = ".".join(torch.__version__.split(".")[:2])
    print(json.dumps({"version": version, "loss": loss.item(), **best}))


# ---- the driver ----


def flops_per_token(name):
    L, H, D, C, hidden, T, V, _ = MODELS[name]
    return 6 * (L * (4 * C * H * D + 2 * C * hidden) + V * C) + 12 * L * H * D * T


def find_version(python):
    """Version of PyTorch, or None with the reason printed."""
    path = shutil.which(python)
    if not path:
        print(f"{python}: not found, left out")
        return None
    probe = subprocess.run([path, "-c", "import torch; print(torch.__version__)"], capture_output=True, text=True)
    if probe.returncode != 0:
        print(f"{python}: has no PyTorch, left out ({(probe.stderr.strip().splitlines() or ['?'])[-1]})")
        return None
    version = re.match(r"\d+\.\d+", probe.stdout)
    if not version:
        print(f"{python}: is not Python, left out")
        return None
    print(f"{python}: PyTorch {version[0]}")
    return version[0]


def run_case(python, name, dtype, way, arguments):
    command = [shutil.which(python), os.path.abspath(__file__), "--case", name, dtype, way]
    command += ["--batch", str(arguments.batch), "--threads", str(arguments.threads)]
    command += ["--quick"] if arguments.quick else []
    keep = {"MALLOC_TRIM_THRESHOLD_": "100000000000", "MALLOC_MMAP_THRESHOLD_": "100000000000"}  # settings of glibc
    try:
        run = subprocess.run(
            command, capture_output=True, text=True, timeout=arguments.timeout, env={**os.environ, **keep}
        )
    except subprocess.TimeoutExpired:
        print(f"  {name}/{dtype} {way}: more than {arguments.timeout} s, left out")
        return None
    if run.returncode != 0:
        print(f"  {name}/{dtype} {way}: failed: {(run.stderr.strip().splitlines() or ['?'])[-1]}")
        return None
    return json.loads(run.stdout.strip().splitlines()[-1])


class Table:
    """The results in the JSON file: those that it had, and those of this run."""

    def __init__(self, path):
        self.path, self.figures = path, {}
        if path and os.path.exists(path) and os.path.getsize(path):
            with open(path, encoding="utf-8") as file:
                figures = json.load(file)
            if not isinstance(figures, list):
                raise ValueError
            self.figures = {figure["name"]: figure for figure in figures}

    def value(self, name):
        return self.figures[name]["value"] if name in self.figures else None

    def add(self, name, value, unit, share=None):
        self.figures[name] = {"name": name, "value": value, "unit": unit}
        if share:
            self.figures[name]["share_of_peak"] = share

    def add_ratios(self):
        first = None
        self.figures = {name: f for name, f in self.figures.items() if not name.startswith("vs_pytorch/")}
        for figure in list(self.figures.values()):
            library, _, rest = figure["name"].partition("/")
            version, _, step = rest.partition("/")
            if library != "pytorch" or self.value(step) is None:
                continue
            first = first or version
            place = "" if version == first else version + "/"
            ratio = self.value(step) / figure["value"]
            self.add(f"vs_pytorch/{place}{step.partition('/')[2]}", ratio, "ratio")

    def write(self):
        self.add_ratios()
        if self.path:
            with open(self.path, "w", encoding="utf-8") as file:
                file.write("[\n" + ",\n".join(json.dumps(f) for f in self.figures.values()) + "\n]\n")


def report(table, label, name, dtype, times, arguments):
    """Prints one line with the rates of standard and LASER attention and their ratio, and adds them to the table."""
    micro_steps = max(1, STEP_TOKENS // (arguments.batch * MODELS[name][5]))
    line, version = f"{label:<22}{name + '/' + dtype:<16}", label.split()[0]
    for kind in KINDS:
        seconds = micro_steps * times[kind] + times["update"]
        rate = micro_steps * arguments.batch * MODELS[name][5] / seconds
        peak, ours = table.value(f"peak/{dtype}"), table.value(f"step/{name}/{dtype}/{kind}")
        share = rate * flops_per_token(name) / (1e9 * peak) if peak else None
        table.add(f"pytorch/{version}/step/{name}/{dtype}/{kind}", rate, "tokens/s", share)
        line += f"{rate:12.1f}" + (f"{ours / rate:8.2f} x" if ours else f"{'-':>10}")
    ratio, micro, update = times["laser"] / times["standard"], 1e3 * times["standard"], 1e3 * times["update"]
    print(f"{line}{ratio:10.3f}{micro:12.0f}{update:11.0f}", flush=True)


def wanted(filter, name):
    """Whether the name contains one of the comma-separated words, or there are no words; as in gpt/base/filter.h."""
    return not filter or any(word and word in name for word in filter.split(","))


def wanted_cases(version, filter):
    """Yields (model, dtype, ways) for the cases whose names the filter chooses."""
    modern = int(version.split(".")[0]) >= 2
    for name in MODELS:
        for dtype in ("fp32", "bf16"):
            ways = (["pure", "autocast"] if dtype == "bf16" else ["plain"]) + ["compile"] * modern
            prefix = {"compile": f"{version}-compile"}
            ways = [w for w in ways if wanted(filter, f"pytorch/{prefix.get(w, version)}/step/{name}/{dtype}/{w}")]
            if ways:
                yield name, dtype, ways


def bench(python, version, table, arguments, name, dtype, ways):
    results = {way: run_case(python, name, dtype, way, arguments) for way in ways}
    eager = {way: times for way, times in results.items() if times and way != "compile"}
    if eager:
        way = min(eager, key=lambda w: eager[w]["standard"] + eager[w]["laser"])
        report(table, f"{version} {way}", name, dtype, eager[way], arguments)
    if results.get("compile"):
        report(table, f"{version}-compile", name, dtype, results["compile"], arguments)
    table.write()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", default="", help="file to which the results are added; it may have those of tools/bench.c")
    parser.add_argument("--filter", default="", help="only cases whose names contain one of these texts: 2.4-compile/step/c4-301m")
    parser.add_argument("--batch", type=int, default=1, help="sequences in a micro-step")
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    parser.add_argument("--quick", action="store_true", help="only a turn or two of each case")
    parser.add_argument("--timeout", type=int, default=300, help="seconds that a case may take")
    parser.add_argument("--case", nargs=3, metavar=("MODEL", "DTYPE", "WAY"), help=argparse.SUPPRESS)
    parser.add_argument("pythons", nargs="*")
    arguments = parser.parse_args()
    if arguments.case:
        work(*arguments.case, arguments.batch, arguments.threads, arguments.quick)
        return
    if not arguments.pythons:
        parser.error("name the interpreters whose PyTorch is to be timed: scripts/bench_pytorch.py python3")
    if arguments.batch < 1 or arguments.threads < 0:
        parser.error("--batch must be at least 1, --threads at least 0")
    try:
        table = Table(arguments.json)
        table.write()  # a file that cannot be written is an error now, not after a quarter of an hour
    except OSError as error:
        parser.error(f"cannot use --json={arguments.json}: {error.strerror}")
    except (ValueError, TypeError, KeyError):
        parser.error(f"{arguments.json} is not a list of results: choose another --json")
    versions = [(p, v) for p in arguments.pythons for v in [find_version(p)] if v]
    cases = [(p, v, c) for p, v in versions for c in wanted_cases(v, arguments.filter)]
    if versions and not cases:
        print(f"--filter={arguments.filter} is part of no name of a step of PyTorch")
    if cases:
        heads = f"{'standard':>12}{'ours is':>10}{'LASER':>12}{'ours is':>10}{'ratio':>10}{'micro ms':>12}{'update ms':>11}"
        print(f"{'PyTorch':<22}{'model/dtype':<16}{heads}")
    for python, version, case in cases:
        bench(python, version, table, arguments, *case)


if __name__ == "__main__":
    main()
