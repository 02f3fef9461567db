# SPDX-License-Identifier: Apache-2.0
"""Labelled flows in one plain file, so that captures are read once; written and read in pieces."""

import hashlib
import json
import math
import zipfile
import zlib
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from fieldfare.common.files import atomic_path

from ..capture import FirstPackets, FlowBatch, FlowOptions
from .flow_rows import COLUMNS
from .labels import LabelTable, Matched
from .spool import OF_PACKET, PIECE, RowSpool

_FORMAT = 2
_NUMBERS = ("label", "capture", "split")


class KeptFlows(NamedTuple):
    """What a file holds, see `dataset.LabelledFlows`."""

    flows: FlowBatch
    label: np.ndarray
    capture: np.ndarray
    split: np.ndarray
    classes: tuple[str, ...]
    captures: tuple[str, ...]
    matched: Matched


def digest(labels: LabelTable, options: FlowOptions) -> str:
    """Of labels, captures and what makes a flow; a changed file has another."""
    found = hashlib.sha256(json.dumps([_FORMAT, asdict(options)], sort_keys=True).encode())
    for path in (labels.path, *(labels.folder / capture.file for capture in labels.captures)):
        with path.open("rb") as file:
            found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()[:16]


def save_kept(path: Path, kept: KeptFlows) -> None:
    """Write; the folder is made if missing."""
    flows, packets = kept.flows, kept.flows.first_packets
    arrays = {f"flow.{name}": getattr(flows, name) for name in COLUMNS}
    arrays |= {f"packet.{name}": getattr(packets, name) for name in ("flow", *OF_PACKET)}
    names = {"classes": kept.classes, "captures": kept.captures, "matched": asdict(kept.matched)}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        np.savez_compressed(
            temporary,
            **arrays,
            **{name: getattr(kept, name) for name in _NUMBERS},
            names=np.frombuffer(json.dumps(names).encode(), np.uint8),
        )


def load_kept(path: Path) -> KeptFlows | None:
    """What was kept, on disk beside the file; None where nothing was or it is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = json.loads(_columns(archive, "", ["names"], None)["names"].tobytes())
            columns = _columns(archive, "flow.", COLUMNS, path.parent)
            packets = _columns(archive, "packet.", ["flow"], path.parent)
            packets |= _columns(archive, "packet.", OF_PACKET, path.parent)
            return KeptFlows(
                FlowBatch(**columns, first_packets=FirstPackets(**packets)),
                **{name: np.array(_columns(archive, "", [name], None)[name]) for name in _NUMBERS},
                classes=tuple(names["classes"]),
                captures=tuple(names["captures"]),
                matched=Matched(**names["matched"]),
            )
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error):
        return None


def _columns(
    archive: zipfile.ZipFile, prefix: str, names: Sequence[str], folder: Path | None
) -> dict[str, np.ndarray]:
    """Arrays of one length, put on disk."""
    spool = RowSpool(folder)
    with ExitStack() as stack:
        files = {n: stack.enter_context(archive.open(f"{prefix}{n}.npy")) for n in names}
        layouts = {name: _layout(file) for name, file in files.items()}
        (count,) = {shape[0] for shape, _ in layouts.values()}
        for first in range(0, max(count, 1), PIECE):
            some = min(PIECE, count - first)
            spool.append(
                {n: _read(files[n], (some, *shape[1:]), t) for n, (shape, t) in layouts.items()}
            )
    return spool.finish()


def _layout(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of an array that begins here."""
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("of another version")
    shape, fortran, layout = np.lib.format.read_array_header_1_0(file)
    if fortran:
        raise ValueError("of another order")
    return shape, layout


def _read(file: IO[bytes], shape: tuple[int, ...], layout: np.dtype) -> np.ndarray:
    """The next rows."""
    content = file.read(math.prod(shape) * layout.itemsize)
    return np.frombuffer(content, layout).reshape(shape)
