# SPDX-License-Identifier: Apache-2.0
"""Draws the floors of the house, from the contracts in pyproject.toml: pictures/floors.svg.

Usage: python docs/drawing.py
"""

import tomllib
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "pictures" / "floors.svg"

APPLICATION = "Every application has the same floors"
COMMON = "Common: what runs stands on parts of networks, both on a few plain files"
WHAT = {
    "cli": "what a person types",
    "commands": "one file a verb",
    "training": "losses, the run, adaptation",
    "report": "the page a person reads",
    "evaluation": "metrics, comparison, tables",
    "inference": "from a file to a result",
    "sampling": "from a network to an image",
    "networks": "one architecture a file",
    "phantoms": "synthetic cases",
    "data": "labels, tables, patches",
    "volumes | capture": "reading and writing files",
    "options | weights": "typed options, packaged models",
}
WIDTH, HEIGHT, GAP, LEFT = 350, 30, 6, 12
STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#1d2126}.soft{fill:#5b6470;font-size:12px}"
    "rect{fill:#f6f7f9;stroke:#c3c9d0}.title{font-weight:600}.may{stroke-dasharray:4 3}"
    "@media(prefers-color-scheme:dark){text{fill:#e5e8ec}.soft{fill:#9aa4b0}"
    "rect{fill:#1c2127;stroke:#3d4650}}"
)


def layers(name: str) -> list[str]:
    """Of a contract, from the top."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    found: list[str] = next(item["layers"] for item in contracts if item["name"] == name)
    return found


def column(title: str, floors: list[str], left: int) -> list[str]:
    """A tower of floors; what only some applications have is dashed."""
    lines = [f'<text class="title" x="{left}" y="22">{escape(title)}</text>']
    for number, floor in enumerate(floors):
        top = 36 + number * (HEIGHT + GAP)
        name = floor.replace("(", "").replace(")", "")
        kind = ' class="may"' if floor.startswith("(") else ""
        lines += [
            f'<rect{kind} x="{left}" y="{top}" width="{WIDTH}" height="{HEIGHT}" rx="4"/>',
            f'<text x="{left + 10}" y="{top + 20}">{escape(name)}</text>',
        ]
        if name in WHAT:
            lines.append(
                f'<text class="soft" x="{left + WIDTH - 10}" y="{top + 20}" text-anchor="end">'
                f"{escape(WHAT[name])}</text>"
            )
    return lines


def draw() -> str:
    """The picture as SVG."""
    towers = {"an application": layers(APPLICATION), "fieldfare.common": layers(COMMON)}
    width = len(towers) * (WIDTH + 30) + LEFT
    height = 48 + max(map(len, towers.values())) * (HEIGHT + GAP) + 20
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        'aria-label="Floors of an application and of common">',
        f"<style>{STYLE}</style>",
    ]
    for number, (title, floors) in enumerate(towers.items()):
        lines += column(title, floors, LEFT + number * (WIDTH + 30))
    lines.append(
        f'<text class="soft" x="{LEFT}" y="{height - 12}">A floor imports only those below it, '
        "and common; dashed: only some applications have it.</text>"
    )
    return "\n".join([*lines, "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
    print(PICTURE)
