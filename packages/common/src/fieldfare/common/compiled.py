# SPDX-License-Identifier: Apache-2.0
"""Functions that numba compiles on their first call and keeps on disk.

The cache is in NUMBA_CACHE_DIR if that is set, else beside the source, else in the user's cache
folder. numba is loaded by `keep` alone; packages that compile depend on it, common does not.
"""

import contextlib
import hashlib
import warnings
from pathlib import Path
from typing import Any


def source_stamp(file: str) -> str:
    """Digest of every module beside a file: a compiled function holds the code of others."""
    digest = hashlib.sha256()
    for path in sorted(Path(file).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def keep(function: Any, stamp: str, what: str, **options: Any) -> Any:
    """A function that is compiled when it is called, and then from the cache.

    Args:
        function: in the part of Python that numba compiles.
        stamp: of all its code, see `source_stamp`; another stamp compiles anew. numba itself takes
            a cached function as fresh while its own file is unchanged, even where a function that
            it calls has changed in another file.
        what: is compiled, for the warning where nothing can be kept.
        options: of `numba.njit`.
    """
    import numba

    try:
        kept: Any = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written
        message = (
            f"{what} cannot be kept on disk, so every run compiles it anew; set NUMBA_CACHE_DIR to"
            " a folder that can be written"
        )
        warnings.warn(message, RuntimeWarning, stacklevel=3)
        return numba.njit(**options)(function)
    with contextlib.suppress(AttributeError):
        kept._cache._cache_file._source_stamp = stamp
    return kept
