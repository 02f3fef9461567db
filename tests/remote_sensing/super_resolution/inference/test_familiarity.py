# SPDX-License-Identifier: Apache-2.0
"""What a raster looks like, and what follows for the run."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from sample_rasters import smooth, write_raster
from scipy import ndimage

from fieldfare.common.trust.knowledge import PART, Samples, learn
from fieldfare.common.weights import load_model_file, save_model_file
from fieldfare.remote_sensing.rasters.looks import features_of, windows_features
from fieldfare.remote_sensing.rasters.reading import Scene, ValueRange
from fieldfare.remote_sensing.super_resolution.cli import main
from fieldfare.remote_sensing.super_resolution.data.degradations import Degradation, degrade
from fieldfare.remote_sensing.super_resolution.inference import familiarity, looks

UNIT = ValueRange(0, 255)


@cache
def ground(seed, side=256):
    """Texture that falls off as natural images do, (side, side, 3) uint8."""
    rng = np.random.default_rng(seed)
    image = np.zeros((side, side, 3))
    for sigma in (1, 2, 4, 8, 16):
        field = ndimage.gaussian_filter(rng.normal(size=(side, side, 3)), (sigma, sigma, 0))
        image += field / field.std() * 8 * sigma**0.5
    return np.rint(image + 120).clip(0, 255).astype(np.uint8)


def low(seed, **how):
    image = degrade(ground(seed), 4, Degradation(**how), np.random.default_rng(seed))
    return (image.transpose(2, 0, 1) / 255).astype(np.float32)


def sampled(seeds, **how):
    return np.stack([features_of(low(seed, **how)) for seed in seeds])


@pytest.fixture(scope="module")
def estimate():
    """Fitted on blur, sharpening, noise and compression of made-up ground."""
    kinds = {
        (0.0, 0.0, 0.0): {},
        (-15.0, 0.0, 0.0): {"blur_sigma": 1.0},
        (10.0, 0.0, 0.0): {"sharpen_amount": 2.0},
        (0.0, 8.0, 0.0): {"noise_sigma": 8},
        (0.0, 0.0, 70.0): {"jpeg_quality": 30},
    }
    features = np.concatenate([sampled(range(16), **how) for how in kinds.values()])
    signs = np.repeat(np.array(list(kinds)), 16, axis=0)
    clean = sampled(range(16, 40))
    return looks.fitted(features, signs, clean, clean)


@pytest.mark.parametrize(
    ("how", "word"),
    [
        ({"blur_sigma": 1.0}, "blurred"),
        ({"sharpen_amount": 2.0}, "over-sharpened"),
        ({"noise_sigma": 8}, "noisy"),
        ({"jpeg_quality": 30}, "compressed"),
    ],
)
def test_new_ground_is_named_for_what_was_done_to_it(estimate, how, word):
    features = sampled(range(50, 58), **how)
    signs = np.median(estimate.estimate(features), axis=0)
    assert word in (estimate.sentence(signs) or "")
    assert estimate.processed(signs) == (word != "blurred")


def test_clean_ground_has_nothing_said_of_it(estimate):
    features = sampled(range(50, 58))
    signs = np.median(estimate.estimate(features), axis=0)
    assert estimate.sentence(signs) is None
    assert not estimate.processed(signs)


def test_tensors_carry_it(estimate):
    again = looks.Looks.from_tensors(estimate.to_tensors())
    assert vars(again).keys() == vars(estimate).keys()
    for name, array in vars(again).items():
        assert np.array_equal(array, getattr(estimate, name))
    with pytest.raises(ValueError, match="not an estimate"):
        looks.Looks.from_tensors({})


def test_windows_are_spread_over_the_raster_and_skip_what_is_missing(tmp_path):
    values = smooth(1, 200, 130, 5, 250).astype(np.uint8)
    values[:, :100] = 0
    path = write_raster(tmp_path / "in.tif", values, nodata=0)
    with Scene(path) as scene:
        found = windows_features(scene, UNIT, channels=3)
    assert found.shape == (3, 13)
    path = write_raster(tmp_path / "small.tif", values[:, 100:110])
    with Scene(path) as scene:
        assert not len(windows_features(scene, UNIT, channels=3))


@pytest.fixture(scope="module")
def knowing_model(tiny_model, tmp_path_factory, estimate):
    """The tiny model, which knows clean reductions and gains nothing on others."""
    features = np.concatenate(
        [sampled(range(40, 60), **how) for how in ({}, {"sharpen_amount": 2.0})]
    )
    home = np.arange(40) < 20
    validation = Samples(
        [features], familiarity.signs_of(estimate.estimate(features)), 2.0 * home, home
    )
    known = learn(
        familiarity.LAYERS,
        {"ground": [sampled(range(30))]},
        validation,
        signs=("a", "b", "c", "d"),
        quality=familiarity.QUALITY,
    )
    path = tmp_path_factory.mktemp("knowing") / "knowing.safetensors"
    card, tensors = load_model_file(tiny_model)
    parts = {PART: known.to_tensors(), looks.PART: estimate.to_tensors()}
    save_model_file(path, tensors, card, parts)
    return path


def call(source: Path, target: Path, model: Path, *options: str):
    arguments = ["infer", source, "-o", target, "--model", model, "--tile", "32", *options]
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def scene_of(path, **how):
    image = np.rint(low(60, **how) * 255).astype(np.uint8)
    return write_raster(path, image, photometric="RGB")


def test_a_familiar_raster_is_held_to_and_nothing_is_said(tmp_path, knowing_model):
    result = call(scene_of(tmp_path / "in.tif"), tmp_path / "o.tif", knowing_model, "--json")
    assert result.exit_code == 0, result.output
    assert "warning" not in result.stderr
    found = json.loads(result.stdout)
    assert found["consistent"]
    assert not found["trust"]["alarm"]
    assert found["trust"]["expected"] > 1
    assert found["looks"] is None


def test_an_over_sharpened_raster_is_told_and_not_held_to(tmp_path, knowing_model):
    source = scene_of(tmp_path / "in.tif", sharpen_amount=2.0)
    result = call(source, tmp_path / "o.tif", knowing_model, "--json")
    assert result.exit_code == 0, result.output
    warnings = [line for line in result.stderr.splitlines() if line.startswith("warning:")]
    assert len(warnings) == 2
    assert "unlike what the model knows" in warnings[0]
    assert "over-sharpened: sharpness about" in warnings[1]
    found = json.loads(result.stdout)
    assert not found["consistent"]
    assert found["trust"]["alarm"]
    with rasterio.open(tmp_path / "o.tif") as written:
        kept = json.loads(written.tags()["FIELDFARE_PROVENANCE"])
    assert kept["trust"] == found["trust"]
    assert kept["signs"]["sharpness"] > 3
    assert found["softening"] > 3
    assert "looks sharpened by about" in call(source, tmp_path / "p.tif", knowing_model).stderr
    held = call(source, tmp_path / "h.tif", knowing_model, "--json", "--consistent")
    assert json.loads(held.stdout)["consistent"]
    assert json.loads(held.stdout)["softening"] == 0


@pytest.mark.parametrize("many", [False, True])
def test_strict_refuses_it_before_anything_is_written(tmp_path, knowing_model, many):
    source = scene_of(tmp_path / "in.tif", sharpen_amount=2.0)
    target = tmp_path / ("out" if many else "o.tif")
    if many:
        target.mkdir()
    result = call(source, target, knowing_model, "--strict")
    assert result.exit_code != 0
    assert "nothing was written" in result.stderr
    assert not list(tmp_path.rglob("*o*.tif")) + list(tmp_path.rglob("*_x4.tif"))


def test_the_manifest_of_many_holds_it(tmp_path, knowing_model):
    source = scene_of(tmp_path / "in.tif", sharpen_amount=2.0)
    (tmp_path / "out").mkdir()
    assert call(source, tmp_path / "out", knowing_model).exit_code == 0
    lines = (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()
    text = next(line for line in lines if "trust_expected" in line)
    assert "sharpness" in text
    assert "softening" in text
