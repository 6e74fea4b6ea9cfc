#!/usr/bin/env python3
"""Makes tests/fixtures/init: small models with random weights, as transformers saves them, for tests/test_init_from.h.

    python3 tests/make_init_fixtures.py

Each folder has a model's config.json and weights, and expect.json: tokens, and the mean loss that transformers computes in
float32 when it predicts each of them from those before it. transformers 5 and torch made the committed files; another
version may give other random weights, and with them another loss.
"""
import json
import os
import shutil

import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fixtures", "init")
T, V = 24, 67
LLAMA = dict(vocab_size=V, hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=48)
MODELS = {
    # as SmolLM: one file, tied, groups of heads that share keys and values, another eps
    "llama": (LlamaForCausalLM, LlamaConfig(**LLAMA, num_key_value_heads=2, rms_norm_eps=1e-2, tie_word_embeddings=True), {}),
    # as Llama 3: several files, bfloat16, another base of rope, an output matrix of its own, heads of another size
    "llama-shards": (
        LlamaForCausalLM,
        LlamaConfig(**LLAMA, head_dim=6, rope_parameters={"rope_type": "default", "rope_theta": 500.0}, tie_word_embeddings=False),
        {"dtype": torch.bfloat16, "max_shard_size": "12kB"},
    ),
    "gpt2": (GPT2LMHeadModel, GPT2Config(vocab_size=V, n_embd=32, n_layer=2, n_head=4, n_positions=32), {"dtype": torch.float16}),
}


def main():
    shutil.rmtree(ROOT, ignore_errors=True)
    for name, (kind, config, how) in MODELS.items():
        torch.manual_seed(7)
        model = kind(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.15)  # norms and biases too
        model = model.to(how.get("dtype", torch.float32))
        folder = os.path.join(ROOT, name)
        model.save_pretrained(folder, max_shard_size=how.get("max_shard_size", "1GB"))
        model = kind.from_pretrained(folder, dtype=torch.float32).eval()
        tokens = torch.randint(V, (T + 1,))
        logits = model(tokens[None, :-1]).logits[0]
        loss = torch.nn.functional.cross_entropy(logits.double(), tokens[1:]).item()
        os.remove(os.path.join(folder, "generation_config.json"))
        with open(os.path.join(folder, "expect.json"), "w") as file:
            json.dump({"tokens": tokens.tolist(), "loss": loss}, file)
            file.write("\n")
        print(f"{name}: loss {loss:.6f}, files {sorted(os.listdir(folder))}")


if __name__ == "__main__":
    main()
