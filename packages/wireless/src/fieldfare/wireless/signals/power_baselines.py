# SPDX-License-Identifier: Apache-2.0
"""Power allocation without optimisation: equal and fractional."""

import torch
from torch import Tensor

from .cell_free import CellFree


def fractional(network: CellFree, exponent: float = 0.5) -> Tensor:
    """Every AP spends all its power on the users it serves, in proportion to gamma^exponent.

    Args:
        network: see `CellFree`.
        exponent: 0 shares equally; 0.5 is the usual fractional allocation; negative favours
            distant users.

    Returns:
        mu (..., K, L): mu_kl^2 = P_l gamma_kl^v / sum_{i served by l} gamma_il^v; an AP that
        serves no one stays silent.

    Source: Interdonato, Frenger, Larsson 2019 (arXiv 1902.11275).
    """
    # Through logarithms: gamma^v itself leaves float32 for the gains and exponents in use.
    gamma = torch.where(network.serving, network.gamma, 1.0)
    log_share = torch.where(network.serving, exponent * gamma.log(), -torch.inf)
    served = network.serving.any(-2, keepdim=True)
    share = torch.softmax(torch.where(served, log_share, 0.0), dim=-2)
    share = torch.where(network.serving, share, 0.0)
    return (network.power.unsqueeze(-2) * share).sqrt()


def equal(network: CellFree) -> Tensor:
    """Every AP shares its power equally among the users it serves, (..., K, L)."""
    return fractional(network, 0.0)
