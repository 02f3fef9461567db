# SPDX-License-Identifier: Apache-2.0
"""The reduction that results are held to: the antialiased bicubic filter of Pillow and MATLAB.

Each low-resolution sample is a mean of 4 x scale lines each way, weighted by Keys' cubic
(a = -0.5, Keys 1981, doi 10.1109/TASSP.1981.1163711) stretched by the scale.
"""

import numpy as np
from PIL import Image

REACH = 2
"""Low-resolution pixels from a sample to the furthest whose ground it sees, or is seen from."""


def reduce_bicubic(image: np.ndarray, scale: int) -> np.ndarray:
    """Reduce (H, W, C) uint8 by an integer factor with Pillow's antialiased bicubic filter.

    Each channel goes through on its own, so any channel count works. Height and width must be
    multiples of scale.

    Raises:
        ValueError: a size is no multiple of scale.
    """
    height, width = image.shape[:2]
    if height % scale or width % scale:
        raise ValueError(f"size {height} x {width} is not a multiple of {scale}")
    size = (width // scale, height // scale)
    bands = [
        np.asarray(Image.fromarray(image[..., c]).resize(size, Image.Resampling.BICUBIC))
        for c in range(image.shape[2])
    ]
    return np.stack(bands, axis=-1)


def bicubic_weights(scale: int) -> tuple[np.ndarray, int]:
    """Weights of the lines that one low-resolution line is a mean of, and where they begin.

    Returns:
        (taps,) float64 of sum 1, and the first line, counted from that low-resolution line's own
        first line; negative.
    """
    first = (scale + 1) // 2 - 2 * scale
    away = np.abs((np.arange(4 * scale) + first + 0.5 - scale / 2) / scale)
    near = (1.5 * away - 2.5) * away**2 + 1
    far = ((-0.5 * away + 2.5) * away - 4) * away + 2
    weights = np.where(away < 1, near, np.where(away < 2, far, 0))
    return weights / weights.sum(), first


def reduce_valid(image: np.ndarray, valid: np.ndarray, scale: int) -> np.ndarray:
    """Reduce (..., H, W) float32 in floating point, over the valid samples alone.

    The weights of what is missing, or beyond the border, are shared among the rest, as Pillow does
    at borders and GDAL at nodata.

    Args:
        valid: (..., H / scale, W / scale) bool, of low-resolution pixels.

    Returns:
        (..., H / scale, W / scale) float32; 0 where no weight is left.
    """
    fine = valid.repeat(scale, axis=-2).repeat(scale, axis=-1)
    summed = gather(np.where(fine, image, np.float32(0)), scale)
    total = _weight_of(_weight_of(valid, scale).swapaxes(-1, -2), scale).swapaxes(-1, -2)
    mean: np.ndarray = np.divide(summed, total, out=np.zeros_like(summed), where=total > 1e-6)
    return mean


def gather(image: np.ndarray, scale: int, power: int = 1) -> np.ndarray:
    """Sums along both last axes by a power of the weights, 0 beyond the border.

    With power 1 that is the reduction's matrix.
    """
    weights, first = bicubic_weights(scale)
    rows = _gather_rows(image, weights**power, first, scale).swapaxes(-1, -2)
    return _gather_rows(rows, weights**power, first, scale).swapaxes(-1, -2)


def spread(low: np.ndarray, scale: int) -> np.ndarray:
    """The transposed matrix of `gather`: (..., h, w) to (..., scale h, scale w)."""
    return _spread_rows(_spread_rows(low.swapaxes(-1, -2), scale).swapaxes(-1, -2), scale)


def _gather_rows(image: np.ndarray, weights: np.ndarray, first: int, scale: int) -> np.ndarray:
    *more, height, width = image.shape
    result = np.zeros((*more, height // scale, width), np.float32)
    for tap, weight in enumerate(weights.astype(np.float32), start=first):
        _add(result, weight * image[..., tap % scale :: scale, :], -(tap // scale))
    return result


def _weight_of(valid: np.ndarray, scale: int) -> np.ndarray:
    """Weight of the valid lines (axis -2) among those that each low-resolution line sees."""
    weights, first = bicubic_weights(scale)
    result = np.zeros(valid.shape, np.float32)
    for away in range(-REACH, REACH + 1):
        taps = np.arange(len(weights)) + first
        weight = np.float32(weights[taps // scale == away].sum())
        _add(result, weight * valid.astype(np.float32), -away)
    return result


def _spread_rows(low: np.ndarray, scale: int) -> np.ndarray:
    weights, first = bicubic_weights(scale)
    *more, height, width = low.shape
    result = np.zeros((*more, height * scale, width), np.float32)
    for tap, weight in enumerate(weights.astype(np.float32), start=first):
        _add(result[..., tap % scale :: scale, :], weight * low, tap // scale)
    return result


def _add(result: np.ndarray, lines: np.ndarray, shift: int) -> None:
    """Add lines moved down by `shift`; what leaves the array is lost."""
    count = result.shape[-2]
    if abs(shift) < count:
        into = slice(max(shift, 0), count + min(shift, 0))
        taken = slice(max(-shift, 0), count - max(shift, 0))
        result[..., into, :] += lines[..., taken, :]
