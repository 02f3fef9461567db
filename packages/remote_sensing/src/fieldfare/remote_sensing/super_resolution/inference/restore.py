# SPDX-License-Identifier: Apache-2.0
"""Restorers: batches of low-resolution tiles in, enlarged tiles out."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fieldfare.common.runtime import resolve_device, resolve_precision
from fieldfare.common.weights import locate

from ...rasters.bands import band_groups
from ..networks.fast import FastEDiffSR
from ..networks.model import TASK, SuperResolutionModel, enlarge, load_model
from ..sampling.noise import noise_field
from ..sampling.solvers import sample

BICUBIC = "bicubic"
BICUBIC_SCALE = 4
MARGIN = 2
"""Low-resolution pixels around a tile that the bicubic enlargement looks at."""


class Restorer(Protocol):
    """Enlarges tiles.

    Called with low (N, channels, h + 2 MARGIN, w + 2 MARGIN) in [0, 1], origins (N, 2) the first
    row and column of each tile without margin in pixels of the whole raster, and group, which
    group of bands this is; returns (N, channels, scale h, scale w), float32. `batch` is how many
    tiles suit the device.
    """

    scale: int
    channels: int
    batch: int

    def __call__(self, low: np.ndarray, origins: np.ndarray, group: int) -> np.ndarray: ...


class BicubicRestorer:
    """The baseline: bicubic enlargement (a = -0.5, as Pillow and MATLAB), by the models' path."""

    scale = BICUBIC_SCALE
    channels = 1
    batch = 8

    def __call__(self, low: np.ndarray, origins: np.ndarray, group: int) -> np.ndarray:
        cut = MARGIN * self.scale
        enlarged = F.interpolate(
            torch.from_numpy(low), scale_factor=self.scale, mode="bicubic", antialias=True
        )
        return F.pad(enlarged, (-cut, -cut, -cut, -cut)).numpy()


class DiffusionRestorer:
    """A diffusion model with its sampler; noise depends on seed and raster pixel alone."""

    def __init__(
        self,
        model: SuperResolutionModel,
        *,
        sampler: str = "multistep",
        steps: int | None = None,
        seed: int = 0,
        device: str = "auto",
        precision: str = "auto",
    ) -> None:
        self.device = resolve_device(device)
        self.dtype = resolve_precision(precision, self.device)
        self.model = model.eval().to(self.device).to(memory_format=torch.channels_last)
        self.scale = model.config.network.scale
        self.channels = model.config.network.channels
        self.sampler, self.seed = sampler, seed
        self.steps = steps or model.config.default_steps
        self.batch = 16 if self.device.type == "cuda" else 4
        self._predict = self._choose_path()

    def with_seed(self, seed: int) -> "DiffusionRestorer":
        """The same restorer, sharing the network, with other noise."""
        other = copy.copy(self)
        other.seed = seed
        return other

    def _choose_path(self) -> Callable[[Tensor, Tensor, float, Tensor], Tensor]:
        plain_cpu = self.device.type == "cpu" and self.dtype == torch.float32
        if plain_cpu and self.model.config.network.cpem == "published":
            fast = FastEDiffSR(self.model.network)
            return lambda x, mu, t, low: fast(x, mu, t)

        def predict(x: Tensor, mu: Tensor, t: float, low: Tensor) -> Tensor:
            with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
                output: Tensor = self.model(
                    x.contiguous(memory_format=torch.channels_last),
                    mu,
                    torch.tensor([t], device=self.device),
                    low,
                )
                return output

        return predict

    def __call__(self, low: np.ndarray, origins: np.ndarray, group: int) -> np.ndarray:
        """A processor takes one tile after the other: products of matrices of other sizes are
        rounded otherwise, and a result must not depend on the batch."""
        if self.device.type != "cpu":
            return self._restored(low, origins, group)
        ones = range(len(low))
        return np.concatenate(
            [self._restored(low[k : k + 1], origins[k : k + 1], group) for k in ones]
        )

    @torch.inference_mode()
    def _restored(self, low: np.ndarray, origins: np.ndarray, group: int) -> np.ndarray:
        wide = torch.from_numpy(low).to(self.device)
        inside = wide[..., MARGIN:-MARGIN, MARGIN:-MARGIN]
        mu = _condition(wide, self.scale)
        height, width = mu.shape[-2:]
        streams = self.model.sde.steps + 1

        def noise(stream: int) -> Tensor:
            fields = [
                noise_field(
                    self.seed,
                    stream + streams * group,
                    self.channels,
                    (int(row) * self.scale, int(row) * self.scale + height),
                    (int(column) * self.scale, int(column) * self.scale + width),
                )
                for row, column in origins
            ]
            return torch.from_numpy(np.stack(fields)).to(self.device)

        restored = sample(
            lambda x, t: self._predict(x, mu, t, inside),
            mu,
            self.model.sde,
            noise,
            prediction=self.model.config.prediction,
            sampler=self.sampler,
            steps=self.steps,
            last_time=self.model.config.last_time,
        )
        return restored.float().cpu().numpy()


def restore_bands(restorer: Restorer, tiles: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Restore all bands of a batch, group by group; (N, bands, h, w) in and out."""
    count = tiles.shape[1]
    parts = []
    for number, group in enumerate(band_groups(count, restorer.channels)):
        restored = restorer(np.ascontiguousarray(tiles[:, group]), starts, number)
        parts.append(restored[:, : min(restorer.channels, count - group[0])])
    return np.concatenate(parts, axis=1)


def enlarged_excess(excess: np.ndarray, scale: int) -> np.ndarray:
    """What lies above 1 or below 0, enlarged like the rest but without ringing.

    Args:
        excess: (N, bands, h + 2 MARGIN, w + 2 MARGIN), 0 within the range.
    """
    above, below = (
        _condition(torch.from_numpy(np.ascontiguousarray(part, np.float32)), scale)
        for part in (excess.clip(min=0), excess.clip(max=0))
    )
    return (above.clamp(min=0) + below.clamp(max=0)).numpy()


def _condition(low: Tensor, scale: int) -> Tensor:
    """Bicubic enlargement of tiles with margin, the margin cut off again."""
    cut = MARGIN * scale
    return F.pad(enlarge(low, scale), (-cut, -cut, -cut, -cut))


def model_path(name_or_path: str) -> Path | None:
    """The weight file behind a name or path; None for the bicubic baseline."""
    return None if name_or_path == BICUBIC else locate(name_or_path, TASK)


def load_restorer(
    name_or_path: str,
    *,
    sampler: str = "multistep",
    steps: int | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
) -> Restorer:
    """A restorer by model name or path; `bicubic` is the baseline."""
    if name_or_path == BICUBIC:
        return BicubicRestorer()
    model, _ = load_model(name_or_path)
    return DiffusionRestorer(
        model, sampler=sampler, steps=steps, seed=seed, device=device, precision=precision
    )
