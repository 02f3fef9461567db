# SPDX-License-Identifier: Apache-2.0
"""How soon a flow can be told: scores and waiting time over the number of packets seen."""

from collections.abc import Sequence

import numpy as np

from ..capture import FlowBatch
from ..data.flow_rows import first_packets_only, packet_number
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
    return [
        {
            "packets": count,
            "macro_f1": (scores := score(label, classify(seen), classes)).macro_f1,
            "accuracy": scores.accuracy,
            **dict(zip(("wait_median", "wait_90"), _waits(seen), strict=True)),
        }
        for count, seen in ((count, first_packets_only(flows, count)) for count in packets)
    ]


def _waits(flows: FlowBatch) -> tuple[float, float]:
    packets = flows.first_packets
    if not len(packets.flow):
        return 0.0, 0.0
    first = np.flatnonzero(packet_number(flows) == 0)
    last = np.append(first[1:], len(packets.flow)) - 1
    waits = np.maximum(packets.time[last] - packets.time[first], 0) / 1e9
    median, long = np.percentile(waits, (50, 90))
    return float(median), float(long)
