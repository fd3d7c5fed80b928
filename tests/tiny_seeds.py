"""Tiny BERTs that differ in nothing but their random initialisation."""

import torch
from transformers import BertConfig, BertForMaskedLM, BertTokenizer

WORDS = [f"word{chr(97 + i)}" for i in range(16)]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def make_tokenizer(words=WORDS):
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *words])}
    tokenizer = BertTokenizer(vocab=vocabulary)
    tokenizer.model_max_length = 16
    return tokenizer


def make_model(folder, seed, tokenizer):
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
    )
    BertForMaskedLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def make_texts(n=10):
    """Documents of very different lengths, some longer than a window."""
    generator = torch.Generator().manual_seed(0)
    lengths = ([1, 3, 40, 14, 15, 2, 90, 29, 5, 11] * n)[:n]
    picks = [torch.randint(len(WORDS), (n,), generator=generator) for n in lengths]
    return [" ".join(WORDS[i] for i in pick) for pick in picks]
