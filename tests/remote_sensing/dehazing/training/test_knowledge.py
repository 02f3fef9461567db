# SPDX-License-Identifier: Apache-2.0
"""A dehazing model knows how its tiles looked, and says so of rasters that look otherwise."""

import json
from functools import cache

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from sample_rasters import write_raster
from scipy import ndimage

from fieldfare.common.trust.knowledge import PART
from fieldfare.common.weights import load_model_file, save_model_file
from fieldfare.remote_sensing.dehazing.cli import main
from fieldfare.remote_sensing.dehazing.data.haze import HazeRange
from fieldfare.remote_sensing.dehazing.data.pairs import BandOrder
from fieldfare.remote_sensing.dehazing.inference.familiarity import haze_features
from fieldfare.remote_sensing.dehazing.training.knowledge import learn_knowledge

HAZE, ORDER = HazeRange(), BandOrder(single_share=0)


@cache
def ground(seed: int) -> np.ndarray:
    """Texture that falls off as natural images do, (192, 192, 3) uint8."""
    rng = np.random.default_rng(seed)
    image = np.zeros((192, 192, 3))
    for sigma in (1, 2, 4, 8):
        field = ndimage.gaussian_filter(rng.normal(size=(192, 192, 3)), (sigma, sigma, 0))
        image += field / field.std() * 8 * sigma**0.5
    return np.rint(image + 100).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def learned():
    """Of what leaves tiles as they are, and the lines that were told."""
    lines = []
    known = learn_knowledge(
        lambda tiles: tiles,
        {"ground": [ground(n) for n in range(16)]},
        [ground(100 + n) for n in range(8)],
        HAZE,
        ORDER,
        seed=0,
        told=lines.append,
    )
    return known, lines


@pytest.fixture(scope="module")
def knowing_model(tiny_dehazer, tmp_path_factory, learned):
    path = tmp_path_factory.mktemp("knowing") / "knowing.safetensors"
    card, tensors = load_model_file(tiny_dehazer)
    save_model_file(path, tensors, card, {PART: learned[0].to_tensors()})
    return path


def call(source, target, model, *options):
    arguments = [
        "infer",
        source,
        "-o",
        target,
        "--model",
        model,
        "--tile",
        "64",
        "--overlap",
        "16",
        *options,
    ]
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_features_show_haze_and_colour() -> None:
    clear = ground(1).transpose(2, 0, 1)[:, :64, :64] / 255
    found, hazy = haze_features(clear), haze_features(clear * 0.5 + 0.4)
    assert found.shape == (17,)
    assert hazy[13] > found[13] + 0.1
    np.testing.assert_allclose(haze_features(clear[::-1])[14:], found[14:][::-1])


def test_every_way_of_spoiling_is_told_and_what_is_known_at_last(learned) -> None:
    known, lines = learned
    assert lines[0].startswith("as it is: 72 windows, PSNR in dB")
    assert len(lines) == 14
    assert "knows ground (144 samples)" in known.summary()


def test_from_a_few_windows_nothing_is_learned() -> None:
    def never(tiles: np.ndarray) -> np.ndarray:
        raise AssertionError("nothing is to be dehazed")

    many, few = [ground(n) for n in range(16)], [ground(100)]
    assert learn_knowledge(never, {"a": many}, few, HAZE, ORDER, seed=0) is None
    assert learn_knowledge(never, {"a": few}, many, HAZE, ORDER, seed=0) is None
    assert learn_knowledge(never, {"a": [ground(1)[:48, :48]]}, many, HAZE, ORDER, seed=0) is None


def test_of_a_familiar_raster_nothing_is_said(tmp_path, knowing_model) -> None:
    source = write_raster(tmp_path / "in.tif", ground(50).transpose(2, 0, 1), photometric="RGB")
    result = call(source, tmp_path / "o.tif", knowing_model, "--json")
    assert result.exit_code == 0, result.output
    assert "warning" not in result.stderr
    assert not json.loads(result.stdout)["trust"]["alarm"]


def test_a_strange_raster_is_told_in_line_result_and_tags(tmp_path, knowing_model) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (3, 192, 192)).astype(np.uint8)
    source = write_raster(tmp_path / "in.tif", noise, photometric="RGB")
    result = call(source, tmp_path / "o.tif", knowing_model, "--json")
    assert result.exit_code == 0, result.output
    assert f"warning: {source}: unlike what the model knows" in result.stderr
    found = json.loads(result.stdout)["trust"]
    assert found["alarm"]
    with rasterio.open(tmp_path / "o.tif") as written:
        kept = json.loads(written.tags()["FIELDFARE_PROVENANCE"])
    assert kept["trust"] == found


@pytest.mark.parametrize("many", [False, True])
def test_strict_refuses_it_before_anything_is_written(tmp_path, knowing_model, many) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (3, 192, 192)).astype(np.uint8)
    source = write_raster(tmp_path / "in.tif", noise, photometric="RGB")
    target = tmp_path / ("out" if many else "o.tif")
    if many:
        target.mkdir()
    result = call(source, target, knowing_model, "--strict")
    assert result.exit_code != 0
    assert "nothing was written" in result.stderr
    assert not list(tmp_path.rglob("*o*.tif")) + list(tmp_path.rglob("*_clear.tif"))


def test_the_manifest_of_many_holds_it(tmp_path, knowing_model) -> None:
    source = write_raster(tmp_path / "in.tif", ground(50).transpose(2, 0, 1), photometric="RGB")
    (tmp_path / "out").mkdir()
    assert call(source, tmp_path / "out", knowing_model).exit_code == 0
    assert "trust_expected" in (tmp_path / "out" / "manifest.jsonl").read_text()
