# SPDX-License-Identifier: Apache-2.0
"""Writing files so that nothing half-written is ever seen under its final name."""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from .errors import InputError


def check_output(path: Path, *, overwrite: bool) -> None:
    """Refuse an output that exists or cannot be written, before any work is done.

    Raises:
        InputError: the file exists and overwrite is False, or its folder is missing or read-only.
    """
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give a file name")
    if path.exists() and not overwrite:
        raise InputError(f"{path}: already exists; choose another name or add --overwrite")
    folder = path.parent
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; create it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"{folder}: not writable; choose another folder")


def temporary_sibling(target: Path) -> Path:
    """Hidden name beside target, unique to this host and process; the suffix is kept."""
    unique = f"{socket.gethostname()}.{os.getpid()}"
    return target.with_name(f".{target.stem}.{unique}.tmp{target.suffix}")


def replace_synced(temporary: Path, target: Path) -> None:
    """Flush a finished file to disk, then rename it onto target (same file system)."""
    with open(temporary, "rb") as written:
        os.fsync(written.fileno())
    os.replace(temporary, target)


@contextlib.contextmanager
def atomic_path(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside target; on success flush it to disk and rename it onto target.

    On any exception (Ctrl-C included) the temporary file is removed and target is untouched.
    """
    target = Path(target)
    temporary = temporary_sibling(target)
    try:
        yield temporary
        replace_synced(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(target: str | os.PathLike[str], text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
