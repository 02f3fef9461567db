# SPDX-License-Identifier: Apache-2.0
"""The page that lists the cases of a run, with links to what was made of each."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from fieldfare.common.files import write_text
from fieldfare.common.report import render

FOOTER = "Not a medical device; for research only."


@dataclass(frozen=True)
class Listed:
    """A case on the page.

    Attributes:
        numbers: `WT_ml`, `TC_ml` and `ET_ml`, volumes in ml.
        notes: what a user should know, a sentence each.
        report, png: what was made of it, where it was.
    """

    case: str
    numbers: Mapping[str, float | None]
    notes: Sequence[str] = ()
    report: Path | None = None
    png: Path | None = None


def numbers_of(manifest: Path) -> dict[str, dict[str, float | None]]:
    """What the newest entry of each finished case in a manifest of a run says in numbers."""
    found = {}
    for line in manifest.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        if entry.get("status") == "done":
            found[entry["key"]] = entry["numbers"]
        elif entry.get("status") == "failed":
            found.pop(entry["key"], None)
    return found


def write_index(path: Path, rows: Sequence[Listed]) -> None:
    """Write the page, whole or not at all. An existing file is replaced."""

    def link(target: Path | None) -> str:
        return "" if target is None else quote(os.path.relpath(target, path.parent))

    noted = sum(bool(row.notes) for row in rows)
    page = render(
        __package__,
        "index.html",
        command="med-seg",
        kind="Brain tumour segmentation",
        title=f"{len(rows)} cases",
        about=[f"{noted} with warnings"],
        footer=FOOTER,
        filters={"ml": lambda value: "–" if value is None else f"{value:.2f}"},
        rows=[(row, link(row.report), link(row.png)) for row in rows],
    )
    write_text(path, page)
