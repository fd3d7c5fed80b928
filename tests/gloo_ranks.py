"""What a spawned rank runs; a module of its own, so that the new process can import it."""

import torch
from safetensors.torch import save_file

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


class TwoWay(torch.nn.Module):
    """Squared error of a flow and of its inverse: what one step of an INN backpropagates."""

    def __init__(self, flow):
        super().__init__()
        self.flow = flow

    def forward(self, x, y):
        error = (self.flow(x)[0] - y).square().mean()
        return error + (self.flow.inverse(y)[0] - x).square().mean()


def train_and_save(rank, folder, flow, batches):
    """Backpropagate this rank's batch under DistributedDataParallel and save the gradients."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=len(batches)
    )
    model = torch.nn.parallel.DistributedDataParallel(TwoWay(flow))
    model(*batches[rank]).backward()
    gradients = {name: p.grad for name, p in model.module.named_parameters()}
    save_file(gradients, f"{folder}/{rank}.safetensors")
    torch.distributed.destroy_process_group()
