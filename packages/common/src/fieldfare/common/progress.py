# SPDX-License-Identifier: Apache-2.0
"""One progress line on stderr, with the time left; on a terminal it is redrawn in place."""

import os
import sys
import time
from types import TracebackType
from typing import TextIO


def format_seconds(seconds: float) -> str:
    """Seconds as people read them: 42 s, 3 min 20 s, 2 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class StatusLine:
    """A line that is redrawn at most five times a second on a terminal.

    Elsewhere it is printed every 30 seconds. The last one is always shown.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._terminal = self._stream.isatty()
        self._shown = time.monotonic()

    def show(self, text: str, *, last: bool = False) -> None:
        """Show a text in place of the one before it, if it is time to."""
        now = time.monotonic()
        if not last and now - self._shown < (0.2 if self._terminal else 30):
            return
        self._shown = now
        if self._terminal:
            shown = text if last else text[: self._width() - 1]  # what wraps cannot be redrawn
            self._stream.write(f"\r\x1b[2K{shown}" + "\n" * last)
        else:
            self._stream.write(f"{text}\n")
        self._stream.flush()

    def _width(self) -> int:
        try:
            return os.get_terminal_size(self._stream.fileno()).columns or 80
        except (OSError, ValueError):
            return 80


class Progress:
    """Counts towards a total and says how long the rest will take, on a `StatusLine`.

    Args:
        label: what is being done.
        total: units of work in all.
        done: units already done when this run began (they do not count for the speed).
        quiet: print nothing.
    """

    def __init__(
        self,
        label: str,
        total: int,
        *,
        unit: str = "tile",
        done: int = 0,
        quiet: bool = False,
        stream: TextIO | None = None,
    ) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.quiet = quiet
        self._status = StatusLine(stream)
        self._first = self._done = done
        self._start = time.monotonic()
        self._notes: dict[str, float] = {}

    def update(self, done: int, **notes: float) -> None:
        """Say how many units are done; notes (name=value) are shown behind them from now on.

        Whole numbers are shown whole, others with four digits.
        """
        self._done = done
        self._notes |= notes
        if not self.quiet:
            self._status.show(self._text())

    def _text(self) -> str:
        speed = (self._done - self._first) / max(time.monotonic() - self._start, 1e-9)
        left = f", {format_seconds((self.total - self._done) / speed)} left" if speed else ""
        notes = "".join(
            f", {name} {value if isinstance(value, int) else format(value, '.4g')}"
            for name, value in self._notes.items()
        )
        percent = 100 * self._done // max(self.total, 1)
        return f"{self.label}: {self._done}/{self.total} {self.unit}s ({percent} %){left}{notes}"

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.quiet:
            return
        took = format_seconds(time.monotonic() - self._start)
        state = "done" if kind is None else "stopped"
        text = f"{self.label}: {state}, {self._done}/{self.total} {self.unit}s in {took}"
        self._status.show(text, last=True)
