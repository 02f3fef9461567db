# SPDX-License-Identifier: Apache-2.0
"""Synthetic haze and thin cloud over clear imagery.

The scattering model I = J t + A (1 - t), Koschmieder 1924 as in He et al. 2009 (doi
10.1109/CVPR.2009.5206515), eq. 1: J is what the ground sends up, A the light of the haze, t the
share of J that comes through. Seen from above, haze varies over the ground by itself and not with
the depth of a scene, so its optical thickness tau = -ln t is a smooth random field. It falls with
the wavelength as a power, tau ~ lambda^-gamma (Angstrom 1929): gamma is 4 for air (Rayleigh), 1 to
2 for haze, 0 for cloud.

Noise stays real: haze dims the noise of the clear image with it, while a sensor adds its noise
behind the haze. What is missing is added, and samples are rounded to whole levels again, so that
no network learns to bring back what a sensor could not have seen.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage

WAVELENGTHS = (650.0, 550.0, 460.0)
"""Of red, green and blue in nm."""

REFERENCE = 550.0
"""Wavelength at which thickness is given, in nm."""

COARSE = 4
"""Side in pixels of what the fields are drawn at: haze has no finer detail."""


@dataclass(frozen=True)
class Haze:
    """One haze, drawn.

    Attributes:
        thickness: (H, W) optical thickness at `REFERENCE`, at least 0.
        exponent: gamma.
        light: A in each band, in [0, 1].
    """

    thickness: np.ndarray
    exponent: float
    light: np.ndarray

    def transmission(self, wavelengths: tuple[float, ...]) -> np.ndarray:
        """t of each band at each pixel, (bands, H, W) float32."""
        ratio = (REFERENCE / np.asarray(wavelengths)) ** self.exponent
        through = np.exp(-ratio[:, None, None] * self.thickness)
        found: np.ndarray = through.astype(np.float32)
        return found


@dataclass(frozen=True)
class HazeRange:
    """What hazes are drawn from.

    Attributes:
        clear_share: of draws that have none.
        cloud_share: of the hazes that are thin clouds: patches with clear ground between them,
            grey, gamma near 0; the others lie over everything.
        thickness: smallest and largest mean optical thickness.
        exponent: largest gamma; its square root is uniform.
        light: darkest and brightest A.
        tint: how far A differs between bands, at most.
    """

    clear_share: float = 0.4
    cloud_share: float = 0.35
    thickness: tuple[float, float] = (0.1, 1.2)
    exponent: float = 4.0
    light: tuple[float, float] = (0.65, 1.0)
    tint: float = 0.03

    def draw(self, size: tuple[int, int], bands: int, rng: np.random.Generator) -> Haze | None:
        """A haze of so many rows and columns; None where it is clear."""
        if rng.random() < self.clear_share:
            return None
        cloudy = rng.random() < self.cloud_share
        field = smooth_field(size, rng)
        mean = rng.uniform(*self.thickness)
        if cloudy:
            exponent = rng.uniform(0, 0.3)
            cover = rng.uniform(0.3, 1.0)
            thick = np.clip(field - (1 - cover), 0, None) / cover
            thickness = mean * 2 * thick
        else:
            exponent = self.exponent * rng.uniform(0, 1) ** 2
            uneven = rng.uniform(0, 1)
            thickness = mean * (1 + uneven * (2 * field - 1))
        light = rng.uniform(*self.light) + rng.uniform(-self.tint, self.tint, bands)
        return Haze(thickness.astype(np.float32), exponent, light.clip(0, 1).astype(np.float32))


def smooth_field(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A random field (H, W) in [0, 1] whose amplitudes fall as a power of frequency, as clouds'.

    The power is drawn from 1.3 (the spectrum of turbulent scalars, k^-5/3, in two dimensions) to
    2.5. The field is cut from one of twice the size, so that opposite edges are strangers.
    """
    coarse = [-(-side // COARSE) + 2 for side in size]
    power = rng.uniform(1.3, 2.5)
    whole = [2 * side for side in coarse]
    rows, columns = np.fft.fftfreq(whole[0])[:, None], np.fft.rfftfreq(whole[1])
    frequency = np.hypot(rows * whole[0], columns * whole[1])
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.standard_normal(whole)) * frequency**-power
    drawn = np.fft.irfft2(spectrum, whole)[: coarse[0], : coarse[1]].astype(np.float32)
    fine = F.interpolate(torch.from_numpy(drawn)[None, None], scale_factor=COARSE, mode="bicubic")
    drawn = fine[0, 0, : size[0], : size[1]].numpy()
    found: np.ndarray = (drawn - drawn.min()) / max(float(np.ptp(drawn)), 1e-12)
    return found


def noise_level(image: np.ndarray) -> np.ndarray:
    """Standard deviation of the noise of each band of (H, W, C), in its unit, from its calmest
    places.

    Source: Immerkaer 1996 (doi 10.1006/cviu.1996.0060), on blocks of 16 pixels of which the lowest
    tenth counts, since texture looks like noise to its operator.
    """
    operator = np.array([[1.0, -2, 1], [-2, 4, -2], [1, -2, 1]])[..., None] / 6
    values = image.astype(np.float32)
    seen = np.abs(ndimage.convolve(values, operator.astype(np.float32), mode="nearest"))
    height, width = (max(1, side // 16) for side in image.shape[:2])
    blocks = seen[: height * 16, : width * 16]
    blocks = blocks.reshape(height, -1, width, blocks.shape[1] // width, image.shape[2])
    means = blocks.mean(axis=(1, 3)).reshape(-1, image.shape[2])
    found: np.ndarray = np.sqrt(np.pi / 2) * np.quantile(means, 0.1, axis=0)
    return found


def hazy(
    image: np.ndarray,
    haze: Haze | None,
    rng: np.random.Generator,
    noise: np.ndarray,
    wavelengths: tuple[float, ...] = WAVELENGTHS,
) -> np.ndarray:
    """What a sensor would see through the haze.

    Args:
        image: (H, W, C) uint8, clear.
        haze: of the same size; the image itself comes back where None.
        noise: standard deviation in each band, see `noise_level`.
        wavelengths: of each band in nm.

    Returns:
        (H, W, C) uint8.
    """
    if haze is None:
        return image
    through = haze.transmission(wavelengths).transpose(1, 2, 0)
    seen = image * through + 255 * haze.light * (1 - through)
    lost = noise.astype(np.float32) * np.sqrt(1 - through**2)
    seen += lost * rng.standard_normal(image.shape, dtype=np.float32)
    rounded: np.ndarray = np.rint(seen).clip(0, 255).astype(np.uint8)
    return rounded
