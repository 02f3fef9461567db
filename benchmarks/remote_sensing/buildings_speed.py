# SPDX-License-Identifier: Apache-2.0
"""How much faster rs-buildings runs than its plain network, and how much each depth saves.

    python benchmarks/remote_sensing/buildings_speed.py --csv buildings_speed.csv

One thread, one process, batch 1, the two of a pair in turn: trust the ratios, not the seconds. The
plain network is eager float32, channels first, batch norms and all, in inference mode. `default` is
what `--precision auto` takes on this processor; each smaller depth is compared with the default
path at full depth.
"""

import argparse
import csv
from dataclasses import asdict, dataclass
from pathlib import Path

import rasterio
import torch
from rasterio.windows import Window
from torch import Tensor, nn

from fieldfare.common.efficiency import bench_pair
from fieldfare.common.runtime import resolve_precision
from fieldfare.remote_sensing.buildings.networks.building_network import (
    BuildingNetwork,
    NetworkConfig,
    depths_of,
)
from fieldfare.remote_sensing.buildings.networks.fast import FastBuildingNetwork
from fieldfare.remote_sensing.buildings.networks.models import load_model


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        baseline_ms, ours_ms: medians, milliseconds an image.
        mpix_per_s: of ours.
        ratio: median over the pairs of baseline / ours; ratio_iqr: between its quartiles.
        max_difference: of the building logits, on the same weights; None between depths.
        flipped: share of pixels whose building logit changes sign; None between depths.
    """

    name: str
    baseline: str
    baseline_ms: float
    ours_ms: float
    mpix_per_s: float
    ratio: float
    ratio_iqr: float
    max_difference: float | None
    flipped: float | None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="none", help="name or file; none: random weights")
    parser.add_argument("--image", type=Path, help="GeoTIFF of bytes; random pixels without")
    parser.add_argument("--side", type=int, default=512, help="pixels along the square image")
    parser.add_argument("--repeats", type=int, default=7, help="timed pairs of each comparison")
    parser.add_argument("--csv", type=Path, help="write the rows to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = (
        BuildingNetwork(NetworkConfig())
        if arguments.model == "none"
        else load_model(arguments.model)[0]
    ).eval()
    image = read_image(arguments.image, network.config.in_channels, arguments.side)
    rows = compare(network, image, arguments.repeats)
    if arguments.csv:
        with arguments.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(asdict(rows[0])))
            writer.writeheader()
            writer.writerows(asdict(row) for row in rows)


def read_image(path: Path | None, bands: int, side: int) -> Tensor:
    """The upper left (1, bands, side, side) of a raster in [0, 1]."""
    if path is None:
        return torch.rand(1, bands, side, side)
    with rasterio.open(path) as source:
        pixels = source.read(list(range(1, bands + 1)), window=Window(0, 0, side, side))
    return torch.from_numpy(pixels)[None].float() / 255


def compare(network: BuildingNetwork, image: Tensor, repeats: int) -> list[Row]:
    """Measure and print one row after the other."""
    dtype = resolve_precision("auto", image.device)
    rows: list[Row] = []

    def add(name: str, baseline: str, a: nn.Module, b: nn.Module, *, same: bool) -> None:
        pair = bench_pair(a, b, image, repeats=repeats, warmup=2)
        difference = flipped = None
        if same:
            with torch.inference_mode():
                expected, found = a(image)[:, 0], b(image)[:, 0]
            difference = float((expected - found).abs().max())
            flipped = float(((expected > 0) != (found > 0)).float().mean())
        row = Row(
            name,
            baseline,
            pair.a.median_s * 1e3,
            pair.b.median_s * 1e3,
            image[0, 0].numel() / 1e6 / pair.b.median_s,
            pair.ratio,
            pair.ratio_iqr,
            difference,
            flipped,
        )
        rows.append(row)
        numerics = (
            "" if not same else f", logits differ by {difference:.1e}, {flipped:.4%} of pixels flip"
        )
        print(
            f"{name:10} {row.ratio:5.2f}x {baseline} (quartiles {row.ratio_iqr:.2f} apart): "
            f"{row.ours_ms:.0f} ms for {row.baseline_ms:.0f} ms, {row.mpix_per_s:.2f} Mpix/s"
            f"{numerics}",
            flush=True,
        )

    default = FastBuildingNetwork(network, dtype)
    add(f"default {str(dtype)[6:]}", "plain", network, default, same=True)
    if dtype != torch.float32:
        add("float32", "plain", network, FastBuildingNetwork(network), same=True)
    for depth in depths_of(network.config)[:-1]:
        cut = FastBuildingNetwork(network.cut(depth), dtype)
        add(f"depth {depth}", "default at full depth", default, cut, same=False)
    return rows


if __name__ == "__main__":
    main()
