# SPDX-License-Identifier: Apache-2.0
"""Running statistics of batch norms anew, from the network's own activations.

A network cut out of a larger one has statistics of other activations than its own, and is wrong
until they are measured: the mean of the batches' means and of their (biased) variances.

Cai et al. 2020, *Once-for-All* (arXiv 1908.09791); about 2000 images are enough there.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .genes import Value
from .network import ElasticNet

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@torch.no_grad()
def recalibrate(model: nn.Module, batches: Iterable[Tensor]) -> int:
    """Measure the running statistics of every batch norm; the model keeps its mode.

    Each batch is normalised by its own statistics, all else is as in evaluation.

    Args:
        model: changed in place.
        batches: inputs, (B, ...), weighted by B.

    Returns:
        How many norms were measured.

    Raises:
        ValueError: no batch.
    """
    norms: list[Any] = [module for module in model.modules() if isinstance(module, _NORMS)]
    sums: dict[nn.Module, tuple[Tensor, Tensor]] = {}
    weights: dict[nn.Module, int] = {}

    def measure(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0].detach()
        x = x if x.dtype == torch.float64 else x.float()
        axes = [axis for axis in range(x.ndim) if axis != 1]
        var, mean = torch.var_mean(x, dim=axes, correction=0)
        old = sums.get(norm, (torch.zeros_like(mean), torch.zeros_like(var)))
        sums[norm] = old[0] + mean * len(x), old[1] + var * len(x)
        weights[norm] = weights.get(norm, 0) + len(x)

    modes = {module: module.training for module in model.modules()}
    kept = {norm: (norm.running_mean.clone(), norm.running_var.clone()) for norm in norms}
    counts = {norm: norm.num_batches_tracked.clone() for norm in norms}
    handles = [norm.register_forward_pre_hook(measure) for norm in norms]
    try:
        model.eval()
        for norm in norms:
            norm.train()
        for batch in batches:
            model(batch)
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode
        for norm in norms:
            norm.num_batches_tracked.copy_(counts[norm])
            norm.running_mean.copy_(kept[norm][0])
            norm.running_var.copy_(kept[norm][1])
    if norms and not sums:
        raise ValueError("recalibration needs at least one batch")
    for norm, (mean, var) in sums.items():
        norm.running_mean.copy_(mean / weights[norm])  # type: ignore[operator]
        norm.running_var.copy_(var / weights[norm])  # type: ignore[operator]
    return len(sums)


def recalibrate_choice(
    net: ElasticNet, choice: Mapping[str, Value], batches: Iterable[Tensor]
) -> nn.Module:
    """Extract a network with statistics of its own, and write them into the elastic one.

    Returns:
        The extracted network. Other choices share the statistics that were written.
    """
    small = net.extract(choice)
    recalibrate(small, batches)
    net.insert_statistics(choice, small)
    return small
