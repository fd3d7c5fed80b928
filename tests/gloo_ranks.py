"""What a spawned rank runs; a module of its own, so that the new process can import it."""

import torch

from fastinn import Moments


def reduce_and_save(rank, folder, widths, blocks):
    """Update with this rank's block, if it has one, all-reduce, and save what came out."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=len(blocks)
    )
    moments = Moments(widths)
    if blocks[rank] is not None:
        moments.update(blocks[rank])
    moments.all_reduce().save(f"{folder}/{rank}.safetensors")
    torch.distributed.destroy_process_group()
