# SPDX-License-Identifier: Apache-2.0
"""The loss of networks whose queries each find one building: matched one to one, at points.

Cheng et al. 2022, "Masked-attention Mask Transformer for Universal Image Segmentation"
(arXiv 2112.01527), section 3.3: Hungarian matching and mask losses on points, most of them where
the mask is unsure (Kirillov et al., arXiv 1912.08193). Weights as there: class 2, cross-entropy 5,
dice 5; no building 0.1. What differs: points of which nothing is known count nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from ..networks.pem import Found

CLASS, MASK, DICE = 2.0, 5.0, 5.0
NO_OBJECT = 0.1

POINTS = 2048
"""Of each mask; the published 12,544 are for images of a thousand pixels."""

OVERSAMPLED, UNSURE = 3.0, 0.75
"""So many times the points are drawn, and this share of those kept is where the mask is least
sure; the others lie anywhere."""

LEAST_PIXELS = 8
"""A roof of which a patch holds less is not looked for."""


@dataclass(frozen=True)
class Target:
    """What is on one image.

    Attributes:
        classes: (N,) int64.
        masks: (N, H, W) float32, 0 or 1.
        known: (H, W) float32, 0 where nothing is known.
    """

    classes: Tensor
    masks: Tensor
    known: Tensor


def targets_of(numbers: Tensor, known: Tensor) -> list[Target]:
    """Building numbers (B, H, W) and what is known likewise -> a target for each image."""
    found = []
    for image, here in zip(numbers.round().long(), known, strict=True):
        values, counts = image[here > 0].unique(return_counts=True)
        kept = values[(counts >= LEAST_PIXELS) & (values > 0)]
        masks = (image == kept[:, None, None]).float()
        found.append(Target(torch.zeros_like(kept), masks, here))
    return found


def at_points(maps: Tensor, points: Tensor) -> Tensor:
    """Maps (N, h, w) read at points (N or 1, P, 2), across and down in [0, 1] -> (N, P)."""
    grid = (2 * points - 1).expand(len(maps), -1, -1)[:, :, None]
    return F.grid_sample(maps[:, None], grid, align_corners=False)[:, 0, :, 0]


def match(classes: Tensor, masks: Tensor, target: Target, points: Tensor) -> tuple[Tensor, Tensor]:
    """The cheapest pairs of queries and true objects.

    Args:
        classes, masks: logits (Q, K + 1) and (Q, h, w).
        points: (1, P, 2) where masks are compared.

    Returns:
        Indices of the queries, rising, and of what each is matched with.
    """
    with torch.no_grad():
        chance = classes.float().softmax(-1)[:, target.classes]
        weight = at_points(target.known[None], points)
        said = at_points(masks.float(), points)
        true = at_points(target.masks, points) * weight
        sure = said.sigmoid() * weight
        ones, zeros = F.softplus(-said) * weight, F.softplus(said) * weight
        count = weight.sum().clamp(min=1)
        cross_entropy = (ones @ true.T + zeros @ (weight - true).T) / count
        overlap = 2 * sure @ true.T + 1
        dice = 1 - overlap / (sure.sum(1)[:, None] + true.sum(1) + 1)
        price = MASK * cross_entropy + DICE * dice - CLASS * chance
        rows, columns = linear_sum_assignment(price.cpu())
    return torch.as_tensor(rows), torch.as_tensor(columns)


def unsure_points(masks: Tensor, count: int, drawn: Tensor, others: Tensor) -> Tensor:
    """Of points drawn (N, M, 2) those where logits (N, h, w) are nearest 0, then others (N, R, 2).

    Returns:
        (N, count, 2).
    """
    doubt = -at_points(masks, drawn).abs()
    chosen = doubt.topk(count - others.shape[1], dim=1).indices
    return torch.cat((drawn.gather(1, chosen[..., None].expand(-1, -1, 2)), others), dim=1)


def mask_losses(
    masks: Tensor, true: Tensor, weight: Tensor, objects: float
) -> tuple[Tensor, Tensor]:
    """Cross-entropy and dice of logits against truth at points, both (N, P), over the objects."""
    cross_entropy = F.binary_cross_entropy_with_logits(masks, true, reduction="none") * weight
    cross_entropy = cross_entropy.sum(1) / weight.sum(1).clamp(min=1)
    sure, true = masks.sigmoid() * weight, true * weight
    dice = 1 - (2 * (sure * true).sum(1) + 1) / (sure.sum(1) + true.sum(1) + 1)
    return cross_entropy.sum() / objects, dice.sum() / objects


def class_loss(classes: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of logits (B, Q, K + 1), the last class, none, counting NO_OBJECT."""
    weight = classes.new_ones(classes.shape[-1])
    weight[-1] = NO_OBJECT
    return F.cross_entropy(classes.transpose(1, 2), labels, weight)


class InstanceObjective:
    """The loss of one batch of `PatchDataset` whose truth is the numbers of buildings.

    Points are drawn from torch's generator.
    """

    def __call__(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        image = batch["image"].contiguous(memory_format=torch.channels_last)
        targets = targets_of(batch["truth"][:, 0], batch["weight"])
        said: Sequence[Found] = model(image)
        return torch.stack([self.one(found, targets) for found in said]).sum()

    def one(self, found: Found, targets: Sequence[Target]) -> Tensor:
        """Of what one layer says."""
        none = found.classes.shape[-1] - 1
        labels = torch.full(found.classes.shape[:2], none, device=found.classes.device)
        masks, true, known = [], [], []
        for number, target in enumerate(targets):
            if not len(target.classes):
                continue
            points = torch.rand(1, POINTS, 2, device=found.masks.device)
            query, other = match(found.classes[number], found.masks[number], target, points)
            labels[number, query] = target.classes[other]
            masks.append(found.masks[number, query].float())
            true.append(target.masks[other])
            known.append(target.known.expand_as(target.masks[other]))
        loss = CLASS * class_loss(found.classes.float(), labels)
        if not masks:
            return loss + 0 * found.masks.sum()
        said = torch.cat(masks)
        with torch.no_grad():
            drawn = torch.rand(len(said), int(OVERSAMPLED * POINTS), 2, device=said.device)
            rest = torch.rand(len(said), POINTS - int(UNSURE * POINTS), 2, device=said.device)
            points = unsure_points(said, POINTS, drawn, rest)
            truth, weight = (at_points(torch.cat(part), points) for part in (true, known))
        parts = mask_losses(at_points(said, points), truth, weight, len(said))
        return loss + MASK * parts[0] + DICE * parts[1]
