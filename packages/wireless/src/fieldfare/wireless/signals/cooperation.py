# SPDX-License-Identifier: Apache-2.0
"""Cell-free precoding beyond maximum ratio: MMSE at every access point, or over all of them.

Channels and estimates are drawn, as these precoders have no closed form: (R, K, L, N) complex, R
realisations of K users at L access points (APs) of N antennas, over the noise. Antennas of an AP
fade independently: the estimate of h_kl has the mean square gamma_kl an antenna, its error
beta_kl - gamma_kl, and users of one pilot have parallel estimates. Precoders do not know more than
the estimates, and users no more than the mean of their channel (hardening bound).

Source: Demir, Björnson, Sanguinetti, Foundations of User-Centric Cell-Free Massive MIMO, 2021
(arXiv 2108.02541): P-MMSE and LP-MMSE of chapters 5 and 6, written from the formulas.
"""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from .cell_free import CellFree
from .power_baselines import fractional

Precoding = Literal["mr", "lp-mmse", "p-mmse"]


class Drawn(NamedTuple):
    """Channels and their MMSE estimates, (R, K, L, N) complex."""

    channel: Tensor
    estimate: Tensor


class Load(NamedTuple):
    """Complex numbers that cross the fronthaul of each AP in a coherence block, (L,)."""

    data: Tensor
    pilots: Tensor


def draw_realisations(
    network: CellFree, count: int, generator: torch.Generator | None = None
) -> Drawn:
    """Draw R channels of one network (K, L), each with its estimate.

    Args:
        network: without leading dimension, APs of equally many antennas.
        count: R.
        generator: of the draws.
    """
    users, aps = network.beta.shape
    antennas = int(network.antennas[0])
    if bool((network.antennas != antennas).any()):
        raise ValueError("antennas: all access points must have equally many")
    dtype = torch.complex128
    size = (count, users, aps, antennas)
    white = torch.randn(size, generator=generator, dtype=dtype)
    ratio = (network.gamma.double() / network.beta.double().clamp_min(1e-300)).unsqueeze(-1)
    pilots = torch.arange(users) if network.pilots is None else network.pilots
    # What the AP hears of a pilot, at unit power: the same for all who send it.
    heard = torch.randn(size, generator=generator, dtype=dtype)
    first = torch.stack([(pilots == pilot).nonzero()[0, 0] for pilot in pilots])
    heard = heard[:, first]
    estimate = network.gamma.double().sqrt().unsqueeze(-1) * heard
    error = (network.beta.double().unsqueeze(-1) * (1 - ratio)).clamp_min(0).sqrt()
    return Drawn(estimate + error * white, estimate)


def precoders(
    network: CellFree, estimate: Tensor, kind: Precoding, uplink: float | Tensor = 100.0
) -> Tensor:
    """Directions (R, K, L, N), zeros for pairs not served.

    Args:
        network: as for `draw_realisations`.
        estimate: of it.
        kind: maximum ratio; MMSE of every AP by itself for the users that it serves (LP-MMSE); MMSE
            over all APs of a user, against the users that share some of them (P-MMSE).
        uplink: power that the users are weighted with, a number or (K,), in the unit of the gains.
    """
    serving = network.serving
    if kind == "mr":
        return estimate * serving.unsqueeze(-1)
    users, antennas = estimate.shape[1], estimate.shape[3]
    power = torch.as_tensor(uplink, dtype=torch.float64).expand(users)
    error = (network.beta - network.gamma).double().clamp_min(0)
    eye = torch.eye(antennas, dtype=estimate.dtype)
    if kind == "lp-mmse":
        own = estimate * serving.unsqueeze(-1)
        S = torch.einsum("rkln,rklm,k->rlnm", own, own.conj(), power.to(own.dtype))
        noise = (power.unsqueeze(-1) * error * serving).sum(0) + 1
        side = own.permute(0, 2, 3, 1)
        solved: Tensor = torch.linalg.solve(S + noise[:, None, None] * eye, side)
        return solved.permute(0, 3, 1, 2) * power.to(solved.dtype)[:, None, None]
    found = torch.zeros_like(estimate)
    for user in range(users):
        mine = serving[user].nonzero()[:, 0]
        near = (serving[:, mine].any(-1)).nonzero()[:, 0]
        part = estimate[:, near][:, :, mine].flatten(2)  # (R, near, all antennas)
        level = power[near]
        S = torch.einsum("rka,rkb,k->rab", part, part.conj(), level.to(part.dtype))
        noise = (level.unsqueeze(-1) * error[near][:, mine]).sum(0) + 1
        S = S + torch.diag(noise.repeat_interleave(antennas)).to(S.dtype)
        side = estimate[:, user, mine].flatten(1).unsqueeze(-1)
        joint = power[user] * torch.linalg.solve(S, side).squeeze(-1)
        found[:, user, mine] = joint.unflatten(1, (len(mine), antennas))
    return found


def spend(
    network: CellFree, directions: Tensor, kind: Precoding, mu: Tensor | None = None
) -> Tensor:
    """Precoders within the mean power of every AP.

    Local precoders get mu_kl^2 each (fractional allocation by default). A joint one keeps its
    balance between APs: user k weighs (sum_l beta_kl)^-1/2 (arXiv 2108.02541, section 7.2), and one
    factor brings the AP that works most to its limit.
    """
    square = directions.abs().square().sum(-1).mean(0)  # (K, L), mean over the realisations
    if kind != "p-mmse":
        mu = fractional(network) if mu is None else mu
        scale = torch.where(network.serving, mu / square.sqrt().clamp_min(1e-150), 0.0)
        return directions * scale.unsqueeze(-1)
    strength = (network.beta * network.serving).sum(-1).double()
    share = strength.rsqrt() / square.sum(-1).clamp_min(1e-300)
    used = (share.unsqueeze(-1) * square).sum(0)
    factor = (network.power.double() / used.clamp_min(1e-300)).min()
    return directions * (share * factor).sqrt()[:, None, None]


def hardening_efficiency(channel: Tensor, W: Tensor, prelog: float = 1.0) -> Tensor:
    """SE of every user, (K,), of means over the realisations (hardening bound).

    Args:
        channel, W: (R, K, L, N); users receive sum_i h_k^H w_i s_i and noise of power 1.
        prelog: share of the samples that carry data.
    """
    received = torch.einsum("rkln,riln->rki", channel.conj(), W)
    wanted = received.diagonal(dim1=-2, dim2=-1).mean(0).abs().square()
    everything = received.abs().square().mean(0).sum(-1)
    return prelog * torch.log1p(wanted / (everything - wanted + 1)) / math.log(2)


def fronthaul(network: CellFree, kind: Precoding, samples: int = 190, pilots: int = 10) -> Load:
    """What crosses each AP's fronthaul in a coherence block.

    Args:
        network: as above.
        kind: local precoders get the data of the users they serve; one processor for all sends
            what every antenna transmits, and needs what every antenna heard of the pilots.
        samples: of downlink data a block; pilots: of uplink pilots.
    """
    served = network.serving.sum(0)
    if kind == "p-mmse":
        return Load(network.antennas * samples, network.antennas * pilots)
    return Load(served * samples, torch.zeros_like(served))
