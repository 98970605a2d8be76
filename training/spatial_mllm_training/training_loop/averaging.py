"""A running average of trained weights, which is what is validated and exported; knows no loop."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class WeightAverage:
    """Exponential, with a shorter memory in the first steps; keeps nothing where `decay` is 0.

    Attributes:
        values: by name.
    """

    def __init__(self, trained: Mapping[str, Tensor], decay: float) -> None:
        self._trained, self._decay = trained, decay
        self.values = {k: p.detach().clone() for k, p in trained.items()} if decay else {}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after `step` steps."""
        if self.values:
            keep = min(self._decay, (1 + step) / (10 + step))
            torch._foreach_lerp_(
                list(self.values.values()), [self._trained[k] for k in self.values], 1.0 - keep
            )

    def restore(self, values: Mapping[str, Tensor]) -> None:
        """Go on with the values of a checkpoint."""
        if self.values:
            self.values = {k: v.to(self._trained[k].device) for k, v in values.items()}

    @torch.no_grad()
    def copy_to_trained(self) -> None:
        for name, value in self.values.items():
            self._trained[name].copy_(value)
