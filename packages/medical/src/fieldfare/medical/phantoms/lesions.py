# SPDX-License-Identifier: Apache-2.0
"""Gliomas drawn at random."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .anatomy import Anatomy, Atlas, Pose, Push
from .noise import Field, Grid

KINDS = {
    "ring": 0.29,
    "solid": 0.13,
    "patchy": 0.25,
    "non-enhancing": 0.25,
    "cystic": 0.08,
}
"""Share of lesions: necrotic core in an enhancing rim; enhancing throughout; enhancing here and
there; none enhancing; a cyst, whose wall enhances in half of the cases. All have a core: the raters
of BraTS draw one in nearly every glioma, in those that do not enhance most of what is bright."""


@dataclass(frozen=True)
class Lesion:
    """What is drawn before the anatomy is known.

    Attributes:
        kind: of `KINDS`.
        centre: mm from the field of view's first voxel.
        radius: of the core, mm.
        oedema: how far the oedema reaches beyond the core, mm.
        shift: mass effect, mm.
        enhances: whether any of it does.
    """

    kind: str
    centre: NDArray[np.float64]
    radius: float
    oedema: float
    shift: float
    enhances: bool

    def push(self) -> Push:
        """Its mass effect."""
        return Push(self.centre, self.radius, self.shift)


@dataclass
class Tumour:
    """Lesions on the phantom's grid.

    Attributes:
        fractions: (3, X, Y, Z) in [0, 1] of core, oedema, enhancing tumour as images show them:
            soft at the borders, the oedema thinned by brain in between.
        kind: of the largest lesion.
    """

    fractions: Field
    kind: str


def plan_lesions(rng: np.random.Generator, pose: Pose, atlas: Atlas) -> list[Lesion]:
    """One lesion, seldom two, or several small ones; the first is the largest."""
    kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
    enhances = kind in ("ring", "solid", "patchy") or (kind == "cystic" and rng.random() < 0.5)
    drawn = rng.random()
    count = 1 if drawn < 0.78 else 2 if drawn < 0.9 else int(rng.integers(3, 6))
    largest = 24.0 if count < 3 else 10.0
    lesions: list[Lesion] = []
    for number in range(count):
        # The others of a case mostly lie near the first.
        begin = atlas.white[rng.integers(len(atlas.white))]
        centre = pose.to_phantom(begin)
        if number and rng.random() < 0.5:
            centre = lesions[0].centre + rng.normal(0, 20, 3)
        radius = float(rng.uniform(6, largest) if number == 0 else rng.uniform(3, 9))
        oedema = float(rng.gamma(1.7, 5.5))
        if kind == "non-enhancing":  # nearly all core, or a core in a wide infiltrated border
            oedema *= rng.choice((0.4, 1.0))
        shift = float(rng.uniform(0, 0.4) * radius)
        lesions.append(Lesion(kind, centre, radius, oedema, shift, enhances))
    return lesions


def draw_tumour(rng: np.random.Generator, anatomy: Anatomy, lesions: list[Lesion]) -> Tumour:
    """Draw lesions into an anatomy, which stays as it is."""
    fractions = np.zeros((3, *anatomy.grid.shape), np.float32)
    for lesion in reversed(lesions):
        _draw(rng, anatomy, lesion, fractions)
    return Tumour(_infiltrating(rng, anatomy, fractions), lesions[0].kind)


def _infiltrating(rng: np.random.Generator, anatomy: Anatomy, fractions: Field) -> Field:
    """Fractions as images show them: blurred at the borders, brain shining through the oedema."""
    blur = rng.uniform(0, 2.0)
    shown = np.stack([anatomy.grid.blur(one, blur) for one in fractions])
    shown *= anatomy.brain / np.maximum(1, shown.sum(axis=0))
    faint = max(0, rng.uniform(-0.3, 0.5)) * np.clip(0.5 + 0.5 * anatomy.grid.noise(rng, 15), 0, 1)
    shown[1] *= 1 - faint
    return shown


def _draw(rng: np.random.Generator, anatomy: Anatomy, lesion: Lesion, fractions: Field) -> None:
    """Lay a lesion over the fractions (3, X, Y, Z) of those drawn before."""
    near = _around(anatomy.grid, lesion)
    if near is None:
        return
    grid, part = near
    away = grid.points() - lesion.centre.astype(np.float32).reshape(3, 1, 1, 1)
    distance = _lobed(rng, away, lesion.radius)
    rough = rng.uniform(0.5, 1.5)
    distance *= np.exp(rough * (0.18 * grid.noise(rng, 20) + 0.09 * grid.noise(rng, 8)))

    grey, white, fluid = (anatomy[name][part] for name in ("grey", "white", "fluid"))
    ventricle = fluid * anatomy.deep[part]
    sulci = fluid - ventricle
    # Tumour stops at ventricles and fills the sulci that it swells into, here and there.
    solid = np.clip(grey + white + sulci * rng.uniform(0, 1) - 0.3 * ventricle, 0, 1)
    solid = np.clip(1.6 * solid - 0.3, 0, 1)
    soft = grid.spacing + rng.uniform(0, 2.5)
    border = rng.uniform(0, 3 if lesion.kind == "non-enhancing" else 1)
    core = _inside(lesion.radius - distance, grid.spacing + border) * solid
    into_grey = rng.uniform(0, 0.8)

    # Oedema follows white matter in fingers, to one side more than to another, and hardly enters
    # the cortex. In half of the lesions it is thinner far from the core.
    tract = grid.blur(white, 1.2)
    ease = rng.uniform(0, 0.5) + tract + 0.3 * grid.noise(rng, 12)
    ease += rng.uniform(0, 0.5) * grid.noise(rng, 35)
    reach = lesion.oedema * np.clip(ease, 0.02, 2)
    wet = np.clip(white + into_grey * grey + core, 0, 1)
    beyond = np.asarray(distance - lesion.radius, np.float32)
    wet *= 1 - max(0, rng.uniform(-0.5, 0.6)) * np.clip(beyond / (reach + 1), 0, 1)
    whole = np.maximum(core, _inside(np.asarray(reach - beyond, np.float32), soft) * wet)

    enhancing = core * _enhancement(rng, grid, lesion, distance)
    found = np.stack([core - enhancing, np.clip(whole - core, 0, 1), enhancing])
    fractions[(slice(None), *part)] *= 1 - found.sum(axis=0).clip(0, 1)
    fractions[(slice(None), *part)] += found


def _lobed(rng: np.random.Generator, away: Field, radius: float) -> Field:
    """How far from the middle each place is, mm, so that an ellipsoid and up to three lobes on its
    rim lie within the radius; of `away` (3, X, Y, Z), mm from the middle."""
    axes = np.linalg.qr(rng.normal(size=(3, 3)))[0] * np.exp(rng.normal(0, 0.22, 3))
    distance = np.sqrt((np.tensordot(axes.astype(np.float32).T, away, 1) ** 2).sum(axis=0))
    for _ in range(int(rng.integers(4)) if rng.random() < 0.6 else 0):
        side = rng.normal(size=3)
        side *= rng.uniform(0.6, 1) * radius / np.sqrt((side**2).sum())
        rest = away - side.astype(np.float32).reshape(3, 1, 1, 1)
        lobe = np.sqrt((rest**2).sum(axis=0)) + np.float32(radius * rng.uniform(0.3, 0.7))
        distance = np.minimum(distance, lobe)
    return np.asarray(distance, np.float32)


def _around(grid: Grid, lesion: Lesion) -> tuple[Grid, tuple[slice, ...]] | None:
    """The part of a grid that a lesion can reach, and where it lies in it."""
    reach = 2.2 * lesion.radius + 2.5 * lesion.oedema + 6
    first, last = [], []
    for axis, length in enumerate(grid.shape):
        middle = lesion.centre[axis] / grid.spacing - grid.first[axis]
        first.append(max(0, int(middle - reach / grid.spacing)))
        last.append(min(length, int(middle + reach / grid.spacing) + 2))
    shape = tuple(b - a for a, b in zip(first, last, strict=True))
    if min(shape) < 2:
        return None
    begin = tuple(a + b for a, b in zip(grid.first, first, strict=True))
    part = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
    return Grid(begin, shape, grid.spacing), part  # type: ignore[arg-type]


def _enhancement(
    rng: np.random.Generator, grid: Grid, lesion: Lesion, distance: Field
) -> Field | float:
    """Share of the core that enhances, (X, Y, Z) in [0, 1]: less where it is weak or patchy."""
    if not lesion.enhances:
        return 0.0
    strength = rng.uniform(0.75, 1.3) + rng.uniform(0, 0.4) * grid.noise(rng, rng.uniform(5, 12))
    strength = np.clip(strength, 0.1, 1).astype(np.float32)
    if lesion.kind in ("ring", "cystic"):
        widest = 8.0 if lesion.kind == "ring" else 3.0
        thickness = rng.uniform(1.5, widest) * np.exp(0.4 * grid.noise(rng, 12))
        share = _inside(distance - (lesion.radius - thickness), grid.spacing)
        if rng.random() < 0.5:  # the ring is broken
            share = share * _inside(2 + 4 * grid.noise(rng, 16), 2.0)
    elif lesion.kind == "solid":
        share = _inside(4 + 3 * grid.noise(rng, 9), 2.0)
    else:
        share = _inside(rng.uniform(-4, 4) + 4 * grid.noise(rng, rng.uniform(6, 14)), 2.0)
    return np.asarray(share * strength, np.float32)


def _inside(depth: Field, width: float) -> Field:
    """1 where a depth in mm is positive, 0 where negative, a ramp of `width` mm between."""
    return np.asarray(np.clip(depth / width + 0.5, 0, 1), np.float32)
