# SPDX-License-Identifier: Apache-2.0
"""Whole cases: drawn from a seed, written as a BraTS case."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..data.naming import MODALITIES
from ..data.regions import write_sidecar
from ..volumes.images import Volume, write_like
from .anatomy import Anatomy, Pose, Push, grid_shape, load_atlas, make_anatomy
from .contrasts import draw_contrasts
from .growth import grow_tumour
from .lesions import Tumour, draw_tumour, plan_lesions
from .mimics import Mimics, draw_mimics
from .noise import Field
from .raters import draw_labels, without_crumbs
from .relaxation import draw_relaxation
from .scanner import draw_slices, scan
from .surfaces import load_surfaces, make_surface_anatomy

SCHEME = "brats2023"

PHANTOMS = 6
"""Of what `make_phantom` draws: a change of it changes the cases of every seed."""

NAMES = {
    "brats2020": {m: f"_{m}" for m in MODALITIES} | {"seg": "_seg"},
    "brats2023": {"t1": "-t1n", "t1ce": "-t1c", "t2": "-t2w", "flair": "-t2f", "seg": "-seg"},
}
"""Ends of file names by the naming schemes of the challenge's years."""


@dataclass(frozen=True)
class Phantom:
    """A synthetic case.

    Attributes:
        images: (4, X, Y, Z) float32 in the order of `cases.MODALITIES`, whole numbers as scanners
            store them, 0 outside the brain.
        labels: (X, Y, Z) uint8 in the scheme brats2023.
        affine: (4, 4), axes LPS as BraTS' files.
        kind: of the largest lesion, see `lesions.KINDS` and `growth.KINDS`.
    """

    images: Field
    labels: NDArray[np.uint8]
    affine: NDArray[np.float64]
    kind: str


def make_phantom(
    rng: np.random.Generator, spacing: float = 1.0, generator: str = "atlas"
) -> Phantom:
    """Draw a case; all that is random comes from `rng`.

    Args:
        spacing: mm; 1 gives BraTS' grid of 240 x 240 x 155.
        generator: of GENERATORS. `atlas` is what networks are trained on. `growth` shares nothing
            with it but bending, mimics and the scanner's faults: it is there to judge them.

    Raises:
        InputError: nilearn, which carries the atlas, is not installed.
    """
    anatomy, drawn, tumour, mimics = GENERATORS[generator](rng, spacing)
    grid, slices = anatomy.grid, draw_slices(rng)
    scanned = scan(rng, anatomy, drawn, slices, mimics.blood)
    rated = draw_labels(grid, tumour.fractions, slices)
    if rng.random() < 0.7:  # raters and networks leave no crumbs
        rated = without_crumbs(rated, spacing)
    shape = grid_shape(spacing)
    images = np.zeros((len(MODALITIES), *shape), np.float32)
    labels = np.zeros(shape, np.uint8)
    images[(slice(None), *grid.box)] = scanned
    labels[grid.box] = np.where((scanned != 0).any(axis=0), rated, 0)
    affine = np.diag([-spacing, -spacing, spacing, 1.0])
    affine[1, 3] = 239.0
    return Phantom(images, labels, affine, tumour.kind)


Drawn = tuple[Anatomy, Field, Tumour, Mimics]


def _from_atlas(rng: np.random.Generator, spacing: float) -> Drawn:
    atlas = load_atlas()
    pose = Pose(rng, atlas)
    grid = pose.grid(spacing)
    lesions = plan_lesions(rng, pose, atlas)
    anatomy = make_anatomy(rng, pose, grid, [lesion.push() for lesion in lesions])
    tumour = draw_tumour(rng, anatomy, lesions)
    mimics = draw_mimics(rng, anatomy)
    return anatomy, draw_contrasts(rng, anatomy, tumour, mimics), tumour, mimics


def _grown(rng: np.random.Generator, spacing: float) -> Drawn:
    surfaces = load_surfaces()
    pose = Pose(rng, surfaces)
    grid = pose.grid(spacing)
    centre = pose.to_phantom(surfaces.white[rng.integers(len(surfaces.white))])
    push = Push(centre, float(rng.uniform(8, 20)), float(rng.uniform(0, 6)))
    anatomy = make_surface_anatomy(rng, pose, grid, [push])
    tumour = grow_tumour(rng, anatomy, centre)
    mimics = draw_mimics(rng, anatomy)
    return anatomy, draw_relaxation(rng, anatomy, tumour, mimics), tumour, mimics


GENERATORS = {"atlas": _from_atlas, "growth": _grown}
"""By name: a generator and a spacing in mm to anatomy, images (4, X, Y, Z) of a perfect scanner,
tumour and mimics."""


def write_case(folder: Path, phantom: Phantom, naming: str = "brats2020") -> None:
    """Write images and labels into a folder that bears the case's name.

    The labels are in the scheme brats2023 whatever the files are called; a JSON file beside them
    says so.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ends = NAMES[naming]
    grid = Volume(phantom.labels, phantom.affine)
    for name, image in zip(MODALITIES, phantom.images, strict=True):
        write_like(folder / f"{folder.name}{ends[name]}.nii.gz", image, grid, np.float32)
    path = folder / f"{folder.name}{ends['seg']}.nii.gz"
    write_like(path, phantom.labels, grid)
    write_sidecar(path, SCHEME)
