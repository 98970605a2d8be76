"""Data-parallel processes of one training run: gradients and clocks averaged over gloo.

On a CPU, one thread in each of two processes outruns two threads in one as soon as anything else
runs, because threads wait for each other inside every operator and processes once a step. Start
with `torchrun --nproc-per-node 2 -m spatial_mllm_training.train ...`.
"""

from __future__ import annotations

import os

import torch
import torch.distributed as dist
from torch import nn


class Peers:
    """The processes of this run; a single process needs no communication."""

    def __init__(self) -> None:
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        if self.size > 1:
            dist.init_process_group("gloo")

    @property
    def leads(self) -> bool:
        """Whether this process logs, validates and saves."""
        return self.rank == 0

    def same_clock(self, elapsed_s: float) -> float:
        """The mean of all processes' elapsed times, so that all stop at the same step."""
        if self.size == 1:
            return elapsed_s
        clock = torch.tensor([elapsed_s], dtype=torch.float64)
        dist.all_reduce(clock)
        return float(clock) / self.size

    def average_gradients(self, model: nn.Module) -> None:
        """Replace every gradient by its mean over the processes, in one message."""
        if self.size == 1:
            return
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        bucket = torch.cat([g.reshape(-1) for g in gradients])
        dist.all_reduce(bucket)
        bucket /= self.size
        start = 0
        for gradient in gradients:
            gradient.copy_(bucket[start : start + gradient.numel()].view_as(gradient))
            start += gradient.numel()

    def close(self) -> None:
        if self.size > 1:
            dist.destroy_process_group()
