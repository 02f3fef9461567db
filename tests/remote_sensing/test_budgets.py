# SPDX-License-Identifier: Apache-2.0
"""--within, --max-memory, --budget and --variant of rs-sr, rs-dehaze and rs-detect.

The packaged models run here: of the cheapest variants, on little rasters.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from sample_rasters import smooth, write_raster

from fieldfare.common.budget.front import dominated
from fieldfare.common.budget.variants import Variants, variants_of
from fieldfare.common.errors import InputError
from fieldfare.remote_sensing.dehazing import cli as dehazing
from fieldfare.remote_sensing.dehazing.inference import units as dehazing_units
from fieldfare.remote_sensing.detection import cli as detection
from fieldfare.remote_sensing.detection.inference import units as detection_units
from fieldfare.remote_sensing.detection.inference.run import InferSettings
from fieldfare.remote_sensing.super_resolution import cli as super_resolution
from fieldfare.remote_sensing.super_resolution.inference import units as super_resolution_units

pytestmark = pytest.mark.usefixtures("started_now")


@dataclass(frozen=True)
class Command:
    """A command, its task, what it writes, and how many variants no other beats."""

    main: click.Group
    task: str
    output: str
    unit: Callable[[Any], Callable[[], object]]
    front: int

    @property
    def found(self) -> Variants:
        return variants_of(self.task)

    def infer(self, *arguments: object) -> Result:
        return CliRunner().invoke(self.main, ["infer", *map(str, arguments)])


COMMANDS = {
    "rs-sr": Command(
        super_resolution.main, "super-resolution", "o.tif", super_resolution_units.unit, 4
    ),
    "rs-dehaze": Command(dehazing.main, "dehazing", "o.tif", dehazing_units.unit, 3),
    "rs-detect": Command(detection.main, "object-detection", "o.json", detection_units.unit, 6),
}


@pytest.fixture(params=list(COMMANDS))
def command(request: pytest.FixtureRequest) -> Command:
    return COMMANDS[request.param]


@pytest.fixture
def raster(tmp_path: Path) -> Path:
    values = smooth(3, 40, 48, 40, 200).astype("uint8")
    return write_raster(tmp_path / "in.tif", values)


def test_the_packaged_variants_are_a_front(command: Command) -> None:
    assert sum(not out for out in dominated(command.found.variants)) >= command.front
    assert all(word in command.found.metric for word in ("on", "tiles"))


def test_the_chosen_variant_is_told_and_can_be_replayed(
    command: Command, raster: Path, tmp_path: Path
) -> None:
    cheapest = min(command.found.variants, key=lambda item: (item.macs, item.seconds))
    limits = ("--budget", f"{cheapest.macs + 1}mac", "--within", "1h", "--max-memory", "64GiB")
    first, second = (tmp_path / f"{name}_{command.output}" for name in "ab")
    chosen = command.infer(raster, "-o", first, *limits, "--json")
    assert chosen.exit_code == 0, chosen.output
    told = json.loads(chosen.stdout)
    assert command.found.named(told["variant"]).macs <= cheapest.macs
    assert 0 < told["run_seconds"] <= 3600
    assert told["expected_memory"] > 0
    assert f"expects {command.found.metric}" in chosen.stderr
    assert "of 1 h 00 min" in chosen.stderr
    again = command.infer(raster, "-o", second, "--variant", told["variant"])
    assert again.exit_code == 0, again.output
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--within", "1ms"), "--within"),
        (("--max-memory", "1MiB"), "--max-memory"),
        (("--variant", "none"), "there are: "),
        (("--within", "1h", "--overlap", "7"), "--overlap 7: nothing was measured with that"),
    ],
)
def test_what_cannot_be_kept_is_refused_before_work(
    command: Command, raster: Path, tmp_path: Path, options: tuple[str, ...], word: str
) -> None:
    cheapest = min(command.found.variants, key=lambda item: item.seconds)
    if word == "--within":
        options = (*options, "--budget", f"{cheapest.macs + 1}mac")
    refusal = command.infer(raster, "-o", tmp_path / command.output, *options)
    assert refusal.exit_code == 2
    assert word in refusal.stderr
    assert list(tmp_path.iterdir()) == [raster]


def test_an_output_that_exists_is_refused_before_anything_is_measured(
    command: Command, raster: Path, tmp_path: Path
) -> None:
    output = tmp_path / command.output
    output.write_text("mine", encoding="utf-8")
    refusal = command.infer(raster, "-o", output, "--within", "1h")
    assert refusal.exit_code == 2
    assert "expects" not in refusal.stderr
    assert output.read_text(encoding="utf-8") == "mine"


def test_a_unit_runs(command: Command) -> None:
    cheapest = min(command.found.variants, key=lambda item: item.seconds)
    assert command.unit(cheapest.settings)() is not None


def test_coarser_pixels_are_fewer(raster: Path, tmp_path: Path) -> None:
    widths = []
    for name, more in {"a": (), "b": ("--pixel-size", "0.6")}.items():
        done = COMMANDS["rs-detect"].infer(raster, "-o", tmp_path / f"{name}.json", "--json", *more)
        assert done.exit_code == 0, done.output
        widths.append(json.loads(done.stdout)["width"])
    assert widths[1] == pytest.approx(widths[0] / 2, abs=1)
    with pytest.raises(InputError, match="--pixel-size"):
        InferSettings(model="leyolo_nano_trees", pixel_size=0.0)
