# SPDX-License-Identifier: Apache-2.0
"""What protocol and lower port say of a flow's class, apart from its bytes."""

from dataclasses import dataclass

import numpy as np

from ..capture import FlowBatch

ESCAPE = 0.05
"""Share of a port's flows that may be of any class: bounds what a port can say against one."""

MOST_OF_A_CAPTURE = 5
"""Flows of one class and port that count of a capture, so that no capture decides alone."""

CERTAIN = 20.0
"""Nats for and against where the protocol alone decides."""

_PSEUDO = 0.5
_LEAST = 5
_ICMP, _ICMPV6 = 1, 58


@dataclass(frozen=True)
class PortTable:
    """Log P(class | protocol, lower port) - log P(class), in nats.

    Attributes:
        keys: (K,) int64, protocol * 65536 + lower port, ascending; ICMPv6 counts as ICMP.
        log_odds: (K, C) float32.
        icmp: number of the class that ICMP alone decides; -1: none.
    """

    keys: np.ndarray
    log_odds: np.ndarray
    icmp: int

    def __call__(self, flows: FlowBatch) -> np.ndarray:
        """(N, C) float64; 0 where the port is not in the table."""
        keys = port_keys(flows)
        found = np.zeros((len(flows), self.log_odds.shape[1]))
        if len(self.keys):
            place = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
            known = self.keys[place] == keys
            found[known] = self.log_odds[place[known]]
        return found

    def rule(self, flows: FlowBatch) -> np.ndarray:
        """(N, C) nats for and against classes that the protocol alone decides; else 0."""
        found = np.zeros((len(flows), self.log_odds.shape[1]))
        if self.icmp >= 0:
            icmp = is_icmp(flows)
            found[icmp] = -CERTAIN
            found[icmp, self.icmp] = CERTAIN
            found[~icmp, self.icmp] = -CERTAIN
        return found

    def decides(self, flows: FlowBatch) -> np.ndarray:
        """(N,) bool, flows whose protocol alone tells their class."""
        return is_icmp(flows) if self.icmp >= 0 else np.zeros(len(flows), bool)


def is_icmp(flows: FlowBatch) -> np.ndarray:
    """(N,) bool, ICMP and ICMPv6."""
    found: np.ndarray = np.isin(flows.protocol, (_ICMP, _ICMPV6))
    return found


def port_keys(flows: FlowBatch) -> np.ndarray:
    """(N,) int64, see `PortTable.keys`."""
    protocol = np.where(flows.protocol == _ICMPV6, _ICMP, flows.protocol).astype(np.int64)
    lower = np.minimum(flows.src_port, flows.dst_port).astype(np.int64)
    keys: np.ndarray = protocol << 16 | lower
    return keys


def count_ports(
    flows: FlowBatch, label: np.ndarray, capture: np.ndarray, classes: int
) -> PortTable:
    """Learn a table from flows of known class.

    Args:
        label, capture: (N,) numbers of class and capture; N at least 1.
        classes: C.
    """
    of_flow = port_keys(flows)
    keys, row = np.unique(of_flow, return_inverse=True)
    triples, count = np.unique(np.stack([row, label, capture]), axis=1, return_counts=True)
    counts = np.zeros((len(keys), classes))
    np.add.at(counts, (triples[0], triples[1]), np.minimum(count, MOST_OF_A_CAPTURE))
    prior = np.bincount(label, minlength=classes) + 1.0
    prior /= prior.sum()
    share = (counts + _PSEUDO * prior) / (counts.sum(axis=1, keepdims=True) + _PSEUDO)
    share = (1 - ESCAPE) * share + ESCAPE * prior
    return PortTable(keys, np.log(share / prior).astype(np.float32), _icmp_class(flows, label))


def _icmp_class(flows: FlowBatch, label: np.ndarray) -> int:
    """The one class that ICMP has and nothing else; -1 where there is no such."""
    icmp = is_icmp(flows)
    names = np.unique(label[icmp])
    if icmp.sum() < _LEAST or len(names) != 1 or (label[~icmp] == names[0]).any():
        return -1
    return int(names[0])
