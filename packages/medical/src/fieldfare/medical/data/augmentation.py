# SPDX-License-Identifier: Apache-2.0
"""Random changes of training patches: where things lie, and how the scanner showed them.

Everything random comes from the generator that is passed in. The geometry turns, scales and bends
one plane at a time, the same way in all its slices: two-dimensional interpolation of a patch of
4 x 64^3 costs a fifth of a three-dimensional one, and a patch is drawn on every step. What is
outside the brain stays exactly 0, as it is for the network later.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

MARGIN = 0.25
"""Share of a patch's side that `warp_plane` wants around it along the two axes of its plane."""


@dataclass(frozen=True)
class Augmentation:
    """How often and how strongly; the probabilities of looks are for each modality.

    Attributes:
        flip: probability, of each axis.
        warp: probability of turning, scaling and bending.
        degrees: turned by up to this.
        scale: enlarged or reduced by up to this factor.
        bend: probability that a warp also bends.
        noise, blur, low_resolution, brightness, contrast, gamma: probabilities.
    """

    flip: float = 0.5
    warp: float = 0.35
    degrees: float = 20.0
    scale: float = 1.25
    bend: float = 0.3
    noise: float = 0.15
    blur: float = 0.15
    low_resolution: float = 0.1
    brightness: float = 0.3
    contrast: float = 0.3
    gamma: float = 0.25

    @classmethod
    def off(cls) -> "Augmentation":
        """No change at all."""
        return cls(
            **dict.fromkeys(("flip", "warp", "noise", "blur", "low_resolution"), 0.0),
            brightness=0.0,
            contrast=0.0,
            gamma=0.0,
        )


def draw_flips(rng: np.random.Generator, axes: int, probability: float) -> tuple[int, ...]:
    """Axes to mirror, as indices from the end of an array: -1 is the last."""
    return tuple(axis - axes for axis in range(axes) if rng.random() < probability)


def draw_plane(
    rng: np.random.Generator, settings: Augmentation, ndim: int
) -> tuple[int, int] | None:
    """The plane that a patch is warped in, two spatial axes; None where it is not warped."""
    if rng.random() >= settings.warp:
        return None
    if ndim == 2:
        return 0, 1
    left_out = int(rng.integers(3))
    first, second = (axis for axis in range(3) if axis != left_out)
    return first, second


def warp_plane(
    image: Tensor,
    depth: Tensor,
    plane: tuple[int, int],
    size: tuple[int, int],
    rng: np.random.Generator,
    settings: Augmentation,
) -> tuple[Tensor, Tensor]:
    """Turn, scale and bend around the centre, in one plane, and cut the middle out.

    Args:
        image: (M, X, Y, Z) float32, interpolated linearly.
        depth: (X, Y, Z) uint8, takes the nearest voxel.
        plane: two of the axes X, Y, Z, as 0, 1, 2, rising.
        size: of the result along these axes.

    Returns:
        Both with `size` along the axes of the plane; 0 where the source ended.
    """
    order = [axis for axis in range(3) if axis not in plane] + list(plane)
    back = [order.index(axis) for axis in range(3)]
    # (M, slices, *plane) -> one "image" of M * slices channels: the grid is worked out once.
    stack = image.permute(0, *(axis + 1 for axis in order))
    labels = depth.permute(*order)
    source = stack.shape[2:]
    grid = _grid(source, size, rng, settings)
    warped = F.grid_sample(
        stack.reshape(1, -1, *source), grid, mode="bilinear", align_corners=False
    ).view(*stack.shape[:2], *size)
    nearest = F.grid_sample(
        labels.reshape(1, -1, *source).float(), grid, mode="nearest", align_corners=False
    )[0]
    return (
        warped.permute(0, *(axis + 1 for axis in back)),
        nearest.to(torch.uint8).permute(*back),
    )


def _grid(
    source: torch.Size, size: tuple[int, int], rng: np.random.Generator, settings: Augmentation
) -> Tensor:
    """Where each voxel of the result lies in the source, (1, *size, 2), -1 to 1 and x first."""
    angle = math.radians(rng.uniform(-1, 1) * settings.degrees)
    zoom = settings.scale ** rng.uniform(-1, 1)
    along = [torch.arange(length) - (length - 1) / 2 for length in size]
    rows, columns = torch.meshgrid(*along, indexing="ij")
    if rng.random() < settings.bend:
        rows, columns = (axis + _waves(size, rng) for axis in (rows, columns))
    cosine, sine = math.cos(angle) / zoom, math.sin(angle) / zoom
    turned = (cosine * rows - sine * columns, sine * rows + cosine * columns)
    # With align_corners=False the edges of the outermost voxels are -1 and 1.
    y, x = (2 * axis / length for axis, length in zip(turned, source, strict=True))
    return torch.stack([x, y], dim=-1)[None]


def _waves(size: tuple[int, int], rng: np.random.Generator) -> Tensor:
    """A smooth displacement field in voxels, up to about a 25th of the side."""
    knots = torch.from_numpy(rng.uniform(-1, 1, (1, 1, 5, 5)).astype(np.float32))
    field = F.interpolate(knots, size=size, mode="bicubic", align_corners=True)[0, 0]
    return field * (max(size) / 25)


def change_looks(image: Tensor, rng: np.random.Generator, settings: Augmentation) -> Tensor:
    """Noise, blur, brightness, contrast, low resolution and gamma, for each modality apart.

    Args:
        image: (M, *size) float32, z-scored, 0 outside the brain; changed in place.

    Returns:
        The image; what was 0 is 0.

    Source: the list and about the strengths are nnU-Net's, Isensee et al. 2021
    (doi 10.1038/s41592-020-01008-z).
    """
    for channel in image:
        if not channel.any():
            continue  # a missing modality
        mask = (channel != 0).float()
        if rng.random() < settings.noise:
            generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
            strength = rng.uniform(0.03, 0.3)
            channel.add_(torch.randn(channel.shape, generator=generator), alpha=strength)
        if rng.random() < settings.blur:
            channel.copy_(_blurred(channel, rng.uniform(0.4, 1.0)))
        if rng.random() < settings.low_resolution:
            channel.copy_(_coarsened(channel, rng))
        if rng.random() < settings.gamma:
            channel.copy_(
                _gamma(channel, mask, math.exp(rng.uniform(-0.4, 0.4)), rng.random() < 0.25)
            )
        if rng.random() < settings.contrast:
            channel.mul_(rng.uniform(0.75, 1.3))
        if rng.random() < settings.brightness:
            channel.add_(rng.uniform(-0.3, 0.3))
        channel.mul_(mask)
    return image


def _blurred(channel: Tensor, sigma: float) -> Tensor:
    """Three taps along each axis, with the variance of a Gaussian of sigma voxels."""
    side = min(sigma**2 / 2, 1 / 3)
    kernel = torch.tensor([side, 1 - 2 * side, side])
    ndim = channel.ndim
    convolve = {2: F.conv2d, 3: F.conv3d}[ndim]
    values = channel[None, None]
    for axis in range(ndim):
        shape, padding = [1] * (ndim + 2), [0] * ndim
        shape[axis + 2], padding[axis] = 3, 1
        values = convolve(values, kernel.view(shape), padding=padding)
    return values[0, 0]


def _coarsened(channel: Tensor, rng: np.random.Generator) -> Tensor:
    """As if scanned with larger voxels, along all axes or with thick slices along one."""
    factor = rng.uniform(1.3, 2.5)
    factors = [factor] * channel.ndim
    if rng.random() < 0.5:
        thick = int(rng.integers(channel.ndim))
        factors = [factor if axis == thick else 1.0 for axis in range(channel.ndim)]
    sides = zip(channel.shape, factors, strict=True)
    size = [max(1, round(length / value)) for length, value in sides]
    mode = {2: "bilinear", 3: "trilinear"}[channel.ndim]
    small = F.interpolate(channel[None, None], size=size, mode="nearest-exact")
    return F.interpolate(small, size=channel.shape, mode=mode, align_corners=False)[0, 0]


def _gamma(channel: Tensor, mask: Tensor, gamma: float, inverted: bool) -> Tensor:
    """Power law between the least and the greatest value; the brain's mean and deviation stay.

    Inverted, it bends the bright end instead of the dark one.
    """
    values = -channel if inverted else channel
    low, high = values.amin(), values.amax()
    span = (high - low).clamp(min=1e-6)
    bent = ((values - low) / span).pow(gamma)
    (mean, deviation), (new_mean, new_deviation) = (_moments(v, mask) for v in (values, bent))
    bent = (bent - new_mean) * (deviation / new_deviation.clamp(min=1e-6)) + mean
    return -bent if inverted else bent


def _moments(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation where the mask is 1."""
    count = mask.sum()
    mean = (values * mask).sum() / count
    return mean, (((values - mean) * mask).square().sum() / count).sqrt()


def modality_dropout(
    image: Tensor, rng: np.random.Generator, probability: float
) -> NDArray[np.bool_]:
    """Empty some modalities, in place, as if they had not been taken; at least one stays.

    Args:
        image: (M, *size); modalities of zeros only are missing already.
        probability: that any are dropped; then every number from 1 to all but one is as likely.

    Returns:
        (M,) bool, which were dropped.

    Source: hetero-modal training, Havaei et al. 2016 (HeMIS, arXiv 1607.05194).
    """
    dropped = np.zeros(len(image), bool)
    present = [index for index, channel in enumerate(image) if bool(channel.any())]
    if len(present) < 2 or rng.random() >= probability:
        return dropped
    count = int(rng.integers(1, len(present)))
    dropped[rng.permutation(present)[:count]] = True
    image[torch.from_numpy(dropped)] = 0
    return dropped
