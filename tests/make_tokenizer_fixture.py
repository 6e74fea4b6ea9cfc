#!/usr/bin/env python3
"""Writes tests/fixtures/tokenizer.json: what Hugging Face's tokenizers and tiktoken make of some texts.

    pip install tokenizers tiktoken && python3 tests/make_tokenizer_fixture.py

It holds the text a vocabulary was learned from by tokenizers, its merges, and the ids both libraries give for awkward
texts. tests/test_tokenizer.h learns the same vocabulary and compares.
"""
import json
import os
import random

import tiktoken
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

RULE = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
VOCAB = 440
WORDS = """the lamp river carries old stones to a field where nobody sings, and then it was gone; don't wait: they'll say
we've seen 1,234 of them in 1999! Żółć naïve café — Привет мир, 今日は世界 😀 (a_b) == [c] "quoted" 50% #tag I'm you're""".split()


def bytes_of_character():
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in plain]
    return {**{chr(b): b for b in plain}, **{chr(256 + i): b for i, b in enumerate(rest)}}


def awkward(count):
    random.seed(7)
    parts = WORDS + [" ", "  ", "\n", "\n\n", "\t", "\r\n", "'", "'s", "'ll", "\u00a0", "\u3000", "\u0085", "\u2028", "\u200b", "\u180e"]
    parts += ["e\u0301", "½", "٣", "𝟘", "\x00", "\x1c", "aaaaaaaaaaaaaaaa", "ing"]
    for _ in range(count):
        yield "".join(
            random.choice(parts) + random.choice(["", " "])
            if random.random() < 0.7
            else chr(random.choice([random.randrange(0x3000), random.randrange(0xE000, 0x110000)]))
            for _ in range(random.randrange(1, 25))
        )


random.seed(3)
text = " ".join(random.choice(WORDS) + random.choice(["", "", "", "\n", "s", "ing"]) for _ in range(2500))
face = Tokenizer(models.BPE())
face.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
alphabet = pre_tokenizers.ByteLevel.alphabet()
trainer = trainers.BpeTrainer(vocab_size=VOCAB - 1, initial_alphabet=alphabet, min_frequency=2, show_progress=False)
face.train_from_iterator([text], trainer)
model, characters = json.loads(face.to_str())["model"], bytes_of_character()
ranks = {bytes(characters[c] for c in token): rank for token, rank in model["vocab"].items()}
tik = tiktoken.Encoding("fixture", pat_str=RULE, mergeable_ranks=ranks, special_tokens={})
cases = []
for case in [*awkward(120), "", " ", "   ", " x", "  x", "x  ", "\n \n", "<|endoftext|>", "'s's 's", "a" * 300]:
    ids = face.encode(case).ids
    assert ids == tik.encode_ordinary(case), case
    cases.append({"text": case, "ids": ids})
assert len(model["vocab"]) == VOCAB - 1, len(model["vocab"])
merges = [" ".join(m) if isinstance(m, list) else m for m in model["merges"]]
path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fixtures", "tokenizer.json")
with open(path, "w", encoding="utf-8") as file:
    json.dump({"text": text, "vocab_size": VOCAB, "merges": merges, "cases": cases}, file, separators=(",", ":"))
    file.write("\n")
