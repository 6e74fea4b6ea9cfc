#!/usr/bin/env python3
"""Loads checkpoints of ./train_gpt with other programs, and compares what they compute with what laser.c does.

    python3 tests/test_huggingface.py PROGRAMS [WORD,...]

PROGRAMS is the folder with train_gpt, grammar, prepare, evaluate, report and build/dump_logits; WORDs choose tests by how their
names begin.

The tests transformers-...: each row of KINDS is a model, trained here for a moment. Its folder must load as the class
of the row, with every weight, and give our logits within 1e-5; the same with a cache, a token at a time; generate()
must give the same text with a cache and without, and for a prompt that is padded on the left; and what
save_pretrained() writes must load again as the same model, here and in laser.c.

The test lm-eval asks lm-evaluation-harness for its answers to questions of each kind that ./evaluate knows, which must be
those of ./evaluate. The test tensorboard reads the events of ./report --tensorboard with TensorBoard's own package, and
compares them with log.jsonl. The tests llama.cpp-... turn a checkpoint into GGUF, whose perplexity in llama.cpp must be that of
./evaluate. Its converter is in the folder llama.cpp of this Python's environment, or in LLAMA_CPP=DIR. A test whose
packages are not installed says so and is not run. The last line is `N passed, N failed`, or `N passed, N failed, N not run`.
"""
import importlib
import json
import math
import os
import subprocess
import sys
import tempfile
import warnings

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", HF_DATASETS_DISABLE_PROGRESS_BARS="1", TQDM_DISABLE="1")
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


class NotRun(Exception):
    """What a test needs is not on this machine."""


def expect(true, message):
    if not true:
        raise Wrong(message)


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    expect(done.returncode == 0, f"{' '.join(command)}: {done.stdout[-500:]}{done.stderr[-500:]}")


def installed(name, package):
    """The module; one that is there, but cannot be loaded, is a failure."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise NotRun(f"this Python does not have {package}")


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

    def text(self, seed, size):
        """Stories that no model here was trained on, without the marks between them."""
        run(self.programs + "/grammar", f"--bytes={size}", f"--seed={seed}", "--out=" + self.path("stories.txt"))
        with open(self.path("stories.txt")) as file:
            return file.read().replace("<|endoftext|>", "")

    def evaluate(self, folder, what):
        """What ./evaluate --json writes of the checkpoint: its loss on a text, or its answers to a task."""
        run(self.programs + "/evaluate", what, "--threads=1", "--json=" + self.path("measured.json"), folder)
        with open(self.path("measured.json")) as file:
            return json.load(file)["models"][0]


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


# ---- lm-evaluation-harness ----

# KIND of ./evaluate: lm-evaluation-harness's description of it, and question n, made of seven sentences s.
QUESTIONS = {
    "hellaswag": ("hellaswag/hellaswag.yaml", lambda n, s: {
        "activity_label": "Home", "ctx_a": f"[header] {s[0]} [title] {s[1]}", "ctx_b": s[2].lower(), "endings": s[3:7], "label": n % 4}),
    "arc": ("arc/arc_easy.yaml", lambda n, s: {
        "question": s[0], "choices": {"text": s[3:6], "label": ["A", "B", "C"]}, "answerKey": "ABC"[n % 3]}),
    "piqa": ("piqa/piqa.yaml", lambda n, s: {"goal": s[0], "sol1": s[1], "sol2": s[2], "label": n % 2}),
    "winogrande": ("winogrande/default.yaml", lambda n, s: {
        "sentence": f"{s[0]} Then _ {s[1].lower()}", "option1": "the king", "option2": "dogs", "answer": "12"[n % 2]}),
    "boolq": ("super_glue/boolq/default.yaml", lambda n, s: {"passage": s[0], "question": s[1].lower(), "label": n % 2}),
    "openbookqa": ("openbookqa/openbookqa.yaml", lambda n, s: {
        "question_stem": s[0], "choices": {"text": s[1:5], "label": ["A", "B", "C", "D"]}, "answerKey": "ABCD"[n % 4]}),
    "copa": ("super_glue/copa/default.yaml", lambda n, s: {
        "premise": s[0], "choice1": s[1], "choice2": s[2], "question": ["cause", "effect"][n % 2], "label": n // 2 % 2}),
    "sciq": ("sciq/sciq.yaml", lambda n, s: {
        "support": s[0], "question": s[1], "distractor1": s[2], "distractor2": s[3], "distractor3": s[4], "correct_answer": s[5]}),
    "lambada": ("lambada/lambada_openai.yaml", lambda n, s: {"text": s[n % 7].rstrip(".")}),
}


def check_answers(kind, samples, items):
    """The largest difference of two log-probabilities; whether the answers are right must be the same."""
    expect(len(samples) == len(items), f"{kind}: {len(samples)} items there, {len(items)} here")
    worst = 0
    for theirs, ours in zip(sorted(samples, key=lambda sample: sample["doc_id"]), items):
        there = [answer[0] for answer in theirs["filtered_resps"]]
        here = ours["log_probabilities"]
        expect(len(there) == len(here), f"{kind}: {there} there, {here} here")
        worst = max([worst] + [abs(a - b) for a, b in zip(there, here)])
        for name in ("acc", "acc_norm"):
            expect(name not in theirs or theirs[name] == ours[name], f"{kind}: {name} is {theirs.get(name)}, here {ours}")
    expect(worst < 1e-4, f"{kind}: a log-probability differs by {worst:.2e}")
    return worst


def check_lm_eval(files):
    """Every kind of question, without the network; the model cuts what is longer than its 64 tokens."""
    lm_eval = installed("lm_eval", "lm_eval")
    installed("accelerate", "accelerate")
    sentences = [" ".join(s.split()[:8]) + "." for s in files.text(2, 30000).split(". ")]
    tasks = []
    for kind, (description, question) in QUESTIONS.items():
        data = files.path(kind + ".jsonl")
        with open(data, "w") as file:
            file.writelines(json.dumps(question(n, sentences[8 * n : 8 * n + 7])) + "\n" for n in range(8))
        tasks.append(files.path(kind + ".yaml"))
        with open(tasks[-1], "w") as file:
            json.dump({
                "include": os.path.join(os.path.dirname(lm_eval.__file__), "tasks", description), "task": kind,
                "dataset_path": "json", "dataset_name": None,
                "dataset_kwargs": {"data_files": {split: data for split in ("train", "validation", "test")}},
            }, file)
    worst = 0
    for name, options in (("standard", "--activation=swiglu"), ("laser", "--attn=laser")):
        folder = files.train("lm-eval-" + name, options)
        model = {"pretrained": folder, "trust_remote_code": True, "dtype": "float32"}
        theirs = lm_eval.simple_evaluate("hf", model, tasks, batch_size=8, device="cpu", bootstrap_iters=0)["samples"]
        for kind in QUESTIONS:
            ours = files.evaluate(folder, "--task=" + files.path(kind + ".jsonl"))
            worst = max(worst, check_answers(kind, theirs[kind], ours["items"]))
    return f"{len(QUESTIONS)} kinds of questions, log-probabilities within {worst:.1e}"


# ---- llama.cpp ----


def check_llama_cpp(files, activation):
    """The perplexity of a text, in the windows of ./evaluate. Keys and values are kept in float32."""
    llama_cpp = installed("llama_cpp", "llama-cpp-python")
    source = os.environ.get("LLAMA_CPP") or os.path.join(sys.prefix, "llama.cpp")
    if not os.path.exists(source):
        raise NotRun(f"there is no {source}, the source of llama.cpp with its converter; LLAMA_CPP=DIR names another")
    folder = files.train("llama-" + activation, "--activation=" + activation)
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../scripts/to_gguf.py")
    run(sys.executable, script, "--llama-cpp=" + source, folder, files.path("model.gguf"), "--outtype=f32")
    text = files.text(2, 3000)
    with open(files.path("held-out.txt"), "w") as file:
        file.write(text)
    ours = files.evaluate(folder, "--text=" + files.path("held-out.txt"))
    model = llama_cpp.Llama(files.path("model.gguf"), n_ctx=64, n_threads=1, n_threads_batch=1, logits_all=True, type_k=0, type_v=0, verbose=False)
    ids = [model.token_eos()] + model.tokenize(text.encode(), add_bos=False)
    loss = 0
    for begin in range(0, len(ids) - 1, 64):
        targets = torch.tensor(ids[begin + 1 : begin + 65])
        model.reset()
        model.eval(ids[begin : begin + len(targets)])
        loss += torch.nn.functional.cross_entropy(torch.tensor(model.scores[: len(targets)]), targets, reduction="sum").item()
    expect(len(ids) - 1 == ours["tokens"], f"the text has {len(ids) - 1} tokens, in ./evaluate {ours['tokens']}")
    theirs, ours = math.exp(loss / (len(ids) - 1)), math.exp(ours["loss"])
    expect(abs(theirs / ours - 1) < 1e-4, f"the perplexity is {theirs:.6f}, in ./evaluate {ours:.6f}")
    return f"perplexity {theirs:.5f}, in ./evaluate {ours:.5f}"


# ---- TensorBoard ----


def check_tensorboard(files):
    """Each number of each line of log.jsonl is a scalar with its key as the tag, and the line's step."""
    installed("tensorboard", "tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    names = ("events-standard", "events-laser")
    for name in names:
        files.train(name, f"--attn={name.split('-')[1]} --val-every=15")
    run(files.programs + "/report", "--out=", f"--tensorboard={files.path('events')}", *map(files.path, names))
    count = 0
    for name in names:
        events = EventAccumulator(files.path("events", name), size_guidance={"scalars": 0}).Reload()
        theirs = {(tag, event.step): event.value for tag in events.Tags()["scalars"] for event in events.Scalars(tag)}
        with open(files.path(name, "log.jsonl")) as file:
            lines = [json.loads(line) for line in file]
        ours = {(key, line["step"]): float(np.float32(value)) for line in lines if "loss" in line or "val_loss" in line
                for key, value in line.items() if isinstance(value, float | int) and key not in ("step", "tokens", "seconds")}
        different = sorted(ours.items() ^ theirs.items())
        expect(not different, f"{name}: only in one of both: {different[:4]}")
        expect({"loss", "val_loss", "lr", "grad_norm"} <= {key for key, _ in ours}, f"{name}: log.jsonl has only {set(ours)}")
        count += len(ours)
    return f"{count} numbers are those of log.jsonl"


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
        tests = [("transformers-" + name, test) for name, test in tests]
        tests += [("lm-eval", lambda: check_lm_eval(files))]
        tests += [("tensorboard", lambda: check_tensorboard(files))]
        tests += [("llama.cpp-" + name, lambda name=name: check_llama_cpp(files, name)) for name in ("swiglu", "relu2")]
        names = [row[0] for row in tests]
        tests = [row for row in tests if row[0].startswith(tuple(words))]
        if not tests:
            sys.exit(f"error: no test's name begins with {' or '.join(words)}; the tests are {' '.join(names)}")
        failed = not_run = 0
        for name, test in tests:
            try:
                print(f"  ok {name}: {test()}", flush=True)
            except NotRun as reason:
                not_run += 1
                print(f"  -- {name} not run: {reason}", flush=True)
            except Exception as error:  # what transformers raises is a failure of this kind, not of the others
                failed += 1
                print(f"FAIL {name}: {type(error).__name__ + ': ' if not isinstance(error, Wrong) else ''}{error}", flush=True)
    print(f"{len(tests) - failed - not_run} passed, {failed} failed" + (f", {not_run} not run" if not_run else ""))
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
