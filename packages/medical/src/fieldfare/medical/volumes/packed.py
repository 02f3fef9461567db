# SPDX-License-Identifier: Apache-2.0
"""Unpacking as far as a header announces: a small file may hold gigabytes that nobody asked for."""

import bz2
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from fieldfare.common.errors import InputError

MOST_VOXELS = 2**29
"""More than any scan of a head has: 800 along each axis."""

CHUNK = 2**20
SLACK = 2**16
"""Bytes read beyond what is wanted: in most files the end, with its checksum, lies there."""


def check_claim(path: Path, shape: Sequence[int]) -> None:
    """Refuse a size that no image of a head has, before memory is asked for.

    Raises:
        InputError: more than MOST_VOXELS, or an axis without voxels.
    """
    voxels = 1
    for length in shape:
        voxels *= int(length)
    if min(shape, default=0) < 1 or voxels > MOST_VOXELS:
        size = "x".join(str(int(length)) for length in shape)
        raise InputError(
            f"{path}: its header claims {size} voxels, which no image of a head has; it is damaged "
            "or not meant for this"
        )


def read_start(path: Path, length: int) -> bytes:
    """The first bytes of a file, unpacked where it is gzip; fewer where it ends before."""
    with open(path, "rb") as file:
        raw = file.read(length)
        if raw[:2] != b"\x1f\x8b":
            return raw
        file.seek(0)
        return zlib.decompressobj(31).decompress(file.read(CHUNK), length)


def read_up_to(path: Path, length: int) -> bytes:
    """As `read_start` for all that is wanted; where gzip ends there, its checksum holds.

    Raises:
        EOFError, zlib.error: the packed data are cut short or damaged.
    """
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        return gunzip(file, length) if packed else file.read(length)


def gunzip(file: BinaryIO, length: int) -> bytes:
    """Unpack gzip, of one or several members, from where a file stands, up to a length.

    Raises:
        EOFError, zlib.error: cut short or damaged.
    """
    parts: list[bytes] = []
    room = length + SLACK
    data = file.read(CHUNK)
    while data and room > 0:
        member = zlib.decompressobj(31)
        while room > 0 and not member.eof:
            part = member.decompress(data, room)
            parts.append(part)
            room -= len(part)
            data = member.unconsumed_tail or file.read(CHUNK)
            if not data and not part and not member.eof:
                raise EOFError("the packed data end too early")
        if member.eof:
            data = (member.unused_data + data).lstrip(b"\0")
    return b"".join(parts)[:length]


def bunzip(file: BinaryIO, length: int) -> bytes:
    """As `gunzip`, of bzip2."""
    parts: list[bytes] = []
    room, unpack = length, bz2.BZ2Decompressor()
    while room > 0 and not unpack.eof:
        data = file.read(CHUNK) if unpack.needs_input else b""
        if unpack.needs_input and not data:
            raise EOFError("the packed data end too early")
        part = unpack.decompress(data, room)
        parts.append(part)
        room -= len(part)
    return b"".join(parts)
