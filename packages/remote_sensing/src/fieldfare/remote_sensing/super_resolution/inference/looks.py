# SPDX-License-Identifier: Apache-2.0
"""How an image has come about, as it looks: sharpened, blurred, noisy, compressed.

A few numbers of each tile go through an estimate that was fitted on tiles of known degradation.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fieldfare.common.errors import InputError
from fieldfare.common.weights.store import load_part

PART = "looks"
"""Under which a model file keeps it."""

SIGNS = ("sharpness", "noise", "compression")
"""dB of power near the Nyquist frequency against a clean reduction of the same ground; levels of
255; percent below JPEG quality 100."""

WORDS = (("blurred", "over-sharpened"), ("", "noisy"), ("", "compressed (JPEG)"))

UNITS = ("dB", "levels of 255", "% below JPEG quality 100")

BANDS = (0.03, 0.08, 0.16, 0.24, 0.32, 0.40, 0.50)
"""Edges of rings in the spectrum, cycles a pixel."""

LEAST_SIDE = 16
"""Of a tile, in pixels."""

_TINY = 1e-9


def features_of(tile: np.ndarray) -> np.ndarray:
    """What is looked at in a tile.

    Args:
        tile: (channels, h, w) as the model sees it, 0 to 1; sides of `LEAST_SIDE` or more.

    Returns:
        (13,) float64: logarithms of the power of the grey image in each of `BANDS`; of colour in
        the lowest and highest of them; of contrast; mean; logarithm of the noise (median of the
        diagonal Laplacian, after Immerkaer 1996); how peaked gradients are; how much they repeat
        every 8 pixels, as at the blocks of JPEG.
    """
    image = tile.astype(np.float64)
    grey = image.mean(axis=0)
    bands = _band_powers(grey[None])
    colour = _band_powers(image - grey)
    across, down = np.abs(np.diff(grey, axis=1)), np.abs(np.diff(grey, axis=0))
    diagonal = np.diff(np.diff(grey, axis=0), axis=1)
    slopes = np.concatenate([across.ravel(), down.ravel()])
    peaked = slopes.mean() / np.sqrt(np.square(slopes).mean() + _TINY)
    return np.array(
        [
            *np.log10(bands + _TINY),
            *np.log10(colour[[0, -1]] + _TINY),
            np.log10(grey.std() + 1e-4),
            grey.mean(),
            np.log10(np.median(np.abs(diagonal)) + 1e-4),
            peaked,
            _blocks(across) + _blocks(down.T),
        ]
    )


def _band_powers(planes: np.ndarray) -> np.ndarray:
    """Mean power of (channels, h, w) in each ring."""
    sides = planes.shape[1:]
    window = np.outer(*(np.hanning(side + 2)[1:-1] for side in sides))
    centred = (planes - planes.mean(axis=(1, 2), keepdims=True)) * window
    power = np.square(np.abs(np.fft.fft2(centred))).mean(axis=0) / np.square(window).sum()
    away = np.hypot(*np.meshgrid(*(np.fft.fftfreq(side) for side in sides), indexing="ij"))
    rings = np.digitize(away, BANDS)
    return np.array([power[rings == ring].mean() for ring in range(1, len(BANDS))])


def _blocks(steps: np.ndarray) -> float:
    """Logarithm of the largest over the median mean of steps in each of 8 places."""
    means = np.array([steps[:, place::8].mean() for place in range(8)])
    return float(np.log((means.max() + 1e-4) / (np.median(means) + 1e-4)))


@dataclass(frozen=True)
class Looks:
    """A linear estimate of `SIGNS` from features and their squares, and what a model knows of them.

    Attributes:
        centre, scale: (F,) of the features.
        weights: (2 F, 3); offset: (3,).
        low, high: (3,) the range of the estimates on the model's training inputs.
        clean: (3,) what estimates on clean reductions hardly exceed.
    """

    centre: np.ndarray
    scale: np.ndarray
    weights: np.ndarray
    offset: np.ndarray
    low: np.ndarray
    high: np.ndarray
    clean: np.ndarray

    def estimate(self, features: np.ndarray) -> np.ndarray:
        """(N, F) -> (N, 3) of `SIGNS`."""
        return estimate(features, self.centre, self.scale, self.weights, self.offset)

    def processed(self, signs: np.ndarray) -> bool:
        """Whether (3,) signs are sharper, noisier or more compressed than a clean reduction."""
        return bool((signs > self.clean).any())

    def sentence(self, signs: np.ndarray) -> str | None:
        """What of (3,) signs lies outside what the model knows; None where nothing does."""
        said = []
        for place, (name, words) in enumerate(zip(SIGNS, WORDS, strict=True)):
            low, value, high = (float(array[place]) for array in (self.low, signs, self.high))
            word = words[1] if value > high else words[0] if value < low else ""
            if word:
                known = f"{low:.0f} to {high:.0f}"
                said.append(f"{word}: {name} about {value:.0f} {UNITS[place]}, known {known}")
        return "; ".join(said) or None

    def to_tensors(self) -> dict[str, Tensor]:
        """For `save_model_file(..., parts={PART: looks.to_tensors()})`."""
        return {name: torch.from_numpy(np.asarray(a, np.float64)) for name, a in vars(self).items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "Looks":
        """Read what `to_tensors` wrote; raises ValueError on anything else."""
        try:
            return cls(**{name: tensor.double().numpy() for name, tensor in tensors.items()})
        except TypeError as error:
            raise ValueError(f"not an estimate of looks: {error}") from None


def estimate(
    features: np.ndarray,
    centre: np.ndarray,
    scale: np.ndarray,
    weights: np.ndarray,
    offset: np.ndarray,
) -> np.ndarray:
    """(N, F) -> (N, 3) by the attributes of `Looks`; nothing is extrapolated beyond 4 scales."""
    unit = ((features - centre) / scale).clip(-4, 4)
    found: np.ndarray = np.concatenate([unit, unit**2], axis=1) @ weights + offset
    return found


def fitted(features: np.ndarray, signs: np.ndarray, clean: np.ndarray, known: np.ndarray) -> Looks:
    """Fit on tiles of known degradation.

    Args:
        features: (N, F); signs: (N, 3) as they truly are.
        clean: (M, F) features of clean reductions; 2 % of their estimates may lie above `clean`.
        known: (K, F) features of the model's own training inputs, whose estimates are its range,
            but for one percent at each end.
    """
    centre, scale = features.mean(axis=0), features.std(axis=0) + 1e-9
    unit = ((features - centre) / scale).clip(-4, 4)
    basis = np.concatenate([unit, unit**2], axis=1)
    middle, offset = basis.mean(axis=0), signs.mean(axis=0)
    gram = (basis - middle).T @ (basis - middle) / len(basis) + 1e-3 * np.eye(basis.shape[1])
    weights = np.linalg.solve(gram, (basis - middle).T @ (signs - offset) / len(basis))
    offset = offset - middle @ weights
    of_known, of_clean = (estimate(part, centre, scale, weights, offset) for part in (known, clean))
    low, high = np.quantile(of_known, (0.01, 0.99), axis=0)
    return Looks(centre, scale, weights, offset, low, high, np.quantile(of_clean, 0.98, axis=0))


def looks_of(path: Path) -> Looks | None:
    """What a model file says of it; None where it says nothing.

    Raises:
        InputError: the file is damaged.
    """
    tensors = load_part(path, PART)
    if not tensors:
        return None
    try:
        return Looks.from_tensors(tensors)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
