#!/usr/bin/env python3
"""Prints the table of Unicode classes in gpt/io/tokenizer_unicode.h (needs: pip install tiktoken).

It asks tiktoken's own regular expressions which code points are \\p{L}, \\p{N} and \\s, so that the splitter agrees
with tiktoken by construction (tiktoken 0.14 and Hugging Face tokenizers 0.23 agree on all of them: Unicode 16).
A run of code points of one class is its length in base 36 followed by the class: + letter, # number, _ white
space, . anything else.
"""
import tiktoken

CLASSES = {"+": r"\p{L}", "#": r"\p{N}", "_": r"\s"}
POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]


def matches(pattern):
    ranks = {bytes([i]): i for i in range(256)}
    encoding = tiktoken.Encoding("probe", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    found = set()
    for at in range(0, len(POINTS), 20000):  # what does not match is left out by encode_ordinary
        text = "".join(map(chr, POINTS[at : at + 20000]))
        found.update(map(ord, encoding.decode(encoding.encode_ordinary(text))))
    return found


def base36(n):
    digits = ""
    while n:
        n, digit = divmod(n, 36)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + digits
    return digits


kind = ["."] * 0x110000
for mark, pattern in CLASSES.items():
    for point in matches(pattern):
        kind[point] = mark
table, start = "", 0
for point in range(1, 0x110000):
    if kind[point] != kind[start]:
        table += base36(point - start) + kind[start]
        start = point
for at in range(0, len(table), 100):
    print(f'    "{table[at:at + 100]}"')
