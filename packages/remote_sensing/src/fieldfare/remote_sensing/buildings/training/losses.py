# SPDX-License-Identifier: Apache-2.0
"""Losses for maps of logits, by name; deep supervision adds them up over the depths."""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from fieldfare.common.errors import InputError

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(logits, truth, weight), each (B, H, W), truth in [0, 1], weight 0 where it is unknown."""


NOISE_TOLERANCE = 0.7
"""q of `generalised_cross_entropy`, the paper's."""


def binary_cross_entropy(logits: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """Mean over the known pixels."""
    return _mean(F.binary_cross_entropy_with_logits(logits, truth, reduction="none"), weight)


def dice(logits: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """1 - Dice over the known pixels of the whole batch; Milletari et al. 2016, arXiv 1606.04797.

    With p + t rather than p^2 + t^2 below the line, and 1 added above and below.
    """
    probability = torch.sigmoid(logits) * weight
    truth = truth * weight
    overlap = 2 * (probability * truth).sum() + 1
    return 1 - overlap / (probability.sum() + truth.sum() + 1)


def focal(logits: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """Focal loss with gamma = 2, without alpha; Lin et al. 2017, arXiv 1708.02002, eq. 4."""
    error = (torch.sigmoid(logits) - truth).abs()
    cross_entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    return _mean(error.square() * cross_entropy, weight)


def generalised_cross_entropy(logits: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """(1 - p^q) / q with p the probability of the label and q = 0.7: wrong labels pull less.

    Zhang and Sabuncu 2018, arXiv 1805.07836, eq. 6. Between cross-entropy (q to 0) and the mean
    absolute error (q = 1), whose gradient does not grow with the error.
    """
    agreement = 1 - (torch.sigmoid(logits) - truth).abs()
    return _mean((1 - agreement.clamp(min=1e-6) ** NOISE_TOLERANCE) / NOISE_TOLERANCE, weight)


def boundary(logits: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """Mean of probability times signed distance to the outline (negative inside), in units of 16
    pixels and cut off there, so that far pixels do not drown the outline.

    Kervadec et al. 2019, arXiv 1812.07032, eq. 5. Add it to a regional loss. The outline is that of
    the truth at every pixel, of weight 0 too.
    """
    distances = []
    for mask in (truth > 0.5).cpu().numpy():
        if mask.all() or not mask.any():
            signed = mask * -1.0 + ~mask * 1.0
        else:
            outside = ndimage.distance_transform_edt(~mask)
            signed = outside - ndimage.distance_transform_edt(mask) + (mask - 0.5)
            signed = (signed / 16).clip(-1, 1)
        distances.append(torch.from_numpy(signed))
    distance = torch.stack(distances).to(logits)
    return _mean(torch.sigmoid(logits) * distance, weight)


LOSSES: dict[str, Loss] = {
    "bce": binary_cross_entropy,
    "dice": dice,
    "focal": focal,
    "gce": generalised_cross_entropy,
    "boundary": boundary,
}


def parse_loss(text: str) -> Loss:
    """A sum of losses by name, each with an optional weight: `bce+dice`, `focal+0.5*dice`.

    Raises:
        InputError: an unknown name or a weight that is not a positive number.
    """
    terms = []
    for term in text.split("+"):
        factor, star, name = term.strip().rpartition("*")
        try:
            weight = float(factor) if star else 1.0
        except ValueError:
            weight = -1.0
        if name.strip() not in LOSSES or not 0 < weight < math.inf:
            raise InputError(
                f"--loss {text}: add up {', '.join(LOSSES)}, for example bce+dice or bce+0.5*dice"
            )
        terms.append((weight, LOSSES[name.strip()]))

    def total(logits: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
        return torch.stack([w * loss(logits, truth, weight) for w, loss in terms]).sum()

    return total


class DeepSupervision:
    """The loss of all depths and output maps.

    Args:
        loss: of one map.
        depth_weights: one for each map of logits that the network gives in training, shallowest
            first; they are scaled to add up to 1.
        output_weights: one for each channel of the logits.
    """

    def __init__(
        self, loss: Loss, depth_weights: Sequence[float], output_weights: Sequence[float]
    ) -> None:
        total = sum(depth_weights)
        self.loss = loss
        self.depth_weights = [weight / total for weight in depth_weights]
        self.output_weights = list(output_weights)

    def __call__(self, maps: Sequence[Tensor], truth: Tensor, weight: Tensor) -> Tensor:
        """Maps of (B, outputs, H, W) logits, truth likewise in [0, 1], weight (B, H, W)."""
        total = truth.new_zeros(())
        for logits, depth_weight in zip(maps, self.depth_weights, strict=True):
            for index, output_weight in enumerate(self.output_weights):
                value = self.loss(logits[:, index].float(), truth[:, index], weight)
                total = total + depth_weight * output_weight * value
        return total


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    return (values * weight).sum() / weight.sum().clamp(min=1)
