# SPDX-License-Identifier: Apache-2.0
"""--within, --max-memory, --budget and --variant of wl-precode and wl-power."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fieldfare.common.budget import latency
from fieldfare.common.budget.front import dominated
from fieldfare.common.budget.variants import variants_of
from fieldfare.wireless.cell_free import cli as power_cli
from fieldfare.wireless.channel import cli as channel_cli
from fieldfare.wireless.precoding import cli as precode_cli

pytestmark = pytest.mark.usefixtures("started_now")

COMMANDS = {"precoding": precode_cli.main, "power": power_cli.main}
CHEAP = {"precoding": "rzf", "power": "fractional"}


@pytest.fixture(params=list(COMMANDS))
def task(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def source(task: str, tmp_path: Path) -> Path:
    path = tmp_path / "in.npz"
    kind = ("--channel", "cell-free", "--aps", "6") if task == "power" else ()
    given = ("gen", "-o", str(path), "--count", "3", "--users", "3", *kind)
    done = CliRunner().invoke(channel_cli.main, given)
    assert done.exit_code == 0, done.output
    return path


def infer(task: str, *arguments: object) -> Result:
    return CliRunner().invoke(COMMANDS[task], ["infer", *map(str, arguments)])


def test_the_packaged_variants_are_a_front(task: str) -> None:
    found = variants_of(task)
    assert sum(not out for out in dominated(found.variants)) >= {"precoding": 4, "power": 2}[task]
    assert found.metric.startswith("share of ")


def test_a_unit_runs(task: str) -> None:
    unit = latency.units_of(task)(variants_of(task).named(CHEAP[task]).settings)
    assert unit() is not None


def test_the_chosen_variant_is_told_and_can_be_replayed(
    task: str, source: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "a.npz", tmp_path / "b.npz"
    chosen = infer(task, source, "-o", first, "--within", "1h", "--max-memory", "64GiB", "--json")
    assert chosen.exit_code == 0, chosen.output
    told = json.loads(chosen.stdout)
    best = variants_of(task).variants[0]
    assert told["variant"] == best.name
    assert told["method"] == best.settings["method"]
    assert told["run_seconds"] <= 3600
    assert "of 1 h 00 min" in chosen.stderr
    again = infer(task, source, "-o", second, "--variant", told["variant"])
    assert again.exit_code == 0, again.output
    assert first.read_bytes() == second.read_bytes()


def test_a_named_method_is_kept(task: str, source: Path, tmp_path: Path) -> None:
    out, method = tmp_path / "a.npz", CHEAP[task]
    done = infer(task, source, "-o", out, "--method", method, "--within", "1h", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["variant"] == method


def test_a_folder_names_its_variant(task: str, source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    done = infer(task, source, "-o", folder, "--variant", CHEAP[task], "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["variant"] == CHEAP[task]
    header = json.loads((folder / "manifest.jsonl").read_text().splitlines()[0])
    assert header["settings"]["variant"] == CHEAP[task]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--within", "1ms"), "--within"),
        (("--max-memory", "1MiB"), "--max-memory"),
        (("--budget", "0.001MAC"), "--budget"),
        (("--variant", "none"), "there are: "),
    ],
)
def test_what_cannot_be_kept_is_refused_before_work(
    task: str, source: Path, tmp_path: Path, options: tuple[str, ...], word: str
) -> None:
    refusal = infer(task, source, "-o", tmp_path / "a.npz", *options)
    assert refusal.exit_code == 2
    assert word in refusal.stderr
    assert list(tmp_path.iterdir()) == [source]


def test_whom_to_serve_by_past_rates_only_some_methods_know(tmp_path: Path) -> None:
    source = tmp_path / "in.npz"
    CliRunner().invoke(channel_cli.main, ["gen", "-o", str(source), "--count", "2"])
    options = ("--schedule", "proportional-fair", "--variant", "rzf")
    refusal = infer("precoding", source, "-o", tmp_path / "a.npz", *options)
    assert refusal.exit_code == 2
    assert "is not with --schedule proportional-fair" in refusal.stderr
