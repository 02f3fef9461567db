# SPDX-License-Identifier: Apache-2.0
"""How far a batch run is, as one line on stderr."""

import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TextIO

from fieldfare.common.progress import StatusLine, format_seconds

from .items import Item


@dataclass(frozen=True, slots=True)
class Progress:
    """Counts of a run so far.

    Args:
        done, failed, skipped: items so far.
        total: all items, or None where `items` has no length.
        seconds: since the run began.
        seconds_left: estimate, or None while there is nothing to estimate from.
        finished: whether this is the last report of the run.
        waiting_for: what must happen before the first item can begin, for instance `Ray to start`.
    """

    done: int
    failed: int
    skipped: int
    total: int | None
    seconds: float
    seconds_left: float | None
    finished: bool = False
    waiting_for: str = ""


class Tally:
    """Counts items as they end and estimates the time left."""

    def __init__(self, items: Iterable[Item]) -> None:
        self.done = self.failed = self.skipped = 0
        self.errors: dict[str, str] = {}
        self._begun = time.monotonic()
        self._total = len(items) if isinstance(items, Collection) else None
        costs = [item.cost for item in items] if isinstance(items, Sequence) else []
        self._by_cost = bool(costs) and min(costs) > 0
        self._work = sum(costs) if self._by_cost else float(self._total or 0)
        self._worked = 0.0

    def add_done(self, item: Item) -> None:
        self.done += 1
        self._worked += self._size(item)

    def add_failed(self, item: Item, error: str) -> None:
        self.failed += 1
        self.errors[item.key] = error
        self._worked += self._size(item)

    def add_skipped(self, item: Item) -> None:
        self.skipped += 1
        self._work -= self._size(item)

    def _size(self, item: Item) -> float:
        return item.cost if self._by_cost else 1.0

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._begun

    def progress(self, *, finished: bool = False, waiting_for: str = "") -> Progress:
        """The counts as they are now."""
        seconds, left = self.seconds, None
        if self._total is not None and self._worked:
            left = seconds * max(self._work - self._worked, 0) / self._worked
        return Progress(
            self.done,
            self.failed,
            self.skipped,
            self._total,
            seconds,
            left,
            finished=finished,
            waiting_for=waiting_for,
        )


def describe(progress: Progress) -> str:
    """One line: done and failed of all, items per second, time left; or what it waits for."""
    parts = [f"{progress.done} done", f"{progress.failed} failed"]
    if progress.skipped:
        parts.append(f"{progress.skipped} done before")
    line = ", ".join(parts)
    if progress.total is not None:
        line += f" of {progress.total}"
    if progress.waiting_for:
        return f"{line} | waiting for {progress.waiting_for}"
    line += f" | {(progress.done + progress.failed) / max(progress.seconds, 1e-9):.3g} items/s"
    if progress.finished:
        return f"{line} | took {format_seconds(progress.seconds)}"
    if progress.seconds_left is None:
        return line
    return f"{line} | {format_seconds(progress.seconds_left)} left"


class ProgressLine:
    """Shows the progress on a `StatusLine`."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._status = StatusLine(stream)

    def __call__(self, progress: Progress) -> None:
        self._status.show(describe(progress), last=progress.finished)
