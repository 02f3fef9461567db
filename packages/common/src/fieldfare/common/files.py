# SPDX-License-Identifier: Apache-2.0
"""Writing files so that nothing half-written is ever seen under its final name."""

import contextlib
import itertools
import os
import re
import shutil
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from .errors import InputError

_COUNT = itertools.count()
_TEMPORARY = re.compile(r"\.fieldfare\.(?P<host>.+)\.(?P<pid>\d+)\.\d+(\.\w+)*", re.ASCII)


def check_output(path: Path, *, overwrite: bool) -> None:
    """Refuse an output that exists or cannot be written, before any work is done.

    What killed runs have left in its folder is removed.

    Raises:
        InputError: the file exists and overwrite is False; it is no plain file; its name is one
            that the file system cannot hold; its folder is missing or read-only.
    """
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        found = None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be written ({reason}); choose another name") from None
    if found is not None and stat.S_ISDIR(found.st_mode):
        raise InputError(f"{path}: is a folder; give a file name")
    if found is not None and not stat.S_ISREG(found.st_mode):
        raise InputError(f"{path}: is no plain file; give a file name")
    if found is not None and not overwrite:
        raise InputError(f"{path}: already exists; choose another name or add --overwrite")
    folder = Path(os.path.realpath(path)).parent
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; create it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"{folder}: not writable; choose another folder")
    remove_stale(folder)


def temporary_name() -> str:
    """A hidden name, unique to this host, process and call, that `remove_stale` knows."""
    return f".fieldfare.{socket.gethostname()}.{os.getpid()}.{next(_COUNT)}"


def temporary_sibling(target: Path) -> Path:
    """A hidden name beside target; the suffix is kept, for writers choose the format by it.

    The rest of target's name is not: some writers stumble over signs that a name may hold.
    """
    suffix = target.suffix if re.fullmatch(r"\.\w{1,16}", target.suffix, re.ASCII) else ""
    return target.with_name(temporary_name() + suffix)


def remove_stale(folder: Path, *, locked: bool = False) -> None:
    """Remove the temporary files and folders that processes left which are no longer alive.

    Args:
        locked: no other process on any host writes here, as far as it is alive on this one: also
            remove what this process left, and those of other hosts, of which nothing is known.
    """
    try:
        entries = list(os.scandir(folder))
    except OSError:  # not there, or not ours to read
        return
    for entry in entries:
        match = _TEMPORARY.fullmatch(entry.name)
        if match is None or _in_use(match["host"], int(match["pid"]), locked):
            continue
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                os.unlink(entry.path)


def _in_use(host: str, pid: int, locked: bool) -> bool:
    if host != socket.gethostname():
        return not locked
    return not locked if pid == os.getpid() else _alive(pid)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # alive, someone else's
        return True
    return True


def replace_synced(temporary: Path, target: Path) -> None:
    """Flush a finished file to disk, then rename it onto target (same file system).

    A file that is replaced keeps its mode: what only its owner may read stays so.
    """
    with contextlib.suppress(FileNotFoundError):
        os.chmod(temporary, stat.S_IMODE(target.stat().st_mode))
    with open(temporary, "rb") as written:
        os.fsync(written.fileno())
    os.replace(temporary, target)


@contextlib.contextmanager
def atomic_path(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside target; on success flush it to disk and rename it onto target.

    A symbolic link stays one: the file it leads to is replaced. On any exception (Ctrl-C included)
    the temporary file is removed and target is untouched.
    """
    target = Path(os.path.realpath(target))
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
