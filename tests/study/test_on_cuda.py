"""A comparison where there is a GPU: networks train on it, whatever reads the rows."""

from dataclasses import replace

import pytest
import torch

from fastinn.align import INN
from fastinn.study.layers import compare

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_networks_and_hubs_train_on_cuda(three_seeds, corpus, quick, tmp_path, monkeypatch, n_jobs):
    devices = set()
    fit = INN._fit

    def noted(self, *args):
        fitted = fit(self, *args)
        devices.add(next(fitted.network_.parameters()).device.type)
        return fitted

    monkeypatch.setattr(INN, "_fit", noted)
    how = replace(quick, hub="consensus", n_jobs=n_jobs, checkpoints=tmp_path)
    results = compare(three_seeds, corpus, how)
    assert devices <= {"cuda"}
    assert {r["method"] for r in results["cycles"]} >= {"INN (two-way)"}
    assert all(torch.isfinite(torch.tensor(r["r2"])) for r in results["scores"])
