# SPDX-License-Identifier: Apache-2.0
"""`--explain`: which experts the tokens of a flow ran, and how many."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from fieldfare.common.errors import InputError
from fieldfare.common.experts import Bank
from fieldfare.common.experts.host import layers

from ..capture import FlowBatch
from ..data.masking import mask
from ..data.spool import joined, pieces
from ..networks.architectures import FlowNetwork
from .classifier import BATCH, FlowClassifier

EXPLAIN_SCHEMA = pa.schema(
    [("ffns_per_token", pa.float64()), ("expert_tokens", pa.list_(pa.int64()))]
)
"""Mean number of feed-forward experts that a token of the flow runs in a layer; and how many tokens
ran each expert, layer by layer, behind them how many tokens each layer saw. Null where the network
did not decide."""


@dataclass(frozen=True)
class ExpertLayers:
    """Of a network.

    Attributes:
        kind: of experts.
        names: of its M layers.
        experts: E, most of a layer, those that compute nothing included.
        feed_forward: of a layer, those that are feed-forward layers; they come first.
    """

    kind: str
    names: tuple[str, ...]
    experts: int
    feed_forward: int


@dataclass(frozen=True)
class Used:
    """What N flows ran: (N, M, E) tokens that ran each expert, (N, M) tokens of each layer."""

    ran: np.ndarray
    tokens: np.ndarray


def member_with_experts(classifier: FlowClassifier) -> FlowClassifier:
    """The first of a classifier's networks that has experts.

    Raises:
        InputError: none has.
    """
    for member in (classifier, classifier.second):
        if member is not None and member.config.experts is not None:
            return member
    raise InputError(f"--explain: {classifier.name} has no experts")


def expert_layers(member: FlowClassifier) -> ExpertLayers:
    """Of a classifier whose network has experts."""
    hosted = layers(member.network)
    first = next(iter(hosted.values()))
    return ExpertLayers(
        kind=str((member.config.experts or {})["kind"]),
        names=tuple(name.removeprefix("base_transformer.encoder.") for name in _order(hosted)),
        experts=max(layer.count for layer in hosted.values()),
        feed_forward=sum(group.count for group in first.groups if isinstance(group, Bank)),
    )


def _order(hosted: dict[str, Any]) -> list[str]:
    """Names as `used` has the layers: those over bursts' tokens, then those over bursts."""
    return sorted(hosted, key=lambda name: "flow_encoder" in name)


@torch.inference_mode()
def look_inside(member: FlowClassifier, flows: FlowBatch) -> Used:
    """What flows ran; the network sees them once more."""
    found = [_look(member, part) for part in pieces(flows)]
    return Used(joined([f.ran for f in found]), joined([f.tokens for f in found]))


def passes(member: FlowClassifier, flows: FlowBatch) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Run a classifier's network over flows, a batch whenever it is advanced.

    Yields:
        (B,) rows of the flows, and their logits (B, C).
    """
    inputs = member.architecture.read(mask(flows, member.hidden), member.network_config)
    order, network = inputs.by_size(), cast(FlowNetwork, member.network)
    for first in range(0, len(order), BATCH[member.device.type]):
        rows = order[first : first + BATCH[member.device.type]]
        yield rows, network.classify(network.embed(inputs.batch(rows).to(member.device)))


def _look(member: FlowClassifier, flows: FlowBatch) -> Used:
    about = expert_layers(member)
    ran = np.zeros((len(flows), len(about.names), about.experts), np.int64)
    tokens = np.zeros((len(flows), len(about.names)), np.int64)
    for rows, _ in passes(member, flows):
        chosen, seen = member.architecture.used(member.network)
        ran[rows], tokens[rows] = chosen.cpu().numpy(), seen.cpu().numpy()
    return Used(ran, tokens)


def explain_columns(
    member: FlowClassifier, flows: FlowBatch, rows: np.ndarray, count: int
) -> list[pa.Array]:
    """Columns of `EXPLAIN_SCHEMA` of `count` flows, of which those at (K,) rows are given."""
    found, about = look_inside(member, flows), expert_layers(member)
    mean = per_token(found, about)
    means: list[float | None] = [None] * count
    lists: list[list[int] | None] = [None] * count
    flat = np.concatenate([found.ran.reshape(len(rows), -1), found.tokens], axis=1)
    for row, value, numbers in zip(rows.tolist(), mean.tolist(), flat.tolist(), strict=True):
        means[row], lists[row] = round(value, 6), numbers
    return [pa.array(means, pa.float64()), pa.array(lists, pa.list_(pa.int64()))]


def per_token(found: Used, about: ExpertLayers) -> np.ndarray:
    """(N,) feed-forward experts that a token runs in a layer, on average."""
    ran = found.ran[:, :, : about.feed_forward].sum(axis=(1, 2))
    mean: np.ndarray = ran / np.maximum(found.tokens.sum(axis=1), 1)
    return mean


class ExpertUse:
    """Gathers what the flows of each label ran, table by table.

    Args:
        about: of the network.
    """

    def __init__(self, about: ExpertLayers) -> None:
        self.about = about
        self._flows: dict[str, int] = {}
        self._sums: dict[str, np.ndarray] = {}

    def add(self, table: pa.Table) -> None:
        """Count the flows of a table with `EXPLAIN_SCHEMA`'s columns."""
        pairs = zip(table["label"].to_pylist(), table["expert_tokens"].to_pylist(), strict=True)
        for label, numbers in pairs:
            if numbers is not None:
                self._flows[label] = self._flows.get(label, 0) + 1
                self._sums[label] = self._sums.get(label, 0) + np.array(numbers, np.int64)

    def to_json(self) -> dict[str, Any]:
        """By label, most flows first: `flows`, `tokens`, `ffns_per_token` and `share`.

        `share` is that of a layer's tokens that ran each expert, by layer.
        """
        return {
            "kind": self.about.kind,
            "feed_forward": self.about.feed_forward,
            "layers": list(self.about.names),
            "classes": {name: self._row(name) for name in self.labels()},
        }

    def labels(self) -> Sequence[str]:
        """Most flows first."""
        return sorted(self._flows, key=lambda name: (-self._flows[name], name))

    def _row(self, label: str) -> dict[str, Any]:
        layers, experts = len(self.about.names), self.about.experts
        sums = self._sums[label]
        ran, tokens = sums[: layers * experts].reshape(1, layers, experts), sums[None, -layers:]
        share = ran[0] / np.maximum(tokens[0, :, None], 1)
        return {
            "flows": self._flows[label],
            "tokens": int(tokens.sum()),
            "ffns_per_token": round(float(per_token(Used(ran, tokens), self.about)[0]), 4),
            "share": np.round(share, 4).tolist(),
        }
