# SPDX-License-Identifier: Apache-2.0
"""What `fieldfare slim`, `stitch` and `cascade` need of traffic classifiers."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from fieldfare.common import efficiency
from fieldfare.common.errors import InputError
from fieldfare.common.slim.family import Family
from fieldfare.common.slim.steps import Halves, stored_tensors
from fieldfare.common.slim.workshop import Data, Draft, Joined, Step
from fieldfare.common.trust.guard import PART as GUARD
from fieldfare.common.weights import ModelCard, load_model_file, locate, save_with_page

from ..data.dataset import LabelledFlows, load_flows, training_options
from ..data.labels import read_labels
from ..data.masking import mask
from ..data.spool import joined, pieces
from ..evaluation.fitting import fit_evidence, fit_guard
from ..evaluation.scores import score
from ..inference.classifier import (
    BATCH,
    SECOND,
    ClassifierConfig,
    FlowClassifier,
    load_classifier,
    most_kept,
    run,
)
from ..inference.evidence import PART
from ..networks.architectures import TASK, Architecture, architecture
from ..networks.netmamba.config import NetMambaConfig
from .stitching import TrafficFamily, check_pair
from .train import fitted_parts

FLOWS = BATCH["cpu"]
"""Of one unit: as many as the network sees at a time."""

NETFOUND = (("max_bursts", (8, 6, 4, 3, 2)), ("packets_per_burst", (4, 3, 2, 1)))
"""What netFound can read less of; no weight depends on it but positions that fall away."""


class TrafficData:
    """Flows of a labels file with the splits train and val."""

    def __init__(self, flows: LabelledFlows, config: ClassifierConfig) -> None:
        self.flows, self.config = flows, config
        self.train, self.val = flows.of_split("train"), flows.of_split("val")

    def score(self, network: nn.Module) -> float:
        """Macro-F1 of the network alone on the split val."""
        kind, config = architecture(self.config.architecture), _config_of(network)
        classes = self.config.classes or ()
        found = []
        for part in pieces(self.val.flows):
            inputs = kind.read(mask(part, self.config.hidden), config)
            found.append(run(network, inputs, len(classes))[0])
        place = np.array([classes.index(name) for name in self.flows.classes])
        return score(place[self.val.label], joined(found), classes).macro_f1

    def batches(self) -> Sequence[Tensor]:
        """None are needed: no step measures activations."""
        return ()


class TrafficWorkshop:
    """A `slim.workshop.Workshop`; of one model at a time."""

    unit = f"batch of {FLOWS} flows"
    metric = "macro-F1 of the network alone"

    def __init__(self) -> None:
        self._config: ClassifierConfig | None = None

    def load(self, model: str) -> tuple[nn.Module, ModelCard]:
        """A classifier of one network."""
        classifier, card = load_classifier(model)
        if classifier.config.second is not None:
            raise InputError(
                f"{model}: holds two networks; slim each, then join them with fieldfare cascade"
            )
        if classifier.config.experts is not None:
            raise InputError(f"{model}: has experts, which are turned down by --experts-per-token")
        self._config = classifier.config
        return classifier.network, card

    def read(self, network: nn.Module, data: Sequence[Path], *, quiet: bool) -> TrafficData:
        """LABELS.csv beside its captures, with the splits train and val."""
        assert self._config is not None
        kind = architecture(self._config.architecture)
        flows = _flows(data, kind.kept(_config_of(network)), quiet=quiet)
        if unknown := set(flows.classes) - set(self._config.classes or ()):
            raise InputError(f"{data[0]}: the model does not know the class {min(unknown)}")
        return TrafficData(flows, self._config)

    def unit_of(self, network: nn.Module) -> tuple[nn.Module, Callable[[], object]]:
        """The network on made-up flows of full length."""
        assert self._config is not None
        batch = architecture(self._config.architecture).join(self._tensors(network))

        @torch.inference_mode()
        def unit() -> object:
            return network(batch)

        return network, unit

    def macs(self, network: nn.Module) -> int:
        """Of matrix products and convolutions; a scan's own are not counted."""
        assert self._config is not None
        kind = architecture(self._config.architecture)
        return efficiency.cost(_Plain(kind, network), *self._tensors(network)).macs

    def steps(self, network: nn.Module, data: Data) -> list[Step]:
        """Read less of each flow; half precision."""
        assert self._config is not None
        classes = len(self._config.classes or ())
        if self._config.architecture == "netmamba":
            return [FewerPackets(classes), Halves()]
        return [*(ReadLess(name, values, classes) for name, values in NETFOUND), Halves()]

    def save(self, draft: Draft, card: ModelCard, data: Data | None, path: Path) -> None:
        """With what is fitted beside the network."""
        assert self._config is not None
        values = _config_of(draft.network).to_dict()
        config = dataclasses.replace(self._config, network=values)
        parts: dict[str, dict[str, Tensor]] = {}
        if isinstance(data, TrafficData) and data.flows.classes == config.classes:
            classifier = FlowClassifier(draft.network, config, card.name)
            parts = fitted_parts(classifier, data.train, data.flows)
        card = dataclasses.replace(card, config=dataclasses.asdict(config))
        save_with_page(path, stored_tensors(draft), card, parts)

    def join(self, models: tuple[str, str], data: Sequence[Path], *, quiet: bool) -> Joined:
        """Ports and familiarity are fitted anew to both, and the share that is passed on."""
        members = []
        for model in models:
            self.load(model)  # refuses what holds two
            member, _ = load_classifier(model)
            member.evidence = member.second = None
            members.append(member)
        first, second = members
        if first.classes != second.classes:
            raise InputError(f"{models[0]} and {models[1]}: know other classes")
        flows = _flows(data, most_kept(first.kept, second.kept), quiet=quiet)
        if flows.classes != first.classes:
            raise InputError(f"{data[0]}: must have just the classes of {models[0]}")
        return _Pair(self, models, first, second, TrafficData(flows, first.config))

    def stitch(
        self,
        models: tuple[str, str],
        data: Sequence[Path],
        *,
        steps: int | None,
        seed: int,
        device: str,
        quiet: bool,
    ) -> Family:
        """See `stitching.TrafficFamily`."""
        for model in models:
            self.load(model)  # refuses what holds two, and what has experts
        small, large = (load_classifier(model)[0] for model in models)
        check_pair(models, small, large)
        networks = cast(Any, (small.network, large.network))
        found = self.read(large.network, data, quiet=quiet)
        return TrafficFamily(
            large.config, networks, found, found.flows, steps=steps, seed=seed, device=device
        )

    def _tensors(self, network: nn.Module) -> list[Tensor]:
        """Of `FLOWS` flows made up."""
        assert self._config is not None
        given = architecture(self._config.architecture).example(_config_of(network))
        return [tensor[torch.arange(FLOWS) % len(tensor)] for tensor in given.values()]


class _Plain(nn.Module):
    """A classifier on plain tensors."""

    def __init__(self, kind: Architecture, network: nn.Module) -> None:
        super().__init__()
        self.kind, self.network = kind, network

    def forward(self, *inputs: Tensor) -> Any:
        return self.network(self.kind.join(inputs))


class FewerPackets:
    """NetMamba reads the first packets of a flow only: fewer tokens."""

    name = "packets"

    def __init__(self, classes: int) -> None:
        self._classes = classes

    def candidates(self, draft: Draft) -> Iterator[tuple[str, Draft]]:
        """One packet less each time."""
        network: Any = draft.network
        whole: NetMambaConfig = network.config
        each = whole.byte_length // whole.packets
        for packets in range(whole.packets - 1, 0, -1):
            config = dataclasses.replace(whole, packets=packets, byte_length=packets * each)
            own = architecture("netmamba").classifier(config, self._classes)
            state = network.state_dict()
            positions = state["pos_embed"]  # that of CLS is the last
            state["pos_embed"] = torch.cat(
                [positions[:, : config.tokens], positions[:, -1:]], dim=1
            )
            own.load_state_dict(state)
            yield f"{packets} of {whole.packets}", dataclasses.replace(draft, network=own.eval())


class ReadLess:
    """NetFound reads fewer bursts of a flow, or fewer packets of each.

    Args:
        field: of its configuration.
        values: tried in turn.
    """

    def __init__(self, field: str, values: Sequence[int], classes: int) -> None:
        self.name, self._field = field.replace("_", " "), field
        self._values, self._classes = values, classes

    def candidates(self, draft: Draft) -> Iterator[tuple[str, Draft]]:
        """Those below what it reads now."""
        network: Any = draft.network
        now = getattr(network.config, self._field)
        for value in self._values:
            if value < now:
                config = dataclasses.replace(network.config, **{self._field: value})
                own = architecture("netfound").classifier(config, self._classes)
                state = network.state_dict()
                for name, tensor in own.state_dict().items():  # positions fall away at the end
                    state[name] = state[name][tuple(slice(side) for side in tensor.shape)]
                own.load_state_dict(state)
                yield f"{value} of {now}", dataclasses.replace(draft, network=own.eval())


class _Pair:
    """Two classifiers of the same classes; a `slim.workshop.Joined`."""

    metric = "macro-F1 with ports"
    unit = f"batch of {FLOWS} flows"

    def __init__(
        self,
        workshop: TrafficWorkshop,
        models: tuple[str, str],
        first: FlowClassifier,
        second: FlowClassifier,
        data: TrafficData,
    ) -> None:
        self._models, self._first, self._second, self._data = models, first, second, data
        self._evidence = fit_evidence([first, second], data.train, data.val)
        self._workshop = workshop

    def measured(self) -> dict[str, dict[str, float]]:
        """Quality and operations: each alone, both always, and the cascade."""
        macs = [self._workshop.macs(self._workshop.load(model)[0]) for model in self._models]
        evidence, data = self._evidence, self._data
        first = _with(self._first, evidence, None)
        alone = fit_evidence([self._second], data.train, data.val)
        always = dataclasses.replace(evidence, window=2.0)
        passed = float((first.classify(data.val.flows).familiarity < evidence.window).mean())
        costs = {
            self._models[0]: (first, macs[0]),
            self._models[1]: (_with(self._second, alone, None), macs[1]),
            "both": (_with(self._first, always, self._second), sum(macs)),
            "cascade": (self._whole(), macs[0] + passed * macs[1]),
        }
        rows = {
            name: {"quality": self._quality(member), "macs": cost}
            for name, (member, cost) in costs.items()
        }
        rows["cascade"]["passed_on"] = passed
        return rows

    def _whole(self) -> FlowClassifier:
        return _with(self._first, self._evidence, self._second)

    def _quality(self, classifier: FlowClassifier) -> float:
        val = self._data.val
        return score(val.label, classifier(val.flows), classifier.classes).macro_f1

    def save(self, card: ModelCard, path: Path) -> None:
        """As `net-traffic infer --model` takes it."""
        _, tensors = load_model_file(locate(self._models[0], TASK))
        parts = {
            PART: self._evidence.to_tensors(),
            SECOND: self._second.network.state_dict(),
        }
        guard = fit_guard(self._whole(), self._data.val)
        if guard is not None:
            parts[GUARD] = guard.to_tensors()
        config = dataclasses.replace(
            self._first.config, second=dataclasses.asdict(self._second.config)
        )
        card = dataclasses.replace(card, config=dataclasses.asdict(config))
        save_with_page(path, tensors, card, parts)


def _with(first: FlowClassifier, evidence: Any, second: FlowClassifier | None) -> FlowClassifier:
    return FlowClassifier(first.network, first.config, first.name, evidence=evidence, second=second)


def _flows(data: Sequence[Path], kept: Any, *, quiet: bool) -> LabelledFlows:
    if len(data) != 1:
        raise InputError("--data: give one LABELS.csv, as net-traffic train takes it")
    labels = read_labels(data[0])
    splits = {capture.split for capture in labels.captures}
    if missing := {"train", "val"} - splits:
        raise InputError(f"{data[0]}: has no captures in the split {min(missing)}")
    return load_flows(labels, options=training_options(kept, timed=labels.timed), quiet=quiet)


def _config_of(network: Any) -> Any:
    return network.config
