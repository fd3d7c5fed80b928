"""Long runs of ``fastinn moments``: what they cost, and that nothing is lost when they are killed.

Run: ``python bench/soak.py FOLDER`` reads the four shipped seeds, three layers each, in processes
of one thread. ``FOLDER`` keeps the texts and what the runs write; figures of the shipped kind go to
``bench/results/soak.json`` one by one. Parts (``--parts``):

``cost``       peak resident memory and processor time of texts of growing length.
``breakdown``  where the time of reading goes.
``kills``      runs killed at random moments and started again, against one left alone.
``ranks``      the moments of several processes against those of one.
"""

import argparse
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import machine
import torch
from memory import resident_peak
from results import FOLDER
from safetensors.torch import load_file
from stages import Clock

from fastinn import Corpus, Encoder, Moments, stream
from fastinn.embed.corpus import SPLITS
from fastinn.embed.tokens import Tokens

SEEDS = sorted((machine.ROOT / "fastinn" / "assets" / "seeds").glob("seed-*"))
LAYERS = (0, 2, -1)
CELLS = ("--cells", "same-layer")
LENGTH = 700
"""Characters of a document at most, so that a short text has enough of them for every rank."""

_LOOKS_EVERY = 0.1


class Ended(NamedTuple):
    """What a process took: its peak in bytes, its processor time in seconds, how it ended."""

    peak: int
    seconds: float
    status: int


def main(arguments: argparse.Namespace) -> None:
    arguments.folder.mkdir(parents=True, exist_ok=True)
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    for part in arguments.parts:
        PARTS[part](arguments)


def cost(given: argparse.Namespace) -> None:
    """Measure texts of growing length."""
    for n_tokens in given.tokens:
        text = text_of(given.folder, n_tokens)
        out = given.folder / f"alone-{n_tokens}"
        shutil.rmtree(out, ignore_errors=True)
        ended = finish(launched([*command(text), "--out", str(out)]))
        record(
            f"cost of {n_tokens} tokens",
            given.results,
            peak_memory=ended.peak,
            processor_seconds=ended.seconds,
            tokens_per_second=n_tokens / ended.seconds,
        )


def breakdown(given: argparse.Namespace) -> None:
    """Measure the stages of one pass; text is tokenised in a thread beside the others."""
    text = text_of(given.folder, given.broken_down)
    encoders = {seed.name: Encoder(str(seed), layers=LAYERS) for seed in SEEDS}
    rows = stream(encoders, Corpus.from_file(text))
    next(iter(rows))  # loads the weights
    moments = Moments(rows.n_features, pairs="within-layer", mispaired=True)
    with (
        Clock(Tokens, "by_document") as tokenising,
        Clock(Encoder, "encode_windows") as encoding,
        Clock(Moments, "update") as multiplying,
    ):
        begun = time.perf_counter()
        for block in rows:
            moments.update(block.rows)
        whole = time.perf_counter() - begun
    record(
        f"stages of {given.broken_down} tokens",
        given.results,
        tokens_per_second=moments.n_rows / whole,
        encode=encoding.seconds / whole,
        moments=multiplying.seconds / whole,
        wait=rows.stall_share,
        tokenise_beside=tokenising.seconds / whole,
        seed_tokens_encoded_per_second=len(SEEDS) * moments.n_rows / encoding.seconds,
        rows_multiplied_per_second=moments.n_rows / multiplying.seconds,
    )


def kills(given: argparse.Namespace) -> None:
    """Kill runs at random moments; each that comes to its end is compared with one left alone."""
    text = text_of(given.folder, given.killed)
    alone, out = (given.folder / f"{name}-{given.killed}" for name in ("alone", "killed"))
    if not (alone / "moments.json").exists():
        finish(launched([*command(text), "--out", str(alone)]))
    shutil.rmtree(out, ignore_errors=True)
    call = [*command(text), "--every", str(given.every), "--out", str(out)]
    draw = random.Random(given.random_state)
    of_runs: list[int] = []
    differ: set[str] = set()
    while sum(of_runs) < given.kills:
        moments = (draw.uniform(0, given.longest) for _ in range(given.kills - sum(of_runs)))
        of_runs.append(kills_of_one_run(launched(call), moments))
        differ |= {name for name in SPLITS if contents(alone, name) != contents(out, name)}
        shutil.rmtree(out)
    record(
        f"{given.kills} kills of {given.killed} tokens",
        given.results,
        kills_of_each_run=of_runs,
        seconds_between_checkpoints=given.every,
        longest_seconds_before_a_kill=given.longest,
        files_that_differ=sorted(differ),
    )


def kills_of_one_run(call: list[str], moments: Iterable[float]) -> int:
    """Kill ``call`` at the moments, start it again each time, and count the kills till its end."""
    n_kills = 0
    for seconds in moments:
        if not killed_after(call, seconds):
            return n_kills
        n_kills += 1
    finish(call)
    return n_kills


def ranks(given: argparse.Namespace) -> None:
    """Compare the moments of several processes with those of one, read live and from stores."""
    text = text_of(given.folder, given.ranked)
    stores = given.folder / f"stores-{given.ranked}"
    finish(launched([*fastinn("extract", SEEDS), "--corpus", str(text), "--out", str(stores)]))
    of_stores = fastinn("moments", sorted(stores.glob("seed-*")))
    calls = {"live": command(text), "stores": [*of_stores, *CELLS]}
    for (kind, call), n in itertools.product(calls.items(), given.ranks):
        alone, out = (given.folder / f"{kind}-{given.ranked}-ranks-{m}" for m in (1, n))
        for folder, m in ((alone, 1), (out, n)):
            shutil.rmtree(folder, ignore_errors=True)
            finish(launched([*call, "--exact", "--out", str(folder)], m))
        record(
            f"{n} ranks, {kind}, {given.ranked} tokens",
            given.results,
            largest_relative_difference=max(difference(alone, out, name) for name in SPLITS),
        )


PARTS = {"cost": cost, "breakdown": breakdown, "kills": kills, "ranks": ranks}


def text_of(folder: Path, n_tokens: int) -> Path:
    """Return a text of about ``n_tokens`` tokens, made if it is not there."""
    path = folder / f"{n_tokens}.jsonl"
    if not path.exists():
        unfinished = path.with_suffix(".part")
        with unfinished.open("w") as file:
            file.writelines(json.dumps({"text": text}) + "\n" for text in texts(n_tokens))
        unfinished.rename(path)
    return path


def texts(n_tokens: int) -> Iterator[str]:
    """Yield documents until they have ``n_tokens`` tokens; repetitions differ in the first word."""
    tokenizer = Encoder(str(SEEDS[0]), layers=[0]).tokens.tokenizer
    parts = shuffled_parts()
    held = 0
    for turn in itertools.count():
        for part in parts:
            text = f"{turn} {part}" if turn else part
            yield text
            held += len(tokenizer.encode(text, add_special_tokens=False, verbose=False))
            if held >= n_tokens:
                return


def shuffled_parts() -> list[str]:
    """Return Python's documentation in parts, in an order that makes short texts like long ones."""
    documents = [document.text for document in Corpus.python_docs()]
    parts = [text[i : i + LENGTH] for text in documents for i in range(0, len(text), LENGTH)]
    random.Random(0).shuffle(parts)
    return parts


def command(text: Path) -> list[str]:
    """Return the command line that accumulates the moments of ``text``."""
    return [*fastinn("moments", SEEDS), *CELLS, "--corpus", str(text)]


def fastinn(name: str, sources: Iterable[Path]) -> list[str]:
    """Return the command ``name`` of the chosen layers of models or stores."""
    layers = ",".join(map(str, LAYERS))
    return ["-m", "fastinn", name, *map(str, sources), "--layers", layers]


def launched(call: list[str], ranks: int = 1) -> list[str]:
    """Return the command line that starts ``call`` in as many processes."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    return [sys.executable, *(launcher if ranks > 1 else []), *call]


def finish(call: list[str]) -> Ended:
    """Run ``call`` to its end.

    Raises:
        RuntimeError: If it fails.
    """
    process = subprocess.Popen(call, stdout=subprocess.DEVNULL)
    peak = 0
    while True:
        peak = _peak_so_far(process.pid, peak)
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        time.sleep(_LOOKS_EVERY)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"exit status {process.returncode} of: {' '.join(call)}")
    return Ended(peak, usage.ru_utime + usage.ru_stime, process.returncode)


def _peak_so_far(pid: int, before: int) -> int:
    """Return the peak of a process, or ``before`` where it has just ended."""
    try:
        return resident_peak(str(pid))
    except (OSError, ValueError):
        return before


def killed_after(call: list[str], seconds: float) -> bool:
    """Start ``call``, kill it after so many seconds, and tell whether that came before its end.

    Raises:
        RuntimeError: If it fails before.
    """
    process = subprocess.Popen(call, stdout=subprocess.DEVNULL)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
    if process.wait() not in (0, -signal.SIGKILL):
        raise RuntimeError(f"exit status {process.returncode} of: {' '.join(call)}")
    return process.returncode != 0


def contents(folder: Path, name: str) -> dict[str, bytes]:
    """Return the bytes of each tensor of a result."""
    tensors = load_file(folder / f"{name}.safetensors")
    return {key: tensor.numpy().tobytes() for key, tensor in tensors.items()}


def difference(one: Path, other: Path, name: str) -> float:
    """Return the largest difference of means and covariances, as a share of their largest entry."""
    a, b = (Moments.load(folder / f"{name}.safetensors") for folder in (one, other))
    if a.n_rows != b.n_rows:
        raise RuntimeError(f"{one} holds {a.n_rows} rows of {name} and {other} {b.n_rows}")
    means = [(a.mean(view), b.mean(view)) for view in a.views]
    pairs = itertools.combinations_with_replacement(a.views, 2)
    covs = [(a.cov(*pair), b.cov(*pair)) for pair in pairs if pair[0][1] == pair[1][1]]
    return max(float((x - y).abs().max() / x.abs().max()) for x, y in means + covs)


def record(case: str, path: Path = FOLDER / "soak.json", **figures: Any) -> None:
    """Write one case beside those that the file holds."""
    held = json.loads(path.read_text()) if path.exists() else {"cases": {}}
    where = machine.description("cpu")
    cases = {**held["cases"], case: {"commit": where.pop("commit"), **figures}}
    path.write_text(json.dumps({"machine": where, "cases": cases}, indent=1) + "\n")
    print(case, figures, flush=True)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--tokens", nargs="+", type=int, default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--broken-down", type=int, default=100_000, help="tokens of the breakdown")
    parser.add_argument("--killed", type=int, default=1_000_000, help="tokens of the killed run")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--longest", type=float, default=30.0, help="seconds before a kill")
    parser.add_argument("--every", type=float, default=2.0, help="seconds between checkpoints")
    parser.add_argument("--ranked", type=int, default=100_000, help="tokens of the ranks")
    parser.add_argument("--ranks", nargs="+", type=int, default=[2, 4])
    parser.add_argument("--random-state", type=int, default=0)
    parser.add_argument("--results", type=Path, default=FOLDER / "soak.json")
    return parser.parse_args()


if __name__ == "__main__":
    main(parsed())
