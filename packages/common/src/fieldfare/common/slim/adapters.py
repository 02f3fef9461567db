# SPDX-License-Identifier: Apache-2.0
"""Structured pruning adapters: a low-rank change of frozen weights that is pruned with them.

Hedegaard et al. 2022, *Structured Pruning Adapters* (arXiv 2211.10155), SPLoRA: W' = W + cols rows,
W frozen, bias trained. A convolution's change touches its centre tap only. Fused, it costs nothing.
Columns start at zero, so an adapter changes nothing at first (the published ones start at 1e-4).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

KINDS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class LowRankChange(nn.Module):
    """weight (O, I, *K) -> weight + cols rows at the centre tap.

    Attributes:
        cols: (O, rank), zero at first.
        rows: (rank, I).

    Raises:
        ValueError: an even kernel, which has no centre.
    """

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        if any(side % 2 == 0 for side in weight.shape[2:]):
            raise ValueError(f"kernel {tuple(weight.shape[2:])} has no centre")
        self.cols = nn.Parameter(weight.new_zeros(weight.shape[0], rank))
        self.rows = nn.Parameter(weight.new_empty(rank, weight.shape[1]))
        nn.init.xavier_uniform_(self.rows)

    def forward(self, weight: Tensor) -> Tensor:
        """The changed weight."""
        change = self.cols @ self.rows
        if weight.ndim == 2:
            return weight + change
        centre = [0] * weight[0, 0].numel()
        centre[len(centre) // 2] = 1  # odd sides: the middle of the flattened kernel
        tap = weight.new_tensor(centre).view(weight.shape[2:])
        return weight + change.view(*change.shape, *[1] * tap.ndim) * tap


def adapt(model: nn.Module, rank: int) -> int:
    """Freeze a model and give its linear layers and convolutions adapters.

    Args:
        model: changed in place. Only adapters and the biases of their layers train afterwards;
            grouped convolutions and those with even kernels have none.
        rank: of the change.

    Returns:
        How many numbers train.

    Raises:
        ValueError: a rank below 1, or no layer that takes an adapter.
    """
    if rank < 1:
        raise ValueError(f"rank {rank}: must be at least 1")
    model.requires_grad_(False)
    count = 0
    for layer in [m for m in model.modules() if isinstance(m, KINDS)]:
        if getattr(layer, "groups", 1) > 1 or any(s % 2 == 0 for s in layer.weight.shape[2:]):
            continue
        change = LowRankChange(layer.weight, rank)
        parametrize.register_parametrization(layer, "weight", change, unsafe=True)
        count += sum(p.numel() for p in change.parameters())
        if layer.bias is not None:
            layer.bias.requires_grad_(True)
            count += layer.bias.numel()
    if not count:
        raise ValueError("the model has no layer that takes an adapter")
    return count


@torch.no_grad()
def fuse_adapters(model: nn.Module) -> None:
    """Add the changes to the weights; the model is an ordinary one again, and all of it trains."""
    for layer in list(model.modules()):
        if parametrize.is_parametrized(layer, "weight"):
            own: Any = layer
            if isinstance(own.parametrizations.weight[0], LowRankChange):
                parametrize.remove_parametrizations(layer, "weight")
    model.requires_grad_(True)


@torch.no_grad()
def prune_channels(
    layer: nn.Module, *, outputs: Tensor | None = None, inputs: Tensor | None = None
) -> None:
    """Keep some of a layer's channels, of its adapter as well.

    Args:
        layer: a linear layer or an ungrouped convolution, with or without an adapter; changed in
            place.
        outputs, inputs: indices to keep, in order; all when None.

    Raises:
        ValueError: a grouped convolution, whose inputs and outputs go together.
    """
    own: Any = layer
    if getattr(own, "groups", 1) > 1:
        raise ValueError("channels of a grouped convolution cannot be pruned one by one")
    adapted = parametrize.is_parametrized(layer, "weight")
    holder = own.parametrizations.weight if adapted else own
    name = "original" if adapted else "weight"
    weight = getattr(holder, name)
    rows = (torch.arange(weight.shape[0]) if outputs is None else outputs).to(weight.device)
    cols = (torch.arange(weight.shape[1]) if inputs is None else inputs).to(weight.device)

    def keep(parameter: Tensor, axis: int, index: Tensor) -> nn.Parameter:
        return nn.Parameter(parameter.index_select(axis, index), parameter.requires_grad)

    kept = weight.index_select(0, rows).index_select(1, cols)
    setattr(holder, name, nn.Parameter(kept, weight.requires_grad))
    if own.bias is not None:
        own.bias = keep(own.bias, 0, rows)
    if adapted:
        change = holder[0]
        change.cols = keep(change.cols, 0, rows)
        change.rows = keep(change.rows, 1, cols)
    linear = isinstance(layer, nn.Linear)
    setattr(own, "out_features" if linear else "out_channels", len(rows))
    setattr(own, "in_features" if linear else "in_channels", len(cols))
