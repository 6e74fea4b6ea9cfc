#!/usr/bin/env python3
"""Times our tokenizer, tiktoken and Hugging Face's tokenizers at encoding text, and two of them at learning a vocabulary.

    scripts/bench_tokenizer.py FOLDER TEXT [--vocab=8192]

FOLDER has GPT-2's vocab.json and merges.txt. TEXT is JSON lines with a field "text" (also .gz), or plain text, which is cut
into pieces of 8 KiB. Everything runs on one core. The three take turns, three times, and the fastest pass of each counts.
The script also says whether our number of tokens is that of tiktoken. It needs tiktoken and tokenizers (pip install tiktoken
tokenizers), and a C compiler for tools/bench_tokenizer.c.
"""
import gzip
import json
import os
import struct
import subprocess
import sys
import tempfile
import time

os.environ["RAYON_NUM_THREADS"] = "1"  # one core for each of the three
os.environ["TOKENIZERS_PARALLELISM"] = "false"
import tiktoken
import tokenizers

RULE = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""


def read_documents(path):
    raw = (gzip.open if path.endswith(".gz") else open)(path, "rb").read()
    if raw.lstrip()[:1] == b"{":
        return [json.loads(line)["text"] for line in raw.splitlines() if line.strip()]
    text = raw.decode("utf-8", "replace")
    return [text[at : at + 8192] for at in range(0, len(text), 8192)]


def byte_of_character():
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in plain]
    return {**{chr(b): b for b in plain}, **{chr(256 + i): b for i, b in enumerate(rest)}}


def load_tiktoken(folder):
    with open(os.path.join(folder, "vocab.json"), encoding="utf-8") as file:
        vocab = json.load(file)
    end, characters = vocab.pop("<|endoftext|>"), byte_of_character()
    ranks = {bytes(characters[c] for c in token): rank for token, rank in vocab.items()}
    return tiktoken.Encoding("gpt2", pat_str=RULE, mergeable_ranks=ranks, special_tokens={"<|endoftext|>": end})


def seconds(function):
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def learn_hugging_face(documents, vocab):
    model = tokenizers.Tokenizer(tokenizers.models.BPE())
    model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=vocab - 1, initial_alphabet=alphabet, show_progress=False)
    model.train_from_iterator(documents, trainer)


def main():
    vocab = next((int(a[8:]) for a in sys.argv if a.startswith("--vocab=")), 8192)
    names = [a for a in sys.argv[1:] if not a.startswith("--")]
    if len(names) != 2:
        sys.exit(__doc__)
    root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
    documents = read_documents(names[1])
    tik = load_tiktoken(names[0])
    face = tokenizers.ByteLevelBPETokenizer(*(os.path.join(names[0], n) for n in ("vocab.json", "merges.txt")))
    with tempfile.TemporaryDirectory() as folder:
        program, data = os.path.join(folder, "bench"), os.path.join(folder, "documents")
        build = ["cc", "-O3", "-march=native", "-o", program, f"{root}/tools/bench_tokenizer.c", "-lcjson", "-lm"]
        subprocess.run(build, check=True)
        with open(data, "wb") as file:
            for text in (document.encode() for document in documents):
                file.write(struct.pack("<I", len(text)) + text)
        best = {"tokenizer.h": 1e9, "tiktoken": 1e9, "tokenizers": 1e9}
        learned = {"tokenizer.h": 1e9, "tokenizers": 1e9}
        for _ in range(3):
            run = subprocess.run([program, names[0], data, str(vocab)], check=True, capture_output=True, text=True)
            size, count, encode, learn = (float(x) for x in run.stdout.split())
            best["tokenizer.h"] = min(best["tokenizer.h"], encode)
            best["tiktoken"] = min(best["tiktoken"], seconds(lambda: [tik.encode_ordinary(d) for d in documents]))
            best["tokenizers"] = min(best["tokenizers"], seconds(lambda: [face.encode(d).ids for d in documents]))
            learned["tokenizer.h"] = min(learned["tokenizer.h"], learn)
            learned["tokenizers"] = min(learned["tokenizers"], seconds(lambda: learn_hugging_face(documents, vocab)))
    same = sum(len(tik.encode_ordinary(d)) for d in documents) == int(count)
    print(f"{len(documents)} documents, {size / 1e6:.2f} MB, {int(count)} tokens ({'as' if same else 'NOT as'} tiktoken's)")
    for name, took in best.items():
        print(f"encode  {name:12} {size / took / 1e6:8.1f} MB/s   {best['tiktoken'] / took:6.2f} x tiktoken")
    for name, took in learned.items():
        print(f"learn   {name:12} {took:8.2f} s      {learned['tokenizers'] / took:6.2f} x tokenizers   ({vocab} tokens)")


main()
