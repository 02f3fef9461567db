# SPDX-License-Identifier: Apache-2.0
"""What `fieldfare elastic traffic LABELS.csv` trains: NetMambas of any depth and width at once."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fieldfare.common.elastic.genes import Choice, Space, Value
from fieldfare.common.elastic.network import ElasticNet
from fieldfare.common.elastic.ops import Index
from fieldfare.common.errors import InputError
from fieldfare.common.search.tasks import Given

from ..data.dataset import class_weights
from ..inference.start import load_start
from ..networks.architectures import TASK, preset
from ..networks.netmamba.config import NetMambaConfig
from ..networks.netmamba.mamba import step_rank
from ..training.run import training_flows
from ..training.variants import Draws, Variants
from .search import TrafficSearch

STEPS, RATE = 600, 2e-3
SPACE = Space({"depth": (1, 2, 3), "width": (64, 96, 128)})
"""The largest is NetMamba small."""

HAND_MADE: dict[str, Value] = dict(SPACE.largest())
LARGEST = SPACE.largest().number("width")

READ: dict[str, Value] = {"packets": 5, "payload": 80}
"""Of a flow, by every size."""


class TrafficElastic(TrafficSearch):
    """An `search.sizes.ElasticTask`.

    Raises:
        InputError: not one LABELS.csv, or one without the splits train and val.
    """

    verb, kind = "elastic", "traffic"
    task = TASK
    space = SPACE
    hand_made = HAND_MADE
    recipe = ()

    def __init__(self, given: Given) -> None:
        super().__init__(given)
        self.steps = given.steps or STEPS
        self.settings = self.short_run(RATE, given.folder or Path())
        self.how_trained = self.how()

    def network_config(self, choice: Choice) -> NetMambaConfig:
        """NetMamba small in another size."""
        return super().config(Choice({**choice, **READ}))

    def config(self, choice: Choice | None = None) -> Any:
        """Of the largest network, fit for a card; or of one size."""
        if choice is None:
            return self.network_config(SPACE.largest()).to_dict()
        return self.network_config(choice)

    @cached_property
    def taught(self) -> Any:
        """The flows that are trained on."""
        return training_flows(self.flows, self.how_trained, self.seed)

    @cached_property
    def variants(self) -> Variants:
        """The same as what a network reads."""
        kind, _ = preset("netmamba/small")
        config = self.network_config(SPACE.largest())
        hidden = self.how_trained.hidden
        return Variants(kind, config, self.taught.flows, hidden, (), self.folder or Path())

    @cached_property
    def weights(self) -> Tensor:
        """(classes,), see `dataset.class_weights`."""
        count, balance = len(self.flows.classes), self.how_trained.balance
        return torch.from_numpy(class_weights(self.taught.label, count, balance)).float()

    def elastic(self, init: str | None) -> ElasticNet:
        """Fresh, or with the weights of a model of the largest size."""
        kind, _ = preset("netmamba/small")
        classes = len(self.labels.classes)
        torch.manual_seed(self.seed)
        network = ElasticNet(
            SPACE,
            lambda choice: kind.classifier(self.network_config(choice), classes),
            indices=lambda choice: indices(self.network_config(choice)),
        )
        if init is not None:
            start = load_start(init)
            if start.config != self.network_config(SPACE.largest()):
                raise InputError(f"--init {init}: is no {self.by_hand}")
            kind.load_encoder(network.full, start.tensors, start.path)
        return network

    def lessons(self) -> Draws:
        """The numbers of flows; they are read when their turn comes."""
        return Draws(len(self.taught))

    def loss(self, network: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        """As `net-traffic train` has it, of the size as it is set."""
        kind, _ = preset("netmamba/small")
        rows, seeds, _ = (part.cpu().numpy() for part in batch)
        rng, device = np.random.default_rng(seeds), next(network.parameters()).device
        inputs = self.variants.batch(rows, rng).inputs
        inputs = kind.augment(inputs, self.network_config(SPACE.largest()), rng)
        loss = F.cross_entropy(
            network(inputs.to(device)),
            torch.from_numpy(self.taught.label[rows]).to(device),
            self.weights.to(device),
            label_smoothing=self.how_trained.smoothing,
            reduction="sum",
        )
        return loss / len(rows)

    def keep_size(self, network: nn.Module, choice: Choice, target: Path) -> float:
        """On the flows of the split val."""
        origin = "one of many sizes that were trained at once on shared weights"
        return self.keep(network, self.network_config(choice), target, self.settings, origin)

    def options(self, model: str) -> Mapping[str, Any]:
        """As `net-traffic infer` has them."""
        return {"model": model}


def indices(config: NetMambaConfig) -> dict[str, tuple[Index, ...]]:
    """Where channels of several origins lie side by side: the first of each.

    Of the scan's input and its gate; of a step's numbers, and what is written and read.
    """
    inner, most = (config.expand * width for width in (config.embed_dim, LARGEST))
    both = torch.cat([torch.arange(inner), torch.arange(inner) + most])
    states = torch.arange(2 * config.state_dim) + step_rank(LARGEST)
    rows = torch.cat([torch.arange(step_rank(config.embed_dim)), states])
    found: dict[str, tuple[Index, ...]] = {}
    for number in range(config.depth):
        found[f"blocks.{number}.mixer.in_proj.weight"] = (both, config.embed_dim)
        found[f"blocks.{number}.mixer.x_proj.weight"] = (rows, inner)
    return found
