# SPDX-License-Identifier: Apache-2.0
"""What `fieldfare elastic precoding` trains: ICGNN precoders of any depth and width at once."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fieldfare.common.elastic.genes import Choice, Space
from fieldfare.common.elastic.network import ElasticNet
from fieldfare.common.elastic.ops import Index
from fieldfare.common.errors import InputError
from fieldfare.common.search.tasks import Given

from ...networks.models import PRECODING_TASK, load_precoder_network
from ...options import LEARNED
from ...training.run import precoder_loss, training_settings
from ...training.samples import CellBatches
from .search import BATCH, Shapes, shape

STEPS, RATE = 400, 8e-3
SPACE = Space({"layers": (2, 3, 4, 6), "width": (4, 6, 8, 10)})
"""The largest is the packaged network."""


class PrecodingElastic(Shapes):
    """An `search.sizes.ElasticTask`.

    Raises:
        InputError: a file of channels that cannot be read or is too short.
    """

    verb, kind = "elastic", "precoding"
    task = PRECODING_TASK
    space = SPACE

    def __init__(self, given: Given) -> None:
        super().__init__(given)
        self.steps = given.steps or STEPS
        self.settings = training_settings(self.steps, RATE, self.seed, self.device)

    def elastic(self, init: str | None) -> ElasticNet:
        """Fresh, which is WMMSE in as many steps as there are layers; or a trained one."""
        torch.manual_seed(self.seed)
        network = ElasticNet(SPACE, shape, indices=indices)
        if init is not None:
            start, _ = load_precoder_network(init)
            if start.config != network.full.config:
                raise InputError(f"--init {init}: is {start.config}, not {network.full.config}")
            network.full.load_state_dict(start.state_dict())
        return network

    def config(self) -> Mapping[str, Any]:
        """Of the largest network."""
        return shape(SPACE.largest()).config

    def lessons(self) -> CellBatches:
        """Channels drawn for every step."""
        return self.batches()

    def loss(self, network: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """The rate itself, of the size as it is set."""
        return precoder_loss(network, batch)  # type: ignore[arg-type]

    def keep_size(self, network: nn.Module, choice: Choice, target: Path) -> float:
        """On the validation channels."""
        return self.keep(
            network,  # type: ignore[arg-type]
            target,
            "ICGNN precoder, one of many sizes that were trained at once on shared weights.",
            f"{BATCH} channels a step, learning rate {RATE:g}, by the sandwich rule",
        )

    def options(self, model: str) -> Mapping[str, Any]:
        """As `wl-precode infer` has them."""
        return {"method": LEARNED, "model": model}


def indices(choice: Choice) -> dict[str, tuple[Index, ...]]:
    """Where a user's own, mean and largest state lie side by side: the first of each."""
    width, most = choice.number("width"), SPACE.largest().number("width")
    places = torch.cat([torch.arange(width) + part * most for part in range(3)])
    return {
        f"layers.{number}.mix.weight": (width, places) for number in range(choice.number("layers"))
    }
