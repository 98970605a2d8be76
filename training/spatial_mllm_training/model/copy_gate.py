"""What a decoder that is told numbers says at each token of an answer: a word of its own, or a digit of one of them.

A pointer-generator (See et al., "Get To The Point", ACL 2017) over `COUNT` numbers instead of over the words of a
source: its gate is a linear map of the last hidden state; which digit a number goes on with is known.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spatial_mllm_core.model.digits import COUNT, digits_at

_SMALLEST = 1e-30
"""Stands for a chance of 0, whose logarithm has no gradient."""


class CopyGate(nn.Module):
    """Shares of the chances between the words and each number; half of them the words' at first.

    Args:
        digit_ids: tokens of the ten digits.
    """

    digit_ids: Tensor

    def __init__(self, hidden_size: int, digit_ids: Sequence[int]) -> None:
        super().__init__()
        self.gate = nn.Linear(hidden_size, 1 + COUNT)
        nn.init.normal_(self.gate.weight, std=0.1 * hidden_size**-0.5)
        with torch.no_grad():
            self.gate.bias.copy_(torch.tensor([0.0] + [-math.log(COUNT)] * COUNT))
        self.register_buffer("digit_ids", torch.tensor(digit_ids), persistent=False)

    def forward(self, logits_MV: Tensor, hidden_MD: Tensor) -> Tensor:
        """(M, V + COUNT) logarithms of the chances of each word, and of copying each number."""
        shares = F.log_softmax(self.gate(hidden_MD).float(), dim=-1)
        words = F.log_softmax(logits_MV.float(), dim=-1) + shares[:, :1]
        return torch.cat([words, shares[:, 1:]], dim=-1)

    def words(self, scores_MX: Tensor, numbers_MC: Tensor, places_M: Tensor) -> Tensor:
        """(M, V) logits of the next token: `spatial_mllm_core.model.digits.with_copies` of many tokens.

        Args:
            scores_MX: of `forward`.
            numbers_MC: that are told there, NaN for none.
            places_M: of the digit that would come next, -1 where none would.
        """
        places = places_M.cpu().numpy()
        found = digits_at(numbers_MC.cpu().numpy(), places.clip(min=0))
        found[places < 0] = -1
        digits_MC = torch.from_numpy(found).to(scores_MX.device)
        words, copies = scores_MX.split([scores_MX.shape[1] - COUNT, COUNT], dim=1)
        is_digit = digits_MC[..., None] == torch.arange(10, device=scores_MX.device)
        chances = (is_digit * copies.exp()[..., None]).sum(1)
        gained = torch.logaddexp(words[:, self.digit_ids], torch.log(chances.clamp(min=_SMALLEST)))
        return words.index_copy(1, self.digit_ids, gained)
