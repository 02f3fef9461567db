# SPDX-License-Identifier: Apache-2.0
"""What trainings and searches of elastic building networks share: scenes, costs, measured sizes."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from fieldfare.common.commands.train import today
from fieldfare.common.elastic.genes import Choice
from fieldfare.common.elastic.recalibrate import recalibrate
from fieldfare.common.errors import InputError
from fieldfare.common.search.tasks import require_files
from fieldfare.common.training import Draw
from fieldfare.common.weights import Metric, ModelCard, save_with_page

from ...rasters.opening import environment
from ..data.patches import PatchDataset
from ..data.table import LabelledScene, read_table
from ..inference.predict import Predictor
from ..inference.units import TILE
from ..networks.building_network import PAD, BuildingNetwork, NetworkConfig
from ..networks.elastic import SPACE, config_of
from ..networks.models import TASK, describe
from ..training.adaptation import scene_scores
from ..training.run import DataSettings
from .slimming import positive_pixels, shift_heads

BANDS = 3
BATCH = 4
DATA = DataSettings(patch=192, loss="0.5*bce+gce+dice")

PIECES, PIECE = 24, 128
"""Batches on which the statistics of a size's norms are measured, and the side of their patches."""

LEAST_M2 = 5.0
"""Smaller buildings do not count as objects."""

IOU = "building IoU on the whole scenes of the split val, pooled, at the model's pixel size"
OBJECTS = f"connected regions one to one at IoU 0.5, from {LEAST_M2:g} m2, on the same scenes"


class Sized:
    """Scenes of a table, and networks of `networks.elastic.SPACE` measured on them.

    Quality is the mean of two measures: IoU alone would praise what calls whole blocks building,
    and the F1 of objects alone what finds few.

    Attributes:
        untrained: the largest network, where it alone was trained. Its statistics of norms are
            right at all of its depths, and a smaller one shall call as many pixels building.

    Args:
        verb: of the command, for cards.
        table: of scenes with the splits train and val.
        largest: configuration of the largest network.

    Raises:
        InputError: no such table, or one without one of the splits.
    """

    space = SPACE
    unit = f"tile of {TILE} x {TILE} pixels"
    metric = f"mean of IoU ({IOU}) and object F1 ({OBJECTS})"
    command = "rs-buildings infer SCENE -o FOOTPRINTS"

    def __init__(self, verb: str, table: Path, largest: NetworkConfig, seed: int) -> None:
        require_files("buildings", [table], 1, "a table of scenes")
        self.verb, self.table, self.largest, self.seed = verb, table, largest, seed
        self.untrained: BuildingNetwork | None = None
        with environment():
            self.scenes, _ = read_table(table, bands=BANDS)
        for split in ("train", "val"):
            if not self.of_split(split):
                raise InputError(f"{table}: has no scene in the split {split}")

    def of_split(self, split: str) -> list[LabelledScene]:
        """The scenes of a split."""
        return [scene for scene in self.scenes if scene.split == split]

    def lessons(self) -> PatchDataset:
        """Patches of the split train."""
        return DATA.patches(self.scenes, self.largest)

    @cached_property
    def pieces(self) -> list[Tensor]:
        """Patches as in training but smaller, (4, bands, 128, 128) each; the same every time."""
        lessons = replace(DATA, patch=PIECE).patches(self.scenes, self.largest)
        places = np.random.default_rng(0).permutation(len(lessons))
        with environment():
            images = [
                lessons[Draw(int(places[number % len(places)]), (0, number))]["image"]
                for number in range(PIECES * BATCH)
            ]
        return list(torch.stack(images).split(BATCH))

    @cached_property
    def called(self) -> Tensor:
        """Of the pieces' pixels, those that each depth of the largest network calls positive."""
        assert self.untrained is not None
        return positive_pixels(self.untrained, self.pieces)

    def depth_alone(self, choice: Choice) -> Choice:
        """The largest network, cut to the choice's depth and nothing else."""
        return self.space.canonical({**self.space.largest(), "output": choice["output"]})

    def macs(self, choice: Choice) -> float:
        """Of one tile; counted on a smaller one, as convolutions take what their maps have."""
        network = BuildingNetwork(config_of(choice, self.largest)).eval()
        with torch.inference_mode(), FlopCounterMode(display=False) as counted:
            network(torch.zeros(1, BANDS, PAD, PAD))
        return float(counted.get_total_flops() // 2 * (TILE // PAD) ** 2)

    def runner(self, choice: Choice) -> Callable[[], object]:
        """As `rs-buildings infer` predicts a tile, in single precision."""
        network = BuildingNetwork(config_of(choice, self.largest)).eval()
        predictor = Predictor(network, precision="fp32")
        tile, start = np.zeros((1, BANDS, TILE, TILE), np.float32), np.zeros((1, 2), np.int64)
        return lambda: predictor(tile, start)

    def keep(self, network: BuildingNetwork, choice: Choice, target: Path, how: str) -> float:
        """Measure a size, write its file; the quality.

        Args:
            network: its norms' statistics are changed.
            how: it was trained, in words.
        """
        network.eval()
        if self.untrained is None:
            recalibrate(network, self.pieces)
        elif choice != self.depth_alone(choice):
            recalibrate(network, self.pieces)
            shift_heads(network, self.called, self.pieces)
        with environment():
            scores = scene_scores(network, self.of_split("val"), LEAST_M2)[-1]
        # without any building seen, object F1 is no number
        iou, objects = (0.0 if math.isnan(v) else v for v in (scores["iou"], scores["f1"]))
        config = network.config
        card = ModelCard(
            name=target.stem,
            task=TASK,
            summary=f"Building footprints: {describe(config)}, one of many sizes on the same "
            f"weights, at {config.gsd:g} m per pixel.",
            config=config.to_dict(),
            data=f"{self.table.name}: {len(self.of_split('train'))} scenes",
            split=f"by area: {len(self.of_split('val'))} scenes for validation",
            training=f"fieldfare {self.verb}: {how}; genes {dict(choice)}",
            limits="without knowledge of where it is at home; rs-buildings train --init goes on "
            "from it",
            seed=self.seed,
            date=today(),
            metrics=(Metric("iou", iou, IOU), Metric("object_f1", objects, OBJECTS)),
        )
        save_with_page(target, network.state_dict(), card)
        return (iou + objects) / 2
