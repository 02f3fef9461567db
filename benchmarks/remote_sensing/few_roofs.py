# SPDX-License-Identifier: Apache-2.0
"""What 20 outlined roofs of a scene give: object F1 on the rest of it, before and after.

    OMP_NUM_THREADS=2 python benchmarks/remote_sensing/few_roofs.py SCENE.tif LABELS.geojson \\
        [--window 0,1024,1024,512] --folder /tmp/few

Roofs are drawn by a seed; `rs-buildings train SCENE LABELS` learns from these alone. Both models
are measured where the drawn roofs are hidden: they count neither as found nor as missed.
"""

import argparse
import time
from pathlib import Path

import geopandas as gpd
import numpy as np
import rasterio
import shapely
from rasterio.windows import Window

from fieldfare.common import console
from fieldfare.common.runtime import set_threads
from fieldfare.remote_sensing.buildings.commands.evaluate_scene import evaluate_scene, labels_on
from fieldfare.remote_sensing.buildings.commands.train import train
from fieldfare.remote_sensing.buildings.evaluation.reports import table
from fieldfare.remote_sensing.buildings.inference.run import InferSettings
from fieldfare.remote_sensing.buildings.options import DEFAULT_MODEL, EvalOptions, TrainOptions

WHOLE = 0.9
"""Share of a roof that must lie in the scene for it to be drawn."""


def cut_out(scene: Path, window: str | None, target: Path) -> Path:
    """A window of a scene as a file of its own."""
    if window is None:
        return scene
    row, column, height, width = (int(side) for side in window.split(","))
    place = Window(column, row, width, height)
    with rasterio.open(scene) as source:
        profile = source.profile | {
            "height": height,
            "width": width,
            "transform": source.window_transform(place),
        }
        with rasterio.open(target, "w", **profile) as sink:
            sink.write(source.read(window=place))
    return target


def drawn(labels: gpd.GeoDataFrame, scene: Path, count: int, seed: int) -> gpd.GeoDataFrame:
    """Some of the roofs that lie in the scene."""
    with rasterio.open(scene) as source:
        border = shapely.box(*source.bounds)
    inside = labels.geometry.intersection(border).area > WHOLE * labels.geometry.area
    candidates = np.flatnonzero(inside.to_numpy())
    chosen = np.random.default_rng(seed).choice(candidates, min(count, len(candidates)), False)
    return labels.iloc[np.sort(chosen)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scene", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--window", help="row,column,height,width in pixels.")
    parser.add_argument("--folder", type=Path, required=True, help="Of the runs; they resume.")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--roofs", type=int, default=20)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    given = parser.parse_args()
    set_threads()
    given.folder.mkdir(parents=True, exist_ok=True)
    scene = cut_out(given.scene, given.window, given.folder / "scene.tif")
    labels, _ = labels_on(given.labels, scene, EvalOptions(quiet=True))
    shown = []
    for seed in given.seeds:
        few = drawn(labels, scene, given.roofs, seed)
        outlines = given.folder / f"roofs_{seed}.gpkg"
        few.to_file(outlines)
        run = given.folder / f"run_{seed}"
        begun = time.perf_counter()
        train(
            (scene, outlines),
            TrainOptions(output=run, init=given.model, steps=given.steps, seed=seed, quiet=True),
        )
        seconds = time.perf_counter() - begun
        for name, model in (("before", given.model), ("after", run / "model.safetensors")):
            settings = InferSettings(str(model), precision="fp32")
            found = evaluate_scene(
                scene,
                labels,
                settings,
                settings.predictor(),
                unknown=few.geometry.to_numpy(),
                model=name,
                depth=None,
                quiet=True,
            )
            rows = {row["set"]: row for row in table([found])}
            shown.append(
                {
                    "seed": seed,
                    "roofs": len(few),
                    "model": name,
                    "object_f1": rows["regularised"]["object_f1"],
                    "building_iou": rows["pixels"]["building_iou"],
                    "seconds": round(seconds) if name == "after" else None,
                }
            )
    print(console.table(shown))


if __name__ == "__main__":
    main()
