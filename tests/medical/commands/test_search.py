# SPDX-License-Identifier: Apache-2.0
"""fieldfare search tumours: on balls in heads made in code."""

import json
from pathlib import Path

import pytest
from ball_cases import write_ball_case, write_table
from click.testing import CliRunner

from fieldfare.common.cli import main
from fieldfare.common.errors import InputError
from fieldfare.common.search.tasks import Given, make_task
from fieldfare.medical.commands import search as module
from fieldfare.medical.commands.search import SPACE, TumoursSearch, config_of
from fieldfare.medical.data.regions import write_sidecar
from fieldfare.medical.networks.config import PRESETS
from fieldfare.medical.networks.models import load_model

SMALL = {"width": 8, "depth": 1, "expansion": 1, "attention": "none", "learning_rate": 4e-3}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cases to learn from, one held out."""
    folder = tmp_path_factory.mktemp("balls")
    for number in range(3):
        case = write_ball_case(folder / f"C{number}", number)
        write_sidecar(case / f"C{number}-seg.nii.gz", "brats2023")
    rows = [(f"C{number}", "train" if number < 2 else "val", f"p{number}") for number in range(3)]
    return write_table(folder / "cases.csv", *rows)


def test_the_preset_is_in_the_space_and_costs_rise_with_every_gene(table: Path) -> None:
    task = TumoursSearch(Given((table,)))
    made, preset = config_of(task.presets["reversible_small"]), PRESETS["reversible_small"]
    assert (made.channels, made.blocks, made.expansion) == (
        preset.channels,
        preset.blocks,
        preset.expansion,
    )
    least = task.macs(SPACE.canonical(SMALL))
    for gene in ("width", "depth", "expansion"):
        assert task.macs(SPACE.canonical(SMALL | {gene: SPACE.genes[gene][1]})) > least
    assert least == task.macs(SPACE.smallest())
    assert task.runner(SPACE.canonical(SMALL))().shape == (1, 3, 48, 48, 48)


def test_the_command_searches_a_table_and_med_seg_takes_what_it_found(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = SPACE.restricted(
        {"width": (8,), "depth": (1,), "expansion": (1,), "learning_rate": (4e-3,)}
    )
    monkeypatch.setattr(TumoursSearch, "space", few)
    monkeypatch.setattr(module, "SPACE", few)
    monkeypatch.setattr(module, "HAND_MADE", SMALL)
    arguments = ["search", "tumours", str(table), "--evaluations", "4", "--steps", "1", "--quiet"]
    done = CliRunner().invoke(main, [*arguments, "-o", str(tmp_path / "run")])
    assert done.exit_code == 0, done.output
    front = json.loads((tmp_path / "run/front.json").read_text())
    network, card = load_model(str(tmp_path / "run/model.safetensors"))
    assert card.metrics[0].value == pytest.approx(front["chosen"]["quality"])
    assert network.config == config_of(few.canonical(front["chosen"]["choice"]))
    assert len(list((tmp_path / "run/prepared").glob("*.image.npy"))) == 3


def test_data_that_cannot_be_searched_are_refused(table: Path) -> None:
    assert isinstance(make_task("tumours", Given((table,))), TumoursSearch)
    with pytest.raises(InputError, match="needs one table of cases"):
        TumoursSearch(Given())
    only = write_table(table.with_name("only.csv"), ("C0", "train", "p0"))
    with pytest.raises(InputError, match="no case in the split val"):
        TumoursSearch(Given((only,)))
