#!/usr/bin/env python3
"""Loads checkpoints of ./train_gpt with Hugging Face's transformers, and compares what it computes with what laser.c does.

    python3 tests/test_huggingface.py PROGRAMS [WORD,...]

PROGRAMS is the folder with train_gpt, grammar, prepare and build/dump_logits; WORDs choose kinds by their names.

Each row of KINDS is a model, trained here for a moment. Its folder must load as the class of the row, with every weight,
and give our logits within 1e-5; the same with a cache, a token at a time; generate() must give the same text with a
cache and without, and for a prompt that is padded on the left; and what save_pretrained() writes must load again as the
same model, here and in laser.c. The last line is `N passed, N failed`.
"""
import os
import subprocess
import sys
import tempfile
import warnings

os.environ["HF_HUB_OFFLINE"] = "1"
warnings.filterwarnings("ignore")

import numpy as np  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
torch.set_num_threads(1)

BOUND = 1e-5
LLAMA, ARCEE, OURS = "LlamaForCausalLM", "ArceeForCausalLM", "LaserGPTForCausalLM"
KINDS = [
    ("swiglu", LLAMA, "--activation=swiglu"),
    ("swiglu-untied", LLAMA, "--activation=swiglu --tie=no --laser-shift=sequence"),
    ("rope-theta", LLAMA, "--activation=swiglu --rope-theta=500 --norm-eps=1e-3"),
    ("gelu", ARCEE, ""),
    ("relu", ARCEE, "--activation=relu"),
    ("relu2", ARCEE, "--activation=relu2"),
    ("bf16", ARCEE, "--activation=relu2 --save-dtype=bf16"),
    ("odd-width", OURS, "--heads=3 --embd=50"),
    ("sinusoidal", OURS, "--pos=sinusoidal"),
    ("learned", OURS, "--pos=learned --activation=swiglu"),
    ("laser", OURS, "--attn=laser"),
    ("laser-swiglu", OURS, "--attn=laser --laser-shift=sequence --activation=swiglu --tie=no"),
    ("laser-learned", OURS, "--attn=laser --pos=learned --activation=relu"),
    ("laser-clamp", OURS, "--attn=laser --laser-shift=clamp"),
    ("laser-beta", OURS, "--attn=laser --laser-beta=2.5 --laser-shift=none --save-dtype=bf16"),
    ("diff", OURS, "--attn=diff"),
    ("diff-laser", OURS, "--attn=diff-laser --laser-shift=clamp --qk-norm=yes --activation=swiglu"),
    ("qk-norm", OURS, "--qk-norm=yes"),
    ("scale-head", OURS, "--attn-scale=head --qk-norm=yes --attn=laser"),
    ("scale-dim", OURS, "--attn-scale=dim"),
    ("attn-softcap", OURS, "--attn-softcap=0.5 --attn=laser"),
    ("logit-softcap", OURS, "--logit-softcap=3 --activation=relu2"),
    ("layernorm", OURS, "--norm=layernorm --norm-eps=1e-3 --rope-theta=500"),
    ("crmsnorm-peri", OURS, "--norm=crmsnorm --norm-place=peri"),
    ("bias-mlp", OURS, "--bias=mlp --embed-scale=yes --pos=sinusoidal"),
    ("bias-all", OURS, "--bias=all --activation=swiglu --norm=layernorm --norm-place=peri --attn=laser --pos=learned"),
    ("peri-laser", OURS, "--norm-place=peri --attn=laser --pos=sinusoidal"),
]
TRAIN = (
    "--layers=2 --heads=4 --head-dim=16 --embd=48 --mlp-hidden=80 --seq-len=64 --batch=8 --steps=40 --warmup=5 --threads=1 "
    "--dtype=fp32 --val-every=0 --val-tokens=512 --lr=2e-2"
)
PROMPTS = ["The", "One day the old man went to the"]


class Wrong(Exception):
    pass


def expect(true, message):
    if not true:
        raise Wrong(message)


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    expect(done.returncode == 0, f"{' '.join(command)}: {done.stdout[-500:]}{done.stderr[-500:]}")


def load(folder):
    model, info = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, output_loading_info=True)
    wrong = {key: value for key, value in info.items() if value}
    expect(not wrong, f"loading says {wrong}")
    return model.float().eval()


class Files:
    def __init__(self, programs, folder):
        self.programs, self.folder = programs, folder

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def prepare(self):
        run(self.programs + "/grammar", "--bytes=100000", "--seed=1", "--out=" + self.path("text.txt"))
        run(self.programs + "/prepare", "--out=" + self.path("data"), "--vocab=300", self.path("text.txt"))

    def train(self, name, options):
        run(self.programs + "/train_gpt", *TRAIN.split(), *options.split(), f"--data={self.path('data')}", f"--out={self.path(name)}")
        return self.path(name, "step-00000040")

    def tokens(self, count):
        shard = next(name for name in os.listdir(self.path("data")) if name.startswith("val_"))
        return np.fromfile(self.path("data", shard), dtype=np.uint16)[512 : 512 + count].astype(np.int64)

    def logits(self, folder, ids):
        """(T, V), as laser.c computes them."""
        ids.astype(np.int32).tofile(self.path("tokens"))
        run(self.programs + "/build/dump_logits", folder, self.path("tokens"), self.path("logits"))
        return torch.from_numpy(np.fromfile(self.path("logits"), dtype=np.float32).reshape(len(ids), -1))


def difference(a, b):
    return (a - b).abs().max().item()


def cached_logits(model, ids):
    """Half of the tokens at once, the others one at a time."""
    half, cache, rows = len(ids) // 2, None, []
    pieces = [ids[:half]] + [ids[i : i + 1] for i in range(half, len(ids))]
    for piece in pieces:
        out = model(torch.tensor(piece)[None], past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        rows.append(out.logits[0])
    return torch.cat(rows)


def check_generate(model, tokenizer):
    def text(prompts, **more):
        batch = tokenizer(prompts, return_tensors="pt", padding=True)
        out = model.generate(**batch, max_new_tokens=20, do_sample=False, **more)
        return tokenizer.batch_decode(out, skip_special_tokens=True)

    alone = [text([prompt])[0] for prompt in PROMPTS]
    expect(all(new.startswith(prompt) for new, prompt in zip(alone, PROMPTS)), f"generate() gives {alone}")
    without = [text([prompt], use_cache=False)[0] for prompt in PROMPTS]
    expect(alone == without, f"with a cache {alone}, without {without}")
    expect(alone == text(PROMPTS), f"alone {alone}, in a batch that is padded on the left {text(PROMPTS)}")


def check_kind(files, name, expected, options):
    folder = files.train(name, options)
    model = load(folder)
    expect(type(model).__name__ == expected, f"the class is {type(model).__name__}")
    config, ids = model.config, files.tokens(64)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    end = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    expect(config.bos_token_id == config.eos_token_id == tokenizer.eos_token_id == end, f"eos is {config.eos_token_id}")
    ours = files.logits(folder, ids)
    expect(ours.std() > 0.3, f"the logits hardly differ: {ours.std()}")
    with torch.no_grad():
        found = {"logits": difference(model(torch.tensor(ids)[None]).logits[0], ours)}
        found["with a cache"] = difference(cached_logits(model, ids), ours)
        check_generate(model, tokenizer)
        again = files.path(name, "again")
        model.save_pretrained(again)
        found["saved again"] = difference(load(again)(torch.tensor(ids)[None]).logits[0], ours)
        found["saved, in laser.c"] = difference(files.logits(again, ids), ours)
    worst = max(found, key=found.get)
    expect(found[worst] < BOUND, f"{worst}: a logit differs by {found[worst]:.2e}; allowed {BOUND:.0e}")
    return f"{expected}, logits within {found[worst]:.1e}"


def check_large_values(files):
    """Values of V far beyond what exp() holds: the last row sees all of them, and is exact."""
    folder = files.train("large", "--attn=laser --layers=1 --pos=sinusoidal")
    weights, name = load_file(folder + "/model.safetensors"), "model.layers.0.self_attn.{}_proj.weight"
    weights[name.format("v")] *= 300
    weights[name.format("o")] /= 300
    save_file(weights, folder + "/model.safetensors", metadata={"format": "pt"})
    os.remove(folder + "/DONE")
    model, ids = load(folder), files.tokens(64)
    values = []
    model.model.layers[0].self_attn.v_proj.register_forward_hook(lambda *x: values.append(x[2].max().item()))
    with torch.no_grad():
        theirs = model(torch.tensor(ids)[None]).logits[0]
    expect(values[0] > 100, f"the largest value is only {values[0]}")
    expect(theirs.isfinite().all(), "a logit is not finite")
    found = difference(theirs[-1], files.logits(folder, ids)[-1])
    expect(found < BOUND, f"a logit of the last row differs by {found:.2e}")
    return f"values up to {values[0]:.0f}, last row within {found:.1e}"


def check_unknown(files):
    """A model that the Python code does not know must not be computed as another one."""
    folder = files.train("unknown", "--attn=laser")
    path = folder + "/config.json"
    with open(path) as file:
        text = file.read()
    with open(path, "w") as file:
        file.write(text.replace('"laser",', '"sigmoid",'))
    try:
        load(folder)
    except ValueError as error:
        expect('"attention" is \'sigmoid\'' in str(error), str(error))
        return "refused by name"
    raise Wrong("a model with another attention was loaded")


def main():
    words = sys.argv[2].split(",") if len(sys.argv) == 3 else [""]
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    print(f"transformers {transformers.__version__}, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HF_HOME"] = folder + "/home"
        files = Files(os.path.abspath(sys.argv[1]), folder)
        files.prepare()
        tests = [(name, lambda row=(name, kind, options): check_kind(files, *row)) for name, kind, options in KINDS]
        tests += [("large-values", lambda: check_large_values(files)), ("unknown", lambda: check_unknown(files))]
        tests = [row for row in tests if any(word in row[0] for word in words)]
        failed = 0
        for name, test in tests:
            try:
                print(f"  ok {name}: {test()}", flush=True)
            except Exception as error:  # what transformers raises is a failure of this kind, not of the others
                failed += 1
                print(f"FAIL {name}: {type(error).__name__ + ': ' if not isinstance(error, Wrong) else ''}{error}", flush=True)
    print(f"{len(tests) - failed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
