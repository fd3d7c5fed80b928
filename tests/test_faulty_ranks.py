"""Whatever befalls a rank, the others finish or end with an error; none waits for ever."""

import random
from collections import Counter

import pytest
from faulty_ranks import FAULTS, statuses
from test_distributed import free_port

FULL = pytest.mark.campaign("R9", full=True)
TRIALS = [
    pytest.param("late", 1, id="late"),
    *(pytest.param(fault, 12, id=f"12 times {fault}", marks=FULL) for fault in FAULTS),
]


@pytest.mark.parametrize(("fault", "n_trials"), TRIALS)
def test_no_rank_hangs(tmp_path, trials, fault, n_trials):
    chance, seen = random.Random(0), Counter()
    for trial in trials(range(n_trials)):
        n = 2 + trial % 3
        found = statuses(n, free_port(), str(tmp_path), fault, chance)
        seen.update(found)
        expected = {0} if fault == "late" else {3}
        assert set(found) == expected, f"trial {trial}, {n} ranks: {found}"
    assert sum(seen.values()) >= n_trials
