"""Stream N rows of two views into moments, solve the CCA, print the peak resident bytes.

Run: ``python bench/stream_cca.py N``. A process of its own, because the peak of a process never
falls.
"""

import sys

from memory import resident_peak
from workloads import rows

from fastinn import Moments
from fastinn.align import CCA

_BLOCK, _D = 10_000, 768


def main(n: int) -> None:
    moments = Moments({"x": _D, "y": _D})
    for start in range(0, n, _BLOCK):
        x = rows(min(_BLOCK, n - start), _D, "cpu", seed=start)
        moments.update({"x": x, "y": x + rows(len(x), _D, "cpu", seed=start + 1)})
    CCA().from_moments(moments, "x", "y")
    print(resident_peak())


if __name__ == "__main__":
    main(int(sys.argv[1]))
