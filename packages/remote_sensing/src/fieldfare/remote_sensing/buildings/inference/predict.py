# SPDX-License-Identifier: Apache-2.0
"""A trained model made ready: tiles in, probabilities out."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fieldfare.common.errors import InputError, RunError
from fieldfare.common.runtime import resolve_device, resolve_precision
from fieldfare.common.trust.guard import Guard, read_guard
from fieldfare.common.trust.knowledge import Knowledge, read_knowledge
from fieldfare.common.weights import locate

from ...scenes.colours import Colours, read_colours
from ..networks.building_network import BuildingNetwork, depths_of, expert_of
from ..networks.fast import FastBuildingNetwork
from ..networks.models import TASK, load_any


class Predictor:
    """Calls a network on batches of tiles, in evaluation mode.

    Args:
        network: trained; cut to the wanted depth.
        precision: `auto` computes in bfloat16 where the processor does so natively.
        knowledge, colours, guard: what the network knows, at its whole depth.

    Attributes:
        expert: pixel size of the imagery that it is for, metres; None of a network without experts.
    """

    expert: float | None = None

    def __init__(
        self,
        network: BuildingNetwork,
        *,
        device: str = "auto",
        precision: str = "auto",
        knowledge: Knowledge | None = None,
        colours: Colours | None = None,
        guard: Guard | None = None,
    ) -> None:
        self.config, self.depth = network.config, network.depth
        whole = self.depth == network.config.levels
        self.knowledge, self.guard = (knowledge, guard) if whole else (None, None)
        self.colours = colours
        self.device = resolve_device(device)
        self.dtype = resolve_precision(precision, self.device)
        self.network = FastBuildingNetwork(network, self.dtype).to(self.device)
        self.batch = 16 if self.device.type == "cuda" else 2

    @torch.inference_mode()
    def __call__(self, tiles: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """(N, bands, h, w) float32 in [0, 1] -> probabilities (N, outputs, h, w) float32."""
        image = torch.from_numpy(tiles).to(self.device)
        logits = self.network(image.contiguous(memory_format=torch.channels_last))
        found = torch.sigmoid(logits).cpu().numpy()
        if not np.isfinite(found).all():
            raise RunError("the network gives values that are no numbers; its weights are damaged")
        return found


class ExpertPredictor(Predictor):
    """Of a network with experts: itself that of the finest one.

    Each expert is run as the ordinary network that it stands for, made ready when it is asked for.

    Args:
        network: with experts; cut to the wanted depth.
        options: of `Predictor`.
    """

    def __init__(self, network: BuildingNetwork, **options: Any) -> None:
        super().__init__(network.dense(0), **options)
        self.expert = network.config.experts[0]
        self._network, self._options = network, options
        self._ready: dict[int, Predictor] = {0: self}

    def of(self, gsd: tuple[float, float] | None) -> Predictor:
        """That of the expert nearest to a pixel size (x, y) in metres, None where unknown."""
        size = math.sqrt(math.prod(gsd)) if gsd else None
        number = expert_of(self._network.config, size)
        if number not in self._ready:
            self._ready[number] = Predictor(self._network.dense(number), **self._options)
            self._ready[number].expert = self._network.config.experts[number]
            self._ready[number].config = self.config  # which may look at another pixel size
        return self._ready[number]


def chosen_for(
    predictor: Predictor, gsd: tuple[float, float] | None
) -> tuple[Predictor, float | None]:
    """What predicts imagery of a pixel size, as of `ExpertPredictor.of`, and its expert, if any."""
    if not isinstance(predictor, ExpertPredictor):
        return predictor, None
    found = predictor.of(gsd)
    return found, found.expert


def predictor_of(network: BuildingNetwork, **options: Any) -> Predictor:
    """A predictor of a network with or without experts; options as of `Predictor`."""
    kind = ExpertPredictor if network.config.experts else Predictor
    return kind(network, **options)


def load_predictor(
    name_or_path: str, *, depth: int | None = None, device: str = "auto", precision: str = "auto"
) -> Predictor:
    """A predictor by model name or path.

    Args:
        depth: 1 to 4 of U-Net++; its largest when None.

    Raises:
        InputError: no such model, or it does not have that depth.
    """
    network, _ = load_any(name_or_path)
    path = locate(name_or_path, TASK)
    if depth is not None and depth != network.depth:
        if depth not in depths_of(network.config):
            raise InputError(
                f"--depth {depth}: {Path(name_or_path).stem} has only "
                f"{', '.join(map(str, depths_of(network.config)))}"
            )
        network = network.cut(depth)
    return predictor_of(
        network,
        device=device,
        precision=precision,
        knowledge=read_knowledge(path),
        colours=read_colours(path),
        guard=read_guard(path),
    )
