# SPDX-License-Identifier: Apache-2.0
"""The Kampala scenes as a table for rs-buildings train: west for training, the rest for tests.

    python benchmarks/remote_sensing/kampala.py -o kampala/ \\
        --data "$FIELDFARE_DATA/buildings/kampala_oam"

Writes the left two thirds of scene A at 0.15 and 0.075 m per pixel (mosaics of the map tiles of
zoom 20 and 21, with their alpha) and `train.csv`. The right third of A and scene B are left out.
"""

import argparse
import csv
import re
from pathlib import Path

import numpy as np
import rasterio
from PIL import Image
from rasterio import Affine
from rasterio.enums import ColorInterp

EDGE = 20037508.342789244
"""Half the side of the Web-Mercator square, metres."""

TILE = 256


def mosaic(data: Path, zoom: int, target: Path) -> None:
    """Join the tiles of one zoom that lie in the left two thirds of scene A."""
    step = 2 * EDGE / TILE / 2**zoom
    with rasterio.open(data / "scene_A_z20.tif") as scene:
        left, bottom, right, top = scene.bounds
    right = left + (right - left) * 2 / 3
    first_column, last_column = (round((x + EDGE) / step / TILE) for x in (left, right))
    first_row, last_row = (round((EDGE - y) / step / TILE) for y in (top, bottom))
    shape = ((last_row - first_row) * TILE, (last_column - first_column) * TILE)
    image = np.zeros((4, *shape), np.uint8)
    for path in sorted((data / f"tiles_z{zoom}").glob("*.png")):
        found = re.search(r"(\d+)-(\d+)-\d+$", path.stem)
        column, row = int(found[1]) - first_column, int(found[2]) - first_row  # type: ignore[index]
        if 0 <= column < shape[1] // TILE and 0 <= row < shape[0] // TILE:
            pixels = np.asarray(Image.open(path).convert("RGBA")).transpose(2, 0, 1)
            here = np.s_[:, row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE]
            image[here] = pixels
    with rasterio.open(
        target,
        "w",
        driver="GTiff",
        count=4,
        height=shape[0],
        width=shape[1],
        dtype="uint8",
        crs="EPSG:3857",
        transform=Affine(step, 0, left, 0, -step, top),
        tiled=True,
        blockxsize=TILE,
        blockysize=TILE,
        photometric="RGB",
        compress="deflate",
    ) as sink:
        sink.write(image)
        sink.colorinterp = [*sink.colorinterp[:3], ColorInterp.alpha]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    rows = []
    for zoom in (20, 21):
        name = f"A_west_z{zoom}.tif"
        mosaic(options.data, zoom, options.output / name)
        labels = (options.data / "labels.geojson").resolve()
        rows.append({"image": name, "labels": str(labels), "split": "train", "area": "A west"})
    with open(options.output / "train.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    print(options.output / "train.csv")


if __name__ == "__main__":
    main()
