# SPDX-License-Identifier: Apache-2.0
"""Dice and binary cross-entropy of each region, and deep supervision."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.regions import REGIONS

SMOOTHING = 1.0
"""Voxels added above and below Dice's line: a region that a batch lacks then asks for an empty map
instead of dividing 0 by 0."""


def truth_maps(depth: Tensor, regions: Sequence[str] = REGIONS) -> Tensor:
    """Regions from how deep a voxel lies in them.

    Args:
        depth: (B, *size), 0 outside the tumour, 1 in WT only, 2 in TC too, 3 in ET too.
        regions: which maps, of `regions.REGIONS`.

    Returns:
        (B, len(regions), *size) float32 of 0 and 1.
    """
    return torch.stack([depth > REGIONS.index(name) for name in regions], dim=1).float()


def soft_dice(logits: Tensor, truth: Tensor) -> Tensor:
    """1 - Dice of each channel, over the whole batch, (R,).

    Args:
        logits: (B, R, *size).
        truth: the same shape, in [0, 1].

    Source: Milletari et al. 2016 (arXiv 1606.04797), with p + t rather than p^2 + t^2 below the
    line; over the batch as nnU-Net's `batch_dice`, which small regions need.
    """
    axes = (0, *range(2, logits.ndim))
    probability = torch.sigmoid(logits)
    overlap = 2 * (probability * truth).sum(axes) + SMOOTHING
    return 1 - overlap / (probability.sum(axes) + truth.sum(axes) + SMOOTHING)


def cross_entropy(logits: Tensor, truth: Tensor) -> Tensor:
    """Mean binary cross-entropy of each channel, (R,); shapes as for `soft_dice`."""
    axes = (0, *range(2, logits.ndim))
    return F.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean(axes)


def region_loss(logits: Tensor, truth: Tensor, weights: Sequence[float]) -> Tensor:
    """Dice plus cross-entropy, the weighted mean over the regions; a scalar.

    Args:
        logits: (B, R, *size), of any precision.
        truth: the same shape, in [0, 1].
        weights: one for each region, not all 0.
    """
    logits = logits.float()
    shares = torch.tensor(weights, device=logits.device, dtype=torch.float32)
    each = soft_dice(logits, truth) + cross_entropy(logits, truth)
    return (each * shares).sum() / shares.sum()


def level_weights(count: int) -> list[float]:
    """Of the levels of deep supervision, finest first: each half of the one before; sum 1.

    Source: nnU-Net, Isensee et al. 2021 (doi 10.1038/s41592-020-01008-z).
    """
    total = sum(0.5**level for level in range(count))
    return [0.5**level / total for level in range(count)]


def deep_supervision(
    maps: Tensor | Sequence[Tensor], truth: Tensor, weights: Sequence[float]
) -> Tensor:
    """`region_loss` of every level that a network gives in training.

    The truth of a coarse voxel is the share of its ground that lies in the region, so that a thin
    enhancing rim is still there four times smaller.

    Args:
        maps: logits (B, R, *size), or a list of them, finest first, coarser ones at their own size.
        truth: (B, R, *size) in [0, 1], at the size of the finest.
        weights: of the regions.
    """
    levels = [maps] if isinstance(maps, Tensor) else list(maps)
    total = truth.new_zeros(())
    for logits, weight in zip(levels, level_weights(len(levels)), strict=True):
        total = total + weight * region_loss(logits, _at_size(truth, logits.shape[2:]), weights)
    return total


def _at_size(truth: Tensor, size: Sequence[int]) -> Tensor:
    if truth.shape[2:] == tuple(size):
        return truth
    pool = {2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}[truth.ndim - 2]
    return pool(truth, list(size))  # type: ignore[arg-type]
