# SPDX-License-Identifier: Apache-2.0
"""How soon a flow can be told: scores and waiting time over the number of packets seen."""

from collections.abc import Sequence

import numpy as np

from ..capture import FlowBatch
from ..data.flow_rows import first_packets_only, packet_number
from ..data.spool import joined, pieces
from .audit import Classifier
from .scores import score


def first_packets_curve(
    classify: Classifier,
    flows: FlowBatch,
    label: np.ndarray,
    classes: Sequence[str],
    packets: Sequence[int] = (1, 2, 3, 4, 5),
) -> list[dict[str, float]]:
    """Scores after the first k packets.

    Args:
        classify: sees at most k packets of each flow, totals of the flow unchanged.
        flows: N, at least 1.
        label: (N,) class numbers.
        packets: each k.

    Returns:
        For each k: `packets`, `macro_f1`, `accuracy`, and `wait_median` and `wait_90`, seconds from
        a flow's first packet to its k-th (or its last kept, if it has fewer), as percentiles over
        flows.
    """
    rows = []
    for count in packets:
        found, waits = [], []
        for part in pieces(flows):
            seen = first_packets_only(part, count)
            found.append(classify(seen))
            waits.append(_waits(seen))
        scores, waited = score(label, joined(found), classes), joined(waits)
        median, long = np.percentile(waited, (50, 90)) if len(waited) else (0.0, 0.0)
        rows.append(
            {
                "packets": count,
                "macro_f1": scores.macro_f1,
                "accuracy": scores.accuracy,
                "wait_median": float(median),
                "wait_90": float(long),
            }
        )
    return rows


def _waits(flows: FlowBatch) -> np.ndarray:
    """Seconds from the first to the last kept packet of each flow that has any."""
    packets = flows.first_packets
    if not len(packets.flow):
        return np.empty(0)
    first = np.flatnonzero(packet_number(flows) == 0)
    last = np.append(first[1:], len(packets.flow)) - 1
    waits: np.ndarray = np.maximum(packets.time[last] - packets.time[first], 0) / 1e9
    return waits
