# SPDX-License-Identifier: Apache-2.0
"""From noise to image: the published samplers and a few-step solver.

r = (x - mu) / lambda follows a plain variance-preserving diffusion, so solvers of that family apply
to the residual unchanged.
"""

import math
from collections.abc import Callable
from itertools import pairwise

from torch import Tensor

from ..networks.diffusion import MeanRevertingSDE
from ..networks.model import noise_from_x0, x0_from_output

SAMPLERS = ("multistep", "sde", "ode", "posterior")

START_LOG_SNR = -5.0
"""Noise-predicting models start where ln(alpha / sigma) is at least this: x0 divides by alpha."""

CLIP_MARGIN = 0.05
"""The few-step solver keeps each x0 estimate within [0, 1] and this margin."""


def sample(
    predict: Callable[[Tensor, float], Tensor],
    mu: Tensor,
    sde: MeanRevertingSDE,
    noise: Callable[[int], Tensor],
    *,
    prediction: str,
    sampler: str = "multistep",
    steps: int = 20,
    last_time: float = 0.0,
) -> Tensor:
    """Draw a restored image.

    Args:
        predict: (x_t, t) -> the network's output, both (B, C, H, W).
        mu: (B, C, H, W), the condition, in [0, 1].
        noise: stream number -> standard normal like mu; stream 0 starts, stream t is of step t.
        prediction: what the output means, `noise` or `velocity`.
        sampler: `multistep` takes `steps` network calls; the published `sde`, `ode` and
            `posterior` take one for each of the T discrete times, whatever `steps` says.
        last_time: of `solver_times`, for `multistep`.

    Returns:
        (B, C, H, W), about [0, 1], not clipped.
    """
    x = mu + sde.max_sigma * noise(0)
    if sampler == "multistep":
        times = solver_times(sde, steps, prediction, last_time)

        def denoise(x: Tensor, t: float) -> Tensor:
            x0 = x0_from_output(prediction, predict(x, t), x, mu, t, sde)
            return x0.clamp(-CLIP_MARGIN, 1 + CLIP_MARGIN)

        return multistep(denoise, x, mu, sde, times)

    def predict_noise(x: Tensor, t: int) -> Tensor:
        output = predict(x, float(t))
        if prediction == "noise":
            return output
        x0 = x0_from_output(prediction, output, x, mu, float(t), sde)
        return noise_from_x0(x0, x, mu, float(t), sde)

    return published(predict_noise, x, mu, sde, noise, sampler, times=range(sde.steps, 0, -1))


def solver_times(
    sde: MeanRevertingSDE, steps: int, prediction: str, last_time: float = 0.0
) -> list[float]:
    """Times of the few-step solver, `steps` + 1 values, falling to 0.

    They are evenly spaced in t, which was measured to be more accurate than even spacing in
    ln(alpha / sigma).

    Args:
        last_time: time of the last network call, after which the solver goes to 0 at once; 0
            spaces all times evenly. Without effect for one step.

    Raises:
        ValueError: steps is below 1.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    start = float(sde.steps)
    if prediction == "noise":
        while start > 1 and _log_snr(sde, start) < START_LOG_SNR:
            start -= 0.25
    if steps > 1 and last_time > 0:
        stride = (start - last_time) / (steps - 1)
        return [*(start - stride * step for step in range(steps)), 0.0]
    return [start * (steps - step) / steps for step in range(steps + 1)]


def multistep(
    denoise: Callable[[Tensor, float], Tensor],
    x: Tensor,
    mu: Tensor,
    sde: MeanRevertingSDE,
    times: list[float],
) -> Tensor:
    """Second-order multistep solver of the probability-flow ODE in data prediction.

    Source: DPM-Solver++(2M), Lu et al. 2022 (arXiv 2211.01095, algorithm 2), applied to the
    residual x - mu as in MaRS (arXiv 2502.07856). The last step, to t = 0, is of first order.

    Args:
        denoise: (x_t, t) -> estimate of x_0.
        x: (B, C, H, W), the state at times[0].
        times: falling, the last is 0.
    """
    before: Tensor | None = None
    step_before = 0.0
    for t, s in pairwise(times):
        residual = denoise(x, t) - mu
        if s == 0:
            return mu + residual
        now, then = sde.moments(t), sde.moments(s)
        step = float(then.log_snr - now.log_snr)
        direction = residual
        if before is not None:
            ratio = step_before / step
            direction = (1 + 0.5 / ratio) * residual - (0.5 / ratio) * before
        keep = float(then.sigma / now.sigma)
        x = mu + keep * (x - mu) - float(then.alpha) * math.expm1(-step) * direction
        before, step_before = residual, step
    raise ValueError("the last time must be 0")


def published(
    predict_noise: Callable[[Tensor, int], Tensor],
    x: Tensor,
    mu: Tensor,
    sde: MeanRevertingSDE,
    noise: Callable[[int], Tensor],
    sampler: str,
    times: range,
) -> Tensor:
    """The samplers of the published code, one network call a discrete time.

    `sde` subtracts noise at every step, the one at t = 1 included, as published; `ode` is
    Euler's rule; `posterior` draws x_{t-1} given x_t and the estimated x_0 (arXiv 2404.09732).
    """
    if sampler not in ("sde", "ode", "posterior"):
        raise ValueError(f"sampler must be one of {', '.join(SAMPLERS)}, got {sampler!r}")
    for t in times:
        predicted = predict_noise(x, t)
        if sampler == "posterior":
            x0 = sde.x0_from_noise(x, mu, predicted, t)
            x = sde.posterior_mean(x, mu, x0, t) + sde.posterior_std(t, x) * noise(t)
            continue
        score = sde.score_from_noise(predicted, t)
        if sampler == "ode":
            x = sde.ode_step(x, mu, score, t)
        else:
            x = sde.sde_step_mean(x, mu, score, t) - sde.sde_step_std(t, x) * noise(t)
    return x


def _log_snr(sde: MeanRevertingSDE, t: float) -> float:
    """ln(alpha / sigma) of the residual in units of lambda."""
    return float(sde.moments(t).log_snr) + math.log(sde.max_sigma)
