# SPDX-License-Identifier: Apache-2.0
"""What `fieldfare search tumours TABLE.csv` searches: width, depth and blocks of the 3D network."""

import tempfile
from collections.abc import Callable
from dataclasses import replace
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

from ..data.patches import DataSettings, cache_cases
from ..data.table import LabelledCase, read_table
from ..inference.predict import Predictor
from ..networks.config import PRESETS, NetworkConfig
from ..networks.create import create_network
from ..networks.models import TASK, describe
from ..training.run import Validation, train
from .train import LIMITS

STEPS, BATCH, SIDE = 100, 2, 48
"""Of a short run: steps, patches a step, side of a patch and of a unit's tile."""

BLOCKS = {1: (1, 1, 1, 1), 2: (1, 1, 2, 2), 3: (1, 2, 3, 3)}
"""Of each level, by the gene `depth`."""

SPACE = Space(
    {
        "width": (8, 12, 16, 24),
        "depth": tuple(BLOCKS),
        "expansion": (1, 2, 4),
        "attention": ("none", "se"),
        "learning_rate": (1e-3, 2e-3, 4e-3),
    }
)
HAND_MADE: dict[str, Value] = {
    "width": 16,
    "depth": 3,
    "expansion": 2,
    "attention": "none",
    "learning_rate": 1e-3,
}
"""The preset reversible_small, as `med-seg train` trains it."""


class TumoursSearch:
    """A `search.tasks.Task`: Dice of held-out cases after a short training.

    Raises:
        InputError: not one table of cases, or one without the splits train and val.
    """

    space = SPACE
    recipe = ("learning_rate",)
    unit = f"tile of {SIDE} x {SIDE} x {SIDE} voxels"
    metric = "Dice on the whole cases of the split val, mean over WT, TC and ET"
    command = "med-seg infer CASE -o LABELS"

    def __init__(self, given: Given) -> None:
        require_files("tumours", given.data, 1, "one table of cases, as med-seg train")
        self.table = given.data[0]
        self.cases = read_table(self.table, scheme=None)
        for split in ("train", "val"):
            if not self.of_split(split):
                raise InputError(f"{self.table}: has no case in the split {split}")
        self.steps, self.seed, self.device = given.steps or STEPS, given.seed, given.device
        self.identity = {
            "steps": self.steps,
            "batch": BATCH,
            "cases": [case.identity for case in self.cases],
        }
        if given.folder is None:
            self._temporary = tempfile.TemporaryDirectory()  # goes with the task
        self.prepared = (given.folder or Path(self._temporary.name)) / "prepared"
        self.presets = {"reversible_small": SPACE.canonical(HAND_MADE)}

    def of_split(self, split: str) -> list[LabelledCase]:
        """The cases of a split."""
        return [case for case in self.cases if case.split == split]

    @cached_property
    def validation(self) -> Validation:
        """On the cases of the split val; all networks work on one grid."""
        config = config_of(SPACE.smallest())
        cases = cache_cases(self.of_split("val"), config, self.prepared, quiet=True)
        return Validation(cases, config)

    def macs(self, choice: Choice) -> float:
        """Of one tile."""
        config = config_of(choice)
        network = create_network(config)
        return float(efficiency.cost(network, (1, len(config.modalities), SIDE, SIDE, SIDE)).macs)

    def runner(self, choice: Choice) -> Callable[[], object]:
        """As `med-seg infer` predicts a tile, in single precision."""
        config = config_of(choice)
        predictor = Predictor(create_network(config), precision="fp32")
        tile = np.zeros((1, len(config.modalities), SIDE, SIDE, SIDE), np.float32)
        return lambda: predictor(tile)

    def evaluate(self, choice: Choice, target: Path, work: Path) -> float:
        """Train from fresh weights on the split train."""
        config, rate = config_of(choice), float(choice["learning_rate"])
        settings = TrainSettings(
            steps=self.steps,
            batch_size=BATCH,
            learning_rate=rate,
            warmup_steps=min(50, self.steps // 10),
            weight_decay=1e-2,
            clip_norm=1.0,
            ema_decay=0.95,  # of a run of so few steps
            seed=self.seed,
            device=self.device,
            checkpoint_every=max(1, self.steps // 4),
        )
        network = train(
            config,
            self.of_split("train"),
            settings,
            DataSettings(size=config.patch),
            work,
            prepared=self.prepared,
            quiet=True,
        )
        with torch.no_grad():
            quality = self.validation(network).get("dice", 0.0)
        card = ModelCard(
            name=target.stem,
            task=TASK,
            summary=f"Brain tumour regions WT, TC, ET in MRI: {describe(config)}, found by "
            "fieldfare search.",
            config=config.to_dict(),
            data=f"{self.table.name}: {len(self.of_split('train'))} cases",
            split=f"by patient: {len(self.of_split('val'))} cases for validation, which chose "
            "among networks",
            training=f"fieldfare search tumours: {self.steps} steps of {BATCH} patches of {SIDE} "
            f"voxels a side, learning rate {rate:g}, {self.device}",
            limits=f"{LIMITS} A short run; med-seg train --init goes on from it.",
            seed=self.seed,
            date=today(),
            metrics=(Metric("dice", quality, self.metric),),
        )
        save_with_page(target, network.state_dict(), card)
        return quality


def config_of(choice: Choice) -> NetworkConfig:
    """The network of a choice: reversible_small in another size."""
    width = choice.number("width")
    return replace(
        PRESETS["reversible_small"],
        channels=(width, 2 * width, 6 * width, 12 * width),
        blocks=BLOCKS[choice.number("depth")],
        expansion=choice.number("expansion"),
        attention=str(choice["attention"]),
        patch=(SIDE,) * 3,
    )
