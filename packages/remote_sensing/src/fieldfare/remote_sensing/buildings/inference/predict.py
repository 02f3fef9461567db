# SPDX-License-Identifier: Apache-2.0
"""A trained model made ready: tiles in, probabilities out."""

from pathlib import Path

import numpy as np
import torch

from fieldfare.common.errors import InputError, RunError
from fieldfare.common.runtime import resolve_device, resolve_precision
from fieldfare.common.trust.guard import Guard, read_guard
from fieldfare.common.trust.knowledge import Knowledge, read_knowledge
from fieldfare.common.weights import locate

from ...scenes.colours import Colours, read_colours
from ..networks.building_network import BuildingNetwork, depths_of
from ..networks.fast import FastBuildingNetwork
from ..networks.models import TASK, load_model
from ..networks.unetplusplus import FULL_DEPTH


class Predictor:
    """Calls a network on batches of tiles, in evaluation mode.

    Args:
        network: trained; cut to the wanted depth.
        precision: `auto` computes in bfloat16 where the processor does so natively.
        knowledge, colours, guard: what the network knows, at its whole depth.
    """

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
        whole = self.depth == FULL_DEPTH
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


def load_predictor(
    name_or_path: str, *, depth: int | None = None, device: str = "auto", precision: str = "auto"
) -> Predictor:
    """A predictor by model name or path.

    Args:
        depth: 1 to 4 of U-Net++; the full one when None.

    Raises:
        InputError: no such model, or it does not have that depth.
    """
    network, _ = load_model(name_or_path)
    path = locate(name_or_path, TASK)
    if depth is not None and depth != network.depth:
        if depth not in depths_of(network.config):
            raise InputError(
                f"--depth {depth}: {Path(name_or_path).stem} has only "
                f"{', '.join(map(str, depths_of(network.config)))}"
            )
        network = network.cut(depth)
    return Predictor(
        network,
        device=device,
        precision=precision,
        knowledge=read_knowledge(path),
        colours=read_colours(path),
        guard=read_guard(path),
    )
