# SPDX-License-Identifier: Apache-2.0
"""A classifier scored on a split, beside what a user would try instead."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fieldfare.common import files
from fieldfare.common.errors import InputError

from ..capture import FlowBatch
from ..data.dataset import LabelledFlows, at_most
from ..data.spool import joined, pieces
from ..inference.classifier import FlowClassifier
from .audit import Classifier, audit, audit_rows
from .baselines import PortLookup, Trees
from .early import first_packets_curve
from .embeddings import SingularKernel
from .robust import robust_scores
from .scores import Scores, score

LIMITS = (0.0, 0.01, 0.03, 0.05, 0.08, 0.09, 0.1, 0.15, 0.2)
"""Values of `--unknown-below` of which is told what they cost."""


MOST_FOR_TREES = 20_000
"""Flows that the trees are fitted to; of more, so many are drawn. Trees grow with their flows."""


@dataclass(frozen=True)
class Comparison:
    """What was found.

    Attributes:
        model, split: what was scored on which flows.
        hidden: fields that the model does not see.
        scores: of the model, with nothing else hidden.
        audit: see `audit.audit_rows`.
        rivals: scores of what needs no deep network.
        unknown: what `infer --unknown-below` makes of the flows of the classes that the model
            knows, see `unknown_rows`; None of a model without evidence.
        first_packets: see `early.first_packets_curve`; None where it was not asked for.
        robust: macro-F1 and accuracy with flows disguised; None where it was not asked for.
    """

    model: str
    split: str
    hidden: tuple[str, ...]
    scores: Scores
    audit: list[dict[str, str | float | None]]
    rivals: dict[str, Scores]
    unknown: list[dict[str, float]] | None
    first_packets: list[dict[str, float]] | None
    robust: dict[str, float] | None = None

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
            "unknown": self.unknown,
            "first_packets": self.first_packets,
            "robust": self.robust,
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
    neighbours: bool = False,
    evasions: int = 0,
    first_packets: Sequence[int] = (),
) -> Comparison:
    """Score a classifier, and what a user would try instead.

    Args:
        flows: of all splits; rivals are fitted to train.
        split: to score.
        trees: also fit and score `baselines.Trees`.
        neighbours: also score `embeddings.SingularKernel` and the nearest training flow.
        evasions: also score with flows disguised, each at best of so many; see `robust`.
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

    look = classifier.look if neighbours else None
    lookup, rivals = _rivals(flows, data, classes, trees=trees, look=look)
    found = audit(classify, data.flows, label, classes, lookup)
    robust = None
    if evasions:
        left = robust_scores(classify, data.flows, label, classes, evasions)
        robust = {"evasions": evasions, "macro_f1": left.macro_f1, "accuracy": left.accuracy}
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
        unknown=unknown_rows(classifier, data),
        first_packets=curve,
        robust=robust,
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
    every: LabelledFlows,
    data: LabelledFlows,
    classes: tuple[str, ...],
    *,
    trees: bool,
    look: Callable[[FlowBatch], tuple[np.ndarray, np.ndarray]] | None,
) -> tuple[PortLookup | None, dict[str, Scores]]:
    """What needs no deep network, fitted to the split train where there is one."""
    if not (every.split == 0).any():
        return None, {}
    train = every.of_split("train")
    place = np.array([classes.index(name) for name in every.classes])
    lookup = PortLookup(len(classes)).fit(train.flows, place[train.label])
    rivals: dict[str, Classifier] = {"port lookup": lookup}
    if trees:
        some = at_most(train, MOST_FOR_TREES)
        forest = Trees(len(classes)).fit(some.flows, place[some.label])
        rivals["400 extra-trees, ports hidden"] = forest
    if look is not None:
        some = at_most(train, MOST_FOR_TREES)
        for name, nearest in (("singular kernel", False), ("nearest flow", True)):
            kernel = SingularKernel(lambda flows: look(flows)[1], len(classes), nearest=nearest)
            rivals[f"{name} of the embeddings"] = kernel.fit(some.flows, place[some.label])
    truth = place[data.label]
    return lookup, {
        name: score(truth, joined([rival(part) for part in pieces(data.flows)]), classes)
        for name, rival in rivals.items()
    }


def unknown_rows(classifier: FlowClassifier, data: LabelledFlows) -> list[dict[str, float]] | None:
    """Shares of the flows of known classes that are called unknown, or named rightly, by limit.

    Returns:
        A row for each of `LIMITS`; None of a model without evidence, or without such flows.
    """
    names = np.array(data.classes)[data.label]
    known = np.flatnonzero(np.isin(names, classifier.classes))
    if classifier.evidence is None or not len(known):
        return None
    best, familiarity = [], []
    for part in pieces(data.select(known).flows):
        found = classifier.classify(part)
        best.append(found.probabilities.argmax(axis=1))
        familiarity.append(found.familiarity)
    right = np.array(classifier.classes)[joined(best)] == names[known]
    return _by_limit(right, joined(familiarity))


def _by_limit(right: np.ndarray, familiarity: np.ndarray) -> list[dict[str, float]]:
    return [
        {
            "unknown_below": limit,
            "unknown": float((familiarity < limit).mean()),
            "named_right": float((right & (familiarity >= limit)).mean()),
            "named_wrong": float((~right & (familiarity >= limit)).mean()),
        }
        for limit in LIMITS
    ]
