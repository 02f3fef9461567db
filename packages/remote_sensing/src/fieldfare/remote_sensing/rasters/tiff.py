# SPDX-License-Identifier: Apache-2.0
"""Whether a TIFF holds what its header announces: GDAL takes strips that are missing for empty."""

import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
from rasterio.io import DatasetReader

from fieldfare.common.errors import InputError

OFFSETS, COUNTS = (273, 324), (279, 325)
"""Tags that say where strips and tiles lie and how long they are."""

TYPES = {3: "u2", 4: "u4", 13: "u4", 16: "u8", 18: "u8"}
"""Whole numbers, by TIFF's number of the type."""


def check_complete(path: Path, dataset: DatasetReader) -> None:
    """Compare the first image's list of blocks with its size and with the file's.

    A block without place or length is empty, which sparse files are made of.

    Raises:
        InputError: blocks are missing from the list, or lie beyond the end of the file.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        try:
            lists = _block_lists(file, size)
        except (struct.error, ValueError, KeyError):
            return  # of an unusual make; reading will tell
    if lists is None:
        return
    offsets, counts = lists
    height, width = dataset.block_shapes[0]
    blocks = -(-dataset.height // height) * -(-dataset.width // width)
    if dataset.interleaving is not None and dataset.interleaving.name == "band":
        blocks *= dataset.count
    truncated = len(offsets) < blocks or len(counts) < len(offsets)
    if not truncated and len(offsets):
        there = counts[: len(offsets)] > 0
        truncated = bool((offsets[there] >= size).any())
    if truncated:
        raise InputError(
            f"{path}: the file is truncated or damaged; its header announces {dataset.width} x "
            f"{dataset.height} pixels, of which not all are there"
        )


def _block_lists(file: BinaryIO, size: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Offsets and lengths of the blocks of the first image."""
    head = file.read(16)
    order = {b"II": "<", b"MM": ">"}[head[:2]]
    (magic,) = struct.unpack(order + "H", head[2:4])
    big = {42: False, 43: True}[magic]
    start = struct.unpack(order + ("Q" if big else "I"), head[8:16] if big else head[4:8])[0]
    file.seek(start)
    count = struct.unpack(order + ("Q" if big else "H"), _exactly(file, 8 if big else 2))[0]
    length = 20 if big else 12
    entries = _exactly(file, min(count, 4096) * length)
    found: dict[int, np.ndarray] = {}
    for place in range(0, len(entries), length):
        entry = entries[place : place + length]
        tag, kind = struct.unpack(order + "HH", entry[:4])
        if tag in OFFSETS + COUNTS:
            found[tag] = _values(file, order, big, kind, entry, size)
    places = [found[tag] for tag in OFFSETS if tag in found]
    lengths = [found[tag] for tag in COUNTS if tag in found]
    return (places[0], lengths[0]) if places and lengths else None


def _values(
    file: BinaryIO, order: str, big: bool, kind: int, entry: bytes, size: int
) -> np.ndarray:
    (number,) = struct.unpack(order + ("Q" if big else "I"), entry[4 : 12 if big else 8])
    own = entry[12:] if big else entry[8:]
    dtype = np.dtype(order + TYPES[kind])
    if number * dtype.itemsize <= len(own):
        return np.frombuffer(own, dtype, number)
    file.seek(struct.unpack(order + ("Q" if big else "I"), own)[0])
    held = file.read(min(number * dtype.itemsize, size))
    return np.frombuffer(held[: len(held) // dtype.itemsize * dtype.itemsize], dtype)


def _exactly(file: BinaryIO, count: int) -> bytes:
    found = file.read(count)
    if len(found) < count:
        raise ValueError("the directory is cut off")
    return found
