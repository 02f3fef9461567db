# SPDX-License-Identifier: Apache-2.0
"""Any raster by its name; never other files or the network by a file's content."""

import gzip
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from sample_rasters import smooth, write_raster

from fieldfare.common.errors import InputError
from fieldfare.remote_sensing.rasters.opening import environment, files_of, open_raster

CASES = Path(__file__).parents[1] / "cases"

VRT = """<VRTDataset rasterXSize="20" rasterYSize="20">
<VRTRasterBand dataType="Byte" band="1"{more}>
<SimpleSource><SourceFilename relativeToVRT="{beside}">{source}</SourceFilename>
<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"""


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_raster(tmp_path / "scene.tif", smooth(1, 20, 20, 5, 200).astype(np.uint8))


def vrt(path: Path, source: object, beside: int = 0, more: str = "") -> Path:
    path.write_text(VRT.format(source=source, beside=beside, more=more))
    return path


def read(path: Path | str) -> np.ndarray:
    with open_raster(Path(path)) as dataset:
        return dataset.read(1)


@pytest.mark.parametrize("name", ["/vsizip/{}", "zip://{}", "/vsizip/{{{}}}"])
@pytest.mark.parametrize("relative", [True, False])
def test_a_member_of_a_zip_works_as_the_file_itself(scene, monkeypatch, name, relative):
    """The kind of zipped_scene."""
    archive = scene.with_name("scenes.zip")
    with zipfile.ZipFile(archive, "w") as sink:
        sink.write(scene, "folder/scene.tif")
    monkeypatch.chdir(scene.parent)
    where = name.format("scenes.zip" if relative else archive)
    path = Path(where + ("!" if "://" in where else "/") + "folder/scene.tif")
    assert np.array_equal(read(path), read(scene))
    assert [file.name for file in files_of(path)] == ["scenes.zip"]


def test_tar_and_gzip_too(scene):
    with tarfile.open(scene.with_name("s.tar.gz"), "w:gz") as sink:
        sink.add(scene, "scene.tif")
    packed = scene.with_name("scene.tif.gz")
    packed.write_bytes(gzip.compress(scene.read_bytes()))
    for name in (f"/vsitar/{scene.parent}/s.tar.gz/scene.tif", f"/vsigzip/{packed}"):
        assert np.array_equal(read(name), read(scene))


@pytest.mark.parametrize("prefix", ["GTIFF_DIR:1:"])
def test_a_subdataset_is_named_as_gdal_does(scene, prefix):
    path = Path(f"{prefix}{scene}")
    assert np.array_equal(read(path), read(scene))
    assert files_of(path) == (scene,)


@pytest.mark.parametrize(
    "name", ["/vsicurl/http://127.0.0.1:9/a.tif", "https://host/a.tif", "/vsis3/b/a.tif"]
)
def test_the_network_is_asked_for(name):
    with pytest.raises(InputError, match="--allow-remote"):
        open_raster(Path(name))


SERVER = """
import http.server, pathlib, re, sys

class Ranges(http.server.SimpleHTTPRequestHandler):
    '''Files of this folder, and parts of them, as object stores give them.'''

    def do_GET(self):
        asked = re.fullmatch(r"bytes=(\\d+)-(\\d+)", self.headers.get("Range", ""))
        path = pathlib.Path(self.translate_path(self.path))
        if not asked or not path.is_file():
            return super().do_GET()
        content = path.read_bytes()
        first, last = int(asked[1]), min(int(asked[2]), len(content) - 1)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.send_header("Content-Length", str(last - first + 1))
        self.end_headers()
        self.wfile.write(content[first : last + 1])

server = http.server.HTTPServer(("127.0.0.1", 0), Ranges)
print(server.server_address[1], flush=True)
server.serve_forever()
"""


@pytest.fixture
def address(scene: Path) -> Iterator[str]:
    """Of a server of the scene's folder; a process of its own, for GDAL holds the interpreter's
    lock while it opens."""
    command = [sys.executable, "-c", SERVER]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, cwd=scene.parent, **pipes) as server:
        assert server.stdout is not None
        yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        server.kill()


@pytest.mark.parametrize("prefix", ["/vsicurl/", ""])
def test_a_scene_on_the_network_is_read_where_that_is_allowed(scene, address, monkeypatch, prefix):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    path = Path(f"{prefix}{address}/scene.tif")
    with environment(allow_remote=True):
        assert np.array_equal(read(path), read(scene))
    with environment(), pytest.raises(InputError, match="lies on the network"):
        read(path)
    with environment(allow_remote=True), pytest.raises(InputError, match="not a readable raster"):
        read(Path(f"{prefix}{address}/missing.tif"))


def test_scene_that_fetches_is_no_raster():
    with pytest.raises(InputError, match=r"XML that names other files"):
        open_raster(CASES / "scene_that_fetches.tif")


def test_damaged_gcps_are_refused():
    with pytest.raises(InputError, match="ground control points without coordinate system"):
        open_raster(CASES / "damaged_gcps.tif")


def test_5kB_claims_40x65328_is_truncated():
    with pytest.raises(InputError, match="truncated or damaged; its header announces 40 x 65328"):
        open_raster(CASES / "5kB_claims_40x65328.tif")


def test_a_file_cut_short_is_truncated_and_a_sparse_one_is_whole(scene):
    sparse = scene.with_name("sparse.tif")
    profile = {"driver": "GTiff", "width": 900, "height": 900, "count": 1, "dtype": "uint8"}
    with rasterio.open(sparse, "w", sparse_ok=True, tiled=True, **profile):
        pass
    assert read(sparse).max() == 0
    noise = np.random.default_rng(0).integers(0, 9999, (2, 700, 700)).astype(np.uint16)
    big = scene.with_name("big.tif")  # its directory comes before its pixels
    rasterio.shutil.copy(write_raster(scene.with_name("plain.tif"), noise), big, driver="COG")
    big.write_bytes(big.read_bytes()[:300_000])
    with pytest.raises(InputError, match="truncated"):
        open_raster(big)


def test_a_vrt_reads_its_sources_and_they_are_inputs(scene):
    path = vrt(scene.with_name("mosaic.vrt"), "scene.tif", beside=1)
    assert np.array_equal(read(path), read(scene))
    assert set(files_of(path)) == {path, scene}


@pytest.mark.parametrize(
    ("source", "more", "message"),
    [
        ("/vsicurl/http://127.0.0.1:9/a.tif", "", "network"),
        ("/etc/passwd", "", "not a readable raster"),
        ("/etc/passwd", ' subClass="VRTRawRasterBand"', "raw bytes"),
        ("missing.tif", "", "no such file"),
        ("&lt;GDAL_WMS&gt;&lt;/GDAL_WMS&gt;", "", "no such file"),
    ],
)
def test_a_vrt_of_what_may_not_be_opened_is_refused(tmp_path, source, more, message):
    with pytest.raises(InputError, match=message):
        open_raster(vrt(tmp_path / "odd.vrt", source, more=more))


def test_a_vrt_under_another_name_is_refused(scene):
    with pytest.raises(InputError, match=r"must be named \*\.vrt"):
        open_raster(vrt(scene.with_name("mosaic.png"), scene))


def test_overviews_elsewhere_are_refused(scene):
    with rasterio.open(scene, "r+") as dataset:
        dataset.update_tags(ns="OVERVIEWS", OVERVIEW_FILE="/etc/passwd")
    with pytest.raises(InputError, match="names another file as its overview"):
        open_raster(scene)


def test_gdal_reaches_no_network_inside_the_environment():
    with environment(), pytest.raises(rasterio.errors.RasterioIOError):
        rasterio.open("/vsicurl/http://127.0.0.1:9/a.tif")


def test_a_palette_is_decoded():
    with open_raster(CASES / "palette.tif") as dataset:
        assert [kind.name for kind in dataset.colorinterp] == ["red", "green", "blue"]
        means = dataset.read().mean(axis=(1, 2))
        assert dataset.crs is not None
        assert dataset.transform.a == pytest.approx(2.4)
    assert means == pytest.approx((92.1, 100.8, 103.0), abs=2)


def test_the_nodata_index_of_a_palette_is_transparent(tmp_path):
    path = tmp_path / "indices.tif"
    indices = np.array([[[0, 1], [2, 0]]], np.uint8)
    with rasterio.open(
        path, "w", driver="GTiff", width=2, height=2, count=1, dtype="uint8", nodata=0
    ) as sink:
        sink.write(indices)
        sink.write_colormap(1, {0: (9, 9, 9), 1: (255, 0, 0), 2: (0, 0, 255)})
    with open_raster(path) as dataset:
        assert dataset.count == 4
        assert dataset.read()[:, 0, 1].tolist() == [255, 0, 0, 255]
        assert dataset.read(4).tolist() == [[0, 255], [255, 0]]
