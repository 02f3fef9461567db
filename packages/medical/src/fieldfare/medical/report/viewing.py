# SPDX-License-Identifier: Apache-2.0
"""What the viewer inside a report shows: small NIfTI files as text in the page."""

import base64
import gzip
import math
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from ..data.naming import MODALITIES
from ..data.regions import scheme_labels
from ..volumes.images import Volume, resample
from .pictures import LABEL_COLOURS, TITLES
from .scene import Scene

MOST_VOXELS = 4_500_000
"""Of an image in the page. A brain at 1 mm has 3.5 million; finer grids are made coarser."""


def viewer_data(scene: Scene, scheme: str) -> dict[str, Any]:
    """The volumes of a page's viewer and how to show them, as JSON can hold it.

    Returns:
        images: title and gzipped uint8 NIfTI in base64 of each modality there is, FLAIR first;
        labels: the same of the segmentation; colours: of its labels, as niivue takes them; centre:
        where to look first, world mm; spacing: mm of the voxels, as text.
    """
    target = _grid(scene)
    order = [i for i in (3, 1, 2, 0) if scene.images[i].any()] or [3]
    images = [
        {
            "title": TITLES[MODALITIES[i]],
            "data": _encode(_moved(scene.images[i], scene, target, order=1), target.affine),
        }
        for i in order
    ]
    labels = _moved(scene.labels.astype(np.uint8), scene, target, order=0)
    entries = [("", 0, "#000000")]
    entries += [(name, n, LABEL_COLOURS[name]) for name, n in scheme_labels(scheme).items()]
    entries.sort(key=lambda entry: entry[1])
    red, green, blue = zip(*(_rgb(colour) for _, _, colour in entries), strict=True)
    return {
        "images": images,
        "labels": _encode(labels, target.affine),
        "colours": {
            "R": red,
            "G": green,
            "B": blue,
            "A": [0] + [255] * (len(entries) - 1),
            "I": [number for _, number, _ in entries],
            "labels": [name for name, _, _ in entries],
        },
        "centre": [float(value) for value in scene.world(scene.centre)],
        "spacing": " x ".join(f"{size:.3g}" for size in target.spacing),
    }


def _grid(scene: Scene) -> Volume:
    """The scene's own grid, or one of larger voxels over the same field of view."""
    shape, spacing = np.array(scene.labels.shape), np.array(scene.spacing)
    size = spacing.copy()
    while math.prod(np.ceil(shape * spacing / size)) > MOST_VOXELS:
        # The finest axes first, so that thick slices stay as they are.
        size = np.maximum(size, size.min() * 1.05)
    steps = size / spacing
    affine = scene.affine.copy()
    affine[:3, :3] = affine[:3, :3] * steps
    affine[:3, 3] += scene.affine[:3, :3] @ ((steps - 1) / 2)
    new_shape = [int(length) for length in np.ceil(shape / steps)]
    return Volume(np.broadcast_to(np.uint8(0), new_shape), affine)


def _moved(values: NDArray[Any], scene: Scene, target: Volume, *, order: int) -> NDArray[Any]:
    if values.shape == target.data.shape:
        return values
    return resample(Volume(values, scene.affine), target, order).data


def _encode(values: NDArray[Any], affine: NDArray[np.float64]) -> str:
    image = nib.Nifti1Image(np.asarray(values, np.uint8), affine)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1, strip_shears=True)
    image.header.set_xyzt_units("mm")
    return base64.b64encode(gzip.compress(image.to_bytes(), 6, mtime=0)).decode("ascii")


def _rgb(colour: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(colour[1:])
    return red, green, blue
