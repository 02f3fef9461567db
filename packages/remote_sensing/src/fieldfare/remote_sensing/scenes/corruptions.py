# SPDX-License-Identifier: Apache-2.0
"""What happens to imagery on its way: pictures spoilt in known ways, to learn what that costs."""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image
from scipy import ndimage

Picture = np.ndarray
"""(h, w, 3) uint8."""


def _clipped(values: np.ndarray) -> Picture:
    found: Picture = values.clip(0, 255).round().astype(np.uint8)
    return found


def _blur(sigma: float) -> Callable[[Picture], Picture]:
    def change(image: Picture) -> Picture:
        found: Picture = ndimage.gaussian_filter(image, (sigma, sigma, 0))
        return found

    return change


def _coarse(factor: float) -> Callable[[Picture], Picture]:
    """As pixels that many times as large, enlarged."""

    def change(image: Picture) -> Picture:
        height, width = image.shape[:2]
        small = (max(1, round(width / factor)), max(1, round(height / factor)))
        reduced = Image.fromarray(image).resize(small, Image.Resampling.BOX)
        return np.asarray(reduced.resize((width, height), Image.Resampling.BILINEAR))

    return change


def _jpeg(quality: int) -> Callable[[Picture], Picture]:
    def change(image: Picture) -> Picture:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality)
        return np.asarray(Image.open(file))

    return change


def _noise(deviation: float) -> Callable[[Picture], Picture]:
    def change(image: Picture) -> Picture:
        rng = np.random.default_rng(0)
        return _clipped(image + rng.normal(0, deviation, image.shape))

    return change


def _light(gain: float, offset: float) -> Callable[[Picture], Picture]:
    return lambda image: _clipped(image.astype(float) * gain + offset)


def _hue(image: Picture) -> Picture:
    turned = np.array(Image.fromarray(image).convert("HSV"))
    turned[..., 0] += 85  # a third of the circle, in bytes
    return np.asarray(Image.fromarray(turned, "HSV").convert("RGB"))


def _grey(image: Picture) -> Picture:
    return _clipped(image.mean(axis=2, keepdims=True).repeat(3, axis=2))


CORRUPTIONS: dict[str, Callable[[Picture], Picture]] = {
    "blur 1": _blur(1),
    "blur 3": _blur(3),
    "coarse 2": _coarse(2),
    "coarse 4": _coarse(4),
    "JPEG 20": _jpeg(20),
    "JPEG 5": _jpeg(5),
    "noise 15": _noise(15),
    "noise 50": _noise(50),
    "dark": _light(0.35, 0),
    "bright": _light(1.3, 50),
    "pale": _light(0.3, 110),
    "bands exchanged": lambda image: np.ascontiguousarray(image[..., ::-1]),
    "hue": _hue,
    "grey": _grey,
    "inverted": lambda image: 255 - image,
}
"""By name; numbers are a deviation in pixels, a factor, a quality, a deviation in grey levels."""

SIZES = (0.5, 2.0)
"""Factors on a wrongly stated pixel size."""
