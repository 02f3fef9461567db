# SPDX-License-Identifier: Apache-2.0
"""How well boxes agree: IoU and complete IoU. Boxes are left, top, right, bottom in pixels."""

import math

import torch
from torch import Tensor

TINY = 1e-7


def iou(one: Tensor, other: Tensor) -> Tensor:
    """Intersection over union, of tensors of boxes that broadcast: (..., 4) to (...)."""
    low = torch.maximum(one[..., :2], other[..., :2])
    high = torch.minimum(one[..., 2:], other[..., 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    areas = [(box[..., 2:] - box[..., :2]).clamp(min=0).prod(-1) for box in (one, other)]
    return shared / (areas[0] + areas[1] - shared + TINY)


def complete_iou(one: Tensor, other: Tensor) -> Tensor:
    """IoU less what centres and proportions differ by, from below -1 to 1: (..., 4) to (...).

    Source: CIoU, Zheng et al. 2020 (arXiv 1911.08287), equations 10 to 12.
    """
    overlap = iou(one, other)
    around = torch.maximum(one[..., 2:], other[..., 2:]) - torch.minimum(
        one[..., :2], other[..., :2]
    )
    centres = [(box[..., :2] + box[..., 2:]) / 2 for box in (one, other)]
    apart = (centres[0] - centres[1]).square().sum(-1)
    diagonal = around.square().sum(-1) + TINY
    angles = []
    for box in (one, other):
        width, height = (box[..., 2:] - box[..., :2]).unbind(-1)
        angles.append(torch.atan(width / height.clamp(min=TINY)))
    shape = 4 / math.pi**2 * (angles[0] - angles[1]).square()
    with torch.no_grad():
        weight = shape / (1 - overlap + shape + TINY)
    return overlap - apart / diagonal - weight * shape
