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
