# SPDX-License-Identifier: Apache-2.0
"""Lays the pages of the docs site into a folder, with a reference made from the docstrings.

Usage: python docs/reference.py FOLDER

The reference has a page for each room; modules are read as text, none is imported.
"""

import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def rooms() -> dict[str, dict[str, list[str]]]:
    """Package to room to modules; a room of an application is named `application.room`.

    What commands do, their pages say; here stands what Python can call.
    """
    found: dict[str, dict[str, list[str]]] = {}
    for source in sorted(ROOT.glob("packages/*/src")):
        package = source.parent.name
        for path in sorted((source / "fieldfare" / package).rglob("*.py")):
            parts = path.relative_to(source).with_suffix("").parts
            inner = parts[2:]
            own = package != "common" and (
                "commands" in inner or inner[-1] in ("cli", "options") or inner == ("weights",)
            )
            if inner[-1] != "__init__" and not own:
                room = ".".join(inner[:-1] or inner)
                found.setdefault(package, {}).setdefault(room, []).append(".".join(parts))
    return found


def lay(folder: Path) -> None:
    """Write the pages; the folder is made anew."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "docs", folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").replace("](docs/", "](")
    (folder / "contributing.md").write_text(contributing, encoding="utf-8")
    lines = ["# Reference", "", "What Python can call, by package and room."]
    for package, inner in rooms().items():
        lines += ["", f"## fieldfare.{package}", ""]
        for room, modules in inner.items():
            page = folder / "reference" / package / f"{room}.md"
            page.parent.mkdir(parents=True, exist_ok=True)
            text = f"# {package}.{room}\n\n" + "".join(f"::: {name}\n\n" for name in modules)
            page.write_text(text, encoding="utf-8")
            names = ", ".join(name.rsplit(".", 1)[-1] for name in modules)
            lines.append(f"- [{room}]({package}/{room}.md): {names}")
    (folder / "reference" / "index.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    lay(Path(sys.argv[1]))
