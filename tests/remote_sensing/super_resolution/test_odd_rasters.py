# SPDX-License-Identifier: Apache-2.0
"""rs-sr on rasters as people have them: palettes, scales, units, archives, outputs that collide."""

import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from click.testing import CliRunner, Result
from rasterio.enums import ColorInterp
from sample_rasters import smooth, write_raster

from fieldfare.remote_sensing.super_resolution.cli import main
from fieldfare.remote_sensing.super_resolution.data.reduction import reduce_bicubic

CASES = Path(__file__).parents[1] / "cases"


def call(source: object, target: Path, *options: object, model: str = "bicubic") -> Result:
    arguments = ["infer", source, "-o", target, "--model", model, *options]
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_palette_comes_out_as_colours(tmp_path):
    result = call(CASES / "palette.tif", tmp_path / "out.tif")
    assert result.exit_code == 0, result.output
    with rasterio.open(tmp_path / "out.tif") as found:
        assert found.colorinterp == (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
        assert found.read().mean(axis=(1, 2)) == pytest.approx((92.1, 100.8, 103.0), abs=2)


@pytest.mark.parametrize("alpha", [True, False])
def test_scales_offsets_units_and_tags_of_bands_are_kept(tmp_path, alpha):
    """The kinds of scaled_with_alpha and band_units_and_tags."""
    values = smooth(4, 24, 24, 1000, 3000).astype(np.uint16)
    values[3] = 65_535
    source = write_raster(tmp_path / "in.tif", values if alpha else values[:3], photometric="RGB")
    with rasterio.open(source, "r+") as dataset:
        dataset.scales = (1e-4,) * 3 + (1.0,) * alpha
        dataset.offsets = (-0.1,) * 3 + (0.0,) * alpha
        dataset.set_band_unit(1, "reflectance")
        dataset.set_band_description(1, "B04")
        dataset.update_tags(1, wavelength_nm="665", STATISTICS_MEAN="4")
        if alpha:
            names = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)
            dataset.colorinterp = names
    assert call(source, tmp_path / "out.tif").exit_code == 0
    with rasterio.open(tmp_path / "out.tif") as found:
        assert found.scales[:3] == (1e-4,) * 3
        assert found.offsets[:3] == (-0.1,) * 3
        assert found.units[0] == "reflectance"
        assert found.descriptions[0] == "B04"
        assert found.tags(1)["wavelength_nm"] == "665"
        assert not any(key.startswith("STATISTICS") for key in found.tags(1))
        if alpha:
            assert found.colorinterp[3] == ColorInterp.alpha
            assert (found.read(4) == 65_535).all()


def test_s2_one_bright_pixel_costs_the_rest_nothing(tmp_path):
    data = os.environ.get("FIELDFARE_DATA")
    if not data:
        pytest.skip("NOT CHECKED: set FIELDFARE_DATA")
    with rasterio.open(Path(data) / "sr" / "test" / "hr" / "santa_monica_2018_0.tif") as truth:
        wanted = truth.read((1, 2, 3)).transpose(1, 2, 0)
    low = reduce_bicubic(wanted, 4).astype(np.uint16).transpose(2, 0, 1) * 12 + 1000
    low[:, 0, 0] = 16_000
    source = write_raster(tmp_path / "in.tif", low, nodata=0)
    assert call(source, tmp_path / "out.tif", model="ediffsr_small_x4").exit_code == 0
    with rasterio.open(tmp_path / "out.tif") as found:
        values = found.read().astype(float)
    error = values - (wanted.transpose(2, 0, 1) * 12.0 + 1000)
    counted = np.zeros(error.shape[1:], bool)
    counted[4:-4, 4:-4] = True
    counted[:32, :32] = False
    psnr = 20 * np.log10(3060) - 10 * np.log10((error[:, counted] ** 2).mean())
    assert psnr >= 25.0
    assert values.max() >= 12_000


def test_resume_notices_that_the_archive_of_zipped_scene_changed(tmp_path, monkeypatch):
    from fieldfare.remote_sensing.super_resolution.inference import run

    scene = write_raster(tmp_path / "scene.tif", smooth(1, 300, 20, 9, 99).astype(np.uint8))
    archive = tmp_path / "scenes.zip"

    def pack() -> None:
        with zipfile.ZipFile(archive, "w") as sink:
            sink.write(scene, "folder/scene.tif")

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    pack()
    inside = f"/vsizip/{archive}/folder/scene.tif"
    with monkeypatch.context() as patch:
        patch.setattr(run, "write_scene", stop)
        assert call(inside, tmp_path / "out.tif").exit_code != 0
    write_raster(scene, smooth(1, 300, 20, 99, 199).astype(np.uint8))
    pack()
    assert call(inside, tmp_path / "out.tif").exit_code == 0
    with rasterio.open(tmp_path / "out.tif") as found:
        assert found.read().min() > 60


def test_a_member_of_an_archive_among_several(tmp_path):
    scene = write_raster(tmp_path / "b.tif", smooth(1, 20, 20, 9, 99).astype(np.uint8))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as sink:
        sink.write(scene, "a.tif")
    (tmp_path / "out").mkdir()
    arguments = ["infer", f"/vsizip/{tmp_path}/a.zip/a.tif", scene, "-o", tmp_path / "out"]
    found = CliRunner().invoke(main, [*map(str, arguments), "--model", "bicubic"])
    assert found.exit_code == 0, found.output
    assert {path.name for path in (tmp_path / "out").glob("*.tif")} == {"a_x4.tif", "b_x4.tif"}


@pytest.mark.parametrize(
    ("output", "options", "message"),
    [
        ("o.tif", ["--preview", "o.tif"], "are one file"),
        ("o.png", [], "name it *.tif"),
        ("o.tif", ["--preview", "p.jpg"], "name it *.png"),
        ("part.tif", ["--overwrite"], "is an input"),
    ],
)
def test_outputs_that_cannot_be_are_refused(tmp_path, output, options, message):
    part = write_raster(tmp_path / "part.tif", np.full((1, 9, 9), 7, np.uint8))
    rasterio.shutil.copy(part, tmp_path / "in.vrt", driver="VRT")
    given = [tmp_path / word if "." in word else word for word in options]
    result = call(tmp_path / "in.vrt", tmp_path / output, *given)
    assert (result.exit_code, message in result.stderr) == (2, True)


def test_a_disk_that_is_too_small_is_told_before_work(tmp_path, monkeypatch):
    source = write_raster(tmp_path / "in.tif", np.full((1, 90, 90), 7, np.uint8))
    usage = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    result = call(source, tmp_path / "out.tif")
    assert (result.exit_code, "GB are needed" in result.stderr) == (2, True)
