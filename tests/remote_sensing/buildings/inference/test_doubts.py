# SPDX-License-Identifier: Apache-2.0
"""What is odd about a scene: colours, and answers that small changes turn over."""

import json
from dataclasses import replace

import numpy as np
import pytest
import rasterio
import torch
from click.testing import CliRunner
from rasterio import Affine
from sample_rasters import write_raster

from fieldfare.common.errors import InputError
from fieldfare.common.trust.guard import PART as GUARD
from fieldfare.common.trust.guard import Guard, fit_guard
from fieldfare.common.weights import ModelCard, save_model_file
from fieldfare.remote_sensing.buildings.cli import main
from fieldfare.remote_sensing.buildings.inference.guarding import (
    RANK,
    SIDE,
    augmentations,
    encoded_by,
    guard_scores,
)
from fieldfare.remote_sensing.buildings.inference.predict import Predictor
from fieldfare.remote_sensing.buildings.networks.building_network import (
    BuildingNetwork,
    NetworkConfig,
)
from fieldfare.remote_sensing.buildings.networks.models import TASK
from fieldfare.remote_sensing.rasters.reading import Scene, ValueRange
from fieldfare.remote_sensing.scenes.colours import PART as COLOURS
from fieldfare.remote_sensing.scenes.colours import (
    Colours,
    learn_colours,
    read_colours,
)
from fieldfare.remote_sensing.scenes.squares import squares

NORTH = Affine(0.5, 0, 500_000, 0, -0.5, 40_000)
KNOWN = Colours(low=(0.05, 0.03), high=(0.4, 0.3), least=0.08)
CONFIG = NetworkConfig(
    architecture="lraspp", encoder="mobilenetv3_small_050", outputs=("building",), gsd=0.5
)


def ground(shape, seed=0):
    """Reddish and green ground, (3, h, w) uint8."""
    rng = np.random.default_rng(seed)
    light = rng.uniform(0.4, 1, shape)
    return np.stack([light * level for level in (170, 165, 140)]).clip(0, 255).astype(np.uint8)


def pixels_of(image):
    return image.reshape(3, -1).T / 255


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda image: image, None),
        (lambda image: image[::-1], "bands look exchanged"),
        (lambda image: 255 - image, "looks like a negative"),
        (lambda image: image[1:2].repeat(3, axis=0), "grey image in bands of colour"),
        (lambda image: image // 2, None),
    ],
)
def test_colours_are_usual_or_named(change, said):
    found = KNOWN.doubts(pixels_of(change(ground((64, 64)))))
    assert len(found) == (said is not None)
    assert said is None or said in found[0]


def test_colours_learnt_from_scenes_come_back_from_a_file(tmp_path):
    scenes = [pixels_of(ground((600, 600), seed)) for seed in (0, 1)]
    scenes[1] = scenes[1] * [1, 1, 0.8]
    found = learn_colours([*scenes, np.zeros((10, 3))])
    assert found.low[0] < found.high[0]
    assert all(found.doubts(scene) == [] for scene in scenes)
    path = tmp_path / "m.safetensors"
    card = ModelCard(name="m", task=TASK, summary="", config={})
    save_model_file(path, {"a": torch.zeros(1)}, card, {COLOURS: found.to_tensors()})
    assert read_colours(path) == found
    save_model_file(path, {"a": torch.zeros(1)}, card)
    assert read_colours(path) is None
    save_model_file(path, {"a": torch.zeros(1)}, card, {COLOURS: {"about": torch.zeros(1)}})
    with pytest.raises(InputError, match="not a model's colours"):
        read_colours(path)
    assert learn_colours([np.zeros((10, 3))]) is None


def test_squares_are_spread_over_a_scene_and_hold_data(tmp_path):
    image = ground((200, 320))
    image[:, :50, :64] = 0
    path = write_raster(tmp_path / "a.tif", image, nodata=0, crs="EPSG:32636", transform=NORTH)
    with Scene(path) as scene:
        every = list(squares(scene, ValueRange(0, 255), 40, 100))
        few = list(squares(scene, ValueRange(0, 255), 40, 2))
    assert len(every) == 5 * 8 - 4
    assert all(square.shape == (3, 40, 40) for square in every)
    assert every[0] == pytest.approx(image[:, :40, 80:120] / 255, abs=1e-6)
    assert len(few) == 3


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return BuildingNetwork(CONFIG).eval()


def test_augmentations_are_as_many_as_named_and_move_nothing():
    x = torch.rand(1, 3, 32, 32)
    spot = torch.full_like(x, 0.2)
    spot[:, :, 9, 21] = 0.9
    for change in augmentations():
        assert torch.equal(change(x), change(x))
        near = change(spot)
        assert near.shape == x.shape
        row, column = divmod(int(near.mean(1).argmax()), 32)
        assert abs(row - 9) <= 1
        assert abs(column - 21) <= 1


def test_an_answer_that_noise_turns_over_scores_lower(network):
    predictor = Predictor(network, device="cpu", precision="fp32")
    guard = Guard(len(augmentations()), RANK, 0.8, 0.0, 0.05)
    same = np.full((3, SIDE, SIDE), 0.5, np.float32)
    rng = np.random.default_rng(0)
    odd = rng.random((3, SIDE, SIDE), dtype=np.float32)
    one = guard_scores([same], guard, predictor)
    assert guard_scores([same, odd], guard, predictor)[0] == one[0]
    features, logits = encoded_by(predictor)(torch.from_numpy(odd)[None])
    assert logits.shape == (1, 2, SIDE, SIDE)
    assert features.shape[0] == 1
    assert torch.allclose(logits[:, 0], -logits[:, 1])


@pytest.fixture(scope="module")
def model(network, tmp_path_factory):
    """A file with colours and guard, both fitted on reddish ground."""
    predictor = Predictor(network, device="cpu", precision="fp32")
    clean = [torch.from_numpy(ground((SIDE, SIDE), s) / np.float32(255))[None] for s in range(3)]
    guard = fit_guard(encoded_by(predictor), augmentations(), clean, rank=RANK)
    guard = replace(guard, threshold=guard.threshold - 0.05)
    path = tmp_path_factory.mktemp("model") / "guarded.safetensors"
    card = ModelCard(name="m", task=TASK, summary="", config=CONFIG.to_dict())
    parts = {GUARD: guard.to_tensors(), COLOURS: KNOWN.to_tensors()}
    save_model_file(path, network.state_dict(), card, parts)
    return path


def call(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def test_the_command_names_doubts_and_strict_refuses(model, tmp_path):
    place = {"crs": "EPSG:32636", "transform": NORTH}
    usual = write_raster(tmp_path / "usual.tif", ground((400, 400), 7), **place)
    odd = write_raster(tmp_path / "odd.tif", ground((400, 400), 7)[::-1].copy(), **place)
    options = ("--model", model, "--tile", 256, "--overlap", 0, "--json")
    plain = call("infer", usual, "-o", tmp_path / "a.geojson", *options, "--guard")
    assert plain.exit_code == 0, plain.output
    said = json.loads(plain.stdout)
    assert said["doubts"] == []
    assert said["guard"]["parts"] == 4
    assert said["guard"]["alarm"] is False
    assert "parts get another answer" in plain.stderr
    told = call("infer", odd, "-o", tmp_path / "b.geojson", "--mask", tmp_path / "m.tif", *options)
    assert told.exit_code == 0, told.output
    assert "warning: " in told.stderr
    assert "bands look exchanged" in told.stderr
    assert json.loads(told.stdout)["guard"] is None
    with rasterio.open(tmp_path / "m.tif") as mask:
        assert "bands look exchanged" in mask.tags()["FIELDFARE_PROVENANCE"]
    refused = call("infer", odd, "-o", tmp_path / "c.geojson", *options, "--strict")
    assert refused.exit_code == 2
    assert "nothing was written" in refused.stderr
    assert not (tmp_path / "c.geojson").exists()
    folder = tmp_path / "many"
    many = call("infer", usual, odd, "-o", folder, *options, "--format", "geojson")
    assert many.exit_code == 0, many.output
    manifest = "".join(path.read_text() for path in folder.rglob("*.jsonl"))
    assert manifest.count('"doubts": 1.0') == 1


def test_a_model_without_guard_says_so(network, tmp_path):
    path = tmp_path / "plain.safetensors"
    card = ModelCard(name="m", task=TASK, summary="", config=CONFIG.to_dict())
    save_model_file(path, network.state_dict(), card)
    scene = write_raster(tmp_path / "a.tif", ground((64, 64)), crs="EPSG:32636", transform=NORTH)
    found = call("infer", scene, "-o", tmp_path / "a.gpkg", "--model", path, "--guard")
    assert found.exit_code == 2
    assert "--guard: the model keeps none" in found.stderr
    assert not (tmp_path / "a.gpkg").exists()
