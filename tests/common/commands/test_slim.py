# SPDX-License-Identifier: Apache-2.0
"""fieldfare slim, cascade, stitch and latency on the models of a made-up domain."""

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from click.testing import CliRunner, Result
from torch import nn

from fieldfare.common.budget import latency as clock
from fieldfare.common.budget import table as tables
from fieldfare.common.cli import main
from fieldfare.common.commands import slim as command
from fieldfare.common.errors import InputError
from fieldfare.common.slim import workshop as workshops
from fieldfare.common.slim.steps import Halves, stored_tensors
from fieldfare.common.slim.workshop import Draft
from fieldfare.common.weights import ModelCard, from_pretrained, save_model_file

TASK = "doubling"


def build(config: dict[str, Any]) -> nn.Module:
    return nn.Sequential(*(nn.Linear(8, 8) for _ in range(config["depth"])))


class Shallower:
    """One layer less each time."""

    name = "depth"

    def candidates(self, draft: Draft) -> Iterator[tuple[str, Draft]]:
        layers = list(draft.network.children())
        for count in range(len(layers) - 1, 0, -1):
            network = nn.Sequential(*layers[:count]).eval()
            yield f"{count} layers", dataclasses.replace(draft, network=network)


class Doubling:
    """Quality is 0.1 for each layer, and 0.5."""

    unit, metric = "row", "layers / 10"
    asked: ClassVar[list[int]] = []
    stop_at: ClassVar[int | None] = None

    def load(self, model: str) -> tuple[nn.Module, ModelCard]:
        return from_pretrained(model, TASK, build)

    def read(self, network: nn.Module, data: Sequence[Path], *, quiet: bool) -> "Doubling":
        if data[0].suffix != ".csv":
            raise InputError(f"{data[0]}: is no table")
        return self

    def score(self, network: nn.Module) -> float:
        count = len(list(network.children()))
        self.asked.append(count)
        if self.stop_at == len(self.asked):
            raise KeyboardInterrupt
        return 0.5 + 0.1 * count

    def batches(self) -> Sequence[torch.Tensor]:
        return ()

    def unit_of(self, network: nn.Module) -> tuple[nn.Module, Callable[[], object]]:
        return network, lambda: network(torch.zeros(1, 8))

    def macs(self, network: nn.Module) -> int:
        return 64 * len(list(network.children()))

    def steps(self, network: nn.Module, data: Any) -> list[Any]:
        return [Shallower(), Halves()]

    def save(self, draft: Draft, card: ModelCard, data: Any, path: Path) -> None:
        card = dataclasses.replace(card, config={"depth": len(list(draft.network.children()))})
        save_model_file(path, stored_tensors(draft), card)

    def join(self, models: tuple[str, str], data: Sequence[Path], *, quiet: bool) -> "Both":
        return Both(models)


class Both:
    """What `cascade` asks for."""

    metric, unit = "quality", "row"

    def __init__(self, models: tuple[str, str]) -> None:
        self.models = models

    def measured(self) -> dict[str, dict[str, float]]:
        return {
            "small": {"quality": 0.7, "macs": 64.0},
            "cascade": {"quality": 0.8, "macs": 80.0, "passed_on": 0.25},
        }

    def save(self, card: ModelCard, path: Path) -> None:
        save_model_file(path, {}, card)


class Point:
    """An entry point."""

    name = TASK

    def load(self) -> type[Doubling]:
        return Doubling


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(workshops, "entry_points", lambda group: [Point()])
    monkeypatch.setattr(Doubling, "asked", [])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    torch.manual_seed(0)
    card = ModelCard(name="five", task=TASK, summary="Five layers.", config={"depth": 5})
    path = tmp_path / "five.safetensors"
    save_model_file(path, build(card.config).state_dict(), card)
    (tmp_path / "data.csv").touch()
    return path


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def slim(model: Path, *more: str) -> Result:
    data, output = model.with_name("data.csv"), model.with_name("out.safetensors")
    return call("slim", model, "--data", data, "-o", output, "--json", "--repeats", "2", *more)


def found(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    told: dict[str, Any] = json.loads(result.stdout)
    return told


def left(model: Path) -> set[str]:
    return {path.name for path in model.parent.iterdir() if path.is_file()}


def test_steps_are_taken_while_the_quality_stays(model: Path) -> None:
    told = found(slim(model, "--target", "1MAC", "--max-loss", "0.25"))
    assert [row["kept"] for row in told["rows"]] == [True, True, True, False, True]
    assert [row["macs"] for row in told["rows"]] == [320, 256, 192, 128, 192]
    assert not told["met"]
    network, card = Doubling().load(str(model.with_name("out.safetensors")))
    assert len(list(network.children())) == 3
    assert "depth (3 layers), half precision" in card.training
    assert card.metrics[0].value == pytest.approx(0.8)
    assert left(model) == {"five.safetensors", "data.csv", "out.safetensors"}


def test_nothing_more_is_done_once_the_target_is_met(model: Path) -> None:
    told = found(slim(model, "--target", "200MAC", "--target", "1MB", "--max-loss", "1"))
    assert told["met"]
    assert [row["macs"] for row in told["rows"]] == [320, 256, 192]


def test_a_dry_run_writes_nothing(model: Path) -> None:
    assert len(found(slim(model, "--target", "1MAC", "--dry-run"))["rows"]) == 1
    assert left(model) == {"five.safetensors", "data.csv"}


def test_an_interrupted_run_goes_on(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Doubling, "stop_at", 5)
    stopped = slim(model, "--target", "1MAC", "--max-loss", "0.25")
    assert stopped.exit_code not in (0, 2)
    assert not model.with_name("out.safetensors").exists()
    monkeypatch.setattr(Doubling, "stop_at", None)
    Doubling.asked.clear()
    told = found(slim(model, "--target", "1MAC", "--max-loss", "0.25"))
    assert [row["macs"] for row in told["rows"]] == [320, 256, 192, 128, 192]
    assert Doubling.asked == [5, 3, 3, 3]  # the whole, what was left, its half, the file
    assert left(model) == {"five.safetensors", "data.csv", "out.safetensors"}


def test_another_run_does_not_go_on_with_it(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Doubling, "stop_at", 5)
    slim(model, "--target", "1MAC", "--max-loss", "0.25")
    monkeypatch.setattr(Doubling, "stop_at", None)
    told = found(slim(model, "--target", "1MAC", "--max-loss", "0.05"))
    assert [row["macs"] for row in told["rows"]] == [320, 256, 320]


def test_a_file_that_reads_otherwise_is_not_kept(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "SAME", -1.0)
    result = slim(model, "--target", "200MAC", "--max-loss", "1")
    assert result.exit_code == 1
    assert not model.with_name("out.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["slim", "{model}", "--target", "fast", "--data", "{data}", "-o", "{out}"], "3GMAC"),
        (["slim", "{model}", "--data", "{data}", "-o", "{out}"], "--target"),
        (["slim", "{model}", "--target", "1ms", "-o", "{out}"], "--data"),
        (["slim", "nowhere", "--target", "1ms", "--data", "{data}", "-o", "{out}"], "nowhere"),
        (["slim", "{model}", "--target", "1ms", "--data", "no.csv", "-o", "{out}"], "no.csv"),
        (["slim", "{model}", "--target", "1ms", "--data", "{model}", "-o", "{out}"], "is no table"),
        (["slim", "{model}", "--target", "1ms", "--data", "{data}", "-o", "{data}"], "exists"),
        (
            ["slim", "{model}", "--target", "1ms", "--data", "{data}", "-o", "{data}x"],
            ".safetensors",
        ),
        (["slim", "{data}", "--target", "1ms", "--data", "{data}", "-o", "{out}"], "data.csv"),
        (["cascade", "{model}", "{model}", "--data", "{data}", "-o", "{data}"], "exists"),
        (["latency", "nowhere"], "nowhere"),
    ],
)
def test_bad_input_is_told_in_one_line(model: Path, arguments: list[str], said: str) -> None:
    names = {
        "model": model,
        "data": model.with_name("data.csv"),
        "out": model.with_name("o.safetensors"),
    }
    result = call(*(argument.format(**names) for argument in arguments))
    assert result.exit_code == 2, result.output
    assert said in result.output
    assert left(model) == {"five.safetensors", "data.csv"}


def test_a_cascade_tells_what_it_gives_and_is_written(model: Path) -> None:
    data, output = model.with_name("data.csv"), model.with_name("pair.safetensors")
    told = found(call("cascade", model, model, "--data", data, "-o", output, "--json"))
    assert told["rows"]["cascade"]["passed_on"] == 0.25
    assert output.exists()


def test_models_that_cannot_be_stitched_are_refused(model: Path) -> None:
    data, output = model.with_name("data.csv"), model.with_name("run")
    result = call("stitch", model, model, "--data", data, "-o", output)
    assert result.exit_code == 2
    assert "five.safetensors: doubling models cannot be stitched" in result.output
    assert not output.exists()


def test_layers_are_measured_once(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "refuse_load", lambda: None)
    told = found(call("latency", model, "--json", "--repeats", "2"))
    assert [row["times"] for row in told["layers"]] == [5]
    monkeypatch.setattr(clock, "measure", None)  # would fail
    again = found(call("latency", model, "--json"))
    assert again["seconds"] == told["seconds"]
    assert found(call("latency", "--json"))["layers"] == 1
    assert found(call("latency", "--renew", "--json"))["layers"] == 0


def test_a_busy_machine_is_not_measured(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (1e6, 0.0, 0.0))
    result = call("latency", model)
    assert result.exit_code == 1
    assert "wait until the machine is idle" in result.output
    assert not (tables.cache_folder() / tables.NAME).exists()
