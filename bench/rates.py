"""The rates of a machine from which docs/cluster.md computes how long a large run takes.

Run: ``python bench/rates.py`` for encoding, moments and writing, and ``python -m
torch.distributed.run --standalone --nproc-per-node=2 bench/rates.py`` for the network between two
processes of one machine. Figures go to ``bench/results/soak.json``. Encoding and moments are rates
of one thread in processor time, so that others on the machine do not count; writing and the network
are in wall time.
"""

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from soak import SEEDS, record
from transformers import BertConfig, BertModel
from workloads import rows

from fastinn import Corpus, Encoder, Moments, distributed
from fastinn.embed.tokens import Window

D, N_ROWS, LENGTH = 768, 16_384, 512
VIEWS = [(f"seed-{i}", 1) for i in range(8)]
BASE_TOKENS, MINI_TOKENS = 4 * LENGTH, 100 * LENGTH


def main() -> None:
    torch.set_num_threads(1)
    with distributed.started():
        if distributed.world_size() > 1:
            network()
            return
    with tempfile.TemporaryDirectory() as name:
        encoding(Path(name))
        moments = multiplying()
        writing(moments, Path(name))


def encoding(folder: Path) -> None:
    """Measure full windows of a shipped seed, and of random weights of the size of BERT-base."""
    record("encoding, shipped seed", tokens_per_second=encoded(SEEDS[0], "exact", MINI_TOKENS))
    base = bert_base(folder / "base")
    for precision in ("exact", "fast"):
        speed = encoded(base, precision, BASE_TOKENS)
        record(f"encoding, 12 layers of {D}, {precision}", tokens_per_second=speed)


def bert_base(folder: Path) -> Path:
    """Write a model with random weights and the tokenizer of the shipped seeds."""
    BertModel(BertConfig(), add_pooling_layer=False).save_pretrained(folder)
    for file in SEEDS[0].glob("tokenizer*"):
        shutil.copy(file, folder)
    return folder


def encoded(model: Path, precision: str, n_tokens: int) -> float:
    """Return the tokens a second of an encoder that reads every layer."""
    encoder = Encoder(str(model), layers="all", precision=precision)
    windows = full_windows(encoder, n_tokens)
    encoder.encode_windows(windows[:1])  # loads the weights
    return sum(w.n_tokens for w in windows) / seconds(lambda: encoder.encode_windows(windows))


def full_windows(encoder: Encoder, n_tokens: int) -> list[Window]:
    """Return windows as long as the model can read, of ``n_tokens`` tokens at least."""
    text = "the moments of paired rows " * n_tokens
    length = encoder.tokens.max_length
    found = encoder.tokens.windows(Corpus.from_texts([text[: 6 * n_tokens]]))
    return list(found)[: -(-n_tokens // length)]


def multiplying() -> Moments:
    """Measure the products of the moments of eight views, each with each."""
    moments = Moments(dict.fromkeys(VIEWS, D), pairs="within-layer")
    block = {view: rows(N_ROWS, D, "cpu", seed=i) for i, view in enumerate(VIEWS)}
    moments.update(block)  # makes the totals
    operations = N_ROWS * D**2 * len(VIEWS) * (len(VIEWS) + 1)
    record(
        f"moments, {len(VIEWS)} views of {D}",
        operations_per_second=operations / seconds(lambda: moments.update(block)),
    )
    return moments


def writing(moments: Moments, folder: Path) -> None:
    """Measure how fast moments are digested, written and synchronised to the temporary folder."""
    path = folder / "moments.safetensors"
    begun = time.perf_counter()
    moments.save(path)
    lasted = time.perf_counter() - begun
    n_bytes = path.stat().st_size
    record("writing moments", bytes=n_bytes, bytes_per_second=n_bytes / lasted)


def network() -> None:
    """Measure an all-reduce of as many float64 as the moments hold, by what crosses a link."""
    n_ranks = distributed.world_size()
    numbers = torch.ones(len(VIEWS) * (len(VIEWS) + 1) // 2 * D**2, dtype=torch.float64)
    distributed.total(numbers[:1], "warming up")
    begun = time.perf_counter()
    distributed.total(numbers, "measuring the network")
    lasted = time.perf_counter() - begun
    crossed = 2 * (n_ranks - 1) / n_ranks * numbers.nbytes
    if distributed.is_main():
        record(f"all-reduce, {n_ranks} ranks of one machine", bytes_per_second=crossed / lasted)


def seconds(call: Callable[[], object]) -> float:
    """Return the processor time of one call."""
    begun = time.process_time()
    call()
    return time.process_time() - begun


if __name__ == "__main__":
    main()
