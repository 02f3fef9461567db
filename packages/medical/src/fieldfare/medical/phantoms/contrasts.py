# SPDX-License-Identifier: Apache-2.0
"""Four contrasts of one anatomy, with intensities drawn anew for every case.

The idea is domain randomisation (Billot et al. 2023, SynthSeg, arXiv 2107.09559): a network that
has seen every contrast, blur, bias and noise takes the real one for one more. Unlike there, the
order of the tissues within a modality is kept: it is what tells a lesion from the rest.
"""

from dataclasses import dataclass

import numpy as np

from ..data.naming import MODALITIES
from .anatomy import Anatomy
from .lesions import Tumour
from .mimics import Mimics
from .noise import Field, Grid

#: Mean share of fluid in the core by kind of lesion: solid tumour to cyst.
FLUIDITY = {
    "ring": (0.0, 1.0),
    "solid": (0.0, 0.4),
    "patchy": (0.0, 0.5),
    "non-enhancing": (0.0, 0.35),
    "cystic": (0.6, 1.0),
}

#: Kinds without a rim, whose core is told from oedema by its contrast alone: it holds more water.
PLAIN = ("non-enhancing", "cystic", "patchy")


@dataclass(frozen=True)
class Intensities:
    """Of one modality, about 0 to 2 with the brightest healthy tissue but fluid near 1.

    The core's solid part is `core`, what has become fluid `liquid`.
    """

    grey: float
    white: float
    fluid: float
    core: float
    liquid: float
    oedema: float
    enhancing: float


def draw_intensities(rng: np.random.Generator, kind: str) -> dict[str, Intensities]:
    """Of every modality by name; T1 with and without contrast agent go together.

    Water darkens T1 and brightens T2 and FLAIR: a case's oedema holds much or little of it, and the
    modalities follow, each a little in its own way.
    """
    water = rng.uniform(0, 1.2)
    darkness = float(np.clip(1.25 * (water + rng.normal(0, 0.25)) - 0.6, -0.6, 0.75))
    # A core in an enhancing rim may hold as much water as oedema; one without holds more.
    more = rng.uniform(0.1, 0.5) if kind in PLAIN else rng.uniform(-0.1, 0.4)
    t1 = (rng.uniform(0.60, 0.95), rng.uniform(0.12, 0.55))
    t1ce = (
        float(np.clip(t1[0] + rng.normal(0, 0.06), 0.55, 0.97)),
        float(np.clip(t1[1] + rng.normal(0, 0.06), 0.05, 0.55)),
    )
    return {
        "t1": _t1(rng, *t1, darkness, more, gain=None),
        "t1ce": _t1(rng, *t1ce, darkness, more, gain=0.05 + 0.95 * rng.random() ** 1.4),
        "t2": _t2(rng, water, more),
        "flair": _flair(rng, water),
    }


def _t1(
    rng: np.random.Generator,
    grey: float,
    fluid: float,
    darkness: float,
    more: float,
    gain: float | None,
) -> Intensities:
    """White matter is 1; oedema lies between it and well below grey matter."""
    darker = grey - fluid if darkness > 0 else 1 - grey
    oedema = grey - darkness * darker + rng.normal(0, 0.02)
    core = oedema - (more + rng.uniform(-0.05, 0.05)) * (grey - fluid)
    core, liquid = max(core, fluid * 0.9), fluid * 1.1
    if gain is None:
        enhancing = oedema * rng.uniform(0.85, 1.1)
        return Intensities(grey, 1.0, fluid, core, liquid, oedema, enhancing)
    if rng.random() < 0.3:  # it enhances a little throughout, or is finely mixed
        little = rng.uniform(0, 0.4)
        core, liquid = _mix(core, 1, little), _mix(liquid, 1, little)
    return Intensities(grey, 1.0, fluid, core, liquid, oedema, 1 + gain)


def _t2(rng: np.random.Generator, water: float, more: float) -> Intensities:
    """Fluid is far brighter than grey matter, and that than white.

    A core dense with cells is darker than oedema, up to nearly as grey matter.
    """
    white = rng.uniform(0.25, 0.5)
    grey = white * rng.uniform(1.1, 1.6)
    fluid = grey * rng.uniform(1.7, 3.5)
    share = float(np.clip(0.1 + 0.6 * water + rng.normal(0, 0.1), 0.1, 0.8))
    above = max(share + 0.6 * more - (rng.uniform(0, 0.3) if more < 0.1 else 0), 0.04)
    oedema = _mix(grey, fluid, share)
    core = _mix(grey, fluid, min(above, 0.95))
    enhancing = grey + rng.uniform(0.3, 1.1) * (oedema - grey)
    return Intensities(grey, white, fluid, core, fluid, oedema, enhancing)


def _flair(rng: np.random.Generator, water: float) -> Intensities:
    """Grey and white matter are much alike, fluid is dark, oedema brighter than all."""
    grey = rng.uniform(0.6, 0.8)
    white = grey * rng.uniform(0.76, 1.12)
    fluid = grey * rng.uniform(0.03, 0.6)
    bright = float(np.clip(0.5 * water + rng.uniform(0, 0.5), 0, 1))
    oedema = max(grey, white) * (1.15 + 0.8 * bright)
    core = oedema * rng.uniform(0.65, 1.15)
    enhancing = oedema * rng.uniform(0.7, 1.1)
    # What is rich in protein stays bright.
    liquid = _mix(core, fluid, rng.uniform(0.3, 1.0))
    return Intensities(grey, white, fluid, core, liquid, oedema, enhancing)


def _mix(one: float, other: float, share: float) -> float:
    return one + (other - one) * share


def draw_contrasts(
    rng: np.random.Generator, anatomy: Anatomy, tumour: Tumour, mimics: Mimics
) -> Field:
    """The modalities as a perfect scanner would see them: (4, X, Y, Z), `cases.MODALITIES`.

    Around the brain lies what a careless skull-stripping leaves, of random intensity.
    """
    grid = anatomy.grid
    intensities = draw_intensities(rng, tumour.kind)
    fractions = tumour.fractions
    healthy = np.clip(1 - fractions.sum(axis=0), 0, 1)
    brain = anatomy.brain
    around = np.clip(1 - brain, 0, 1) * np.clip(0.5 + 0.5 * grid.noise(rng, 8), 0, 2)
    cortex = anatomy["grey"] * np.clip(grid.noise(rng, 30), -1.5, 1.5)
    grain = grid.noise(rng, 4)
    # Tumour is uneven: patches of its own in every modality, on top of ones that all share.
    shared = grid.noise(rng, rng.uniform(6, 16))
    inside = np.clip(fractions.sum(axis=0), 0, 1)
    wet, blood = _necrosis(rng, grid, tumour), _bleeding(rng, grid, fractions)
    images = np.empty((len(MODALITIES), *grid.shape), np.float32)
    for name, image in zip(MODALITIES, images, strict=True):
        it = intensities[name]
        tissue = np.array([it.grey, it.white, it.fluid], np.float32)
        image[...] = np.tensordot(tissue, anatomy.tissues, 1)
        image += anatomy.detail * brain * (rng.uniform(0, 1.2) * (it.white - it.grey))
        image += anatomy["grey"] * anatomy.deep * (rng.normal(0, 0.4) * (it.white - it.grey))
        image += cortex * (rng.uniform(0, 0.08) * it.grey)
        image += anatomy["fluid"] * anatomy.deep * (rng.uniform(-0.15, 0.15) * it.fluid)
        _show(rng, name, image, it, mimics)
        image += around * rng.uniform(0, 1.1)
        image *= 1 + rng.uniform(0, 0.05) * grain
        lesion = np.array([it.core, it.oedema, it.enhancing], np.float32)
        image *= healthy
        image += np.tensordot(lesion, fractions, 1)
        image += wet * (it.liquid - it.core)
        if name in ("t1", "t1ce"):
            image += blood * rng.uniform(0.2, 0.6)
        else:
            image *= 1 - rng.uniform(0, 0.5) * blood
        patches = rng.uniform(-0.15, 0.15) * shared
        patches += rng.uniform(0, 0.12) * grid.noise(rng, rng.uniform(4, 10))
        image *= 1 + inside * np.clip(patches, -0.4, 0.4)
    return np.maximum(images, 0)


def _necrosis(rng: np.random.Generator, grid: Grid, tumour: Tumour) -> Field:
    """Fraction of each voxel that is fluid in the core: all modalities show the same patches."""
    share = rng.uniform(*FLUIDITY[tumour.kind]) + rng.uniform(0, 0.4) * grid.noise(
        rng, rng.uniform(4, 12)
    )
    return np.asarray(tumour.fractions[0] * np.clip(share, 0, 1), np.float32)


def _bleeding(rng: np.random.Generator, grid: Grid, fractions: Field) -> Field:
    """Spots of old blood, in [0, 1], in the core of one tumour in five: bright on T1."""
    if rng.random() > 0.2:
        return np.zeros(grid.shape, np.float32)
    spots = np.clip(grid.noise(rng, rng.uniform(4, 9)) - rng.uniform(0.3, 1.2), 0, 1)
    return np.asarray(spots * (fractions[0] + fractions[2]), np.float32)


def _show(
    rng: np.random.Generator, name: str, image: Field, it: Intensities, mimics: Mimics
) -> None:
    """Lay what mimics a lesion over an image."""
    if name in ("flair", "t2"):
        gain = _mix(it.grey, it.oedema, rng.uniform(0.4, 1.0)) - image
        image += mimics.bright_flair * np.maximum(gain, 0)
        image *= 1 - rng.uniform(0, 0.7) * np.clip(mimics.vessels, 0, 1)
    elif name == "t1ce":
        image += mimics.bright_t1ce * rng.uniform(0.2, 1.3)
        image += mimics.blood * (rng.uniform(0.8, 2.8) - image)
    else:
        image -= mimics.bright_flair * (rng.uniform(0, 0.5) * (1 - it.grey))
    if name != "t1ce":
        image *= 1 - rng.uniform(0, 0.95) * mimics.blood
    if name == "flair":
        image += mimics.flow * it.grey
