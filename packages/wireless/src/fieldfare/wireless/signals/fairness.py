# SPDX-License-Identifier: Apache-2.0
"""Proportional fairness: weights from the rates that users have had, and those rates a slot later.

Serving for the largest sum of rate over past rate, slot after slot, maximises the sum of the
logarithms of the long-term rates.

Source: Viswanath, Tse, Laroia 2002 (doi 10.1109/TIT.2002.1003822); multi-user: Kountouris, Gesbert
2005 (doi 10.1109/ISIT.2005.1523562).
"""

import torch
from torch import Tensor

LEAST = 1e-3
"""Of the largest past rate of a channel: what users that had next to nothing count as."""


def fair_weights(past_rate: Tensor, weights: Tensor | None = None) -> Tensor:
    """Weights of a proportional-fair slot, (..., K): `weights` over the past rates, mean about 1.

    Args:
        past_rate: (..., K), at least 0; where all are 0 all users count alike.
        weights: (..., K), of the users beside that; 0 for users not to be served.
    """
    most = past_rate.amax(-1, keepdim=True)
    floor = torch.where(most > 0, LEAST * most, 1.0)
    found = 1 / past_rate.clamp_min(0).maximum(floor)
    found = found if weights is None else found * weights
    return found / found.mean(-1, keepdim=True).clamp_min(torch.finfo(found.dtype).tiny)


def next_past_rate(past_rate: Tensor, rate: Tensor, window: float) -> Tensor:
    """(1 - 1 / window) past_rate + rate / window, (..., K); the window in slots."""
    return past_rate + (rate - past_rate) / window
