"""A comparison where there is a GPU: networks train on it, whatever reads the rows."""

from dataclasses import replace

import pytest
import torch
from tolerances import DEVICES

from fastinn.align._trained import TrainedAligner
from fastinn.moments import Moments
from fastinn.study import passes
from fastinn.study.layers import compare

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture
def devices(monkeypatch):
    """Note where the networks of this process train; a hub trains through its template."""
    seen = set()
    run = TrainedAligner._run

    def noted(self, trainer, *args):
        seen.update(p.device.type for p in trainer._parameters)
        return run(self, trainer, *args)

    monkeypatch.setattr(TrainedAligner, "_run", noted)
    return seen


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_networks_and_hubs_train_on_cuda(three_seeds, corpus, quick, tmp_path, devices, n_jobs):
    how = replace(quick, hub="consensus", n_jobs=n_jobs, checkpoints=tmp_path)
    results = compare(three_seeds, corpus, how)
    assert devices == {"cuda"}
    assert {r["method"] for r in results["cycles"]} >= {"INN (two-way)"}
    assert all(torch.isfinite(torch.tensor(r["r2"])) for r in results["scores"])


def test_moments_are_accumulated_on_cuda_and_are_those_of_the_cpu(
    three_seeds, corpus, quick, monkeypatch
):
    seen, update = set(), Moments.update

    def noted(self, rows, *args):
        seen.update(x.device.type for x in rows.values())
        return update(self, rows, *args)

    monkeypatch.setattr(Moments, "update", noted)
    how = replace(quick, network_layers=())
    on_cuda = compare(three_seeds, corpus, how)
    assert seen == {"cuda"}
    monkeypatch.setattr(passes, "roomy_gpu", lambda n_bytes: torch.device("cpu"))
    on_cpu = compare(three_seeds, corpus, how)
    for found, expected in zip(on_cuda["scores"], on_cpu["scores"], strict=True):
        assert found["r2"] == pytest.approx(expected["r2"], abs=DEVICES)
