# SPDX-License-Identifier: Apache-2.0
"""From what queries say to maps: classes of pixels, segments without overlap, instances.

Cheng et al. 2021, "Per-Pixel Classification is Not All You Need for Semantic Segmentation"
(arXiv 2107.06278), sections 3.4 and appendix; PEM uses the same.
"""

from collections.abc import Collection
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .pem import Found

SURE, OWN = 0.5, 0.5
"""Of buildings: least score of a query, and least share of its mask that others leave it."""

EDGE_WIDTH = 2
"""Pixels inside an outline that are edge, as `data.labels` draws them."""

LEAST = 1e-4
"""Probabilities are kept this far from 0 and 1, so that their logits are finite."""


def semantic(classes: Tensor, masks: Tensor) -> Tensor:
    """Logits (Q, K + 1) and (Q, h, w) -> (K, h, w): sum over queries of class times mask."""
    return torch.einsum("qk,qhw->khw", classes.softmax(-1)[:, :-1], masks.sigmoid())


@dataclass(frozen=True)
class Segments:
    """Segments that share no pixel.

    Attributes:
        numbers: (h, w) int64, 0 where there is none, else 1 to n.
        classes: of each, from segment 1.
    """

    numbers: Tensor
    classes: tuple[int, ...]


def panoptic(
    classes: Tensor,
    masks: Tensor,
    *,
    things: Collection[int],
    sure: float = SURE,
    own: float = OWN,
) -> Segments:
    """Give each pixel to the query with the highest score times mask.

    Args:
        classes, masks: logits (Q, K + 1) and (Q, h, w).
        things: classes whose queries stay apart; those of another class are joined.
        sure: queries of a lower score, or of no class, are left out.
        own: so is one to which others leave less than this share of its mask (from 1/2).
    """
    scores, labels = classes.softmax(-1).max(-1)
    kept = ((labels < classes.shape[1] - 1) & (scores > sure)).nonzero()[:, 0]
    numbers = masks.new_zeros(masks.shape[1:], dtype=torch.int64)
    if not len(kept):
        return Segments(numbers, ())
    chance = masks[kept].sigmoid()
    winner = (scores[kept, None, None] * chance).argmax(dim=0)
    inside = chance >= 0.5
    found: list[int] = []
    joined: dict[int, int] = {}
    for place, query in enumerate(kept.tolist()):
        won, mask = winner == place, inside[place]
        here = won & mask
        if not here.any() or won.sum() < own * mask.sum():
            continue
        label = int(labels[query])
        number = joined.get(label)
        if number is None:
            found.append(label)
            number = len(found)
            if label not in things:
                joined[label] = number
        numbers[here] = number
    return Segments(numbers, tuple(found))


def instances(classes: Tensor, masks: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The most certain pairs of query and class.

    Args:
        classes, masks: logits (Q, K + 1) and (Q, h, w).
        count: how many.

    Returns:
        Scores (N,), class times the mean of the mask's probability inside it; classes (N,); masks
        (N, h, w) bool; the surest class first.
    """
    chances = classes.softmax(-1)[:, :-1]
    scores, places = chances.flatten().topk(min(count, chances.numel()))
    query = places // chances.shape[1]
    inside = masks[query] > 0
    mean = (masks[query].sigmoid() * inside).sum((1, 2)) / (inside.sum((1, 2)) + 1e-6)
    return scores * mean, places % chances.shape[1], inside


def building_logits(found: Found, size: tuple[int, int]) -> Tensor:
    """Maps of logits, as the other networks give them: building, and edges of instances.

    A pixel's building probability is that of the query that is surest of it.

    Args:
        found: of one class; masks at stride 4.
        size: of the image.

    Returns:
        (B, 2, *size) float32.
    """
    maps = []
    for classes, masks in zip(found.classes.float(), found.masks.float(), strict=True):
        scores = classes.softmax(-1)[:, 0]
        surest = (scores[:, None, None] * masks.sigmoid()).amax(dim=0)
        building = F.interpolate(surest[None, None], size=size, mode="bilinear")[0, 0]
        likely = scores > SURE
        large = masks.new_zeros(0, *size)
        if likely.any():
            large = F.interpolate(masks[likely][None], size=size, mode="bilinear")[0]
        numbers = panoptic(classes[likely], large, things=(0,)).numbers
        maps.append(torch.stack((building, _edges(numbers).float())))
    return torch.logit(torch.stack(maps), eps=LEAST)


def _edges(numbers: Tensor) -> Tensor:
    """Pixels of a segment within EDGE_WIDTH of its outline, (h, w) bool."""
    levels, side = numbers[None, None].float(), 2 * EDGE_WIDTH + 1
    levels = F.pad(levels, [EDGE_WIDTH] * 4, mode="replicate")
    high, low = (F.max_pool2d(sign * levels, side, stride=1) * sign for sign in (1, -1))
    return (numbers > 0) & (high != low)[0, 0]
