# SPDX-License-Identifier: Apache-2.0
"""How functions are compiled: on the first call, kept on disk, and not without a word.

A function marked `compiled` is an entry, called from Python; a `part` is built into those.
"""

from typing import Any

import numba
from numba.core import event

from fieldfare.common.compiled import keep, source_stamp

from . import notice

_STAMP = source_stamp(__file__)


def part(function: Any) -> Any:
    """A step of an entry."""
    return numba.njit(error_model="numpy")(function)


def compiled(function: Any) -> Any:
    """An entry; runs without Python's lock."""
    return keep(function, _STAMP, "compiled precoders", error_model="numpy", nogil=True)


class _Told(event.Listener):
    def on_start(self, _: object) -> None:
        notice.compiling()

    def on_end(self, _: object) -> None:
        pass


event.register("numba:compile", _Told())
