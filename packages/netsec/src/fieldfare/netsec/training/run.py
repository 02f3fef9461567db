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

from fieldfare.common.errors import InputError
from fieldfare.common.experts.losses import contrast
from fieldfare.common.training import TrainSettings, fit

from ..capture import FlowBatch
from ..data.dataset import LabelledFlows, class_weights, few_shot
from ..data.evasion import Evasion
from ..data.masking import mask
from ..data.spool import PIECE, joined, pieces
from ..data.variations import capped
from ..evaluation.scores import score
from ..inference.calibration import fit_temperature
from ..inference.classifier import run
from ..inference.start import Start, first_network
from ..networks.architectures import Architecture
from ..networks.experts import ExpertsConfig, answer, set_dial
from .variants import Draws, Teacher, Variants


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
        robust: disguises of each flow (`data.evasion`), of which the worst is trained on.
        contrast: weight of the loss that draws what the network makes of a flow's first packets to
            what it makes of all of it, away from other flows (AW-MoE, arXiv 2306.05011, there
            between gates); each batch is then also trained on cut short. None: neither.
    """

    hidden: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    balance: float = 0.5
    smoothing: float = 0.05
    shots: int | None = None
    per_capture: int | None = None
    variations: int = 0
    taught: float = 0.5
    robust: int = 0
    contrast: float | None = None

    def identity(self) -> dict[str, Any]:
        """What a resumed run must share; what came later only where it is used."""
        later = {"robust": 0, "contrast": None}
        kept = dataclasses.asdict(self).items()
        return {name: value for name, value in kept if name not in later or value != later[name]}


class _Remembering(nn.Module):
    """A classifier that keeps the embeddings (B, E) of its last pass, for a loss."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network: Any = network
        self.embedding = torch.empty(0)

    def embed(self, batch: Any) -> Tensor:
        """As the network does."""
        self.embedding = self.network.embed(batch)
        return self.embedding

    def classify(self, embeddings: Tensor) -> Tensor:
        """As the network does."""
        found: Tensor = self.network.classify(embeddings)
        return found

    def forward(self, batch: Any) -> Tensor:
        """Logits (B, C)."""
        return self.classify(self.embed(batch))


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
    experts: ExpertsConfig | None = None,
    keep_head: bool = False,
    prepare: Callable[[nn.Module], None] | None = None,
    quiet: bool = False,
) -> tuple[nn.Module, float | None]:
    """Train on the split train; choose nothing, but measure, on val.

    Args:
        start: a model whose encoder to begin with.
        teacher: whose probabilities to follow too (distillation, Hinton et al. 2015, arXiv
            1503.02531); it sees the same flows, changed alike.
        experts: to make of the feed-forward layers of the start or of fresh ones; of a start that
            has some, its own.
        keep_head: of a start that knows the same classes; with experts it always is kept.
        prepare: changes the network before it is trained; parameters that it freezes stay.
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
    network = first_network(
        kind, config, data.classes, start, experts, keep_head=keep_head or experts is not None
    )
    if prepare is not None:
        prepare(network)
    identity: list[Any] = [how.identity(), config.to_dict()]
    if experts is not None:
        identity.append(experts.to_dict())
    settings = dataclasses.replace(settings, identity=_identity(network, identity, train))
    variants = Variants(
        kind, config, train.flows, how.hidden, how.optional, folder, how.variations, settings.seed,
        teacher,
    )  # fmt: skip
    weights = torch.from_numpy(class_weights(train.label, len(data.classes), how.balance)).float()
    label = torch.from_numpy(train.label)
    remembering = None if how.contrast is None else _Remembering(network)

    def loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        rows, seeds, numbers = (part.cpu().numpy() for part in batch)
        device = next(model.parameters()).device
        rng = np.random.default_rng(seeds)

        def disguise(read: Callable[[Evasion | None], Any]) -> Evasion:
            draws = [Evasion.draw(len(rows), rng) for _ in range(how.robust)]
            return worst(model, read, draws, label[rows])

        inputs, taught, cut = variants.batch(
            rows, rng, disguise if how.robust else None, cut=remembering is not None
        )
        inputs = kind.augment(inputs, config, rng)
        # Weights have mean 1 over the flows, so that the sum over B is a mean.
        if experts is not None:
            step = int(numbers[0]) // settings.batch_size
            found, more = answer(model, inputs.to(device), experts, step, settings.steps)
        else:
            found, more = [model(inputs.to(device))], None
        if remembering is not None:
            whole = remembering.embedding
            found = [*found, model(cut.to(device))]
            near = (how.contrast or 0.0) * contrast(whole, remembering.embedding).mean()
            more = near if more is None else more + near
        value = torch.stack([task_loss(logits, rows, taught) for logits in found]).mean()
        return value if more is None else value + more

    def task_loss(logits: Tensor, rows: np.ndarray, taught: Tensor | None) -> Tensor:
        device = logits.device
        wanted = label[rows].to(device)
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

    trained: nn.Module = fit(
        remembering or network, Draws(len(train)), loss, settings, folder, validate=validate,
        quiet=quiet,
    )  # fmt: skip
    trained = trained.network if isinstance(trained, _Remembering) else trained
    if experts is not None and experts.has_dial:
        set_dial(trained, experts)
    if held is None:
        return trained, None
    return trained, fit_temperature(logits_of(trained), held.label)


@torch.no_grad()
def worst(
    model: nn.Module, read: Callable[[Evasion | None], Any], draws: list[Evasion], wanted: Tensor
) -> Evasion:
    """Of several disguises of each flow the one that a network errs on most.

    What a sender does who tries so many; training on it is a random search for the inner maximum of
    Madry et al. 2018 (arXiv 1706.06083).

    Args:
        read: a disguise to a batch.
        wanted: (B,) class numbers.
    """
    device, training = next(model.parameters()).device, model.training
    model.eval()
    losses = [
        F.cross_entropy(model(read(draw).to(device)), wanted.to(device), reduction="none")
        for draw in draws
    ]
    model.train(training)
    return Evasion.pick(draws, torch.stack(losses).argmax(dim=0).cpu().numpy())


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
    variants = Variants(kind, config, flows, hidden, optional, folder)
    names = [sorted(hidden), sorted(optional)]
    settings = dataclasses.replace(
        settings, identity=_identity(network, [*names, config.to_dict()], flows)
    )

    def loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        rows, seeds, _ = (part.cpu().numpy() for part in batch)
        rng = np.random.default_rng(seeds)
        inputs = variants.batch(rows, rng).inputs.to(next(model.parameters()).device)
        return kind.pretraining_loss(model, inputs, int(rng.integers(2**62)))

    return fit(network, Draws(len(flows)), loss, settings, folder, quiet=quiet)


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
