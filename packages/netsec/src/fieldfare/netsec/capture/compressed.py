# SPDX-License-Identifier: Apache-2.0
"""Compressed captures as streams: gzip, zstd, lz4, xz and bzip2."""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

from fieldfare.common.errors import InputError

LONGEST_MAGIC = 6
_GZIP, _ZSTD, _LZ4, _XZ, _BZIP2 = (
    b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18", b"\xfd7zXZ\x00", b"BZh",
)  # fmt: skip
_WINDOW = 128 << 20
"""What a stream may make its decoder hold; zstd's own limit without --long."""
_BUFFER = 1 << 16

Errors = tuple[type[Exception], ...]


class Opened(NamedTuple):
    """A decompressed stream, and what it raises where it is damaged or cut short."""

    stream: Any
    errors: Errors


def decompressed(stream: io.RawIOBase, head: bytes, name: str) -> Opened | None:
    """The bytes of a compressed stream, or None where it is not compressed.

    Args:
        stream: from its first byte on.
        head: its first bytes, LONGEST_MAGIC of them if there are.
        name: for messages.

    Raises:
        InputError: the package that reads this compression is not installed.
    """
    rest = io.BufferedReader(stream, _BUFFER)
    if head.startswith(_GZIP):
        return Opened(gzip.GzipFile(fileobj=rest), (EOFError, gzip.BadGzipFile, zlib.error))
    if head.startswith(_ZSTD):
        zstandard = _imported("zstandard", "zstd", "unzstd", name)
        decoder = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
        return Opened(decoder.stream_reader(rest, read_across_frames=True), (zstandard.ZstdError,))
    if head.startswith(_LZ4):
        frame = _imported("lz4.frame", "lz4", "unlz4", name)
        return Opened(_Parts(rest, frame.LZ4FrameDecompressor), (EOFError, RuntimeError))
    if head.startswith(_XZ):
        return Opened(
            _Parts(rest, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_WINDOW)),
            (EOFError, lzma.LZMAError),
        )
    if head.startswith(_BZIP2):
        return Opened(_Parts(rest, bz2.BZ2Decompressor), (EOFError, OSError, ValueError))
    return None


def _imported(module: str, kind: str, tool: str, name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        raise InputError(
            f"{name}: is {kind}; pip install {package}, or expand it with {tool} first"
        ) from None


class _Parts:
    """Reads one or several compressed streams behind one another, in bounded memory."""

    def __init__(self, stream: "io.BufferedReader[io.RawIOBase]", make: Callable[[], Any]) -> None:
        self._stream = stream
        self._make = make
        self._decoder = make()
        self._unused = b""

    def readinto1(self, buffer: memoryview) -> int:
        """Bytes written to the buffer, 0 at the end; raises EOFError where a stream is cut."""
        while True:
            if self._decoder.eof:
                self._unused = self._decoder.unused_data or b""
                self._unused = (self._unused or self._stream.read1(_BUFFER)).lstrip(b"\0")
                if not self._unused:
                    return 0
                self._decoder = self._make()
            chunk, self._unused = self._unused, b""
            if not chunk and self._decoder.needs_input:
                chunk = self._stream.read1(_BUFFER)
                if not chunk:
                    raise EOFError("ends within a compressed stream")
            found: bytes = self._decoder.decompress(chunk, len(buffer))
            if found:
                buffer[: len(found)] = found
                return len(found)
