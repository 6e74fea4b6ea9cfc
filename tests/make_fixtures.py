#!/usr/bin/env python3
"""Fixed numbers of small models from PyTorch, for the tests of train_gpt.c.

    python3 tests/make_fixtures.py            writes tests/fixtures/NAME/, one folder a case
    python3 tests/make_fixtures.py --check    says how far the same models are from these numbers in float32

Needs PyTorch (1.13 and 2.15 gave the same bytes) and nothing else. The model is that of train_gpt.c, written
with PyTorch's own operations in float64 and differentiated by autograd, so that nothing is shared with the C
code. A folder holds

    config.json            the shape, with Hugging Face's key names where there are such
    model.safetensors      the weights, float32, under the names of our checkpoints
    expected.safetensors   float32: inputs, targets (B, T) as numbers; logits (B, T, V); loss; grad.NAME of every
                           weight; and for the cases with ten steps: steps.inputs, steps.targets (10, B, T),
                           steps.lr, steps.loss, steps.norm (10; the norm before clipping), after.NAME

The ten steps are torch.optim.AdamW with betas 0.9 and 0.95, eps 1e-8, decay 0.1 on tensors of two dimensions and 0
on the others, after scaling the gradients by min(1, 1 / global norm). Weights are larger than a training run
begins with, so that attention is far from uniform and every term of the gradients counts.
"""
import json
import math
import os
import struct
import sys

import torch

BETAS, EPS, WEIGHT_DECAY, CLIP, STEPS = (0.9, 0.95), 1e-8, 0.1, 1.0, 10

MAIN = dict(layers=2, heads=3, head_dim=6, embd=16, hidden=40, vocab=53, seq_len=11, batch=2,
            attention="standard", mlp="gelu", pos="rope", steps=True)
SMALL = dict(MAIN, layers=1, heads=2, head_dim=8, hidden=24, vocab=31, seq_len=7, steps=False)
CASES = {
    "standard": MAIN,
    "laser": dict(MAIN, attention="laser"),
    "swiglu": dict(SMALL, attention="laser", mlp="swiglu"),
    "relu": dict(SMALL, mlp="relu"),
    "learned": dict(SMALL, attention="laser", pos="learned"),
    "sinusoidal": dict(SMALL, pos="sinusoidal"),
    # the model of the preset c4-301m-pax, with lower caps than its 50 and 30, so that these small logits feel them
    "pax": dict(SMALL, attention="laser", pos="sinusoidal", norm="layernorm", bias="mlp", embed_scale=True,
                attn_scale="dim", attn_softcap=1.5, logit_softcap=2.5),
}


def shapes(c):
    """Every weight's name and shape; matrices are (out, in)."""
    wide, narrow = c["heads"] * c["head_dim"], c["embd"]
    out = {"model.embed_tokens.weight": (c["vocab"], narrow)}
    if c["pos"] == "learned":
        out["model.embed_positions.weight"] = (c["seq_len"], narrow)
    for i in range(c["layers"]):
        layer = f"model.layers.{i}."
        out[layer + "input_layernorm.weight"] = (narrow,)
        if c.get("bias"):
            out[layer + "input_layernorm.bias"] = (narrow,)
        for name in "qkv":
            out[layer + f"self_attn.{name}_proj.weight"] = (wide, narrow)
        out[layer + "self_attn.o_proj.weight"] = (narrow, wide)
        if c.get("attn_scale"):
            out[layer + "self_attn.scale.weight"] = (c["head_dim"],)
        out[layer + "post_attention_layernorm.weight"] = (narrow,)
        if c.get("bias"):
            out[layer + "post_attention_layernorm.bias"] = (narrow,)
            out[layer + "mlp.up_proj.bias"] = (c["hidden"],)
            out[layer + "mlp.down_proj.bias"] = (narrow,)
        for name in ("gate", "up") if c["mlp"] == "swiglu" else ("up",):
            out[layer + f"mlp.{name}_proj.weight"] = (c["hidden"], narrow)
        out[layer + "mlp.down_proj.weight"] = (narrow, c["hidden"])
    out["model.norm.weight"] = (narrow,)
    if c.get("bias"):
        out["model.norm.bias"] = (narrow,)
    return out


def init(c, generator):
    """Float32 numbers held in float64, because float32 is what the file holds."""
    weights = {}
    for name, shape in shapes(c).items():
        x = torch.randn(shape, generator=generator, dtype=torch.float64)
        if name.endswith(".bias") or "scale" in name:
            x = 0.3 * x
        elif len(shape) == 1:  # a small last norm keeps the global norm on both sides of the clip
            x = (0.4 if name == "model.norm.weight" else 1.0) * (1 + 0.2 * x)
        else:
            x = x * (0.2 if name == "model.embed_tokens.weight" else 0.35)
        weights[name] = x.float().double()
    return weights


def norm(c, w, name, x):
    if c.get("norm") == "layernorm":
        return torch.nn.functional.layer_norm(x, x.shape[-1:], w[name + ".weight"], w.get(name + ".bias"), 1e-6)
    return x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * w[name + ".weight"]


def softcap(x, cap):
    return cap * torch.tanh(x / cap) if cap else x


def rope(x):
    """x (B, H, T, D): the pair (d, d + D/2) turned by t / 10000^(2d/D)."""
    t, d = x.shape[-2], x.shape[-1]
    angle = torch.arange(t, dtype=x.dtype)[:, None] / 10000 ** (torch.arange(0, d, 2, dtype=x.dtype) / d)
    a, b = x[..., : d // 2], x[..., d // 2:]
    return torch.cat((a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()), -1)


def attention(q, k, v, kind, cap):
    t = q.shape[-2]
    scores = softcap(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]), cap)
    scores = scores.masked_fill(torch.ones(t, t).triu(1).bool(), -math.inf)
    log_a = torch.log_softmax(scores, -1)
    if kind == "standard":
        return log_a.exp() @ v
    # o_id = log sum_j a_ij exp(v_jd), term by term: (B, H, i, j, d)
    return torch.logsumexp(log_a[..., None] + v[:, :, None], 3)


def activation(x, w, layer, kind):
    up = x @ w[layer + "mlp.up_proj.weight"].T + w.get(layer + "mlp.up_proj.bias", 0)
    if kind == "relu":
        return torch.relu(up)
    if kind == "swiglu":
        return torch.nn.functional.silu(x @ w[layer + "mlp.gate_proj.weight"].T) * up
    return 0.5 * up * (1 + torch.tanh(math.sqrt(2 / math.pi) * (up + 0.044715 * up.pow(3))))


def positions(c, w, t, dtype):
    if c["pos"] == "learned":
        return w["model.embed_positions.weight"][:t]
    table = torch.zeros(t, c["embd"], dtype=dtype)
    if c["pos"] == "sinusoidal":
        angle = torch.arange(t, dtype=dtype)[:, None] / 10000 ** (torch.arange(0, c["embd"], 2, dtype=dtype) / c["embd"])
        table[:, 0::2], table[:, 1::2] = angle.sin(), angle.cos()
    return table


def forward(c, w, tokens):
    """tokens (B, T) -> logits (B, T, V)"""
    b, t = tokens.shape
    x = w["model.embed_tokens.weight"][tokens] * (math.sqrt(c["embd"]) if c.get("embed_scale") else 1)
    x = x + positions(c, w, t, x.dtype)
    for i in range(c["layers"]):
        layer = f"model.layers.{i}."
        n = norm(c, w, layer + "input_layernorm", x)
        q, k, v = (
            (n @ w[layer + f"self_attn.{name}_proj.weight"].T).view(b, t, c["heads"], c["head_dim"]).transpose(1, 2)
            for name in "qkv"
        )
        if c["pos"] == "rope":
            q, k = rope(q), rope(k)
        if c.get("attn_scale"):
            softplus = torch.nn.functional.softplus
            q = q * softplus(w[layer + "self_attn.scale.weight"]) / softplus(torch.zeros((), dtype=x.dtype))
        o = attention(q, k, v, c["attention"], c.get("attn_softcap")).transpose(1, 2).reshape(b, t, -1)
        x = x + o @ w[layer + "self_attn.o_proj.weight"].T
        n = norm(c, w, layer + "post_attention_layernorm", x)
        x = x + activation(n, w, layer, c["mlp"]) @ w[layer + "mlp.down_proj.weight"].T
        x = x + w.get(layer + "mlp.down_proj.bias", 0)
    return softcap(norm(c, w, "model.norm", x) @ w["model.embed_tokens.weight"].T, c.get("logit_softcap"))


def loss_of(c, w, inputs, targets):
    logits = forward(c, w, inputs)
    loss = torch.nn.functional.cross_entropy(logits.reshape(-1, c["vocab"]), targets.reshape(-1))
    return logits, loss


def ten_steps(c, w, inputs, targets, rates):
    """inputs (10, B, T); changes w; returns the losses and the norms before clipping."""
    optimizer = torch.optim.AdamW(
        [
            {"params": [x for x in w.values() if x.dim() == 2], "weight_decay": WEIGHT_DECAY},
            {"params": [x for x in w.values() if x.dim() != 2], "weight_decay": 0.0},
        ],
        lr=1.0, betas=BETAS, eps=EPS,
    )
    losses, norms = [], []
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = float(rates[step])
        optimizer.zero_grad()
        _, loss = loss_of(c, w, inputs[step], targets[step])
        loss.backward()
        norm = torch.sqrt(sum(x.grad.pow(2).sum() for x in w.values()))
        for x in w.values():
            x.grad.mul_(min(1.0, CLIP / norm.item()))
        optimizer.step()
        losses.append(loss.item())
        norms.append(norm.item())
    return torch.tensor(losses), torch.tensor(norms)


def expected(c, weights, dtype, generator):
    """What the C program must find, computed in dtype."""
    w = {name: x.to(dtype).clone().requires_grad_() for name, x in weights.items()}
    tokens = torch.randint(c["vocab"], (c["batch"], c["seq_len"] + 1), generator=generator)
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    logits, loss = loss_of(c, w, inputs, targets)
    loss.backward()
    out = {"inputs": inputs, "targets": targets, "logits": logits, "loss": loss}
    out.update(("grad." + name, x.grad) for name, x in w.items())
    out = {name: x.detach().clone() for name, x in out.items()}
    if c["steps"]:
        tokens = torch.randint(c["vocab"], (STEPS, c["batch"], c["seq_len"] + 1), generator=generator)
        rates = torch.tensor([0.01 * min(1, (s + 1) / 4) for s in range(STEPS)]).float()  # exact in float32
        inputs, targets = tokens[..., :-1], tokens[..., 1:]
        losses, norms = ten_steps(c, w, inputs, targets, rates)
        out.update({"steps.inputs": inputs, "steps.targets": targets, "steps.lr": rates, "steps.loss": losses,
                    "steps.norm": norms})
        out.update(("after." + name, x.detach().clone()) for name, x in w.items())
    return out


def write_safetensors(path, tensors):
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, x in tensors.items():
        numbers = x.detach().double().flatten().tolist()
        piece = struct.pack(f"<{len(numbers)}f", *numbers)
        header[name] = {"dtype": "F32", "shape": list(x.shape), "data_offsets": [len(data), len(data) + len(piece)]}
        data += piece
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % 64)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)


def config(c):
    ablations = {
        "norm": c.get("norm"), "bias": c.get("bias"), "scale_embeddings": c.get("embed_scale"),
        "attention_scale": c.get("attn_scale"), "attn_logit_softcapping": c.get("attn_softcap"),
        "final_logit_softcapping": c.get("logit_softcap"),
    }
    return {key: value for key, value in ablations.items() if value} | {
        "vocab_size": c["vocab"], "hidden_size": c["embd"], "num_hidden_layers": c["layers"],
        "num_attention_heads": c["heads"], "head_dim": c["head_dim"], "intermediate_size": c["hidden"],
        "max_position_embeddings": c["seq_len"], "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "hidden_act": {"gelu": "gelu_pytorch_tanh", "relu": "relu", "swiglu": "silu"}[c["mlp"]],
        "mlp": c["mlp"], "position_embedding": c["pos"], "attention": c["attention"], "laser_shift": "causal", "batch_size": c["batch"],
    }


def error(got, want):
    """The tests' measure: squared error over squared size."""
    size = want.double().pow(2).sum().item()
    return (got.double() - want.double()).pow(2).sum().item() / size if size else 0.0


def check(name, c, weights, want, state):
    generator = torch.Generator()
    generator.set_state(state)
    got = expected(c, weights, torch.float32, generator)
    for part in ("logits", "loss", "grad.", "steps.loss", "steps.norm", "after."):
        errors = {k: error(got[k], want[k]) for k in want if k.startswith(part)}
        if errors:
            worst = max(errors, key=errors.get)
            print(f"{name:10} {part:10} float32 against float64: {errors[worst]:.1e} at worst ({worst})")
    moved = [error(want[k], weights[k[6:]]) for k in want if k.startswith("after.")]
    if moved:
        print(f"{name:10} the ten steps move each weight by {min(moved):.1e} to {max(moved):.1e} in the same measure")


def main():
    torch.set_num_threads(1)
    root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fixtures")
    for number, (name, c) in enumerate(CASES.items()):
        generator = torch.Generator().manual_seed(1000 + number)
        weights = init(c, generator)
        state = generator.get_state()
        want = expected(c, weights, torch.float64, generator)
        if "--check" in sys.argv[1:]:
            check(name, c, weights, want, state)
            continue
        folder = os.path.join(root, name)
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, "config.json"), "w") as f:
            f.write(json.dumps(config(c), indent=4) + "\n")
        write_safetensors(os.path.join(folder, "model.safetensors"), weights)
        write_safetensors(os.path.join(folder, "expected.safetensors"), want)
        norms = want["steps.norm"].tolist() if c["steps"] else []
        print(f"{name}: loss {want['loss'].item():.6f}" + (f", norms {' '.join(f'{x:.3f}' for x in norms)}" if norms else ""))


if __name__ == "__main__":
    main()
