# SPDX-License-Identifier: Apache-2.0
"""Sharpening is undone before a raster is enlarged, the same whatever the tiles."""

import json

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from sample_rasters import write_raster
from scipy import ndimage

from fieldfare.remote_sensing.super_resolution.cli import main
from fieldfare.remote_sensing.super_resolution.data.degradations import Degradation, degrade
from fieldfare.remote_sensing.super_resolution.inference.softening import (
    RADIUS,
    SIGMA,
    excess,
    softened,
)


@pytest.fixture
def image():
    rng = np.random.default_rng(3)
    return ndimage.gaussian_filter(rng.random((3, 48, 40)), (0, 0.7, 0.7)).astype(np.float32)


def masked(image, amount):
    return image + amount * (image - ndimage.gaussian_filter(image, (0, SIGMA, SIGMA), truncate=6))


@pytest.mark.parametrize("amount", [0.5, 1.5, 3])
def test_it_is_the_inverse_of_an_unsharp_mask(image, amount):
    at_nyquist = 1 - np.exp(-2 * (np.pi * SIGMA * 0.5) ** 2)
    decibels = 20 * np.log10(1 + amount * at_nyquist)
    inside = np.s_[:, RADIUS:-RADIUS, RADIUS:-RADIUS]
    wrong = masked(image, amount)[inside] - image[inside]
    left = softened(masked(image, amount), decibels)[inside] - image[inside]
    assert left.std() < 0.03 * wrong.std()


def test_flat_images_and_clean_ones_stay_as_they_are(image):
    flat = np.full((1, 20, 20), 0.4, np.float32)
    np.testing.assert_allclose(softened(flat, 9), flat, atol=1e-6)
    assert softened(image, 0) is image


def test_a_part_comes_out_as_the_whole(image):
    whole = softened(image, 8)
    part = softened(image[:, 10:34, 8:36], 8)
    inside = np.s_[:, RADIUS:-RADIUS, RADIUS:-RADIUS]
    np.testing.assert_allclose(part[inside], whole[:, 10:34, 8:36][inside], atol=1e-6)


def test_what_clean_reductions_may_have_is_left():
    assert [excess(s, 5.0) for s in (-8, 0, 2.5, 5, 9)] == [0, 0, 0, 2.5, 6.5]


def test_sharpened_imagery_comes_nearer_to_the_truth_by_it(tmp_path, data):
    """With the packaged model, on a tile held out of its training, reduced and sharpened."""
    with rasterio.open(data / "sr" / "train" / "long_beach_2018_49.tif") as scene:
        truth = scene.read((1, 2, 3))
    how = Degradation(sharpen_amount=3.0)
    sharp = degrade(truth.transpose(1, 2, 0), 4, how, np.random.default_rng(0))
    source = write_raster(tmp_path / "in.tif", sharp.transpose(2, 0, 1), photometric="RGB")
    errors = {}
    for name, options in {"undone": (), "left": ("--consistent",)}.items():
        target = tmp_path / f"{name}.tif"
        arguments = ["infer", source, "-o", target, "--steps", "1", "--json", *options]
        result = CliRunner().invoke(main, [str(argument) for argument in arguments])
        assert result.exit_code == 0, result.output
        assert (json.loads(result.stdout)["softening"] > 3) == (name == "undone")
        with rasterio.open(target) as written:
            errors[name] = np.abs(written.read().astype(float) - truth).mean()
    assert errors["undone"] < 0.7 * errors["left"]
