# SPDX-License-Identifier: Apache-2.0
"""`--guard`: whether a flow keeps its answer when it is changed in ways that leave its meaning.

BEYOND (He et al., arXiv 2209.00005; `fieldfare.common.trust.beyond`) on flows. The neighbours of a
flow are itself as other recordings might hold it: over the other version of IP, with a short snap
length, without its first packet, at another pace, without TTL. The first network of a model is
asked, once for the flow and once for each neighbour.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from fieldfare.common.errors import InputError
from fieldfare.common.trust.beyond import Augmentation, Encode
from fieldfare.common.trust.guard import Guard, Verdict, fit_guard, read_guard
from fieldfare.common.weights import locate

from ..capture import FlowBatch
from ..data.flow_rows import first_packets_only, take
from ..data.masking import mask
from ..data.spool import PIECE
from ..data.variations import Chances, vary
from ..networks.architectures import TASK
from .classifier import FlowClassifier


@dataclass(frozen=True)
class Change:
    """How a neighbour differs.

    Attributes:
        missing: first packets left out; one stays at least.
        snap: bytes of each packet from the IP header on.
        version: the other version of IP.
        pace: times between packets are multiplied by it.
    """

    missing: int = 0
    snap: int = 1 << 30
    version: bool = False
    pace: float = 1.0


CHANGES = (Change(version=True, pace=1.1), Change(snap=80), Change(missing=1, pace=0.9))
"""Of the neighbours; an answer costs one forward more than there are. Chosen among sixteen on
validation flows that were attacked or damaged: all sixteen together tell no more. Other options,
longer snap lengths and last packets cut off tell less."""

RANK, ALPHA = len(CHANGES), 0.0
"""See `beyond.Neighbourhood`: the neighbour that agrees least, by the embedding alone. With the
published weight of the label, 0.8, less was told on the same flows."""


def neighbour(flows: FlowBatch, change: Change) -> FlowBatch:
    """The flows, all changed alike; totals and times of flows stay as they are."""
    count = len(flows)
    always, never = np.zeros(count), np.ones(count)
    chances = Chances(
        some=np.full(count, change.missing),
        any_number=always,
        first=always if change.missing else np.full(count, 0.5),
        options=never,
        version=always if change.version else never,
        snap=np.full(count, np.log(change.snap + 0.5)),  # rounded down
        snapped=always,
    )
    found = mask(vary(flows, chances), ["ttl"])
    packets = found.first_packets
    first = packets.time[np.searchsorted(packets.flow, packets.flow)]
    gone = np.rint((packets.time - first) * change.pace).astype(np.int64)
    return replace(found, first_packets=replace(packets, time=first + gone))


def encoder(classifier: FlowClassifier, flows: FlowBatch) -> Encode:
    """The first network's answers to flows and their neighbours, by number.

    Number n + k N is of flow n of N, as it is where k is 0, else with CHANGES[k - 1]. Numbers that
    are asked for together have one k.
    """
    flows = first_packets_only(flows, classifier.kept["keep_packets"])

    def encode(numbers: Tensor) -> tuple[Tensor, Tensor]:
        change, rows = np.divmod(numbers.numpy(), len(flows))
        seen = take(flows, rows)
        if change[0]:
            seen = neighbour(seen, CHANGES[change[0] - 1])
        logits, embeddings = classifier.look(seen)
        return torch.from_numpy(embeddings), torch.from_numpy(logits)

    return encode


def shifts(count: int) -> list[Augmentation]:
    """From the numbers of `count` flows to those of each neighbour."""
    return [partial(torch.add, other=k * count) for k in range(1, len(CHANGES) + 1)]


def numbers(flows: FlowBatch) -> Sequence[Tensor]:
    """Of flows as they are, in pieces."""
    count = len(flows)
    return [torch.arange(at, min(at + PIECE, count)) for at in range(0, count, PIECE)]


def fit(classifier: FlowClassifier, val: FlowBatch) -> Guard:
    """Fit the threshold on flows that the networks were not trained on."""
    return fit_guard(
        encoder(classifier, val), shifts(len(val)), numbers(val), rank=RANK, alpha=ALPHA
    )


def agreement(guard: Guard, classifier: FlowClassifier, flows: FlowBatch) -> np.ndarray:
    """(N,) float64, -1 to 1: how far each flow's answer holds."""
    if not len(flows):
        return np.empty(0)
    neighbourhood = guard.neighbourhood(encoder(classifier, flows), shifts(len(flows)))
    scores = torch.cat([neighbourhood.scores(some) for some in numbers(flows)])
    return scores.double().numpy()


class HeldAnswers:
    """Gathers how far the answers of a recording hold, table by table.

    Args:
        guard: None: nothing is gathered.
    """

    def __init__(self, guard: Guard | None) -> None:
        self._guard = guard
        self._flagged = self._parts = 0

    def add(self, table: pa.Table) -> None:
        """Count the flows of a labelled table; those that are not judged do not count."""
        if self._guard is not None:
            flagged = table["flagged"].to_pylist()
            self._parts += sum(found is not None for found in flagged)
            self._flagged += sum(found is True for found in flagged)

    def verdict(self) -> Verdict | None:
        """On the recording; None where nothing was judged."""
        if self._guard is None or not self._parts:
            return None
        # Scores of just so many flagged and held ones: the real ones are not kept.
        counts = [self._flagged, self._parts - self._flagged]
        return self._guard.verdict(np.repeat(np.array([-np.inf, np.inf]), counts))


def load_guard(name_or_path: str, classifier: FlowClassifier) -> Guard:
    """The guard that a model file keeps.

    Raises:
        InputError: it keeps none, or one of other neighbours, or fields are shown that were hidden
            when it was fitted.
    """
    if set(classifier.hidden) != set(classifier.config.hidden):
        raise InputError("--guard: was fitted with fields hidden; leave --show out")
    guard = read_guard(locate(name_or_path, TASK))
    if guard is None:
        raise InputError(
            f"{name_or_path}: keeps no guard; train it with a split val, or leave --guard out"
        )
    if guard.neighbours != len(CHANGES):
        raise InputError(f"{name_or_path}: its guard is of another version; train the model anew")
    return guard
