# SPDX-License-Identifier: Apache-2.0
"""Whole channels taken out of a network, with everything that depends on them.

Fang et al. 2023, *DepGraph: Towards Any Structural Pruning* (arXiv 2301.12900), by its library
torch-pruning (extra `slim`): channels that must go together are found by tracing the network, and
the groups with the smallest weights go. For transformers see `optin`.
"""

import copy
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..efficiency.cost import cost
from ..errors import InputError

ROUNDS = 12
"""Tries to meet a budget, each halving what is left open of the share."""


def prune_to(
    model: nn.Module,
    example: Tensor,
    macs: float,
    *,
    keep: Sequence[nn.Module] = (),
    multiple: int = 8,
) -> nn.Module:
    """A copy of a model with fewer channels, an ordinary model that is to be trained again.

    Args:
        model: traced with the example; unchanged.
        example: one input batch.
        macs: share of the multiply-accumulates that may be left, 0 to 1.
        keep: layers of the model whose outputs keep their number (a classifier, a decoder's end).
        multiple: what is left of a layer's channels is a multiple of this.

    Returns:
        In evaluation mode, with the largest share of channels that meets the budget.

    Raises:
        InputError: torch-pruning is not installed.
        ValueError: even one group of channels a layer costs more, or a layer to keep is not in the
            model.
    """
    if not 0 < macs <= 1:
        raise ValueError(f"macs {macs}: must be a share above 0, at most 1")
    if not set(keep) <= set(model.modules()):
        raise ValueError("keep: a layer that is no part of the model")
    whole = cost(model, example).macs
    low, high, best = 0.0, 1.0, None
    smallest = 0
    for _ in range(ROUNDS):
        share = (low + high) / 2
        pruned = _pruned(model, example, share, keep, multiple)
        smallest = cost(pruned, example).macs
        if smallest <= macs * whole:
            best, high = pruned, share
        else:
            low = share
    if best is None:
        raise ValueError(
            f"macs {macs}: with as many channels gone as can be, {smallest / whole:.3f} are left"
        )
    return best


def _pruned(
    model: nn.Module,
    example: Tensor,
    share: float,
    keep: Sequence[nn.Module],
    multiple: int,
) -> nn.Module:
    try:
        import torch_pruning
    except ImportError:
        raise InputError("pruning needs: pip install 'fieldfare-common[slim]'") from None
    memo: dict[int, Any] = {}
    own = copy.deepcopy(model, memo).eval()
    copies = [memo[id(module)] for module in keep]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of parameters outside layers, which it leaves alone
        pruner = torch_pruning.pruner.BasePruner(
            own,
            example,
            importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio=share,
            ignored_layers=copies,
            round_to=multiple,
        )
        pruner.step()
    with torch.no_grad():
        own(example)  # a network that no longer fits together says so here
    return own
