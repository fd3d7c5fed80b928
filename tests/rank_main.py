"""What torchrun starts: one rank of a job, which may kill itself once."""

import json
import os
import sys

import interrupted

from fastinn import _checkpoint, distributed


def main():
    job, folder, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    dies, saves = options.pop("dies", None), options.pop("saves", 3)
    restarted = os.environ.get("TORCHELASTIC_RESTART_COUNT") != "0"
    if os.environ.get("RANK") == str(dies) and not restarted:
        interrupted.die_after_saves(saves, folder)
    _checkpoint._SHARE = 1.0  # a checkpoint whenever one is asked for
    with distributed.started():
        interrupted.run(job, folder, options)


if __name__ == "__main__":
    main()
