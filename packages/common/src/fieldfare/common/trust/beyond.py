# SPDX-License-Identifier: Apache-2.0
"""BEYOND: an input is trusted when its augmented neighbours get the same answer.

Clean inputs agree with their neighbours in label and in representation; adversarial ones, and ones
damaged in plain ways, do not. Costs one forward for the input and one for each neighbour.

Source: He et al., "Be Your Own Neighborhood: Detecting Adversarial Example by the Neighborhood
Relations Built on Self-Supervised Learning" (arXiv 2209.00005).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, one_hot

Encode = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Inputs (N, ...) -> representations (N, F) and logits (N, C) or (N, C, *space)."""

Augmentation = Callable[[Tensor], Tensor]
"""Inputs (N, ...) -> neighbours of the same shape; the same every time it is called."""


@dataclass(frozen=True)
class Neighbourhood:
    """How an input's agreement with its neighbours is measured.

    Attributes:
        encode: of the protected network. For dense predictions it answers in one frame: an
            augmentation that moves pixels must be undone before logits are compared, so only such
            as keep every pixel's place serve there.
        augmentations: fixed beforehand, so that a score is the same every time.
        alpha: weight of the labels' agreement; the representations' is 1 - alpha.
        rank: the score is the agreement of the neighbour at this place, counted from the nearest.
    """

    encode: Encode
    augmentations: Sequence[Augmentation]
    alpha: float = 0.8
    rank: int = 20

    def __post_init__(self) -> None:
        if not 1 <= self.rank <= len(self.augmentations):
            raise ValueError(
                f"rank {self.rank} needs as many augmentations; there are {len(self.augmentations)}"
            )

    def agreements(self, inputs: Tensor) -> Tensor:
        """(N, K) agreement with each neighbour, -1 to 1, the nearest first."""
        with torch.inference_mode():
            features, logits = self.encode(inputs)
            chosen = logits.argmax(dim=1)
            label = one_hot(chosen, logits.shape[1]).movedim(-1, 1).to(logits.dtype)
            found = []
            for augment in self.augmentations:
                near_features, near_logits = self.encode(augment(inputs))
                labels = cosine_similarity(label, near_logits, dim=1).reshape(len(inputs), -1)
                likeness = cosine_similarity(features, near_features, dim=1)
                found.append(self.alpha * labels.mean(dim=1) + (1 - self.alpha) * likeness)
        return torch.stack(found, dim=1).sort(dim=1, descending=True).values

    def scores(self, inputs: Tensor) -> Tensor:
        """(N,) agreement at the chosen rank: small where the answer should not be trusted."""
        return self.agreements(inputs)[:, self.rank - 1]


def threshold(clean: Tensor, false_alarms: float = 0.05) -> float:
    """The score under which an input is flagged.

    Args:
        clean: (N,) scores of inputs that are as they should be.
        false_alarms: share of them that is flagged.
    """
    return float(torch.quantile(clean.double(), false_alarms))
