# SPDX-License-Identifier: Apache-2.0
"""Tiny heads: the same scene on grids of several orientations, as NIfTI and NRRD files."""

from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
from nibabel.eulerangles import euler2mat

SHAPE = (12, 10, 8)
SPACING = (1.0, 1.5, 2.0)


def grid(codes: str, angles: tuple[float, float, float] = (0, 0, 0)) -> np.ndarray:
    """An affine whose axes run as codes, turned by angles in radians, around the world's origin."""
    ways = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, code in enumerate(codes):
        world, sign = ways[code]
        affine[world, axis] = sign * SPACING[axis]
    affine[:3, :3] = euler2mat(*angles) @ affine[:3, :3]
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(SHAPE) - 1) / 2)
    return affine


GRIDS = {
    "LPS": grid("LPS"),
    "RAS": grid("RAS"),
    "PIR": grid("PIR"),
    "oblique": grid("LAS", (0.1, -0.2, 0.3)),
}


def head(seed: int = 0, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Values from 1 in a box inside zeros, int16."""
    values = np.zeros(shape, np.int16)
    inner = tuple(slice(2, length - 2) for length in shape)
    values[inner] = np.random.default_rng(seed).integers(1, 900, values[inner].shape)
    return values


def labels(enhancing: int = 4) -> np.ndarray:
    """Oedema around a core around enhancing tumour, uint8."""
    values = np.zeros(SHAPE, np.uint8)
    values[2:10, 2:8, 2:6] = 2
    values[4:8, 3:7, 3:6] = 1
    values[5:7, 4:6, 3:5] = enhancing
    return values


def write_nifti(
    path: Path,
    values: np.ndarray,
    affine: np.ndarray = GRIDS["LPS"],
    *,
    qform: int = 1,
    sform: int = 1,
) -> Path:
    """Write values as they are, with the codes asked for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(values, affine)
    image.set_sform(affine, sform)
    image.set_qform(affine, qform)
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, path)
    return path


def write_nrrd(path: Path, values: np.ndarray, affine: np.ndarray = GRIDS["LPS"]) -> Path:
    """Write values in left-posterior-superior world, as 3D Slicer does."""
    turned = np.diag([-1, -1, 1, 1]) @ affine
    fields = {
        "space": "left-posterior-superior",
        "space directions": turned[:3, :3].T,
        "space origin": turned[:3, 3],
        "kinds": ["domain"] * 3,
    }
    nrrd.write(str(path), values, fields)
    return path


def write_case(
    folder: Path, suffixes: tuple[str, ...] = ("_t1", "_t1ce", "_t2", "_flair"), name: str = "P1"
) -> Path:
    """A folder of four images on one grid, each with values of its own."""
    for seed, suffix in enumerate(suffixes):
        write_nifti(folder / f"{name}{suffix}.nii.gz", head(seed))
    return folder
