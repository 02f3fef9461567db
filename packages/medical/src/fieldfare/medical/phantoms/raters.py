# SPDX-License-Identifier: Apache-2.0
"""What a rater draws of a tumour: what the scans show of it, with its faint border.

Labels are those of BraTS 2023: necrotic or non-enhancing core 1, oedema 2, enhancing tumour 3.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .noise import Field, Grid
from .scanner import Slices

CORE, OEDEMA, ENHANCING = 1, 2, 3

VISIBLE = 0.15
"""Share of tumour in a voxel from which it is labelled: a border is seen long before it makes up
half of a voxel, and raters draw outside of it."""

INNER = 0.35
"""Share of core and enhancement in what is tumour of a voxel from which it is core."""

BRIGHT = 0.3
"""Share of enhancing tumour from which the core is called so."""

CRUMB = 60.0
"""Mm^3."""


def draw_labels(grid: Grid, fractions: Field, slices: Mapping[str, Slices]) -> NDArray[np.uint8]:
    """Labels (X, Y, Z) of fractions (3, X, Y, Z) of core, oedema and enhancing tumour.

    The slices are as thick for the tumour as for the brain: the whole is seen on FLAIR, its inner
    parts on T1 with contrast agent.
    """
    whole = as_cut(grid, fractions.sum(axis=0), slices["flair"])
    parts = np.stack([as_cut(grid, one, slices["t1ce"]) for one in fractions])
    return visible_labels(parts, whole)


def as_cut(grid: Grid, field: Field, slices: Slices) -> Field:
    """A field (X, Y, Z) averaged over the thickness of slices."""
    sigma = np.zeros(3)
    sigma[slices.axis] = slices.sigma / grid.spacing
    return np.asarray(ndimage.gaussian_filter(field, sigma, truncate=3))


def visible_labels(fractions: Field, whole: Field | None = None) -> NDArray[np.uint8]:
    """Labels (X, Y, Z) of fractions (3, X, Y, Z) of core, oedema and enhancing tumour.

    Tumour is what reaches VISIBLE; core of it where core and enhancement reach INNER of it;
    enhancing of that where the enhancement reaches BRIGHT.

    Args:
        whole: (X, Y, Z), what is seen of all three; their sum when None.
    """
    core, _, enhancing = fractions
    inner = core + enhancing >= INNER * fractions.sum(axis=0)
    labels = np.where(inner, np.where(enhancing >= BRIGHT, ENHANCING, CORE), OEDEMA)
    whole = fractions.sum(axis=0) if whole is None else whole
    return np.where(whole >= VISIBLE, labels, 0).astype(np.uint8)


def without_crumbs(labels: NDArray[np.uint8], spacing: float) -> NDArray[np.uint8]:
    """Labels without parts of less than CRUMB mm^3, but for the largest part."""
    parts, count = ndimage.label(labels > 0)
    sizes = np.bincount(parts.ravel())
    crumbs = sizes * spacing**3 < CRUMB
    crumbs[1 + sizes[1:].argmax() if count else 0] = False
    crumbs[0] = False
    return np.where(crumbs[parts], np.uint8(0), labels)
