# SPDX-License-Identifier: Apache-2.0
"""One command's result is another's input, as the pages say."""

import json

import rasterio
from click.testing import CliRunner

from fieldfare.remote_sensing.dehazing.cli import main as dehaze
from fieldfare.remote_sensing.super_resolution.cli import main as enlarge


def test_a_dehazed_raster_goes_on_to_super_resolution(rgb, tmp_path):
    clear, enlarged = str(tmp_path / "clear.tif"), str(tmp_path / "x4.tif")
    first = ["infer", str(rgb), "-o", clear, "--model", "dark-channel", "--quiet"]
    second = ["infer", clear, "-o", enlarged, "--model", "bicubic", "--quiet"]
    for command, arguments in ((dehaze, first), (enlarge, second)):
        result = CliRunner().invoke(command, arguments)
        assert result.exit_code == 0, result.output
    with rasterio.open(rgb) as before, rasterio.open(enlarged) as after:
        assert after.bounds == before.bounds
        assert after.crs == before.crs
        assert after.shape == (160, 208)
        made = json.loads(after.tags()["FIELDFARE_PROVENANCE"])
    assert (made["source"], made["model"]) == ("clear.tif", "bicubic")
