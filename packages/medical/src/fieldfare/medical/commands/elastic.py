# SPDX-License-Identifier: Apache-2.0
"""What `fieldfare elastic tumours TABLE.csv` trains: reversible U-Nets of many sizes at once."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from fieldfare.common import efficiency
from fieldfare.common.commands.train import today
from fieldfare.common.elastic.genes import Choice, Space
from fieldfare.common.elastic.network import ElasticNet
from fieldfare.common.elastic.teacher import Teacher
from fieldfare.common.errors import InputError
from fieldfare.common.search.tasks import Given, require_files
from fieldfare.common.training import TrainSettings
from fieldfare.common.weights import Metric, ModelCard, save_with_page

from ..data.patches import DataSettings, PatchDataset, cache_cases
from ..data.table import LabelledCase, read_table
from ..inference.predict import Predictor
from ..networks.config import PRESETS
from ..networks.create import create_network
from ..networks.elastic import config_of, elastic_network, sort_channels, space_of
from ..networks.models import TASK, describe, load_model
from ..phantoms.anatomy import load_atlas
from ..phantoms.generate import PHANTOMS
from ..training.losses import (
    SMOOTHING,
    cross_entropy,
    deep_supervision,
    level_weights,
    truth_maps,
)
from ..training.run import Validation
from ..training.synthetic import SyntheticPatches
from .train import LIMITS

STEPS, BATCH, SIDE, RATE = 400, 2, 48, 1e-3
"""Of a training: steps, patches a step, side of a patch and of a unit's tile, learning rate."""

OVERLAP = 0
"""Voxels that tiles share at the least, where a size is measured and as its variant has them."""

MODALITY_DROPOUT = 0.15
"""Share of the patches that lack modalities, for networks that can do without some."""

DRAWN = "phantoms drawn on the way"

LABELS = 0.5
"""Share of the labels in the loss of cases, beside a teacher. Of phantoms that are drawn on the way
the teacher alone tells: more of their labels made the packaged network no better."""


class TumoursElastic:
    """A `search.sizes.ElasticTask`.

    Where the table has no case in the split train, phantoms are drawn on the way.

    Raises:
        InputError: not one table of cases, or one without the split val.
    """

    task = TASK
    unit = f"tile of {SIDE} x {SIDE} x {SIDE} voxels"
    metric = f"Dice, the mean over the whole cases of the split val, overlap of tiles {OVERLAP}"
    command = "med-seg infer CASE -o LABELS"

    def __init__(self, given: Given) -> None:
        require_files("tumours", given.data, 1, "one table of cases, as med-seg train")
        self.table = given.data[0]
        self.largest = replace(PRESETS["reversible_small"], patch=(SIDE,) * 3)
        self.cases = read_table(self.table, scheme=None)
        if not self.of_split("val"):
            raise InputError(f"{self.table}: has no case in the split val")
        self.drawn = not self.of_split("train")
        if self.drawn:
            load_atlas()  # says what is missing before work starts
        if given.folder is None:
            self._temporary = tempfile.TemporaryDirectory()  # goes with the task
        self.prepared = (given.folder or Path(self._temporary.name)) / "prepared"
        self.teacher: Teacher | None = None
        steps = given.steps or STEPS
        self.settings = TrainSettings(
            steps=steps,
            batch_size=BATCH,
            learning_rate=RATE,
            warmup_steps=min(50, steps // 10),
            weight_decay=1e-2,
            clip_norm=1.0,
            ema_decay=0.99,  # of a run of so few steps
            seed=given.seed,
            device=given.device,
            checkpoint_every=max(1, min(25, steps // 4)),
            log_every=max(1, min(20, steps // 4)),
            identity=f"{PHANTOMS} {[case.identity for case in self.cases]}",
        )

    def of_split(self, split: str) -> list[LabelledCase]:
        """The cases of a split."""
        return [case for case in self.cases if case.split == split]

    @property
    def space(self) -> Space:
        """Of the sizes of the largest network."""
        return space_of(self.largest)

    @property
    def data(self) -> DataSettings:
        """What is drawn."""
        dropout = MODALITY_DROPOUT if self.largest.modality_dropout else 0.0
        return DataSettings(size=(SIDE,) * self.largest.ndim, modality_dropout=dropout)

    def elastic(self, init: str | None) -> ElasticNet:
        """Of fresh weights; or from a model of the largest size, which then teaches all."""
        torch.manual_seed(self.settings.seed)
        if init is None:
            return elastic_network(self.largest)
        start, _ = load_model(init)
        Predictor(start, device="cpu")  # refuses other modalities and regions
        if start.config.ndim != 3:
            raise InputError(f"--init {init}: is a network of slices, not of volumes")
        try:
            network = elastic_network(start.config)
        except ValueError as error:
            raise InputError(f"--init {init}: {error}") from None
        self.largest, self.teacher = start.config, Teacher(start, says)
        network.full.load_state_dict(start.state_dict())
        sort_channels(network.full)  # type: ignore[arg-type]
        return network

    def config(self) -> Mapping[str, Any]:
        """Of the largest network."""
        return self.largest.to_dict()

    def lessons(self) -> Dataset[Any]:
        """Patches of the split train, or of phantoms."""
        if self.drawn:
            return SyntheticPatches(1.0, None, self.data, self.largest)
        ready = cache_cases(self.of_split("train"), self.largest, self.prepared, quiet=True)
        return PatchDataset(ready, self.data)

    def loss(self, network: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Of the size as it is set: the labels, and what the model of the start says."""
        maps = network(batch["image"])
        share = 1.0 if self.teacher is None else 0.0 if self.drawn else LABELS
        loss: Tensor = batch["image"].new_zeros(())
        if share:
            truth = truth_maps(batch["depth"], self.largest.regions)
            loss = loss + share * deep_supervision(maps, truth, self.data.region_weights)
        if self.teacher is not None:
            loss = loss + (1 - share) * imitation(maps, self.teacher(batch))
        return loss

    def macs(self, choice: Choice) -> float:
        """Of one tile."""
        config = config_of(choice, self.largest)
        shape = (1, len(config.modalities), *(SIDE,) * config.ndim)
        return float(efficiency.cost(create_network(config), shape).macs)

    def runner(self, choice: Choice) -> Callable[[], object]:
        """As `med-seg infer` predicts a tile."""
        config = config_of(choice, self.largest)
        predictor = Predictor(create_network(config), device="cpu")
        tile = np.zeros((1, len(config.modalities), *(SIDE,) * 3), np.float32)
        return lambda: predictor(tile)

    @cached_property
    def validation(self) -> Validation:
        """On the cases of the split val."""
        cases = cache_cases(self.of_split("val"), self.largest, self.prepared, quiet=True)
        return Validation(cases, self.largest, OVERLAP)

    def keep_size(self, network: nn.Module, choice: Choice, target: Path) -> float:
        """On the cases of the split val, in the precision of `infer`."""
        predictor = Predictor(network, device="cpu")
        with predictor.autocast():
            scores = self.validation(predictor.network)
        quality = scores.get("dice", 0.0)
        config = config_of(choice, self.largest)
        taught = DRAWN if self.drawn else f"{len(self.of_split('train'))} cases"
        card = ModelCard(
            name=target.stem,
            task=TASK,
            summary=f"Brain tumour regions WT, TC, ET in MRI: {describe(config)}, one of many "
            "sizes on the same weights.",
            config=config.to_dict(),
            data=f"{self.table.name}: {taught}",
            split=f"by patient: {len(self.of_split('val'))} cases for validation",
            training=f"fieldfare elastic tumours: {self.settings.steps} steps of {BATCH} patches "
            f"of {SIDE} voxels a side, learning rate {RATE:g}, by the sandwich rule; genes "
            f"{dict(choice)}",
            limits=f"{LIMITS} It keeps nothing of what it was trained on, so that infer will not "
            "warn of cases of another kind; med-seg train --init goes on from it.",
            seed=self.settings.seed,
            date=today(),
            metrics=tuple(Metric(name, value, self.metric) for name, value in scores.items()),
        )
        save_with_page(target, network.state_dict(), card)
        return quality

    def options(self, model: str) -> Mapping[str, Any]:
        """As `med-seg infer` has them."""
        return {"model": model, "overlap": OVERLAP}


def says(network: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Probabilities of a network, (B, R, *size) float32."""
    image = batch["image"]
    logits: Tensor = network.to(image.device)(image)
    return torch.sigmoid(logits.float())


def imitation(maps: Tensor | Sequence[Tensor], said: Tensor) -> Tensor:
    """How far a network is from what another one says; least where they agree. A scalar.

    At every level 1 - Dice with squares below the line (Milletari et al. 2016, arXiv 1606.04797,
    section 3), whose optimum is agreement, plus cross-entropy, the mean over the regions; a coarse
    voxel is to say the mean of what is said on its ground.

    Args:
        maps: logits (B, R, *size), or a list of them, finest first.
        said: (B, R, *size) in [0, 1], at the size of the finest.
    """
    levels = [maps] if isinstance(maps, Tensor) else list(maps)
    total = said.new_zeros(())
    for level, weight in zip(levels, level_weights(len(levels)), strict=True):
        logits = level.float()
        wanted = F.interpolate(said, size=logits.shape[2:], mode="area")
        found, axes = torch.sigmoid(logits), (0, *range(2, logits.ndim))
        both = 2 * (found * wanted).sum(axes) + SMOOTHING
        either = (found.square() + wanted.square()).sum(axes) + SMOOTHING
        total = total + weight * (1 - both / either + cross_entropy(logits, wanted)).mean()
    return total
