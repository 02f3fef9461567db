# SPDX-License-Identifier: Apache-2.0
"""A start for encoders without weights: they learn the features that the packaged one has.

    python benchmarks/remote_sensing/encoder_features.py "$FIELDFARE_DATA/sr/train" \\
        "$FIELDFARE_DATA/sr_more/train" -o starts/ --budget 120 [--encoder efficientmod_xxs]
    python benchmarks/remote_sensing/encoders.py train.csv -o encoders/ --starts starts/

Imagery without labels is enough. At strides 4, 8, 16 and 32 a 1 x 1 convolution leads from the
encoder's features to those of the teacher, both of mean 0 and deviation 1 for every channel; the
loss is their mean squared difference (Romero et al. 2015, FitNets, arXiv 1412.6550). Every encoder
gets --budget seconds of processor time, the teacher's part among them. One file of weights for
each, for `rs-buildings train --encoder NAME --encoder-weights FILE`. Files that are there stay.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import rasterio
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from fieldfare.common.console import table
from fieldfare.common.files import atomic_path
from fieldfare.common.runtime import set_threads
from fieldfare.common.training import cosine_with_warmup
from fieldfare.remote_sensing.buildings.networks.encoders import FAMILIES, STRIDES, encoder_of
from fieldfare.remote_sensing.buildings.networks.models import load_model

SIDE, BATCH, RATE = 256, 2, 1e-3
TAUGHT = STRIDES[1:]


class Imagery:
    """Random crops of SIDE pixels, turned and mirrored, at one to three times their pixel size."""

    def __init__(self, folders: list[Path], seed: int) -> None:
        self.paths = sorted(path for folder in folders for path in folder.glob("*.tif"))
        self.rng = np.random.default_rng(seed)

    def one(self) -> np.ndarray:
        with rasterio.open(self.paths[self.rng.integers(len(self.paths))]) as source:
            image = source.read((1, 2, 3))
        image = np.rot90(image, self.rng.integers(4), axes=(1, 2))
        if self.rng.random() < 0.5:
            image = image[:, :, ::-1]
        length = int(min(image.shape[1:]) / self.rng.uniform(1, 3))
        top, left = (int(self.rng.integers(size - length + 1)) for size in image.shape[1:])
        return image[:, top : top + length, left : left + length]

    def batch(self) -> Tensor:
        crops = [torch.from_numpy(self.one().copy()).float()[None] / 255 for _ in range(BATCH)]
        sized = [
            F.interpolate(crop, (SIDE, SIDE), mode="bilinear", antialias=True) for crop in crops
        ]
        return torch.cat(sized).to(memory_format=torch.channels_last)


def standard(features: Tensor) -> Tensor:
    """Mean 0 and deviation 1 for every channel of a batch."""
    spread, mean = torch.std_mean(features, dim=(0, 2, 3), keepdim=True)
    return (features - mean) / (spread + 1e-4)


def one(name: str, options: argparse.Namespace) -> dict[str, str]:
    torch.manual_seed(options.seed)
    teacher, _ = load_model("unetplusplus_lite0_drone")
    encoder = encoder_of(name, 3).to(memory_format=torch.channels_last).train()
    known = dict(zip(teacher.encoder.strides, teacher.encoder.channels, strict=True))
    own = dict(zip(encoder.strides, encoder.channels, strict=True))
    ways = nn.ModuleList(nn.Conv2d(own[stride], known[stride], 1) for stride in TAUGHT)
    optimiser = torch.optim.AdamW([*encoder.parameters(), *ways.parameters()], weight_decay=1e-2)
    imagery = Imagery(options.images, options.seed)
    begun, steps, spent = time.process_time(), 0, 0.0
    losses: list[float] = []
    while (share := spent / options.budget) < 1 or not losses:
        rate = cosine_with_warmup(round(1000 * share), steps=1000, peak=RATE, floor=0.0, warmup=20)
        for group in optimiser.param_groups:
            group["lr"] = max(rate, RATE / 50)
        images = (imagery.batch() - 0.5) / 0.5
        with torch.no_grad():
            said = dict(zip(teacher.encoder.strides, teacher.encoder(images), strict=True))
        found = dict(zip(encoder.strides, encoder(images), strict=True))
        loss = torch.stack(
            [
                F.mse_loss(standard(way(found[stride])), standard(said[stride]))
                for stride, way in zip(TAUGHT, ways, strict=True)
            ]
        ).mean()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        optimiser.step()
        losses.append(loss.item())
        steps, spent = steps + 1, time.process_time() - begun
    weights = {k: v.contiguous() for k, v in encoder.get_submodule("model").state_dict().items()}
    with atomic_path(options.output / f"{name}.safetensors") as temporary:
        save_file(weights, temporary)
    last = np.mean(losses[-max(1, steps // 10) :])
    taught = {"first loss": f"{losses[0]:.3f}", "last loss": f"{last:.3f}"}
    return {"encoder": name, "steps": str(steps), **taught}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", type=Path, nargs="+", help="Folders of RGB GeoTIFFs of 8 bits.")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--budget", type=float, default=120, help="Processor seconds of each.")
    parser.add_argument("--encoder", action="append", help="By default one of each family.")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    set_threads()
    options.output.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in options.encoder or [name for name in FAMILIES.values() if name != "lite0"]:
        if not (options.output / f"{name}.safetensors").exists():
            rows.append(one(name, options))
            print(table(rows[-1:]), flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
