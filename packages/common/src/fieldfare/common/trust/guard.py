# SPDX-License-Identifier: Apache-2.0
"""`--guard`: the score of BEYOND against a model file's threshold, over all parts of an input."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..weights.store import load_part
from .beyond import Augmentation, Encode, Neighbourhood, threshold
from .features import Array

PART = "guard"
"""Under which a model file keeps it."""


@dataclass(frozen=True)
class Verdict:
    """On one input.

    Attributes:
        parts: how many parts (tiles, windows, flows) were looked at.
        flagged: how many of them disagree with their neighbours.
        usual: share that is flagged of clean inputs.
        alarm: whether so many are flagged of at most the share `usual` of clean inputs.
    """

    parts: int
    flagged: int
    usual: float
    alarm: bool

    def sentence(self) -> str:
        """One line without its end."""
        return (
            f"{self.flagged} of {self.parts} parts get another answer when slightly changed (of "
            f"clean input {self.usual:.0%} do)"
        )


@dataclass(frozen=True)
class Guard:
    """How a model is guarded.

    Attributes:
        neighbours: number of augmented copies; an input costs `neighbours + 1` forwards.
        rank, alpha: see `Neighbourhood`.
        threshold: of the score; under it a part is flagged.
        false_alarms: share of clean parts that it flags.
    """

    neighbours: int
    rank: int
    alpha: float
    threshold: float
    false_alarms: float

    def neighbourhood(self, encode: Encode, augmentations: Sequence[Augmentation]) -> Neighbourhood:
        """The score that the threshold belongs to.

        Raises:
            ValueError: not as many augmentations as the guard was fitted with.
        """
        if len(augmentations) != self.neighbours:
            raise ValueError(f"fitted with {self.neighbours} neighbours, not {len(augmentations)}")
        return Neighbourhood(encode, augmentations, self.alpha, self.rank)

    def flags(self, scores: Array) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """(N,) scores -> (N,) whether a part is flagged; a score that is NaN is."""
        return ~(scores >= self.threshold)

    def verdict(self, scores: Array) -> Verdict:
        """On all parts of one input.

        Raises:
            ValueError: no parts.
        """
        if not len(scores):
            raise ValueError("nothing to judge: no part of the input was looked at")
        flagged = int(self.flags(scores).sum())
        chance = _at_least(flagged, len(scores), self.false_alarms)
        alarm = flagged > 0 and chance <= self.false_alarms * (1 + 1e-9)
        return Verdict(len(scores), flagged, self.false_alarms, alarm)

    def to_tensors(self) -> dict[str, Tensor]:
        """For `save_model_file(..., parts={PART: guard.to_tensors()})`."""
        text = json.dumps(asdict(self), sort_keys=True).encode()
        return {"about": torch.frombuffer(bytearray(text), dtype=torch.uint8)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "Guard":
        """Read what `to_tensors` wrote; raises ValueError on anything else."""
        try:
            return cls(**json.loads(bytes(tensors["about"].tolist())))
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"not a model's guard: {error!r}") from None


def fit_guard(
    encode: Encode,
    augmentations: Sequence[Augmentation],
    clean: Sequence[Tensor],
    *,
    rank: int,
    alpha: float = 0.8,
    false_alarms: float = 0.05,
) -> Guard:
    """Fit the threshold on batches of clean inputs that the model was not trained on."""
    neighbourhood = Neighbourhood(encode, augmentations, alpha, rank)
    scores = torch.cat([neighbourhood.scores(batch).cpu() for batch in clean])
    limit = threshold(scores, false_alarms)
    return Guard(len(augmentations), rank, alpha, limit, false_alarms)


def read_guard(path: Path) -> Guard | None:
    """The guard that a model file keeps; None where it keeps none.

    Raises:
        InputError: no such file, or it is damaged.
    """
    tensors = load_part(path, PART)
    if not tensors:
        return None
    try:
        return Guard.from_tensors(tensors)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None


def _at_least(count: int, parts: int, share: float) -> float:
    """Chance that of `parts`, each flagged with chance `share`, `count` or more are."""
    if count <= parts * share:  # the likely half; only the tail is ever compared
        return 1.0
    log_share, log_rest = math.log(share), math.log1p(-share)
    terms = [
        math.lgamma(parts + 1)
        - math.lgamma(k + 1)
        - math.lgamma(parts - k + 1)
        + k * log_share
        + (parts - k) * log_rest
        for k in range(count, parts + 1)
    ]
    return math.fsum(math.exp(term) for term in terms)
