# SPDX-License-Identifier: Apache-2.0
"""The images of a case on one grid, with background 0."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fieldfare.common.errors import InputError

from ..volumes.formats import numbers, read_grid
from ..volumes.images import (
    Volume,
    geometry_differences,
    read_channels,
    read_volume,
    resample,
    turn_like,
)
from ..volumes.suspicion import suspicious_header
from .cases import Case, options
from .intensities import without_background
from .naming import MODALITIES, NAMES

MOST_BRAIN_ML = 2300.0
"""More than any brain with its fluid has: a head has 4 to 6 litres in a scan, and more with the air
around it, which is never quite 0."""

WITH_SKULL, PERHAPS_SKULL = 0.85, 0.6
"""Shares of voxels other than 0 of a scan with skull and air, and of one that may be; a stripped
brain fills 14 to 18 % of BraTS' grid and half of its own bounding box."""

REFERENCES = ("t1ce", "t1", "t2", "flair")


class LoadedCase(NamedTuple):
    """Images of a case on one grid.

    Attributes:
        images: (4, X, Y, Z) float32 in the order of MODALITIES, in the files' own units but for a
            shift that makes the background 0; zeros for a missing modality.
        present: (4,) bool, which modalities there are.
        reference: the volume whose grid the images have, for writing results.
        notes: what a user should know, a sentence each.
    """

    images: NDArray[np.float32]
    present: NDArray[np.bool_]
    reference: Volume
    notes: list[str]


def load(
    case: Case,
    *,
    resample_to: str | None = None,
    allow_missing: bool = False,
    force: bool = False,
) -> LoadedCase:
    """Read the images of a case and check that they lie on one grid.

    Images on one grid in the world whose axes run otherwise are turned, which loses nothing.

    Args:
        resample_to: the modality whose grid the others are put on, linearly, where theirs differs;
            None refuses differing grids.
        allow_missing: whether missing modalities may become zeros.
        force: whether heads that are not stripped of their skull are taken.

    Returns:
        The images. Their grid is that of `resample_to`, or else t1ce, t1, t2 or flair, whichever
        there is first.

    Raises:
        InputError: a missing modality, a file that `read_volume` refuses, grids that differ, images
            that do not overlap, or heads with their skull.
    """
    chosen = _chosen(case, resample_to, allow_missing=allow_missing)
    volumes = _read(case)
    notes = [*case.notes, *_together((n, suspicious_header(v)) for n, v in volumes.items())]
    told: list[tuple[str, str | None]] = []
    for name, volume in volumes.items():
        data, said = without_background(volume.data, case.files[name])
        volumes[name] = replace(volume, data=data)
        told += [(name, text) for text in said]
    notes += _together(told)
    reference = volumes[chosen]
    volumes = {name: turn_like(volume, reference) for name, volume in volumes.items()}
    differing = _differing(case, volumes, chosen, resample_to)
    notes += _skull_notes(case, volumes, force=force)
    images = np.zeros((len(MODALITIES), *reference.data.shape), np.float32)
    for name in list(volumes):
        values = volumes[name].data
        if name in differing:
            values = resample(volumes[name], reference).data
            if not values.any():
                raise InputError(f"{case.files[name]}: does not overlap ({differing[name]})")
            notes.append(f"{differing[name]}; it was resampled linearly")
        images[MODALITIES.index(name)] = values
        del volumes[name]  # so that a case is hardly ever held twice
    for name in case.missing:
        notes.append(f"{name} is missing: zeros stand in for it and the result is less certain")
    present = np.array([name in case.files for name in MODALITIES])
    return LoadedCase(images, present, reference, notes)


def look(
    case: Case, *, resample_to: str | None = None, allow_missing: bool = False
) -> tuple[Volume, list[str]]:
    """The grid that `load` gives a case, by the headers alone, and what can be said from them.

    Returns:
        The grid; its data are a stand-in without memory.

    Raises:
        InputError: as `load`, of all that headers tell.
    """
    chosen = _chosen(case, resample_to, allow_missing=allow_missing)
    volumes = {}
    for name, path in case.files.items():
        shape, affine = read_grid(path)
        while len(shape) > 3 and shape[-1] == 1:
            shape = shape[:-1]
        if case.channels and len(shape) == 4 and shape[3] == len(case.channels):
            shape = shape[:3]
        if len(shape) != 3 or min(shape) < 2:
            raise InputError(f"{path}: is no volume ({numbers(shape)}); give three axes of slices")
        volumes[name] = Volume(np.broadcast_to(np.uint8(0), shape), affine, path=path)
    notes = [*case.notes, *_together((n, suspicious_header(v)) for n, v in volumes.items())]
    reference = volumes[chosen]
    volumes = {name: turn_like(volume, reference) for name, volume in volumes.items()}
    notes += _differing(case, volumes, chosen, resample_to).values()
    return reference, notes


def _chosen(case: Case, resample_to: str | None, *, allow_missing: bool) -> str:
    """The modality whose grid counts.

    Raises:
        InputError: a missing modality.
    """
    if case.missing and not allow_missing:
        wanted = ", ".join(f"{name} ({' or '.join(NAMES[name][:2])})" for name in case.missing)
        raise InputError(
            f"{case.name}: {wanted} missing; found {_found(case)}; give the files by "
            f"{options(case.missing)} or add --allow-missing"
        )
    if resample_to is not None and resample_to not in case.files:
        raise InputError(f"--resample-to {resample_to}: {case.name} has only {_found(case)}")
    return resample_to or next(name for name in REFERENCES if name in case.files)


def _differing(
    case: Case, volumes: Mapping[str, Volume], chosen: str, resample_to: str | None
) -> dict[str, str]:
    """Which images lie on another grid than the chosen one, and how.

    Raises:
        InputError: some do, and they are not to be resampled.
    """
    reference = volumes[chosen]
    differing = {
        name: f"{name} differs from {chosen}: {'; '.join(differences)}"
        for name, volume in volumes.items()
        if (differences := geometry_differences(volume, reference))
    }
    if differing and resample_to is None:
        raise InputError(
            f"{case.name}: the images are not on one grid ({' | '.join(differing.values())}); "
            f"register them or add --resample-to {chosen}"
        )
    return differing


def _read(case: Case) -> dict[str, Volume]:
    if not case.channels:
        return {name: read_volume(path) for name, path in case.ordered()}
    path = case.files[case.channels[0]]
    read = dict(zip(case.channels, read_channels(path, len(case.channels)), strict=True))
    return {name: read[name] for name in MODALITIES if name in read}


def _together(told: Iterable[tuple[str, str | None]]) -> list[str]:
    """One sentence for all images of which the same is said."""
    names: dict[str, list[str]] = {}
    for name, text in told:
        if text:
            names.setdefault(text, []).append(name)
    return [f"{', '.join(those)}: {text}" for text, those in names.items()]


def _skull_notes(case: Case, volumes: dict[str, Volume], *, force: bool) -> list[str]:
    """Refuse heads with their skull, or say that they may be.

    Raises:
        InputError: they are, and `force` is not given.
    """
    certain, perhaps = [], []
    for name, volume in volumes.items():
        voxels = np.count_nonzero(volume.data)
        share, ml = voxels / volume.data.size, voxels * math.prod(volume.spacing) / 1000
        if share > WITH_SKULL or ml > MOST_BRAIN_ML:
            certain.append(f"{name} {ml:.0f} ml, {share:.0%} of the image")
        elif share > PERHAPS_SKULL:
            perhaps.append(name)
    if certain and not force:
        raise InputError(
            f"{case.name}: the skull was not stripped ({'; '.join(certain)} other than background, "
            f"where a brain has at most {MOST_BRAIN_ML:.0f} ml); strip it (HD-BET, SynthStrip) or "
            "add --force"
        )
    notes = []
    if certain:
        notes.append(
            f"the skull was not stripped ({'; '.join(certain)} other than background); the "
            "networks know stripped brains only"
        )
    if perhaps:
        notes.append(
            f"{', '.join(perhaps)}: over {PERHAPS_SKULL:.0%} of the voxels are not 0, so that the "
            "skull was perhaps not stripped; the networks know stripped brains only"
        )
    return notes


def _found(case: Case) -> str:
    return ", ".join(f"{name} ({path.name})" for name, path in case.ordered())
