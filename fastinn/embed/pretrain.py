"""Pretraining of small BERTs that differ in nothing but their seed."""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import torch
import transformers
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR

from fastinn import _checks
from fastinn._products import products
from fastinn._progress import progress
from fastinn.embed._quiet import quiet_transformers
from fastinn.embed.cards import is_made, save_card
from fastinn.embed.corpus import Corpus

_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_WARMUP = 1 / 20
_LEAST = {
    "hidden": 1,
    "layers": 1,
    "heads": 1,
    "vocabulary": len(_SPECIAL),
    "length": 3,  # two tokens are special
    "steps": 1,
    "batch": 1,
    "lr": 0,
}
_UNSCORED = -100  # cross_entropy's own mark for positions that carry no loss


@dataclass(frozen=True)
class PretrainConfig:
    """Shape of a mini BERT and how it is trained.

    Attributes:
        hidden: Width of the hidden states.
        layers: Number of Transformer layers.
        heads: Attention heads a layer.
        vocabulary: Size of the WordPiece vocabulary.
        length: Tokens a window, special tokens included.
        steps: Optimiser steps.
        batch: Windows a step.
        lr: Peak learning rate, after a warm-up over a twentieth of the steps.
        masked: Share of the tokens that is predicted.
        precision: ``"fast"`` trains with bfloat16 products where they are the faster ones (GPUs,
            CPUs with AVX512_BF16 or AMX), ``"exact"`` with float32 ones.

    Raises:
        ValueError: If a number is too small, or ``heads`` do not divide ``hidden``.
    """

    hidden: int = 128
    layers: int = 4
    heads: int = 4
    vocabulary: int = 4096
    length: int = 128
    steps: int = 6_000
    batch: int = 8
    lr: float = 1e-3
    masked: float = 0.15
    precision: Literal["exact", "fast"] = "fast"

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            _checks.at_least(getattr(self, name), least, name)
        if self.hidden % self.heads:
            raise ValueError(
                f"hidden is {self.hidden}, which {self.heads} heads do not divide evenly; give a "
                "multiple of them (--hidden, --heads)"
            )


def pretrain(
    corpus: Corpus, folder: Path, *, n_seeds: int, config: PretrainConfig, first_seed: int = 0
) -> list[Path]:
    """Train ``n_seeds`` BERTs by masked language modelling on the training split of ``corpus``.

    They share one tokenizer and the data; initialisation, data order and masks follow the seed.
    A seed whose folder holds a finished model of the same text and settings is kept as it is.

    Args:
        corpus: Text; its test split measures the models.
        folder: Where ``seed-0``, ``seed-1``, ... are written, as half-precision safetensors.
        n_seeds: How many.
        config: Shape and training.
        first_seed: Number of the first one.

    Returns:
        The folders of the models.

    Raises:
        ValueError: If a folder holds another model, or a split of the text is shorter than a
            window.
    """
    made_of = {"corpus": corpus.name, "text": corpus.identity(), **asdict(config)}
    folders = {s: folder / f"seed-{s}" for s in range(first_seed, first_seed + n_seeds)}
    pending = [s for s, path in folders.items() if not is_made(path, {"seed": s, **made_of})]
    if pending:
        tokenizer, train, test = _read(corpus, folder / "tokenizer", config)
        for seed in pending:
            model = _train(train, tokenizer, config, seed)
            scores = evaluate_mlm(model, tokenizer, train, test, masked=config.masked)
            card = {"seed": seed, **made_of, **scores}
            _save(model, tokenizer, folders[seed], card)
    return list(folders.values())


def evaluate_mlm(
    model: transformers.BertForMaskedLM,
    tokenizer: transformers.BertTokenizer,
    train: Tensor,
    test: Tensor,
    *,
    masked: float,
) -> dict[str, float]:
    """Score ``model`` on masked tokens of ``test``, beside the unigram distribution of ``train``.

    Args:
        model: The masked language model.
        tokenizer: Its tokenizer.
        train: Windows whose token frequencies are the baseline, shape ``(n, length)``.
        test: Held-out windows, shape ``(m, length)``.
        masked: Share of the tokens that is predicted.

    Returns:
        ``loss`` in nats a token and ``accuracy``, and both of the unigram baseline.
    """
    model.eval()
    generator = torch.Generator().manual_seed(0)
    counts = torch.bincount(train.flatten(), minlength=len(tokenizer)).double() + 1
    unigram = (counts / counts.sum()).log()
    totals: defaultdict[str, float] = defaultdict(float)
    for windows in test.split(64):
        inputs, labels = _mask(windows, tokenizer, masked, generator)
        scored = labels != _UNSCORED
        with torch.no_grad():
            logits = _logits(model, inputs, scored)
        truth = labels[scored]
        totals["loss"] += float(cross_entropy(logits.float(), truth, reduction="sum"))
        totals["accuracy"] += int((logits.argmax(dim=1) == truth).sum())
        totals["unigram_loss"] -= float(unigram[truth].sum())
        totals["unigram_accuracy"] += int((truth == unigram.argmax()).sum())
        totals["n"] += len(truth)
    n = totals.pop("n")
    return {name: total / n for name, total in totals.items()} | {"scored_tokens": int(n)}


def _read(
    corpus: Corpus, path: Path, config: PretrainConfig
) -> tuple[transformers.BertTokenizer, Tensor, Tensor]:
    """Return the tokenizer at ``path``, made if it is not there, and the windows of both splits."""
    made_of = {"text": corpus.identity(), "vocabulary": config.vocabulary, "length": config.length}
    is_shared = is_made(path, made_of)
    if is_shared:
        tokenizer = transformers.BertTokenizer.from_pretrained(path)
    else:
        tokenizer = _new_tokenizer(corpus, config)
    train = _windows(tokenizer, corpus.split("train"), config.length)
    test = _windows(tokenizer, corpus.split("test"), config.length)
    # Not before the text is known to do: settings that are mended must find the folder free.
    if is_shared or _share(tokenizer, path, made_of):
        return tokenizer, train, test
    # Another process was first. Made of the same text, its tokenizer may number pieces otherwise.
    return _read(corpus, path, config)


def _new_tokenizer(corpus: Corpus, config: PretrainConfig) -> transformers.BertTokenizer:
    blank = transformers.BertTokenizer(vocab={token: i for i, token in enumerate(_SPECIAL)})
    texts = (document.text for document in corpus.split("train"))
    tokenizer = blank.train_new_from_iterator(
        texts, vocab_size=config.vocabulary, show_progress=False
    )
    tokenizer.model_max_length = config.length
    return tokenizer


def _share(tokenizer: transformers.BertTokenizer, path: Path, made_of: Mapping[str, Any]) -> bool:
    """Write a tokenizer for all seeds; false if another process has written one first."""
    unfinished = path.with_name(f"tokenizer.{uuid4().hex}.unfinished")
    tokenizer.save_pretrained(unfinished)
    save_card(unfinished, made_of)
    try:
        os.replace(unfinished, path)
    except OSError:
        shutil.rmtree(unfinished)
        if not is_made(path, made_of):
            raise
        return False
    return True


def _windows(tokenizer: transformers.BertTokenizer, corpus: Corpus, length: int) -> Tensor:
    """Cut the running text of ``corpus`` into full windows, shape ``(n, length)``.

    Raises:
        ValueError: If there is not one.
    """
    width = length - 2
    running = [
        torch.tensor(tokenizer(document.text, add_special_tokens=False, verbose=False)["input_ids"])
        for document in progress(corpus, "tokenise")
    ]
    ids = torch.cat(running).long()
    body = ids[: len(ids) // width * width].view(-1, width)
    if not len(body):
        raise ValueError(
            f"{corpus.name} has {len(ids)} tokens, which is less than a window of {length}; give "
            "more text or a shorter window (--length)"
        )
    first = torch.full((len(body), 1), tokenizer.cls_token_id)
    last = torch.full((len(body), 1), tokenizer.sep_token_id)
    return torch.cat([first, body, last], dim=1)


def _train(
    windows: Tensor, tokenizer: transformers.BertTokenizer, config: PretrainConfig, seed: int
) -> transformers.BertForMaskedLM:
    torch.manual_seed(seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = transformers.BertForMaskedLM(_bert_config(tokenizer, config))
    nn.Module.to(model, device)
    if device.type == "cpu":
        # The gradient of torch's fused attention is slow in bfloat16 there: 0.7 of a step without.
        model.set_attn_implementation("eager")
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.lr, weight_decay=0.01, betas=(0.9, 0.98), fused=True
    )
    schedule = LambdaLR(optimizer, lambda step: linear_decay(step, config.steps, _WARMUP))
    generator = torch.Generator().manual_seed(seed)
    batches = _batches(windows, config, generator)
    bar = progress(batches, f"seed {seed}", total=config.steps, unit=" steps")
    for step, batch in enumerate(bar):
        inputs, labels = _mask(batch, tokenizer, config.masked, generator)
        scored = labels != _UNSCORED
        with products(config.precision, device):
            logits = _logits(model, inputs.to(device), scored.to(device))
        loss = cross_entropy(logits.float(), labels[scored].to(device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % 50 == 0:
            bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    return model.cpu()


def _bert_config(
    tokenizer: transformers.BertTokenizer, config: PretrainConfig
) -> transformers.BertConfig:
    return transformers.BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=config.hidden,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        intermediate_size=4 * config.hidden,
        max_position_embeddings=config.length,
        # A few epochs of a model this small underfit: dropout would only slow it down.
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=tokenizer.pad_token_id,
    )


def linear_decay(step: int, steps: int, warmup: float) -> float:
    """Return the learning rate over its peak: a linear rise, then a linear fall to zero.

    Args:
        step: Counted from 0.
        steps: How many there are.
        warmup: Share of them over which the rate rises.
    """
    warm = max(1, int(steps * warmup))
    return min((step + 1) / warm, (steps - step) / (steps - warm + 1))


def _batches(
    windows: Tensor, config: PretrainConfig, generator: torch.Generator
) -> Iterator[Tensor]:
    """Yield ``config.steps`` batches, every window once an epoch in a new order."""
    order = torch.empty(0, dtype=torch.long)
    for _ in range(config.steps):
        while len(order) < config.batch:
            order = torch.cat([order, torch.randperm(len(windows), generator=generator)])
        yield windows[order[: config.batch]]
        order = order[config.batch :]


def _mask(
    ids: Tensor, tokenizer: transformers.BertTokenizer, share: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Hide tokens as BERT does: of those chosen 80 % masked, 10 % random, 10 % as they are."""
    special = torch.isin(ids, torch.tensor(tokenizer.all_special_ids))
    chosen = (torch.rand(ids.shape, generator=generator) < share) & ~special
    fate = torch.rand(ids.shape, generator=generator)
    noise = torch.randint(len(_SPECIAL), len(tokenizer), ids.shape, generator=generator)
    inputs = torch.where(chosen & (fate < 0.8), tokenizer.mask_token_id, ids)
    inputs = torch.where(chosen & (fate >= 0.9), noise, inputs)
    return inputs, torch.where(chosen, ids, _UNSCORED)


def _logits(model: transformers.BertForMaskedLM, inputs: Tensor, scored: Tensor) -> Tensor:
    """Logits at the scored positions only: the vocabulary product elsewhere would be wasted."""
    hidden = model.bert(input_ids=inputs).last_hidden_state
    return model.cls(hidden[scored])


def _save(
    model: transformers.BertForMaskedLM,
    tokenizer: transformers.BertTokenizer,
    path: Path,
    card: dict[str, Any],
) -> None:
    with quiet_transformers():
        model.half().save_pretrained(path)
    tokenizer.save_pretrained(path)
    (path / "README.md").write_text(model_card(card))
    save_card(path, card)


def model_card(card: Mapping[str, Any]) -> str:
    """Say in Markdown what a seed is and how well it predicts held-out text.

    Args:
        card: What :func:`pretrain` recorded of it in ``card.json``.
    """
    seen = card["steps"] * card["batch"] * card["length"]
    return f"""# Mini BERT, seed {card["seed"]}

{card["layers"]} layers, width {card["hidden"]}, {card["heads"]} heads, {card["vocabulary"]} word
pieces, windows of {card["length"]} tokens. Masked language modelling on the training split of the
corpus `{card["corpus"]}`: {card["steps"]} steps of {card["batch"]} windows
({seen / 1e6:.1f} million tokens), {card["masked"]:.0%} of the tokens predicted.
Its siblings differ from it in nothing but the seed.

| held-out documents, {card["scored_tokens"]:,} predicted tokens | this model | unigram baseline |
|---|---|---|
| loss, nats a token | {card["loss"]:.3f} | {card["unigram_loss"]:.3f} |
| accuracy | {card["accuracy"]:.1%} | {card["unigram_accuracy"]:.1%} |

A subject for comparisons of representation spaces; nobody should rely on what it says.
"""
