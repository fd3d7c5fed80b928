"""What torchrun starts: one rank of a job, which may kill itself once."""

import json
import os
import signal
import sys

import interrupted

from fastinn import _checkpoint, distributed
from fastinn.align import _checkpoints
from fastinn.study import passes


def die_after_saves(n):
    """Kill this rank right after its n-th checkpoint, if it was never restarted."""
    if os.environ.get("TORCHELASTIC_RESTART_COUNT") != "0":
        return
    for kept in (_checkpoints.Checkpoints, passes._Kept):
        kept.save = _deadly(kept.save, n)


def _deadly(save, n):
    saved = []

    def deadly(*args):
        save(*args)
        saved.append(1)
        if len(saved) == n:
            os.kill(os.getpid(), signal.SIGKILL)

    return deadly


def main():
    job, folder, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    if os.environ["RANK"] == str(options.pop("dies", None)):
        die_after_saves(3)
    _checkpoint._SHARE = 1.0  # a checkpoint whenever one is asked for
    with distributed.started():
        interrupted.run(job, folder, options)


if __name__ == "__main__":
    main()
