# SPDX-License-Identifier: Apache-2.0
"""net-traffic eval."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fieldfare.common import console, files
from fieldfare.common.errors import InputError

from ..capture import FlowBatch
from ..data.dataset import LabelledFlows, load_flows
from ..data.labels import read_labels
from ..evaluation import pictures
from ..evaluation.audit import audit, audit_rows
from ..evaluation.baselines import PortLookup, Trees
from ..evaluation.early import first_packets_curve
from ..evaluation.scores import Scores, score
from ..inference.calibration import conformal_threshold
from ..inference.classifier import FlowClassifier, load_classifier

ERRORS = (0.01, 0.05, 0.1)
"""Shares of known flows called unknown by mistake, for which thresholds are told."""


def evaluate(labels: Path, options: Mapping[str, Any]) -> None:
    """Score a model on a split, beside what a user would try instead."""
    classifier, _ = load_classifier(
        options["model"], show=options["show"], device=options["device"]
    )
    table = read_labels(labels, options["captures"])
    folder: Path | None = options["output"]
    cache = folder / "flows" if folder else None
    every = load_flows(table, cache=cache, quiet=options["quiet"])
    data = every.of_split(options["split"])
    classes, label = _common_classes(classifier, every, data)

    def classify(flows: FlowBatch) -> np.ndarray:
        found = np.zeros((len(flows), len(classes)))
        found[:, : len(classifier.classes)] = classifier(flows)
        return found

    lookup, rivals = _rivals(every, data, classes, trees=options["trees"])
    found = audit(classify, data.flows, label, classes, lookup)
    whole = found["nothing"]
    curve = None
    if options["first_packets"]:
        curve = first_packets_curve(classify, data.flows, label, classes, options["first_packets"])
    thresholds = _thresholds(classify, every, classifier.classes)
    result = {
        "model": classifier.name,
        "split": options["split"],
        "hidden": classifier.hidden,
        **whole.summary(),
        "audit": audit_rows(found),
        "baselines": {
            name: {"macro_f1": scores.macro_f1, "accuracy": scores.accuracy}
            for name, scores in rivals.items()
        },
        "unknown_below": thresholds,
        "first_packets": curve,
    }
    if folder is not None:
        _write(folder, result, whole, classifier.name, curve)
    text = _text(result, whole, data, options["split"])
    console.emit(result, as_json=options["as_json"], text=text)


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
    classify: Any, every: LabelledFlows, classes: Sequence[str]
) -> dict[str, float] | None:
    """Of `infer --unknown-below`, by the share of known flows that it costs on val."""
    known = np.isin(np.array(every.classes)[every.label], classes)
    chosen = np.flatnonzero(known & (every.split == 1))
    if not chosen.size:
        return None
    probabilities = classify(every.select(chosen).flows)
    return {f"{error:g}": conformal_threshold(probabilities, error) for error in ERRORS}


def _write(
    folder: Path,
    result: Mapping[str, Any],
    scores: Scores,
    name: str,
    curve: list[dict[str, float]] | None,
) -> None:
    """The numbers and the pictures of them."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, indent=1, default=lambda value: list(value), allow_nan=False)
    files.write_text(folder / "scores.json", text + "\n")
    title = f"{name}, {result['split']}"
    pictures.save(pictures.draw_confusion(scores, title), folder / "confusion.png")
    if scores.reliability is not None:
        figure = pictures.draw_reliability(scores.reliability, title)
        pictures.save(figure, folder / "reliability.png")
    if curve is not None:
        pictures.save(pictures.draw_first_packets({name: curve}), folder / "first_packets.png")


def _text(result: Mapping[str, Any], whole: Scores, data: LabelledFlows, split: str) -> str:
    """For people: macro-F1 and classes first."""
    lines = [
        f"{result['model']} on {split}: macro-F1 {whole.macro_f1:.3f}, accuracy "
        f"{whole.accuracy:.3f}, {len(data)} flows; hidden from the model: "
        f"{', '.join(result['hidden']) or 'nothing'}",
        "",
        console.table(whole.rows()),
        "",
        "shortcut audit: scores with fields hidden in turn",
        console.table(result["audit"]),
    ]
    if result["baselines"]:
        rows = [{"baseline": name, **row} for name, row in result["baselines"].items()]
        lines += ["", "instead of a network, on the same flows", console.table(rows)]
    if whole.reliability is not None:
        lines += ["", f"expected calibration error {whole.reliability.error:.3f}"]
    for error, threshold in (result["unknown_below"] or {}).items():
        lines.append(
            f"--unknown-below {threshold:.3f} calls {float(error):.0%} of the known flows of val "
            "unknown"
        )
    if result["first_packets"]:
        lines += ["", "after the first packets of a flow", console.table(result["first_packets"])]
    return "\n".join(lines)
