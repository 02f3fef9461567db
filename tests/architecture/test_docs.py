# SPDX-License-Identifier: Apache-2.0
"""Pages lead where they say, and show the house as it is."""

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *ROOT.glob("*.md"),
    *(page for page in ROOT.glob("docs/*.md") if page.name != "index.md"),  # of the site only
    *ROOT.glob("packages/*/*.md"),
    *ROOT.glob("packages/*/samples/*.md"),
    *ROOT.glob("benchmarks/*.md"),
    *ROOT.glob("examples/*.md"),
]
LINK = re.compile(r"\[[^\]]*\]\(\s*([^)\s]+)[^)]*\)")
CODE = re.compile(r"```.*?```|`[^`]*`", re.DOTALL)


def links(page: Path) -> Iterator[str]:
    """Where a page's links lead, but for other sites."""
    for target in LINK.findall(CODE.sub("", page.read_text(encoding="utf-8"))):
        if "://" not in target and not target.startswith("mailto:"):
            yield target


def anchors(page: Path) -> set[str]:
    """Of a page's headings, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    titles = re.findall(r"^#+ +(.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    lost = []
    for target in links(page):
        name, _, anchor = unquote(target).partition("#")
        found = (page.parent / name).resolve() if name else page
        if not found.exists() or (anchor and anchor not in anchors(found)):
            lost.append(target)
    assert not lost


def script(name: str) -> ModuleType:
    """A script of docs/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_drawing_shows_the_contracts_as_they_are() -> None:
    drawing = script("drawing")
    assert drawing.PICTURE.read_text(encoding="utf-8") == drawing.draw(), "python docs/drawing.py"


def test_every_module_stands_in_the_reference_or_belongs_to_the_commands() -> None:
    reference = script("reference")
    listed = {
        name
        for rooms in reference.rooms().values()
        for modules in rooms.values()
        for name in modules
    }
    missing = []
    for path in ROOT.glob("packages/*/src/fieldfare/**/*.py"):
        name = ".".join(path.with_suffix("").parts[path.parts.index("fieldfare") :])
        own = re.search(r"\.(cli|options|commands|__init__|weights)\b", name)
        if name not in listed and not own:
            missing.append(name)
    assert not missing


def test_contributing_names_paths_that_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    short = {"rs": "remote_sensing"} | {n: n for n in ("common", "medical", "netsec", "wireless")}
    lost = []
    for name in re.findall(r"`([a-z_]+/[\w/.]+)`", text):
        head, _, rest = name.partition("/")
        if head in short:
            name = f"packages/{short[head]}/src/fieldfare/{short[head]}/{rest}"
        if not (ROOT / name).exists():
            lost.append(name)
    assert not lost


def test_every_page_is_led_to_from_the_front_page() -> None:
    front = set(links(ROOT / "README.md"))
    pages = {f"docs/{page.name}" for page in ROOT.glob("docs/*.md")} - {"docs/index.md"}
    assert not pages - front


def test_every_benchmark_stands_in_their_list() -> None:
    listed = set(links(ROOT / "benchmarks" / "README.md"))
    scripts = {f"{path.parent.name}/{path.name}" for path in ROOT.glob("benchmarks/*/*.py")}
    assert scripts == listed
