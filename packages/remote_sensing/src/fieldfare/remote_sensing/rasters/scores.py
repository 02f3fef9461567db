# SPDX-License-Identifier: Apache-2.0
"""Tables of what was measured: rows of image, model and columns of numbers."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fieldfare.common.files import atomic_path, write_text


def summarise(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> list[dict[str, Any]]:
    """Mean of each column for each model, in the order of the rows; None where nothing counts."""
    names = dict.fromkeys(row["model"] for row in rows)
    means = []
    for name in names:
        mine = [row for row in rows if row["model"] == name]
        measured = {c: [row[c] for row in mine if row[c] is not None] for c in columns}
        means.append(
            {"model": name}
            | {c: float(np.mean(values)) if values else None for c, values in measured.items()}
        )
    return means


def write_tables(
    folder: Path,
    rows: Sequence[dict[str, Any]],
    columns: Sequence[str],
    definitions: Mapping[str, str],
) -> list[Path]:
    """Write `evaluation.csv` (each image) and `evaluation.json` (means, with the definitions)."""
    folder.mkdir(parents=True, exist_ok=True)
    table, summary = folder / "evaluation.csv", folder / "evaluation.json"
    with atomic_path(table) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    report = {"definitions": dict(definitions), "means": summarise(rows, columns)}
    write_text(summary, json.dumps(report, indent=2) + "\n")
    return [table, summary]
