# SPDX-License-Identifier: Apache-2.0
"""Cell-free networks drawn at random: positions, large-scale gains, pilots, who serves whom.

Vectorised over drops; everything (B, K, L): B drops, K users, L access points (APs). Powers are in
mW and gains are over the noise, in 1/mW, so that the noise power is 1.

Source: Demir, Björnson, Sanguinetti, Foundations of User-Centric Cell-Free Massive MIMO, 2021
(arXiv 2108.02541), its running example (an urban microcell), written from the formulas.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fieldfare.common.errors import InputError

from ..signals.cell_free import CellFree, cell_free


@dataclass(frozen=True)
class DropSettings:
    """A square area that wraps around at its edges, as used throughout the book."""

    side_m: float = 1000.0
    height_m: float = 10.0  # APs above users
    bandwidth_hz: float = 20e6
    noise_figure_db: float = 7.0
    gain_at_1m_db: float = -30.5
    exponent: float = 3.67
    shadowing_db: float = 4.0
    decorrelation_m: float = 9.0  # the shadowing's correlation halves over this distance
    pilot_power_mw: float = 100.0
    pilots: int = 10  # tau_p
    power_mw: float = 199.526  # 23 dBm per AP

    def noise_dbm(self) -> float:
        """Thermal noise (-174 dBm/Hz) over the bandwidth, and the receiver's noise figure."""
        return -174 + 10 * math.log10(self.bandwidth_hz) + self.noise_figure_db


def draw_networks(
    drops: int,
    users: int,
    aps: int,
    antennas: int = 1,
    *,
    serving_aps: int | None = None,
    clusters: bool = False,
    settings: DropSettings | None = None,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
) -> CellFree:
    """Networks of uniformly dropped users and APs, ready for power allocation.

    Args:
        drops: B.
        users: K; above `settings.pilots` users share pilots, and the network carries them.
        aps: L.
        antennas: N of every AP.
        serving_aps: every user is served by this many of its strongest APs; all by default.
        clusters: instead, every AP serves one user of each pilot, see `select_by_pilots`.
        settings: propagation and radio; the book's by default.
        generator: draws positions and shadowing.
        dtype: real, of the result; drawn in float64.

    Returns:
        `CellFree` with leading dimension B.

    Raises:
        InputError: a count below 1, serving_aps above L, or both it and clusters.
    """
    settings = settings or DropSettings()
    for name, count in (("drops", drops), ("users", users), ("aps", aps), ("antennas", antennas)):
        if count < 1:
            raise InputError(f"{name} {count}: must be at least 1")
    beta = large_scale_gains(drops, users, aps, settings, generator)
    pilots = assign_pilots(beta, settings.pilots)
    gamma = estimate_gains(beta, pilots, settings)
    serving = None if serving_aps is None else select_aps(beta, serving_aps)
    if clusters:
        if serving is not None:
            raise InputError(
                "serving APs: not with clusters, which also say who serves; choose one"
            )
        serving = select_by_pilots(beta, pilots)
    return cell_free(
        beta.to(dtype),
        gamma.to(dtype),
        settings.power_mw,
        antennas,
        serving,
        pilots if users > settings.pilots else None,
    )


def large_scale_gains(
    drops: int,
    users: int,
    aps: int,
    settings: DropSettings,
    generator: torch.Generator | None = None,
) -> Tensor:
    """beta over the noise, (B, K, L) float64, in 1/mW.

    beta_dB = -30.5 - 36.7 log10(d / 1 m) + F, d in three dimensions, F the shadowing: normal,
    independent between APs, and between users i, k correlated as 2^(-d_ik / 9 m).
    """
    double = torch.float64
    user = settings.side_m * torch.rand((drops, users, 1, 2), generator=generator, dtype=double)
    ap = settings.side_m * torch.rand((drops, 1, aps, 2), generator=generator, dtype=double)
    distance = (_wrapped(user - ap, settings).square().sum(-1) + settings.height_m**2).sqrt()

    apart = _wrapped(user - user.transpose(1, 2), settings).square().sum(-1).sqrt()
    correlation = 2 ** (-apart / settings.decorrelation_m)
    # A whisker more than the formula: two users at one place would make the matrix singular.
    correlation = correlation + 1e-9 * torch.eye(users, dtype=double)
    white = torch.randn((drops, users, aps), generator=generator, dtype=double)
    shadowing = settings.shadowing_db * (torch.linalg.cholesky(correlation) @ white)

    gain_db = settings.gain_at_1m_db - 10 * settings.exponent * distance.log10() + shadowing
    return torch.pow(10, (gain_db - settings.noise_dbm()) / 10)


def assign_pilots(beta: Tensor, pilots: int) -> Tensor:
    """A pilot for every user, (B, K) int64 in 0 to pilots - 1.

    The first users get one each; every further user takes the pilot that its strongest AP hears
    least of (algorithm 4.1 of the book).
    """
    drops, users, _ = beta.shape
    assigned = torch.arange(users).clamp_max(pilots - 1).repeat(drops, 1)
    strongest = beta.argmax(-1)
    for user in range(pilots, users):
        index = strongest[:, user, None, None].expand(-1, user, 1)
        heard = beta[:, :user].gather(-1, index).squeeze(-1)
        load = beta.new_zeros(drops, pilots).scatter_add_(1, assigned[:, :user], heard)
        assigned[:, user] = load.argmin(-1)
    return assigned


def estimate_gains(beta: Tensor, pilots: Tensor, settings: DropSettings) -> Tensor:
    """gamma, (B, K, L): mean square of the MMSE estimate of every antenna's channel.

    gamma_kl = tau p beta_kl^2 / (tau p sum_{i with k's pilot} beta_il + 1).
    """
    energy = settings.pilots * settings.pilot_power_mw
    same = (pilots.unsqueeze(-1) == pilots.unsqueeze(-2)).to(beta.dtype)
    return energy * beta.square() / (energy * (same @ beta) + 1)


def select_aps(beta: Tensor, count: int) -> Tensor:
    """User-centric selection, (..., K, L) bool: every user is served by its strongest APs.

    Raises:
        InputError: count outside 1 to L.
    """
    if not 1 <= count <= beta.shape[-1]:
        raise InputError(f"serving APs {count}: must be 1 to {beta.shape[-1]}, the number of APs")
    chosen = beta.topk(count, dim=-1).indices
    return torch.zeros_like(beta, dtype=torch.bool).scatter_(-1, chosen, True)


def select_by_pilots(beta: Tensor, pilots: Tensor) -> Tensor:
    """Dynamic cooperation clusters, (B, K, L) bool: an AP serves one user of each pilot.

    Of every pilot an AP serves the user that it hears best; every user is beside that served by the
    AP that hears it best, its master (algorithm 4.1 of the book).

    Args:
        beta: (B, K, L).
        pilots: (B, K), of `assign_pilots`.
    """
    same = pilots.unsqueeze(-1) == pilots.unsqueeze(-2)  # (B, K, K)
    rivals = torch.where(same.unsqueeze(-1), beta.unsqueeze(1), -torch.inf).amax(2)
    master = torch.zeros_like(beta, dtype=torch.bool)
    master = master.scatter_(-1, beta.argmax(-1, keepdim=True), True)
    return (beta >= rivals) | master


def _wrapped(difference: Tensor, settings: DropSettings) -> Tensor:
    """Shortest way on the torus, per coordinate."""
    side = settings.side_m
    return torch.remainder(difference + side / 2, side) - side / 2
