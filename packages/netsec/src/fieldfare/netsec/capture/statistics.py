# SPDX-License-Identifier: Apache-2.0
"""Sizes of packets and gaps between them, gathered for each direction of a flow; compiled.

Sizes are lengths of IP packets in bytes, gaps are between packets of one direction in seconds, to
the microsecond.
"""

from typing import Any

import numpy as np

from .compiled import compiled

(SIZE_MIN, SIZE_MAX, SIZE_SUM, SIZE_SQUARES, COUNT, LATEST, GAP_MIN, GAP_MAX, GAP_SUM,
 GAP_SQUARES, GAPS) = range(11)  # fmt: skip
HALF = 11
FIELDS = 2 * HALF
"""Columns, float64: these of the forward direction, then of the backward one. LATEST is the time of
the latest packet in microseconds, GAP_* are in microseconds too."""

NAMES = tuple(
    f"{what}_{of}_{side}"
    for side in ("fwd", "bwd")
    for what in ("size", "gap")
    for of in ("min", "mean", "max", "std")
)
"""Columns that `summarise` gives."""


@compiled
def note_packet(table: Any, slot: int, backward: int, size: int, time: int, odd: bool) -> None:
    """Add a packet to a flow's statistics; an odd time makes no gap.

    Args:
        table: (S, FIELDS) float64.
        slot: row of the flow.
        backward: 0 or 1.
        size: bytes.
        time: nanoseconds.
        odd: the time says nothing.
    """
    at = backward * HALF
    first = table[slot, at + COUNT] == 0
    table[slot, at + SIZE_MIN] = size if first else min(table[slot, at + SIZE_MIN], size)
    table[slot, at + SIZE_MAX] = max(table[slot, at + SIZE_MAX], size)
    table[slot, at + SIZE_SUM] += size
    table[slot, at + SIZE_SQUARES] += float(size) * size
    table[slot, at + COUNT] += 1
    if odd:
        return
    now = float(time // 1000)
    if table[slot, at + LATEST] > 0:
        gap = max(now - table[slot, at + LATEST], 0.0)
        none = table[slot, at + GAPS] == 0
        table[slot, at + GAP_MIN] = gap if none else min(table[slot, at + GAP_MIN], gap)
        table[slot, at + GAP_MAX] = max(table[slot, at + GAP_MAX], gap)
        table[slot, at + GAP_SUM] += gap
        table[slot, at + GAP_SQUARES] += gap * gap
        table[slot, at + GAPS] += 1
    table[slot, at + LATEST] = now


@compiled
def turn_statistics(table: Any, slot: int) -> None:
    """Exchange forward and backward."""
    for column in range(HALF):
        forward = table[slot, column]
        table[slot, column] = table[slot, HALF + column]
        table[slot, HALF + column] = forward


def summarise(table: np.ndarray) -> dict[str, np.ndarray]:
    """(N, FIELDS) as columns by `NAMES`, (N,) float64 each; 0 where there was nothing."""
    found: dict[str, np.ndarray] = {}
    for side, begin in (("fwd", 0), ("bwd", HALF)):
        part = table[:, begin : begin + HALF]
        for what, low, high, total, squares, count, unit in (
            ("size", SIZE_MIN, SIZE_MAX, SIZE_SUM, SIZE_SQUARES, COUNT, 1.0),
            ("gap", GAP_MIN, GAP_MAX, GAP_SUM, GAP_SQUARES, GAPS, 1e-6),
        ):
            number = np.maximum(part[:, count], 1)
            mean = part[:, total] / number
            spread = np.sqrt(np.maximum(part[:, squares] / number - mean**2, 0))
            values = {"min": part[:, low], "mean": mean, "max": part[:, high], "std": spread}
            found |= {f"{what}_{of}_{side}": value * unit for of, value in values.items()}
    return {name: found[name] for name in NAMES}
