# SPDX-License-Identifier: Apache-2.0
"""What a whole scene takes: the plain network, the default path, and tiles that share less.

    OMP_NUM_THREADS=1 python benchmarks/remote_sensing/buildings_scene_speed.py scene.tif \\
        labels.geojson [--model unetplusplus_lite0_drone]

Processor seconds of `infer` from the opened model to the outlines, one thread, those until the last
tile and those of the outlines by themselves, and building IoU with the labels on the model's
pixels. `plain` is eager float32, channels first, batch norms and all, in the same tiles as the
default. `default` is what `--precision auto` takes on this processor; `thin` has tiles that share
32 pixels (`--overlap 32`).
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import rasterio
import rasterio.features
import torch
from torch import Tensor, nn

from fieldfare.common.console import table
from fieldfare.common.runtime import set_threads
from fieldfare.remote_sensing.buildings.data.labels import read_labels
from fieldfare.remote_sensing.buildings.inference.footprints import (
    FULL,
    MISSING,
    FootprintSettings,
    extract,
)
from fieldfare.remote_sensing.buildings.inference.run import InferSettings, Targets, infer
from fieldfare.remote_sensing.buildings.networks.models import load_model
from fieldfare.remote_sensing.rasters.georeference import georeference_of
from fieldfare.remote_sensing.rasters.opening import environment, open_raster
from fieldfare.remote_sensing.scenes.ground import placed


class ChannelsFirst(nn.Module):
    """The network as it is built, on tensors as they usually lie."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.contiguous_format)

    def forward(self, image: Tensor) -> Tensor:
        found: Tensor = self.network(image.contiguous(memory_format=torch.contiguous_format))
        return found


def iou(probability: Path, scene: Path, labels: Path) -> float:
    """Of the class building, where there are probabilities."""
    truth = read_labels(labels, scene, None)
    with open_raster(scene) as source:
        polygons = placed(truth.polygons, georeference_of(source).transform)
    with rasterio.open(probability) as found:
        levels, shape, grid = found.read(1), found.shape, found.transform
    known = levels != MISSING
    seen = known & (levels >= 0.5 * FULL)
    wanted = known & (rasterio.features.rasterize(polygons, out_shape=shape, transform=grid) > 0)
    return float((seen & wanted).sum() / (seen | wanted).sum())


def outlining(probability: Path) -> float:
    """Processor seconds from the probabilities to squared outlines."""
    start = time.process_time()
    extract(probability, FootprintSettings())
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scene", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--model", default="unetplusplus_lite0_drone")
    options = parser.parse_args()
    set_threads()
    torch.set_num_threads(1)
    default = InferSettings(options.model, device="cpu")
    ways = {
        "plain": replace(default, precision="fp32"),
        "default": default,
        "thin": replace(default, overlap=32),
    }
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, environment():
        for name, settings in ways.items():
            predictor = settings.predictor()
            if name == "plain":
                plain: Any = ChannelsFirst(load_model(options.model)[0].eval())
                predictor.network = plain
                predictor.knowledge = predictor.guard = None  # which look at the fast one
            probability = Path(folder) / f"{name}.tif"
            targets = Targets(Path(folder) / f"{name}.parquet", probability=probability)
            stamps = [time.process_time()]
            result = infer(
                options.scene, targets, settings, predictor,
                progress=lambda done, total, stamps=stamps: stamps.append(time.process_time()),
            )  # fmt: skip
            tiles, seconds = stamps[-1] - stamps[0], time.process_time() - stamps[0]
            rows.append(
                {
                    "way": name, "precision": str(predictor.dtype)[6:], "overlap": settings.overlap,
                    "tiles": result["tiles"], "tiles_s": tiles, "all_s": seconds,
                    "outlines": result["buildings"], "outlines_s": outlining(probability),
                    "tiles_ratio": rows[0]["tiles_s"] / tiles if rows else 1.0,
                    "ratio": rows[0]["all_s"] / seconds if rows else 1.0,
                    "iou": iou(probability, options.scene, options.labels),
                }
            )  # fmt: skip
    print(table(rows))


if __name__ == "__main__":
    main()
