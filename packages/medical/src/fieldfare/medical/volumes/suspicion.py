# SPDX-License-Identifier: Apache-2.0
"""Headers that are not to be trusted."""

import nibabel as nib
import numpy as np

from .formats import numbers
from .images import Volume, corners_of, geometry_differences

FAR = 100.0
"""Mm from the world's origin to the field of view that `suspicious_header` bears."""


_BRATS_ORIGIN = (0.0, 239.0, 0.0)
"""Of the first voxel in the SRI24 space of BraTS, whose axes run LPS, 240x240x155 of 1 mm."""


def suspicious_header(volume: Volume) -> str | None:
    """Say in one sentence why a header is not to be trusted; None where nothing tells against it.

    A scanner's origin is its isocentre and an atlas' lies in or beside the head, so that the field
    of view of any head holds the world's origin or comes near it (the corner of BraTS' own grid
    touches it). A header that puts the image over FAR mm away has lost its origin or the signs of
    its axes. Other signs: neither sform nor qform is set, the two disagree, the axes' lengths
    contradict the voxel size of the header, or a voxel is no size for a head.
    """
    ends = corners_of(volume)
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
    if isinstance(header, nib.Nifti1Header):
        return _suspicious_nifti(volume, header)
    if isinstance(header, nib.analyze.AnalyzeHeader):
        return (
            "an Analyze header says nothing of orientation or position: both are a guess "
            f"({volume.orientation}), so left and right may be swapped"
        )
    return None


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
