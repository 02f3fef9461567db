# SPDX-License-Identifier: Apache-2.0
"""Activate while pruning: weights that kept units silent are dropped first, so that units wake.

Liu et al. 2022, *AP: Selective Activation for De-sparsifying Pruned Neural Networks* (arXiv
2212.06145). After each cycle of training a pruner takes its share; then, of the negative weights,
those that moved least in the cycle are dropped as well, and all others go back to where they began.
Only for networks whose activations are ReLUs.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

Masks = dict[str, Tensor]


def prunable_weights(model: nn.Module) -> dict[str, Tensor]:
    """Weights of linear layers and convolutions by name, without biases."""
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    return {
        f"{name}.weight" if name else "weight": module.weight
        for name, module in model.named_modules()
        if isinstance(module, kinds)
    }


def drop_smallest(weights: Mapping[str, Tensor], masks: Masks, share: float) -> Masks:
    """Plain pruning by size over all layers together.

    Args:
        masks: what is kept so far, bool.
        share: of what is kept, rounded to whole weights, to drop; ties at the threshold go too.

    Returns:
        New masks.
    """
    sizes = torch.cat([weights[name].detach().abs()[mask] for name, mask in masks.items()])
    count = round(share * len(sizes))
    if count == 0:
        return dict(masks)
    threshold = sizes.kthvalue(count).values
    return {n: mask & (weights[n].detach().abs() > threshold) for n, mask in masks.items()}


def drop_still_negatives(
    before: Mapping[str, Tensor], after: Mapping[str, Tensor], masks: Masks, count: int
) -> Masks:
    """Drop the negative weights that moved least in a cycle; ties at the threshold go too.

    Args:
        before, after: weights at the start and the end of the cycle.
        masks: what is kept, bool.
        count: how many to drop, over all layers.

    Raises:
        ValueError: fewer negative weights than that are kept.
    """
    candidates = {name: mask & (after[name] < 0) for name, mask in masks.items()}
    moved = {name: (after[name] - before[name]).detach().abs() for name in masks}
    all_moved = torch.cat([moved[name][chosen] for name, chosen in candidates.items()])
    if count > len(all_moved):
        raise ValueError(f"{count} negative weights to drop, {len(all_moved)} are there")
    if count == 0:
        return dict(masks)
    threshold = all_moved.kthvalue(count).values
    return {n: mask & ~(candidates[n] & (moved[n] <= threshold)) for n, mask in masks.items()}


@torch.no_grad()
def rewind(model: nn.Module, start: Mapping[str, Tensor], masks: Masks) -> None:
    """Weights as they were at the start, zero where the masks drop them.

    Args:
        start: a state dict of the model.
    """
    model.load_state_dict(start)
    for name, parameter in model.named_parameters():
        if name in masks:
            parameter.mul_(masks[name])


class DeadRate:
    """Share of a network's ReLU outputs that are zero, over all data that passes.

    Attributes after the data has passed:
        static: units (channels) that are zero for every sample and place, as a share of all units.
        dynamic: zeros of the other units, as a share of all outputs.
        total: zeros among all outputs; more than static + dynamic where units differ in their
            number of places.

    Use as a context manager around the passes.
    """

    def __init__(self, model: nn.Module, kinds: Iterable[type[nn.Module]] = (nn.ReLU,)) -> None:
        self._layers = [module for module in model.modules() if isinstance(module, tuple(kinds))]
        if not self._layers:
            raise ValueError("the model has no ReLU module")
        self._zeros: dict[nn.Module, Tensor] = {}
        self._seen: dict[nn.Module, int] = {}

    def __enter__(self) -> "DeadRate":
        self._handles = [layer.register_forward_hook(self._count) for layer in self._layers]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _count(self, layer: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        axes = [axis for axis in range(output.ndim) if axis != 1]
        zeros = (output == 0).sum(dim=axes)
        self._zeros[layer] = self._zeros.get(layer, torch.zeros_like(zeros)) + zeros
        self._seen[layer] = self._seen.get(layer, 0) + output[:, 0].numel()

    @property
    def total(self) -> float:
        """Share of all outputs that are zero."""
        zeros = sum(int(count.sum()) for count in self._zeros.values())
        return zeros / self._outputs()

    @property
    def static(self) -> float:
        """Share of the outputs that belong to units which never speak."""
        silent = 0
        for layer, zeros in self._zeros.items():
            silent += int(zeros[zeros == self._seen[layer]].sum())
        return silent / self._outputs()

    @property
    def dynamic(self) -> float:
        """The rest of the zeros."""
        return self.total - self.static

    def _outputs(self) -> int:
        found = sum(len(z) * self._seen[layer] for layer, z in self._zeros.items())
        if not found:
            raise ValueError("no data has passed")
        return found
