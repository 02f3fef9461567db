# SPDX-License-Identifier: Apache-2.0
"""Another healthy brain, for phantoms that judge: the folded cortex of FreeSurfer's fsaverage.

Grey and white matter lie within the surfaces of fsaverage5 (Fischl et al. 1999, 40 brains; nilearn
carries them), so that gyri are sharp where the atlas' are a mean. Ventricles, nuclei, brain stem
and cerebellum are shapes set at their places. All of it is kept as depths in mm, so that a random
shift of a depth makes cortex thicker, ventricles wider, sulci deeper.
"""

import functools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from fieldfare.common.errors import InputError

from .anatomy import DEEP, Anatomy, Atlas, Pose, Push, bent_points
from .noise import Field, Grid
from .sinuses import Line, Point, near_sinus, to_line

STEP = 2.0
"""Mm between the places where depths are kept."""

LOW, HIGH = (-78.0, -112.0, -72.0), (78.0, 78.0, 84.0)
"""Corners of their box, mm in fsaverage's axes (right, front, up)."""

VENTRICLES: tuple[Line, ...] = (
    ((12, 28, 4), (13, 8, 18), (14, -16, 22), (23, -40, 14), (33, -24, -12)),
    ((0, 4, -2), (0, -14, 6)),
    ((0, -38, -28), (0, -42, -36)),
)
"""Lines through a lateral ventricle, the third and the fourth."""

NUCLEI: tuple[tuple[Point, Point], ...] = (
    ((11, -18, 7), (9, 13, 9)),
    ((26, 4, 0), (6, 17, 10)),
    ((12, 14, 9), (5, 9, 9)),
)
"""Centres and half axes of thalamus, putamen, head of the caudate nucleus."""

STEM = ((0, -16, -8), (0, -28, -38), (0, -40, -66))
CEREBELLUM = ((22, -62, -34), (33, 31, 25))

NAMES = ("pial", "white", "ventricle", "nuclei", "stem", "cerebellum", "sinus")


@functools.cache
def load_surfaces() -> Atlas:
    """Depths in mm, positive inside: maps (7, X, Y, Z) of NAMES, axes LPS, STEP apart.

    `middle`, `size` and `white` count in mm from the first of these places, as those of the atlas
    count in its voxels of 1 mm. Takes some seconds; done once a process.

    Raises:
        InputError: nilearn is not installed.
    """
    axes = [np.arange(a, b, STEP, dtype=np.float32) for a, b in zip(LOW, HIGH, strict=True)]
    places = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    mirrored = places * np.array([-1, 1, 1], np.float32)

    def both(depth: Callable[[Field], Field]) -> Field:
        return np.maximum(depth(places), depth(mirrored))

    def tube(line: Line) -> Callable[[Field], Field]:
        return lambda where: 4 - to_line(where, line)

    def body(centre: Point, axes: Point) -> Callable[[Field], Field]:
        return lambda where: _ellipsoid(where, centre, axes)

    maps = np.stack(
        [
            _surface_depth("pial", places),
            _surface_depth("white", places),
            np.max([both(tube(line)) for line in VENTRICLES], axis=0),
            np.max([both(body(*one)) for one in NUCLEI], axis=0),
            11 - to_line(places, STEM),
            both(body(*CEREBELLUM)),
            near_sinus(places),
        ]
    ).astype(np.float32)[:, ::-1, ::-1]
    maps = np.ascontiguousarray(maps)
    brain = maps[[0, 4, 5]].max(axis=0) > 0
    inside = np.argwhere(brain) * STEP
    low, high = inside.min(axis=0), inside.max(axis=0)
    begin = np.argwhere((maps[1] > 3) & (maps[2] < -4)) * int(STEP)
    return Atlas(maps, (low + high) / 2, high - low + STEP, begin)


def _surface_depth(name: str, places: Field) -> Field:
    """Depth of places (X, Y, Z, 3) within the surface of either hemisphere, mm."""
    try:
        from nilearn import datasets, surface
    except ImportError:
        raise InputError(
            "phantoms need the surfaces that nilearn carries; pip install "
            "'fieldfare-medical[phantom]'"
        ) from None
    files = datasets.fetch_surf_fsaverage("fsaverage5")
    found = np.full(places.shape[:-1], -np.inf, np.float32)
    for side in ("left", "right"):
        mesh = surface.load_surf_mesh(files[f"{name}_{side}"])
        points, normals = _samples(np.asarray(mesh.coordinates), np.asarray(mesh.faces))
        distance, nearest = cKDTree(points).query(places, workers=1)
        outside = ((places - points[nearest]) * normals[nearest]).sum(axis=-1) > 0
        found = np.maximum(found, np.where(outside, -distance, distance))
    return found


def _samples(
    corners: NDArray[np.float64], faces: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points of a mesh, its corners, middles of edges and of faces, with normals outwards."""
    triangles = corners[faces]
    normal = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    at_corners = np.zeros_like(corners)
    for column in faces.T:
        np.add.at(at_corners, column, normal)
    edges = np.unique(
        np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])), axis=0
    )
    points = [corners, corners[edges].mean(axis=1), triangles.mean(axis=1)]
    normals = [at_corners, at_corners[edges].sum(axis=1), normal]
    return np.concatenate(points), np.concatenate(normals)


def _ellipsoid(
    places: Field, centre: tuple[float, float, float], axes: tuple[float, float, float]
) -> Field:
    """About the depth of places (..., 3) in an ellipsoid, mm."""
    half = np.array(axes, np.float32)
    radius = np.sqrt((((places - np.array(centre, np.float32)) / half) ** 2).sum(axis=-1))
    return np.asarray((1 - radius) * half.min(), np.float32)


def make_surface_anatomy(
    rng: np.random.Generator, pose: Pose, grid: Grid, pushes: list[Push]
) -> Anatomy:
    """A brain bent at random, with cortex, ventricles and sulci of random width."""
    places = pose.to_atlas(bent_points(rng, grid, pushes)) / STEP
    pial, white, ventricle, nuclei, stem, cerebellum, sinus = (
        ndimage.map_coordinates(one, places, order=1, mode="nearest", prefilter=False)
        for one in load_surfaces().maps
    )
    width = max(grid.spacing, 1.5)

    def inside(depth: Field, shift: float, field: float = 0.0, scale: float = 20.0) -> Field:
        depth = depth + np.float32(shift) + field * grid.noise(rng, scale)
        return np.asarray(np.clip(depth / width + 0.5, 0, 1), np.float32)

    wet = inside(ventricle, rng.uniform(-1.5, 4), 1.0)
    inner = np.maximum(inside(white, rng.normal(0.2, 0.4), 0.4), inside(stem, 0.0, 1.0))
    nucleus = inside(nuclei, rng.normal(0, 0.7), 0.7)
    # Folia: sheets of grey matter and fluid around a core of white.
    folia = np.sin(2 * np.pi * (places[2] * STEP + 3 * grid.noise(rng, 25)) / 7)
    small = inside(cerebellum, 0.0, 1.0)
    core = inside(cerebellum, -8.0, 2.0, 10.0)
    brain = np.maximum(inside(pial, rng.normal(0.8, 0.5), 0.4), np.maximum(inner, small))
    hull = np.clip(4 * (grid.blur(brain, 4.0) - 0.35), 0, 1)  # closes the sulci
    hull = np.maximum(hull, brain)
    inner = np.maximum(inner * (1 - small), small * np.maximum(core, 0.6 * (folia < -0.5)))
    inner *= 1 - 0.75 * nucleus * (1 - small)
    solid = brain * (1 - wet) * (1 - small * (1 - core) * np.clip(2 * folia - 1.4, 0, 0.5))
    inner = np.minimum(inner, solid)
    tissues = np.stack([solid - inner, inner, hull - solid])
    deep = np.clip((ndimage.distance_transform_edt(hull > 0.5) * grid.spacing - DEEP) / 2, 0, 1)
    nothing = np.zeros(grid.shape, np.float32)
    found = (each.astype(np.float32) for each in (tissues, deep, sinus, nothing))
    return Anatomy(grid, *found)
