# SPDX-License-Identifier: Apache-2.0
"""Break off what runs too long, from within this process."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class OutOfTime(BaseException):
    """The time is over; no error that what runs could take for its own."""


@contextmanager
def deadline(seconds: float | None) -> Iterator[None]:
    """Raise `OutOfTime` where the block still runs after so many seconds; None is never.

    It is raised between two operations, as Ctrl-C is: a call into a library ends first. Where the
    system has no alarms, or in another thread than the main one, only time that is over before the
    block begins counts.
    """
    if seconds is None:
        yield
        return
    if seconds <= 0:
        raise OutOfTime
    if not hasattr(signal, "setitimer") or threading.current_thread() is not (
        threading.main_thread()
    ):
        yield
        return

    def ring(*_: object) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
