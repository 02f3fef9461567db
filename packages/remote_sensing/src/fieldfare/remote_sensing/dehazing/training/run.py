# SPDX-License-Identifier: Apache-2.0
"""Training: mean absolute error on clear tiles under synthetic haze, and the run."""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fieldfare.common.errors import InputError
from fieldfare.common.training import TrainSettings, fit
from fieldfare.common.trust.knowledge import Knowledge

from ...rasters.tiles import read_tiles
from ..data.haze import HazeRange, hazy, noise_level
from ..data.pairs import BandOrder, HazeDataset
from ..inference.dehazers import NetworkDehazer
from ..networks.deanet import DEANet, DEANetConfig, start_almost_clear
from .knowledge import learn_knowledge


@dataclass(frozen=True)
class DataSettings:
    """What is drawn from the tiles.

    Attributes:
        patch: side of the training crop in pixels (the published: 256).
        holdout: every n-th tile of each folder, in order of name, is kept for validation.
        haze: what hazes are drawn from.
        order: in which order the bands are shown.
    """

    patch: int = 192
    holdout: int = 40
    haze: HazeRange = field(default_factory=HazeRange)
    order: BandOrder = field(default_factory=BandOrder)


def loss(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Mean absolute error of a batch of `HazeDataset`.

    The published loss adds a tenth of a contrastive term on VGG-19 features, whose weights are not
    free; it is left out.
    """
    seen = batch["hazy"].contiguous(memory_format=torch.channels_last)
    found: Tensor = (model(seen).float() - batch["clear"]).abs().mean()
    return found


class HazeValidation:
    """PSNR in dB on held-out tiles under one fixed haze each, and on the same tiles clear.

    `psnr_hazy` is that of the hazy input, `psnr_clear` how little clear tiles are changed.
    """

    def __init__(self, tiles: list[np.ndarray], haze: HazeRange) -> None:
        always = dataclasses.replace(haze, clear_share=0.0)
        self.pairs = []
        for number, tile in enumerate(tiles):
            rng = np.random.default_rng(number)
            drawn = always.draw(tile.shape[:2], tile.shape[2], rng)
            pair = (tile, hazy(tile, drawn, rng, noise_level(tile)))
            self.pairs.append([torch.from_numpy(i.transpose(2, 0, 1).copy()) for i in pair])

    def __call__(self, model: DEANet) -> dict[str, float]:
        device = next(model.parameters()).device
        values: dict[str, list[float]] = {"psnr": [], "psnr_hazy": [], "psnr_clear": []}
        for pair in self.pairs:
            clear, seen = (i[None].to(device).float() / 255 for i in pair)
            values["psnr"].append(_psnr(model(seen), clear))
            values["psnr_hazy"].append(_psnr(seen, clear))
            values["psnr_clear"].append(_psnr(model(clear), clear))
        return {name: float(np.mean(v)) for name, v in values.items()}


def _psnr(image: Tensor, truth: Tensor) -> float:
    error = (image.clamp(0, 1) - truth).square().mean().item()
    return -10 * math.log10(max(error, 1e-7))


def train(
    config: DEANetConfig,
    folders: Sequence[Path],
    settings: TrainSettings,
    data: DataSettings,
    folder: Path,
    *,
    start: Mapping[str, Tensor] | None = None,
    quiet: bool = False,
    told: Callable[[str], None] = lambda line: None,
) -> tuple[DEANet, Knowledge | None]:
    """Train a model on folders of clear uint8 GeoTIFF tiles: red, green, blue.

    Args:
        start: weights to begin with (fine-tuning); a fresh model when None.
        told: gets lines on what the model knows.

    Returns:
        The model with averaged weights, and what it knows; log, curve and checkpoint lie in
        `folder`.

    Raises:
        InputError: a crop too small for the network or too large for the tiles, or unfit tiles.
    """
    identity = json.dumps([config.to_dict(), dataclasses.asdict(data), start is not None])
    settings = dataclasses.replace(settings, identity=identity)
    torch.manual_seed(settings.seed)
    model = DEANet(config)
    if start is not None:
        model.load_state_dict(start)
    elif config.head == "scattering":
        start_almost_clear(model)
    if data.patch < model.least_side:
        raise InputError(f"--patch {data.patch}: this network takes {model.least_side} or more")
    model.to(memory_format=torch.channels_last)
    images = [read_tiles(tiles, config.channels) for tiles in folders]
    held_out = [image for part in images for image in part[:: data.holdout]]
    dataset = HazeDataset(
        [image for part in images for n, image in enumerate(part) if n % data.holdout],
        patch=data.patch,
        haze=data.haze,
        order=data.order,
    )
    fit(
        model,
        dataset,
        loss,
        settings,
        folder,
        validate=HazeValidation(held_out, data.haze),
        quiet=quiet,
    )
    known = {
        f"{tiles.parent.name}/{tiles.name}": [i for n, i in enumerate(part) if n % data.holdout]
        for tiles, part in zip(folders, images, strict=True)
    }
    dehazer = NetworkDehazer(model.eval(), device="cpu", precision="fp32")
    knowledge = learn_knowledge(
        dehazer, known, held_out, data.haze, data.order, seed=settings.seed, told=told
    )
    return model, knowledge
