# SPDX-License-Identifier: Apache-2.0
"""Which cells answer for which object, while a detector learns.

Source: task-aligned assignment, TOOD, Feng et al. 2021 (arXiv 2108.07755), section 3.2: the cells
whose score and box agree best with an object learn it, with the agreement as the target.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .boxes import iou


@dataclass(frozen=True)
class Assigned:
    """The targets of one image's cells.

    Attributes:
        objects: (A,) which object a cell answers for; -1 is none.
        scores: (A,) from 0 to 1: what the score of its class shall be; 0 where there is none.
    """

    objects: Tensor
    scores: Tensor


@torch.no_grad()
def assign(
    scores: Tensor,
    boxes: Tensor,
    centres: Tensor,
    truth: Tensor,
    classes: Tensor,
    *,
    best: int = 10,
    alpha: float = 0.5,
    beta: float = 6.0,
) -> Assigned:
    """Choose cells for the objects of one image.

    A cell may answer for an object whose box its centre lies in; of a box that holds no centre, the
    nearest cell may. The `best` cells by score^alpha IoU^beta take the object; a cell that several
    objects want goes to the one that it overlaps most.

    Args:
        scores: (A, classes) in 0 to 1, as predicted.
        boxes: (A, 4) as predicted, left, top, right, bottom in pixels.
        centres: (A, 2) of the cells, in pixels.
        truth: (N, 4) boxes of the objects.
        classes: (N,) int64, of the objects.
    """
    cells, objects = len(centres), len(truth)
    nothing = torch.full((cells,), -1, dtype=torch.int64, device=centres.device)
    if not objects:
        return Assigned(nothing, torch.zeros_like(scores[:, 0]))
    inside = _inside(centres, truth)
    overlap = iou(truth[:, None], boxes[None]).clamp(0, 1)  # (N, A)
    alignment = scores[:, classes].T.pow(alpha) * overlap.pow(beta) * inside
    # alignments of 0, as at the start, go by overlap
    order = (alignment + 1e-9 * overlap).masked_fill(~inside, -1.0)
    chosen = torch.zeros_like(inside)
    count = min(best, cells)
    chosen.scatter_(1, order.topk(count, dim=1).indices, True)
    chosen &= inside
    wanted = torch.where(chosen, overlap + 1e-9, -1.0)
    top, owner = wanted.max(0)
    objects_of = torch.where(top >= 0, owner, nothing)
    kept = torch.nn.functional.one_hot(objects_of.clamp(min=0), objects).T.bool() & (top >= 0)
    own = alignment * kept
    strongest = own.amax(1, keepdim=True)
    reached = (overlap * kept).amax(1, keepdim=True)
    normal = own / strongest.clamp(min=1e-9) * reached
    return Assigned(objects_of, normal.amax(0))


def _inside(centres: Tensor, truth: Tensor) -> Tensor:
    """(N, A) which cells have their centre in which box; of one without any, the nearest."""
    offsets = torch.cat(
        (centres[None] - truth[:, None, :2], truth[:, None, 2:] - centres[None]), -1
    )
    inside = offsets.amin(-1) > 0
    empty = ~inside.any(1)
    if empty.any():
        middle = (truth[empty, :2] + truth[empty, 2:]) / 2
        nearest = torch.cdist(middle, centres).argmin(1)
        inside[empty.nonzero()[:, 0], nearest] = True
    return inside
