# SPDX-License-Identifier: Apache-2.0
"""Volumes: reading and writing them, where they lie in the world, orientation.

World coordinates are those of NIfTI everywhere: mm, x to the right, y to the front, z up (RAS+).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.orientations import (
    axcodes2ornt,
    inv_ornt_aff,
    io_orientation,
    ornt_transform,
)
from numpy.typing import DTypeLike, NDArray

from fieldfare.common.errors import InputError
from fieldfare.common.files import atomic_path

from .formats import WRITTEN, Array, Header, numbers, read_file, write_file

CANONICAL = ("L", "P", "S")
"""Towards what the axes run in the arrays networks see: that of BraTS' own files."""

GRID_TOLERANCE = 0.1
"""Voxels: grids whose corners lie no further apart are one grid. Rounding of headers costs 1e-4."""

DIRECTION_TOLERANCE, SPACING_TOLERANCE = 0.1, 0.001
"""Degrees, mm: smaller parts of a difference are not named."""


@dataclass(frozen=True, eq=False)
class Volume:
    """Values on a grid in the world.

    Attributes:
        data: (X, Y, Z).
        affine: (4, 4) float64, voxel indices to world mm.
        header: of the file the grid comes from, for writing on the same grid; None without file.
        path: the file the values come from, for messages; None without file.
    """

    data: Array
    affine: NDArray[np.float64]
    header: Header | None = None
    path: Path | None = None

    @cached_property
    def spacing(self) -> tuple[float, float, float]:
        """Size of a voxel along each axis, mm."""
        return spacing_of(self.affine)

    @property
    def orientation(self) -> str:
        """Towards what the axes run, to the nearest: LPS for left, posterior, superior."""
        return "".join(nib.aff2axcodes(self.affine))

    def __str__(self) -> str:
        return f"{numbers(self.data.shape)}, {numbers(self.spacing)} mm, {self.orientation}"


def spacing_of(affine: NDArray[np.float64]) -> tuple[float, float, float]:
    """Size of a voxel along each axis, mm."""
    x, y, z = (float(np.linalg.norm(column)) for column in affine[:3, :3].T)
    return x, y, z


def read_volume(path: Path) -> Volume:
    """Read an image.

    Args:
        path: of a format in `formats.ENDINGS`, or a folder of one DICOM series; one image of three
            axes.

    Returns:
        The volume; its data are float32 with the header's scaling applied. Some may be NaN, as
        programs mark what is no brain.

    Raises:
        InputError: missing, no such format, truncated or damaged, 2D, 4D, colours, a grid that is
            none, infinity, or the same value everywhere.
    """
    return _as_image(_read(path))


def read_channels(path: Path, count: int) -> list[Volume]:
    """Read the images of one 4D file, its last axis; errors as of `read_volume`.

    Raises:
        InputError: another number of images than `count`.
    """
    data, affine, header = read_file(path)
    found = data.shape[3] if data.ndim == 4 else 1
    if data.ndim != 4 or found != count:
        raise InputError(
            f"{path}: holds {found} images ({numbers(data.shape)}), --channels names {count}; name "
            "one for each"
        )
    whole = _check(Volume(data[..., 0], affine, header, path))
    return [_as_image(replace(whole, data=data[..., channel])) for channel in range(count)]


def _as_image(volume: Volume) -> Volume:
    """In float32, checked to hold an image."""
    with np.errstate(over="ignore"):
        data = np.asarray(volume.data, np.float32)
    low, high = float(np.fmin.reduce(data, axis=None)), float(np.fmax.reduce(data, axis=None))
    if not low < high:
        raise InputError(f"{volume.path}: every voxel is {low:g}; there is no image in it")
    if not (np.isfinite(low) and np.isfinite(high)):
        bad = np.count_nonzero(np.isinf(data))
        raise InputError(f"{volume.path}: {bad} voxels are infinite; set them to 0 first")
    return replace(volume, data=data)


def read_labels(path: Path) -> Volume:
    """Read a label map, as `read_volume` an image.

    Returns:
        The volume; its data are uint8, or int64 where a label does not fit (which no scheme knows:
        see `regions.check_labels`). Whole numbers stored as floats count as integers.

    Raises:
        InputError: what `read_volume` raises, but for a map of one value; values not whole.
    """
    volume = _read(path)
    data = volume.data
    if data.dtype.kind == "f":
        whole = np.isfinite(data) & (data == np.round(data)) & (np.abs(data) < 2**53)
        if not whole.all():
            example = data[~whole][0]
            raise InputError(
                f"{path}: {whole.size - np.count_nonzero(whole)} voxels are no whole number "
                f"({example:g}); give a label map, not an image or probabilities"
            )
    fits = data.min() >= 0 and data.max() <= 255
    return Volume(data.astype(np.uint8 if fits else np.int64), volume.affine, volume.header, path)


def _read(path: Path) -> Volume:
    """Values as they are stored, scaled; the checks that images and labels share."""
    data, affine, header = read_file(path)
    while data.ndim > 3 and data.shape[-1] == 1:
        data = data[..., 0]
    size = numbers(data.shape)
    if data.ndim > 3:
        raise InputError(
            f"{path}: is {data.ndim}D ({size}), {math.prod(data.shape[3:])} images where one is "
            "wanted; say what its channels are by --channels, or split it into one file for each "
            "modality"
        )
    if data.ndim < 3 or min(data.shape) < 2:
        raise InputError(f"{path}: is no volume ({size}) but 2D; give three axes of slices")
    return _check(Volume(data, affine, header, path))


def _check(volume: Volume) -> Volume:
    """Values that are numbers on a grid that is one, or refused."""
    path, affine = volume.path, volume.affine
    if volume.data.dtype.kind not in "iufb":
        raise InputError(f"{path}: holds colours or complex numbers; give one grey image")
    # The comparison is False for NaN.
    if not np.abs(affine).max() < 1e6 or np.linalg.matrix_rank(affine[:3, :3]) < 3:
        raise InputError(f"{path}: its header gives no usable grid (affine); mend it")
    return volume


def write_like(path: Path, data: Array, reference: Volume, dtype: DTypeLike = np.uint8) -> None:
    """Write values on the grid of a reference, whole or not at all.

    From NIfTI to NIfTI every field that says where the voxels lie is copied bit by bit (affine,
    sform and qform with their codes, units); the same holds from NRRD to NRRD. Between the two
    LPS and RAS are turned into each other. Nothing else is taken over: no scaling, no names.

    Args:
        path: .nii, .nii.gz or .nrrd, which decides the format. An existing file is replaced.
        data: (X, Y, Z), or (C, X, Y, Z), which is written as the channels last of a 4D NIfTI.
        reference: a volume of (X, Y, Z).
        dtype: of the voxels in the file; the values must fit, they are not scaled.

    Raises:
        InputError: another ending, or channels into NRRD.
        ValueError: data of another shape, or values that do not fit.
    """
    if data.shape[-3:] != reference.data.shape or data.ndim not in (3, 4):
        raise ValueError(f"data of shape {data.shape} on a grid of {reference.data.shape}")
    name = path.name.lower()
    if not name.endswith(WRITTEN) or (data.ndim == 4 and name.endswith(".nrrd")):
        endings = WRITTEN if data.ndim == 3 else WRITTEN[:2]
        raise InputError(f"{path}: cannot be written; give a name in {', '.join(endings)}")
    values = np.moveaxis(data, 0, -1) if data.ndim == 4 else data
    values = _cast(values, np.dtype(dtype))
    ending = next(ending for ending in WRITTEN if name.endswith(ending))
    with atomic_path(path) as temporary:
        write_file(temporary, values, reference.affine, reference.header, ending)


def _cast(values: Array, dtype: np.dtype) -> Array:
    if dtype.kind in "iu" and values.size:
        limits = np.iinfo(dtype)
        low, high = values.min(), values.max()
        if not (limits.min <= low and high <= limits.max):
            raise ValueError(f"values from {low} to {high} do not fit {dtype}")
    return values.astype(dtype)


def geometry_differences(a: Volume, b: Volume) -> list[str]:
    """What differs between two grids, in words; empty where they are one.

    Grids are one when their shapes are equal and no corner of the image lies over GRID_TOLERANCE
    voxels (of the smaller spacing) from its counterpart. Then shape, spacing, orientation and
    origin are named as far as they differ, those of `a` first.
    """
    differences = []
    if a.data.shape != b.data.shape:
        differences.append(f"shape {numbers(a.data.shape)} against {numbers(b.data.shape)}")
    corners = _corners(a.data.shape)
    between = _world(a.affine, corners) - _world(b.affine, corners)
    apart = float(np.linalg.norm(between, axis=1).max())
    allowed = GRID_TOLERANCE * min(*a.spacing, *b.spacing)
    if apart <= allowed:
        return differences
    if np.abs(np.subtract(a.spacing, b.spacing)).max() > SPACING_TOLERANCE:
        differences.append(f"spacing {numbers(a.spacing)} against {numbers(b.spacing)} mm")
    if a.orientation != b.orientation:
        differences.append(f"orientation {a.orientation} against {b.orientation}")
    elif (angle := _angle(a.affine, b.affine)) > DIRECTION_TOLERANCE:
        differences.append(f"axes turned by {angle:.1f} degrees")
    origins = a.affine[:3, 3], b.affine[:3, 3]
    if np.linalg.norm(np.subtract(*origins)) > allowed:
        first, second = (numbers(origin.tolist(), ", ", 2) for origin in origins)
        differences.append(f"origin ({first}) against ({second}) mm")
    differences.append(f"corners up to {apart:.3g} mm apart, {allowed:.2g} mm allowed")
    return differences


def corners_of(volume: Volume) -> NDArray[np.float64]:
    """World mm of the eight corner voxels, (8, 3)."""
    return _world(volume.affine, _corners(volume.data.shape))


def _corners(shape: Sequence[int]) -> NDArray[np.float64]:
    """Indices of the eight corner voxels, (8, 3)."""
    ends = [(0.0, length - 1.0) for length in shape]
    return np.stack(np.meshgrid(*ends, indexing="ij"), -1).reshape(-1, 3)


def _world(affine: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    return points @ affine[:3, :3].T + affine[:3, 3]


def _angle(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """The largest angle between axes of the same number, degrees."""
    units = [matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0) for matrix in (a, b)]
    cosines = np.clip((units[0] * units[1]).sum(axis=0), -1, 1)
    return float(np.degrees(np.arccos(cosines)).max())


def resample(volume: Volume, to: Volume, order: int = 1) -> Volume:
    """Put a volume on the grid of another, in world coordinates.

    Args:
        volume: values; outside their grid they are taken as 0.
        to: the grid to have.
        order: of the spline: 0 nearest (labels), 1 linear, 3 cubic (which overshoots).

    Returns:
        Values in the type of `volume` with the affine and header of `to`.
    """
    from scipy.ndimage import affine_transform  # slow to load; few grids differ

    between = np.linalg.inv(volume.affine) @ to.affine
    # grid-constant, unlike constant, has no jump at the border, where a rounding error of the
    # affine would empty whole faces of the image.
    data = affine_transform(
        volume.data,
        between[:3, :3],
        between[:3, 3],
        output_shape=to.data.shape,
        order=order,
        mode="grid-constant",
    )
    return Volume(data, to.affine, to.header, volume.path)


def turn_like(volume: Volume, to: Volume) -> Volume:
    """Turn a volume's axes so that they run as those of another; no value changes.

    Where both are one grid in the world, the result has the other's affine and header; else it is
    the volume as it came.
    """
    turn = io_orientation(np.linalg.inv(to.affine) @ volume.affine)
    if np.isnan(turn).any():
        return volume
    affine = np.asarray(volume.affine @ inv_ornt_aff(turn, volume.data.shape), np.float64)
    turned = Volume(nib.apply_orientation(volume.data, turn), affine, to.header, volume.path)
    if geometry_differences(turned, to):
        return volume
    return replace(turned, affine=to.affine)


def to_canonical(data: Array, affine: NDArray[np.float64]) -> Array:
    """Turn axes so that they run as CANONICAL, to the nearest; no value changes.

    Args:
        data: (..., X, Y, Z).
        affine: (4, 4), of data.

    Returns:
        A view with the last three axes permuted and flipped (torch wants it copied);
        `canonical_affine` is its affine.
    """
    order, flips = _turn(affine)
    lead = data.ndim - 3
    turned = data.transpose(*range(lead), *(lead + axis for axis in order))
    return turned[(..., *(slice(None, None, -1 if flip else None) for flip in flips))]


def from_canonical(data: Array, affine: NDArray[np.float64]) -> Array:
    """Undo `to_canonical`: back to the axes of the affine that was given there."""
    order, flips = _turn(affine)
    lead = data.ndim - 3
    turned = data[(..., *(slice(None, None, -1 if flip else None) for flip in flips))]
    return turned.transpose(*range(lead), *(lead + int(axis) for axis in np.argsort(order)))


def canonical_affine(affine: NDArray[np.float64], shape: Sequence[int]) -> NDArray[np.float64]:
    """The affine of what `to_canonical` gives for data of shape (X, Y, Z)."""
    turn = ornt_transform(io_orientation(affine), axcodes2ornt(CANONICAL))
    return np.asarray(affine @ inv_ornt_aff(turn, tuple(shape)), np.float64)


def _turn(affine: NDArray[np.float64]) -> tuple[list[int], list[bool]]:
    """For each canonical axis: the axis it comes from, and whether it runs the other way."""
    turn = ornt_transform(io_orientation(affine), axcodes2ornt(CANONICAL))
    order = [int(axis) for axis in np.argsort(turn[:, 0])]
    return order, [bool(turn[axis, 1] < 0) for axis in order]
