# SPDX-License-Identifier: Apache-2.0
"""What `fieldfare search traffic LABELS.csv` searches: what NetMamba reads, its width and depth."""

import dataclasses
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fieldfare.common.blocks import LinearAttention
from fieldfare.common.commands.train import today
from fieldfare.common.elastic.genes import Choice, Space, Value
from fieldfare.common.errors import InputError
from fieldfare.common.search.tasks import Given, require_files
from fieldfare.common.training import TrainSettings
from fieldfare.common.weights import Metric, ModelCard, save_with_page

from ..data.dataset import LabelledFlows, load_flows, training_options
from ..data.labels import read_labels
from ..data.masking import field_names, mask
from ..data.spool import joined, pieces
from ..evaluation.scores import score
from ..inference.calibration import fit_temperature
from ..inference.classifier import ClassifierConfig, run
from ..networks.architectures import TASK, preset, title
from ..networks.experts import ExpertsConfig
from ..networks.netmamba.config import NetMambaConfig
from ..networks.netmamba.mamba import Mamba
from ..networks.netmamba.mixers import SoftmaxAttention
from ..options import TrainOptions
from ..training.run import FineTuning, train_classifier
from .train import LIMITS
from .training_settings import settings_of

STEPS, PER_CAPTURE = 150, 40
FLOWS = 16
"""Of one unit: as many as the network sees at a time."""

HIDDEN = "addresses,ttl,numbers,checksums,ports"

SPACE = Space(
    {
        "packets": (1, 2, 3, 5),
        "payload": (16, 48, 80),
        "width": (32, 64, 96, 128),
        "depth": (1, 2, 3),
        "learning_rate": (1e-3, 2e-3, 4e-3),
    }
)
"""`payload`: bytes of each packet behind the 48 of its headers."""

HAND_MADE: dict[str, Value] = {
    "packets": 5,
    "payload": 80,
    "width": 128,
    "depth": 3,
    "learning_rate": 2e-3,
}


class TrafficSearch:
    """A `search.tasks.Task`: macro-F1 with ports hidden, after a short training from scratch.

    Raises:
        InputError: not one LABELS.csv, or one without the splits train and val.
    """

    verb, kind = "search", "traffic"
    """As the command line names them."""

    space = SPACE
    hand_made = HAND_MADE
    by_hand = "netmamba/small"
    recipe: tuple[str, ...] = ("learning_rate",)
    unit = f"{FLOWS} flows"
    metric = "macro-F1 on the flows of the split val, ports hidden"
    command = "net-traffic infer CAPTURE -o FLOWS"

    def __init__(self, given: Given) -> None:
        require_files(self.kind, given.data, 1, "one LABELS.csv, as net-traffic train takes it")
        self.labels = read_labels(given.data[0])
        splits = {capture.split for capture in self.labels.captures}
        if missing := {"train", "val"} - splits:
            raise InputError(f"{given.data[0]}: has no captures in the split {min(missing)}")
        self.steps, self.seed, self.device = given.steps or STEPS, given.seed, given.device
        self.folder = given.folder
        self.identity = {
            "steps": self.steps,
            "labels": given.data[0].name,
            "captures": [
                [capture.file, capture.split, (self.labels.folder / capture.file).stat().st_size]
                for capture in self.labels.captures
            ],
        }
        self.presets = {self.by_hand: self.space.canonical(self.hand_made)}

    def config(self, choice: Choice) -> NetMambaConfig:
        """NetMamba small in another size."""
        _, small = preset("netmamba/small")
        packets = choice.number("packets")
        found: NetMambaConfig = dataclasses.replace(
            small,
            packets=packets,
            byte_length=packets * (small.header_bytes + choice.number("payload")),
            embed_dim=choice.number("width"),
            depth=choice.number("depth"),
        )
        return found

    def experts(self, choice: Choice) -> ExpertsConfig | None:
        """None: it has no feed-forward layers."""
        return None

    @cached_property
    def flows(self) -> LabelledFlows:
        """Of all captures, with as much kept of each as the largest network reads."""
        kind, _ = preset("netmamba/small")
        kept = kind.kept(self.config(self.space.largest()))
        options = training_options(kept, timed=self.labels.timed)
        cache = None if self.folder is None else self.folder / "flows"
        return load_flows(self.labels, options=options, cache=cache, quiet=True)

    @cached_property
    def held(self) -> LabelledFlows:
        """Those of the split val."""
        return self.flows.of_split("val")

    def _network(self, choice: Choice) -> nn.Module:
        kind, _ = preset("netmamba/small")
        config, experts = self.config(choice), self.experts(choice)
        network = kind.classifier(config, len(self.labels.classes))
        if experts is not None:
            kind.install_experts(network, config, experts)
        return network.eval()

    def macs(self, choice: Choice) -> float:
        """Of linear layers, convolutions, the scan's states and attention's products."""
        network, tokens = self._network(choice), self.config(choice).tokens + 1
        each = 0
        for module in network.modules():
            if isinstance(module, nn.Linear | nn.Conv1d):
                each += module.weight.numel()
            elif isinstance(module, Mamba):
                each += 2 * module.A_log.numel()
            elif isinstance(module, SoftmaxAttention):
                each += 2 * tokens * module.out_proj.in_features
            elif isinstance(module, LinearAttention):
                width = module.proj.in_features
                each += 2 * width * min(tokens, width // module.heads)
        return float(FLOWS * tokens * each)

    def runner(self, choice: Choice) -> Callable[[], object]:
        """The network on random bytes."""
        network = self._network(choice)
        generator = torch.Generator().manual_seed(0)
        shape = (FLOWS, self.config(choice).byte_length)
        rows = torch.randint(0, 256, shape, generator=generator).to(torch.uint8)

        @torch.no_grad()
        def unit() -> object:
            return network(rows)

        return unit

    def how(self) -> FineTuning:
        """At most so many flows of a class from each capture."""
        return FineTuning(hidden=field_names(HIDDEN), per_capture=PER_CAPTURE)

    def short_run(self, rate: float, work: Path) -> TrainSettings:
        """Of one network."""
        options = TrainOptions(
            output=work,
            steps=self.steps,
            learning_rate=rate,
            seed=self.seed,
            device=self.device,
        )
        return settings_of(options, validate_every=self.steps)

    def evaluate(self, choice: Choice, target: Path, work: Path) -> float:
        """Train on the split train."""
        kind, _ = preset("netmamba/small")
        config, experts = self.config(choice), self.experts(choice)
        settings = self.short_run(float(choice["learning_rate"]), work)
        network, _ = train_classifier(
            kind, config, self.flows.of_split("train"), self.how(), settings, work,
            experts=experts, quiet=True,
        )  # fmt: skip
        origin = "found by fieldfare search"
        return self.keep(network, config, target, settings, origin, experts=experts)

    def keep(
        self,
        network: nn.Module,
        config: NetMambaConfig,
        target: Path,
        settings: TrainSettings,
        origin: str,
        *,
        experts: ExpertsConfig | None = None,
    ) -> float:
        """Measure a trained network on the split val and write its file; the quality."""
        kind, _ = preset("netmamba/small")
        hidden = field_names(HIDDEN)
        logits = joined([self._logits(network, part, config) for part in pieces(self.held.flows)])
        quality = score(self.held.label, logits, self.flows.classes).macro_f1
        described = ClassifierConfig(
            architecture=kind.published.name,
            network=config.to_dict(),
            classes=self.flows.classes,
            hidden=hidden,
            temperature=fit_temperature(logits, self.held.label) or 1.0,
            experts=None if experts is None else experts.to_dict(),
        )
        card = ModelCard(
            name=target.stem,
            task=TASK,
            summary=f"{title(kind, config)}, {origin}: "
            f"{len(self.flows.classes)} classes of traffic.",
            config=dataclasses.asdict(described),
            data=f"{self.labels.path.name}: {int((self.flows.split == 0).sum())} flows, of which "
            f"at most {PER_CAPTURE} of a class from each capture",
            split=f"by capture: {len(self.held)} flows for validation, which chose among networks",
            training=f"fieldfare {self.verb} {self.kind}: {settings.steps} steps of "
            f"{settings.batch_size} flows, learning rate {settings.learning_rate:g}, "
            f"{self.device}; always hidden: {HIDDEN}"
            + (f"; {experts.sentence()}" if experts else ""),
            limits=f"{LIMITS} A short run; it never says `unknown`.",
            seed=self.seed,
            date=today(),
            metrics=(Metric("macro_f1", quality, self.metric),),
        )
        save_with_page(target, network.state_dict(), card)
        return quality

    def _logits(self, network: nn.Module, part: Any, config: NetMambaConfig) -> np.ndarray:
        kind, _ = preset("netmamba/small")
        inputs = kind.read(mask(part, set(field_names(HIDDEN))), config)
        with torch.no_grad():
            return run(network, inputs, len(self.flows.classes))[0]
