# SPDX-License-Identifier: Apache-2.0
"""LeYOLO's head, and boxes out of what it gives.

Each cell of a level gives a distribution over 16 distances to each side of its box (DFL: Li et al.
2020, arXiv 2006.04388) and a logit for each class.

Source: LeYOLO, Hollard et al. 2024 (arXiv 2406.14239).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .blocks import plain_cbs

BINS = 16
"""Distances from 0 to 15 cells."""

SIDES = 4
BOX = BINS * SIDES


class Head(nn.Module):
    """Features of some levels to raw maps: 64 logits of distances, then those of the classes.

    Args:
        channels: of each level, finest first.
        classes: how many.
        strides: of each level, for the first biases.
    """

    def __init__(self, channels: Sequence[int], classes: int, strides: Sequence[int]) -> None:
        super().__init__()
        box = max(16, channels[0] // 4, BOX)
        scores = max(channels[0], min(classes, 100))
        self.cv2 = nn.ModuleList(_branch(width, box, BOX) for width in channels)
        self.cv3 = nn.ModuleList(_branch(width, scores, classes) for width in channels)
        for stride, boxes, labels in zip(strides, self.cv2, self.cv3, strict=True):
            for branch, value in ((boxes, 1.0), (labels, _prior(classes, stride))):
                assert isinstance(branch, nn.Sequential)
                nn.init.constant_(branch[-1].bias, value)  # type: ignore[arg-type]

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """(B, channels, h, w) of each level to (B, 64 + classes, h, w)."""
        pairs = zip(self.cv2, self.cv3, strict=True)
        return [
            torch.cat((boxes(x), labels(x)), 1)
            for x, (boxes, labels) in zip(features, pairs, strict=True)
        ]


def _branch(inputs: int, width: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        plain_cbs(inputs, width, 1),
        plain_cbs(width, width, 3, groups=width),
        plain_cbs(width, width, 3, groups=width),
        nn.Conv2d(width, outputs, 1),
    )


def _prior(classes: int, stride: int) -> float:
    """The logit of some 5 objects in an image of 640 pixels."""
    return math.log(5 / classes / (640 / stride) ** 2)


def cells(
    sizes: Sequence[tuple[int, int]], strides: Sequence[int], device: torch.device | None = None
) -> tuple[Tensor, Tensor]:
    """Centres of all cells, (A, 2) x and y in units of their cell, and strides, (A,).

    Args:
        sizes: rows and columns of each level.
    """
    centres, lengths = [], []
    for (rows, columns), stride in zip(sizes, strides, strict=True):
        y, x = torch.meshgrid(
            torch.arange(rows, device=device) + 0.5,
            torch.arange(columns, device=device) + 0.5,
            indexing="ij",
        )
        centres.append(torch.stack((x, y), -1).reshape(-1, 2))
        lengths.append(torch.full((rows * columns,), float(stride), device=device))
    return torch.cat(centres), torch.cat(lengths)


def flat(maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Maps of all levels to (B, A, 64) logits of distances and (B, A, classes) of classes."""
    joined = torch.cat([level.flatten(2) for level in maps], 2).transpose(1, 2)
    return joined[..., :BOX], joined[..., BOX:]


def corners(distances: Tensor, centres: Tensor, strides: Tensor) -> Tensor:
    """Logits of distances, (B, A, 64), to boxes left, top, right, bottom in pixels, (B, A, 4)."""
    bins = torch.arange(BINS, device=distances.device, dtype=distances.dtype)
    shares = distances.unflatten(-1, (SIDES, BINS)).softmax(-1)
    reach = (shares * bins).sum(-1)
    first, second = centres - reach[..., :2], centres + reach[..., 2:]
    return torch.cat((first, second), -1) * strides[:, None]


def decode(maps: Sequence[Tensor], strides: Sequence[int]) -> Tensor:
    """Raw maps to (B, 4 + classes, A): centre x, centre y, width, height in pixels; scores."""
    sizes = [(level.shape[-2], level.shape[-1]) for level in maps]
    centres, lengths = cells(sizes, strides, maps[0].device)
    distances, logits = flat(maps)
    boxes = corners(distances.float(), centres, lengths)
    middle = (boxes[..., :2] + boxes[..., 2:]) / 2
    found = torch.cat((middle, boxes[..., 2:] - boxes[..., :2], logits.float().sigmoid()), -1)
    return found.transpose(1, 2)
