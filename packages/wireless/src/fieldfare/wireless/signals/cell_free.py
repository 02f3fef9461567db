# SPDX-License-Identifier: Apache-2.0
"""Spectral efficiency of the cell-free downlink with maximum-ratio precoding.

All arrays are (..., K, L): K users, L access points (APs). `beta` is the large-scale gain and
`gamma` the mean square of its MMSE estimate, both over the noise (per unit of power, 1/mW say);
mu_kl is the square root of the power that AP l spends on user k, so that AP l keeps to
sum_k mu_kl^2 <= P_l. `serving` is True where AP l serves user k.

Source: Ngo et al. 2017 (doi 10.1109/TWC.2017.2655515); Demir, Björnson, Sanguinetti, Foundations
of User-Centric Cell-Free Massive MIMO, 2021 (arXiv 2108.02541).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from fieldfare.common.errors import InputError

Power = float | Tensor
"""Limit of every AP: a number, or broadcastable to (..., L)."""


class CellFree(NamedTuple):
    """One network, or a batch of them; real tensors of one dtype.

    beta: (..., K, L), gamma: (..., K, L), in 1 / unit of power (noise power 1).
    power: (..., L), limit of every AP.
    antennas: (..., L), N_l of every AP.
    serving: (..., K, L) bool.
    pilots: (..., K) int64, or None where all users' pilots are orthogonal.
    """

    beta: Tensor
    gamma: Tensor
    power: Tensor
    antennas: Tensor
    serving: Tensor
    pilots: Tensor | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> "CellFree":
        """The network with the function applied to every tensor: indexed, say, or moved."""
        return CellFree(
            function(self.beta),
            function(self.gamma),
            function(self.power),
            function(self.antennas),
            function(self.serving),
            None if self.pilots is None else function(self.pilots),
        )


def cell_free(
    beta: Tensor,
    gamma: Tensor,
    power: Power,
    antennas: int | Tensor = 1,
    serving: Tensor | None = None,
    pilots: Tensor | None = None,
) -> CellFree:
    """Put a network together: all APs serve all users unless `serving` says otherwise.

    Args:
        beta, gamma: (..., K, L).
        power, antennas: a number, or broadcastable to (..., L).
        serving: broadcastable to (..., K, L).
        pilots: (..., K) or None.

    Raises:
        InputError: no AP serves some user that has gains.
    """
    if serving is None:
        serving = torch.ones_like(beta, dtype=torch.bool)
    aps = beta.shape[:-2] + beta.shape[-1:]
    unserved = (beta > 0).any(-1) & ~serving.any(-1)
    if bool(unserved.any()):
        user = unserved.nonzero()[0, -1].item()
        raise InputError(
            f"serving: no access point serves user {user}; let one serve every user that has gains"
        )
    return CellFree(
        beta,
        gamma,
        torch.as_tensor(power, dtype=beta.dtype, device=beta.device).expand(aps),
        torch.as_tensor(antennas, dtype=beta.dtype, device=beta.device).expand(aps),
        serving.expand(beta.shape),
        pilots,
    )


def coherent_gain(network: CellFree) -> Tensor:
    """sqrt(N_l gamma_kl), (..., K, L): amplitude at user k per unit of mu; 0 if not served."""
    amplitude = (network.antennas.unsqueeze(-2) * network.gamma).sqrt()
    return torch.where(network.serving, amplitude, 0.0)


def sinr(network: CellFree, mu: Tensor) -> Tensor:
    """Effective SINR of every user by the hardening bound.

    SINR_k = (sum_l sqrt(N_l gamma_kl) mu_kl)^2
             / (sum_l beta_kl sum_i mu_il^2 + sum_{i shares k's pilot} c_ki^2 + 1),
    c_ki = sum_l mu_il sqrt(N_l gamma_il) beta_kl / beta_il (pilot contamination; none where
    `network.pilots` is None; equal pilot powers assumed).

    Args:
        network: see `CellFree`.
        mu: (..., K, L), not negative; entries of pairs not served count as 0.

    Returns:
        (..., K), linear.
    """
    mu = torch.where(network.serving, mu, 0.0)
    gain = coherent_gain(network)
    wanted = (gain * mu).sum(-1).square()
    radiated = mu.square().sum(-2)
    unwanted = (network.beta @ radiated.unsqueeze(-1)).squeeze(-1) + 1
    if network.pilots is not None:
        coherent = network.beta @ (pilot_leakage(network) * mu).mT  # [k, i]
        coherent = torch.where(shared_pilots(network.pilots), coherent, 0.0)
        unwanted = unwanted + coherent.square().sum(-1)
    return wanted / unwanted


def pilot_leakage(network: CellFree) -> Tensor:
    """sqrt(N_l gamma_il) / beta_il, (..., K, L).

    Times beta_kl, it is the amplitude that user k, with the pilot of user i, gets per unit of
    mu_il.
    """
    beta = torch.where(network.serving, network.beta, 1.0)
    return coherent_gain(network) / beta


def shared_pilots(pilots: Tensor) -> Tensor:
    """Whether two different users have the same pilot, (..., K, K)."""
    same = pilots.unsqueeze(-1) == pilots.unsqueeze(-2)
    return same & ~torch.eye(same.shape[-1], dtype=torch.bool, device=same.device)


def spectral_efficiency(network: CellFree, mu: Tensor, prelog: float = 1.0) -> Tensor:
    """SE of every user, (..., K), bits/s/Hz: prelog log2(1 + SINR).

    Args:
        network, mu: as for `sinr`.
        prelog: share of the samples that carry data, 1 - tau_p / tau_c.
    """
    return prelog * torch.log1p(sinr(network, mu)) / math.log(2)


def lowest_efficiency(network: CellFree, se: Tensor) -> Tensor:
    """The lowest of the efficiencies (..., K) of users that some AP serves, (...), 0 without."""
    lowest = torch.where(network.serving.any(-1), se, torch.inf).amin(-1)
    return torch.where(lowest.isfinite(), lowest, 0.0)


def limit_power(network: CellFree, mu: Tensor) -> Tensor:
    """Project mu onto the limits: unserved pairs 0, and every AP above its limit scaled down."""
    mu = torch.where(network.serving, mu.clamp_min(0), 0.0)
    spent = mu.square().sum(-2, keepdim=True)
    limit = network.power.unsqueeze(-2)
    return mu * torch.where(spent > limit, limit / torch.where(spent > 0, spent, 1.0), 1.0).sqrt()
