# SPDX-License-Identifier: Apache-2.0
"""What a sensor and its processing do to an image, beyond a clean reduction.

In the order of a camera: optics blur, the detector samples, noise comes on, the processing sharpens
(and sharpens the noise), the file is compressed. Blind degradations as in Real-ESRGAN, Wang et al.
2021 (arXiv 2107.10833), once instead of twice and with the sizes of aerial imagery.
"""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

KERNELS = {
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class Degradation:
    """How a low-resolution image came about; lengths in its own pixels, levels of 255.

    Attributes:
        kernel: antialiased filter of the reduction, one of `KERNELS`.
        blur_sigma: of the Gaussian point spread before the reduction.
        noise_sigma: of white noise after it.
        grey_noise: the noise is the same in all channels.
        sharpen_amount, sharpen_sigma: of the unsharp mask, image + amount (image - blurred).
        jpeg_quality: of Pillow's encoder, 1 to 95; 0 leaves the image as it is.
    """

    kernel: str = "bicubic"
    blur_sigma: float = 0.0
    noise_sigma: float = 0.0
    grey_noise: bool = False
    sharpen_amount: float = 0.0
    sharpen_sigma: float = 1.0
    jpeg_quality: int = 0


@dataclass(frozen=True)
class DegradationRange:
    """What is drawn.

    Attributes:
        share: of draws that are degraded at all; the others are clean bicubic reductions.
        blur_sigma, noise_sigma, sharpen_amount: the largest; each is drawn in half of the degraded
            draws, uniform from 0.
        jpeg_quality: the lowest, up to 95, in a third of the degraded draws; 0 never.
    """

    share: float = 0.5
    blur_sigma: float = 1.0
    noise_sigma: float = 6.0
    sharpen_amount: float = 2.0
    jpeg_quality: int = 40

    def draw(self, rng: np.random.Generator) -> Degradation | None:
        """One degradation, or None for a clean reduction."""
        if rng.random() >= self.share:
            return None
        blurs, noises, sharpens = (bool(rng.integers(2)) for _ in range(3))
        compresses = bool(self.jpeg_quality) and rng.random() < 1 / 3
        return Degradation(
            kernel=str(rng.choice(list(KERNELS))),
            blur_sigma=blurs * rng.uniform(0, self.blur_sigma),
            noise_sigma=noises * rng.uniform(0, self.noise_sigma),
            grey_noise=bool(rng.integers(2)),
            sharpen_amount=sharpens * rng.uniform(0, self.sharpen_amount),
            sharpen_sigma=rng.uniform(0.5, 1.2),
            jpeg_quality=compresses * int(rng.integers(self.jpeg_quality, 96)),
        )


def degrade(
    image: np.ndarray, scale: int, how: Degradation, rng: np.random.Generator
) -> np.ndarray:
    """Reduce (H, W, C) uint8 by an integer factor; the result is uint8, (H / scale, W / scale, C).

    The JPEG step wants 1 or 3 channels; more are compressed one by one.

    Args:
        rng: of the noise.

    Raises:
        ValueError: a size is no multiple of scale, or an unknown kernel.
    """
    height, width, channels = image.shape
    if height % scale or width % scale:
        raise ValueError(f"size {height} x {width} is not a multiple of {scale}")
    if how.kernel not in KERNELS:
        raise ValueError(f"kernel must be one of {', '.join(KERNELS)}, got {how.kernel!r}")
    seen = image.astype(np.float32)
    if how.blur_sigma:
        seen = _gaussian(seen, how.blur_sigma * scale)
    size = (width // scale, height // scale)
    bands = [Image.fromarray(np.ascontiguousarray(seen[..., c])) for c in range(channels)]
    small = np.stack([np.asarray(b.resize(size, KERNELS[how.kernel])) for b in bands], axis=-1)
    if how.noise_sigma:
        shape = (*small.shape[:2], 1 if how.grey_noise else channels)
        small = small + how.noise_sigma * rng.standard_normal(shape, dtype=np.float32)
    if how.sharpen_amount:
        small = small + how.sharpen_amount * (small - _gaussian(small, how.sharpen_sigma))
    levels: np.ndarray = np.rint(small.clip(0, 255)).astype(np.uint8)
    return _compressed(levels, how.jpeg_quality) if how.jpeg_quality else levels


def _gaussian(image: np.ndarray, sigma: float) -> np.ndarray:
    blurred: np.ndarray = ndimage.gaussian_filter(image, (sigma, sigma, 0), truncate=3.0)
    return blurred


def _compressed(levels: np.ndarray, quality: int) -> np.ndarray:
    """Through a JPEG file and back."""
    parts = [levels] if levels.shape[2] == 3 else np.split(levels, levels.shape[2], axis=2)
    back = []
    for part in parts:
        file = io.BytesIO()
        Image.fromarray(part if part.shape[2] == 3 else part[..., 0]).save(
            file, "JPEG", quality=quality
        )
        back.append(np.asarray(Image.open(file)).reshape(part.shape))
    return np.concatenate(back, axis=2)
