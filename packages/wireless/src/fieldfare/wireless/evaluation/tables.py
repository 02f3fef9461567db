# SPDX-License-Identifier: Apache-2.0
"""Tables of an evaluation: printed, and as files beside its pictures."""

import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fieldfare.common import console
from fieldfare.common.console.shared import ReportOptions
from fieldfare.common.errors import InputError
from fieldfare.common.files import write_text

Row = Mapping[str, Any]


def check_folder(folder: Path | None) -> None:
    """Raise InputError where reports cannot be put."""
    if folder is not None and folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; name a folder for the reports")


def publish(
    rows: Sequence[Row],
    details: Mapping[str, Sequence[Row]],
    options: ReportOptions,
    *,
    definitions: Mapping[str, str],
    draw: Callable[[Path], Mapping[str, Path]],
) -> None:
    """Print the table; where a folder is asked for, write all into it.

    Args:
        rows: a row for each method and setting.
        details: further tables, for files alone.
        definitions: of the rows' columns.
        draw: writes pictures into a folder; name to path of each.
    """
    made: dict[str, Path] = {}
    if options.output is not None:
        made = write_reports(options.output, rows, details, definitions=definitions)
        made |= draw(options.output)
    lines = [console.table(rows), ""]
    lines += [f"{name}: {text}" for name, text in definitions.items()]
    lines += [str(path) for path in made.values()]
    result = {"rows": rows, "definitions": definitions, "written": made}
    console.emit(result, as_json=options.as_json, text="\n".join(lines))


def write_reports(
    folder: Path,
    rows: Sequence[Row],
    details: Mapping[str, Sequence[Row]],
    *,
    definitions: Mapping[str, str],
) -> dict[str, Path]:
    """evaluation.csv and .json of the rows, and a CSV for each table of details.

    Returns:
        Name to path of each file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = {"csv": folder / "evaluation.csv", "json": folder / "evaluation.json"}
    write_text(made["csv"], table(rows))
    plain = [{key: _finite(value) for key, value in row.items()} for row in rows]
    content = {"rows": plain, "definitions": dict(definitions)}
    write_text(made["json"], json.dumps(content, indent=1, allow_nan=False) + "\n")
    for name, lines in details.items():
        made[name] = folder / f"{name}.csv"
        write_text(made[name], table(lines))
    return made


def table(rows: Sequence[Row]) -> str:
    """Rows as CSV under the names of all their columns."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
