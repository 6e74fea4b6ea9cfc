#!/usr/bin/env python3
"""Times PyTorch on the GPU for comparison with tools/bench_gpu.cu: its attention, and whole training steps.

    scripts/bench_gpu_pytorch.py [--json=bench_gpu.json] [--quick] [--steps-only] [--preset=NAME] [--kind=standard|laser]
                                 [--batch=B[,B...]] [--compile=model|blocks|none] [--timeout=SECONDS] PYTHON [PYTHON...]

Each PYTHON is an interpreter with PyTorch 2.4 or later. An interpreter that does not exist, or has no PyTorch or no GPU, is named
and left out.

Attention: the operands are bf16, 16,384 tokens and 2,048 columns, causal. Standard attention is scaled_dot_product_attention with
its flash kernels. LASER is written as in the paper, log(softmax(QK') exp(V - max)) + max, with the same kernels and under
torch.compile.

Steps: the models, sizes and micro-batches are those of bench_gpu, 32 sequences by default. The code is what an experienced user of
PyTorch would write: autocast to bf16 with float32 weights and residual stream, scaled_dot_product_attention with the kernel that
PyTorch chooses, the paper's LASER formula around it, cross-entropy over the full vocabulary, fused AdamW, torch.compile. A step
contains forward, loss, backward, update, and setting the gradients to None. As in bench_gpu, it contains no clipping, no logging and no
reading of tokens. It does not copy tokens to the GPU either, which bench_gpu's forward does. The time is the median of nine steps
after four untimed ones. Compiling the model takes a minute or two. --compile=blocks compiles one block for all layers, which takes
seconds, but its steps may be somewhat slower.

The MFU is computed as in the rest of this project: 6 N + 12 L C T floating-point operations a token, as a fraction of the rate of a
matrix product that bench_gpu has measured or, without bench_gpu's file, of the rate that PyTorch reaches. "ours" is our rate in
tokens/s divided by PyTorch's, if the file has our rate of that step.

For each case one line is printed and added to the JSON file, in the format of bench_gpu, with "library": "pytorch/VERSION".
"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import time

from bench_pytorch import find_version, make_optimizer

COLUMNS = 2048
KINDS = ("standard", "laser")
PRESETS = {  # layers, heads, head size, width, hidden, T, V, positions: those of tools/bench_gpu.cu
    "c4-301m": (32, 8, 128, 1024, 2048, 1024, 32000, "rope"),
    "gpt2-124m": (12, 12, 64, 768, 3072, 1024, 50304, "learned"),
}
TINY = (2, 2, 16, 32, 64, 48, 500)  # the sizes with --device=cpu, which checks that everything runs


# ---- in the interpreter that has PyTorch ----


def sizes_of(preset, device):
    return PRESETS[preset] if device == "cuda" else TINY + PRESETS[preset][-1:]


def papers_laser(attention, q, k, v):
    """LASER as the paper writes it, around any function for attention."""
    largest = v.detach().float().amax(2, keepdim=True)
    scaled = attention(q, k, (v.float() - largest).exp().to(v.dtype))
    return (scaled.float().log() + largest).to(v.dtype)


def attentions(torch, device):
    """The two as functions of q, k, v (B, H, T, D)."""
    from torch.nn import functional as F

    def standard(q, k, v):
        if device == "cpu":
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)
        from torch.nn.attention import SDPBackend, sdpa_kernel

        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)

    return {"standard": standard, "laser": torch.compile(lambda q, k, v: papers_laser(standard, q, k, v))}


def make_model(torch, sizes, laser):
    """model(tokens, targets) is the loss."""
    from torch import nn
    from torch.nn import functional as F

    L, H, D, C, hidden, T, V, positions = sizes
    A = H * D
    angle = torch.arange(T)[:, None] * 10000.0 ** (-2.0 * torch.arange(D // 2) / D)  # (T, D/2)

    def attention(q, k, v):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.attn_norm, self.mlp_norm = nn.Parameter(torch.ones(C)), nn.Parameter(torch.ones(C))
            self.qkv, self.o = nn.Linear(C, 3 * A, bias=False), nn.Linear(A, C, bias=False)
            self.up, self.down = nn.Linear(C, hidden, bias=False), nn.Linear(hidden, C, bias=False)

        def forward(self, x, cos, sin):
            q, k, v = self.qkv(F.rms_norm(x, (C,), self.attn_norm, 1e-6)).view(-1, T, 3, H, D).permute(2, 0, 3, 1, 4)
            if positions == "rope":
                q, k = (torch.cat((a * cos - b * sin, b * cos + a * sin), -1).to(v.dtype)
                        for a, b in (z.float().chunk(2, -1) for z in (q, k)))  # fmt: skip
            out = papers_laser(attention, q, k, v) if laser else attention(q, k, v)
            x = x + self.o(out.transpose(1, 2).reshape(-1, T, A))
            return x + self.down(F.gelu(self.up(F.rms_norm(x, (C,), self.mlp_norm, 1e-6)), approximate="tanh"))

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(V, C)
            self.position = nn.Parameter(torch.zeros(T, C)) if positions == "learned" else None
            self.blocks = nn.ModuleList(Block() for _ in range(L))
            self.norm = nn.Parameter(torch.ones(C))
            self.register_buffer("cos", angle.cos())
            self.register_buffer("sin", angle.sin())
            for p in self.parameters():
                if p.dim() > 1:
                    nn.init.normal_(p, 0, 0.02)

        def forward(self, tokens, targets):
            x = self.embed(tokens)
            if self.position is not None:
                x = x + self.position
            for block in self.blocks:
                x = block(x, self.cos, self.sin)
            logits = F.linear(F.rms_norm(x, (C,), self.norm, 1e-6), self.embed.weight)
            return F.cross_entropy(logits.view(-1, V), targets.view(-1))

    return Model()


def measure(torch, device, call, prepare=lambda: None, uncounted=2, counted=5):
    """The median time of call(prepare())."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    times = []
    for _ in range(uncounted + counted):
        prepared = prepare()
        wait()
        start = time.perf_counter()
        call(prepared)
        wait()
        times.append(time.perf_counter() - start)
    return statistics.median(times[uncounted:])


def open_device(device):
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("this PyTorch finds no GPU")
    if device == "cpu":
        torch.set_num_threads(1)  # sizes are tiny
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")
    return torch


def work_attention(arguments):
    """Prints a line of JSON for each shape."""
    torch, device = open_device(arguments.device), arguments.device
    for kind, attention in attentions(torch, device).items():
        for D in (64, 128) if arguments.kind in ("", kind) else ():
            T = 512
            while T <= (1024 if arguments.quick else 16384) and T <= arguments.tokens:
                B, H = arguments.tokens // T, COLUMNS // D
                q, k, v, dout = (torch.randn(B, H, T, D, device=device, dtype=torch.bfloat16) for _ in range(4))
                inputs = [x.requires_grad_() for x in (q, k, v)]
                forward = measure(torch, device, lambda _: attention(*inputs))
                backward = measure(
                    torch, device, lambda out: torch.autograd.grad(out, inputs, dout), lambda: attention(*inputs)
                )
                case = {"kind": kind, "T": T, "D": D, "tokens": B * T, "forward_s": forward, "backward_s": backward}
                print(json.dumps(case), flush=True)
                T *= 2


def work_step(arguments):
    """Prints a line of JSON for one preset, kind and batch."""
    torch, device = open_device(arguments.device), arguments.device
    B, sizes = int(arguments.batch), sizes_of(arguments.preset, device)
    T, V = sizes[5:7]
    n = 8192 if device == "cuda" else 64
    product = torch.randn(n, n, device=device, dtype=torch.bfloat16)
    peak = 2.0 * n**3 / measure(torch, device, lambda _: product @ product)
    del product
    model = make_model(torch, sizes, arguments.kind == "laser").to(device)
    optimizer = make_optimizer(torch, model.parameters())
    tokens, targets = (torch.randint(0, V, (B, T), device=device) for _ in range(2))
    run = torch.compile(model) if arguments.compile == "model" else model
    if arguments.compile == "blocks":
        for block in model.blocks:
            block.compile()

    def step(_):
        with torch.autocast(device, dtype=torch.bfloat16):
            loss = run(tokens, targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss

    start = time.perf_counter()
    loss = step(None).item()
    case = {"preset": arguments.preset, "kind": arguments.kind, "batch": B, "compile": arguments.compile, "device": device}
    case |= {"first_s": time.perf_counter() - start, "loss": loss}
    case["step_s"] = measure(torch, device, step, uncounted=4, counted=9)
    case |= {"tokens_per_s": B * T / case["step_s"], "peak": peak}
    case["bytes"] = torch.cuda.max_memory_allocated() if device == "cuda" else 0
    print(json.dumps(case), flush=True)


# ---- the driver ----


def read_lines(path):
    """The objects in the JSON file, which bench_gpu and this script have written."""
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]


def share(flops, seconds, peak):
    return f"{100 * flops / seconds / peak:5.1f} %" if peak else "    - %"


def flops_per_token(preset, device):
    L, H, D, C, hidden, T, V, _ = sizes_of(preset, device)
    return 6 * (L * (4 * C * H * D + 2 * C * hidden) + V * C) + 12 * L * H * D * T


def run_work(python, arguments, *options):
    """Runs a worker. Returns the objects that it printed, and why it ended early ("" if it did not)."""
    command = [shutil.which(python), os.path.abspath(__file__), "--device", arguments.device, *options]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=arguments.timeout, check=False)
        output, fault = run.stdout, (run.stderr.strip().splitlines() or ["?"])[-1] if run.returncode else ""
        if fault and "out of memory" in run.stderr.lower():
            fault = "out of memory: the GPU has too little; a smaller --batch may fit"
    except subprocess.TimeoutExpired as late:  # its output so far is bytes, even with text=True
        output, fault = (late.stdout or b"").decode(), f"not done after {arguments.timeout} s"
        output = output[: output.rfind("\n") + 1]
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")], fault


class Bench:
    """Runs the cases of one interpreter. Each is printed and added to the JSON file as soon as it is done."""

    def __init__(self, python, version, known, arguments):
        self.python, self.version, self.known, self.arguments = python, version, known, arguments
        self.peak = next((line["flops"] for line in known if line["what"] == "peak"), None)

    def add(self, what, case):
        with open(self.arguments.json, "a", encoding="utf-8") as file:
            file.write(json.dumps({"what": what, "library": f"pytorch/{self.version}", **case}) + "\n")

    def attention(self):
        """Times attention. Returns what went wrong, or ""."""
        arguments = self.arguments
        options = ["--case=attention", f"--tokens={arguments.tokens}", f"--kind={arguments.kind}"]
        cases, fault = run_work(self.python, arguments, *options, *["--quick"] * arguments.quick)
        for case in cases:
            flops = 2.0 * case["tokens"] * case["T"] * COLUMNS  # of two products, of which causal attention needs half
            case["forward_flops"] = flops / case["forward_s"]
            case["backward_flops"] = 2.5 * flops / case["backward_s"]
            print(
                f"PyTorch {self.version:<6} {case['kind']:<9} T {case['T']:6} D {case['D']:4}"
                f"   forward {1e3 * case['forward_s']:9.3f} ms {share(flops, case['forward_s'], self.peak)}"
                f"   backward {1e3 * case['backward_s']:9.3f} ms {share(2.5 * flops, case['backward_s'], self.peak)}"
            )
            self.add("attention", case)
        if fault:
            print(f"{self.python}: attention is left out from here on ({fault})", flush=True)
        return fault

    def step(self, preset, kind, batch):
        """Times one step. Returns its time, or None, and what went wrong, or ""."""
        options = ["--case=step", f"--preset={preset}", f"--kind={kind}", f"--batch={batch}"]
        options.append(f"--compile={self.arguments.compile}")
        cases, fault = run_work(self.python, self.arguments, *options)
        name = f"PyTorch {self.version:<6} {preset:<10} {kind:<9} B {batch:3}"
        if fault:
            print(f"{name}   left out ({fault})", flush=True)
        if not cases:
            return None, fault
        case = cases[0]
        peak = self.peak or case["peak"]
        case["mfu"] = case["tokens_per_s"] * flops_per_token(preset, self.arguments.device) / peak
        line = f"{name}   {1e3 * case['step_s']:8.2f} ms {case['tokens_per_s']:9.0f} tokens/s  MFU {100 * case['mfu']:4.1f} %"
        line += f"  {case['bytes'] / 2**30:5.1f} GiB  first step {case['first_s']:.0f} s"
        same = {"what": "step", "preset": preset, "kind": kind, "batch": batch}
        ours = [x for x in self.known if "library" not in x and all(x.get(key) == same[key] for key in same)]
        if ours and self.arguments.device == "cuda":
            case["ours"] = ours[-1]["tokens_per_s"] / case["tokens_per_s"]
            line += f"  ours {case['ours']:.2f} x"
        print(line, flush=True)
        self.add("step", case)
        return case["step_s"], fault

    def steps(self):
        """Times all steps that were asked for; ends early when the interpreter finds no GPU."""
        arguments = self.arguments
        for preset in [arguments.preset] if arguments.preset else PRESETS:
            for batch in map(int, arguments.batch.split(",")):
                times = {}
                for kind in [arguments.kind] if arguments.kind else KINDS:
                    times[kind], fault = self.step(preset, kind, batch)
                    if "finds no GPU" in fault:
                        return
                if all(times.get(kind) for kind in KINDS):
                    ratio = times["laser"] / times["standard"]
                    name = f"PyTorch {self.version:<6} {preset:<10} {'LASER':<9} B {batch:3}"
                    print(f"{name}   {ratio:.3f} of standard attention's step", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", default="bench_gpu.json", help="bench_gpu's file, to which the lines are added")
    parser.add_argument("--quick", action="store_true", help="attention only up to T = 1,024")
    parser.add_argument("--tokens", type=int, default=16384, help="tokens in a batch of attention")
    parser.add_argument("--steps-only", action="store_true", help="leave out attention by itself")
    parser.add_argument("--attention-only", action="store_true", help="leave out the steps")
    parser.add_argument("--preset", choices=PRESETS, help="time the steps of this model only; default: of each")
    parser.add_argument("--kind", choices=("",) + KINDS, default="", help="time this kind of attention only; default: both")
    parser.add_argument("--batch", default="32", help="sequences in a step, one number or several separated by commas")
    parser.add_argument("--compile", choices=("model", "blocks", "none"), default="model", help="what torch.compile compiles")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: tiny sizes, to check that everything runs")
    parser.add_argument("--timeout", type=int, default=300, help="seconds that attention may take, and each step")
    parser.add_argument("--case", choices=("attention", "step"), help=argparse.SUPPRESS)
    parser.add_argument("pythons", nargs="*")
    arguments = parser.parse_args()
    if arguments.case:
        {"attention": work_attention, "step": work_step}[arguments.case](arguments)
        return
    if not arguments.pythons:
        parser.error("name the interpreters whose PyTorch is to be timed: scripts/bench_gpu_pytorch.py python3")
    if not all(number.isdigit() and int(number) for number in arguments.batch.split(",")):
        parser.error(f"--batch={arguments.batch}: expected numbers from 1 on, separated by commas")
    try:
        known = read_lines(arguments.json)
    except (OSError, ValueError) as error:
        parser.error(f"cannot read --json={arguments.json}: {error}")
    for python in arguments.pythons:
        version = find_version(python)
        if not version:
            continue
        bench = Bench(python, version, known, arguments)
        fault = "" if arguments.steps_only else bench.attention()
        if not arguments.attention_only and "finds no GPU" not in fault:
            bench.steps()


if __name__ == "__main__":
    main()
