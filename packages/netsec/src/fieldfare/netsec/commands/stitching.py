# SPDX-License-Identifier: Apache-2.0
"""What `fieldfare stitch` needs of two NetMambas."""

import copy
import dataclasses
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fieldfare.common.errors import InputError
from fieldfare.common.slim.stitch import StitchedNet
from fieldfare.common.slim.workshop import Data
from fieldfare.common.training import TrainSettings

from ..data.dataset import LabelledFlows, class_weights
from ..data.flow_rows import take
from ..data.masking import mask
from ..inference.classifier import ClassifierConfig, FlowClassifier
from ..networks.architectures import architecture
from ..networks.netmamba.network import NetMambaClassifier
from ..networks.netmamba.stitching import NetMambaAnchor, check_family, stitched
from ..options import TrainOptions
from ..training.run import FineTuning, training_flows
from ..training.variants import Draws, Variants
from .training_settings import settings_of

SAME = {
    "classes": "know other classes",
    "hidden": "were trained with other fields hidden",
    "optional": "were trained with other fields optional",
    "directed": "one is of flows of one direction",
    "decapsulated": "one is of flows within tunnels",
}
"""What two models share besides their architecture, and what is said where they do not."""

STEPS, RATE = 300, 1e-3
"""Default steps, and the peak of the learning rate, of stitches and blocks alike."""

PER_CAPTURE, SAMPLE = 40, 128
"""At most so many flows of a class from each capture; flows that the stitches begin with."""


class TrafficFamily:
    """A `slim.family.Family`.

    Args:
        config: of both, but for the network.
        networks: of one family, see `check_pair`; changed where they are trained.
        data: of the same flows, to measure on.
        flows: with the split train.
    """

    def __init__(
        self,
        config: ClassifierConfig,
        networks: tuple[NetMambaClassifier, NetMambaClassifier],
        data: Data,
        flows: LabelledFlows,
        *,
        steps: int | None,
        seed: int,
        device: str,
    ) -> None:
        self.networks, self.data = networks, data
        torch.manual_seed(seed)
        widths = [network.config.embed_dim for network in networks]
        self.network = StitchedNet([NetMambaAnchor(network) for network in networks], widths)
        self.teacher = copy.deepcopy(networks[1]).requires_grad_(False)
        options = TrainOptions(
            output=Path(), steps=steps or STEPS, learning_rate=RATE, seed=seed, device=device
        )
        settings = settings_of(options, validate_every=options.steps)
        self.settings: TrainSettings = dataclasses.replace(
            settings, weight_decay=0.0, identity=json.dumps([len(flows), flows.captures])
        )
        hidden = tuple(name for name in config.hidden if name not in config.optional)
        self.how = FineTuning(hidden, config.optional, per_capture=PER_CAPTURE)
        classes = config.classes or ()
        self.flows = training_flows(flows, self.how, seed)
        place = np.array([classes.index(name) for name in flows.classes])
        label = place[self.flows.label]
        self._label = torch.from_numpy(label)
        weights = class_weights(label, len(classes), self.how.balance)
        self._weights = torch.from_numpy(weights).float()
        self._kind, self._reads = architecture("netmamba"), networks[1].config
        self._variants = Variants(
            self._kind, self._reads, self.flows.flows, hidden, config.optional, Path()
        )

    def sample(self) -> Tensor:
        """(B, byte_length) uint8, of flows here and there, with all fields hidden."""
        rows = np.unique(np.linspace(0, len(self.flows) - 1, SAMPLE).astype(np.int64))
        flows = mask(take(self.flows.flows, rows), {*self.how.hidden, *self.how.optional})
        found: Tensor = self._kind.read(flows, self._reads).batch(np.arange(len(rows)))
        return found

    def lessons(self) -> Draws:
        """The numbers of flows; they are read when their turn comes."""
        return Draws(len(self.flows))

    def loss(self, network: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        """As `net-traffic train --teacher` has it, with the larger network as the teacher."""
        rows, seeds, _ = (part.cpu().numpy() for part in batch)
        rng, device = np.random.default_rng(seeds), batch[0].device
        inputs = self._variants.batch(rows, rng).inputs
        inputs = self._kind.augment(inputs, self._reads, rng).to(device)
        with torch.no_grad():
            taught = self.teacher.to(device)(inputs).softmax(dim=1)
        logits, wanted = network(inputs), self._label[rows].to(device)
        weights = self._weights.to(device)
        own = F.cross_entropy(
            logits, wanted, weights, label_smoothing=self.how.smoothing, reduction="sum"
        )
        followed = F.cross_entropy(logits, taught, reduction="none") * weights[wanted]
        share = self.how.taught
        return ((1 - share) * own + share * followed.sum()) / len(rows)

    def extract(self, number: int) -> NetMambaClassifier:
        """See `networks.netmamba.stitching.stitched`."""
        small, large = self.networks
        last, first, layer = self.network.join(number)
        return stitched(small, large, last, first, layer)


def check_pair(models: tuple[str, str], small: FlowClassifier, large: FlowClassifier) -> None:
    """Raise InputError where two classifiers are of no one family."""
    names = f"{models[0]} and {models[1]}"
    for one in (small, large):
        if one.config.architecture != "netmamba":
            raise InputError(f"{names}: only two NetMambas can be stitched")
    for field, what in SAME.items():
        if getattr(small.config, field) != getattr(large.config, field):
            raise InputError(f"{names}: {what}, so they are of no one family")
    try:
        check_family(small.network_config, large.network_config)
    except ValueError as error:
        raise InputError(f"{names}: are of no one family: {error}") from None
