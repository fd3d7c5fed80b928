"""The wgmma products of second moments run on the host, instruction by instruction, with no GPU."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from tolerances import FLOAT32_SUMS

from fastinn.ops.second_moments import _panels
from fastinn.ops.second_moments._panels import Tile

pytestmark = pytest.mark.gate

ROOT = Path(__file__).parents[2]
EMULATOR = Path(__file__).with_name("sm90_emulator")
TILE = Tile(128, 192)


@pytest.fixture(scope="session")
def emulator(tmp_path_factory):
    """The kernel's own source, with the instructions of sm_90a emulated."""
    program = tmp_path_factory.mktemp("emulator") / "second_moments"
    include = ["-I", EMULATOR, "-I", ROOT / "csrc"]
    options = ["-std=c++17", "-O2", "-Wall", "-Werror", "-Wno-unknown-pragmas"]
    source = EMULATOR / "second_moments.cpp"
    subprocess.run(["g++", *options, *include, source, "-o", program], check=True)
    return program


def staged(layers, rows, columns, split, seed):
    """Rows split in two, without the powers of two that put them into float16's range."""
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(layers, rows, columns)) * 1000
    high = matrix.astype(np.float16)
    return [high, (matrix - high).astype(np.float16)] if split else [high]


def multiplied(x, y):
    """What is summed: of a split all but the product of both low parts, in float64."""
    (high_x, *low_x), (high_y, *low_y) = ([part.astype(np.float64) for part in s] for s in (x, y))
    product = high_x.T @ high_y
    return product + (high_x.T @ low_y[0] + low_x[0].T @ high_y if low_x else 0)


def computed(emulator, x, y, tiles, panel, blocks, seed):
    layers, rows, _ = x[0].shape
    numbers = [int(len(x) == 2), blocks, seed, layers, rows, panel]
    numbers += [x[0].shape[2], y[0].shape[2], len(tiles)]
    head = " ".join(map(str, numbers)).encode() + b"\n"
    data = b"".join(part.tobytes() for part in (tiles.numpy(), *x, *y))
    done = subprocess.run([emulator], input=head + data, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return np.frombuffer(done.stdout, np.float32).reshape(layers, -1, len(tiles), *TILE)


@pytest.mark.parametrize("split", [True, False], ids=["split", "single"])
@pytest.mark.parametrize(
    ("layers", "rows", "panel", "blocks", "seed"),
    [(1, 128, 512, 1, 0), (2, 384, 256, 3, 1), (1, 128, 512, 9, 2)],
    ids=["one tile after the other", "panels and layers", "more blocks than tiles"],
)
def test_sums_of_products(emulator, split, layers, rows, panel, blocks, seed):
    x, y = (staged(layers, rows, 384, split, seed) for seed in range(2))
    tiles = _panels._tiles(384, 384, TILE, True, torch.device("cpu"))
    sums = computed(emulator, x, y, tiles, panel, blocks, seed)
    for layer, first in np.ndindex(sums.shape[:2]):
        part = np.s_[layer, first * panel : (first + 1) * panel]
        expected = multiplied([m[part] for m in x], [m[part] for m in y])
        for actual, (i, j) in zip(sums[layer, first], tiles.tolist(), strict=True):
            block = expected[i * 128 : (i + 1) * 128, j * 192 : (j + 1) * 192]
            assert np.abs(actual - block).max() <= FLOAT32_SUMS * np.abs(block).max()
