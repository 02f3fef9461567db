# SPDX-License-Identifier: Apache-2.0
"""What `fieldfare elastic buildings TABLE.csv` trains: a U-Net++ of many sizes at once."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fieldfare.common.elastic.genes import Choice
from fieldfare.common.elastic.network import ElasticNet
from fieldfare.common.errors import InputError
from fieldfare.common.search.tasks import Given, require_files
from fieldfare.common.training import TrainSettings

from ..networks.building_network import BuildingNetwork, NetworkConfig
from ..networks.elastic import elastic_network, sort_channels
from ..networks.models import TASK, load_model
from ..training.run import initial_weights
from ..training.sizes import Taught
from .sized import BANDS, BATCH, DATA, Sized

STEPS, RATE = 400, 5e-4
ENCODER_RATE = 0.3
"""Share of the learning rate."""

GSD = 0.3
"""Metres per pixel where no model is given to begin with."""


class BuildingsElastic(Sized):
    """A `search.sizes.ElasticTask`.

    Raises:
        InputError: not one table of scenes, or one without the splits train and val.
    """

    task = TASK

    def __init__(self, given: Given) -> None:
        require_files("buildings", given.data, 1, "one table of scenes, as rs-buildings train")
        super().__init__("elastic buildings", given.data[0], NetworkConfig(gsd=GSD), given.seed)
        steps = given.steps or STEPS
        self.settings = TrainSettings(
            steps=steps,
            batch_size=BATCH,
            learning_rate=RATE,
            warmup_steps=min(50, steps // 10),
            weight_decay=1e-2,
            # of all sizes, and of one that is trained alone
            rate_factors=(("full.encoder.", ENCODER_RATE), ("encoder.", ENCODER_RATE)),
            clip_norm=1.0,
            ema_decay=0.99,  # of a run of so few steps
            seed=given.seed,
            device=given.device,
            checkpoint_every=max(1, min(50, steps // 4)),
            log_every=max(1, min(20, steps // 4)),
            identity=f"{DATA} {[scene.identity for scene in self.scenes]}",
        )
        self.teacher: BuildingNetwork | None = None

    def elastic(self, init: str | None) -> ElasticNet:
        """From a model of the largest size, which then teaches all; or from ImageNet's encoder."""
        torch.manual_seed(self.settings.seed)
        if init is None:
            network = elastic_network(self.largest)
            initial_weights(network.full, "imagenet")  # type: ignore[arg-type]
            return network
        self.teacher, _ = load_model(init)
        if self.teacher.config.in_channels != BANDS:
            raise InputError(f"--init {init}: has {self.teacher.config.in_channels} bands, not 3")
        try:
            network = elastic_network(self.teacher.config)
        except ValueError as error:
            raise InputError(f"--init {init}: {error}") from None
        self.largest = self.teacher.config
        network.full.load_state_dict(self.teacher.state_dict())
        sort_channels(network.full)  # type: ignore[arg-type]
        return network

    def config(self) -> Mapping[str, Any]:
        """Of the largest network."""
        return self.largest.to_dict()

    @cached_property
    def taught(self) -> Taught:
        """What every size learns from."""
        return Taught(DATA, self.largest, self.teacher)

    def loss(self, network: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Of the size as it is set: the labels, and what the model of the start says."""
        return self.taught(network, batch)

    def keep_size(self, network: nn.Module, choice: Choice, target: Path) -> float:
        """On the scenes of the split val, after measuring its norms' statistics."""
        assert isinstance(network, BuildingNetwork)
        how = (
            f"{self.settings.steps} steps of {BATCH} patches of {DATA.patch} pixels, learning rate "
            f"{RATE:g}, by the sandwich rule"
        )
        return self.keep(network, choice, target, how)

    def options(self, model: str) -> Mapping[str, Any]:
        """As `rs-buildings infer` has them."""
        return {"model": model, "precision": "fp32"}
