# SPDX-License-Identifier: Apache-2.0
"""The mean-reverting stochastic differential equation of EDiffSR.

Image Restoration with Mean-Reverting Stochastic Differential Equations, Luo et al. 2023
(arXiv 2301.11699, "IR-SDE"): dx = theta_t (mu - x) dt + sigma_t dw with
sigma_t^2 = 2 lambda^2 theta_t, so that x_T is nearly mu + lambda noise.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

SCHEDULES = ("cosine", "linear", "constant")


def theta_schedule(name: str, steps: int) -> Tensor:
    """Speed of mean reversion theta_t; (steps + 1,) float32, index = t."""
    if name == "cosine":
        grid = torch.linspace(0, steps + 2, steps + 3)
        decay = torch.cos(((grid / (steps + 2)) + 0.008) / 1.008 * math.pi * 0.5) ** 2
        return 1 - (decay / decay[0])[1:-1]
    if name == "linear":
        stretch = 1000 / (steps + 1)
        return torch.linspace(stretch * 1e-4, stretch * 0.02, steps + 1)
    if name == "constant":
        return torch.ones(steps + 1)
    raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}, got {name!r}")


@dataclass(frozen=True)
class Moments:
    """Mean factor alpha_t and standard deviation sigma_bar_t of x_t - mu given x_0 - mu."""

    alpha: Tensor
    sigma: Tensor

    @property
    def log_snr(self) -> Tensor:
        """ln(alpha / sigma_bar), image units; grows as noise goes."""
        return torch.log(self.alpha) - torch.log(self.sigma)


class MeanRevertingSDE:
    """Tables of the discretised SDE, indexed by t = 0..steps, in float32 on the CPU.

    Args:
        steps: T, number of discrete times.
        schedule: `cosine` (published), `linear` or `constant`.
        eps: what is left of x_0 - mu at T, alpha_T.
        max_sigma: lambda, the stationary standard deviation; image units (0 to 1), or grey levels
            of 255 when at least 1, as in the published options.
    """

    def __init__(
        self,
        steps: int = 100,
        schedule: str = "cosine",
        eps: float = 0.005,
        max_sigma: float = 50 / 255,
    ) -> None:
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}")
        if not 0 < eps < 1:
            raise ValueError(f"eps must lie between 0 and 1, got {eps}")
        if max_sigma <= 0:
            raise ValueError(f"max_sigma must be positive, got {max_sigma}")
        self.steps = steps
        self.schedule = schedule
        self.eps = eps
        self.max_sigma = max_sigma / 255 if max_sigma >= 1 else max_sigma
        self.thetas = theta_schedule(schedule, steps)
        self.sigmas = torch.sqrt(self.max_sigma**2 * 2 * self.thetas)
        self.thetas_cumsum = torch.cumsum(self.thetas, dim=0) - self.thetas[0]
        self.dt = -math.log(eps) / float(self.thetas_cumsum[-1])
        self.alphas = torch.exp(-self.thetas_cumsum * self.dt)
        self.sigma_bars = self.max_sigma * torch.sqrt(
            1 - torch.exp(-2 * self.thetas_cumsum * self.dt)
        )

    def at(self, table: Tensor, t: Tensor | int, like: Tensor) -> Tensor:
        """Values of a table at whole times t, shaped to broadcast over images like (B, C, H, W)."""
        index = torch.as_tensor(t).reshape(-1).cpu()
        return table[index].to(like.device, like.dtype).reshape(-1, *[1] * (like.ndim - 1))

    def moments(self, t: float) -> Moments:
        """Moments at any real time 0 < t <= steps, in float64.

        The integral of theta is interpolated linearly between whole times.

        Raises:
            ValueError: t is outside that range.
        """
        if not 0 < t <= self.steps:
            raise ValueError(f"time must be above 0 and at most {self.steps}, got {t}")
        lower = min(int(t), self.steps - 1)
        cumsum = self.thetas_cumsum.double()
        theta_bar = cumsum[lower] + (t - lower) * (cumsum[lower + 1] - cumsum[lower])
        alpha = torch.exp(-theta_bar * self.dt)
        return Moments(alpha, torch.sqrt(-torch.expm1(-2 * theta_bar * self.dt)) * self.max_sigma)

    def noised(self, x0: Tensor, mu: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Sample x_t given x_0: mu + alpha_t (x0 - mu) + sigma_bar_t noise; all (B, C, H, W)."""
        return (
            mu + self.at(self.alphas, t, mu) * (x0 - mu) + self.at(self.sigma_bars, t, mu) * noise
        )

    def score_from_noise(self, noise: Tensor, t: Tensor | int) -> Tensor:
        """Gradient of the log density of x_t from the predicted noise."""
        return -noise / self.at(self.sigma_bars, t, noise)

    def x0_from_noise(self, x: Tensor, mu: Tensor, noise: Tensor, t: Tensor | int) -> Tensor:
        """The clean image that the predicted noise implies."""
        offset = x - mu - self.at(self.sigma_bars, t, x) * noise
        return offset / self.at(self.alphas, t, x) + mu

    def sde_step_mean(self, x: Tensor, mu: Tensor, score: Tensor, t: Tensor | int) -> Tensor:
        """Mean of x_{t-1} under the reverse SDE, Euler-Maruyama (arXiv 2301.11699, eq. 8)."""
        theta, sigma = self.at(self.thetas, t, x), self.at(self.sigmas, t, x)
        return x - (theta * (mu - x) - sigma**2 * score) * self.dt

    def ode_step(self, x: Tensor, mu: Tensor, score: Tensor, t: Tensor | int) -> Tensor:
        """One Euler step of the probability-flow ODE."""
        theta, sigma = self.at(self.thetas, t, x), self.at(self.sigmas, t, x)
        return x - (theta * (mu - x) - 0.5 * sigma**2 * score) * self.dt

    def sde_step_std(self, t: Tensor | int, like: Tensor) -> Tensor:
        """Standard deviation of the noise one reverse SDE step adds, sigma_t sqrt(dt)."""
        return self.at(self.sigmas, t, like) * math.sqrt(self.dt)

    def posterior_mean(self, x: Tensor, mu: Tensor, x0: Tensor, t: Tensor | int) -> Tensor:
        """Mean of x_{t-1} given x_t and x_0, the optimum reverse step.

        Source: arXiv 2301.11699, eq. 13.
        """
        before = torch.as_tensor(t) - 1
        step = torch.exp(-self.at(self.thetas, t, x) * self.dt)
        now, then = self.at(self.alphas, t, x), self.at(self.alphas, before, x)
        keep = step * (1 - then**2) / (1 - now**2)
        pull = then * (1 - step**2) / (1 - now**2)
        return keep * (x - mu) + pull * (x0 - mu) + mu

    def posterior_std(self, t: Tensor | int, like: Tensor) -> Tensor:
        """Standard deviation of x_{t-1} given x_t and x_0 (arXiv 2404.09732)."""
        before = torch.as_tensor(t) - 1
        step2 = torch.exp(-2 * self.at(self.thetas, t, like) * self.dt)
        now, then = self.at(self.alphas, t, like), self.at(self.alphas, before, like)
        variance = (1 - step2) * (1 - then**2) / (1 - now**2)
        return self.max_sigma * torch.sqrt(variance.clamp(min=1e-20 * self.dt))
