# SPDX-License-Identifier: Apache-2.0
"""Options as typed classes: what click parses, what Python gets, what `--help` shows."""

import dataclasses
import inspect
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from fieldfare.common import batch, console
from fieldfare.common.console import shared


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """Options of no verb in particular."""

    tile: int = console.option(type=click.IntRange(min=8), default=64, help="Side.")
    overlap: int | None = console.option(type=int, help="Shared pixels.")


@dataclass(frozen=True, kw_only=True)
class Everything(Tiles, shared.InferOptions, shared.PrecisionOptions, shared.SeedOptions):
    """One of every kind."""

    model: str = shared.model_option("tiny", " Or `bicubic`.")
    tile: int = console.option(type=click.IntRange(min=8), default=32, help="Side here.")
    value_range: str | None = console.option("--range", help="Values.")
    weights: tuple[float, ...] = console.option(
        type=console.Numbers(float, 2), default="0.5,1", help="Weights."
    )
    show: tuple[str, ...] = console.option(multiple=True, help="Fields.")
    bound: bool = console.option("--bound/--no-bound", default=True, help="Bound.")


def parse(kind: type, *arguments: str) -> object:
    """What a verb with these options is handed."""
    found = []

    @click.command()
    @click.argument("inputs", nargs=-1, type=console.FILE)
    @console.options(kind)
    def verb(inputs: tuple[Path, ...], options: object) -> None:
        found.append((inputs, options))

    result = CliRunner().invoke(verb, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return found[0]


def test_the_command_line_and_python_have_the_same_defaults() -> None:
    inputs, options = parse(Everything, "a.tif", "b.tif", "-o", "out")
    assert inputs == (Path("a.tif"), Path("b.tif"))
    assert options == Everything(output=Path("out"))
    assert (options.tile, options.overlap, options.model) == (32, None, "tiny")
    assert (options.weights, options.show, options.bound) == ((0.5, 1.0), (), True)


def test_every_kind_of_value_arrives() -> None:
    _, options = parse(
        Everything,
        *("-o", "out", "--tile", "16", "--overlap", "3", "--range", "0:1", "--weights", "2,3"),
        *("--show", "ports", "--show", "ttl", "--no-bound", "--json", "--quiet", "--no-resume"),
        *("--workers", "4", "--gpus-per-worker", ".5", "--precision", "bf16", "--seed", "7"),
    )
    assert options == Everything(
        output=Path("out"), tile=16, overlap=3, value_range="0:1", weights=(2.0, 3.0),
        show=("ports", "ttl"), bound=False, as_json=True, quiet=True, resume=False, workers=4,
        gpus_per_worker=0.5, precision="bf16", seed=7,
    )  # fmt: skip


def test_options_cannot_be_changed_and_python_must_name_what_is_required() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Everything(output=Path("a")).tile = 8  # type: ignore[misc]
    with pytest.raises(TypeError, match="output"):
        Everything()  # type: ignore[call-arg]


def test_help_shows_what_is_required_then_the_own_then_the_shared() -> None:
    @click.command()
    @console.options(Everything)
    def verb(options: Everything) -> None: ...

    names = [option.opts[-1] for option in verb.params]
    assert names[:3] == ["--output", "--model", "--tile"]
    assert names.count("--tile") == 1
    assert names.index("--bound") < names.index("--overlap") < names.index("--engine")
    page = " ".join(CliRunner().invoke(verb, ["--help"]).output.split())
    assert "Or `bicubic`. [default: tiny]" in page
    assert "Side here. [default: 32;" in page
    assert "[default: 0.5,1]" in page


def test_model_is_required_where_there_is_no_default() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Options:
        model: str = shared.model_option(None)

    @click.command()
    @console.options(Options)
    def verb(options: Options) -> None: ...

    result = CliRunner().invoke(verb, [])
    assert result.exit_code == 2
    assert "--model" in result.output


@pytest.mark.parametrize(
    "kind", [kind for _, kind in inspect.getmembers(shared, dataclasses.is_dataclass)]
)
def test_every_shared_option_says_what_it_does(kind: type) -> None:
    @click.command()
    @console.options(kind)
    def verb(options: object) -> None: ...

    assert verb.params
    assert all(option.help for option in verb.params)


def test_batch_options_have_the_names_of_run() -> None:
    parameters = inspect.signature(batch.run).parameters
    fields = dataclasses.fields(shared.BatchOptions)
    assert {field.name: field.default for field in fields} == {
        field.name: parameters[field.name].default for field in fields
    }


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (console.Bytes(), "2GiB", 2 * 2**30),
        (console.Bytes(), "800 MB", 800 * 10**6),
        (console.Bytes(), "512", 512),
        (console.Pairs(), "8x8,16x32", ((8, 8), (16, 32))),
        (console.Numbers(int), "1,2,3", (1, 2, 3)),
    ],
)
def test_kinds_of_values(kind: click.ParamType, text: str, value: object) -> None:
    assert kind.convert(text, None, None) == value


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (console.Bytes(), "2 apples"),
        (console.Bytes(), "-1"),
        (console.Bytes(), "0"),
        (console.Pairs(), "8x"),
        (console.Pairs(), "8x8x8"),
        (console.Pairs(), "0x8"),
        (console.Numbers(int), "1,a"),
        (console.Numbers(float, 2), "1"),
    ],
)
def test_bad_values_are_named(kind: click.ParamType, text: str) -> None:
    with pytest.raises(click.BadParameter, match=text):
        kind.convert(text, None, None)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("50ms", 0.05), ("90s", 90.0), ("5min", 300.0), ("1.5 h", 5400.0), ("2m", 120.0)],
)
def test_durations(text: str, seconds: float) -> None:
    assert console.Duration().convert(text, None, None) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["5", "min", "-1s", "0s", "5 fortnights", "1e400h", "1.2.3s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(click.BadParameter):
        console.Duration().convert(text, None, None)


def test_operations() -> None:
    assert console.Operations().convert("3GMAC", None, None) == 3e9
    with pytest.raises(click.BadParameter, match="3GMAC"):
        console.Operations().convert("3G", None, None)
