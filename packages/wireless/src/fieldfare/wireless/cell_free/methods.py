# SPDX-License-Identifier: Apache-2.0
"""Every power allocation behind one signature, by the names that the commands use."""

import operator
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from fieldfare.common.errors import InputError

from ..signals.cell_free import CellFree
from ..signals.cone_programs import import_cvxpy, max_min_socp
from ..signals.max_min import max_min as max_min_at_once
from ..signals.power_baselines import equal, fractional
from ..signals.sum_rate import maximise_sum_rate
from .options import CONES, METHODS

Allocation = Callable[[CellFree], Tensor]
"""A network (B, K, L) to mu (B, K, L), the square root of every power."""


PROVED = 1e-5
"""How near its bound the root of a smallest SINR must come, relatively, for nothing to be said."""


FEW, LARGE = 5, 20_000
"""Networks, and pairs in each: the compiled loops do eight networks at a time, however few there
are, and from so many pairs on torch's products are the faster."""


def _max_min(network: CellFree) -> Tensor:
    from ..networks.kernels.powers import max_min  # loads numba

    few_and_large = len(network.beta) < FEW and network.beta[0].numel() > LARGE
    found = (max_min_at_once if few_and_large else max_min)(network)
    gap = (found.upper_bound / found.min_sinr).sqrt() - 1
    if missed := int((gap > PROVED).sum()):
        warnings.warn(
            f"max-min: on {missed} networks the bound stayed up to {100 * float(gap.max()):.2g} %"
            " above what was found; their optimum is somewhere between",
            RuntimeWarning,
            stacklevel=2,
        )
    return found.mu.to(network.beta)


BASELINES: dict[str, Allocation] = {
    "equal": equal,
    "fractional": fractional,
    "max-min": _max_min,
    CONES: lambda network: max_min_socp(network).mu.to(network.beta.dtype),
    "sum-rate": lambda network: maximise_sum_rate(network).mu,
}


def baseline(name: str) -> Allocation:
    """One of `BASELINES`.

    Raises:
        InputError: no such allocation, or what it needs is not installed.
    """
    if name not in BASELINES:
        raise InputError(f"no allocation is named {name!r}; choose from {', '.join(METHODS)}")
    if name == CONES:
        import_cvxpy()
    return BASELINES[name]


def batched(network: CellFree) -> CellFree:
    """The network with one leading dimension."""
    return network if network.beta.ndim == 3 else network.map(lambda tensor: tensor.unsqueeze(0))


def for_reached(allocation: Allocation) -> Allocation:
    """The allocation on users that some access point reaches; the others get no power.

    A user without any gain is as if it were not there.
    """

    def allocate(network: CellFree) -> Tensor:
        reached = network.serving.any(-1)
        if bool(reached.all()):
            return allocation(network)
        mu = torch.zeros_like(network.beta)
        counts = reached.sum(-1)
        for count in counts.unique().tolist():
            if not count:
                continue
            rows = (counts == count).nonzero()[:, 0]
            users = reached[rows].nonzero()[:, 1].reshape(-1, count)
            pick = (rows.unsqueeze(-1), users)
            part = CellFree(
                network.beta[pick],
                network.gamma[pick],
                network.power[rows],
                network.antennas[rows],
                network.serving[pick],
                None if network.pilots is None else network.pilots[pick],
            )
            mu[pick] = allocation(part).to(mu.dtype)
        return mu

    return allocate


def in_batches(allocation: Allocation, batch: int) -> Allocation:
    """The allocation on at most `batch` networks at a time, so that memory stays bounded."""

    def allocate(network: CellFree) -> Tensor:
        parts = [
            allocation(network.map(operator.itemgetter(slice(at, at + batch))))
            for at in range(0, len(network.beta), batch)
        ]
        return torch.cat(parts)

    return allocate
