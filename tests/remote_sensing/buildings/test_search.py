# SPDX-License-Identifier: Apache-2.0
"""fieldfare search buildings: on towns made in code."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from sample_scenes import row, street_grid, write_table, write_town

from fieldfare.common.cli import main
from fieldfare.common.errors import InputError
from fieldfare.common.search.tasks import Given, make_task
from fieldfare.remote_sensing.buildings.commands import search as module
from fieldfare.remote_sensing.buildings.commands.search import BuildingsSearch, config_of, space
from fieldfare.remote_sensing.buildings.networks.models import load_model

SMALL = {"decoder": "lraspp", "encoder": "lite0", "learning_rate": 2e-3}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two towns, one to learn from, one held out; 4 km apart."""
    folder = tmp_path_factory.mktemp("towns")
    towns = [
        write_town(
            folder / split,
            size=(200, 240),
            houses=street_grid((200, 240), seed),
            centre=(32.6, 0.35 + seed * 0.04),
            name=split,
        )
        for seed, split in enumerate(("train", "val"))
    ]
    return write_table(folder / "scenes.csv", row(towns[0], "train"), row(towns[1], "val"))


def test_costs_rise_from_head_to_nested_decoder_and_with_its_width(table: Path) -> None:
    task = BuildingsSearch(Given((table,)))
    genes = task.space
    costs = [
        task.macs(genes.canonical(SMALL | {"decoder": decoder, "width": width}))
        for decoder, width in (
            ("lraspp", 0.25),
            ("unet", 0.25),
            ("unetplusplus", 0.25),
            ("unetplusplus", 1.0),
        )
    ]
    assert costs == sorted(set(costs))
    assert task.macs(genes.smallest()) == costs[0]
    wide = genes.canonical(SMALL | {"width": 1.0})
    assert wide == genes.canonical(SMALL | {"width": 0.25})  # LR-ASPP has no such width
    assert config_of(genes.largest()).decoder_channels == (256, 128, 64, 32, 16)
    assert task.presets["unetplusplus_lite0"] in set(genes.every())


def test_the_command_searches_a_table_and_infer_takes_what_it_found(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = space().restricted({"decoder": ("lraspp", "unet"), "encoder": ("lite0",)})
    monkeypatch.setattr(module, "space", lambda: few.restricted({"width": (0.25, 1.0)}))
    monkeypatch.setitem(module.HAND_MADE, "decoder", "unet")
    arguments = ["search", "buildings", str(table), "--evaluations", "4", "--steps", "1"]
    arguments += ["--limit", "2GMAC", "-o", str(tmp_path / "run"), "--quiet"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    front = json.loads((tmp_path / "run/front.json").read_text())
    assert {row["choice"]["decoder"] for row in front["front"]} == {"lraspp"}  # all that fits
    network, card = load_model(str(tmp_path / "run/model.safetensors"))
    assert card.metrics[0].value == pytest.approx(front["chosen"]["quality"])
    assert network.config == config_of(few.canonical(front["chosen"]["choice"]))


def test_data_that_cannot_be_searched_are_refused(table: Path, tmp_path: Path) -> None:
    assert isinstance(make_task("buildings", Given((table,))), BuildingsSearch)
    with pytest.raises(InputError, match="needs one table of scenes"):
        BuildingsSearch(Given())
    lines = table.read_text().splitlines()
    only = table.with_name("only.csv")
    only.write_text("\n".join(line for line in lines if "val" not in line) + "\n")
    with pytest.raises(InputError, match="no scene in the split val"):
        BuildingsSearch(Given((only,)))


def test_a_tile_is_run_as_infer_runs_it(table: Path) -> None:
    task = BuildingsSearch(Given((table,)))
    found = task.runner(task.space.canonical(SMALL | {"width": 1.0}))()
    assert found.shape == (1, 2, 512, 512)
