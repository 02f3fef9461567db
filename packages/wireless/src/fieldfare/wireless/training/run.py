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

from fieldfare.common.training import TrainSettings, fit

from ..networks.power import IcgnnPower, Objective
from ..networks.precoder import IcgnnPrecoder, run
from ..networks.structure import observe, rates, received_amplitudes
from ..signals.cell_free import CellFree, spectral_efficiency
from ..signals.csi import imperfect_csi
from ..signals.power_baselines import fractional
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


def precoder_loss(
    network: IcgnnPrecoder, batch: Mapping[str, Tensor], csi_error: float = 0.0
) -> Tensor:
    """Minus the weighted sum rate over that of RZF, mean over the channels.

    Divided by RZF's, cells of all sizes and noise levels count alike.

    Args:
        network: an `IcgnnPrecoder`.
        batch: of `CellBatches`, with the leading 1 that the loader adds.
        csi_error: the network and RZF see an estimate with this share of error, the rates are
            those in the channel.
    """
    H, power, weights = (batch[name][0] for name in ("H", "power", "weights"))
    estimate = imperfect_csi(H, csi_error) if csi_error else H
    cell = observe(estimate, power, 1.0, weights)
    learned, rzf = run(network, cell)
    cross = None
    if csi_error:
        cross = H @ estimate.mH * power[:, None, None]
    reached = weights * rates(received_amplitudes(cell.A, learned.Y, learned.downlink, cross))
    with torch.no_grad():
        safe = weights * rates(received_amplitudes(cell.A, rzf.Y, rzf.downlink, cross))
    return -(reached.sum(-1) / safe.sum(-1)).mean()


def train_precoder(
    data: CellBatches,
    settings: TrainSettings,
    folder: Path,
    *,
    width: int = 32,
    messages: int = 16,
    layers: int = 3,
    start: IcgnnPrecoder | None = None,
    validate: Callable[[IcgnnPrecoder], Mapping[str, float]] | None = None,
    quiet: bool = False,
) -> IcgnnPrecoder:
    """Train a precoding network; resumes from `folder`.

    Args:
        data: see `CellBatches`.
        settings: see `training_settings`.
        folder: receives checkpoint, log and curve.
        width, messages, layers: of a fresh network.
        start: train this network on instead.
        validate: metrics of the averaged network.

    Returns:
        The network with averaged weights.

    Raises:
        InputError: the folder holds a run with other settings.
    """
    torch.manual_seed(settings.seed)
    network = IcgnnPrecoder(width, messages, layers) if start is None else start
    settings = dataclasses.replace(
        settings, identity=_identity(network, data.settings, data.batch, data.stored)
    )

    def loss(_: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        return precoder_loss(network, batch, data.settings.csi_error)

    return fit(network, data, loss, settings, folder, validate=validate, quiet=quiet)


def power_loss(model: IcgnnPower, batch: Mapping[str, Tensor], steps: int) -> Tensor:
    """Minus the network's objective, mean over the networks.

    "sum-rate": sum of SE over that of fractional allocation; "proportional-fair": mean log SE;
    "max-min": logarithm of a softened least SE, whose softness falls in the course of `steps`.

    Args:
        model: an `IcgnnPower`.
        batch: of `NetworkBatches`, with the leading 1 that the loader adds.
        steps: of the whole run.
    """
    fields = {name: batch[name][0] for name in CellFree._fields if name in batch}
    network = CellFree(**fields)
    objective = model.objective
    se = spectral_efficiency(network, model(network)).clamp_min(1e-9)
    if objective == "sum-rate":
        plain = spectral_efficiency(network, fractional(network)).sum(-1)
        return -(se.sum(-1) / plain).mean()
    if objective == "proportional-fair":
        return -se.log().mean()
    hardness = 5 * 20 ** min(float(batch["step"]) / steps, 1.0)
    mean = se.detach().mean(-1, keepdim=True)
    soft = (
        -torch.logsumexp(-hardness * se / mean, -1) / hardness + math.log(se.shape[-1]) / hardness
    )
    return -(soft.clamp_min(1e-3).log() + mean.squeeze(-1).log()).mean()


def train_power(
    data: NetworkBatches,
    settings: TrainSettings,
    folder: Path,
    *,
    objective: Objective = "max-min",
    width: int = 24,
    layers: int = 6,
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
    identity = network.objective + _identity(network, data.settings, data.batch, [])
    settings = dataclasses.replace(settings, identity=identity, rate_factors=(("gates", 5.0),))

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
