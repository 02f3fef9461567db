# SPDX-License-Identifier: Apache-2.0
"""Tables of flows as files, written batch by batch: Parquet, CSV or JSON lines."""

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol, TextIO

import pyarrow as pa

from fieldfare.common.errors import InputError
from fieldfare.common.files import atomic_path

from ..capture import FlowBatch, to_table
from ..capture.statistics import NAMES

ENDINGS = (".parquet", ".csv", ".jsonl")

STANDARD_OUTPUT = Path("-")
"""As a name of a table: JSON lines on standard output, as flows come."""

FLOW_SCHEMA = pa.schema(
    [
        ("src_ip", pa.string()),
        ("src_port", pa.uint16()),
        ("dst_ip", pa.string()),
        ("dst_port", pa.uint16()),
        ("protocol", pa.uint8()),
        ("start", pa.float64()),
        ("end", pa.float64()),
        ("packets_fwd", pa.int64()),
        ("packets_bwd", pa.int64()),
        ("bytes_fwd", pa.int64()),
        ("bytes_bwd", pa.int64()),
        ("duration", pa.float64()),
        ("start_ns", pa.int64()),
        ("end_ns", pa.int64()),
        ("tcp_flags_fwd", pa.uint8()),
        ("tcp_flags_bwd", pa.uint8()),
        ("vlan", pa.uint16()),
        ("vlan_inner", pa.uint16()),
        ("end_reason", pa.string()),
        ("flow_id", pa.int64()),
        ("community_id", pa.string()),
    ]
)
"""Of `capture.to_table`."""


def flow_schema(*, statistics: bool = False, sizes: int = 0) -> pa.Schema:
    """`FLOW_SCHEMA`, with statistics of packets or the sizes of so many first ones behind it."""
    more = [pa.field(name, pa.float64()) for name in NAMES] if statistics else []
    if sizes:
        more.append(pa.field("sizes", pa.list_(pa.int32())))
    return pa.schema([*FLOW_SCHEMA, *more])


LABEL_SCHEMA = pa.schema(
    [
        ("label", pa.string()),
        ("probability", pa.float64()),
        ("confidence", pa.float64()),
        ("port_share", pa.float64()),
        ("familiarity", pa.float64()),
        ("model", pa.string()),
    ]
)
"""Of what a classifier adds."""

UNKNOWN = "unknown"
"""The label of a flow that no class fits."""

ROW_GROUP = 65_536

_AT_A_TIME = 8


class TableWriter(Protocol):
    """Takes tables of one schema."""

    def write(self, table: pa.Table) -> None:
        """Append rows."""


def check_table(path: Path) -> None:
    """Refuse the name of a table that cannot be written, before any work is done.

    Args:
        path: a file, or `STANDARD_OUTPUT`.

    Raises:
        InputError: no known ending.
    """
    if path != STANDARD_OUTPUT and path.suffix not in ENDINGS:
        raise InputError(
            f"{path}: name it {', '.join('*' + ending for ending in ENDINGS)}, or - for JSON lines "
            "on standard output, or a folder that exists"
        )


@contextmanager
def open_table(path: Path, schema: pa.Schema) -> Iterator[TableWriter]:
    """A writer of the format that the name says; the file is there once all went well."""
    if path == STANDARD_OUTPUT:
        yield _Lines(sys.stdout)
        return
    with ExitStack() as stack:
        temporary = stack.enter_context(atomic_path(path))
        writer: TableWriter
        if path.suffix == ".parquet":
            writer = stack.enter_context(_Parquet(temporary, schema))
        elif path.suffix == ".csv":
            writer = stack.enter_context(_Csv(temporary, schema))
        else:
            writer = _Lines(stack.enter_context(temporary.open("w", encoding="utf-8")))
        yield writer


def write_flows(
    flows: Iterable[FlowBatch], path: Path, *, statistics: bool = False, sizes: int = 0
) -> int:
    """Write flows without labels as a table, as they end; how many there are.

    Args:
        statistics, sizes: see `flow_schema`; must have been gathered and kept.
    """
    count = 0
    with open_table(path, flow_schema(statistics=statistics, sizes=sizes)) as table:
        for batch in flows:
            table.write(to_table(batch, sizes))
            count += len(batch)
    return count


class _Parquet:
    """Collects small batches, so that row groups are large enough to compress and to skip."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        from pyarrow import parquet

        self._writer = parquet.ParquetWriter(str(path), schema, compression="zstd")
        self._waiting: list[list[pa.Table]] = []
        self._rows = 0

    def __enter__(self) -> "_Parquet":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._flush()
        self._writer.close()

    def write(self, table: pa.Table) -> None:
        self._rows += len(table)
        # Copied into Arrow's own memory: arrays of NumPy that stay for long would lie between the
        # large ones that a network takes and frees, and the heap would grow around them. Some at a
        # time, and these in their turn, so that no row is copied often.
        for level in range(len(self._waiting) + 1):
            if level == len(self._waiting):
                self._waiting.append([])
            self._waiting[level].append(table)
            if len(self._waiting[level]) < _AT_A_TIME:
                break
            table = pa.concat_tables(self._waiting[level]).combine_chunks()
            self._waiting[level] = []
        if self._rows >= ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        tables = [table for level in reversed(self._waiting) for table in level]
        if tables:
            self._writer.write_table(pa.concat_tables(tables), row_group_size=ROW_GROUP)
        self._waiting, self._rows = [], 0


class _Csv:
    def __init__(self, path: Path, schema: pa.Schema) -> None:
        from pyarrow import csv

        self._writer = csv.CSVWriter(str(path), schema)

    def __enter__(self) -> "_Csv":
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def write(self, table: pa.Table) -> None:
        self._writer.write_table(table)


class _Lines:
    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, table: pa.Table) -> None:
        for row in table.to_pylist():
            self._file.write(json.dumps(row, allow_nan=False) + "\n")
        self._file.flush()
