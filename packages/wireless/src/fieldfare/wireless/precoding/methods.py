# SPDX-License-Identifier: Apache-2.0
"""Every precoder behind one signature, by the names that the commands use."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fieldfare.common.errors import InputError

from ..signals.linear import mrt, rzf, zf
from ..signals.waterfilling import zf_waterfilling
from ..signals.wmmse import wmmse
from .options import BASELINES, METHODS


class Precoded(NamedTuple):
    """W (..., N, K) and, of the learned precoder, where its guard took RZF (...)."""

    W: Tensor
    guarded: Tensor | None = None


Precoder = Callable[[Tensor, Tensor, Tensor, Tensor | None], Precoded]
"""(H, power, noise_power, weights or None) -> Precoded."""


def baseline(name: str) -> Precoder:
    """One of `BASELINES`; weights count in wmmse only."""

    def precode(H: Tensor, power: Tensor, noise_power: Tensor, weights: Tensor | None) -> Precoded:
        with torch.no_grad():
            if name == "mrt":
                return Precoded(mrt(H, power))
            if name == "zf":
                return Precoded(zf(H, power))
            if name == "zf-wf":
                return Precoded(zf_waterfilling(H, power, noise_power))
            if name == "rzf":
                return Precoded(rzf(H, power, noise_power))
            return Precoded(wmmse(H, power, noise_power, weights=weights).W)

    if name not in BASELINES:
        raise InputError(f"no precoder is named {name!r}; choose from {', '.join(METHODS)}")
    return precode


def can_serve(name: str, users: int, antennas: int) -> bool:
    """Whether a method takes so many users: zero forcing needs as many antennas."""
    return users <= antennas or not name.startswith("zf")


def in_batches(precoder: Precoder, batch: int) -> Precoder:
    """The precoder on at most `batch` channels at a time, so that memory stays bounded."""

    def precode(H: Tensor, power: Tensor, noise_power: Tensor, weights: Tensor | None) -> Precoded:
        leading = H.shape[:-2]
        channels, levels, share = flat(H, (power, noise_power), weights)
        parts = [
            precoder(
                channels[at : at + batch],
                levels[0][at : at + batch],
                levels[1][at : at + batch],
                None if share is None else share[at : at + batch],
            )
            for at in range(0, len(channels), batch)
        ]
        W = _joined([part.W for part in parts], leading)
        flags = [part.guarded for part in parts if part.guarded is not None]
        return Precoded(W, _joined(flags, leading) if flags else None)

    return precode


def flat(
    H: Tensor, levels: Sequence[Tensor], weights: Tensor | None
) -> tuple[Tensor, list[Tensor], Tensor | None]:
    """Channels, levels and weights with one leading dimension: subcarriers count as channels."""
    leading = H.shape[:-2]
    share = None if weights is None else weights.expand(H.shape[:-1]).reshape(-1, H.shape[-2])
    return (
        H.reshape(-1, *H.shape[-2:]),
        [torch.as_tensor(level).expand(leading).reshape(-1) for level in levels],
        share,
    )


def _joined(parts: Sequence[Tensor], leading: Sequence[int]) -> Tensor:
    whole = torch.cat(list(parts))
    return whole.reshape(*leading, *whole.shape[1:])
