# SPDX-License-Identifier: Apache-2.0
"""Pages made from the base: escaped, closed to the network, readable on a phone."""

import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser
from PIL import Image

from fieldfare.common.report import data_uri, render, shown, versions
from fieldfare.common.weights import Metric, ModelCard

TEMPLATE = """
{% extends "base.html" %}
{% from "macros.html" import pairs, versions as listed, model_card %}
{% block body %}
<section class="cards">
<div>Found<span class="value">{{ found }}</span></div><div>More</div>
</section>
<h2>Model</h2>
{{ model_card(card) }}
<h2>Settings</h2>
{{ pairs({"a_b": value, "versions": listed(made_with)}) }}
<p id="told">before</p>
{% endblock %}
{% block data %}<script type="application/json" id="data">{{ found|tojson }}</script>{% endblock %}
"""
HOSTILE = "</script><script>document.title='taken'</script><img src=x onerror=alert(1)>"
CARD = ModelCard(
    "m", "t", "One sentence.", {}, data="d" * 200, metrics=(Metric("dice", 0.5, "long " * 40),)
)


@pytest.fixture
def package(tmp_path: Path) -> Iterator[str]:
    """A package with a template."""
    folder = tmp_path / "page_package" / "templates"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("")
    (folder / "page.html").write_text(TEMPLATE)
    sys.path.insert(0, str(tmp_path))
    yield "page_package"
    sys.path.remove(str(tmp_path))
    sys.modules.pop("page_package", types.ModuleType(""))


def page(package: str, **changed: object) -> str:
    values: dict[str, object] = {
        "command": "x-y", "kind": "Some kind", "title": "a title", "about": ["Model m", "size 3"],
        "footer": "Guesses.", "found": 3, "card": CARD, "value": [1, True],
        "made_with": {"torch": "2.0"},
    }  # fmt: skip
    return render(package, "page.html", **(values | changed))


def test_the_base_fills_in_what_every_page_has(package: str) -> None:
    text = page(package, warnings=["one", "two"])
    assert "<title>a title · some kind</title>" in text
    about = re.search(r'<p class="about">(.*?)</p>', text)
    assert about
    assert re.fullmatch(r"Model m · \d+ \w+ \d{4}, \d\d:\d\d UTC · size 3", about[1])
    assert "<strong>Warnings</strong>" in text
    assert "Made by Fieldfare x-y. Guesses. This page needs no network." in text
    assert "<tr><th>A b</th><td>1, yes</td></tr>" in text
    assert "torch 2.0" in text
    assert "script-src" not in text


def test_everything_put_in_is_escaped(package: str) -> None:
    text = page(
        package, title=HOSTILE, about=[HOSTILE], value=HOSTILE, found=HOSTILE, warnings=[HOSTILE]
    )
    assert "<script>document" not in text
    assert "<img src=x" not in text


def test_a_browser_runs_the_pages_own_scripts_and_no_others(
    package: str, tmp_path: Path, browser: Browser
) -> None:
    own = "document.getElementById('told').textContent = 'a </script> and after'"
    text = page(package, scripts=[own], title=HOSTILE)
    foreign = "<script>document.getElementById('told').textContent = 'taken'</script></body>"
    path = tmp_path / "page.html"
    path.write_text(text.replace("</body>", foreign), encoding="utf-8")
    opened = browser.open(path)
    assert re.search(r'id="told">a .*after<', opened.dom)
    assert any("Content Security Policy" in line for line in opened.said)  # the foreign one
    assert not opened.hosts
    with Image.open(opened.picture) as picture:
        assert picture.size == (1000, 2400)


@pytest.mark.parametrize("width", [1300, 420])
def test_nothing_is_cut_off(package: str, tmp_path: Path, browser: Browser, width: int) -> None:
    path = tmp_path / "page.html"
    path.write_text(page(package, title="t" * 300, value="v" * 300, warnings=["w" * 300]), "utf-8")
    assert browser.cut_off(path, width) == []


def test_the_look_finds_what_is_cut_off(tmp_path: Path, browser: Browser) -> None:
    path = tmp_path / "wide.html"
    path.write_text(
        "<!DOCTYPE html><div style='width:900px'>wide</div>"
        "<p style='overflow:hidden;white-space:nowrap;width:90px'>very long text that is cut</p>"
    )
    assert [text.split()[0] for text in browser.cut_off(path, 420)] == [
        "page",
        "sticks",
        "clipped:",
    ]
    assert [text.split()[0] for text in browser.cut_off(path, 1300)] == ["clipped:"]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "none"),
        ({}, "none"),
        (False, "no"),
        ([1, "a"], "1, a"),
        ({"t1": "a.nii", "t2": ["b", "c"]}, "t1: a.nii; t2: b, c"),
        (0, "0"),
    ],
)
def test_settings_in_words(value: object, words: str) -> None:
    assert shown(value) == words


def test_small_parts() -> None:
    assert data_uri(b"abc", "png") == "data:image/png;base64,YWJj"
    assert list(versions("torch")) == ["torch", "python"]
