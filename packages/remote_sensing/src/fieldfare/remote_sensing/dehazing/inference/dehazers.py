# SPDX-License-Identifier: Apache-2.0
"""Dehazers: batches of hazy tiles in, clear tiles out."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from fieldfare.common.runtime import resolve_device, resolve_precision
from fieldfare.common.weights import locate

from ...rasters.bands import band_groups
from ...rasters.reading import Scene, ValueRange, fill_missing
from ...rasters.samples import windows_over
from ..networks.deanet import DEANet
from ..networks.fast import hastened
from ..networks.model import TASK, load_model
from .dark_channel import REACH, haze_light, remove_haze

DARK_CHANNEL = "dark-channel"

SIDE, ACROSS = 256, 7
"""Windows in which the baseline looks for the light of the haze: side in pixels, most an axis."""


WHITE = np.ones(1, np.float32)


class Dehazer(Protocol):
    """Takes haze off tiles.

    Called with tiles (N, bands, h + 2 margin, w + 2 margin) in [0, 1]; returns (N, bands, h, w),
    float32, not clipped. `batch` is how many tiles suit the device. `least` is the smallest side
    of a tile.
    """

    margin: int
    batch: int
    least: int

    def over(self, scene: Scene, values: ValueRange) -> "Dehazer":
        """The dehazer for a scene, having looked at it as a whole where it needs to."""
        ...

    def __call__(self, tiles: np.ndarray) -> np.ndarray: ...


class NetworkDehazer:
    """DEA-Net in its fast form; three bands at a time, the rest one by one."""

    margin = 0

    def __init__(self, model: DEANet, *, device: str = "auto", precision: str = "auto") -> None:
        self.device = resolve_device(device)
        self.dtype = resolve_precision(precision, self.device)
        self.channels, self.least = model.config.channels, model.least_side
        fast = hastened(model).requires_grad_(False).to(self.device)
        self.network = fast.to(memory_format=torch.channels_last)
        self.batch = 16 if self.device.type == "cuda" else 4

    def over(self, scene: Scene, values: ValueRange) -> "NetworkDehazer":
        """Itself: it looks at each tile alone."""
        return self

    def __call__(self, tiles: np.ndarray) -> np.ndarray:
        """A processor takes one tile after the other: products of matrices of other sizes are
        rounded otherwise, and a result must not depend on the batch."""
        count = tiles.shape[1]
        size = len(tiles) if self.device.type != "cpu" else 1
        parts = []
        for group in band_groups(count, self.channels):
            seen = np.ascontiguousarray(tiles[:, group])
            found = [self._dehazed(seen[k : k + size]) for k in range(0, len(seen), size)]
            parts.append(np.concatenate(found)[:, : min(self.channels, count - group[0])])
        return np.concatenate(parts, axis=1)

    @torch.inference_mode()
    def _dehazed(self, tiles: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(tiles).to(self.device)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            clear = self.network(x.contiguous(memory_format=torch.channels_last))
        found: np.ndarray = clear.float().cpu().numpy()
        return found


class DarkChannelDehazer:
    """The baseline; all bands together, the light of the haze from the whole scene."""

    margin = REACH
    batch = 1
    least = 1

    def __init__(self, light: np.ndarray = WHITE) -> None:
        self.light = light

    def over(self, scene: Scene, values: ValueRange) -> "DarkChannelDehazer":
        """With the light of the haze in that scene, white where it holds no data."""

        def parts() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            for read, valid in windows_over(scene, SIDE, ACROSS):
                seen = (read.astype(np.float32) - values.low) / (values.high - values.low)
                counts: np.ndarray = np.logical_and.reduce(valid, axis=0)
                yield fill_missing(seen, valid).clip(0, 1), counts

        light = haze_light(parts())
        return DarkChannelDehazer(np.ones(len(scene.bands)) if light is None else light)

    def __call__(self, tiles: np.ndarray) -> np.ndarray:
        """See `Dehazer`."""
        cut = slice(self.margin, -self.margin)
        cleared = []
        for tile in tiles:
            cleared.append(remove_haze(tile, self.light)[:, cut, cut])
        return np.stack(cleared)


def model_path(name_or_path: str) -> Path | None:
    """The weight file behind a name or path; None for the baseline."""
    return None if name_or_path == DARK_CHANNEL else locate(name_or_path, TASK)


def load_dehazer(name_or_path: str, *, device: str = "auto", precision: str = "auto") -> Dehazer:
    """A dehazer by model name or path; `dark-channel` is the baseline."""
    if name_or_path == DARK_CHANNEL:
        return DarkChannelDehazer()
    model, _ = load_model(name_or_path)
    return NetworkDehazer(model, device=device, precision=precision)
