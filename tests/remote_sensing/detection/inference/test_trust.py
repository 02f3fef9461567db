# SPDX-License-Identifier: Apache-2.0
"""What is noted of a scene's blocks, and what infer says of a scene unlike the training data."""

import json
from dataclasses import replace

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from sample_objects import row, save_tiny, write_orchard, write_table

from fieldfare.common.weights import load_model_file, save_model_file
from fieldfare.remote_sensing.detection.cli import main
from fieldfare.remote_sensing.detection.data.table import read_table
from fieldfare.remote_sensing.detection.inference import run as inference
from fieldfare.remote_sensing.detection.inference.predict import Detections
from fieldfare.remote_sensing.detection.inference.run import InferSettings
from fieldfare.remote_sensing.detection.inference.trust import block_numbers, signs_of
from fieldfare.remote_sensing.detection.networks.models import load_model
from fieldfare.remote_sensing.detection.training import knowledge as knowing

SIDE = 512

SURE = 0.277
"""So that few of the cells of random weights are."""

WAYS = {name: knowing.CORRUPTIONS[name] for name in ("blur 3", "inverted")}


def orchard_of(folder, seed):
    """Some sixty discs on noise, so that no two places look quite the same."""
    rng = np.random.default_rng(seed)
    places = np.mgrid[32:SIDE:64, 32:SIDE:64].reshape(2, -1).T
    middles = places + rng.integers(-12, 13, places.shape)
    name, east = f"o{seed}", 500_000.0 + 1000 * seed
    orchard = write_orchard(folder, name=name, middles=middles, size=(SIDE, SIDE), east=east)
    with rasterio.open(orchard.image, "r+") as raster:
        noisy = raster.read() + rng.normal(0, 5, (3, SIDE, SIDE))
        raster.write(noisy.clip(0, 255).astype(np.uint8))
    return orchard


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """An untrained network that has looked at twenty orchards, in a file."""
    folder = tmp_path_factory.mktemp("known")
    rows = [row(orchard_of(folder, seed), "val" if seed % 3 else "train") for seed in range(20)]
    scenes, _ = read_table(write_table(folder / "t.csv", *rows), bands=3)
    bare = save_tiny(folder / "bare.safetensors", threshold=SURE)
    network, _ = load_model(str(bare))
    told = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(knowing, "CORRUPTIONS", WAYS)
        patch.setattr(knowing, "SIZES", (2.0,))
        parts = knowing.learn_parts(network.eval(), scenes, reach=3.0, told=told.append)
    assert sorted(parts) == ["colours", "trust"]
    assert [line.split(":")[0] for line in told[:-1]] == ["as it is", *WAYS, "size 2"]
    assert "(28 samples); F1 0." in told[-1]
    card, tensors = load_model_file(bare)
    path = folder / "m.safetensors"
    save_model_file(path, tensors, card, parts)
    return path


def test_too_few_scenes_teach_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(knowing, "CORRUPTIONS", WAYS)
    rows = [row(orchard_of(tmp_path, seed), split) for seed, split in ((0, "train"), (1, "val"))]
    scenes, _ = read_table(write_table(tmp_path / "t.csv", *rows), bands=3)
    network, _ = load_model(str(save_tiny(tmp_path / "bare.safetensors", threshold=SURE)))
    assert knowing.learn_parts(network.eval(), scenes, reach=3.0) == {}


def test_points_lie_in_the_block_that_holds_them():
    points = np.array([(0.0, 0.0), (299.9, 0.0), (150.1, 99.0), (0.0, 100.1), (300.0, 200.0)])
    assert block_numbers(points, (200, 300), (2, 2)).tolist() == [0, 1, 1, 2, 3]


def test_the_likely_f1_is_that_of_truth_drawn_by_the_confidences():
    rng = np.random.default_rng(0)
    p = rng.beta(0.5, 0.5, 20_000)
    boxes = np.tile((10.0, 10.0, 20.0, 20.0), (len(p), 1))
    found = Detections(boxes, p, np.zeros(len(p), np.int64))
    true, seen = rng.random(len(p)) < p, p >= 0.4
    signs = signs_of(found, 0.4, (512, 512), (2, 2))
    assert signs[0, 0] == pytest.approx(
        2 * (true & seen).sum() / (true.sum() + seen.sum()), abs=0.01
    )
    assert signs[0, 1] == pytest.approx((4 * p * (1 - p)).mean())
    assert signs[0, 2] == pytest.approx(np.log1p(seen.sum()))
    assert signs[1:].tolist() == [[1, 0, 0]] * 3  # nothing is there, and nothing is found


def test_a_scene_like_the_training_data_is_at_home_and_noise_is_not(model, tmp_path):
    settings = InferSettings(str(model), precision="fp32")

    def judge(orchard, **more):
        chosen = replace(settings, **more)
        target = inference.Targets(tmp_path / "found.parquet")
        told = []
        result = inference.infer(
            orchard.image, target, chosen, chosen.predictor(), judged=told.append
        )
        assert result["trust"] == told[0].to_json()
        return told[0]

    home = judge(orchard_of(tmp_path, 29))
    assert not home.alarm
    assert judge(orchard_of(tmp_path, 29), tile=1024) == home
    strange = orchard_of(tmp_path, 10)
    with rasterio.open(strange.image, "r+") as raster:
        rng = np.random.default_rng(0)
        raster.write(rng.integers(0, 256, (3, SIDE, SIDE)).astype(np.uint8))
    judged = judge(strange)
    assert judged.alarm
    assert judged.distance > 2 * home.distance


def test_an_interrupted_run_is_judged_as_a_whole_one(model, tmp_path):
    orchard = orchard_of(tmp_path, 11)
    settings = InferSettings(str(model), tile=192, overlap=64, precision="fp32", batch=1)
    predictor = settings.predictor()
    whole = inference.infer(
        orchard.image, inference.Targets(tmp_path / "a.gpkg"), settings, predictor
    )

    def stop(done, total):
        if done > total * 0.6:
            raise KeyboardInterrupt

    target = inference.Targets(tmp_path / "b.gpkg")
    with pytest.raises(KeyboardInterrupt, match="goes on from there"):
        inference.infer(orchard.image, target, settings, predictor, progress=stop)
    resumed = inference.infer(orchard.image, target, settings, predictor)
    assert resumed["trust"] == whole["trust"]
    assert resumed["objects"] == whole["objects"]


def test_strict_refuses_a_strange_scene_and_writes_nothing(model, tmp_path):
    orchard, output = orchard_of(tmp_path, 32), tmp_path / "found.gpkg"
    arguments = ["infer", str(orchard.image), "-o", str(output), "--model", str(model)]
    arguments += ["--precision", "fp32"]
    found = CliRunner().invoke(main, [*arguments, "--json", "--strict"])
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["doubts"] == []
    with rasterio.open(orchard.image, "r+") as raster:
        raster.write(255 - raster.read())
    again = CliRunner().invoke(main, [*arguments, "--overwrite"])
    assert again.exit_code == 0
    assert "warning: " in again.stderr
    output.unlink()
    refused = CliRunner().invoke(main, [*arguments, "--strict"])
    assert refused.exit_code == 2
    assert "as --strict was given" in refused.stderr
    assert not output.exists()
