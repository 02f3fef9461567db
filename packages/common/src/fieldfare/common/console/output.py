# SPDX-License-Identifier: Apache-2.0
"""What a command says: results on stdout, as text or JSON, all else on stderr."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import click


def say(message: str, *, quiet: bool = False) -> None:
    """Tell the user something on stderr."""
    if not quiet:
        click.echo(raw(message), err=True)


def emit(result: Mapping[str, Any], *, as_json: bool, text: str) -> None:
    """Print a result on stdout: as one JSON object, or as text for people.

    JSON knows no NaN and no infinity: they become null.
    """
    click.echo(json.dumps(_plain(result), allow_nan=False) if as_json else raw(text))


def raw(text: str) -> str | bytes:
    """Text, or its bytes where a file's name in it is no UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="surrogateescape")
    return text


def _plain(value: Any) -> Any:
    """What JSON can hold: NumPy's and torch's values as plain ones, all else as a string."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, str | int | float):
        return value
    return _plain(value.tolist()) if hasattr(value, "tolist") else str(value)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of equal keys as aligned columns; floats with four significant digits."""

    def shown(value: Any) -> str:
        if value is None:
            return "-"
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    if not rows:
        return "(none)"
    columns = list(rows[0])
    cells = [columns, *[[shown(row[column]) for column in columns] for row in rows]]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    )
