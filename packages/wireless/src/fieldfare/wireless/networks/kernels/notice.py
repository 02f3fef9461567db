# SPDX-License-Identifier: Apache-2.0
"""A word on code that is being compiled; here, for it loads nothing."""

from collections.abc import Iterator
from contextlib import contextmanager

from fieldfare.common import console

_LINE = "compiling for this processor, once: half a minute"
_waiting = False


@contextmanager
def told_of_compiling(*, quiet: bool) -> Iterator[None]:
    """Inside, say once if code has to be compiled: nothing else is seen for a while."""
    global _waiting
    before, _waiting = _waiting, not quiet
    try:
        yield
    finally:
        _waiting = before


def compiling() -> None:
    """Called whenever something is compiled."""
    global _waiting
    if _waiting:
        console.say(_LINE)
    _waiting = False
