# SPDX-License-Identifier: Apache-2.0
"""How functions are compiled: on the first call, kept on disk, and not without a word.

The cache is in NUMBA_CACHE_DIR if that is set, else beside the source, else in the user's cache
folder. A function marked `compiled` is an entry, called from Python; a `part` is built into those.
"""

import contextlib
import hashlib
import warnings
from pathlib import Path
from typing import Any

import numba
from numba.core import event

from . import notice

_NO_CACHE = (
    "compiled precoders cannot be kept on disk, so every run compiles them anew; set "
    "NUMBA_CACHE_DIR to a folder that can be written"
)


def _source_stamp() -> str:
    """Digest of every module here: an entry holds the code of parts in other files."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


_STAMP = _source_stamp()


def part(function: Any) -> Any:
    """A step of an entry."""
    return numba.njit(error_model="numpy")(function)


def compiled(function: Any) -> Any:
    """An entry; runs without Python's lock."""
    kept: Any
    try:
        kept = numba.njit(error_model="numpy", nogil=True, cache=True)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written
        warnings.warn(_NO_CACHE, RuntimeWarning, stacklevel=2)
        return numba.njit(error_model="numpy", nogil=True)(function)
    # numba looks at the file of the entry alone to tell whether the cache is stale.
    with contextlib.suppress(AttributeError):
        kept._cache._cache_file._source_stamp = _STAMP
    return kept


class _Told(event.Listener):
    def on_start(self, _: object) -> None:
        notice.compiling()

    def on_end(self, _: object) -> None:
        pass


event.register("numba:compile", _Told())
