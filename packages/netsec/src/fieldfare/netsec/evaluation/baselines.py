# SPDX-License-Identifier: Apache-2.0
"""What a user would try before a deep network: a table of ports, and a forest of trees."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fieldfare.common.errors import InputError

from ..capture import FlowBatch
from ..data.flow_rows import packet_number
from ..data.spool import PIECE

FEATURE_PACKETS = 5
PAYLOAD_BYTES = 64
_TCP = 6
_TCP_FLAGS = 12
"""Where data offset, flags and window (4 bytes) begin in the TCP header."""


@dataclass
class PortLookup:
    """The most frequent class of (protocol, lower port) in training, else of all flows.

    It looks at nothing else of a flow; a classifier that does not beat it has learnt ports.
    """

    classes: int
    _shares: dict[tuple[int, ...], np.ndarray] = field(default_factory=dict)

    def fit(self, flows: FlowBatch, label: np.ndarray) -> "PortLookup":
        """Count the classes of N training flows; label: (N,) class numbers."""
        counts: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
        for first in range(0, len(flows), PIECE):
            rows = slice(first, first + PIECE)
            for key, name in zip(_port_keys(flows, rows), label[rows].tolist(), strict=True):
                for part in (key, ()):
                    counts[part][name] += 1
        self._shares = {}
        for key, found in counts.items():
            share = np.zeros(self.classes)
            share[list(found)] = list(found.values())
            self._shares[key] = share / share.sum()
        return self

    def predict(self, flows: FlowBatch) -> np.ndarray:
        """(N, C) shares of the classes among the training flows with the same ports."""
        rest = self._shares[()]
        rows = [self._shares.get(key, rest) for key in _port_keys(flows)]
        return np.array(rows).reshape(len(flows), self.classes)

    __call__ = predict


def _port_keys(flows: FlowBatch, rows: slice = slice(None)) -> list[tuple[int, ...]]:
    lower = np.minimum(flows.src_port[rows], flows.dst_port[rows])
    return list(zip(flows.protocol[rows].tolist(), lower.tolist(), strict=True))


def tree_features(flows: FlowBatch) -> np.ndarray:
    """What the trees see of a flow's first 5 packets; no address, port, TTL or checksum.

    Returns:
        (N, 5 * 71) float32: of each packet its length and its payload's (bytes), its direction (1
        forward, -1 backward), 4 bytes of TCP data offset, flags and window (0 for other protocols)
        and the first 64 bytes of payload; -1 throughout for a packet that is not there.
    """
    packets, number = flows.first_packets, packet_number(flows)
    width = 3 + 4 + PAYLOAD_BYTES
    features = np.full((len(flows), FEATURE_PACKETS, width), -1, np.float32)
    kept = np.flatnonzero(number < FEATURE_PACKETS)
    if not kept.size:
        return features.reshape(len(flows), -1)
    header, payload = packets.header[kept], packets.payload[kept]
    rows = np.zeros((len(kept), width), np.float32)
    rows[:, 0] = packets.bytes[kept]
    rows[:, 1] = packets.payload_length[kept]
    rows[:, 2] = np.where(packets.backward[kept], -1, 1)
    tcp = flows.protocol[packets.flow[kept]] == _TCP
    first = packets.transport[kept] + _TCP_FLAGS
    rows[:, 3:7] = _bytes_at(packets.data, kept, first, np.where(tcp, header - first, 0), 4)
    rows[:, 7:] = _bytes_at(packets.data, kept, header, payload, PAYLOAD_BYTES)
    features[packets.flow[kept], number[kept]] = rows
    return features.reshape(len(flows), -1)


def _bytes_at(
    data: np.ndarray, rows: np.ndarray, first: np.ndarray, length: np.ndarray, width: int
) -> np.ndarray:
    """(K, width) bytes of some rows from `first` on, 0 behind `length`."""
    steps = np.arange(width)
    place = np.clip(first[:, None] + steps, 0, data.shape[1] - 1)
    return np.where(steps < length[:, None], data[rows[:, None], place], 0)


@dataclass
class Trees:
    """400 extremely randomised trees on `tree_features`, ports masked; needs scikit-learn.

    Args:
        classes: C, numbers 0 to C - 1.
        seed: of the forest.
        trees: how many.

    Source: Geurts, Ernst and Wehenkel 2006 (doi 10.1007/s10994-006-6226-1).
    """

    classes: int
    seed: int = 0
    trees: int = 400
    _forest: Any = None

    def fit(self, flows: FlowBatch, label: np.ndarray) -> "Trees":
        """Grow the trees on N training flows; label: (N,) class numbers.

        Raises:
            InputError: scikit-learn is not installed.
        """
        try:
            from sklearn.ensemble import ExtraTreesClassifier
        except ModuleNotFoundError:
            raise InputError(
                "the tree baseline needs scikit-learn: pip install 'fieldfare-netsec[trees]'"
            ) from None
        self._forest = ExtraTreesClassifier(self.trees, random_state=self.seed)
        self._forest.fit(tree_features(flows), label)
        return self

    def predict(self, flows: FlowBatch) -> np.ndarray:
        """(N, C) probabilities; 0 for classes without training flows."""
        found = np.zeros((len(flows), self.classes))
        if len(flows):
            found[:, self._forest.classes_] = self._forest.predict_proba(tree_features(flows))
        return found

    __call__ = predict
