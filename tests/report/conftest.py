import itertools

import numpy as np
import pytest

LINEAR = {"Procrustes": 0.27, "CCA map": 0.38, "least squares": 0.47, "ridge": 0.48}
NETWORKS = {"MLP (free)": 0.80, "INN (two-way)": 0.75}
BIJECTIONS = {"Procrustes", "CCA map", "INN (two-way)"}
MEASURES = {"mean CCA": 0.62, "SVCCA": 0.71, "PWCCA": 0.66, "linear CKA": 0.83}


def fake_results(n_seeds=4, n_layers=4, seed=0):
    """Results of a comparison as the study writes them, with made-up but plausible numbers."""
    rng = np.random.default_rng(seed)
    names = [f"seed-{index}" for index in range(n_seeds)]
    pairs = list(itertools.combinations(names, 2))
    layers = range(n_layers + 1)
    return {
        "title": "fastinn demo",
        "created": "2026-11-23T00:10:00+00:00",
        "command": "fastinn demo",
        "seconds": 93.1,
        "models": [_model(name, n_layers) for name in names],
        "corpus": _corpus(),
        "versions": {"fastinn": "0.1.0", "torch": "2.13.0", "python": "3.11.7"},
        "settings": {"random_state": 0, "inn": {"max_steps": 1500, "n_couplings": 6}},
        "scores": [*_linear_scores(rng, names, layers), *_network_scores(rng, pairs, n_layers)],
        "similarities": _similarities(rng, pairs, layers),
        "spectra": [_spectrum(rng, pair, n_layers) for pair in pairs],
        "null_bands": [
            {"layer": layer, "low": [0.02] * 128, "high": list(np.linspace(0.16, 0.05, 128))}
            for layer in range(n_layers + 1)
        ],
        "training": [_training(rng, pair, n_layers) for pair in pairs],
    }


def _model(name, n_layers):
    return {
        "name": name,
        "source": f"fastinn/assets/seeds/{name}",
        "revision": "1",
        "weights_hash": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "n_layers": n_layers,
        "n_features": 128,
    }


def _corpus():
    return {
        "name": "python-docs",
        "hash": "2c26b46b68ffc68ff99b453c1d304134",
        "tokenizer_hash": "fcde2b2edba56bf408601fb721fe9b5c",
        "documents": {"train": 700, "validation": 90, "test": 180},
        "tokens": {"train": 150000, "validation": 15000, "test": 30000},
    }


def _score(method, source, target, cell, r2, fitted="direct"):
    return {
        "method": method,
        "source": source,
        "target": target,
        "source_layer": cell[0],
        "target_layer": cell[1],
        "r2": float(r2),
        "relative_mse": float(1 - r2),
        "mse": float(0.4 * (1 - r2)),
        "fitted": fitted,
    }


def _linear_scores(rng, names, layers):
    for method, level in LINEAR.items():
        for source, target in itertools.permutations(names, 2):
            for cell in itertools.product(layers, layers):
                r2 = level - 0.12 * abs(cell[0] - cell[1]) + 0.02 * rng.normal()
                yield _score(method, source, target, cell, r2)
                if method in BIJECTIONS:
                    yield _score(method, target, source, cell[::-1], r2 - 0.03, "inverse")


def _network_scores(rng, pairs, last):
    for method, level in NETWORKS.items():
        back = "inverse" if method in BIJECTIONS else "direct"
        trip = {"round_trip": 2e-6} if method in BIJECTIONS else {}
        for a, b in pairs:
            yield _score(method, a, b, (last, last), level + 0.02 * rng.normal()) | trip
            yield _score(method, b, a, (last, last), level + 0.02 * rng.normal(), back)


def _similarities(rng, pairs, layers):
    return [
        {
            "measure": measure,
            "a": a,
            "b": b,
            "layer_a": i,
            "layer_b": j,
            "value": float(level - 0.07 * abs(i - j) + 0.02 * rng.normal()),
            "null": 0.05,
        }
        for measure, level in MEASURES.items()
        for a, b in pairs
        for i, j in itertools.product(layers, layers)
    ]


def _spectrum(rng, pair, layer, n=128):
    falling = 0.99 / (1 + np.exp((np.arange(n) - 70 - 5 * rng.normal()) / 14))
    return {"a": pair[0], "b": pair[1], "layer": layer, "correlations": [float(c) for c in falling]}


def _training(rng, pair, layer):
    steps = list(range(0, 1501, 50))
    rise = 0.38 + 0.37 * (1 - np.exp(-np.array(steps) / 400)) + 0.006 * rng.normal(size=len(steps))
    return {
        "method": "INN",
        "a": pair[0],
        "b": pair[1],
        "layer": layer,
        "steps": steps,
        "forward_r2": [float(value) for value in rise],
        "inverse_r2": [float(value) + 0.02 for value in rise],
        "best_step": steps[int(rise.argmax())],
        "round_trip": 2e-6,
    }


@pytest.fixture
def results():
    return fake_results()


@pytest.fixture
def make_results():
    return fake_results
