# SPDX-License-Identifier: Apache-2.0
"""The guard: where regularised zero forcing promises more than the network, take it instead."""

import torch
from torch import Tensor


def rzf_is_better(learned: Tensor, rzf: Tensor, weights: Tensor | None = None) -> Tensor:
    """Whether RZF has the higher predicted weighted sum rate.

    Args:
        learned, rzf: (..., K) rates in bits/s/Hz, predicted from the channels that the precoders
            were made for. A network whose rates are not finite loses.
        weights: broadcastable to (..., K).

    Returns:
        (...) bool. The mean over a set is the share of channels in which the guard acts; equal
        rates leave the network's precoder.
    """
    if weights is not None:
        learned, rzf = weights * learned, weights * rzf
    return ~(learned.sum(-1) >= rzf.sum(-1))


def guarded_share(flags: Tensor) -> float:
    """Share of channels in which the guard took RZF, 0 to 1."""
    return float(flags.to(torch.float64).mean())
