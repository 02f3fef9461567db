# SPDX-License-Identifier: Apache-2.0
"""What a detector is trained by: classes, boxes, and the distributions that boxes come from.

Sources: targets from TOOD, Feng et al. 2021 (arXiv 2108.07755); complete IoU, Zheng et al. 2020
(arXiv 1911.08287); distribution focal loss, Li et al. 2020 (arXiv 2006.04388), equation 6.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..networks.head import BINS, SIDES, cells, corners, flat
from ..networks.leyolo import STRIDES
from .assignment import assign
from .boxes import complete_iou


@dataclass(frozen=True)
class Gains:
    """Weights of the three losses, as LeYOLO was trained."""

    box: float = 7.5
    classes: float = 0.5
    distribution: float = 1.5


class Objective:
    """The loss of one batch: images (B, bands, H, W) with boxes (B, N, 4) and classes (B, N).

    Class -1 is no object; boxes are left, top, right, bottom in pixels.
    """

    def __init__(self, gains: Gains | None = None) -> None:
        self.gains = gains or Gains()

    def __call__(self, model: nn.Module, batch: Mapping[str, Any]) -> Tensor:
        image = batch["image"].contiguous(memory_format=torch.channels_last)
        return detection_loss(model(image), batch["boxes"], batch["classes"], self.gains)


def detection_loss(maps: Sequence[Tensor], truth: Tensor, classes: Tensor, gains: Gains) -> Tensor:
    """Mean over the assigned cells of a batch, each weighted by its target.

    Args:
        maps: raw, of each level.
        truth: (B, N, 4); classes: (B, N) int64, -1 where there is no object.
    """
    sizes = [(level.shape[-2], level.shape[-1]) for level in maps]
    centres, strides = cells(sizes, STRIDES, maps[0].device)
    distances, logits = flat([level.float() for level in maps])
    boxes = corners(distances, centres, strides)
    targets, total = torch.zeros_like(logits), torch.zeros((), device=logits.device)
    box_loss, distribution = total.clone(), total.clone()
    for index in range(len(logits)):
        known = classes[index] >= 0
        objects, labels = truth[index][known], classes[index][known]
        found = assign(
            logits[index].detach().sigmoid(),
            boxes[index].detach(),
            centres * strides[:, None],
            objects,
            labels,
        )
        taken = found.objects >= 0
        if not taken.any():
            continue
        owner, weight = found.objects[taken], found.scores[taken]
        targets[index, taken.nonzero()[:, 0], labels[owner]] = weight
        total = total + weight.sum()
        wanted = objects[owner]
        overlap = complete_iou(boxes[index, taken], wanted)
        box_loss = box_loss + ((1 - overlap) * weight).sum()
        grid = wanted / strides[taken, None]
        here = centres[taken]
        reach = torch.cat((here - grid[:, :2], grid[:, 2:] - here), -1)
        each = distribution_loss(distances[index, taken].unflatten(-1, (SIDES, BINS)), reach)
        distribution = distribution + (each.mean(-1) * weight).sum()
    class_loss = F.binary_cross_entropy_with_logits(logits, targets, reduction="sum")
    share = total.clamp(min=1.0)
    parts = gains.box * box_loss + gains.classes * class_loss + gains.distribution * distribution
    return parts / share


def distribution_loss(logits: Tensor, reach: Tensor) -> Tensor:
    """Cross-entropy with the two whole distances beside the true one: (..., 16) to (...).

    Args:
        reach: (...) distances in cells; they are kept within 0 to 15.
    """
    reach = reach.clamp(0, BINS - 1 - 0.01)
    left = reach.long()
    share = reach - left
    logs = logits.log_softmax(-1)
    below = logs.gather(-1, left[..., None])[..., 0]
    above = logs.gather(-1, (left + 1)[..., None])[..., 0]
    return -(below * (1 - share) + above * share)
