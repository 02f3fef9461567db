# SPDX-License-Identifier: Apache-2.0
"""Made-up cases for training: a head with a ball in it whose shells are the three tissues."""

from pathlib import Path

import numpy as np
from sample_volumes import write_nifti

SUFFIXES = ("-t1n", "-t1c", "-t2w", "-t2f")
SPACING = 4.0
SIDE = 24


def affine(spacing: float = SPACING) -> np.ndarray:
    """Axes as in BraTS' files: LPS."""
    return np.diag([-spacing, -spacing, spacing, 1.0])


def ball(centre: tuple[float, ...], radius: float, side: int = SIDE) -> np.ndarray:
    """(side, side, side) uint8 in brats2023: enhancing tumour in core in oedema."""
    grid = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"))
    distance = np.sqrt(((grid - np.reshape(centre, (3, 1, 1, 1))) ** 2).sum(axis=0))
    labels = np.zeros((side,) * 3, np.uint8)
    for label, share in ((2, 1.0), (1, 0.75), (3, 0.5)):
        labels[distance < radius * share] = label
    return labels


def images(labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """Four modalities, (4, *size): each tissue has its own grey in each; 0 outside the head."""
    rng = np.random.default_rng(seed)
    greys = np.array(
        [[100, 60, 80, 70], [100, 80, 90, 240], [100, 180, 190, 90], [90, 160, 210, 120]]
    )
    values = greys[:, labels] + rng.normal(0, 3, (4, *labels.shape))
    values[:, [0, -1]] = values[:, :, [0, -1]] = values[:, :, :, [0, -1]] = 0
    return values.astype(np.float32)


def write_ball_case(folder: Path, seed: int = 0, *, labels: np.ndarray | None = None) -> Path:
    """A case folder with labels; the ball lies elsewhere for every seed."""
    rng = np.random.default_rng(seed)
    if labels is None:
        labels = ball(tuple(rng.uniform(8, SIDE - 9, 3)), rng.uniform(5, 7))
    for suffix, values in zip(SUFFIXES, images(labels, seed), strict=True):
        write_nifti(folder / f"{folder.name}{suffix}.nii.gz", values, affine())
    write_nifti(folder / f"{folder.name}-seg.nii.gz", labels, affine())
    return folder


def write_table(path: Path, *rows: tuple[str, ...]) -> Path:
    """Rows of case, split and patient."""
    lines = ["case,split,patient", *(",".join(row) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path
