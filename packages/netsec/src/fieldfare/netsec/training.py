# SPDX-License-Identifier: Apache-2.0
"""Pre-training on unlabelled flows and fine-tuning on labelled ones, for every architecture."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from fieldfare.common.errors import InputError
from fieldfare.common.training import Draw, TrainSettings, fit
from fieldfare.common.weights import load_model_file, locate

from .capture import FlowBatch
from .data.dataset import LabelledFlows, class_weights, few_shot
from .data.flow_rows import take
from .data.masking import mask
from .data.spool import PIECE, RowSpool, joined, pieces
from .data.variations import Chances, capped, vary
from .evaluation.scores import score
from .inference.calibration import fit_temperature
from .inference.classifier import ClassifierConfig, run
from .networks.architectures import TASK, Architecture, architecture

Teacher = Callable[[FlowBatch], np.ndarray]
"""Flows -> probabilities (N, C) of the classes to train on."""

SHOWN_EVERY = 4
"""Batches of which one shows what is optional. Ports are easy to learn and need few."""


@dataclass(frozen=True)
class FineTuning:
    """How to train a classifier.

    Attributes:
        hidden: fields that it never sees, of `masking.FIELDS`.
        optional: fields that it sees in one batch of `SHOWN_EVERY`; hidden in validation.
        balance: see `dataset.class_weights`.
        smoothing: of the labels.
        shots: flows a class to train on; None: all.
        per_capture: most flows of a class that one capture gives; None: all.
        variations: copies of each flow to train on besides itself, changed by `variations.vary`.
        taught: share of the loss that follows a teacher's probabilities, if there is one.
    """

    hidden: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    balance: float = 0.5
    smoothing: float = 0.05
    shots: int | None = None
    per_capture: int | None = None
    variations: int = 0
    taught: float = 0.5


class _Draws(Dataset[tuple[int, int]]):
    """Which flow, and a number for all else that is random about it."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, draw: Draw) -> tuple[int, int]:
        return draw.index, int(draw.rng().integers(2**62))


class _Variants:
    """Flows as inputs, as they are and changed, with and without what is optional.

    Only numbers of flows are drawn beforehand: each batch is read when its turn comes.

    Args:
        folder: of temporary files.
    """

    def __init__(
        self,
        kind: Architecture,
        config: Any,
        flows: FlowBatch,
        hidden: Collection[str],
        optional: Collection[str],
        folder: Path,
        variations: int = 0,
        seed: int = 0,
        teacher: Teacher | None = None,
    ) -> None:
        self.kind, self.config, self.flows = kind, config, flows
        self.fields = [{*hidden, *optional}, set(hidden)] if optional else [set(hidden)]
        self.chances: list[Chances | None] = [None]
        self.taught: list[np.ndarray] = []
        for number in range(1, variations + 1):
            drawn = Chances.draw(len(flows), np.random.default_rng((seed, number)))
            spool = RowSpool(folder)
            spool.append(drawn._asdict())
            self.chances.append(Chances(**spool.finish()))
        for number in range(variations + 1):
            if teacher is None:
                break
            spool = RowSpool(folder)
            for first in range(0, len(flows), PIECE):
                rows = np.arange(first, min(first + PIECE, len(flows)))
                spool.append({"taught": teacher(self._changed(rows, number)).astype(np.float32)})
            self.taught.append(spool.finish()["taught"])

    def _changed(self, rows: np.ndarray, number: int) -> FlowBatch:
        """Some flows, as one of the copies has them."""
        flows, chances = take(self.flows, rows), self.chances[number]
        return flows if chances is None else vary(flows, chances.of(rows))

    def batch(self, rows: np.ndarray, rng: np.random.Generator) -> tuple[Any, Tensor | None]:
        """Some flows, in one of the variants; what the teacher says of them, (B, C)."""
        # One variant for a whole batch.
        shown = rng.integers(SHOWN_EVERY) == 0
        copy = int(rng.integers(len(self.chances))) if len(self.chances) > 1 else 0
        taught = torch.from_numpy(self.taught[copy][rows]) if self.taught else None
        seen = mask(self._changed(rows, copy), self.fields[-1 if shown else 0])
        return self.kind.read(seen, self.config).batch(np.arange(len(rows))), taught


@dataclass(frozen=True)
class Start:
    """A pre-trained or fine-tuned model to begin with.

    Attributes:
        kind: its architecture.
        config: of its network.
        tensors: of its network.
        path: of its file.
    """

    kind: Architecture
    config: Any
    tensors: Mapping[str, Tensor]
    path: Path


def load_start(name_or_path: str) -> Start:
    """A packaged model by name or a model file by path.

    Raises:
        InputError: no such model, or one of another task.
    """
    path = locate(name_or_path, TASK)
    card, tensors = load_model_file(path)
    if card.task != TASK:
        raise InputError(f"{path}: is a {card.task} model; this needs one of {TASK}")
    try:
        described = ClassifierConfig.from_card(card.config)
        kind = architecture(described.architecture)
        return Start(kind, kind.read_config(described.network), tensors, path)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: its card describes no usable network: {error}") from None


def training_flows(data: LabelledFlows, how: FineTuning, seed: int) -> LabelledFlows:
    """Those of the split train that `how` leaves.

    Raises:
        InputError: no flow in the split train.
    """
    train = data.of_split("train")
    if how.shots is not None:
        train = train.select(few_shot(train.label, how.shots, seed))
    if how.per_capture is not None:
        train = train.select(capped(train.label, train.capture, how.per_capture, seed))
    return train


def train_classifier(
    kind: Architecture,
    config: Any,
    data: LabelledFlows,
    how: FineTuning,
    settings: TrainSettings,
    folder: Path,
    *,
    start: Start | None = None,
    teacher: Teacher | None = None,
    quiet: bool = False,
) -> tuple[nn.Module, float | None]:
    """Train on the split train; choose nothing, but measure, on val.

    Args:
        start: a model whose encoder to begin with.
        teacher: whose probabilities to follow too (distillation, Hinton et al. 2015, arXiv
            1503.02531); it sees the same flows, changed alike.
        folder: receives checkpoint, log and curve; a run resumes from it.

    Returns:
        The network with averaged weights, and the temperature that suits its logits on val, None
        where there is no such split.

    Raises:
        InputError: no flows to train on, an encoder that does not fit, and what
            `fieldfare.common.training.fit` raises.
    """
    train = training_flows(data, how, settings.seed)
    held = data.of_split("val") if (data.split == 1).any() else None
    torch.manual_seed(settings.seed)
    network = kind.classifier(config, len(data.classes))
    if start is not None:
        kind.load_encoder(network, start.tensors, start.path)
    settings = dataclasses.replace(
        settings, identity=_identity(network, [dataclasses.asdict(how), config.to_dict()], train)
    )
    variants = _Variants(
        kind, config, train.flows, how.hidden, how.optional, folder, how.variations, settings.seed,
        teacher,
    )  # fmt: skip
    weights = torch.from_numpy(class_weights(train.label, len(data.classes), how.balance)).float()
    label = torch.from_numpy(train.label)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        rows, seeds = (part.cpu().numpy() for part in batch)
        device = next(model.parameters()).device
        rng = np.random.default_rng(seeds)
        inputs, taught = variants.batch(rows, rng)
        inputs = kind.augment(inputs, config, rng)
        wanted = label[rows].to(device)
        # Weights have mean 1 over the flows, so that the sum over B is a mean.
        logits = model(inputs.to(device))
        own = F.cross_entropy(
            logits, wanted, weights.to(device), label_smoothing=how.smoothing, reduction="sum"
        )
        if taught is None:
            return own / len(rows)
        each = F.cross_entropy(logits, taught.to(device), reduction="none")
        followed = (each * weights.to(device)[wanted]).sum()
        return ((1 - how.taught) * own + how.taught * followed) / len(rows)

    validate = None
    if held is not None:
        never = {*how.hidden, *how.optional}

        def logits_of(model: nn.Module) -> np.ndarray:
            parts = (kind.read(mask(part, never), config) for part in pieces(held.flows))
            return joined([run(model, part, len(data.classes))[0] for part in parts])

        def validate(model: nn.Module) -> Mapping[str, float]:
            scores = score(held.label, logits_of(model), data.classes)
            return {"macro_f1": scores.macro_f1, "accuracy": scores.accuracy}

    trained = fit(
        network, _Draws(len(train)), loss, settings, folder, validate=validate, quiet=quiet
    )
    if held is None:
        return trained, None
    return trained, fit_temperature(logits_of(trained), held.label)


def pretrain(
    kind: Architecture,
    config: Any,
    flows: FlowBatch,
    hidden: Collection[str],
    optional: Collection[str],
    settings: TrainSettings,
    folder: Path,
    *,
    quiet: bool = False,
) -> nn.Module:
    """Train on flows without labels; arguments and errors as of `train_classifier`.

    Returns:
        The network with its pre-training heads, weights averaged.
    """
    if not len(flows):
        raise InputError("there is no flow to train on")
    torch.manual_seed(settings.seed)
    network = kind.pretraining(config)
    variants = _Variants(kind, config, flows, hidden, optional, folder)
    names = [sorted(hidden), sorted(optional)]
    settings = dataclasses.replace(
        settings, identity=_identity(network, [*names, config.to_dict()], flows)
    )

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        rows, seeds = (part.cpu().numpy() for part in batch)
        rng = np.random.default_rng(seeds)
        inputs = variants.batch(rows, rng)[0].to(next(model.parameters()).device)
        return kind.pretraining_loss(model, inputs, int(rng.integers(2**62)))

    return fit(network, _Draws(len(flows)), loss, settings, folder, quiet=quiet)


def _identity(network: nn.Module, settings: Any, data: LabelledFlows | FlowBatch) -> str:
    """What a resumed run must share: first weights, settings and flows."""
    digest = hashlib.sha256()
    for tensor in network.state_dict().values():
        digest.update(tensor.detach().contiguous().numpy().tobytes())
    flows = data if isinstance(data, FlowBatch) else data.flows
    content = flows.first_packets.data
    for first in range(0, len(content), PIECE):
        digest.update(content[first : first + PIECE].tobytes())
    if isinstance(data, LabelledFlows):
        digest.update(data.label.tobytes())
    return json.dumps([settings, digest.hexdigest()], sort_keys=True)
