# SPDX-License-Identifier: Apache-2.0
"""Cases of four random heads with one brain, in memory and as folders."""

from pathlib import Path

import nibabel as nib
import numpy as np
from sample_volumes import head

from fieldfare.medical.training.knowledge import Case


def case_of(seed: int) -> Case:
    """Four random heads with one brain; the labels are a part of it."""
    images = np.stack([head(seed * 4 + number) for number in range(4)]).astype(np.float32)
    labels = np.where((images != 0).any(axis=0), 2, 0).astype(np.uint8)
    labels[: len(labels) // 2] = 0
    return Case(images, labels, np.diag([-1.0, -1, 1, 1]), "brats2023")


def written(folder: Path, images: np.ndarray) -> Path:
    """A case folder of these images."""
    folder.mkdir()
    for name, values in zip(("t1", "t1ce", "t2", "flair"), images, strict=True):
        image = nib.Nifti1Image(values.astype(np.float32), case_of(0).affine)
        nib.save(image, folder / f"P_{name}.nii.gz")
    return folder
