# SPDX-License-Identifier: Apache-2.0
"""Tables of flows as files, written batch by batch: Parquet, CSV or JSON lines."""

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from fieldfare.common.errors import InputError
from fieldfare.common.files import atomic_path, check_output

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
    ]
)
"""Of `capture.to_table`."""

ROW_GROUP = 65_536


class TableWriter(Protocol):
    """Takes tables of one schema."""

    def write(self, table: pa.Table) -> None:
        """Append rows."""


def check_table(path: Path, options: Mapping[str, Any]) -> None:
    """Refuse a table that cannot be written, before any work is done.

    Args:
        path: a file, or `STANDARD_OUTPUT`.
        options: of the command: overwrite, as_json.

    Raises:
        InputError: no known ending, or what `files.check_output` refuses; JSON for two on stdout.
    """
    if path == STANDARD_OUTPUT:
        if options["as_json"]:
            raise InputError("-o - writes the flows to standard output; leave --json out")
        return
    if path.suffix not in ENDINGS:
        raise InputError(
            f"{path}: name it {', '.join('*' + ending for ending in ENDINGS)}, or - for JSON lines "
            "on standard output"
        )
    check_output(path, overwrite=options["overwrite"])


@contextmanager
def open_table(path: Path, schema: pa.Schema) -> Iterator[TableWriter]:
    """A writer of the format that the name says; the file is there once all went well."""
    if path == STANDARD_OUTPUT:
        yield _Lines(sys.stdout)
        return
    with ExitStack() as stack:
        temporary = stack.enter_context(atomic_path(path))
        if path.suffix == ".parquet":
            writer: Any = stack.enter_context(_Parquet(temporary, schema))
        elif path.suffix == ".csv":
            writer = stack.enter_context(_Csv(pa.csv.CSVWriter(str(temporary), schema)))
        else:
            writer = _Lines(stack.enter_context(temporary.open("w", encoding="utf-8")))
        yield writer


class _Parquet:
    """Collects small batches, so that row groups are large enough to compress and to skip."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._writer = pa.parquet.ParquetWriter(str(path), schema, compression="zstd")
        self._waiting: list[pa.Table] = []
        self._rows = 0

    def __enter__(self) -> "_Parquet":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._flush()
        self._writer.close()

    def write(self, table: pa.Table) -> None:
        self._waiting.append(table)
        # Copied into Arrow's own memory: arrays of NumPy that stay for long would lie between the
        # large ones that a network takes and frees, and the heap would grow around them.
        self._waiting = [pa.concat_tables(self._waiting).combine_chunks()]
        self._rows += len(table)
        if self._rows >= ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(pa.concat_tables(self._waiting), row_group_size=ROW_GROUP)
        self._waiting, self._rows = [], 0


class _Csv:
    def __init__(self, writer: pa.csv.CSVWriter) -> None:
        self._writer = writer

    def __enter__(self) -> "_Csv":
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def write(self, table: pa.Table) -> None:
        self._writer.write_table(table)


class _Lines:
    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, table: pa.Table) -> None:
        for row in table.to_pylist():
            self._file.write(json.dumps(row, allow_nan=False) + "\n")
        self._file.flush()
