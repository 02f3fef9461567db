# SPDX-License-Identifier: Apache-2.0
"""Weights set to zero while a network trains, smallest first, in patterns that a CPU can skip.

Zhu and Gupta 2017, *To prune, or not to prune* (arXiv 1710.01878): the share of zeros follows a
cubic curve. Elsen et al. 2019, *Fast Sparse ConvNets* (arXiv 1911.09723): only the 1x1 convolutions
are pruned; stem, depthwise layers and classifier stay dense. Blocks of output channels that share
their inputs: 1xN (Lin et al. 2021, arXiv 2105.14713). `blocks.sparse_pointwise.sparsify` makes use
of the zeros.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from fieldfare.common.blocks.sparse_blocks import ROWS
from fieldfare.common.blocks.sparse_pointwise import is_pointwise


def cubic(progress: float, final: float, initial: float = 0.0) -> float:
    """Share of zeros: from initial to final, fast at first; progress 0 to 1, clamped."""
    left = 1 - min(1.0, max(0.0, progress))
    return final + (initial - final) * left**3


def mask_smallest(
    weight: Tensor, sparsity: float, *, rows: int = ROWS, kept: Tensor | None = None
) -> Tensor:
    """What to keep of a 1x1 convolution's weight.

    Args:
        weight: (O, C, 1, ...).
        sparsity: share of blocks to drop, rounded to whole blocks; 0 to 1.
        rows: output channels that share their inputs, dropped by the sum of their sizes; 1 drops
            single weights.
        kept: of an earlier call; what it dropped is dropped first.

    Returns:
        Bool, the shape of weight.
    """
    if not 0 <= sparsity <= 1:
        raise ValueError(f"sparsity {sparsity}: must be in [0, 1]")
    size = weight.detach().abs().flatten(1)
    if kept is not None:
        size = size * kept.flatten(1)
    outputs, channels = size.shape
    blocks = -(-outputs // rows)
    padded = size.new_zeros(blocks * rows, channels)
    padded[:outputs] = size
    scores = padded.view(blocks, rows, channels).sum(dim=1).flatten()
    if kept is not None:
        # a block that training brought to zero is not one that was dropped
        alive = kept.new_zeros(blocks * rows, channels)
        alive[:outputs] = kept.flatten(1)
        dropped = ~alive.view(blocks, rows, channels).any(dim=1).flatten()
        scores = scores.masked_fill(dropped, -1.0)
    keep = torch.ones_like(scores, dtype=torch.bool)
    keep[scores.argsort(stable=True)[: round(sparsity * len(scores))]] = False
    mask = keep.view(blocks, 1, channels).expand(blocks, rows, channels).flatten(0, 1)
    return mask[:outputs].reshape(weight.shape)


class Pruner:
    """Prunes the 1x1 convolutions of a model while an optimiser trains it.

    After every step what is dropped is zero again; every `every` steps of the schedule more is
    dropped. A dropped weight stays dropped. The masks are not in the model's state: after a resume
    make the pruner anew, with `step` set; it takes up the zeros that are there.

    Args:
        model: changed in place by each step of the optimiser.
        optimizer: of its weights; the pruner counts its steps.
        sparsity: share of blocks that is zero at the end, in each layer.
        begin, end: steps between which it rises.
        every: steps between events.
        rows: see `mask_smallest`.
        skip: names of layers to leave dense. The first convolution and grouped ones always are, as
            they are not pointwise or see the image itself.

    Raises:
        ValueError: no layer to prune, end not after begin, or a name in skip that no layer has.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        sparsity: float,
        *,
        begin: int,
        end: int,
        every: int = 100,
        rows: int = ROWS,
        skip: Iterable[str] = (),
    ) -> None:
        if not 0 <= begin < end or every < 1:
            raise ValueError(f"begin {begin} must be before end {end}, every {every} at least 1")
        left, skip = prunable(model), set(skip)
        if unknown := skip - set(left):
            raise ValueError(f"skip: no prunable layer is named {sorted(unknown)[0]}")
        self.layers: dict[str, Any] = {n: layer for n, layer in left.items() if n not in skip}
        if not self.layers:
            raise ValueError("the model has no 1x1 convolution to prune")
        self.sparsity, self.begin, self.end, self.every = sparsity, begin, end, every
        self.rows, self.step = rows, 0
        self.masks = {name: layer.weight.detach() != 0 for name, layer in self.layers.items()}
        self._handle = optimizer.register_step_post_hook(lambda *_: self.advance())

    @torch.no_grad()
    def advance(self) -> None:
        """A step of the optimiser is done; called by it."""
        self.step += 1
        due = self.begin < self.step <= self.end
        if due and ((self.step - self.begin) % self.every == 0 or self.step == self.end):
            share = cubic((self.step - self.begin) / (self.end - self.begin), self.sparsity)
            for name, layer in self.layers.items():
                mask = mask_smallest(layer.weight, share, rows=self.rows, kept=self.masks[name])
                self.masks[name] = mask & self.masks[name]
        for name, layer in self.layers.items():
            layer.weight.mul_(self.masks[name])

    def close(self) -> None:
        """Let the optimiser go; weights are free to leave zero from now on."""
        self._handle.remove()


def prunable(model: nn.Module) -> dict[str, nn.Module]:
    """The 1x1 convolutions by name, without the model's first convolution."""
    convolutions = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    ]
    return {name: module for name, module in convolutions[1:] if is_pointwise(module)}
