# SPDX-License-Identifier: Apache-2.0
"""The virtual graph of a cell: users as nodes, what a choice of powers does as their features.

All are functions of ratios, so that units and path loss do not matter; none depends on the phase of
a user, nor on the number of antennas but through the Gram matrix. What users do to each other is in
the response, so that the network itself needs no edges: its neighbours are all users, pooled.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .structure import TINY, Response, View, log_share

FEATURES = 9
MOST = 8.0
"""Of a feature's magnitude."""


class Step(NamedTuple):
    """Where WMMSE would go from here: logarithms of shares and side powers, (B, K) each."""

    share: Tensor
    q: Tensor


def wmmse_step(response: Response, weights: Tensor) -> Step:
    """Logarithms, each over their sum.

    With receivers and error weights of Shi et al. 2011 the uplink shares become
    a_k SINR_k / (total received by k), the side powers a_k (1 + SINR_k).
    """
    unwanted = 1 + response.leak
    total = unwanted + response.signal
    share = weights * response.signal / (unwanted * total)
    q = weights * total / unwanted
    return Step(log_share(share.clamp_min(TINY).log()), log_share(q.clamp_min(TINY).log()))


def features(step: Step, now: Step, seen: View, response: Response, served: Tensor) -> Tensor:
    """(B, K, FEATURES): the step, how far it goes, what is received, kept and spent, how many.

    Args:
        step: of WMMSE; now: before it.
        seen, response: the cell there.
        served: (B, K), 1 or 0.
    """
    users = served.sum(-1, keepdim=True).clamp_min(1)
    size = users.log().expand_as(served)
    spent = now.q.exp() * seen.length
    spent = spent / spent.sum(-1, keepdim=True) * users
    x = [
        step.share + size,
        step.q + size,
        step.share - now.share,
        step.q - (now.q - now.q.logsumexp(-1, keepdim=True)),
        response.signal.log1p() / 2,
        response.leak.log1p() / 2,
        seen.kept,
        spent.clamp_min(1e-6).log() / 2,
        size / 2,
    ]
    return torch.stack(x, -1).clamp(-MOST, MOST)
