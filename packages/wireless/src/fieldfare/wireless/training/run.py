# SPDX-License-Identifier: Apache-2.0
"""Training without labels: the objective is the rate itself, over that of the plain baseline.

An item of the data sets is a whole mini-batch of one size, hence `batch_size` 1 in the settings.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fieldfare.common.training import TrainSettings, fit

from ..networks.multipliers import Heard, Objective, know, value
from ..networks.multipliers import State as PowerState
from ..networks.power import IcgnnPower
from ..networks.precoder import IcgnnPrecoder, State, run
from ..networks.quantised import LearntLinear, expected_share
from ..networks.structure import Response, directions, observe
from ..signals.cell_free import CellFree
from ..signals.csi import imperfect_csi
from ..signals.rates import squared_magnitude
from ..signals.satisfaction import Profile
from .samples import CellBatches, CellSettings, NetworkBatches, NetworkSettings


def training_settings(
    steps: int, learning_rate: float, seed: int = 0, device: str = "cpu"
) -> TrainSettings:
    """AdamW on a cosine with a short warm-up, gradients of norm 1 at most, averaged weights."""
    return TrainSettings(
        steps=steps,
        batch_size=1,
        learning_rate=learning_rate,
        final_learning_rate=learning_rate / 100,
        warmup_steps=min(100, steps // 10),
        weight_decay=1e-4,
        betas=(0.9, 0.99),
        clip_norm=1.0,
        ema_decay=0.995,
        seed=seed,
        device=device,
    )


SIZE = 0.02
"""Of a network of 32 bits, in the loss of one that learns its bits: 2 % of the rate."""

EARLY = 0.05
"""Share of every layer but the last in the loss."""


def precoder_loss(
    network: IcgnnPrecoder, batch: Mapping[str, Tensor], csi_error: float = 0.0
) -> Tensor:
    """Minus the logarithm of the weighted sum rate over that of RZF, mean over the channels.

    Over RZF's, cells of all sizes and noise levels count alike. Layers before the last count a
    little, so that each goes on from a good point.

    Args:
        network: an `IcgnnPrecoder`.
        batch: of `CellBatches`, with the leading 1 that the loader adds.
        csi_error: the network and RZF see an estimate with this share of error, the rates are
            those in the channel.
    """
    H = batch["H"][0].to(torch.complex128)
    power, weights = (batch[name][0].double() for name in ("power", "weights"))
    estimate = imperfect_csi(H, csi_error) if csi_error else H
    cell = observe(estimate, power, 1.0, weights)
    states = run(network, cell)
    cross = H @ estimate.mH * power[:, None, None] if csi_error else None
    values = [(weights * _response(state, cross).rates()).sum(-1).log() for state in states]
    gains = [(value - values[0].detach()).mean() for value in values]
    return -(gains[-1] + EARLY * sum(gains[1:-1], torch.zeros_like(gains[-1])))


def _response(state: State, cross: Tensor | None) -> Response:
    """As the network expects it, or in the true channel: cross = H_true H^H P / s2."""
    if cross is None:
        return state.response
    received = squared_magnitude(cross @ directions(state.seen, state.q))
    received = received / (state.q * state.seen.length).sum(-1)[:, None, None]
    signal = received.diagonal(dim1=-2, dim2=-1)
    return Response(signal, received.sum(-1) - signal)


def train_precoder(
    data: CellBatches,
    settings: TrainSettings,
    folder: Path,
    *,
    width: int = 10,
    layers: int = 6,
    start: IcgnnPrecoder | None = None,
    validate: Callable[[IcgnnPrecoder], Mapping[str, float]] | None = None,
    quiet: bool = False,
) -> IcgnnPrecoder:
    """Train a precoding network; resumes from `folder`.

    Args:
        data: see `CellBatches`.
        settings: see `training_settings`.
        folder: receives checkpoint, log and curve.
        width, layers: of a fresh network.
        start: train this network on instead.
        validate: metrics of the averaged network.

    Returns:
        The network with averaged weights.

    Raises:
        InputError: the folder holds a run with other settings.
    """
    torch.manual_seed(settings.seed)
    network = IcgnnPrecoder(width, layers) if start is None else start
    learnt = any(isinstance(module, LearntLinear) for module in network.modules())
    settings = dataclasses.replace(
        settings, identity=_identity(network, data.settings, data.batch, data.stored)
    )

    def loss(_: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        value = precoder_loss(network, batch, data.settings.csi_error)
        return value + SIZE * expected_share(network) if learnt else value

    return fit(network, data, loss, settings, folder, validate=validate, quiet=quiet)


def power_loss(model: IcgnnPower, batch: Mapping[str, Tensor], steps: int) -> Tensor:
    """Minus the network's objective, mean over the networks; earlier layers count a little.

    "sum-rate": sum of SE over that of fractional allocation; "proportional-fair": mean log SE;
    "max-min": logarithm of a softened least SE, whose softness falls in the course of `steps`;
    "satisfaction": mean satisfaction of the batch's profiles, less a price of the power spent.

    Args:
        model: an `IcgnnPower`.
        batch: of `NetworkBatches`, with the leading 1 that the loader adds.
        steps: of the whole run.
    """
    fields = {name: batch[name][0] for name in CellFree._fields if name in batch}
    asked = [batch[name][0] for name in Profile._fields if name in batch]
    known = know(CellFree(**fields), Profile(*asked) if asked else None)
    plain, *found = model.run(known)
    hardness = 5 * 20 ** min(float(batch["step"]) / steps, 1.0)

    def gain(state: PowerState, heard: Heard) -> Tensor:
        if model.objective == "max-min":
            return _soft_least(2 * heard.ratio, hardness)
        reached = value(known, heard, state.mu, model.objective)
        if model.objective == "sum-rate":
            return reached / value(known, plain[1], plain[0].mu, model.objective)
        return reached / (1 if asked else heard.ratio.shape[-1])

    gains = [gain(*each).mean() for each in found]
    return -(gains[-1] + EARLY * sum(gains[:-1], torch.zeros_like(gains[-1])))


def _soft_least(log_sinr: Tensor, hardness: float) -> Tensor:
    """Logarithm of a softened least SE of the users, (B,)."""
    se = F.softplus(log_sinr)
    mean = se.detach().mean(-1, keepdim=True)
    soft = -torch.logsumexp(-hardness * se / mean, -1) + math.log(se.shape[-1])
    return (soft / hardness).clamp_min(1e-3).log() + mean.squeeze(-1).log()


def train_power(
    data: NetworkBatches,
    settings: TrainSettings,
    folder: Path,
    *,
    objective: Objective = "max-min",
    width: int = 12,
    layers: int = 8,
    start: IcgnnPower | None = None,
    validate: Callable[[IcgnnPower], Mapping[str, float]] | None = None,
    quiet: bool = False,
) -> IcgnnPower:
    """Train a power-allocation network; resumes from `folder`. Arguments as `train_precoder`.

    Raises:
        InputError: no such objective, or the folder holds a run with other settings.
    """
    torch.manual_seed(settings.seed)
    network = IcgnnPower(width, layers, objective) if start is None else start
    if (network.objective == "satisfaction") != data.settings.profiles:
        raise ValueError("profiles are drawn for the objective satisfaction, and for no other")
    identity = network.objective + _identity(network, data.settings, data.batch, [])
    settings = dataclasses.replace(settings, identity=identity, rate_factors=(("pace", 5.0),))

    def loss(_: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        return power_loss(network, batch, settings.steps)

    return fit(network, data, loss, settings, folder, validate=validate, quiet=quiet)


def _identity(
    network: nn.Module, data: CellSettings | NetworkSettings, batch: int, stored: list[Tensor]
) -> str:
    """What a resumed run must share, besides the settings."""
    digest = hashlib.sha256()
    for tensor in [*network.state_dict().values(), *stored]:
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return json.dumps([dataclasses.asdict(data), batch, digest.hexdigest()])
