# SPDX-License-Identifier: Apache-2.0
"""fieldfare search: limits, files, resuming, what it says, and that random search is beside it."""

import csv
import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from toy_task import SPACE, ToyTask

from fieldfare.common.budget import latency
from fieldfare.common.cli import main
from fieldfare.common.commands import search as command
from fieldfare.common.commands.search_workers import MakeTrainer, train_in_workers
from fieldfare.common.elastic.genes import Choice
from fieldfare.common.errors import InputError, RunError
from fieldfare.common.search import report
from fieldfare.common.search.evaluations import Evaluations
from fieldfare.common.search.report import paired_bootstrap
from fieldfare.common.search.run import History
from fieldfare.common.search.tasks import Given, make_task, require_files
from fieldfare.common.weights import load_model_file, read_card

LIMIT = 100_000
RUN = ["--evaluations", "12", "--limit", "100kMAC"]

Start = Callable[..., Result]


@pytest.fixture
def task() -> ToyTask:
    return ToyTask()


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "start" in request.fixturenames:
        monkeypatch.setattr(report, "RESAMPLES", 20)


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, task: ToyTask) -> Start:
    """Runs the command on the toy task, or on another one."""

    def run(*arguments: str | Path, of: ToyTask = task) -> Result:
        monkeypatch.setattr(command, "make_task", lambda name, given: of)
        return CliRunner().invoke(main, ["search", "toy", *map(str, arguments)])

    return run


def evaluations(folder: Path) -> list[dict[str, object]]:
    lines = (folder / "evaluations.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines[1:]]


def test_a_search_leaves_front_networks_and_the_best_model(
    start: Start, task: ToyTask, tmp_path: Path
) -> None:
    found = start(*RUN, "-o", tmp_path / "run")
    assert found.exit_code == 0, found.output
    front = json.loads((tmp_path / "run/front.json").read_text())
    assert front["evaluations"] == {"random": 12, "predictor": 12}
    assert {row["strategy"] for row in front["front"]} == {"random", "predictor", "hand-made"}
    assert set(front["against_random"]) == {"predictor"}
    with (tmp_path / "run/front.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["quality"]) for row in rows] == [row["quality"] for row in front["front"]]
    assert (tmp_path / "run/front.png").stat().st_size > 10_000
    files = {row["file"] for row in front["front"] if row["file"]}
    kept = {f"networks/{path.name}" for path in (tmp_path / "run/networks").glob("*.safetensors")}
    assert kept == files
    best = max(front["front"], key=lambda row: row["quality"])
    card, tensors = load_model_file(tmp_path / "run/model.safetensors")
    assert card.config == best["choice"] == front["chosen"]["choice"]
    assert float(tensors["quality"]) == pytest.approx(best["quality"])
    assert (tmp_path / "run/model.md").read_text().startswith(f"# {card.name}")
    assert not (tmp_path / "run/unfinished").exists()
    assert len(task.asked) == len(set(task.asked)) <= 25


def test_nothing_above_the_limit_is_trained_and_hand_made_ones_neither(
    start: Start, task: ToyTask, tmp_path: Path
) -> None:
    assert start(*RUN, "-o", tmp_path / "run").exit_code == 0
    assert max(task.macs(choice) for choice in task.asked) <= LIMIT
    assert task.presets["small"] in task.asked
    assert task.presets["large"] not in task.asked


@pytest.mark.parametrize("strategy", ["nsga", "evolution", "controller"])
def test_every_strategy_runs_beside_random_search(
    start: Start, tmp_path: Path, strategy: str
) -> None:
    found = start(*RUN, "--strategy", strategy, "-o", tmp_path / "run", "--json")
    assert found.exit_code == 0, found.output
    assert set(json.loads(found.stdout)["evaluations"]) == {"random", strategy}


def test_a_limit_below_the_smallest_network_is_refused_at_once(
    start: Start, task: ToyTask, tmp_path: Path
) -> None:
    found = start("--limit", "5kMAC", "-o", tmp_path / "run")
    assert found.exit_code == 2
    assert "--limit 5 kMAC: nothing fits; the smallest network takes 8 kMAC (toy)" in found.stderr
    assert not task.asked
    assert not (tmp_path / "run").exists()


def test_an_interrupted_search_goes_on_and_ends_as_if_it_had_not_been(
    start: Start, task: ToyTask, tmp_path: Path
) -> None:
    broken = ToyTask(interrupt_at=7)
    stopped = start(*RUN, "-o", tmp_path / "run", of=broken)
    assert stopped.exit_code == 130
    assert len(evaluations(tmp_path / "run")) == 7
    assert not (tmp_path / "run/front.json").exists()
    again = ToyTask()
    assert start(*RUN, "-o", tmp_path / "run", of=again).exit_code == 0
    assert not set(broken.asked) & set(again.asked)
    assert start(*RUN, "-o", tmp_path / "whole").exit_code == 0
    assert [*broken.asked, *again.asked] == task.asked
    for name in ("front.json", "front.csv"):
        assert (tmp_path / "run" / name).read_text() == (tmp_path / "whole" / name).read_text()
    third = ToyTask()
    assert start(*RUN, "-o", tmp_path / "run", of=third).exit_code == 0
    assert not third.asked


def test_another_limit_uses_what_is_known_and_trains_what_was_thrown_away(
    start: Start, tmp_path: Path
) -> None:
    run, later = tmp_path / "run", ToyTask()
    assert start(*RUN, "-o", run).exit_code == 0
    known = {str(row["choice"]) for row in evaluations(run)}
    tight = start("--evaluations", "12", "--limit", "20kMAC", "-o", run, of=later)
    assert tight.exit_code == 0
    front = json.loads((run / "front.json").read_text())
    assert max(row["macs"] for row in front["front"]) <= 20_000
    for row in front["front"]:
        assert row["file"] is None or (run / row["file"]).exists()
    assert len(evaluations(run)) < len(known) + 24


def test_other_settings_are_refused_in_the_same_folder(start: Start, tmp_path: Path) -> None:
    assert start(*RUN, "-o", tmp_path / "run").exit_code == 0
    found = start(*RUN, "-o", tmp_path / "run", "--seed", "1")
    assert found.exit_code == 2
    assert "other settings" in found.stderr


def test_a_dry_run_tells_size_cost_and_time_and_writes_nothing(
    start: Start, task: ToyTask, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    found = start("--dry-run", "--evaluations", "10", "-o", run)
    assert found.exit_code == 0, found.output
    assert "96 networks, 8 kMAC to 256 kMAC (toy)" in found.stdout
    assert "22 of them trained" in found.stdout
    assert found.stdout.endswith("nothing was written\n")
    assert len(task.asked) == 1
    assert not run.exists()
    assert start(*RUN, "-o", run).exit_code == 0
    before, count = {path: path.stat().st_mtime_ns for path in run.rglob("*")}, len(task.asked)
    told = json.loads(start("--dry-run", "-o", run, "--json").stdout)
    assert told["networks"] == SPACE.count()
    assert (told["smallest"], told["largest"]) == (8_000, 256_000)
    assert len(task.asked) == count
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Units whose measured time is their cost, in nanoseconds a MAC; the machine's name."""
    machine = ["quick"]
    monkeypatch.setattr(latency, "machine", lambda: machine[0])
    monkeypatch.setattr(latency, "refuse_load", lambda: None)
    monkeypatch.setattr(
        ToyTask, "runner", lambda self, choice: self.timed.append(choice) or self.macs(choice)
    )

    def measure(units: Mapping[str, float], **_: object) -> dict[str, float]:
        return {name: macs * 1e-9 for name, macs in units.items()}

    monkeypatch.setattr(latency, "measure", measure)
    return machine


def test_a_limit_in_time_is_measured_once_a_network_whatever_its_recipe(
    start: Start, task: ToyTask, tmp_path: Path, clock: list[str]
) -> None:
    run = ["--evaluations", "12", "--limit", "0.05ms", "-o", tmp_path / "run"]
    assert start(*run).exit_code == 0
    assert max(task.macs(choice) for choice in task.asked) <= 50_000
    assert len(task.timed) == len(set(task.timed)) <= 24
    assert {choice["rate"] for choice in task.timed} == {0.1}
    assert len({choice["rate"] for choice in task.asked}) > 1
    front = json.loads((tmp_path / "run/front.json").read_text())
    assert front["limit"] == {"seconds": 5e-5}
    clock[0] = "slow"
    found = start(*run)
    assert found.exit_code == 2
    assert "seconds.jsonl" in found.stderr
    found = start("--limit", "0.001ms", "-o", tmp_path / "other")
    assert found.exit_code == 2
    assert "--limit 0.001 ms: nothing fits; the smallest network takes 0.008 ms" in found.stderr


def test_a_busy_machine_measures_no_time(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise RunError("9 processes run on 2 cores")

    monkeypatch.setattr(latency, "refuse_load", refuse)
    found = start("--limit", "1ms", "-o", tmp_path / "run")
    assert found.exit_code == 1
    assert "9 processes" in found.stderr


def test_the_verdict_is_honest_about_noise(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = ToyTask.evaluate

    def noise(self: ToyTask, choice: Choice, target: Path, work: Path) -> float:
        real(self, choice, target, work)
        name = json.dumps(dict(choice), sort_keys=True)
        return float(np.random.default_rng(list(name.encode())).random())

    monkeypatch.setattr(ToyTask, "evaluate", noise)
    monkeypatch.setattr(ToyTask, "macs", lambda self, choice: 1.0)
    found = start("--evaluations", "24", "-o", tmp_path / "run")
    assert "predictor was no better than random search: p " in found.stdout
    assert "drawing at random does as well" in found.stdout
    assert "small, made by hand" in found.stdout
    assert f"--model {tmp_path / 'run' / 'model.safetensors'}" in found.stdout


def test_a_gain_is_sure_only_where_it_does_not_hang_on_one_evaluation() -> None:
    rng = np.random.default_rng(0)

    def history(values: np.ndarray) -> History:
        return History(("shortfall", "macs"), rows=list(values))

    drawn = rng.random((40, 2)) + 1
    better = drawn - 0.6
    lucky = rng.random((40, 2)) + 1
    lucky[7] = 0.5
    low, high = paired_bootstrap(history(better), history(drawn))
    assert 0 < low <= high
    low, high = paired_bootstrap(history(lucky), history(drawn))
    assert low < 0.2 < high
    low, high = paired_bootstrap(history(drawn), history(drawn))
    assert low == high == 0


def test_bad_uses_are_told_in_one_line(start: Start, tmp_path: Path) -> None:
    assert "-o: name the folder" in start().stderr
    (tmp_path / "file").write_text("")
    for arguments, text in (
        (["--limit", "fast", "-o", tmp_path / "run"], "write a time or operations"),
        (["-o", tmp_path / "file"], "cannot be made into a folder"),
    ):
        found = start(*arguments)
        assert found.exit_code == 2
        assert text in found.stderr
    with pytest.raises(InputError, match="nothing to search for 'nothing-such'"):
        make_task("nothing-such", Given())
    with pytest.raises(InputError, match="needs one table; got no paths"):
        require_files("toy", (), 1, "one table")
    with pytest.raises(InputError, match="no such file"):
        require_files("toy", (tmp_path / "missing",), 1, "one table")


def test_without_a_task_those_there_are_get_listed() -> None:
    found = CliRunner().invoke(main, ["search", "--json"])
    assert found.exit_code == 0
    assert isinstance(json.loads(found.stdout)["tasks"], list)


def test_a_file_of_the_front_can_be_read_alone(start: Start, tmp_path: Path) -> None:
    assert start(*RUN, "-o", tmp_path / "run").exit_code == 0
    for path in (tmp_path / "run/networks").glob("*.safetensors"):
        assert read_card(path).name == path.stem


def test_worker_processes_find_what_one_process_finds_and_skip_what_is_done(tmp_path: Path) -> None:
    rng, task = np.random.default_rng(0), ToyTask()
    choices = [SPACE.sample(rng) for _ in range(3)]
    wanted = [Evaluations(task, task.macs, tmp_path / "one").renew(choice) for choice in choices]
    train = train_in_workers(
        MakeTrainer(ToyTask, tmp_path), tmp_path / "workers", engine="local", workers=2
    )
    found = list(train(choices))
    assert [row[0] for row in found] == [row[0] for row in wanted]
    for choice in choices:
        card, _ = load_model_file(Evaluations(task, task.macs, tmp_path).path(choice))
        assert card.config == dict(choice)
    assert list(train(choices)) == found
    manifest = (tmp_path / "workers/manifest.jsonl").read_text()
    assert manifest.count('"status": "done"') == 3
    assert not (tmp_path / "unfinished").exists()


def test_bad_data_in_a_worker_stop_the_search(tmp_path: Path) -> None:
    broken = MakeTrainer(functools.partial(ToyTask, fails=InputError("bad label")), tmp_path)
    train = train_in_workers(broken, tmp_path / "workers", engine="local", workers=1)
    with pytest.raises(RunError, match=r"bad label; run the same command again"):
        list(train([SPACE.smallest()]))


def test_a_network_whose_training_fails_is_worth_nothing(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = ToyTask.evaluate

    def fails(self: ToyTask, choice: Choice, target: Path, work: Path) -> float:
        if choice["rate"] == 0.8 or choice["depth"] == 1:
            raise RunError("the loss is nan by step 3")
        return real(self, choice, target, work)

    monkeypatch.setattr(ToyTask, "evaluate", fails)
    found = start(*RUN, "-o", tmp_path / "run")
    assert found.exit_code == 0, found.output
    assert "the loss is nan by step 3; counted as worth nothing" in found.stderr
    front = json.loads((tmp_path / "run/front.json").read_text())
    assert front["chosen"]["choice"]["rate"] < 0.8
    assert all((row["file"] is None) >= (row["quality"] == 0) for row in front["front"])
    found = start(*RUN, "-o", tmp_path / "none", of=ToyTask(fails=RunError("nan")))
    assert found.exit_code == 1
    assert "the training of every network failed" in found.stderr


def test_a_limit_that_only_the_smallest_keeps_searches_its_recipe(
    start: Start, task: ToyTask, tmp_path: Path
) -> None:
    assert start("--limit", "8kMAC", "--evaluations", "12", "-o", tmp_path / "run").exit_code == 0
    assert {(choice["depth"], choice["width"]) for choice in task.asked} == {(1, 8)}
    front = json.loads((tmp_path / "run/front.json").read_text())
    assert front["evaluations"] == {"random": 4, "predictor": 4}
    assert front["chosen"]["choice"]["rate"] == 0.4
