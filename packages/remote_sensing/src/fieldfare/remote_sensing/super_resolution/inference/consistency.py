# SPDX-License-Identifier: Apache-2.0
"""Results that, reduced again, are the input: radiometry is kept, only detail is added."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from ..data.reduction import REACH, bicubic_weights, gather, reduce_valid, spread

TAPS = 3
"""Neighbours each way that the inverse of the reduction with its transpose looks at."""

ROUNDS = 7
"""Each leaves 1/24 of the error at most, 1/8 at borders and nodata, 1/3 where bounds bind."""

ROUND_CONTEXT = 2 * REACH + TAPS
"""Low-resolution pixels around a sample that its change in one round depends on."""

CONTEXT = ROUNDS * ROUND_CONTEXT

LEAST_FREE = 0.1
"""Least share of a sample's weight that counts as free to move."""

STRIP = 256
"""Low-resolution columns corrected together: intermediate arrays stay small."""

Bounds = tuple[float, float]


@dataclass(frozen=True)
class Rows:
    """Rows on the way to consistency.

    Attributes:
        high: (channels, scale h, scale w) float32.
        free: like high, bool; False where a bound held a sample in the round before.
        low: (channels, h, w) float32, the input in the same unit.
        valid: like low, bool; missing samples bind nothing and stay as they are.
    """

    high: np.ndarray
    free: np.ndarray
    low: np.ndarray
    valid: np.ndarray

    @classmethod
    def fresh(cls, high: np.ndarray, low: np.ndarray, valid: np.ndarray, bounds: Bounds) -> "Rows":
        """Before the first round."""
        held = high.clip(np.float32(bounds[0]), np.float32(bounds[1]))
        return cls(held, np.ones(high.shape, bool), np.where(valid, low, np.float32(0)), valid)

    @property
    def scale(self) -> int:
        """High-resolution lines for each of the input."""
        return int(self.high.shape[-2] // self.low.shape[-2])

    def part(self, rows: slice, columns: slice = slice(None)) -> "Rows":
        """Views of a part, in low-resolution lines."""
        fine = [
            slice(*(None if edge is None else edge * self.scale for edge in (s.start, s.stop)))
            for s in (rows, columns)
        ]
        high, free = (array[:, fine[0], fine[1]] for array in (self.high, self.free))
        return Rows(high, free, self.low[:, rows, columns], self.valid[:, rows, columns])

    def copied(self) -> "Rows":
        """On its own: a view would keep in memory all that it is a part of."""
        return Rows(*(array.copy() for array in vars(self).values()))

    def followed_by(self, below: "Rows") -> "Rows":
        """Both, one above the other."""
        pairs = zip(vars(self).values(), vars(below).values(), strict=True)
        return Rows(*(np.concatenate(pair, axis=1) for pair in pairs))


def project(
    high: np.ndarray, low: np.ndarray, valid: np.ndarray, bounds: Bounds, tolerance: float = 0
) -> np.ndarray:
    """An image near the given whose reduction is the input, by iterated back-projection.

    h <- clip(h + R^T (R R^T)^-1 (l - R h)) with the bicubic reduction R, its inverse cut to a few
    taps; samples that a bound holds do not count in the next round, so that the others make up for
    them. Irani and Peleg 1991 (doi 10.1016/1049-9652(91)90045-L) with the kernel of least change.
    A sample depends on nothing further than `CONTEXT`, and always by the same sums, so that parts
    come out as the whole does.

    Args:
        high, low, valid: of `Rows`.
        bounds: smallest and largest value of the result. An input at one of them is saturated:
            there the reduction may lie beyond it, and is cut as the input was.
        tolerance: errors of the reduction that are left.

    Returns:
        Like high.
    """
    rows = Rows.fresh(high, low, valid, bounds)
    for _ in range(ROUNDS):
        rows = corrected(rows, bounds, tolerance)
    return rows.high


def corrected(rows: Rows, bounds: Bounds, tolerance: float) -> Rows:
    """One round, strip by strip."""
    high, free = np.empty_like(rows.high), np.empty_like(rows.free)
    width = rows.low.shape[-1]
    for left in range(0, width, STRIP):
        right = min(left + STRIP, width)
        first = max(0, left - ROUND_CONTEXT)
        strip = rows.part(slice(None), slice(first, right + ROUND_CONTEXT))
        found = _corrected_strip(strip, bounds, tolerance)
        inside = slice((left - first) * rows.scale, (right - first) * rows.scale)
        into = slice(left * rows.scale, right * rows.scale)
        high[..., into], free[..., into] = (array[..., inside] for array in found)
    return Rows(high, free, rows.low, rows.valid)


def _corrected_strip(rows: Rows, bounds: Bounds, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """New values, and which samples no bound holds."""
    floor, ceiling = (np.float32(bound) for bound in bounds)
    seen = reduce_valid(rows.high, rows.valid, rows.scale).clip(floor, ceiling)
    wrong = rows.low.clip(floor, ceiling) - seen
    wrong[~rows.valid | (np.abs(wrong) <= tolerance)] = 0
    if not wrong.any():
        return rows.high, np.ones_like(rows.free)
    if not rows.free.all():
        moves = gather(rows.free.astype(np.float32), rows.scale, power=2)
        all_move = gather(np.ones_like(rows.high), rows.scale, power=2)
        wrong /= np.maximum(moves / all_move, np.float32(LEAST_FREE))
    inverse = _inverse(rows.scale)
    across = _filtered(_filtered(wrong, inverse).swapaxes(-1, -2), inverse)
    wanted = rows.high + spread(across.swapaxes(-1, -2), rows.scale)
    moved = rows.free & rows.valid.repeat(rows.scale, axis=-2).repeat(rows.scale, axis=-1)
    high = np.where(moved, wanted.clip(floor, ceiling), rows.high)
    return high, (wanted >= floor) & (wanted <= ceiling)


@cache
def _inverse(scale: int) -> tuple[float, ...]:
    """Best short symmetric inverse of R R^T along one axis: its taps from the middle on."""
    weights, _ = bicubic_weights(scale)
    own = np.convolve(weights, weights[::-1])[len(weights) - 1 :: scale]
    angles = np.linspace(0, np.pi, 256)
    response = own[0] + 2 * sum(own[lag] * np.cos(lag * angles) for lag in range(1, 4))
    waves = np.stack([(1 + (k > 0)) * np.cos(k * angles) for k in range(TAPS + 1)], axis=1)
    taps = np.linalg.lstsq(response[:, None] * waves, np.ones_like(angles), rcond=None)[0]
    return tuple(float(tap) for tap in taps)


def _filtered(image: np.ndarray, taps: tuple[float, ...]) -> np.ndarray:
    """Symmetric filter along the rows' axis (-2), 0 beyond the border."""
    result = np.float32(taps[0]) * image
    for away in range(1, min(TAPS, image.shape[-2] - 1) + 1):
        weight = np.float32(taps[away])
        result[..., away:, :] += weight * image[..., :-away, :]
        result[..., :-away, :] += weight * image[..., away:, :]
    return result


class _Round:
    """One round on rows as they come: passes on those whose surroundings are there.

    Args:
        wanted, given: half-open ranges of low-resolution rows to pass on, and that will come.
    """

    def __init__(self, wanted: tuple[int, int], given: tuple[int, int]) -> None:
        (self.next, self.last), self.given = wanted, given
        self.top = given[0]
        self.held: Rows | None = None

    def add(self, rows: Rows, bounds: Bounds, tolerance: float) -> Rows | None:
        """Take the rows that follow; returns those that are ready."""
        held = self.held.followed_by(rows) if self.held else rows
        bottom = self.top + held.low.shape[1]
        ready = bottom if bottom == self.given[1] else bottom - ROUND_CONTEXT
        until = min(self.last, ready)
        if until <= self.next:
            self.held = held
            return None
        wanted = slice(self.next - self.top, until - self.top)
        self.next, before = until, self.top
        self.top = max(self.given[0], until - ROUND_CONTEXT)
        self.held = held.part(slice(self.top - before, None)).copied()
        return corrected(held, bounds, tolerance).part(wanted).copied()


class ProjectedRows:
    """`project` on rows as they come: a chain of rounds, each a few rows behind the one before.

    Args:
        wanted: half-open range of low-resolution rows to pass on.
        given: those that there are; the rows from `first` on are to come.
        bounds, tolerance: of `project`.
        write: receives the first low-resolution row of a block, and the block.
    """

    def __init__(
        self,
        wanted: tuple[int, int],
        given: tuple[int, int],
        bounds: Bounds,
        tolerance: float,
        write: Callable[[int, np.ndarray], None],
    ) -> None:
        self.bounds, self.tolerance, self.write = bounds, tolerance, write
        ranges = [
            (max(given[0], wanted[0] - context), min(given[1], wanted[1] + context))
            for context in range(CONTEXT, -1, -ROUND_CONTEXT)
        ]
        self.first, self.next = ranges[0][0], wanted[0]
        self.rounds = [_Round(*pair) for pair in zip(ranges[1:], ranges[:-1], strict=True)]

    def add(self, high: np.ndarray, low: np.ndarray, valid: np.ndarray) -> None:
        """Take the rows that follow; shapes as in `Rows`."""
        rows = Rows.fresh(high, low, valid, self.bounds)
        for each in self.rounds:
            ready = each.add(rows, self.bounds, self.tolerance)
            if ready is None:
                return
            rows = ready
        self.write(self.next, rows.high)
        self.next += rows.low.shape[1]
