#!/usr/bin/env python3
"""Turns a checkpoint into a GGUF file for llama.cpp and the programs that are built on it.

    scripts/to_gguf.py --llama-cpp=DIR CHECKPOINT FILE.gguf [OPTION of the converter...]

DIR is the source of llama.cpp, whose converter (convert_hf_to_gguf.py) does the work: a clone of it, or the folder
vendor/llama.cpp of the source package of llama-cpp-python on PyPI. The converter needs torch, transformers and sentencepiece (pip).
Its options, such as --outtype=q8_0, may follow the names.

llama.cpp has standard attention with rope, with --activation=swiglu or relu2. Its Arcee computes the square of relu
whatever the activation of the model is, so gelu and relu are refused, and so is what needs modeling_laser_gpt.py.
"""
import json
import os
import runpy
import sys


# What config.json of a model that is not Llama may have, and what Llama has instead.
LLAMA = {
    "attention": "standard",
    "position_embedding": "rope",
    "qk_norm": "no",
    "attention_scale": "fixed",
    "attn_logit_softcapping": 0,
    "norm": "rmsnorm",
    "norm_place": "pre",
    "bias": "none",
    "scale_embeddings": False,
    "final_logit_softcapping": 0,
}


def fail(message, code=1):
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)


def check_model(folder):
    """Ends the program when llama.cpp would compute another model."""
    try:
        with open(os.path.join(folder, "config.json")) as file:
            config = json.load(file)
    except (OSError, ValueError) as error:
        fail(f"'{folder}' is no checkpoint: {error}")
    kind, activation = config.get("model_type"), config.get("hidden_act")
    if kind == "laser_gpt":
        has = ", ".join(f"{name} {config[name]}" for name, llama in LLAMA.items() if config.get(name, llama) != llama)
        has = has or f"width {config.get('hidden_size')}, no multiple of its {config.get('num_attention_heads')} heads"
        fail(f"'{folder}': llama.cpp does not have this model; it has standard attention with rope (this has {has})")
    if kind not in ("llama", "arcee"):
        fail(f"'{folder}': the model_type is {kind!r}, expected 'llama' or 'arcee' (of a run, name a folder step-...)")
    if kind == "arcee" and activation != "relu2":
        fail(f"'{folder}': the activation is {activation}, but llama.cpp would compute the square of relu; train with "
             "--activation=swiglu or --activation=relu2 for GGUF")


def splits_as_gpt2(folder):
    """Whether the tokenizer cuts texts with GPT-2's rule before it merges bytes, as the vocabularies of ./prepare do."""
    try:
        with open(os.path.join(folder, "tokenizer.json")) as file:
            tokenizer = json.load(file)
    except (OSError, ValueError) as error:
        fail(f"llama.cpp needs the tokenizer: {error}")
    rule, kind = tokenizer.get("pre_tokenizer") or {}, tokenizer["model"].get("type")
    if kind != "BPE":
        fail(f"'{folder}': the vocabulary is of the kind {kind}; llama.cpp's converter takes tokenizer.json only with BPE")
    return rule.get("type") == "ByteLevel" and rule.get("use_regex", True)


def main():
    options = [a for a in sys.argv[1:] if a.startswith("-")]
    names = [a for a in sys.argv[1:] if not a.startswith("-")]
    place = next((a.split("=", 1)[1] for a in options if a.startswith("--llama-cpp=")), None)
    if "--help" in options:
        print(__doc__.strip())
        return
    if place is None or len(names) != 2:
        fail("expected --llama-cpp=DIR CHECKPOINT FILE.gguf (see scripts/to_gguf.py --help)", 2)
    folder, out = names
    check_model(folder)
    if not os.path.exists(os.path.join(place, "convert_hf_to_gguf.py")):
        fail(f"--llama-cpp={place}: there is no convert_hf_to_gguf.py")
    sys.path.insert(0, place)
    gpt2 = splits_as_gpt2(folder)
    try:
        import conversion.base as base
    except ImportError as error:
        fail(f"the converter in '{place}' cannot be loaded: {error}; it needs torch, transformers and sentencepiece, and a llama.cpp of 2026")
    known = base.TextModel.get_vocab_base_pre

    def rule_of(model, tokenizer):
        """The converter knows published vocabularies by a checksum; one that was learned on one's own text it does not."""
        try:
            return known(model, tokenizer)
        except NotImplementedError:
            if gpt2:
                return "gpt-2"
            raise

    base.TextModel.get_vocab_base_pre = rule_of
    more = [a for a in options if not a.startswith("--llama-cpp=")]
    sys.argv = ["convert_hf_to_gguf.py", folder, "--outfile", out, *more]
    runpy.run_path(os.path.join(place, "convert_hf_to_gguf.py"), run_name="__main__")


if __name__ == "__main__":
    main()
