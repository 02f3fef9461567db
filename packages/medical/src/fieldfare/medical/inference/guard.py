# SPDX-License-Identifier: Apache-2.0
"""`--guard`: whether a case's answer holds when its images are turned over and slightly changed.

BEYOND (He et al., arXiv 2209.00005; `fieldfare.common.trust.beyond`) on volumes. The score of a
case is the agreement of its neighbours at a fixed rank, over the voxels that any of the answers
takes for tumour, of four exclusive classes: the nested regions tell them.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fieldfare.common.trust.beyond import Augmentation, Encode
from fieldfare.common.trust.features import Array
from fieldfare.common.trust.guard import Guard

from ..data.preparation import Prepared

GAIN, OFFSET, NOISE = 0.1, 0.1, 0.1
"""Most that a modality is multiplied and moved by, and the noise, in its deviations in the brain:
less than networks are trained to bear."""

TURNS: tuple[tuple[int, ...], ...] = ((), (1,), (2,), (3,))
"""Axes of (4, x, y, z) that the neighbours are turned over along, one neighbour each."""

ANSWER_BYTES = 6 * (len(TURNS) + 1) + 32
"""For each voxel of the network's grid: the answers, and a changed copy of the images."""

Answer = tuple[list[Array] | None, NDArray[np.floating]]
"""Features (1, F) of each layer that is looked at, the deepest last; nested probabilities."""


@dataclass(frozen=True)
class Agreement:
    """How far an answer holds.

    Attributes:
        agreement: of the neighbour at the guard's rank, -1 to 1.
        threshold: under which there is an alarm.
        usual: share of clean cases under it.
        alarm: whether this case is.
    """

    agreement: float
    threshold: float
    usual: float
    alarm: bool

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def sentence(self) -> str:
        """One line without its end."""
        low = "under" if self.alarm else "not under"
        return (
            f"the answer {'changes' if self.alarm else 'holds'} when the images are changed "
            f"slightly (agreement {self.agreement:.2f}, {low} {self.threshold:.2f} as "
            f"{self.usual:.0%} of clean cases are)"
        )


def neighbour(prepared: Prepared, number: int) -> Prepared:
    """The case turned over along TURNS[number], with other gains and offsets and a little noise.

    The same every time; what is outside the brain stays 0.
    """
    rng = np.random.default_rng(number)
    images = prepared.images
    gains = 1 + GAIN * rng.uniform(-1, 1, (len(images), 1, 1, 1)).astype(np.float32)
    moved = OFFSET * rng.uniform(-1, 1, (len(images), 1, 1, 1)).astype(np.float32)
    noise = NOISE * rng.standard_normal(images.shape, np.float32)
    changed = np.where(images != 0, images * gains + moved + noise, np.float32(0))
    return replace(prepared, images=np.ascontiguousarray(np.flip(changed, TURNS[number])))


def neighbours(
    prepared: Prepared,
    first: Answer,
    ask: Callable[[Prepared], Answer],
) -> tuple[Tensor, Tensor]:
    """Ask for the answers to all neighbours.

    Args:
        first: of the case itself.
        ask: for the answer to another.

    Returns:
        Representations (K + 1, F) and class scores (K + 1, 4, V) of the V voxels that any of the
        answers takes for tumour (where none does, of the brain), the case itself first.
    """
    features, maps = [], []
    for number, axes in enumerate((None, *TURNS)):
        layers, found = first if axes is None else ask(neighbour(prepared, number - 1))
        if layers is None:
            raise ValueError("nothing to compare: no part of the case was predicted")
        features.append(layers[-1][0])
        maps.append(np.flip(found, axes or ()).astype(np.float16))
    wanted = np.any([one[0] >= 0.5 for one in maps], axis=0)
    if not wanted.any():
        wanted = np.any(prepared.images != 0, axis=0)
    scores = [class_scores(one[:, wanted].astype(np.float32)) for one in maps]
    return torch.from_numpy(np.stack(features)), torch.from_numpy(np.stack(scores))


def class_scores(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Nested probabilities of WT, TC, ET (3, V) to those of the exclusive classes (4, V)."""
    whole, core, enhancing = probabilities
    return np.stack([1 - whole, whole - core, core - enhancing, enhancing])


def encode_of(answers: Sequence[tuple[Tensor, Tensor]]) -> Encode:
    """Answers that are there already, of `neighbours`: an input is the number of one of them.

    Those of a case follow each other, its own first.
    """
    many = len(TURNS) + 1

    def encode(numbers: Tensor) -> tuple[Tensor, Tensor]:
        case, which = divmod(int(numbers), many)
        features, scores = answers[case]
        return features[which, None], scores[which, None]

    return encode


def shifts() -> list[Augmentation]:
    """From the number of a case's own answer to that of each neighbour's."""
    return [partial(torch.add, other=number) for number in range(1, len(TURNS) + 1)]


def own(case: int = 0) -> Tensor:
    """The number of a case's own answer."""
    return torch.tensor([case * (len(TURNS) + 1)])


def judge(guard: Guard, answers: tuple[Tensor, Tensor]) -> Agreement:
    """On a case, from the answers of `neighbours`."""
    found = guard.neighbourhood(encode_of([answers]), shifts()).scores(own())
    alarm = bool(guard.flags(found.double().numpy())[0])
    return Agreement(float(f"{float(found):.4g}"), guard.threshold, guard.false_alarms, alarm)
