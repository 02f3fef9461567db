# SPDX-License-Identifier: Apache-2.0
"""A trained network as a function of flows."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import nn

from fieldfare.common.errors import InputError
from fieldfare.common.runtime import resolve_device
from fieldfare.common.weights import (
    ModelCard,
    build_network,
    from_pretrained,
    load_part,
    locate,
)

from ..capture import FlowBatch, Kept
from ..data.flow_rows import take
from ..data.masking import FIELDS, mask
from ..data.spool import joined, pieces
from ..networks.architectures import TASK, Architecture, FlowNetwork, Inputs, architecture
from .calibration import log_softmax, softmax
from .evidence import PART, Evidence, Judged
from .spread import experts_to_ask, spread_of

BATCH = {"cpu": 16, "cuda": 64}
"""Flows that the network sees at a time; few on a CPU, for its cache. Not an option: what a flow
gets would depend on it in its last digits."""

SECOND = "second"
"""Part of a model file that holds the tensors of a second network."""


@dataclass(frozen=True)
class ClassifierConfig:
    """What a card's `config` says besides the network's own configuration.

    Attributes:
        architecture: name of an `Architecture`.
        network: values of its configuration.
        classes: names; None for a network that is only pre-trained.
        hidden: fields that are set to 0 before the network sees them, of `masking.FIELDS`.
        optional: fields among them that it has also seen in training, so that they may be shown.
        temperature: that logits are divided by, so that probabilities hold on validation flows.
        directed: it was trained on flows of one direction.
        decapsulated: it was trained on flows within tunnels.
        names_bare: it was trained on flows without payload (`flow_rows.is_bare`) and may name them.
        experts: of an `ExpertsConfig`, where the network's feed-forward layers are mixtures.
        second: the same of a second network, whose tensors are the file's part `SECOND`.

    Raises:
        ValueError: unknown fields, or a temperature that is not positive.
    """

    architecture: str
    network: dict[str, Any]
    classes: tuple[str, ...] | None = None
    hidden: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    temperature: float = 1.0
    directed: bool = False
    decapsulated: bool = False
    names_bare: bool = False
    experts: dict[str, Any] | None = None
    second: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if unknown := {*self.hidden, *self.optional} - set(FIELDS):
            raise ValueError(f"no field is named {min(unknown)!r}")
        if not self.temperature > 0:
            raise ValueError(f"temperature is {self.temperature}; it must be positive")

    @classmethod
    def from_card(cls, values: Mapping[str, Any]) -> "ClassifierConfig":
        """From a card; raises TypeError or ValueError on anything else."""
        lists = {
            name: tuple(values[name])
            for name in ("classes", "hidden", "optional")
            if values.get(name) is not None
        }
        return cls(**{**values, **lists})


@dataclass(frozen=True)
class Classified:
    """Of N flows and C classes.

    Attributes:
        logits: (N, C) float32, of the first network.
        probabilities: (N, C) float64, calibrated.
        networks: (N, C) float64, of the networks alone, the port hidden from them.
        familiarity: (N,) float64, share of known validation flows that look as strange; NaN of a
            model without evidence.
        embeddings: (N, E) float32, of the first network.
    """

    logits: np.ndarray
    probabilities: np.ndarray
    networks: np.ndarray
    familiarity: np.ndarray
    embeddings: np.ndarray


class Sites(Protocol):
    """What knows where flows were recorded; see `adapters.KnownSites`."""

    def network_for(self, flows: FlowBatch) -> nn.Module:
        """The network that is to see these flows."""

    def to_json(self) -> dict[str, int]:
        """Flows looked at, by site."""


class FlowClassifier:
    """Flows with their first packets in, class probabilities and embeddings out.

    Args:
        network: a `FlowNetwork` of that architecture, in evaluation mode.
        config: see there.
        name: of the model.
        show: fields of `config.optional` that are not hidden.
        device: `auto`, `cpu` or `cuda`.
        evidence: what is known besides the network; not used where fields are shown, as it was
            fitted with them hidden.
        second: a network that is asked where the first is unsure; only with evidence.

    Attributes:
        sites: adapters of its network, see `adapters.adapt`.

    Raises:
        InputError: fields to show that the network has not seen in training, or no classes.
    """

    def __init__(
        self,
        network: nn.Module,
        config: ClassifierConfig,
        name: str = "",
        *,
        show: Collection[str] = (),
        device: str = "cpu",
        evidence: Evidence | None = None,
        second: "FlowClassifier | None" = None,
    ) -> None:
        if config.classes is None:
            raise InputError(f"{name}: is only pre-trained; fine-tune it with net-traffic train")
        if unseen := set(show) - set(config.optional):
            seen = ", ".join(config.optional) or "nothing"
            raise InputError(
                f"{name}: was trained with {min(unseen)} hidden; it can be shown {seen}"
            )
        self.architecture: Architecture = architecture(config.architecture)
        self.network_config = self.architecture.read_config(config.network)
        self.device = resolve_device(device)
        self.network = network.to(self.device)
        self.config, self.name = config, name
        self.classes = config.classes
        self.hidden = tuple(field for field in config.hidden if field not in show)
        self.evidence = None if show else evidence
        self.second = second if self.evidence else None
        self.sites: Sites | None = None

    @property
    def kept(self) -> Kept:
        """What must be kept of packets, for `capture.FlowOptions(**classifier.kept)`."""
        own = self.architecture.kept(self.network_config)
        if self.second is None:
            return own
        return most_kept(own, self.second.kept)

    @property
    def unknown_below(self) -> float | None:
        """Familiarity below which flows are called unknown unless told otherwise."""
        return self.evidence.unknown_below if self.evidence else None

    def parameters(self) -> int:
        """Of its network, or of both."""
        own = sum(parameter.numel() for parameter in self.network.parameters())
        return own + (self.second.parameters() if self.second else 0)

    def classify(self, flows: FlowBatch) -> Classified:
        """Logits, probabilities and embeddings, in the order of the flows."""
        found = [self._classify(part) for part in pieces(flows)]
        names = [field.name for field in fields(Classified)]
        return Classified(**{name: joined([getattr(p, name) for p in found]) for name in names})

    def look(self, flows: FlowBatch) -> tuple[np.ndarray, np.ndarray]:
        """Logits (N, C) and embeddings (N, E), float32, of the first network."""
        inputs = self.architecture.read(mask(flows, self.hidden), self.network_config)
        network = self.network if self.sites is None else self.sites.network_for(flows)
        return run(network, inputs, len(self.classes))

    def spread(self, flows: FlowBatch, count: int) -> np.ndarray:
        """(N,) how far so many experts of the first network disagree; see `spread.spread_of`."""

        def answer() -> np.ndarray:
            return joined([self.look(part)[0] for part in pieces(flows)])

        return spread_of(self.network, answer, count, self.config.temperature)

    def _classify(self, flows: FlowBatch) -> Classified:
        logits, embeddings = self.look(flows)
        if self.evidence is None:
            probabilities = softmax(logits / self.config.temperature)
            nothing = np.full(len(flows), np.nan)
            return Classified(logits, probabilities, softmax(logits), nothing, embeddings)
        logs = log_softmax(logits / self.config.temperature)
        spread = None
        if self.evidence.members:
            spread = self.spread(flows, self.evidence.members)
        judged = self.evidence.judge(flows, [logs], [embeddings], spread)
        if self.second is not None:
            unsure = np.flatnonzero(judged.familiarity < self.evidence.window)
            self._ask_second(take(flows, unsure), unsure, logs, embeddings, spread, judged)
        return Classified(
            logits, judged.probabilities, judged.networks, judged.familiarity, embeddings
        )

    def _ask_second(
        self,
        flows: FlowBatch,
        rows: np.ndarray,
        logs: np.ndarray,
        embeddings: np.ndarray,
        spread: np.ndarray | None,
        judged: Judged,
    ) -> None:
        """Judge some flows by both networks, in place."""
        if self.evidence is None or self.second is None or not len(rows):
            return
        other = self.second.classify(flows)
        found = self.evidence.judge(
            flows,
            [logs[rows], log_softmax(other.logits / self.second.config.temperature)],
            [embeddings[rows], other.embeddings],
            None if spread is None else spread[rows],
        )
        for name in ("probabilities", "networks", "familiarity"):
            getattr(judged, name)[rows] = getattr(found, name)

    def __call__(self, flows: FlowBatch) -> np.ndarray:
        """(N, C) probabilities."""
        return joined([self._classify(part).probabilities for part in pieces(flows)])


def most_kept(one: Kept, other: Kept) -> Kept:
    """What serves both."""
    return Kept(
        keep_packets=max(one["keep_packets"], other["keep_packets"]),
        keep_header=max(one["keep_header"], other["keep_header"]),
        keep_payload=max(one["keep_payload"], other["keep_payload"]),
    )


@torch.inference_mode()
def run(network: nn.Module, inputs: Inputs, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits (N, C) and embeddings (N, E), float32, of a network in evaluation mode.

    Equal inputs are seen once, so that a scan of a million ports costs no more than one.
    """
    flow_network = cast(FlowNetwork, network)
    device = next(network.parameters()).device
    chosen, place = inputs.distinct() if len(inputs) else (np.empty(0, np.int64),) * 2
    by_size = inputs.by_size()
    order = by_size[np.isin(by_size, chosen)]
    logits = np.zeros((len(inputs), classes), np.float32)
    embeddings = np.zeros((len(inputs), 0), np.float32)
    size = BATCH[device.type]
    for first in range(0, len(order), size):
        rows = order[first : first + size]
        found = flow_network.embed(inputs.batch(rows).to(device))
        if not embeddings.size:
            embeddings = np.zeros((len(inputs), found.shape[1]), np.float32)
        embeddings[rows] = found.float().cpu().numpy()
        logits[rows] = flow_network.classify(found).float().cpu().numpy()
    return logits[chosen][place], embeddings[chosen][place]


def load_classifier(
    name_or_path: str,
    *,
    show: Collection[str] = (),
    device: str = "cpu",
    experts_per_token: int | None = None,
) -> tuple[FlowClassifier, ModelCard]:
    """A packaged model by name or a model file by path.

    Args:
        show, device: see `FlowClassifier`.
        experts_per_token: of networks with experts; None: as the card says. What was fitted beside
            the networks, such as calibration, was fitted with the card's number.

    Raises:
        InputError: no such model, one of another task, one that is only pre-trained, one whose
            evidence or second network is damaged, or one without so many experts.
    """
    network, card = from_pretrained(name_or_path, TASK, _build)
    path = locate(name_or_path, TASK)
    config = ClassifierConfig.from_card(card.config)
    evidence = read_evidence(path)
    if evidence is not None and evidence.members > experts_to_ask(network):
        raise InputError(f"{path}: its familiarity asks more experts than its network has")
    second = None
    if config.second is not None and evidence is not None:
        second = _load_second(path, config.second, card.name, device)
    classifier = FlowClassifier(
        network, config, card.name, show=show, device=device, evidence=evidence, second=second
    )
    if experts_per_token is not None:
        turn_dial(classifier, experts_per_token)
    return classifier, card


def turn_dial(classifier: FlowClassifier, k: int) -> None:
    """Set the experts per token of its networks that have some; raises InputError if none has."""
    members = [classifier, *([classifier.second] if classifier.second else [])]
    found = [member for member in members if member.config.experts is not None]
    if not found:
        raise InputError(f"--experts-per-token: {classifier.name} has no experts")
    from ..networks.experts import ExpertsConfig, turn

    for member in found:
        assert member.config.experts is not None
        try:
            turn(member.network, ExpertsConfig(**member.config.experts), k)
        except ValueError as error:
            raise InputError(f"--experts-per-token: {classifier.name}: {error}") from None


def _build(values: dict[str, Any]) -> nn.Module:
    config = ClassifierConfig.from_card(values)
    kind = architecture(config.architecture)
    network = kind.read_config(config.network)
    if config.classes is None:
        return kind.pretraining(network)
    built = kind.classifier(network, len(config.classes))
    if config.experts is not None:
        from ..networks.experts import ExpertsConfig

        kind.install_experts(built, network, ExpertsConfig(**config.experts))
    return built


def _load_second(path: Path, values: dict[str, Any], name: str, device: str) -> FlowClassifier:
    """The network that a file keeps besides its first."""
    try:
        config = ClassifierConfig.from_card(values)
        network = build_network(_build, values, load_part(path, SECOND), path)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: its card describes no usable second network: {error}") from None
    return FlowClassifier(network, config, name, device=device)


def read_evidence(path: Path) -> Evidence | None:
    """What a model file keeps besides its networks; None where it keeps nothing.

    Raises:
        InputError: it is damaged.
    """
    tensors = load_part(path, PART)
    if not tensors:
        return None
    try:
        return Evidence.from_tensors(tensors)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
