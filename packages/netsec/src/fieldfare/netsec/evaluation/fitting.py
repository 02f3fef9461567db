# SPDX-License-Identifier: Apache-2.0
"""Fit a model's evidence: ports and embeddings on training flows, all else on validation flows."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fieldfare.common.trust.familiar import Familiar, familiar
from fieldfare.common.trust.guard import Guard

from ..data.dataset import LabelledFlows, at_most
from ..data.flow_rows import is_bare, take
from ..inference.calibration import fit_temperature, log_softmax, softmax
from ..inference.classifier import FlowClassifier
from ..inference.evidence import Evidence, Stage, signs
from ..inference.guard import fit
from ..inference.ports import PortTable, count_ports, is_icmp
from ..inference.spread import experts_to_ask
from .scores import score

UNKNOWN = 0.09
"""Share of known validation flows that is called unknown: the least at which of 44 flows of other
protocols in validation captures under 5 % are named (none; 6.8 % at 0.08) while over 90 % of the
known ones keep a right name (`benchmarks/netsec/unknown_classes.py`)."""

WEIGHTS = tuple(round(0.1 * step, 1) for step in range(11))
"""Of the port, of which one is chosen."""

MISPLACED = 0.1
"""Share of flows at the port of another class that the weight is chosen for: without any, a port
outweighs bytes that say plainly what a flow is."""

WINDOWS = (0.1, 0.2, 0.3, 0.4, 0.5)
"""Shares of known flows that the second network sees, of which one is chosen."""

_ARRAYS = ("scale", "means", "directions", "variances")

MOST = 20_000
"""Flows of a split that embeddings and familiarity are fitted to; of more, so many are drawn."""

LEAST = 20
"""Flows of validation, below which nothing is fitted."""


def fit_evidence(
    members: Sequence[FlowClassifier],
    train: LabelledFlows,
    val: LabelledFlows,
    *,
    disagreement: bool = True,
) -> Evidence:
    """Fit what a model file keeps beside one network, or beside two.

    Args:
        members: networks without evidence, of the same classes as the data.
        train: flows they were trained on.
        val: flows they were not trained on, of other captures.
        disagreement: of a first network with stochastic experts, how far these disagree is a sign.

    Raises:
        ValueError: other classes, or too few flows.
    """
    if any(member.classes != train.classes for member in members):
        raise ValueError("the flows must be of just the classes of the networks")
    if min(len(train), free_flows(val)) < LEAST:
        raise ValueError(f"needs {LEAST} flows or more to train and to validate")
    ports = count_ports(train.flows, train.label, train.capture, len(train.classes))
    train, val = at_most(train, MOST), at_most(val, MOST)
    known = tuple(_familiar(member, train) for member in members)
    found = [member.classify(val.flows) for member in members]
    logs = [
        log_softmax(one.logits / m.config.temperature)
        for one, m in zip(found, members, strict=True)
    ]
    embeddings = [one.embeddings for one in found]
    asked = experts_to_ask(members[0].network) if disagreement else 0
    spread = members[0].spread(val.flows, asked) if asked > 1 else None
    stages = tuple(
        _stage(ports, known[:count], val, logs[:count], embeddings[:count], spread)
        for count in range(1, len(members) + 1)
    )
    evidence = Evidence(ports, known, stages, 0.0, UNKNOWN, asked if asked > 1 else 0)
    if len(members) == 1:
        return evidence
    return replace(evidence, window=_window(evidence, val, logs, embeddings, spread))


def fit_guard(classifier: FlowClassifier, val: LabelledFlows) -> Guard | None:
    """Fit what `--guard` compares with, on flows that the networks were not trained on.

    None where too few of them are such as the classifier names.
    """
    flows = at_most(val, MOST).flows
    if not classifier.config.names_bare:
        flows = take(flows, ~is_bare(flows))
    return fit(classifier, flows) if len(flows) >= LEAST else None


def free_flows(flows: LabelledFlows) -> int:
    """How many there are whose protocol alone does not tell their class."""
    return int((~is_icmp(flows.flows)).sum())


def _familiar(member: FlowClassifier, train: LabelledFlows) -> Familiar:
    """Of the embeddings of each class."""
    embeddings = member.classify(train.flows).embeddings.astype(np.float64)
    found = familiar(
        {
            name: embeddings[train.label == number]
            for number, name in enumerate(train.classes)
            if (train.label == number).any()
        }
    )
    # As a file holds them, so that what is fitted next is fitted to what will be read.
    stored = {name: getattr(found, name).astype(np.float32).astype(float) for name in _ARRAYS}
    return replace(found, **stored)


def _stage(
    ports: PortTable,
    known: Sequence[Familiar],
    val: LabelledFlows,
    logs: Sequence[np.ndarray],
    embeddings: Sequence[np.ndarray],
    spread: np.ndarray | None,
) -> Stage:
    """The weight by likelihood, the temperature, and how familiar known flows look."""
    evidence, mean = ports(val.flows), np.mean(logs, axis=0)
    rule, free = ports.rule(val.flows), ~ports.decides(val.flows)
    misplaced = np.random.default_rng(0).permutation(evidence[free])

    def loss(weight: float) -> tuple[float, float]:
        temperature = fit_temperature(mean + weight * evidence, val.label)
        own, other = (
            _surprise((mean[free] + weight * said) / temperature, val.label[free])
            for said in (evidence[free], misplaced)
        )
        return (1 - MISPLACED) * own + MISPLACED * other, weight

    _, weight = min(loss(weight) for weight in WEIGHTS)
    summed = mean + weight * evidence
    temperature = fit_temperature(summed, val.label)
    chosen = softmax(summed / temperature + rule)
    found = signs(chosen, evidence, known, embeddings, spread)[free]
    centre, deviation = found.mean(axis=0), found.std(axis=0) + 1e-6
    stage = Stage(weight, temperature, centre, deviation, np.empty(0))
    return replace(stage, scores=np.sort(stage.sums(found)))


def _surprise(logits: np.ndarray, label: np.ndarray) -> float:
    """Mean negative log-likelihood."""
    return -float(log_softmax(logits)[np.arange(len(label)), label].mean())


def _window(
    evidence: Evidence,
    val: LabelledFlows,
    logs: Sequence[np.ndarray],
    embeddings: Sequence[np.ndarray],
    spread: np.ndarray | None,
) -> float:
    """The smallest of `WINDOWS` that costs no macro-F1 and no accuracy on val."""
    first = evidence.judge(val.flows, logs[:1], embeddings[:1], spread)
    both = evidence.judge(val.flows, logs, embeddings, spread)
    whole = score(val.label, both.probabilities, val.classes)
    for window in WINDOWS:
        passed = first.familiarity < window
        mixed = np.where(passed[:, None], both.probabilities, first.probabilities)
        part = score(val.label, mixed, val.classes)
        if part.macro_f1 >= whole.macro_f1 and part.accuracy >= whole.accuracy:
            return window
    return 1.0
