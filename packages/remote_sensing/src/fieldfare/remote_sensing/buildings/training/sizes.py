# SPDX-License-Identifier: Apache-2.0
"""What every size of an elastic network learns from: labels, and one fixed network."""

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..networks.building_network import BuildingNetwork, NetworkConfig
from .imitation import softened_divergence
from .losses import DeepSupervision
from .run import DataSettings


class Taught:
    """The loss of one size for one batch of `PatchDataset`.

    Every depth of a size looks at the labels and, half as much each, at the teacher's deepest map.
    The teacher is asked once for a batch, however many sizes learn from it.

    Args:
        data: how errors are counted.
        config: of the largest size.
        teacher: in evaluation mode from now on; None for labels alone.
    """

    def __init__(
        self, data: DataSettings, config: NetworkConfig, teacher: BuildingNetwork | None
    ) -> None:
        self._data, self._config = data, config
        self._teacher = None if teacher is None else teacher.eval().requires_grad_(False)
        self._seen: Mapping[str, Tensor] = {}
        self._said = torch.empty(0)

    def __call__(self, network: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        image = batch["image"].contiguous(memory_format=torch.channels_last)
        maps, weight = network(image), batch["weight"]
        config = dataclasses.replace(self._config, levels=len(maps))
        labels = self._data.supervision(config)
        loss = labels(maps, batch["truth"], weight)
        if self._teacher is None:
            return loss
        if batch is not self._seen:
            self._seen = batch
            with torch.no_grad():
                self._said = self._teacher.to(image.device)(image)
        imitation = DeepSupervision(
            softened_divergence(1.0), labels.depth_weights, labels.output_weights
        )
        return 0.5 * loss + 0.5 * imitation(maps, self._said, weight)
