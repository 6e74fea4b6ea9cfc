#!/usr/bin/env python3
"""PyTorch's attention on the GPU, at the shapes that tools/bench_gpu.cu times.

    scripts/bench_gpu_pytorch.py [--json=bench_gpu.json] [--quick] PYTHON [PYTHON...]

Each PYTHON is an interpreter; one that is absent or has no PyTorch or no GPU is named and left out. Operands are bf16,
16,384 tokens and 2,048 columns, causal. Standard attention is scaled_dot_product_attention with its flash kernels;
LASER is written as in the paper, log(softmax(QK') exp(V - max)) + max, around the same kernels, under torch.compile.

A line a shape is printed and added to the JSON file, as those of bench_gpu are, with "library": "pytorch/VERSION"; the
shares are of the product's rate that bench_gpu has measured there.
"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import time

from bench_pytorch import find_version

COLUMNS = 2048


# ---- in the interpreter that has PyTorch ----


def attentions(torch, device):
    """The two as functions of q, k, v (B, H, T, D)."""
    from torch.nn import functional as F

    def standard(q, k, v):
        if device == "cpu":
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)
        from torch.nn.attention import SDPBackend, sdpa_kernel

        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)

    def laser(q, k, v):
        largest = v.detach().float().amax(2, keepdim=True)
        scaled = standard(q, k, (v.float() - largest).exp().to(v.dtype))
        return (scaled.float().log() + largest).to(v.dtype)

    return {"standard": standard, "laser": torch.compile(laser)}


def measure(torch, device, call, prepare=lambda: None):
    """The median of five times of call(prepare()), after two that are not counted."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    times = []
    for _ in range(7):
        prepared = prepare()
        wait()
        start = time.perf_counter()
        call(prepared)
        wait()
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


def work(arguments):
    """Prints a line of JSON for each shape."""
    import torch

    device = arguments.device
    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("this PyTorch finds no GPU")
    torch.manual_seed(0)
    for kind, attention in attentions(torch, device).items():
        for D in (64, 128):
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


# ---- the driver ----


def peak_of(path):
    """The rate of products that bench_gpu has measured, or None."""
    if not os.path.exists(path):
        return None
    with open(path, encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    return next((line["flops"] for line in lines if line["what"] == "peak"), None)


def share(flops, seconds, peak):
    return f"{100 * flops / seconds / peak:5.1f} %" if peak else "    - %"


def bench(python, version, peak, arguments):
    """Lines for the JSON file."""
    command = [shutil.which(python), os.path.abspath(__file__), "--case", "--device", arguments.device]
    command += ["--tokens", str(arguments.tokens)] + ["--quick"] * arguments.quick
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=arguments.timeout, check=False)
        output, fault = run.stdout, run.returncode and (run.stderr.strip().splitlines() or ["?"])[-1]
    except subprocess.TimeoutExpired as late:  # what it has printed until then is bytes, whatever `text` says
        output, fault = (late.stdout or b"").decode(), f"not done after {arguments.timeout} s"
        output = output[: output.rfind("\n") + 1]
    lines = []
    for text in output.splitlines():
        case = {"what": "attention", "library": f"pytorch/{version}", **json.loads(text)}
        flops = 2.0 * case["tokens"] * case["T"] * COLUMNS  # of two products, half of each
        case["forward_flops"] = flops / case["forward_s"]
        case["backward_flops"] = 2.5 * flops / case["backward_s"]
        print(
            f"PyTorch {version:<6} {case['kind']:<9} T {case['T']:6} D {case['D']:4}"
            f"   forward {1e3 * case['forward_s']:9.3f} ms {share(flops, case['forward_s'], peak)}"
            f"   backward {1e3 * case['backward_s']:9.3f} ms {share(2.5 * flops, case['backward_s'], peak)}"
        )
        lines.append(case)
    if fault:
        print(f"{python}: left out from here on ({fault})")
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", default="bench_gpu.json", help="bench_gpu's file, to which the lines are added")
    parser.add_argument("--quick", action="store_true", help="T up to 1,024")
    parser.add_argument("--tokens", type=int, default=16384, help="of a batch")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: to see that all of it runs")
    parser.add_argument("--timeout", type=int, default=300, help="seconds that an interpreter may take")
    parser.add_argument("--case", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("pythons", nargs="*")
    arguments = parser.parse_args()
    if arguments.case:
        work(arguments)
        return
    peak = peak_of(arguments.json)
    for python in arguments.pythons:
        version = find_version(python)
        lines = bench(python, version, peak, arguments) if version else []
        with open(arguments.json, "a", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)


if __name__ == "__main__":
    main()
