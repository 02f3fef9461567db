# SPDX-License-Identifier: Apache-2.0
"""A synthetic case of `med-seg phantom`, cut to the lesion: four images of 60 x 60 x 60, 2 mm."""

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np

from fieldfare.medical.data.naming import MODALITIES

BASE = {name: Path(__file__).parent / "cases" / f"base_{name}.nii.gz" for name in MODALITIES}


def values_of(name: str) -> np.ndarray:
    """(60, 60, 60) in the type of the file, 0 outside the brain."""
    return np.asanyarray(nib.load(BASE[name]).dataobj)


def affine() -> np.ndarray:
    """Of all four."""
    return nib.load(BASE["t1"]).affine


def copy_case(folder: Path, **instead: Path) -> Path:
    """A folder of the four files as ID_t1 ... ID_flair, some of them others."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, path in {**BASE, **instead}.items():
        shutil.copyfile(path, folder / f"ID_{name}{path.name[path.name.index('.') :]}")
    return folder
