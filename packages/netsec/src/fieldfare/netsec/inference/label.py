# SPDX-License-Identifier: Apache-2.0
"""From flows to tables of labelled flows, as they end.

classifier, _ = load_classifier("traffic_pair")
flows = read_flows("capture.pcapng", options=FlowOptions(**classifier.kept))
counts = write_labels(classifier, flows, Path("flows.parquet"))
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from fieldfare.common.errors import InputError
from fieldfare.common.trust.guard import Guard

from ..capture import FlowBatch, to_table
from ..capture.arrow import number_array, text_array, vector_array
from ..data.flow_files import LABEL_SCHEMA, UNKNOWN, flow_schema, open_table
from ..data.flow_rows import first_packets_only, is_bare, regroup, take
from .classifier import FlowClassifier
from .guard import agreement

GROUP = 1024
"""Flows classified at a time. Groups are cut by count alone, so that the result does not depend on
how the capture was read."""

DIGITS = 6
"""Of probabilities; what lies behind depends on the processor."""

GUARD_SCHEMA = pa.schema([("agreement", pa.float64()), ("flagged", pa.bool_())])
"""How far the answer holds when a flow is slightly changed, and whether that is too little; null
where no application spoke."""

EMBEDDING = pa.field("embedding", pa.list_(pa.float32()))


@dataclass(frozen=True, kw_only=True)
class LabelSettings:
    """How flows are labelled.

    Attributes:
        unknown_below: flows of less familiarity are `UNKNOWN`; None: as the model says; 0: none.
        first_packets: the model sees no more of a flow; None: all that it reads.
        embeddings: also give the model's vector of each flow.
        statistics, sizes: see `flow_files.flow_schema`.
        guard: also tell whether the answer holds, see `GUARD_SCHEMA`.
        explain: also tell which experts ran, see `experts.EXPLAIN_SCHEMA`.
    """

    unknown_below: float | None = None
    first_packets: int | None = None
    embeddings: bool = False
    statistics: bool = False
    sizes: int = 0
    guard: Guard | None = None
    explain: bool = False

    @property
    def schema(self) -> pa.Schema:
        """Of the tables."""
        flows = flow_schema(statistics=self.statistics, sizes=self.sizes)
        guard = GUARD_SCHEMA if self.guard else ()
        explained = ()
        if self.explain:
            from .experts import EXPLAIN_SCHEMA as explained
        return pa.schema(
            [*flows, *LABEL_SCHEMA, *guard, *explained, *[EMBEDDING] * self.embeddings]
        )


PLAIN = LabelSettings()


def label_flows(
    classifier: FlowClassifier, flows: FlowBatch, settings: LabelSettings = PLAIN
) -> pa.Table:
    """Flows as a table with labels.

    A flow that carries nothing an application sent is `UNKNOWN` with probability 0, unless the
    model was trained on such flows. Familiarity is null for a model without evidence.

    Raises:
        InputError: familiarity asked for from such a model.
    """
    check_familiarity(classifier, settings.unknown_below)
    below = classifier.unknown_below if settings.unknown_below is None else settings.unknown_below
    whole = flows
    flows = first_packets_only(flows, classifier.kept["keep_packets"])
    named = np.ones(len(flows), bool) if classifier.config.names_bare else ~is_bare(flows)
    if settings.first_packets:
        flows = first_packets_only(flows, settings.first_packets)
    seen = np.flatnonzero(named | settings.embeddings)
    found = classifier.classify(take(flows, seen))
    names = np.full(len(flows), UNKNOWN, object)
    probability, confidence, familiarity = np.zeros((3, len(flows)))
    if len(seen):
        best = found.probabilities.argmax(axis=1)
        rows = np.arange(len(seen))
        names[seen] = np.array(classifier.classes, object)[best]
        if below:
            names[seen[found.familiarity < below]] = UNKNOWN
        probability[seen] = found.networks[rows, best].round(DIGITS)
        confidence[seen] = found.probabilities[rows, best].round(DIGITS)
        familiarity[seen] = found.familiarity.round(DIGITS)
        names[~named] = UNKNOWN
        probability[~named] = confidence[~named] = familiarity[~named] = 0.0
    share = np.zeros(len(flows)) if classifier.evidence is None else confidence - probability
    columns = [
        text_array(names.tolist()),
        number_array(probability),
        number_array(confidence),
        number_array(share.round(DIGITS)),
        _familiarity_array(familiarity, classifier),
        text_array([classifier.name] * len(flows)),
    ]
    if settings.guard:
        columns += _guard_arrays(settings.guard, classifier, flows, np.flatnonzero(named))
    if settings.explain:
        columns += _experts_arrays(classifier, flows, np.flatnonzero(named))
    if settings.embeddings:
        columns.append(vector_array(found.embeddings))
    table = to_table(whole, settings.sizes)
    return pa.Table.from_arrays([*table.columns, *columns], schema=settings.schema)


def check_familiarity(classifier: FlowClassifier, unknown_below: float | None) -> None:
    """Raise InputError where familiarity is asked for from a model without evidence."""
    if unknown_below and classifier.evidence is None:
        raise InputError(
            f"{classifier.name}: knows no familiarity of flows, so none can be unknown below "
            f"{unknown_below:g}; train it with a split val, and show it no hidden fields"
        )


def _familiarity_array(familiarity: np.ndarray, classifier: FlowClassifier) -> pa.Array:
    """Nulls where the model has no evidence."""
    if classifier.evidence is None:
        return pa.nulls(len(familiarity), pa.float64())
    return number_array(familiarity)


def _guard_arrays(
    guard: Guard, classifier: FlowClassifier, flows: FlowBatch, named: np.ndarray
) -> list[pa.Array]:
    """Columns of `GUARD_SCHEMA`; named: (K,) rows that are judged."""
    scores = agreement(guard, classifier, take(flows, named))
    agreements: list[float | None] = [None] * len(flows)
    flagged: list[bool | None] = [None] * len(flows)
    for row, score, low in zip(
        named.tolist(), scores.round(DIGITS).tolist(), guard.flags(scores).tolist(), strict=True
    ):
        agreements[row], flagged[row] = score, low
    return [pa.array(agreements, pa.float64()), pa.array(flagged, pa.bool_())]


def _experts_arrays(
    classifier: FlowClassifier, flows: FlowBatch, named: np.ndarray
) -> list[pa.Array]:
    """Columns of `experts.EXPLAIN_SCHEMA`; named: (K,) rows that the networks see."""
    from .experts import explain_columns, member_with_experts

    member = member_with_experts(classifier)
    return explain_columns(member, take(flows, named), named, len(flows))


def label_stream(
    classifier: FlowClassifier,
    flows: Iterable[FlowBatch],
    settings: LabelSettings = PLAIN,
    *,
    at_once: bool = False,
) -> Iterator[pa.Table]:
    """Flows as tables with labels.

    Args:
        at_once: label flows as they come, not by `GROUP`.
    """
    for batch in flows if at_once else regroup(flows, GROUP):
        yield label_flows(classifier, batch, settings)


def write_labels(
    classifier: FlowClassifier,
    flows: Iterable[FlowBatch],
    path: Path,
    settings: LabelSettings = PLAIN,
    *,
    at_once: bool = False,
    also: Callable[[pa.Table], None] | None = None,
    check: Callable[[], None] | None = None,
) -> dict[str, int]:
    """Write flows with their labels as they end.

    Args:
        path: see `flow_files.open_table`.
        at_once: see `label_stream`.
        also: is shown each table, once it is written.
        check: is called before the file is there; if it raises, there will be none.

    Returns:
        Flows of each label that there is, most first.
    """
    counted: Counter[str] = Counter(dict.fromkeys([*classifier.classes, UNKNOWN], 0))
    with open_table(path, settings.schema) as writer:
        for table in label_stream(classifier, flows, settings, at_once=at_once):
            counted.update(table["label"].to_pylist())
            writer.write(table)
            if also is not None:
                also(table)
        if check is not None:
            check()
    return {label: count for label, count in counted.most_common() if count}
