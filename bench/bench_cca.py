"""CCA of two views of 768 features, every correlation, beside what else there is for it."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from accuracy import check
from ceilings import product
from comparison import Case
from peers import CCA as PEERS
from peers import load
from peers.cca import numpy_cholesky
from tolerances import BENCH
from workloads import rows

from fastinn import Moments
from fastinn.align import CCA

SLOW = "scikit-learn"  # iterates component by component
SHAPES = {"2k x 16": (2000, 16), "20k x 768": (20_000, 768), "100k x 768": (100_000, 768)}
STREAMED = (10_000, 100_000, 1_000_000)


def views(n, d, device):
    """Return two views that share half of their features, up to noise and a rotation."""
    torch.manual_seed(0)
    x = rows(n, d, device)
    mixing = torch.linalg.qr(torch.randn(d, d, device=device)).Q
    y = torch.cat([x[:, : d // 2], rows(n, d - d // 2, device, seed=1)], dim=1)
    return x, (y + 0.5 * rows(n, d, device, seed=2)) @ mixing


def fit(x, y):
    """Return a CCA of products rounded as the results say; ``CCA().fit`` takes exact ones."""
    moments = Moments({"x": x.shape[1], "y": y.shape[1]}, precision="high")
    return CCA().from_moments(moments.update({"x": x, "y": y}), "x", "y")


def mean_correlation(x, y, a, b):
    """Return the mean correlation of the variates, in float64."""
    u, v = ((z.double() - z.double().mean(dim=0)) @ w for z, w in ((x, a), (y, b)))
    return float(((u * v).sum(dim=0) / (u.norm(dim=0) * v.norm(dim=0))).abs().mean())


def defined(x, y):
    """Return the directions that NumPy finds in float64, on the device of ``x``."""
    found = numpy_cholesky.directions(x.cpu().numpy(), y.cpu().numpy())
    return [torch.as_tensor(directions).to(x.device) for directions in found]


@pytest.mark.parametrize("shape", SHAPES)
def test_all_correlations(comparison, device, shape):
    n, d = SHAPES[shape]
    x, y = views(n, d, device)
    modules, absent = load(PEERS)
    if d > 16:
        absent[SLOW] = "takes hours at this width"
        modules.pop(SLOW, None)
    expected = mean_correlation(x, y, *defined(x, y))
    fitted = fit(x, y)
    found = mean_correlation(x, y, fitted.x_directions_, fitted.y_directions_)
    error = check(abs(found - expected), BENCH["high"], "mean correlation")

    arrays = x.cpu().numpy(), y.cpu().numpy()
    # Both covariances by their triangles, and the cross-covariance.
    work = 4.0 * n * d * d
    comparison(
        Case(shape, n, product(device, "float32"), work, "high", "default", absent),
        partial(fit, x, y),
        {name: partial(module.directions, *arrays) for name, module in modules.items()},
        error,
    )


@pytest.mark.parametrize("n", STREAMED)
def test_memory_does_not_grow(results, capsys, n):
    """Peak resident memory of a process that streams ``n`` rows and then solves the CCA."""
    script = Path(__file__).parent / "stream_cca.py"
    peak = int(subprocess.check_output([sys.executable, script, str(n)], text=True))
    with capsys.disabled():
        print(f"\ncca: {n:,} streamed rows | peak {peak / 2**20:,.0f} MiB resident", end="")
    case = {"bench": "cca", "case": f"{n:,} rows, streamed"}
    results.add({**case, "precision": "high", "backend": "default", "peak_memory": peak})
