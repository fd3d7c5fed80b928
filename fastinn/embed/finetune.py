"""Fine-tuning of encoders on labelled texts, for comparisons before and after, and stitching."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR

from fastinn import _checks
from fastinn._products import products
from fastinn._progress import progress
from fastinn.embed._quiet import quiet_transformers
from fastinn.embed.cards import begin, check_free, is_made, save_card
from fastinn.embed.classifier import TextBatch, text_batch, text_batches, tokenise
from fastinn.embed.corpus import Document
from fastinn.embed.corpus.identity import identity_of_texts
from fastinn.embed.labelled import Labelled
from fastinn.embed.model import Model, loading
from fastinn.embed.pretrain import linear_decay
from fastinn.embed.tokens import Tokens, Window


@dataclass(frozen=True)
class FinetuneConfig:
    """How a classifier is trained.

    Attributes:
        epochs: Times that every training row is seen.
        batch: Texts a step.
        lr: Peak learning rate of AdamW; it falls linearly to zero after the warm-up.
        warmup: Share of the steps over which the learning rate rises.
        weight_decay: Of AdamW.
        length: Longest text in tokens, special ones included; ``None`` takes the model's.
        validation: Share of the rows that picks the epoch, unless others are given for that.
        precision: ``"fast"`` trains with bfloat16 products where they are the faster ones (GPUs,
            CPUs with AVX512_BF16 or AMX), ``"exact"`` with float32 ones.
        seed: Of the new head, the order of the rows and dropout.
    """

    epochs: int = 3
    batch: int = 32
    lr: float = 5e-5
    warmup: float = 0.1
    weight_decay: float = 0.01
    length: int | None = None
    validation: float = 0.1
    precision: Literal["exact", "fast"] = "fast"
    seed: int = 0


def finetune(
    model: str,
    data: Labelled,
    folder: Path,
    *,
    config: FinetuneConfig,
    validation: Labelled | None = None,
) -> Path:
    """Train a sequence classifier from a pretrained encoder.

    The head is new, and so is the pooler where the checkpoint has none; everything is trained. The
    epoch with the best accuracy on the validation rows is kept. A folder that holds a finished
    model of the same training is left as it is.

    Args:
        model: Hub id or folder of a Hugging Face encoder.
        data: Labelled texts to train on.
        folder: Where the model, its tokenizer and ``card.json`` are written.
        config: How to train.
        validation: Rows that pick the epoch; ``None`` sets a share of ``data`` aside, by the hash
            of the text, so that equal texts stay together.

    Returns:
        The folder.

    Raises:
        ValueError: If the model cannot be loaded, there are fewer than two classes, a validation
            label is not among those trained on, there is nothing to validate on, or the folder
            holds another model, such as the one to train from.
    """
    for name, minimum in (("epochs", 1), ("batch", 1), ("lr", 0)):
        _checks.at_least(getattr(config, name), minimum, name)
    made_of = {
        "model": model,
        "data": data.name,
        "rows": len(data),
        "text": _identity(data),
        "validated_on": (
            f"{validation.name}, {_identity(validation)}"
            if validation
            else f"{config.validation:.0%} of the rows"
        ),
        **asdict(config),
    }
    if is_made(folder, made_of):
        return folder
    _check_apart(model, folder)
    check_free(folder)
    train, held_out = (data, validation) if validation else _divided(data, config.validation)
    classes = _classes(train, held_out)
    network, tokens = _new_classifier(model, classes, config)
    trainer = _Trainer(network, tokens, classes, config)
    scores = trainer.run(train, held_out)
    counts = [held_out.labels.count(name) for name in classes]
    card = made_of | {
        "classes": classes,
        "train_rows": len(train),
        "validation_rows": len(held_out),
        "majority_accuracy": max(counts) / len(held_out),
        **scores,
    }
    _save(network, tokens, folder, card)
    return folder


def _identity(data: Labelled) -> str:
    """Return the number of rows and a hash of their texts and labels."""
    rows = (f"{label}\t{text}" for label, text in zip(data.labels, data.texts, strict=True))
    return identity_of_texts((None, row) for row in rows)


def _check_apart(model: str, folder: Path) -> None:
    if Path(model).is_dir() and folder.is_dir() and folder.samefile(model):
        raise ValueError(
            f"{folder} is the folder of the model itself, whose weights would be replaced; give "
            "another folder"
        )


def _divided(data: Labelled, share: float) -> tuple[Labelled, Labelled]:
    aside = [Document(i, text, text).place < share for i, text in enumerate(data.texts)]
    places = range(len(data))
    return (
        data.at([i for i in places if not aside[i]]),
        data.at([i for i in places if aside[i]]),
    )


def _classes(train: Labelled, held_out: Labelled) -> list[str]:
    classes = train.classes()
    if len(classes) < 2:
        listed = ", ".join(map(repr, classes)) or "none"
        raise ValueError(f"{train.name} has the labels {listed}, a classifier needs two or more")
    if not len(held_out):
        raise ValueError(
            f"none of the rows of {train.name} was set aside; give more rows, a larger share or "
            "rows to validate on"
        )
    strange = [label for label in held_out.classes() if label not in classes]
    if strange:
        raise ValueError(
            f"{held_out.name} has the label {strange[0]!r}, which no training row of {train.name} "
            f"has; its labels are {', '.join(classes)}"
        )
    return classes


def _new_classifier(
    model: str, classes: Sequence[str], config: FinetuneConfig
) -> tuple[transformers.PreTrainedModel, Tokens]:
    names = dict(enumerate(classes))
    with loading(model):
        settings = transformers.AutoConfig.from_pretrained(model, trust_remote_code=False)
        settings.id2label, settings.label2id = names, {name: i for i, name in names.items()}
        torch.manual_seed(config.seed)
        network = transformers.AutoModelForSequenceClassification.from_pretrained(
            model, config=settings, dtype=torch.float32, trust_remote_code=False
        )
    longest = Model(model, None, torch.device("cpu"), torch.float32).longest_window
    return network, Tokens(model, max_length=min(config.length or longest, longest))


class _Trainer:
    """One training run of a classifier."""

    def __init__(
        self,
        network: transformers.PreTrainedModel,
        tokens: Tokens,
        classes: Sequence[str],
        config: FinetuneConfig,
    ) -> None:
        self._network, self._tokens, self._config = network, tokens, config
        self._classes = {name: i for i, name in enumerate(classes)}
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._order = torch.Generator().manual_seed(config.seed)
        nn.Module.to(network, self._device)

    def run(self, train: Labelled, held_out: Labelled) -> dict[str, Any]:
        """Train, restore the best epoch, and return the scores of all."""
        windows, truth = tokenise(self._tokens, train.texts), self._truth(train)
        n_steps = self._config.epochs * -(-len(windows) // self._config.batch)
        optimizer = torch.optim.AdamW(
            self._network.parameters(), lr=self._config.lr, weight_decay=self._config.weight_decay
        )
        schedule = LambdaLR(
            optimizer, lambda step: linear_decay(step, n_steps, self._config.warmup)
        )
        history: list[dict[str, float]] = []
        best: dict[str, Tensor] = {}
        with progress(label="fine-tune", total=n_steps, unit=" steps") as bar:
            for _ in range(self._config.epochs):
                for batch in self._shuffled(windows):
                    self._step(batch, truth[batch.places], optimizer)
                    schedule.step()
                    bar.update()
                scores = self._scores(held_out)
                bar.set_postfix(accuracy=f"{scores['accuracy']:.3f}", refresh=False)
                if all(scores["accuracy"] > past["accuracy"] for past in history):
                    best = {k: w.detach().clone() for k, w in self._network.state_dict().items()}
                history.append(scores)
        self._network.load_state_dict(best)
        kept = max(range(len(history)), key=lambda epoch: history[epoch]["accuracy"])
        return {**history[kept], "best_epoch": kept + 1, "history": history}

    def _step(self, batch: TextBatch, truth: Tensor, optimizer: torch.optim.Optimizer) -> None:
        self._network.train()
        with products(self._config.precision, self._device):
            logits = self._network(**batch.inputs).logits
        cross_entropy(logits.float(), truth.to(self._device)).backward()
        nn.utils.clip_grad_norm_(self._network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    @torch.no_grad()
    def _scores(self, data: Labelled) -> dict[str, float]:
        """Return mean loss in nats and accuracy."""
        self._network.eval()
        truth, loss, correct = self._truth(data), 0.0, 0
        for batch in text_batches(
            tokenise(self._tokens, data.texts), self._tokens.pad_id, self._device
        ):
            with products(self._config.precision, self._device):
                logits = self._network(**batch.inputs).logits.float().cpu()
            labels = truth[batch.places]
            loss += float(cross_entropy(logits, labels, reduction="sum"))
            correct += int((logits.argmax(dim=1) == labels).sum())
        return {"accuracy": correct / len(data), "loss": loss / len(data)}

    def _truth(self, data: Labelled) -> Tensor:
        return torch.tensor([self._classes[label] for label in data.labels])

    def _shuffled(self, windows: Sequence[Window]) -> Iterator[TextBatch]:
        order = torch.randperm(len(windows), generator=self._order)
        for places in order.split(self._config.batch):
            yield text_batch(
                [windows[i] for i in places.tolist()], self._tokens.pad_id, self._device
            )


def _save(
    network: transformers.PreTrainedModel, tokens: Tokens, folder: Path, card: dict[str, Any]
) -> None:
    begin(folder)
    with quiet_transformers():
        network.cpu().save_pretrained(folder)
    tokens.tokenizer.save_pretrained(folder)
    save_card(folder, card)
