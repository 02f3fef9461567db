# SPDX-License-Identifier: Apache-2.0
"""Channels by the name of their model, with one seed for all."""

import math

import torch
from torch import Tensor

from fieldfare.common.errors import InputError

from .rayleigh import correlated_rayleigh, one_ring_correlation, rayleigh
from .tr38901 import SCENARIOS, draw_sector

MODELS = ("rayleigh", "correlated", *SCENARIOS)

_SPREAD = math.radians(10)
_SECTOR = math.radians(60)


def draw_channels(model: str, count: int, users: int, antennas: int, *, seed: int = 0) -> Tensor:
    """Channels of unit mean gain, complex64.

    Args:
        model: "rayleigh" (independent entries); "correlated" (one ring of 10 degrees around each
            user, users uniform over a sector of 120 degrees, a uniform linear array of half a
            wavelength); "umi", "uma", "rma" (3GPP TR 38.901, dual-polarised panel).
        count: B.
        users, antennas: K, N; N even for the last three.
        seed: same seed, same channels.

    Returns:
        (B, K, N).

    Raises:
        InputError: no such model, an odd number of antennas for a dual-polarised panel, or Sionna
            is not installed.
    """
    if model in SCENARIOS:
        if antennas % 2:
            raise InputError(f"{antennas} antennas: a dual-polarised panel has an even number")
        return draw_sector(model, count, users, _panel(antennas // 2), seed=seed).H[:, 0]
    generator = torch.Generator().manual_seed(seed)
    if model == "rayleigh":
        return rayleigh((count, users, antennas), generator)
    if model == "correlated":
        angle = _SECTOR * (2 * torch.rand((count, users), generator=generator) - 1)
        correlation = one_ring_correlation(antennas, angle, torch.full_like(angle, _SPREAD))
        return correlated_rayleigh(correlation, generator=generator)
    raise InputError(f"no channel model is named {model!r}; choose from {', '.join(MODELS)}")


def _panel(pairs: int) -> tuple[int, int]:
    """Rows and columns, as near to a square as the number allows, wider than high."""
    rows = max(side for side in range(1, math.isqrt(pairs) + 1) if pairs % side == 0)
    return rows, pairs // rows
