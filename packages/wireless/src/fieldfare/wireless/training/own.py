# SPDX-License-Identifier: Apache-2.0
"""Channels of the user's own: most to train on, the last quarter of every file to measure on."""

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from fieldfare.common.errors import InputError

from ..channels.files import read_channels
from ..networks.precoder import IcgnnPrecoder, precode
from ..signals.rates import row_power, sum_rate
from ..signals.wmmse import wmmse

LEAST = 4
MEASURED = 128
"""Channels of a file at most, evenly spread over its last quarter."""


class Case(NamedTuple):
    """Channels (B, K, N), power and noise (B,), weights (B, K) or None, WMMSE's mean sum rate."""

    H: Tensor
    power: Tensor
    noise_power: Tensor
    weights: Tensor | None
    best: float


class OwnChannels:
    """Files of channels, split.

    Attributes:
        stored: of every file, (M, K, N) of unit mean gain, for `CellBatches`.
        snr_db: lowest and highest mean SNR of a channel's user with all the power.
        digest: of all that was read.

    Args:
        files: of channels, each of 4 leading entries (B) or more; tones of one entry stay together.

    Raises:
        InputError: a file that cannot be read, of too few channels, or with users without channel.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self.stored: list[Tensor] = []
        self.cases: list[Case] = []
        self.names = [path.name for path in files]
        levels: list[float] = []
        digest = hashlib.sha256()
        for path in files:
            found = read_channels(path)
            entries = len(found.H) if found.H.ndim > 2 else 1
            if entries < LEAST:
                raise InputError(
                    f"{path}: {entries} channels; give {LEAST} or more, as the last quarter is"
                    " measured on"
                )
            if not bool((row_power(found.H) > 0).all()):
                raise InputError(f"{path}: some user has no channel; leave it out")
            leading = found.H.shape[:-2]
            power, noise = (
                level.double().expand(leading) for level in (found.power, found.noise_power)
            )
            weights = None
            if found.weights is not None:
                weights = found.weights.expand(found.H.shape[:-1])
            first = entries - max(1, entries // 4)
            gain = row_power(found.H).mean(-1) / found.H.shape[-1]
            snr = 10 * (gain.double() * power / noise).log10()
            levels += [float(snr.min()), float(snr.max())]
            own = found.H[:first].flatten(0, -3).to(torch.complex64)
            self.stored.append(own / row_power(own).mean().div(own.shape[-1]).sqrt())
            self.cases.append(_case(found.H[first:], power[first:], noise[first:], weights, first))
            digest.update(path.read_bytes())
        self.snr_db = min(levels), max(levels)
        self.digest = digest.hexdigest()

    @torch.no_grad()
    def validate(self, network: IcgnnPrecoder) -> dict[str, float]:
        """Sum rate over that of WMMSE, without the guard: of every file, and their mean."""
        ratios = {}
        for name, case in zip(self.names, self.cases, strict=True):
            H, power, noise, weights, best = case
            W = precode(network, H, power, noise, weights=weights, guard=False).W
            ratios[name] = float(sum_rate(H, W, noise, weights).mean()) / best
        return ratios | {"ratio": math.fsum(ratios.values()) / len(ratios)}


def _case(H: Tensor, power: Tensor, noise: Tensor, weights: Tensor | None, first: int) -> Case:
    """What is measured of a file's last quarter."""
    flat = H.flatten(0, -3).to(torch.complex128)
    chosen = torch.linspace(0, len(flat) - 1, min(MEASURED, len(flat))).long()
    own = power.flatten()[chosen], noise.flatten()[chosen]
    share = None if weights is None else weights[first:].flatten(0, -2)[chosen].double()
    best = wmmse(flat[chosen], *own, weights=share).W
    return Case(
        flat[chosen], *own, share, float(sum_rate(flat[chosen], best, own[1], share).mean())
    )
