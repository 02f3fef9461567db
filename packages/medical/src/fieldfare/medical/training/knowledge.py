# SPDX-License-Identifier: Apache-2.0
"""What a trained network knows: features of its training cases, and what Dice goes with which.

Every validation case is also damaged in one of the ways of `data.corruptions`, so that the Dice to
be expected of such is known as well.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fieldfare.common.trust.features import Array
from fieldfare.common.trust.knowledge import Knowledge, Samples, learn

from ..data.corruptions import CORRUPTIONS
from ..data.preparation import prepare
from ..data.regions import to_regions
from ..evaluation.metrics import EmptyPolicy, dice
from ..inference import run as inference
from ..inference.predict import Predictor
from ..inference.trust import QUALITY, SIGNS, Observer, layers_of, signs_of
from ..volumes.images import to_canonical
from ..volumes.resampling import resample_axes

RIGHT = 0.5
"""Dice from which a clean case is at home: a warning of one answered wrongly is no false alarm."""

FARTHER, WORSE = 1.1, 0.05
"""The alarm begins this much farther, and at an expected Dice this much lower, than of the most
extreme clean case: there are few of them."""


class Case(NamedTuple):
    """A labelled case in memory.

    Attributes:
        images: (4, X, Y, Z), 0 outside the brain.
        labels: (X, Y, Z) in `scheme`.
        affine: (4, 4).
    """

    images: NDArray[np.float32]
    labels: NDArray[np.uint8]
    affine: NDArray[np.float64]
    scheme: str


@dataclass
class Seen:
    """What was seen of some cases."""

    features: list[list[Array]] = field(default_factory=list)
    signs: list[Array] = field(default_factory=list)
    quality: list[float] = field(default_factory=list)
    home: list[bool] = field(default_factory=list)

    def stacked(self) -> list[Array]:
        """Of each layer, (N, F)."""
        return [np.concatenate(layer) for layer in zip(*self.features, strict=True)]


def see(seen: Seen, predictor: Predictor, case: Case, *, home: bool) -> None:
    """Add a case: what the network shows of it, and the Dice of its answer."""
    settings = inference.InferSettings()
    prepared = prepare(case.images, case.affine, predictor.config.spacing, ndim=predictor.ndim)
    plan = inference.plan_one(predictor, prepared, settings, 0)
    with Observer(predictor, layers_of(predictor.config)) as observer:
        found = inference.predict(prepared, predictor, plan, call=observer)
    features = observer.features()
    if features is None:
        return
    whole = to_regions(case.labels, case.scheme)[0]
    turned = to_canonical(whole, case.affine)[prepared.box].astype(np.float32)
    truth = resample_axes(turned[None], found.shape[1:])[0] >= 0.5
    seen.features.append(features)
    seen.signs.append(signs_of(found, prepared.spacing))
    seen.quality.append(dice(found[0] >= 0.5, truth, empty=EmptyPolicy.BRATS))
    seen.home.append(home)


def damaged(rng: np.random.Generator, case: Case, kind: str) -> Case:
    """A case with a fault of `data.corruptions`, labels to match."""
    images = CORRUPTIONS[kind](rng, case.images)
    labels = case.labels
    if images.shape[1:] != labels.shape:
        factors = [new / old for new, old in zip(images.shape[1:], labels.shape, strict=True)]
        labels = ndimage.zoom(labels, factors, order=0)
    return case._replace(images=images, labels=labels)


def learn_knowledge(
    predictor: Predictor,
    training: Iterable[Case],
    validation: Sequence[Case],
    *,
    group: str,
    seed: int = 0,
    damages: int = 3,
    right: float = RIGHT,
    tell: Callable[[], None] = lambda: None,
) -> Knowledge:
    """What a network knows.

    Args:
        training: of the kind it was trained on, 32 or more; none is kept.
        validation: not trained on; each counts once as it is, and `damages` times damaged.
        group: what the training cases are called.
        right: Dice of the whole tumour from which a clean validation case is at home.
        tell: called after each prediction.

    Raises:
        ValueError: too few cases, see `fieldfare.common.trust.knowledge.learn`.
    """
    known, judged = Seen(), Seen()
    for case in training:
        see(known, predictor, case, home=True)
        tell()
    kinds = list(CORRUPTIONS)
    for number, case in enumerate(validation):
        see(judged, predictor, case, home=True)
        tell()
        for turn in range(damages):
            rng = np.random.default_rng((seed, number, turn))
            kind = kinds[(number + turn * 2) % len(kinds)]
            see(judged, predictor, damaged(rng, case, kind), home=False)
            tell()
    samples = Samples(
        judged.stacked(),
        np.concatenate(judged.signs),
        np.array(judged.quality),
        np.array(
            [one and score >= right for one, score in zip(judged.home, judged.quality, strict=True)]
        ),
    )
    knowledge = learn(
        layers_of(predictor.config),
        {group: known.stacked()},
        samples,
        signs=SIGNS,
        quality=QUALITY,
    )
    return replace(knowledge, farthest=knowledge.farthest * FARTHER, least=knowledge.least - WORSE)
