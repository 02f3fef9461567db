# SPDX-License-Identifier: Apache-2.0
"""Every precoder behind one signature, by the names that the commands use."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from fieldfare.common.errors import InputError

from ..signals.linear import mrt, rzf, zf
from ..signals.rates import rate, row_power
from ..signals.selection import greedy_rzf, precode_selected
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
    """One of `BASELINES`; weights count in wmmse and greedy only."""

    def precode(H: Tensor, power: Tensor, noise_power: Tensor, weights: Tensor | None) -> Precoded:
        if name == "mrt":
            return Precoded(mrt(H, power))
        if name == "zf":
            return Precoded(zf(H, power))
        if name == "zf-wf":
            return Precoded(zf_waterfilling(H, power, noise_power))
        if name == "rzf":
            return Precoded(rzf(H, power, noise_power))
        if name == "greedy":
            return Precoded(greedy_rzf(H, power, noise_power, weights))
        return Precoded(wmmse(H, power, noise_power, weights=weights).W)

    if name not in BASELINES:
        raise InputError(f"no precoder is named {name!r}; choose from {', '.join(METHODS)}")
    otherwise = sharp(precode) if name in ("rzf", "greedy", "wmmse") else precode
    return compiled(partial(_in_loops, name), for_served(otherwise))


MOST_USERS = 128
"""With more, a library's routine for one matrix at a time is the faster."""


def compiled(loops: Precoder, otherwise: Precoder) -> Precoder:
    """Compiled loops where they fit: channels on the CPU of not too many users.

    Args:
        loops: takes H (B, K, N), levels (B,), weights (B, K) or None, users to be served or not.
        otherwise: the same in torch.
    """

    def precode(H: Tensor, power: Tensor, noise_power: Tensor, weights: Tensor | None) -> Precoded:
        if not fit_loops(H):
            return otherwise(H, power, noise_power, weights)
        leading = H.shape[:-2]
        flat_H, levels, share = flat(H, (power, noise_power), weights)
        found = loops(flat_H, levels[0], levels[1], share)
        if len(leading) == 1:
            return found
        flags = None if found.guarded is None else found.guarded.reshape(leading)
        return Precoded(found.W.reshape((*leading, *found.W.shape[1:])), flags)

    return precode


def fit_loops(H: Tensor) -> bool:
    """Whether compiled loops take these channels (..., K, N)."""
    return H.device.type == "cpu" and H.numel() > 0 and H.shape[-2] <= MOST_USERS


def _in_loops(
    name: str, H: Tensor, power: Tensor, noise_power: Tensor, weights: Tensor | None
) -> Precoded:
    from ..networks.kernels.channels import Channels  # loads numba

    channels = Channels(H, power, noise_power, weights)
    if name == "mrt":
        return Precoded(channels.mrt())
    if name.startswith("zf"):
        return Precoded(channels.zf(filled=name == "zf-wf"))
    if name == "wmmse":
        return Precoded(channels.wmmse()[0])
    if name == "greedy":
        channels = channels.served_by(torch.arange(len(H)), channels.greedy())
    return Precoded(channels.rzf())


def exact_rate(H: Tensor, W: Tensor, noise_power: Tensor) -> Tensor:
    """Rate of every user in double precision, bits/s/Hz, (..., K)."""
    if not fit_loops(H):
        return rate(H.to(torch.complex128), W.to(torch.complex128), noise_power)
    from ..networks.kernels.channels import rates

    channels, (noise,), _ = flat(H, (noise_power,), None)
    return rates(channels, W.reshape(-1, *W.shape[-2:]), noise).reshape(H.shape[:-1])


def for_served(precoder: Precoder) -> Precoder:
    """The precoder on users that have a channel and a weight; the others get no power.

    Args:
        precoder: takes H (B, K, N), levels (B,) and weights (B, K) or None, all users to be served.

    Returns:
        Takes any leading dimensions, and levels and weights that broadcast to them.
    """

    def precode(H: Tensor, power: Tensor, noise_power: Tensor, weights: Tensor | None) -> Precoded:
        leading = H.shape[:-2]
        H, (power, noise_power), share = flat(H, (power, noise_power), weights)
        served = row_power(H) > 0
        if share is not None:
            served = served & (share > 0)
        guards = False

        def each(
            H: Tensor, power: Tensor, noise_power: Tensor, weights: Tensor | None
        ) -> tuple[Tensor, Tensor]:
            nonlocal guards
            found = precoder(H, power, noise_power, weights)
            guards = found.guarded is not None
            none = torch.zeros(len(H), dtype=torch.bool, device=H.device)
            return found.W, none if found.guarded is None else found.guarded

        with torch.no_grad():
            W, flags = precode_selected(each, served, H, power, noise_power, share)
        W = W.reshape((*leading, *W.shape[1:]))
        return Precoded(W, flags.reshape(leading) if guards else None)

    return precode


SHARP = 1e4
"""Condition of the system to solve from which single precision costs rate."""


def sharp(precoder: Precoder) -> Precoder:
    """The precoder in double precision on channels (B, K, N) whose systems need it."""

    def precode(H: Tensor, power: Tensor, noise_power: Tensor, weights: Tensor | None) -> Precoded:
        if H.dtype == torch.complex128:
            return precoder(H, power, noise_power, weights)
        gain = row_power(H).sum(-1)
        needed = gain * power / (noise_power * H.shape[-2]) > SHARP
        if not bool(needed.any()):
            return precoder(H, power, noise_power, weights)
        W = torch.empty_like(H.mT)
        for rows, dtype in ((needed, torch.complex128), (~needed, H.dtype)):
            if bool(rows.any()):
                share = None if weights is None else weights[rows]
                W[rows] = precoder(H[rows].to(dtype), power[rows], noise_power[rows], share).W.to(H)
        return Precoded(W)

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
    if (
        H.ndim == 3
        and weights is None
        and all(level.shape == leading and level.device == H.device for level in levels)
    ):
        return H, list(levels), None  # a call less is a microsecond
    share = None if weights is None else weights.expand(H.shape[:-1]).reshape(-1, H.shape[-2])
    return (
        H.reshape(-1, *H.shape[-2:]),
        [torch.as_tensor(level, device=H.device).expand(leading).reshape(-1) for level in levels],
        share,
    )


def _joined(parts: Sequence[Tensor], leading: Sequence[int]) -> Tensor:
    whole = torch.cat(list(parts))
    return whole.reshape((*leading, *whole.shape[1:]))
