# SPDX-License-Identifier: Apache-2.0
"""Tables of an evaluation as files."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fieldfare.common.files import write_text

Row = Mapping[str, Any]


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
