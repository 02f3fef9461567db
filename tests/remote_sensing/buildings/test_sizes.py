# SPDX-License-Identifier: Apache-2.0
"""fieldfare elastic buildings, and the search over its sizes: on towns made in code."""

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from sample_scenes import row, street_grid, write_table, write_town

from fieldfare.common.cli import main
from fieldfare.common.elastic.sandwich import SandwichTask
from fieldfare.common.errors import InputError
from fieldfare.common.search.sizes_file import load_elastic
from fieldfare.common.search.tasks import Given
from fieldfare.common.training import Draw
from fieldfare.common.weights import locate, save_with_page
from fieldfare.remote_sensing.buildings.cli import main as rs_buildings
from fieldfare.remote_sensing.buildings.commands import elastic as training
from fieldfare.remote_sensing.buildings.commands import sized
from fieldfare.remote_sensing.buildings.commands.elastic import BuildingsElastic
from fieldfare.remote_sensing.buildings.commands.search_sizes import BuildingsSizes, elastic_of
from fieldfare.remote_sensing.buildings.commands.slimming import positive_pixels
from fieldfare.remote_sensing.buildings.networks.building_network import BuildingNetwork
from fieldfare.remote_sensing.buildings.networks.elastic import SPACE
from fieldfare.remote_sensing.buildings.networks.models import TASK, load_model
from fieldfare.remote_sensing.buildings.options import DEFAULT_MODEL
from fieldfare.remote_sensing.buildings.training.imitation import softened_divergence
from fieldfare.remote_sensing.buildings.training.losses import DeepSupervision
from fieldfare.remote_sensing.buildings.training.run import DataSettings
from fieldfare.remote_sensing.weights.imagenet import imagenet_weights

SMALLEST, LARGEST = SPACE.smallest(), SPACE.largest()


@pytest.fixture(scope="module")
def towns(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The table of two towns, one to learn from, one held out; and the scene held out."""
    folder = tmp_path_factory.mktemp("towns")
    made = [
        write_town(
            folder / split,
            size=(100, 120),
            houses=street_grid((100, 120), seed),
            centre=(32.6, 0.35 + seed * 0.04),
            name=split,
        )
        for seed, split in enumerate(("train", "val"))
    ]
    table = write_table(folder / "scenes.csv", row(made[0], "train"), row(made[1], "val"))
    return [table, made[1].image]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small patches and tiles, few of them."""
    monkeypatch.setattr(sized, "PIECES", 1)
    monkeypatch.setattr(sized, "PIECE", 64)
    monkeypatch.setattr(sized, "TILE", 64)
    for module in (sized, training):
        monkeypatch.setattr(module, "DATA", DataSettings(patch=64, loss="bce"))


def test_one_command_trains_sizes_another_searches_them_and_infer_takes_both(
    towns: list[Path], tmp_path: Path
) -> None:
    table, scene = towns
    run = tmp_path / "run"
    arguments = ["elastic", "buildings", str(table), "-o", str(run), "--init", DEFAULT_MODEL]
    arguments += ["--steps", "1", "--draws", "2", "--networks", "2", "--repeats", "2"]
    done = CliRunner().invoke(main, [*arguments, "--quiet", "--json"])
    assert done.exit_code == 0, done.output
    assert [one["size"] for one in json.loads(done.stdout)["sizes"]] == ["size1", "size2"]
    network, card = load_model(str(run / "networks/size1.safetensors"))
    assert network.depth == SMALLEST["output"] == 3
    assert str(dict(SMALLEST)) in card.training
    assert [metric.name for metric in card.metrics] == ["iou", "object_f1"]
    infer = ["infer", str(scene), "-o", str(tmp_path / "roofs.gpkg"), "--quiet", "--json"]
    infer += ["--model", str(run / f"{TASK}.variants.json"), "--variant", "size1"]
    found = CliRunner().invoke(rs_buildings, infer)
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["variant"] == "size1"

    arguments = ["search", "buildings-sizes", str(table), str(run), "--evaluations", "4"]
    arguments += ["--limit", "50MMAC", "-o", str(tmp_path / "search"), "--quiet", "--json"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    chosen, _ = load_model(str(tmp_path / "search/model.safetensors"))
    elastic, largest = elastic_of(run)
    assert largest.gsd == 0.3
    wanted = elastic.extract(told["chosen"]["choice"])
    assert chosen.config == wanted.config
    name = "decoder.blocks.x_2_2.conv1.0.weight"
    assert torch.equal(chosen.get_parameter(name), wanted.get_parameter(name))
    assert told["chosen"]["macs"] <= 50e6


def test_every_size_learns_from_labels_and_from_the_network_of_the_start(
    towns: list[Path],
) -> None:
    task = BuildingsElastic(Given((towns[0],), steps=1))
    network = task.elastic(DEFAULT_MODEL)
    assert task.teacher is not None
    asked: list[int] = []
    task.teacher.register_forward_hook(lambda *_: asked.append(1))
    lesson = task.lessons()[Draw(0, (0, 0))]
    batch = {name: value.unsqueeze(0) for name, value in lesson.items()}
    torch.manual_seed(0)
    total = SandwichTask(task.loss, draws=3)(network, batch)
    assert asked == [1]  # once for three sizes
    total.backward()
    assert network.maps["encoder-model-blocks-4-0-conv_dw-weight-to3"].grad is not None
    network.set(SMALLEST)
    taught = task.loss(network, batch)
    alone = BuildingsElastic(Given((towns[0],), steps=1))
    labels = alone.loss(network, batch)  # began with no model
    stem = alone.elastic(None).full.get_parameter("encoder.model.conv_stem.weight")
    assert torch.equal(stem, imagenet_weights("tf_efficientnet_lite0")["conv_stem.weight"])
    imitation = DeepSupervision(softened_divergence(1.0), (0.5, 0.5, 1.0), (1.0, 0.5))
    said = task.teacher(batch["image"])
    copied = imitation(network(batch["image"]), said, batch["weight"])
    torch.testing.assert_close(taught, (labels + copied) / 2, rtol=1e-4, atol=1e-5)


def test_without_a_run_the_packaged_network_is_cut(towns: list[Path], tmp_path: Path) -> None:
    task = BuildingsSizes(Given((towns[0],)))
    packaged, _ = load_model(DEFAULT_MODEL)
    target = tmp_path / "whole.safetensors"
    task.evaluate(task.presets["L3"], target, tmp_path)
    kept, _ = load_model(str(target))
    # nothing but the depth was cut, so the statistics are still right
    norm = "encoder.model.blocks.2.0.bn3.running_mean"
    assert torch.equal(kept.get_buffer(norm), packaged.get_buffer(norm))
    thin = SPACE.canonical({**LARGEST, "middle": 4})
    task.evaluate(thin, target, tmp_path)
    changed, _ = load_model(str(target))
    assert not torch.equal(changed.get_buffer(norm), packaged.get_buffer(norm))
    counts = positive_pixels(changed.eval(), task.pieces)
    pixels = sum(len(piece) for piece in task.pieces) * 64**2
    assert int((counts - task.called).abs().max()) <= 1e-3 * pixels
    assert task.macs(SMALLEST) < task.macs(task.presets["L3"]) < task.macs(LARGEST)


def test_what_cannot_be_trained_or_searched_is_refused(towns: list[Path], tmp_path: Path) -> None:
    table = towns[0]
    with pytest.raises(InputError, match="needs one table of scenes"):
        BuildingsElastic(Given())
    with pytest.raises(InputError, match="--steps"):
        BuildingsSizes(Given((table,), steps=3))
    with pytest.raises(InputError, match="needs a table of scenes, and the folder"):
        BuildingsSizes(Given((table, table, table)))
    with pytest.raises(InputError, match="no such file"):
        BuildingsSizes(Given((table, tmp_path)))  # a folder of something else
    network, _ = elastic_of(locate(DEFAULT_MODEL, TASK))
    small = network.extract(SMALLEST)
    assert isinstance(small, BuildingNetwork)
    target = tmp_path / "small.safetensors"
    _, card = load_model(DEFAULT_MODEL)
    card.config.clear()
    card.config.update(small.config.to_dict())
    save_with_page(target, small.state_dict(), card)
    task = BuildingsElastic(Given((table,)))
    with pytest.raises(InputError, match=r"--init .*only a whole U-Net"):
        task.elastic(str(target))
    with pytest.raises(InputError, match="only a whole U-Net"):
        elastic_of(target)
    with pytest.raises(InputError, match="is of building-footprints, not of"):
        load_elastic(target, TASK)
