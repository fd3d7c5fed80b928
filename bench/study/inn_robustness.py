"""Train the INN a hundred times, over seeds, layers and learning rates, and look for NaN.

Run: ``PYTHONPATH=bench python bench/study/inn_robustness.py``. Exits with 1 if any score or
history is not finite. Prints a line a learning rate: steps that were left out, and the worst
held-out scores.
"""

import sys
import warnings
from itertools import combinations, product

import seed_rows
import torch

from fastinn.align import INN

_DOCUMENTS = 25
_ROWS = 4096
_STEPS, _BATCH = 30, 128
_INITIALISATIONS = range(5)
_LAYERS = range(5)

# As shares of the default; ten times as much is far beyond what anybody would try.
_LEARNING_RATES = (0.1, 1.0, 3.0, 10.0)


def main() -> int:
    rows = seed_rows.read(_DOCUMENTS)
    failures = sum(_campaign(rows, share * INN().lr) for share in _LEARNING_RATES)
    n_runs = len(_LEARNING_RATES) * len(_LAYERS) * len(_INITIALISATIONS)
    print(f"{failures} of {n_runs} runs have a number that is not finite")
    return int(failures > 0)


def _campaign(rows: seed_rows.SeedRows, lr: float) -> int:
    """Fit at every layer from every initialisation, and count the fits that are not finite."""
    pairs = list(combinations(sorted({seed for seed, _, _ in rows.states}), 2))
    failures, skipped, scores, warned = 0, 0, [], 0
    for place, (layer, state) in enumerate(product(_LAYERS, _INITIALISATIONS)):
        a, b = pairs[place % len(pairs)]
        train, held = (rows.pair(a, b, layer, split) for split in ("train", "test"))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            inn = INN(
                lr=lr, random_state=state, max_steps=_STEPS, batch_size=_BATCH, progress=False
            )
            inn.fit(*(part[:_ROWS] for part in train))
        score = inn.score(*held), inn.score_inverse(*held)
        finite = [*score, inn.round_trip_, *(v for values in inn.history_.values() for v in values)]
        failures += not torch.tensor(finite).isfinite().all()
        skipped, warned = skipped + inn.skipped_steps_, warned + bool(caught)
        scores.append(score)
    worst = torch.tensor(scores).amin(dim=0).tolist()
    print(
        f"lr {lr:.2g}: {len(scores)} fits, {failures} not finite, {skipped} steps skipped, "
        f"{warned} warned of their round trip, worst held-out R2 {worst[0]:.3f} and {worst[1]:.3f}",
        flush=True,
    )
    return failures


if __name__ == "__main__":
    sys.exit(main())
