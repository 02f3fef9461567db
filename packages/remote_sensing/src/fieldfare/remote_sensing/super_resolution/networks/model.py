# SPDX-License-Identifier: Apache-2.0
"""A super-resolution model: network, diffusion and what the network's output means."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fieldfare.common.weights import ModelCard, from_pretrained

from .diffusion import MeanRevertingSDE
from .ediffsr import EDiffSR, EDiffSRConfig

TASK = "super-resolution"

PREDICTIONS = ("noise", "velocity")


@dataclass(frozen=True)
class ModelConfig:
    """Everything but the weights.

    Attributes:
        network: shape of the network.
        prediction: what the network's output is; `noise` in the published models. `velocity` is
            v = alpha eps - sqrt(1 - alpha^2) r_0 (Salimans and Ho 2022, arXiv 2202.00512) of the
            residual r = (x - mu) / lambda: at t = T it is minus the clean residual, so that one
            step gives the least-squares restoration.
        diffusion_steps, schedule, eps, max_sigma: of the `MeanRevertingSDE`.
        default_steps: solver steps that `rs-sr infer` takes when not told.
        last_time: when the few-step solver calls the network last; see `solvers.solver_times`.
    """

    network: EDiffSRConfig = field(default_factory=EDiffSRConfig)
    prediction: str = "noise"
    diffusion_steps: int = 100
    schedule: str = "cosine"
    eps: float = 0.005
    max_sigma: float = 50 / 255
    default_steps: int = 20
    last_time: float = 0.0

    def __post_init__(self) -> None:
        if self.prediction not in PREDICTIONS:
            raise ValueError(f"prediction must be one of {PREDICTIONS}, got {self.prediction!r}")

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready dictionary."""
        return asdict(self) | {"network": self.network.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ModelConfig":
        """Read what `to_dict` wrote."""
        return cls(**{**values, "network": EDiffSRConfig.from_dict(values["network"])})

    def sde(self) -> MeanRevertingSDE:
        """The diffusion these settings describe."""
        return MeanRevertingSDE(self.diffusion_steps, self.schedule, self.eps, self.max_sigma)


class SuperResolutionModel(nn.Module):
    """The network with its diffusion; images are (B, C, H, W) in [0, 1]."""

    def __init__(self, config: ModelConfig, network: EDiffSR | None = None) -> None:
        super().__init__()
        self.config = config
        self.network = network or EDiffSR(config.network)
        self.sde = config.sde()

    def forward(
        self, x: Tensor, mu: Tensor, t: Tensor, low_resolution: Tensor | None = None
    ) -> Tensor:
        """The network's raw output, in float32; see `EDiffSR.forward`."""
        output: Tensor = self.network(x, mu, t, low_resolution)
        return output.float()


def enlarge(low_resolution: Tensor, scale: int) -> Tensor:
    """The condition mu: bicubic enlargement (a = -0.75, half-pixel centres), not clipped."""
    return F.interpolate(low_resolution, scale_factor=scale, mode="bicubic")


def velocity_target(
    x0: Tensor, mu: Tensor, noise: Tensor, t: Tensor, sde: MeanRevertingSDE
) -> Tensor:
    """The velocity alpha eps - sqrt(1 - alpha^2) (x0 - mu) / lambda at whole times t."""
    alpha, sigma = sde.at(sde.alphas, t, mu), sde.at(sde.sigma_bars, t, mu)
    return alpha * noise - sigma * (x0 - mu) / sde.max_sigma**2


def x0_from_output(
    prediction: str, output: Tensor, x: Tensor, mu: Tensor, t: float, sde: MeanRevertingSDE
) -> Tensor:
    """The clean image that the network's output at x_t implies; t may be any real 0 < t <= T."""
    if prediction not in PREDICTIONS:
        raise ValueError(f"prediction must be one of {PREDICTIONS}, got {prediction!r}")
    moments = sde.moments(t)
    alpha, sigma = float(moments.alpha), float(moments.sigma)
    if prediction == "noise":
        return (x - mu - sigma * output) / alpha + mu
    return mu + alpha * (x - mu) - sigma * output


def noise_from_x0(x0: Tensor, x: Tensor, mu: Tensor, t: float, sde: MeanRevertingSDE) -> Tensor:
    """The noise that a clean image implies for x_t."""
    moments = sde.moments(t)
    return (x - mu - float(moments.alpha) * (x0 - mu)) / float(moments.sigma)


def initialise_for_velocity(model: SuperResolutionModel) -> None:
    """Start from the bicubic image: a zero last layer, and a stem that sees x - mu.

    That offset has standard deviation lambda where mu spans [0, 1]; its stem weights are scaled up
    so that both reach the first layer norm with like strength.
    """
    network = model.network
    with torch.no_grad():
        for parameter in network.ending.parameters():
            parameter.zero_()
        network.intro.weight[:, : model.config.network.channels] *= 0.25 / model.sde.max_sigma


def load_model(name_or_path: str) -> tuple[SuperResolutionModel, ModelCard]:
    """A packaged model by name or a weight file by path; tensors bear the published names."""

    def build(config: dict[str, Any]) -> EDiffSR:
        return EDiffSR(ModelConfig.from_dict(config).network)

    network, card = from_pretrained(name_or_path, TASK, build)
    return SuperResolutionModel(ModelConfig.from_dict(card.config), network), card
