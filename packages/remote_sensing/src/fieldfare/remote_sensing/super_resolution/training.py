# SPDX-License-Identifier: Apache-2.0
"""Training: the published objective, the velocity objective of the default model, and the run."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from fieldfare.common.training import TrainSettings, fit

from ..rasters.tiles import read_tiles
from .data.degradations import DegradationRange
from .data.pairs import PairDataset
from .data.reduction import reduce_bicubic
from .networks.diffusion import MeanRevertingSDE
from .networks.model import (
    ModelConfig,
    SuperResolutionModel,
    enlarge,
    initialise_for_velocity,
    velocity_target,
    x0_from_output,
)

if TYPE_CHECKING:
    from .evaluation.perceptual import FeatureDistance


GRID_WEIGHT = 40.0
"""Of `grid_error` in the objective of velocity models."""

WINDOW, FIXED_GRID = 8, 20.0
"""Of `grid_error`: side in input pixels, and weight of what does not change with the image."""


@dataclass(frozen=True)
class DataSettings:
    """What is drawn from the tiles.

    Attributes:
        patch: side of the training crop in low-resolution pixels (the published: 64).
        final_share: share of draws at t = T; the rest is uniform over 1 to T (the published: 0).
        own_share: share of the draws at t < T whose state the model makes itself; velocity only.
        perceptual_weight: of the feature distance at t < T; see `Objective`.
        holdout: every n-th tile of each folder, in order of name, is kept for validation.
        degradations: what the inputs went through; clean reductions alone when None.
    """

    patch: int = 32
    final_share: float = 0.5
    own_share: float = 0.5
    perceptual_weight: float = 0.0
    holdout: int = 40
    degradations: DegradationRange | None = None


def matching_loss(
    sde: MeanRevertingSDE, predicted_noise: Tensor, x: Tensor, mu: Tensor, x0: Tensor, t: Tensor
) -> Tensor:
    """The published objective: mean L1 between the network's reverse step and the optimum one.

    Source: maximum likelihood objective of arXiv 2301.11699, eq. 14, in L1, unweighted.
    """
    expected = sde.sde_step_mean(x, mu, sde.score_from_noise(predicted_noise, t), t)
    return (expected - sde.posterior_mean(x, mu, x0, t)).abs().mean()


class Objective:
    """The loss of one batch of `PairDataset`, for the model's kind of prediction.

    With a perceptual weight, the clean images seen at t < T are also pulled towards the truth in
    EfficientNet-Lite1 features. At t = T the loss stays plain, so that one step remains the
    least-squares restoration and every further step moves towards detail. Draws marked `own` take
    as their state the noised one-step restoration instead of the noised truth: that is what a
    sampler of few steps meets, and a network that never saw it takes blur for truth.

    The comparing network looks at every second pixel, at deeper stages at every 32nd, so that what
    it asks for differs between the pixels of such a grid, and a network taught by it weaves that
    grid into its images. Both images are therefore rolled by the draw's random `shift` first. The
    network's own halvings and doublings have the same grid; `grid_error` holds them from it.
    """

    def __init__(self, model: SuperResolutionModel, perceptual_weight: float = 0.0) -> None:
        self.sde, self.prediction = model.sde, model.config.prediction
        self.scale = model.config.network.scale
        self.perceptual_weight = perceptual_weight
        self.distance = _distance() if perceptual_weight else None

    def __call__(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        x0, t, noise, low = batch["high"], batch["t"], batch["noise"], batch["low"]
        mu = enlarge(low, self.scale)
        if self.prediction == "noise":
            x = self._state(x0, mu, t, noise)
            return matching_loss(self.sde, model(x, mu, t, low), x, mu, x0, t)
        own = batch["own"] & (t < self.sde.steps)
        start = x0.clone()
        if own.any():
            final = torch.full_like(t[own], self.sde.steps)
            with torch.no_grad():
                x = self._state(mu[own], mu[own], final, noise[own].flip(-1))
                start[own] = self._seen(model(x, mu[own], final, low[own]), x, mu[own], final)
        x = self._state(start, mu, t, noise)
        predicted = model(x, mu, t, low)
        wanted = velocity_target(x0, mu, noise, t, self.sde)
        seen = self._seen(predicted, x, mu, t)
        error = (predicted - wanted).square().mean(dim=(1, 2, 3))
        image_error = (seen - x0).square().mean(dim=(1, 2, 3)) / self.sde.max_sigma**2
        loss = torch.where(own, image_error, error).mean()
        loss = loss + GRID_WEIGHT * grid_error(seen - x0, self.scale) / self.sde.max_sigma**2
        early = t < self.sde.steps
        if self.distance is None or not early.any():
            return loss
        images = (rolled(image[early], batch["shift"][early]) for image in (seen, x0))
        distance = self.distance.to(x.device)(*images).sum() / len(t)
        whole: Tensor = loss + self.perceptual_weight * distance
        return whole

    def _state(self, x0: Tensor, mu: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        return self.sde.noised(x0, mu, t, noise).contiguous(memory_format=torch.channels_last)

    def _seen(self, velocity: Tensor, x: Tensor, mu: Tensor, t: Tensor) -> Tensor:
        """The clean image that a velocity implies, for whole times t, one a sample."""
        alpha, sigma = self.sde.at(self.sde.alphas, t, x), self.sde.at(self.sde.sigma_bars, t, x)
        return mu + alpha * (x - mu) - sigma * velocity


def grid_error(error: Tensor, scale: int) -> Tensor:
    """How much of an error repeats every `scale` pixels.

    Each pixel has one of scale x scale places in an input pixel. The mean error at each place, less
    that of all places, is 0 but for chance where no grid is woven into the images. Counted are
    windows of 8 input pixels, of all channels together, which hold grids that change with what is
    shown, and `FIXED_GRID` times the whole batch, which holds those that do not: little is left
    there of chance.

    Args:
        error: (B, C, H, W), image less truth; H, W multiples of scale.

    Returns:
        Mean square, ().
    """
    places = nn.functional.pixel_unshuffle(error, scale).unflatten(1, (error.shape[1], -1))
    side = min(WINDOW, *places.shape[3:])
    local = nn.functional.avg_pool2d(places.mean(dim=1), side, max(side // 2, 1))
    fixed = places.mean(dim=(0, 3, 4))
    changing = (local - local.mean(dim=1, keepdim=True)).square().mean()
    lasting = (fixed - fixed.mean(dim=1, keepdim=True)).square().mean()
    both: Tensor = changing + FIXED_GRID * lasting
    return both


def rolled(images: Tensor, shifts: Tensor) -> Tensor:
    """Each of (B, C, H, W) images, rolled around by its (rows, columns) of (B, 2) shifts."""
    pairs = zip(images, shifts.tolist(), strict=True)
    return torch.stack([image.roll(shift, dims=(1, 2)) for image, shift in pairs])


def _distance() -> "FeatureDistance":
    """What the perceptual weight weighs; its backbone takes seconds to import."""
    from .evaluation.perceptual import FeatureDistance

    return FeatureDistance("lite1").to(memory_format=torch.channels_last)


class OneStepValidation:
    """PSNR in dB (RGB, border of one scale cut) of the one-step restoration on held-out tiles."""

    def __init__(self, tiles: list[np.ndarray], scale: int) -> None:
        self.scale = scale
        self.pairs = []
        for tile in tiles:
            high = tile[: len(tile) // scale * scale, : tile.shape[1] // scale * scale]
            low = reduce_bicubic(high, scale)
            self.pairs.append([torch.from_numpy(i.transpose(2, 0, 1).copy()) for i in (high, low)])

    def __call__(self, model: SuperResolutionModel) -> dict[str, float]:
        sde, device = model.sde, next(model.parameters()).device
        values: dict[str, list[float]] = {"psnr_1_step": [], "psnr_bicubic": []}
        for number, (high, low) in enumerate(self.pairs):
            high, low = (i[None].to(device).float() / 255 for i in (high, low))
            mu = enlarge(low, self.scale)
            noise = torch.randn(mu.shape, generator=torch.Generator().manual_seed(number))
            x = mu + sde.max_sigma * noise.to(device)
            output = model(x, mu, torch.tensor(sde.steps), low)
            x0 = x0_from_output(model.config.prediction, output, x, mu, sde.steps, sde)
            for name, image in (("psnr_1_step", x0), ("psnr_bicubic", mu)):
                values[name].append(self._psnr(image, high))
        return {name: float(np.mean(v)) for name, v in values.items()}

    def _psnr(self, image: Tensor, truth: Tensor) -> float:
        cut = self.scale
        error = (image.clamp(0, 1) - truth)[..., cut:-cut, cut:-cut].square().mean()
        return float(-10 * torch.log10(error))


def train(
    config: ModelConfig,
    folders: Sequence[Path],
    settings: TrainSettings,
    data: DataSettings,
    folder: Path,
    *,
    start: Mapping[str, Tensor] | None = None,
    quiet: bool = False,
) -> SuperResolutionModel:
    """Train a model on folders of uint8 GeoTIFF tiles.

    Args:
        start: weights to begin with (fine-tuning); a fresh model when None.

    Returns:
        The model with averaged weights; log, curve and checkpoint lie in `folder`.
    """
    identity = json.dumps([config.to_dict(), dataclasses.asdict(data), start is not None])
    settings = dataclasses.replace(settings, identity=identity)
    torch.manual_seed(settings.seed)
    model = SuperResolutionModel(config)
    if start is not None:
        model.network.load_state_dict(start)
    elif config.prediction == "velocity":
        initialise_for_velocity(model)
    model.to(memory_format=torch.channels_last)
    images = [read_tiles(tiles, config.network.channels) for tiles in folders]
    held_out = [image for part in images for image in part[:: data.holdout]]
    dataset = PairDataset(
        [image for part in images for n, image in enumerate(part) if n % data.holdout],
        scale=config.network.scale,
        patch=data.patch,
        times=config.diffusion_steps,
        final_share=data.final_share,
        own_share=data.own_share,
        degradations=data.degradations,
    )
    fit(
        model,
        dataset,
        Objective(model, data.perceptual_weight),
        settings,
        folder,
        validate=OneStepValidation(held_out, config.network.scale),
        quiet=quiet,
    )
    return model
