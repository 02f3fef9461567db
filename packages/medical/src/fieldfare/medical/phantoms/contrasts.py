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
from .noise import Field

#: Share of fluid in the core by kind of lesion: solid tumour to cyst.
FLUIDITY = {
    "ring": (0.0, 1.0),
    "solid": (0.0, 0.4),
    "patchy": (0.0, 0.5),
    "non-enhancing": (0.0, 0.35),
    "cystic": (0.6, 1.0),
}


@dataclass(frozen=True)
class Intensities:
    """Of one modality, about 0 to 2 with the brightest healthy tissue but fluid near 1."""

    grey: float
    white: float
    fluid: float
    core: float
    oedema: float
    enhancing: float


def draw_intensities(rng: np.random.Generator, kind: str) -> dict[str, Intensities]:
    """Of every modality by name; T1 with and without contrast agent go together."""
    fluidity = rng.uniform(*FLUIDITY[kind])
    darkness = rng.uniform(-0.6, 0.5)
    bled = 0.3 if rng.random() < 0.1 else 0.0
    t1 = (rng.uniform(0.60, 0.95), rng.uniform(0.12, 0.55))
    t1ce = (
        float(np.clip(t1[0] + rng.normal(0, 0.06), 0.55, 0.97)),
        float(np.clip(t1[1] + rng.normal(0, 0.06), 0.05, 0.55)),
    )
    tumour = (fluidity, darkness, bled)
    return {
        "t1": _t1(rng, *t1, *tumour, gain=None),
        "t1ce": _t1(rng, *t1ce, *tumour, gain=0.05 + 0.95 * rng.random() ** 1.4),
        "t2": _t2(rng, fluidity),
        "flair": _flair(rng, fluidity),
    }


def _t1(
    rng: np.random.Generator,
    grey: float,
    fluid: float,
    fluidity: float,
    darkness: float,
    bled: float,
    gain: float | None,
) -> Intensities:
    """White matter is 1; oedema lies between it and well below grey matter."""
    darker = grey - fluid if darkness > 0 else 1 - grey
    oedema = grey - darkness * darker + rng.normal(0, 0.02)
    core = _mix(oedema - rng.uniform(-0.05, 0.4) * (grey - fluid), fluid * 1.1, fluidity)
    core = max(core, fluid * 0.9)
    if gain is not None:
        if rng.random() < 0.3:  # it enhances a little throughout, or is finely mixed
            core += rng.uniform(0, 0.4) * (1 - core)
        return Intensities(grey, 1.0, fluid, core, oedema, 1 + gain)
    return Intensities(grey, 1.0, fluid, core, oedema, oedema * rng.uniform(0.85, 1.1) + bled)


def _t2(rng: np.random.Generator, fluidity: float) -> Intensities:
    """Fluid is far brighter than grey matter, and that than white."""
    white = rng.uniform(0.25, 0.5)
    grey = white * rng.uniform(1.1, 1.6)
    fluid = grey * rng.uniform(1.7, 3.5)
    oedema = grey + rng.uniform(0.08, 0.55) * (fluid - grey)
    core = oedema + rng.uniform(-0.12, 0.25) * (fluid - grey)
    enhancing = grey + rng.uniform(0.3, 1.1) * (oedema - grey)
    return Intensities(grey, white, fluid, _mix(core, fluid, fluidity), oedema, enhancing)


def _flair(rng: np.random.Generator, fluidity: float) -> Intensities:
    """Grey and white matter are much alike, fluid is dark, oedema brighter than all."""
    grey = rng.uniform(0.6, 0.8)
    white = grey * rng.uniform(0.76, 1.12)
    fluid = grey * rng.uniform(0.03, 0.6)
    oedema = max(grey, white) * rng.uniform(1.15, 1.95)
    core = oedema * rng.uniform(0.8, 1.15)
    enhancing = oedema * rng.uniform(0.75, 1.1)
    suppressed = fluidity * rng.uniform(0.3, 1.0)  # what is rich in protein stays bright
    return Intensities(grey, white, fluid, _mix(core, fluid, suppressed), oedema, enhancing)


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
        patches = rng.uniform(-0.15, 0.15) * shared
        patches += rng.uniform(0, 0.12) * grid.noise(rng, rng.uniform(4, 10))
        image *= 1 + inside * np.clip(patches, -0.4, 0.4)
    return np.maximum(images, 0)


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
    else:
        image -= mimics.bright_flair * (rng.uniform(0, 0.5) * (1 - it.grey))
    if name == "flair":
        image += mimics.flow * it.grey
