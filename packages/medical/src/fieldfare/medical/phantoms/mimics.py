# SPDX-License-Identifier: Apache-2.0
"""What a network must not take for a glioma: changes of age, vessels, fluid that flows.

None of it is labelled.
"""

from dataclasses import dataclass

import numpy as np

from .anatomy import Anatomy
from .noise import Field
from .sinuses import draw_blood


@dataclass
class Mimics:
    """All (X, Y, Z) in [0, 1].

    Attributes:
        bright_flair: hyperintensities of white matter, bright on FLAIR and T2.
        bright_t1ce: vessels, dura, choroid plexus, bright with contrast agent.
        vessels: the vessels alone, which T2 and FLAIR show dark.
        blood: the dural sinuses, the brightest of all with contrast agent, dark without.
        flow: fluid that moves and so is not dark on FLAIR.
    """

    bright_flair: Field
    bright_t1ce: Field
    vessels: Field
    blood: Field
    flow: Field


def draw_mimics(rng: np.random.Generator, anatomy: Anatomy) -> Mimics:
    """Draw them into the places where they are found."""
    grid = anatomy.grid
    fluid = anatomy["fluid"]
    ventricle = fluid * anatomy.deep
    brain = anatomy.brain
    one = _ridges(rng, anatomy, rng.uniform(11, 20))
    vessels = one * _ridges(rng, anatomy, rng.uniform(11, 20)) * (0.15 + fluid)
    rim = np.clip(brain - grid.blur(brain, rng.uniform(1.5, 3)), 0, 0.5) * 2
    rim *= np.clip(0.3 + grid.noise(rng, 25), 0, 1)
    plexus = np.clip(grid.noise(rng, 8) - 0.5, 0, 1) * ventricle
    bright = (
        vessels * rng.uniform(0.2, 1.2) + rim * rng.uniform(0, 0.7) + plexus * rng.uniform(0, 1.5)
    )
    flow = fluid * np.clip(grid.noise(rng, 18) - 0.8, 0, 1) * rng.uniform(0, 0.8)
    blood = draw_blood(rng, grid, anatomy.sinus)
    return Mimics(_changes(rng, anatomy, ventricle), np.clip(bright, 0, 1.5), vessels, blood, flow)


def _changes(rng: np.random.Generator, anatomy: Anatomy, ventricle: Field) -> Field:
    """Caps and rims of the ventricles, and spots."""
    grid, white = anatomy.grid, anatomy["white"]
    changes = np.zeros(grid.shape, np.float32)
    if rng.random() < 0.75:
        near = np.clip(grid.blur(ventricle, rng.uniform(1.5, 4.5)) * rng.uniform(0.8, 4), 0, 1)
        changes = near * white * np.clip(0.5 + 0.8 * grid.noise(rng, 22), 0, 1)
    if rng.random() < 0.5:
        spots = np.clip(2 * (grid.noise(rng, rng.uniform(5, 9)) - rng.uniform(1.9, 2.8)), 0, 1)
        changes = np.maximum(changes, spots * white)
    return np.asarray(changes * rng.uniform(0.2, 1), np.float32)


def _ridges(rng: np.random.Generator, anatomy: Anatomy, scale: float) -> Field:
    """Sheets where noise crosses 0; where two kinds of sheets cross run threads."""
    return np.asarray(np.clip(1.2 - 4 * np.abs(anatomy.grid.noise(rng, scale)), 0, 1))
