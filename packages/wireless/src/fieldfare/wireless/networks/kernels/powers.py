# SPDX-License-Identifier: Apache-2.0
"""The compiled loops for cell-free networks on the CPU."""

import numpy as np
import torch

from ...signals.cell_free import CellFree, coherent_gain, shared_pilots
from ...signals.max_min import MaxMinResult, flatten
from . import max_min as loops
from .channels import share_out


def max_min(network: CellFree, *, tolerance: float = 1e-6, max_steps: int = 2000) -> MaxMinResult:
    """As `signals.max_min.max_min`, eight networks at a time, as many threads as torch has."""
    leading, flat = network.beta.shape[:-2], flatten(network)
    count, users, aps = flat.beta.shape
    shared, same = False, np.zeros((1, 1))
    if flat.pilots is not None:
        pairs = shared_pilots(flat.pilots)
        shared, same = bool(pairs.any()), pairs.double().reshape(count, -1).numpy()
    beta, gain = (
        part.reshape(count, -1).contiguous().numpy() for part in (flat.beta, coherent_gain(flat))
    )
    mu, power = np.empty_like(beta), flat.power.contiguous().numpy()
    found, steps = np.zeros((count, 2)), np.zeros((count, 1))

    def work(begin: int, end: int) -> None:
        given = (beta, gain, power, same, users, aps, shared, tolerance, max_steps)
        loops.max_min(*given, begin, end, mu, found, steps)

    share_out(work, count, least=16)
    lowest, upper = torch.from_numpy(found).square().unbind(-1)
    upper = torch.where(torch.from_numpy(found[:, 1]) < 1e300, upper, torch.inf)
    return MaxMinResult(
        torch.from_numpy(mu).reshape(network.beta.shape),
        lowest.reshape(leading),
        upper.reshape(leading),
    )
