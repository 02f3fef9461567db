# SPDX-License-Identifier: Apache-2.0
"""Volumes: reading and writing NIfTI and NRRD, where they lie in the world, orientation.

World coordinates are those of NIfTI everywhere: mm, x to the right, y to the front, z up (RAS+).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
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

from .formats import ENDINGS, Array, Header, numbers, read_file, write_file

CANONICAL = ("L", "P", "S")
"""Towards what the axes run in the arrays networks see: that of BraTS' own files."""

GRID_TOLERANCE = 0.1
"""Voxels: grids whose corners lie no further apart are one grid. Rounding of headers costs 1e-4."""

DIRECTION_TOLERANCE, SPACING_TOLERANCE = 0.1, 0.001
"""Degrees, mm: smaller parts of a difference are not named."""

FAR = 100.0
"""Mm from the world's origin to the field of view that `suspicious_header` bears."""


_BRATS_ORIGIN = (0.0, 239.0, 0.0)
"""Of the first voxel in the SRI24 space of BraTS, whose axes run LPS, 240x240x155 of 1 mm."""


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
        path: .nii, .nii.gz (NIfTI-1 or -2) or .nrrd; one image of three axes.

    Returns:
        The volume; its data are float32 with the header's scaling applied.

    Raises:
        InputError: missing, no such format, truncated or damaged, 2D, 4D, colours, a grid that is
            none, NaN or infinity, or the same value everywhere.
    """
    volume = _read(path)
    with np.errstate(over="ignore"):
        data = np.asarray(volume.data, np.float32)
    bad = data.size - np.count_nonzero(np.isfinite(data))
    if bad:
        raise InputError(f"{path}: {bad} voxels are NaN or infinite; set them to 0 first")
    low, high = float(data.min()), float(data.max())
    if low == high:
        raise InputError(f"{path}: every voxel is {low:g}; there is no image in it")
    return Volume(data, volume.affine, volume.header, path)


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
    if data.dtype.kind not in "iufb":
        raise InputError(f"{path}: holds colours or complex numbers; give one grey image")
    while data.ndim > 3 and data.shape[-1] == 1:
        data = data[..., 0]
    size = numbers(data.shape)
    if data.ndim > 3:
        raise InputError(
            f"{path}: is {data.ndim}D ({size}), {math.prod(data.shape[3:])} images where one is "
            "wanted; split it into one file for each modality"
        )
    if data.ndim < 3 or min(data.shape) < 2:
        raise InputError(f"{path}: is no volume ({size}) but 2D; give three axes of slices")
    # The comparison is False for NaN.
    if not np.abs(affine).max() < 1e6 or np.linalg.matrix_rank(affine[:3, :3]) < 3:
        raise InputError(f"{path}: its header gives no usable grid (affine); mend it")
    return Volume(data, affine, header, path)


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
    if not name.endswith(ENDINGS) or (data.ndim == 4 and name.endswith(".nrrd")):
        endings = ENDINGS if data.ndim == 3 else ENDINGS[:2]
        raise InputError(f"{path}: cannot be written; give a name in {', '.join(endings)}")
    values = np.moveaxis(data, 0, -1) if data.ndim == 4 else data
    values = _cast(values, np.dtype(dtype))
    ending = next(ending for ending in ENDINGS if name.endswith(ending))
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


def suspicious_header(volume: Volume) -> str | None:
    """Say in one sentence why a header is not to be trusted; None where nothing tells against it.

    A scanner's origin is its isocentre and an atlas' lies in or beside the head, so that the field
    of view of any head holds the world's origin or comes near it (the corner of BraTS' own grid
    touches it). A header that puts the image over FAR mm away has lost its origin or the signs of
    its axes. Other signs: neither sform nor qform is set, the two disagree, the axes' lengths
    contradict the voxel size of the header, or a voxel is no size for a head.
    """
    ends = _world(volume.affine, _corners(volume.data.shape))
    low, high = ends.min(axis=0), ends.max(axis=0)
    distance = float(np.linalg.norm(np.maximum(0, np.maximum(low, -high))))
    if distance > FAR:
        spans = (f"{axis} {a:.0f}..{b:.0f}" for axis, a, b in zip("xyz", low, high, strict=True))
        kept = volume.orientation != "LPS" and np.allclose(volume.affine[:3, 3], _BRATS_ORIGIN)
        cause = (
            f"the origin is that of BraTS' LPS grid, kept when the axes became {volume.orientation}"
            if kept
            else "origin or signs of the axes were probably lost"
        )
        return (
            f"the header puts the image at {', '.join(spans)} mm ({volume.orientation}), "
            f"{distance:.0f} mm from the world's origin, where no scanner or atlas has a head: "
            f"{cause}; check which side is left, and expect it elsewhere beside other images"
        )
    if not 0.1 < min(volume.spacing) <= max(volume.spacing) < 20:
        return f"a voxel of {numbers(volume.spacing)} mm is no size for a head: units may be wrong"
    header = volume.header
    return _suspicious_nifti(volume, header) if isinstance(header, nib.Nifti1Header) else None


def _suspicious_nifti(volume: Volume, header: nib.Nifti1Header) -> str | None:
    sform = header.get_sform(coded=True)[0]
    try:
        qform = header.get_qform(coded=True)[0]
    except ValueError:
        return "the header's qform is no rotation: programs that prefer it show the image elsewhere"
    if qform is None and sform is None:
        return (
            "the header sets neither sform nor qform: orientation and position are a guess "
            f"({volume.orientation}), so left and right may be swapped"
        )
    sized = np.asarray(header.get_zooms()[:3], np.float64)
    if np.abs(sized / volume.spacing - 1).max() > 0.01:
        sizes = f"{numbers(sized.tolist())} against {numbers(volume.spacing)} mm"
        return f"the header contradicts itself on the size of a voxel: pixdim and affine, {sizes}"
    if qform is not None and sform is not None:
        differences = geometry_differences(
            *(Volume(volume.data, np.asarray(form, np.float64)) for form in (qform, sform))
        )
        if differences:
            return f"qform and sform of the header disagree: {'; '.join(differences)}"
    return None
