"""A labelled set that a tiny model learns in seconds: which of two words the text holds."""

import torch
from tiny_seeds import WORDS

from fastinn.embed.labelled import Labelled

CLASSES = {"bad": WORDS[0], "good": WORDS[1]}


def make_labelled(n=200, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = [("bad", "good")[i % 2] for i in range(n)]
    return Labelled("made.tsv", [_text(label, generator) for label in labels], labels)


def _text(label, generator):
    length = int(torch.randint(3, 12, (1,), generator=generator))
    words = [WORDS[2 + int(i)] for i in torch.randint(14, (length,), generator=generator)]
    words[int(torch.randint(length, (1,), generator=generator))] = CLASSES[label]
    return " ".join(words)
