# SPDX-License-Identifier: Apache-2.0
import csv
import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from fieldfare.common.budget import latency
from fieldfare.common.budget import variants as registry
from fieldfare.common.budget.front import dominated
from fieldfare.common.budget.variants import Variant, Variants, read_variants
from fieldfare.common.cli import main
from fieldfare.common.errors import InputError, RunError

FOUND = Variants(
    "counting",
    "a sheep",
    "share that was counted",
    "a shepherd",
    (
        Variant("quick", {"eyes": 1}, 0.5, 10, 100, 1.0, 2**20),
        Variant("slow", {"eyes": 2}, 0.9, 40, 400, 4.0, None),
        Variant("asleep", {"eyes": 0}, 0.4, 20, 100, 2.0, 2**20),
    ),
)


@pytest.fixture
def packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "counting.variants.json"
    FOUND.write(path)
    monkeypatch.setattr(registry, "packaged_variants", lambda: {"counting": path})
    monkeypatch.setattr(
        "fieldfare.common.commands.front.packaged_variants", lambda: {"counting": path}
    )
    return path


def run(*arguments: str) -> tuple[int, str]:
    answer = CliRunner().invoke(main, ["front", *arguments])
    return answer.exit_code, answer.output


def test_written_variants_are_read_again_the_best_first(packaged: Path) -> None:
    found = read_variants(packaged)
    assert [variant.name for variant in found.variants] == ["slow", "quick", "asleep"]
    assert found.named("slow") == FOUND.variants[1]
    with pytest.raises(InputError, match="there are: slow, quick, asleep"):
        found.named("dead")


@pytest.mark.parametrize("text", ["", "[]", '{"variants": [{"name": 1}]}', "[" * 10_000])
def test_a_file_of_something_else_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.variants.json"
    path.write_text(text)
    with pytest.raises(InputError, match="holds no variants"):
        read_variants(path)


def test_dominated_is_what_another_beats_in_quality_or_cost() -> None:
    assert dominated(FOUND.variants) == [False, False, True]
    twice = [FOUND.variants[0], FOUND.variants[0]]
    assert dominated(twice) == [False, False]


def test_front_prints_a_table(packaged: Path) -> None:
    code, text = run("counting")
    assert code == 0
    assert "asleep (beaten)" in text
    assert "share that was counted" in text
    code, text = run("counting", "--json")
    rows = json.loads(text)["variants"]
    assert [row["dominated"] for row in rows] == [False, False, True]
    assert json.loads(run("--json")[1]) == {"tasks": ["counting"]}


def test_front_writes_csv_and_a_picture(packaged: Path, tmp_path: Path) -> None:
    for name in ("front.csv", "front.png"):
        assert run("counting", "-o", str(tmp_path / name))[0] == 0
    rows = list(csv.DictReader((tmp_path / "front.csv").open()))
    assert [row["name"] for row in rows] == ["slow", "quick", "asleep"]
    assert Image.open(tmp_path / "front.png").size == (960, 600)
    code, text = run("counting", "-o", str(tmp_path / "front.csv"))
    assert code == 2
    assert "already exists" in text


def test_front_refuses_what_it_cannot_do(packaged: Path, tmp_path: Path) -> None:
    for arguments, word in [
        (["sheep"], "there are of: counting"),
        (["counting", "-o", str(tmp_path / "front.doc")], ".csv"),
    ]:
        code, text = run(*arguments)
        assert code == 2
        assert word in text


def test_measured_seconds_replace_those_of_the_file(
    packaged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    monkeypatch.setattr(latency, "refuse_load", lambda: None)
    monkeypatch.setattr(
        latency, "units_of", lambda task: lambda settings: lambda: calls.append(settings["eyes"])
    )
    code, text = run("counting", "--measure", "--repeats", "2", "--json", "--quiet")
    assert code == 0
    assert calls == [2, 1, 0] * 3  # in turn, after one round to warm up
    assert all(row["seconds"] < 0.5 for row in json.loads(text)["variants"])


def test_nothing_is_measured_on_a_busy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (99.0, 0.0, 0.0))
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    with pytest.raises(RunError, match=r"99\.0 processes run on 2 cores"):
        latency.refuse_load()
