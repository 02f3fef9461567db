# SPDX-License-Identifier: Apache-2.0
"""Experts by pixel size as a user meets them: train, infer, eval, bench, export, and refusals."""

import csv
import dataclasses
import json
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import torch
from click.testing import CliRunner, Result
from sample_scenes import row, street_grid, write_table, write_town

from fieldfare.common import batch
from fieldfare.common.trust.knowledge import PART, read_knowledge
from fieldfare.common.weights import ModelCard, load_part, read_card, save_model_file
from fieldfare.remote_sensing.buildings.cli import main
from fieldfare.remote_sensing.buildings.commands.infer import make_worker
from fieldfare.remote_sensing.buildings.inference.run import InferSettings
from fieldfare.remote_sensing.buildings.networks.building_network import (
    BuildingNetwork,
    NetworkConfig,
)
from fieldfare.remote_sensing.buildings.networks.models import TASK, load_any
from fieldfare.remote_sensing.buildings.options import InferOptions

DENSE = NetworkConfig(
    encoder="mobilenetv3_small_050", decoder_channels=(16, 16, 16, 8, 8), gsd=0.15
)
CONFIG = dataclasses.replace(DENSE, experts=(0.15, 0.6))


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def done(*arguments: object) -> dict:
    result = call(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout) | {"told": result.stderr}


def refused(*arguments: object) -> str:
    result = call(*arguments)
    assert result.exit_code == 2, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    return line


def save(path: Path, config: NetworkConfig, tensors: dict[str, torch.Tensor]) -> Path:
    card = ModelCard(path.stem, TASK, "Random weights.", config.to_dict())
    save_model_file(path, tensors, card)
    return path


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    """A model whose experts differ, and the dense ones that they stand for."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    network = BuildingNetwork(CONFIG).eval()
    bias = network.get_submodule("segmentation_head").get_submodule("experts.1.0").bias
    with torch.no_grad():
        bias.add_(0.7)
    found = {"experts": save(folder / "experts.safetensors", CONFIG, network.state_dict())}
    for number, name in enumerate(("fine", "coarse")):
        tensors = network.dense(number).state_dict()
        found[name] = save(folder / f"{name}.safetensors", DENSE, tensors)
    return found


@pytest.mark.parametrize(("gsd", "name", "expert"), [(0.15, "fine", 0.15), (0.5, "coarse", 0.6)])
def test_infer_takes_the_expert_of_the_raster_and_gives_what_its_dense_network_gives(
    tmp_path, models, gsd, name, expert
):
    town = write_town(tmp_path, size=(96, 96), gsd=gsd)
    found = {}
    for model in ("experts", name):
        probability = tmp_path / f"{model}.tif"
        arguments = ["-o", tmp_path / f"{model}.gpkg", "--prob", probability]
        told = done("infer", town.image, "--model", models[model], *arguments)
        with rasterio.open(probability) as raster:
            found[model] = (raster.read(), told, raster.tags()["FIELDFARE_PROVENANCE"])
    (values, told, tags), (dense, plain, plain_tags) = found.values()
    assert np.array_equal(values, dense)
    assert told["expert"] == expert
    assert plain["expert"] is None
    assert f"gets the expert for {expert:g} m per pixel" in told["told"]
    assert "expert for" not in plain["told"]
    assert json.loads(tags)["expert"] == f"{expert:g} m"
    assert "expert" not in json.loads(plain_tags)
    assert "times as coarse" not in told["told"]
    assert told["trust"] is None  # the file says nothing of what it knows


def test_of_many_scenes_each_gets_its_own_expert_and_the_record_says_which(tmp_path, models):
    settings = InferSettings(str(models["experts"]), device="cpu", precision="fp32")
    towns = {
        name: write_town(tmp_path / name, size=(64, 64), gsd=gsd, name=name)
        for name, gsd in (("fine", 0.15), ("coarse", 0.6))
    }
    sources = {name: town.image for name, town in towns.items()}
    process = make_worker(settings, sources, InferOptions(output=tmp_path / "out"))
    told = {}
    for name, image in sources.items():
        target = tmp_path / f"{name}.gpkg"
        item = batch.Item(name, (image,), (target,))
        told[name] = process(item, [target])["expert_m"]
    assert told == {"fine": 0.15, "coarse": 0.6}


def test_a_dry_run_names_the_expert(tmp_path, models):
    town = write_town(tmp_path, size=(64, 64), gsd=0.6)
    arguments = ["-o", tmp_path / "o.gpkg", "--model", models["experts"], "--dry-run"]
    assert done("infer", town.image, *arguments)["expert"] == 0.6


def test_imagery_far_coarser_than_every_expert_is_still_warned_of(tmp_path, models):
    town = write_town(tmp_path, size=(64, 64), gsd=1.4)
    told = done("infer", town.image, "-o", tmp_path / "o.gpkg", "--model", models["experts"])
    assert "2.3 times as coarse as the model's 0.6 m" in told["told"]
    assert told["expert"] == 0.6


def test_eval_and_bench_take_a_model_with_experts(tmp_path, models, monkeypatch):
    town = write_town(tmp_path, size=(64, 64), gsd=0.6)
    scores = [
        done("eval", town.labels, "--scene", town.image, "--model", models[name])["rows"]
        for name in ("experts", "coarse")
    ]
    iou = [[row["building_iou"] for row in rows] for rows in scores]
    assert iou[0] == pytest.approx(iou[1], nan_ok=True)
    known = [{"depth": f"L{depth}"} for depth in (1, 2, 3, 4)]  # counting takes longest
    monkeypatch.setattr(
        "fieldfare.remote_sensing.buildings.commands.models.depth_costs", lambda config: known
    )
    rows = done("bench", "--model", models["experts"], "--tile", 64, "--repeats", 2)["depths"]
    assert all(row["median_s"] > 0 for row in rows)
    assert len(rows) == 4


def test_models_names_the_experts(models, monkeypatch):
    found = {"experts": models["experts"]}
    monkeypatch.setattr("fieldfare.common.commands.models.available", lambda task: found)
    (told,) = done("models")["models"]
    assert told["experts"] == "0.15 and 0.6 m per pixel"
    assert [row["depth"] for row in told["depths"]] == ["L1", "L2", "L3", "L4"]
    assert "experts: 0.15 and 0.6 m per pixel" in call("models").stdout


def test_export_asks_for_which_imagery(tmp_path, models):
    target = tmp_path / "m.onnx"
    arguments = ["export", "--model", models["experts"], "-o", target, "--tile", 64]
    assert "has experts for 0.15 and 0.6 m per pixel; say with --gsd" in refused(*arguments)
    plain = ["export", "--model", models["fine"], "-o", target, "--tile", 64, "--gsd", 0.6]
    assert "has no experts to choose by" in refused(*plain)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_an_exported_expert_is_the_one_asked_for(tmp_path, models):
    onnxruntime = pytest.importorskip("onnxruntime")
    target = tmp_path / "m.onnx"
    done("export", "--model", models["experts"], "-o", target, "--tile", 64, "--gsd", 0.6)
    image = np.random.default_rng(0).random((1, 3, 64, 64), dtype=np.float32)
    (found,) = onnxruntime.InferenceSession(str(target)).run(None, {"image": image})
    network, _ = load_any(str(models["coarse"]))
    with torch.no_grad():
        assert found == pytest.approx(network(torch.from_numpy(image)).numpy(), abs=1e-3)


def place(folder: Path, split: str, seed: int, gsd: float = 0.15, size=(160, 160)) -> dict:
    town = write_town(
        folder / f"{split}{seed}",
        size=size,
        gsd=gsd,
        houses=street_grid(size, seed),
        centre=(32.6, 0.35 + 0.02 * seed),
        name=f"{split}{seed}",
    )
    return row(town, split)


@pytest.fixture
def knowing_nothing(monkeypatch):
    """Training without a look at what the model knows, which takes longest."""
    monkeypatch.setattr(
        "fieldfare.remote_sensing.buildings.commands.train.learn_parts", lambda *_, **__: {}
    )


TRAINING = ["--steps", 1, "--batch", 2, "--patch", 128, "--quiet", "--seed", 3]


@pytest.mark.usefixtures("knowing_nothing")
def test_train_starts_every_expert_from_a_dense_model_and_goes_on_from_its_own(tmp_path, models):
    rows = [place(tmp_path, "train", 0), place(tmp_path, "train", 1, 0.6)]
    table = write_table(tmp_path / "scenes.csv", *rows, place(tmp_path, "val", 2))
    run = tmp_path / "run"
    arguments = ["train", table, "-o", run, "--init", models["fine"], "--expert-gsd", "0.15,0.6"]
    done(*arguments, *TRAINING, "--learning-rate", 1e-9)
    network, card = load_any(str(run / "model.safetensors"))
    assert network.config == CONFIG
    assert "experts for 0.15 and 0.6 m" in card.summary
    start = load_any(str(models["fine"]))[0]
    for number in (0, 1):
        for name, tensor in network.dense(number).named_parameters():
            torch.testing.assert_close(tensor, start.get_parameter(name), rtol=0, atol=1e-5)
    with open(run / "log.csv", newline="") as file:
        (last,) = list(csv.DictReader(file))
    assert {"iou", "iou_0.15m", "iou_0.6m"} <= set(last)
    more = done("train", table, "-o", tmp_path / "more", "--init", run / "model.safetensors",
                *TRAINING)  # fmt: skip
    assert load_any(more["model"])[0].config == CONFIG


@pytest.mark.usefixtures("knowing_nothing")
def test_train_from_finer_scenes_says_so_and_the_card_too(tmp_path):
    rows = [place(tmp_path, split, seed) for seed, split in enumerate(("train", "val"))]
    table = write_table(tmp_path / "scenes.csv", *rows)
    loud = [word for word in TRAINING if word != "--quiet"]
    fresh = ["--encoder", DENSE.encoder, "--encoder-weights", "none"]
    result = call("train", table, "-o", tmp_path / "run", *fresh, "--expert-gsd", "0.15,0.6", *loud)
    assert result.exit_code == 0, result.output
    assert "in the split train: finer ones are averaged to it" in result.stderr
    card = read_card(tmp_path / "run/model.safetensors")
    assert card.data == "scenes.csv: 1 scenes; 2 of coarser pixels made of finer scenes"
    network, _ = load_any(str(tmp_path / "run/model.safetensors"))
    own = network.state_dict()
    name = "decoder.blocks.x_0_4.experts.{}.conv1.1.running_mean"
    assert not torch.equal(own[name.format(0)], own[name.format(1)])


def test_what_it_knows_is_learnt_by_each_expert_of_its_own_places(tmp_path, monkeypatch):
    from fieldfare.remote_sensing.buildings.training import knowledge as knowing

    monkeypatch.setattr(knowing, "LEAST_SAMPLES", 4)
    monkeypatch.setattr(knowing, "CORRUPTIONS", {})
    size = (300, 300)
    rows = [place(tmp_path, "train", 0, size=size), place(tmp_path, "train", 1, size=size)]
    table = write_table(tmp_path / "scenes.csv", *rows, place(tmp_path, "val", 2, size=size))
    looked = []
    original = knowing._looked
    monkeypatch.setattr(
        knowing, "_looked", lambda p, tiles: looked.append(p.expert) or original(p, tiles)
    )
    arguments = ["--encoder", DENSE.encoder, "--encoder-weights", "none", *TRAINING]
    done("train", table, "-o", tmp_path / "run", "--expert-gsd", "0.15,0.6", *arguments)
    model = tmp_path / "run/model.safetensors"
    assert set(looked) == {0.15, 0.6}
    assert read_knowledge(model) is not None
    assert load_part(model, PART)
    assert not load_part(model, "guard")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--expert-gsd", "0.6"], "--expert-gsd 0.6: give at least two"),
        (["--expert-gsd", "0.6,0.15"], "from fine to coarse"),
        (["--expert-gsd", "0.05,0.1"], "look alike to a model of 0.15 m"),
        (["--expert-gsd", "0.15,0.6", "--architecture", "unet"], "only a whole U-Net++"),
        (["--expert-gsd", "0.15,0.6", "--encoder", "resnet18"], "of the kind of EfficientNet"),
        (["--expert-gsd", "0.15,0.6", "--init", "EXPERTS", "--gsd", "0.6"], "look alike"),
        (["--init", "EXPERTS", "--devices", 2], "trains in one process"),
        (["--expert-gsd", "0.15,1", "--init", "EXPERTS"], "has experts already, for 0.15 and 0.6"),
    ],
)
def test_experts_that_cannot_be_trained_are_one_line(tmp_path, models, options, message):
    table = write_table(tmp_path / "scenes.csv", place(tmp_path, "train", 0))
    given = [models["experts"] if word == "EXPERTS" else word for word in options]
    if "--init" not in options:
        given += ["--encoder-weights", "none"]
    assert message in refused("train", table, "-o", tmp_path / "run", *given, *TRAINING)
    assert not (tmp_path / "run").exists()


def test_what_cannot_take_experts_says_so(tmp_path, models):
    town = write_town(tmp_path / "town")
    scene = [town.image, town.labels, "-o", tmp_path / "run"]
    assert "takes a table" in refused("train", *scene, "--expert-gsd", "0.15,0.6")
    assert "which only infer, eval" in refused("train", *scene, "--init", models["experts"])
    table = write_table(tmp_path / "scenes.csv", row(town, "train"))
    adapt = ["adapt", table, "-o", tmp_path / "run", "--stage", "clean"]
    assert "has experts for 0.15 and 0.6 m" in refused(*adapt, "--init", models["experts"])


def test_a_scene_of_unknown_size_gets_the_finest_expert(tmp_path, models):
    town = write_town(tmp_path, size=(64, 64), crs=None)
    base = ["infer", town.image, "-o", tmp_path / "o.gpkg", "--model", models["experts"]]
    assert done(*base)["expert"] == 0.15
    assert done(*base, "--gsd", 0.6, "--overwrite")["expert"] == 0.6
    assert len(gpd.read_file(tmp_path / "o.gpkg")) >= 0
