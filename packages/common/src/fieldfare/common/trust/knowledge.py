# SPDX-License-Identifier: Apache-2.0
"""What a model knows, kept in its file, and what follows for an input.

knowledge = knowledge_of("unetplusplus_lite0_drone", "buildings")
watch = Watch(knowledge)
with Tap(network, knowledge.layers) as tap:
    for tiles in scene:
        network(tiles)
        watch.add(tap.take())
print(watch.judgement().sentence())
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..weights.registry import locate
from ..weights.store import load_part
from .expectation import Expectation, expectation
from .familiar import Familiar, familiar, nearest
from .features import Array

PART = "trust"
"""Under which a model file keeps it."""


@dataclass(frozen=True)
class Judgement:
    """How an input stands to what a model knows.

    Attributes:
        distance: from the training data, 1 where the alarm begins.
        nearest: the group of the training data that it is most like.
        low, expected, high: of the quality, in its own unit.
        alarm: whether it is unlike what the model knows, or a bad answer must be expected.
        beyond: share of its parts (tiles, slices, flows) for which that holds.
        home: quality on validation data of the model's own kind.
        quality: what is expected, for example `building IoU`.
    """

    distance: float
    nearest: str
    low: float
    expected: float
    high: float
    alarm: bool
    beyond: float
    home: float
    quality: str

    def to_json(self) -> dict[str, Any]:
        """Plain values, as manifests, sidecars and `--json` hold them."""
        return asdict(self)

    def sentence(self) -> str:
        """One line without its end."""
        if not self.alarm:
            return f"like what the model knows; expected {self._range()}"
        if self.distance > 1:
            why = f"unlike what the model knows (distance {self.distance:.2g}, alarm from 1)"
        else:
            why = "the model is unsure here"
        return f"{why}: expected {self._range()}; {self.home:.2f} at home"

    def _range(self) -> str:
        return f"{self.quality} {self.low:.2f} to {self.high:.2f}"


@dataclass(frozen=True)
class Knowledge:
    """What a model's training and validation data looked like to it.

    Attributes:
        layers: of the network, whose outputs are looked at.
        groups: names of the parts of the training data.
        samples: of the training data.
        signs: names of what is looked at besides distances, for example `entropy`.
        quality: what the expectation is of.
        home: mean quality on the home part of the validation data.
        false_alarms: share of that part over one of the limits.
        farthest: distance where the alarm begins.
        least: index of the expectation under which the alarm is given.
    """

    layers: tuple[str, ...]
    groups: tuple[str, ...]
    samples: int
    signs: tuple[str, ...]
    quality: str
    home: float
    false_alarms: float
    farthest: float
    least: float
    familiar: tuple[Familiar, ...]
    expectation: Expectation

    def summary(self) -> str:
        """One line: what the model knows."""
        return (
            f"knows {', '.join(self.groups)} ({self.samples} samples); {self.quality} "
            f"{self.home:.2f} at home, where {self.false_alarms:.1%} are warned of"
        )

    def rows(self, features: Sequence[Array], signs: Array | None = None) -> tuple[Array, Array]:
        """Signs of trouble of each sample, (N, L + S), and the group it is nearest to, (N,)."""
        return _rows(self.familiar, features, signs)

    def judge(self, rows: Array, groups: Array) -> Judgement:
        """One judgement on all the rows of an input; their order makes no difference.

        Raises:
            ValueError: no rows.
        """
        if not len(rows):
            raise ValueError("nothing to judge: no part of the input was looked at")
        distances = _distance(rows, len(self.layers)) / self.farthest
        indices = self.expectation.indices(rows)
        low, middle, high = self.expectation.quality(indices)
        distance = float(np.median(distances))
        unlike = (distances > 1) | (indices < self.least)
        return Judgement(
            distance=_short(min(distance, 1e6)),
            nearest=self.groups[int(np.bincount(groups.astype(int)).argmax())],
            low=_short(low.mean()),
            expected=_short(middle.mean()),
            high=_short(high.mean()),
            alarm=bool(distance > 1 or float(np.median(indices)) < self.least),
            beyond=_short(unlike.mean()),
            home=_short(self.home),
            quality=self.quality,
        )

    def to_tensors(self) -> dict[str, Tensor]:
        """For `save_model_file(..., parts={PART: knowledge.to_tensors()})`."""
        about = asdict(self)
        del about["familiar"], about["expectation"]
        about["rest"] = [one.rest for one in self.familiar]
        about["offset"] = self.expectation.offset
        text = json.dumps(about, sort_keys=True).encode()
        found = {"about": torch.frombuffer(bytearray(text), dtype=torch.uint8)}
        for place, one in enumerate(self.familiar):
            for name in ("scale", "means", "directions", "variances"):
                found[f"{place}.{name}"] = torch.from_numpy(getattr(one, name)).float()
        for name in ("weights", "index", "low", "middle", "high"):
            found[name] = torch.from_numpy(getattr(self.expectation, name))
        return found

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "Knowledge":
        """Read what `to_tensors` wrote; raises ValueError on anything else."""
        try:
            about = json.loads(bytes(tensors["about"].tolist()))
            rests, offset = about.pop("rest"), float(about.pop("offset"))
            arrays = {name: tensor.double().numpy() for name, tensor in tensors.items()}
            layers = tuple(
                Familiar(
                    **{
                        name: arrays[f"{place}.{name}"]
                        for name in ("scale", "means", "directions", "variances")
                    },
                    rest=float(rest),
                )
                for place, rest in enumerate(rests)
            )
            curve = {name: arrays[name] for name in ("weights", "index", "low", "middle", "high")}
            about |= {name: tuple(about[name]) for name in ("layers", "groups", "signs")}
            return cls(**about, familiar=layers, expectation=Expectation(offset=offset, **curve))
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise ValueError(f"not a model's knowledge: {error!r}") from None


def knowledge_of(name_or_path: str, task: str) -> Knowledge | None:
    """What a packaged model or a model file says that it knows; None where it says nothing.

    Raises:
        InputError: no such model, or its file is damaged.
    """
    path = locate(name_or_path, task)
    return read_knowledge(path)


def read_knowledge(path: Path) -> Knowledge | None:
    """As `knowledge_of`, of a file."""
    tensors = load_part(path, PART)
    if not tensors:
        return None
    try:
        return Knowledge.from_tensors(tensors)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None


@dataclass(frozen=True)
class Samples:
    """Validation samples of known quality.

    Attributes:
        features: of each layer, (N, F).
        signs: (N, S); S may be 0.
        quality: (N,).
        home: (N,) bool: whether a sample is of the model's own kind, so that a warning is false.
    """

    features: Sequence[Array]
    signs: Array
    quality: Array
    home: Array


def learn(
    layers: Sequence[str],
    training: Mapping[str, Sequence[Array]],
    validation: Samples,
    *,
    signs: Sequence[str] = (),
    quality: str,
    false_alarms: float = 0.01,
) -> Knowledge:
    """What a model knows, from its features on training and validation data.

    Args:
        layers: names of the network's layers.
        training: group -> features of each layer, (N, F).
        validation: from several places and of several conditions, not trained on.
        signs: names of the columns of `validation.signs`.
        false_alarms: share of the home samples that may be over one of the limits.

    Raises:
        ValueError: too few samples (see `familiar`, `expectation`), or none at home.
    """
    if not validation.home.any():
        raise ValueError("needs validation samples of the model's own kind")
    known = tuple(
        familiar({group: features[place] for group, features in training.items()})
        for place in range(len(layers))
    )
    rows, _ = _rows(known, validation.features, validation.signs)
    curve = expectation(rows, validation.quality)
    at_home = rows[validation.home]
    distances, indices = _distance(at_home, len(layers)), curve.indices(at_home)
    farthest = float(np.quantile(distances, 1 - false_alarms / 2, method="higher")) * (1 + 1e-6)
    least = float(np.quantile(indices, false_alarms / 2, method="lower")) - 1e-9
    warned = (distances > farthest) | (indices < least)
    return Knowledge(
        layers=tuple(layers),
        groups=tuple(training),
        samples=sum(len(features[0]) for features in training.values()),
        signs=tuple(signs),
        quality=quality,
        home=float(validation.quality[validation.home].mean()),
        false_alarms=float(warned.mean()),
        farthest=farthest,
        least=least,
        familiar=known,
        expectation=curve,
    )


class Watch:
    """Gathers what is seen of one input while a network runs over it."""

    def __init__(self, knowledge: Knowledge) -> None:
        self._knowledge = knowledge
        self._rows: list[Array] = []
        self._groups: list[Array] = []

    def add(self, features: Sequence[Array], signs: Array | None = None) -> None:
        """Features (N, F) of each layer and signs (N, S) of some parts of the input."""
        rows, groups = self._knowledge.rows(features, signs)
        self._rows.append(rows)
        self._groups.append(groups)

    def judgement(self) -> Judgement | None:
        """On all that was added; None where nothing was."""
        if not self._rows:
            return None
        return self._knowledge.judge(np.concatenate(self._rows), np.concatenate(self._groups))


def _rows(
    known: Sequence[Familiar], features: Sequence[Array], signs: Array | None
) -> tuple[Array, Array]:
    distances, groups = nearest(
        [one.distances(part) for one, part in zip(known, features, strict=True)]
    )
    logs = np.log(np.maximum(distances, 1e-3))
    return logs if signs is None else np.concatenate((logs, signs), axis=1), groups


def _distance(rows: Array, layers: int) -> Array:
    """One distance a sample: root mean square over the layers."""
    found: Array = np.sqrt(np.exp(2 * np.minimum(rows[:, :layers], 300.0)).mean(axis=1))
    return found


def _short(value: float) -> float:
    """Four digits: what differs between batch sizes is rounding."""
    return float(f"{value:.4g}")
