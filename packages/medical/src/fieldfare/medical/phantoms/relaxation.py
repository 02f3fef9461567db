# SPDX-License-Identifier: Apache-2.0
"""Contrasts from relaxation: spin echo, inversion recovery and FLAIR of tissues with T1 and T2.

Unlike `contrasts`, which draws brightness itself, this draws times: of tissues (about those of 1.5
and 3 tesla) and of sequences, and computes the signals.

Source: the signal equations of textbooks, S = PD (1 - exp(-TR/T1)) exp(-TE/T2) for spin echo,
S = PD |1 - 2 exp(-TI/T1) + exp(-TR/T1)| exp(-TE/T2) for inversion recovery; times about those of
Stanisz et al. 2005 (doi 10.1002/mrm.20605).
"""

from dataclasses import dataclass

import numpy as np

from ..data.naming import MODALITIES
from .anatomy import Anatomy
from .lesions import Tumour
from .mimics import Mimics
from .noise import Field

TISSUES = {
    "grey": (0.82, 1150, 95),
    "white": (0.70, 760, 75),
    "fluid": (1.00, 4200, 900),
    "core": (0.90, 1900, 190),
    "oedema": (0.87, 1500, 145),
    "enhancing": (0.87, 1500, 140),
    "changes": (0.82, 1200, 120),
}
"""Density of protons, T1 and T2 in ms."""

RELAXIVITY = 4.5
"""Of contrast agent, per mmol/l and s."""


@dataclass(frozen=True)
class Sequence:
    """Ms; `inversion` is 0 for a spin echo."""

    repetition: float
    echo: float
    inversion: float = 0.0

    def signal(self, tissue: tuple[float, float, float]) -> float:
        """Of protons' density, T1 and T2 in ms."""
        density, t1, t2 = tissue
        recovered = 1 - np.exp(-self.repetition / t1)
        if self.inversion:
            recovered = abs(1 - 2 * np.exp(-self.inversion / t1) + np.exp(-self.repetition / t1))
        return float(density * recovered * np.exp(-self.echo / t2))


def draw_relaxation(
    rng: np.random.Generator, anatomy: Anatomy, tumour: Tumour, mimics: Mimics
) -> Field:
    """The modalities as a perfect scanner would see them: (4, X, Y, Z), `naming.MODALITIES`."""
    grid = anatomy.grid
    tissues = {
        name: (pd, t1 * np.exp(rng.normal(0, 0.08)), t2 * np.exp(rng.normal(0, 0.08)))
        for name, (pd, t1, t2) in TISSUES.items()
    }
    liquid = rng.uniform(0, 0.6)  # of the core
    pd, t1, t2 = tissues["core"]
    tissues["core"] = (pd, t1 * (1 + liquid), t2 * (1 + 2 * liquid))
    agent = RELAXIVITY * rng.uniform(0.04, 0.5) / 1000
    # What leaks in grows along with the agent's share; healthy tissue takes up next to none.
    enhanced = tissues | {"enhancing": _with(tissues["enhancing"], agent)}
    blood = _with((0.8, 1600.0, 120.0), RELAXIVITY * rng.uniform(0.3, 1.0) / 1000)
    changes = np.clip(mimics.bright_flair, 0, 1) * anatomy["white"]
    shares = dict(zip(("grey", "white", "fluid"), anatomy.tissues, strict=True))
    shares["white"] = shares["white"] - changes
    shares["changes"] = changes
    ill = tumour.fractions.sum(axis=0)
    healthy = np.clip(1 - ill, 0, 1)
    lesions = dict(zip(("core", "oedema", "enhancing"), tumour.fractions, strict=True))
    uneven = grid.noise(rng, rng.uniform(5, 14))
    around = np.clip(1 - anatomy.brain, 0, 1) * np.clip(0.5 + 0.5 * grid.noise(rng, 8), 0, 2)
    images = np.empty((len(MODALITIES), *grid.shape), np.float32)
    plain = _draw_t1(rng)
    sequences = {
        "t1": plain,
        "t1ce": plain if rng.random() < 0.6 else _draw_t1(rng),
        "t2": Sequence(rng.uniform(3500, 6500), rng.uniform(85, 120)),
        "flair": Sequence(9000, rng.uniform(95, 150), rng.uniform(2250, 2500)),
    }
    for name, image in zip(MODALITIES, images, strict=True):
        sequence, known = sequences[name], enhanced if name == "t1ce" else tissues
        image[...] = sum(share * sequence.signal(known[of]) for of, share in shares.items())
        if name == "t1ce":
            image += np.clip(mimics.bright_t1ce, 0, 1) * (0.5 * sequence.signal(blood))
            image += mimics.blood * (1.5 * sequence.signal(blood) - image)
        else:
            image *= 1 - 0.8 * mimics.blood
        if name in ("t2", "flair"):
            image *= 1 - 0.6 * np.clip(mimics.vessels, 0, 1)
        image += around * (rng.uniform(0, 0.8) * sequence.signal(known["grey"]))
        image *= healthy
        image += sum(share * sequence.signal(known[of]) for of, share in lesions.items())
        image *= 1 + ill * np.clip(rng.uniform(0, 0.12) * uneven, -0.3, 0.3)
    return np.maximum(images, 0)


def _with(tissue: tuple[float, float, float], rate: float) -> tuple[float, float, float]:
    """A tissue with contrast agent, which adds `rate` per ms to 1 / T1."""
    density, t1, t2 = tissue
    return density, 1 / (1 / t1 + rate), t2


def _draw_t1(rng: np.random.Generator) -> Sequence:
    """A spin echo or a volume prepared by inversion."""
    if rng.random() < 0.5:
        return Sequence(rng.uniform(400, 700), rng.uniform(8, 15))
    return Sequence(rng.uniform(1900, 2400), 3.0, rng.uniform(850, 1050))
