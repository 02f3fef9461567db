# SPDX-License-Identifier: Apache-2.0
"""A classifier scored on a split, beside what a user would try instead."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fieldfare.common import files
from fieldfare.common.errors import InputError

from ..capture import FlowBatch
from ..data.dataset import LabelledFlows
from ..inference.calibration import conformal_threshold
from ..inference.classifier import FlowClassifier
from .audit import Classifier, audit, audit_rows
from .baselines import PortLookup, Trees
from .early import first_packets_curve
from .scores import Scores, score

ERRORS = (0.01, 0.05, 0.1)
"""Shares of known flows called unknown by mistake, for which thresholds are told."""


@dataclass(frozen=True)
class Comparison:
    """What was found.

    Attributes:
        model, split: what was scored on which flows.
        hidden: fields that the model does not see.
        scores: of the model, with nothing else hidden.
        audit: see `audit.audit_rows`.
        rivals: scores of what needs no deep network.
        unknown_below: of `infer --unknown-below`, by the share of known flows that it costs on
            val; None where there is no such split.
        first_packets: see `early.first_packets_curve`; None where it was not asked for.
    """

    model: str
    split: str
    hidden: tuple[str, ...]
    scores: Scores
    audit: list[dict[str, str | float | None]]
    rivals: dict[str, Scores]
    unknown_below: dict[str, float] | None
    first_packets: list[dict[str, float]] | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for `--json` and files."""
        return {
            "model": self.model,
            "split": self.split,
            "hidden": self.hidden,
            **self.scores.summary(),
            "audit": self.audit,
            "baselines": {
                name: {"macro_f1": scores.macro_f1, "accuracy": scores.accuracy}
                for name, scores in self.rivals.items()
            },
            "unknown_below": self.unknown_below,
            "first_packets": self.first_packets,
        }

    def save(self, folder: Path) -> None:
        """Write the numbers, `scores.json`, and pictures of them."""
        from . import pictures

        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.to_dict(), indent=1, default=list, allow_nan=False)
        files.write_text(folder / "scores.json", text + "\n")
        title = f"{self.model}, {self.split}"
        pictures.save(pictures.draw_confusion(self.scores, title), folder / "confusion.png")
        if self.scores.reliability is not None:
            figure = pictures.draw_reliability(self.scores.reliability, title)
            pictures.save(figure, folder / "reliability.png")
        if self.first_packets is not None:
            figure = pictures.draw_first_packets({self.model: self.first_packets})
            pictures.save(figure, folder / "first_packets.png")


def compare(
    classifier: FlowClassifier,
    flows: LabelledFlows,
    split: str = "test",
    *,
    trees: bool = False,
    first_packets: Sequence[int] = (),
) -> Comparison:
    """Score a classifier, and what a user would try instead.

    Args:
        flows: of all splits; rivals are fitted to train, thresholds to val.
        split: to score.
        trees: also fit and score `baselines.Trees`.
        first_packets: also score after so many first packets of each flow.

    Raises:
        InputError: no flows in the split, or none of a class that the model knows.
    """
    data = flows.of_split(split)
    classes, label = _common_classes(classifier, flows, data)

    def classify(seen: FlowBatch) -> np.ndarray:
        found = np.zeros((len(seen), len(classes)))
        found[:, : len(classifier.classes)] = classifier(seen)
        return found

    lookup, rivals = _rivals(flows, data, classes, trees=trees)
    found = audit(classify, data.flows, label, classes, lookup)
    curve = None
    if first_packets:
        curve = first_packets_curve(classify, data.flows, label, classes, first_packets)
    return Comparison(
        model=classifier.name,
        split=split,
        hidden=classifier.hidden,
        scores=found["nothing"],
        audit=audit_rows(found),
        rivals=rivals,
        unknown_below=_thresholds(classify, flows, classifier.classes),
        first_packets=curve,
    )


def _common_classes(
    classifier: FlowClassifier, every: LabelledFlows, data: LabelledFlows
) -> tuple[tuple[str, ...], np.ndarray]:
    """The model's classes, then those of the labels that it does not know; labels among them."""
    known = classifier.classes
    if not set(known) & set(every.classes):
        raise InputError(
            f"the labels file has none of the classes of {classifier.name} ({', '.join(known)})"
        )
    classes = (*known, *(name for name in every.classes if name not in known))
    place = np.array([classes.index(name) for name in every.classes])
    return classes, place[data.label]


def _rivals(
    every: LabelledFlows, data: LabelledFlows, classes: tuple[str, ...], *, trees: bool
) -> tuple[PortLookup | None, dict[str, Scores]]:
    """What needs no deep network, fitted to the split train where there is one."""
    if not (every.split == 0).any():
        return None, {}
    train = every.of_split("train")
    place = np.array([classes.index(name) for name in every.classes])
    lookup = PortLookup(len(classes)).fit(train.flows, place[train.label])
    truth = place[data.label]
    found = {"port lookup": score(truth, lookup(data.flows), classes)}
    if trees:
        forest = Trees(len(classes)).fit(train.flows, place[train.label])
        found["400 extra-trees, ports hidden"] = score(truth, forest(data.flows), classes)
    return lookup, found


def _thresholds(
    classify: Classifier, every: LabelledFlows, classes: Sequence[str]
) -> dict[str, float] | None:
    """By the share of known flows of val that is called unknown."""
    known = np.isin(np.array(every.classes)[every.label], classes)
    chosen = np.flatnonzero(known & (every.split == 1))
    if not chosen.size:
        return None
    probabilities = classify(every.select(chosen).flows)
    return {f"{error:g}": conformal_threshold(probabilities, error) for error in ERRORS}
