# SPDX-License-Identifier: Apache-2.0
"""Bytes over time by class, in bounded memory and one pass, whatever the span turns out to be."""

import numpy as np

MOST_BINS = 240
WIDTHS = (
    0.001, 0.01, 0.1, 1, 5, 15, 60, 300, 900, 3600, 21600, 86400,
    604800, 6048000, 60480000, 604800000,
)  # fmt: skip
"""Seconds, each a multiple of the one before; the last is wide enough for 64-bit nanoseconds."""


class Timeline:
    """Bytes of each class in bins of equal width.

    Bins begin at multiples of their width since 1970 (UTC). They grow wider when there are too
    many; a flow's bytes are spread evenly from its start to its end.

    Attributes:
        first: number of the first bin: it begins at `first * width` seconds.
        values: (C, B) float64 bytes, with C the classes so far and B at most `MOST_BINS`.
    """

    def __init__(self) -> None:
        self.first = 0
        self.values = np.zeros((0, 0))
        self._level = 0

    @property
    def width(self) -> float:
        """Seconds in a bin."""
        return WIDTHS[self._level]

    def add(
        self, number: np.ndarray, start: np.ndarray, end: np.ndarray, amount: np.ndarray
    ) -> None:
        """Count N flows.

        Args:
            number: (N,) class numbers from 0.
            start, end: (N,) seconds since 1970; an end before its start counts as the start.
            amount: (N,) bytes.
        """
        if not len(number):
            return
        end = np.maximum(start, end)
        while True:
            low, high = (int(np.floor(time / self.width)) for time in (start.min(), end.max()))
            if self.values.size:
                low = min(low, self.first)
                high = max(high, self.first + self.values.shape[1] - 1)
            if high - low < MOST_BINS or self._level == len(WIDTHS) - 1:
                break
            self._widen()
        self._cover(max(int(number.max()) + 1, len(self.values)), low, high)
        begin = np.floor(start / self.width).astype(np.int64) - low
        behind = np.floor(end / self.width).astype(np.int64) - low + 1
        share = amount / (behind - begin)
        step = np.zeros((self.values.shape[0], self.values.shape[1] + 1))
        np.add.at(step, (number, begin), share)
        np.add.at(step, (number, behind), -share)
        self.values += np.cumsum(step, axis=1)[:, :-1]

    def _cover(self, classes: int, low: int, high: int) -> None:
        grown = np.zeros((classes, high - low + 1))
        if self.values.size:
            at = self.first - low
            grown[: len(self.values), at : at + self.values.shape[1]] = self.values
        self.first, self.values = low, grown

    def _widen(self) -> None:
        factor = round(WIDTHS[self._level + 1] / self.width)
        self._level += 1
        if not self.values.size:
            return
        bins = np.arange(self.first, self.first + self.values.shape[1]) // factor
        first = int(bins[0])
        values = np.zeros((len(self.values), int(bins[-1]) - first + 1))
        np.add.at(values.T, bins - first, self.values.T)
        self.first, self.values = first, values
