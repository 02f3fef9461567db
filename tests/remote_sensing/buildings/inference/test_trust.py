# SPDX-License-Identifier: Apache-2.0
"""What is noted of a scene's blocks, and what infer says of a scene unlike the training data."""

import json
from dataclasses import replace

import numpy as np
import pytest
import rasterio
import torch
from click.testing import CliRunner
from sample_scenes import row, scenes_of, street_grid, write_town

from fieldfare.common.trust.knowledge import PART
from fieldfare.common.weights import ModelCard, load_part, save_model_file
from fieldfare.remote_sensing.buildings.cli import main
from fieldfare.remote_sensing.buildings.inference import run as inference
from fieldfare.remote_sensing.buildings.inference.run import InferSettings
from fieldfare.remote_sensing.buildings.inference.trust import (
    LAYERS,
    SIGNS,
    signs_of,
)
from fieldfare.remote_sensing.buildings.networks.building_network import (
    BuildingNetwork,
    NetworkConfig,
)
from fieldfare.remote_sensing.buildings.networks.models import TASK
from fieldfare.remote_sensing.buildings.training import knowledge as knowing
from fieldfare.remote_sensing.scenes.familiarity import pooled_blocks

CONFIG = NetworkConfig(
    architecture="lraspp", encoder="mobilenetv3_small_050", outputs=("building",), gsd=0.15
)


def town_of(folder, seed, size=(400, 640), **more):
    houses = street_grid(size, seed)
    centre = (32.6, 0.35 + 0.01 * seed)
    return write_town(
        folder / str(seed), size=size, houses=houses, centre=centre, name=f"t{seed}", **more
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """An untrained network that has looked at three towns, in a file."""
    folder = tmp_path_factory.mktemp("known")
    rows = [row(town_of(folder, seed), split) for seed, split in ((0, "train"), (1, "train"))]
    rows.append(row(town_of(folder, 2), "val"))
    one, other, held_out = scenes_of(folder, *rows)
    torch.manual_seed(0)
    network = BuildingNetwork(CONFIG).eval()
    told = []
    found = knowing.learn_knowledge(
        network,
        {"one": [one], "other": [other]},
        {"third": [held_out]},
        {"third"},
        told=told.append,
    )
    assert len(told) == 1 + len(knowing.CORRUPTIONS) + len(knowing.SIZES)
    card = ModelCard(name="m", task=TASK, summary="", config=CONFIG.to_dict())
    path = folder / "m.safetensors"
    save_model_file(path, network.state_dict(), card, {PART: found.to_tensors()})
    return path


def test_a_model_file_gets_knowledge_colours_and_guard(tmp_path, monkeypatch):
    monkeypatch.setattr(knowing, "LEAST_SQUARES", 4)
    folder = tmp_path
    rows = [row(town_of(folder, seed), "train") for seed in (0, 1)]
    rows.append(row(town_of(folder, 2), "val"))
    one, other, held_out = scenes_of(folder, *rows)
    torch.manual_seed(0)
    network = BuildingNetwork(CONFIG).eval()
    told = []
    places = {"one": [one], "other": [other]}
    found = knowing.learn_parts(network, places, {"third": [held_out]}, told=told.append)
    assert sorted(found) == ["colours", "guard", "trust"]
    assert "knows one, other" in told[-1]
    assert knowing.learn_parts(network, places, {}) == {}


def test_features_of_blocks_are_those_of_each_block_alone():
    maps = torch.randn(2, 5, 64, 64, generator=torch.Generator().manual_seed(0)) * 3 + 1
    found = pooled_blocks(maps, (4, 4))
    assert found.shape == (2 * 16, 10)
    block = maps[1, :, 16:32, 48:64].double()  # second row, last column
    assert found[16 + 7, :5] == pytest.approx(block.mean(dim=(1, 2)).numpy(), abs=1e-5)
    spread = block.flatten(1).std(dim=1, correction=0).log()
    assert found[16 + 7, 5:] == pytest.approx(spread.numpy(), abs=1e-4)


def test_the_likely_iou_is_that_of_truth_drawn_by_the_probabilities():
    rng = np.random.default_rng(0)
    p = rng.beta(0.3, 0.3, (1, 256, 256)).astype(np.float32)
    truth, mask = rng.random(p.shape) < p, p > 0.5
    likely, unsure, building = signs_of(p, (1, 1))[0]
    assert likely == pytest.approx((mask & truth).sum() / (mask | truth).sum(), abs=0.01)
    assert unsure == pytest.approx(float((4 * p * (1 - p)).mean()), abs=1e-5)
    assert building == pytest.approx(mask.mean(), abs=1e-5)


def test_a_scene_like_the_training_data_is_at_home_and_noise_is_not(model, tmp_path):
    settings = InferSettings(str(model), tile=256, overlap=32, precision="fp32")
    predictor = settings.predictor()
    seen = {}

    def judge(name, town, **more):
        target = inference.Targets(tmp_path / f"{name}.parquet")
        chosen = replace(settings, **more)
        result = inference.infer(
            town.image, target, chosen, predictor, judged=lambda j: seen.update({name: j})
        )
        assert result["trust"] == seen[name].to_json()
        return seen[name]

    home = judge("home", town_of(tmp_path, 3))
    assert not home.alarm
    assert judge("grid", town_of(tmp_path, 3), tile=512).alarm is False
    noise = write_town(tmp_path / "n", size=(400, 640), houses=[])
    with rasterio.open(noise.image, "r+") as sink:
        rng = np.random.default_rng(0)
        sink.write(rng.integers(0, 256, (3, 400, 640)).astype(np.uint8))
    strange = judge("strange", noise)
    assert strange.alarm
    assert strange.distance > 2 * home.distance


def test_blocks_without_data_are_not_judged(model, tmp_path):
    """A scene of which one half is missing is judged as the half that is there."""
    missing = (0, 256, 256, 256)
    town = write_town(
        tmp_path,
        size=(256, 512),
        houses=street_grid((256, 256), 5),
        nodata=0,
        missing=missing,
    )
    settings = InferSettings(str(model), tile=256, overlap=0, precision="fp32")
    found = []
    for name, window in (("whole", None), ("half", (0, 0, 256, 256))):
        result = inference.infer(
            town.image,
            inference.Targets(tmp_path / f"{name}.parquet"),
            replace(settings, window=window),
            settings.predictor(),
        )
        found.append(result["trust"])
    for name in ("distance", "expected", "beyond"):
        assert found[0][name] == pytest.approx(found[1][name], rel=1e-3)


def test_an_interrupted_run_is_judged_as_a_whole_one(model, tmp_path):
    town = town_of(tmp_path, 4)
    settings = InferSettings(str(model), tile=128, overlap=32, precision="fp32", batch=1)
    whole = inference.infer(
        town.image, inference.Targets(tmp_path / "a.parquet"), settings, settings.predictor()
    )

    def stop(done, total):
        if done > total * 0.6:
            raise KeyboardInterrupt

    target = inference.Targets(tmp_path / "b.parquet")
    with pytest.raises(KeyboardInterrupt, match="goes on from there"):
        inference.infer(town.image, target, settings, settings.predictor(), progress=stop)
    resumed = inference.infer(town.image, target, settings, settings.predictor())
    assert resumed["trust"] == whole["trust"]


def call(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def test_the_command_warns_and_strict_is_an_error(model, tmp_path):
    strange = write_town(tmp_path / "n", size=(256, 256), houses=[])
    with rasterio.open(strange.image, "r+") as sink:
        rng = np.random.default_rng(0)
        sink.write(rng.integers(0, 256, (3, 256, 256)).astype(np.uint8))
    target = tmp_path / "o.geojson"
    told = call("infer", strange.image, "-o", target, "--model", model, "--json")
    assert told.exit_code == 0, told.output
    assert "warning: " in told.stderr
    assert "building IoU" in told.stderr
    assert json.loads(told.stdout)["trust"]["alarm"] is True
    target.unlink()
    refused = call("infer", strange.image, "-o", target, "--model", model, "--strict")
    assert refused.exit_code == 2
    assert "--strict" in refused.stderr
    assert not target.exists()
    folder = tmp_path / "out"
    many = call("infer", strange.image, strange.image, "-o", folder, "--model", model)
    assert many.exit_code == 2  # two of one name
    folder.mkdir()
    one = call("infer", strange.image, "-o", folder, "--model", model, "--format", "geojson")
    assert one.exit_code == 0, one.output
    manifest = "".join(path.read_text() for path in folder.rglob("*.jsonl"))
    assert '"unlike": 1.0' in manifest


def test_what_a_model_knows_is_in_its_file(model):
    assert load_part(model, PART)
    predictor = InferSettings(str(model)).predictor()
    assert predictor.knowledge.layers == LAYERS
    assert predictor.knowledge.signs == SIGNS
    assert "knows one, other" in predictor.knowledge.summary()
