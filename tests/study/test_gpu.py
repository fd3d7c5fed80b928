"""What of a study goes to a GPU, on a machine that pretends to have one."""

import pytest
import torch

from fastinn.study._gpu import roomy_gpu


@pytest.mark.parametrize(
    ("available", "n_bytes", "device"),
    [(True, 50, "cuda"), (True, 51, "cpu"), (False, 0, "cpu")],
    ids=["room", "no room", "no GPU"],
)
def test_what_takes_less_than_half_of_what_is_free_goes_there(
    monkeypatch, available, n_bytes, device
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (100, 1000))
    assert roomy_gpu(n_bytes) == torch.device(device)
