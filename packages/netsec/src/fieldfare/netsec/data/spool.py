# SPDX-License-Identifier: Apache-2.0
"""Flows on disk instead of in memory: columns of temporary files, read as if they were arrays.

The files have no name from the first byte on, so nothing is left of them however a run ends.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from ..capture import FirstPackets, FlowBatch
from .flow_rows import COLUMNS, PACKET_COLUMNS, take

PIECE = 8192
"""Flows looked at together, where there are many: some 100 MB. What a network says of a flow may
depend on this number in the seventh digit."""

OF_PACKET = tuple(name for name in PACKET_COLUMNS if name != "flow")


class RowSpool:
    """Rows of some columns, appended to a temporary file.

    Args:
        folder: on the disk that is to hold the file, made or not; None: the system's temporary one.
    """

    def __init__(self, folder: Path | None = None) -> None:
        while folder is not None and not folder.is_dir():
            folder = folder.parent
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # closed by finish
        self._layout: np.dtype | None = None
        self._count = 0

    def append(self, columns: Mapping[str, np.ndarray]) -> None:
        """Add K rows: of each column an array (K, ...), of the same types and widths every time."""
        first = next(iter(columns.values()))
        if self._layout is None:
            self._layout = np.dtype([(n, v.dtype, v.shape[1:]) for n, v in columns.items()])
        rows = np.empty(len(first), self._layout)
        for name, values in columns.items():
            rows[name] = values
        self._file.write(rows.tobytes())
        self._count += len(rows)

    def finish(self) -> dict[str, np.ndarray]:
        """The columns, which lie on disk and cannot be written to; the spool is at its end."""
        if self._layout is None:
            raise ValueError("nothing was appended")
        with self._file as file:
            file.flush()
            if self._count:
                rows = np.memmap(file, self._layout, "r", shape=(self._count,)).view(np.ndarray)
            else:
                rows = np.empty(0, self._layout)
        return {name: rows[name] for name in self._layout.names or ()}


class FlowSpool:
    """Batches of flows, put together on disk as `flow_rows.concatenate` does in memory.

    Args:
        folder: see `RowSpool`.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._flows, self._packets = RowSpool(folder), RowSpool(folder)
        self._of_packet = RowSpool(folder)  # by itself, as it is searched
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, batch: FlowBatch) -> None:
        """Add flows behind those that are there; packets must have been kept at one width."""
        packets = batch.first_packets
        self._flows.append({name: getattr(batch, name) for name in COLUMNS})
        self._packets.append({name: getattr(packets, name) for name in OF_PACKET})
        self._of_packet.append({"flow": packets.flow + self._count})
        self._count += len(batch)

    def finish(self) -> FlowBatch:
        """All flows; raises ValueError where no batch was added."""
        packets = FirstPackets(**self._of_packet.finish(), **self._packets.finish())
        return FlowBatch(**self._flows.finish(), first_packets=packets)


def pieces(flows: FlowBatch, count: int = PIECE) -> Iterator[FlowBatch]:
    """The flows in order, at most `count` at a time; they themselves where they are no more."""
    if len(flows) <= count:
        yield flows
        return
    for first in range(0, len(flows), count):
        yield take(flows, np.arange(first, min(first + count, len(flows))))


def spooled(flows: FlowBatch, rows: np.ndarray, folder: Path | None = None) -> FlowBatch:
    """`flow_rows.take`, on disk."""
    rows = np.flatnonzero(rows) if rows.dtype == bool else rows
    spool = FlowSpool(folder)
    for first in range(0, max(len(rows), 1), PIECE):
        spool.add(take(flows, rows[first : first + PIECE]))
    return spool.finish()


def joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Arrays (K, ...) as one; the only one as it is."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
