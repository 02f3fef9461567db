# SPDX-License-Identifier: Apache-2.0
"""Writers of the less common formats of volumes; arguments as of `sample_volumes.write_nifti`."""

from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as itk
from sample_volumes import write_nrrd

from fieldfare.medical.volumes.itk import kept_locale


def itk_image(values: np.ndarray, affine: np.ndarray):
    turned = np.diag([-1, -1, 1, 1]) @ affine
    spacing = np.linalg.norm(turned[:3, :3], axis=0)
    image = itk.GetImageFromArray(np.ascontiguousarray(values.T))
    image.SetSpacing(spacing.tolist())
    image.SetDirection((turned[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(turned[:3, 3].tolist())
    return image


def write_itk(path: Path, values: np.ndarray, affine: np.ndarray, *, packed: bool = True) -> Path:
    itk.WriteImage(itk_image(values, affine), str(path), packed)
    return path


def write_mgh(path: Path, values: np.ndarray, affine: np.ndarray) -> Path:
    nib.save(nib.MGHImage(values, affine), path)
    return path


def write_pair(path: Path, values: np.ndarray, affine: np.ndarray) -> Path:
    nib.save(nib.Nifti1Pair(values, affine), path)
    return path


def write_detached(path: Path, values: np.ndarray, affine: np.ndarray) -> Path:
    write_nrrd(path, values, affine)
    return path


@kept_locale()
def write_series(folder: Path, values: np.ndarray, affine: np.ndarray, *, number: int = 1) -> Path:
    """A DICOM series as scanners write it: a file for each slice."""
    folder.mkdir(exist_ok=True)
    image = itk_image(values, affine)
    writer = itk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    turn = image.GetDirection()
    for index in range(image.GetDepth()):
        part = image[:, :, index]
        tags = {
            "0008|0060": "MR",
            "0008|103e": f"series {number}",
            "0020|000d": "1.2.3",
            "0020|000e": f"1.2.3.{number}",
            "0008|0018": f"1.2.3.{number}.{index}",
            "0020|0013": str(index),
            "0020|0032": "\\".join(map(str, image.TransformIndexToPhysicalPoint((0, 0, index)))),
            "0020|0037": "\\".join(str(turn[i]) for i in (0, 3, 6, 1, 4, 7)),
        }
        for key, value in tags.items():
            part.SetMetaData(key, value)
        writer.SetFileName(str(folder / f"{number}_{index:03d}.dcm"))
        writer.Execute(part)
    return folder
