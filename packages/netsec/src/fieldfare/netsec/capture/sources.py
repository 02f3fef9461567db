# SPDX-License-Identifier: Apache-2.0
"""Where a capture's bytes come from: a file, standard input, compressed or growing."""

import io
import os
import select
import stat
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from fieldfare.common.errors import InputError

from .compressed import LONGEST_MAGIC, decompressed

MAX_EXPANDED = 100 << 30
"""Bytes that a compressed capture may expand to, unless the caller says otherwise."""

_PAUSE = 0.2  # seconds between two looks at a file that is followed, or that a pipe is waited for


class ByteSource(Protocol):
    """Bytes in order; `read_into` fills part of a buffer."""

    name: str
    damaged: bool
    endless: bool
    """Whether bytes may come at long intervals, as those of a pipe or of a growing file."""

    def read_into(self, buffer: memoryview) -> int | None:
        """Bytes written to the buffer; 0 at the end, None where none have come for now."""

    def close(self) -> None:
        """Let go of the file."""


class _Rejoined(io.RawIOBase):
    """A stream whose first bytes have been looked at already."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        self._head = head
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        target = memoryview(buffer).cast("B")
        chunk = self._head[: len(target)]
        if chunk:
            self._head = self._head[len(chunk) :]
        else:
            read = getattr(self._rest, "read1", self._rest.read)
            chunk = read(len(target)) or b""
        target[: len(chunk)] = chunk
        return len(chunk)

    readinto1 = readinto


class StreamSource:
    """Bytes of an open stream, decompressed where it is compressed.

    Args:
        stream: binary stream; need not be seekable.
        name: for messages.
        follow: at the end of a file, wait for it to grow; the source then never ends.
        max_expanded: bytes that a compressed stream may expand to.

    Raises:
        InputError: compressed and to be followed, or without the package that expands it.
    """

    def __init__(
        self,
        stream: BinaryIO,
        name: str,
        *,
        follow: bool = False,
        max_expanded: int = MAX_EXPANDED,
    ) -> None:
        self.name = name
        self.damaged = False
        pipe = _is_pipe(stream)
        self.endless = follow or pipe
        self._file = stream
        self._follow = follow
        self._pipe: int | None = None
        self._limit: int | None = None
        self._taken = 0
        head = self._head(stream)
        joined = _Rejoined(head, stream)
        self._errors: tuple[type[Exception], ...] = ()
        opened = decompressed(joined, head, name)
        self._stream: Any = joined
        if opened is not None:
            self._stream, self._errors = opened
            self._limit = max_expanded
        else:
            if pipe and isinstance(stream, io.RawIOBase):  # nothing lies in a buffer
                self._pipe = stream.fileno()
        if follow and self._limit is not None:
            raise InputError(f"{name}: is compressed and cannot be followed; expand it first")

    def _head(self, stream: BinaryIO) -> bytes:
        head = b""
        while len(head) < LONGEST_MAGIC:
            chunk = stream.read(LONGEST_MAGIC - len(head))
            if not chunk:
                if not self._follow:
                    break
                time.sleep(_PAUSE)
                continue
            head += chunk
        return head

    def read_into(self, buffer: memoryview) -> int | None:
        """See `ByteSource`. What is damaged ends the stream and is remembered in `damaged`.

        Raises:
            InputError: a compressed stream expands beyond its limit.
        """
        if self._pipe is not None and not select.select([self._pipe], [], [], _PAUSE)[0]:
            return None
        try:
            taken: int = self._stream.readinto1(buffer)
        except self._errors:
            self.damaged = True
            return 0
        except OSError as error:
            raise InputError(f"{self.name}: {error.strerror or error}; check the file") from None
        self._taken += taken
        if self._limit is not None and self._taken > self._limit:
            raise InputError(
                f"{self.name}: expands to more than {self._limit:,} bytes; expand it yourself if "
                "you trust it"
            )
        if taken == 0 and self._follow:
            time.sleep(_PAUSE)
            return None
        return taken

    def stop(self) -> None:
        """Wait no longer for the file to grow."""
        self._follow = False

    def close(self) -> None:
        """Close the stream; standard input stays open."""
        if self._file is not _standard_input():
            self._file.close()


def _standard_input() -> BinaryIO:
    """Without its buffer, if it has one: nobody can tell whether there is something in that."""
    stream: BinaryIO = getattr(sys.stdin.buffer, "raw", sys.stdin.buffer)
    return stream


def _is_pipe(stream: BinaryIO) -> bool:
    if os.name != "posix":  # elsewhere a pipe cannot tell whether there is something to read
        return False
    try:
        mode = os.fstat(stream.fileno()).st_mode
    except (AttributeError, OSError):  # lies in memory
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def open_source(
    path: str | os.PathLike[str], *, follow: bool = False, max_expanded: int = MAX_EXPANDED
) -> StreamSource:
    """Open a capture for reading.

    Args:
        path: a file, or `-` for standard input.
        follow: wait for a file to grow instead of ending.
        max_expanded: bytes that a compressed capture may expand to.

    Raises:
        InputError: missing, a folder, not readable.
    """
    if os.fspath(path) == "-":
        return StreamSource(_standard_input(), "standard input", max_expanded=max_expanded)
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name the captures in it")
    try:
        stream = open(path, "rb", buffering=0)  # noqa: SIM115 - the source closes it
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the name") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; check that it can be read") from None
    try:
        return StreamSource(stream, str(path), follow=follow, max_expanded=max_expanded)
    except BaseException:
        stream.close()
        raise
