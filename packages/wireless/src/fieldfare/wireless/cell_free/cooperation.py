# SPDX-License-Identifier: Apache-2.0
"""What users get of powers, by the precoding of the access points (APs), and what it costs them.

Maximum ratio has a closed form. The MMSE precoders have none: their spectral efficiency is a mean
over drawn channels, the same draws for every network and allocation.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from fieldfare.common.errors import InputError

from ..signals.cell_free import CellFree, spectral_efficiency
from ..signals.cooperation import (
    Precoding,
    draw_realisations,
    fronthaul,
    hardening_efficiency,
    precoders,
    spend,
)
from .options import FRACTIONAL, JOINT, MAXIMUM_RATIO, CooperationOptions

MOST_NUMBERS = 2**27
"""Of the channels of a network's realisations: 2 GiB, and about four times that at work."""


class Served(NamedTuple):
    """Roots of the mean powers (B, K, L), and SE of every user (B, K), bits/s/Hz."""

    mu: Tensor
    se: Tensor


def check_powers(precoding: str, method: str) -> None:
    """Raise InputError where a precoding does not take a method's powers."""
    if precoding == JOINT and method != FRACTIONAL:
        raise InputError(
            f"--precoding {JOINT}: its powers are fractional, of users and not of pairs; choose"
            f" --method {FRACTIONAL}"
        )


def serve(
    network: CellFree, mu: Tensor, precoding: Precoding, options: CooperationOptions, seed: int
) -> Served:
    """SE of networks with one leading dimension, by the hardening bound.

    Args:
        network: (B, K, L).
        mu: (B, K, L); of joint precoding nothing but what it spends is taken.
        precoding: of the APs.
        options: realisations and the uplink's power.
        seed: of the realisations.

    Raises:
        InputError: APs of unlike numbers of antennas, or more realisations than memory.
    """
    if precoding == MAXIMUM_RATIO:
        return Served(mu, spectral_efficiency(network, mu))
    found = []
    for index in range(len(network.beta)):
        one = network.map(lambda part, index=index: part[index])  # type: ignore[misc]
        found.append(_serve_one(one, mu[index], precoding, options, seed))
    mus, rates = zip(*found, strict=True)
    return Served(torch.stack(mus).to(mu), torch.stack(rates).to(mu))


def _serve_one(
    network: CellFree, mu: Tensor, precoding: Precoding, options: CooperationOptions, seed: int
) -> Served:
    users, aps = network.beta.shape
    antennas = int(network.antennas[0])
    if bool((network.antennas != antennas).any()) or bool((network.antennas % 1 != 0).any()):
        raise InputError(
            f"--precoding {precoding}: needs as many antennas at every access point, a whole number"
        )
    numbers = options.realisations * users * aps * antennas
    if numbers > MOST_NUMBERS:
        raise InputError(
            f"--precoding {precoding}: {numbers * 16 / 2**30:.3g} GiB of channels a network; choose"
            f" at most --realisations {MOST_NUMBERS * options.realisations // numbers}"
        )
    drawn = draw_realisations(network, options.realisations, torch.Generator().manual_seed(seed))
    uplink = network.power.mean() / 2 if options.uplink_power is None else options.uplink_power
    directions = precoders(network, drawn.estimate, precoding, uplink)
    W = spend(network, directions, precoding, mu.double())
    spent = W.abs().square().sum(-1).mean(0).sqrt()
    return Served(spent, hardening_efficiency(drawn.channel, W))


def crossing(network: CellFree, precoding: Precoding, options: CooperationOptions) -> Tensor:
    """Complex numbers over all fronthaul links in a coherence block: (B, 2), data and pilots."""
    data = options.block - options.pilots
    found = []
    for index in range(len(network.beta)):
        one = network.map(lambda part, index=index: part[index])  # type: ignore[misc]
        load = fronthaul(one, precoding, samples=data, pilots=options.pilots)
        found.append(torch.stack([load.data.double().sum(), load.pilots.double().sum()]))
    return torch.stack(found)
