# SPDX-License-Identifier: Apache-2.0
"""Cases: which files hold the four modalities of a patient, and their images on one grid."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fieldfare.common.errors import InputError

from ..volumes.formats import ENDINGS
from ..volumes.images import Volume, geometry_differences, read_volume, resample, suspicious_header

MODALITIES = ("t1", "t1ce", "t2", "flair")
"""T1, T1 with contrast agent, T2 and T2-FLAIR: the order of channels everywhere."""

# How file names end: as up to BraTS 2022 (ID_t1ce) and from 2023 on (ID-t1c).
_SUFFIXES = {
    "t1": ("t1", "t1n"),
    "t1ce": ("t1ce", "t1c"),
    "t2": ("t2", "t2w"),
    "flair": ("flair", "t2f"),
}
_MODALITY_OF = {suffix: name for name, suffixes in _SUFFIXES.items() for suffix in suffixes}
_ENDING = re.compile(r"(?P<case>.*?)(?:^|[-_.])(?P<suffix>[a-z0-9]+)", re.IGNORECASE | re.DOTALL)

WITH_SKULL = 0.6
"""Share of voxels other than 0 above which an image holds more than a stripped brain (which fills
14 to 18 % of BraTS' grid; images with skull and air 90 % and more)."""

REFERENCES = ("t1ce", "t1", "t2", "flair")


@dataclass(frozen=True)
class Case:
    """The files of one patient's images.

    Attributes:
        name: of the patient or visit.
        files: the file of each modality that there is, by its name in MODALITIES.
        ignored: other volumes in the folder.
    """

    name: str
    files: dict[str, Path]
    ignored: tuple[Path, ...] = ()

    @classmethod
    def from_files(
        cls,
        *,
        t1: Path | None = None,
        t1ce: Path | None = None,
        t2: Path | None = None,
        flair: Path | None = None,
    ) -> "Case":
        """A case of files named one by one.

        Raises:
            InputError: no file at all, or the same one twice.
        """
        given = zip(MODALITIES, (t1, t1ce, t2, flair), strict=True)
        files = {name: path for name, path in given if path is not None}
        if not files:
            raise InputError(f"no image given; name {_options(MODALITIES)}")
        seen: dict[Path, str] = {}
        for name, path in files.items():
            first = seen.setdefault(path.resolve(), name)
            if first != name:
                raise InputError(f"{path}: given as both --{first} and --{name}; name two files")
        path = next(iter(files.values()))
        return cls(_split(path)[0] or path.absolute().parent.name, files)

    @property
    def missing(self) -> tuple[str, ...]:
        """Modalities without file."""
        return tuple(name for name in MODALITIES if name not in self.files)

    def describe(self) -> str:
        """What was found, in one line."""
        parts = [f"{name} {path.name}" for name, path in _ordered(self.files)]
        if self.missing:
            parts.append(f"no {', no '.join(self.missing)}")
        if self.ignored:
            parts.append(f"ignored {_names(self.ignored)}")
        return f"{self.name}: {'; '.join(parts)}"


class LoadedCase(NamedTuple):
    """Images of a case on one grid.

    Attributes:
        images: (4, X, Y, Z) float32 in the order of MODALITIES, in the files' own units; zeros
            for a missing modality.
        present: (4,) bool, which modalities there are.
        reference: the volume whose grid the images have, for writing results.
        notes: what a user should know, a sentence each.
    """

    images: NDArray[np.float32]
    present: NDArray[np.bool_]
    reference: Volume
    notes: list[str]


def find_case(folder: Path) -> Case:
    """Find the modalities of a case by the ends of file names.

    Both schemes of BraTS count, whatever the case of letters: ID_t1, ID_t1ce, ID_t2, ID_flair and
    ID-t1n, ID-t1c, ID-t2w, ID-t2f, in .nii.gz, .nii or .nrrd. Other volumes, such as labels, are
    ignored and listed.

    Raises:
        InputError: no folder, no modality in it, one twice, or files of more than one case.
    """
    volumes = _volumes(folder)
    found: dict[str, list[Path]] = {}
    ignored = []
    for path in volumes:
        modality = _MODALITY_OF.get(_split(path)[1])
        if modality:
            found.setdefault(modality, []).append(path)
        else:
            ignored.append(path)
    if not found:
        raise InputError(
            f"{folder}: no file name ends in {', '.join(_MODALITY_OF)}; found "
            f"{_names(volumes) or _other(folder)}; name the files by {_options(MODALITIES)}"
        )
    # Two patients in a folder also give doubled modalities; that they are two says more.
    cases = sorted({_split(path)[0] for paths in found.values() for path in paths})
    if len(cases) > 1:
        raise InputError(
            f"{folder}: holds images of {len(cases)} cases ({_listed(cases)}); put each into a "
            f"folder of its own or name the files by {_options(MODALITIES)}"
        )
    for modality, paths in found.items():
        if len(paths) > 1:
            raise InputError(
                f"{folder}: {len(paths)} files of {modality}: {_names(paths)}; keep one or name "
                f"the files by {_options(MODALITIES)}"
            )
    files = {name: found[name][0] for name in MODALITIES if name in found}
    return Case(cases[0] or folder.resolve().name, files, tuple(ignored))


def find_labels(folder: Path) -> Path | None:
    """The label file of a case, ID_seg or ID-seg; None without one.

    Raises:
        InputError: no folder, or more than one such file.
    """
    found = [path for path in _volumes(folder) if _split(path)[1] == "seg"]
    if len(found) > 1:
        raise InputError(f"{folder}: {len(found)} label files: {_names(found)}; keep one")
    return found[0] if found else None


def load(case: Case, *, resample_to: str | None = None, allow_missing: bool = False) -> LoadedCase:
    """Read the images of a case and check that they lie on one grid.

    Args:
        resample_to: the modality whose grid the others are put on, linearly, where theirs differs;
            None refuses differing grids.
        allow_missing: whether missing modalities may become zeros.

    Returns:
        The images. Their grid is that of `resample_to`, or else t1ce, t1, t2 or flair, whichever
        there is first.

    Raises:
        InputError: a missing modality, a file that `read_volume` refuses, grids that differ, or
            images that do not overlap.
    """
    if case.missing and not allow_missing:
        wanted = ", ".join(f"{name} ({' or '.join(_SUFFIXES[name])})" for name in case.missing)
        raise InputError(
            f"{case.name}: {wanted} missing; found {_found(case)}; give the files by "
            f"{_options(case.missing)} or add --allow-missing"
        )
    if resample_to is not None and resample_to not in case.files:
        raise InputError(f"--resample-to {resample_to}: {case.name} has only {_found(case)}")
    chosen = resample_to or next(name for name in REFERENCES if name in case.files)
    volumes = {name: read_volume(path) for name, path in _ordered(case.files)}
    reference = volumes[chosen]
    notes = _header_notes(volumes)
    differing = {
        name: f"{name} differs from {chosen}: {'; '.join(differences)}"
        for name, volume in volumes.items()
        if (differences := geometry_differences(volume, reference))
    }
    if differing and resample_to is None:
        raise InputError(
            f"{case.name}: the images are not on one grid ({' | '.join(differing.values())}); "
            f"register them or add --resample-to {chosen}"
        )
    images = np.zeros((len(MODALITIES), *reference.data.shape), np.float32)
    unstripped = []
    for name in list(volumes):
        values = volumes[name].data
        if np.count_nonzero(values) > WITH_SKULL * values.size:
            unstripped.append(name)
        if name in differing:
            values = resample(volumes[name], reference).data
            if not values.any():
                raise InputError(f"{case.files[name]}: does not overlap ({differing[name]})")
            notes.append(f"{differing[name]}; it was resampled linearly")
        images[MODALITIES.index(name)] = values
        del volumes[name]  # so that a case is hardly ever held twice
    for name in case.missing:
        notes.append(f"{name} is missing: zeros stand in for it and the result is less certain")
    if unstripped:
        notes.append(
            f"{', '.join(unstripped)}: over {WITH_SKULL:.0%} of the voxels are not 0, so that the "
            "skull was probably not stripped; the networks know stripped brains only"
        )
    present = np.array([name in case.files for name in MODALITIES])
    return LoadedCase(images, present, reference, notes)


def brain_mask(images: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Where any modality is not 0, (X, Y, Z), for images (4, X, Y, Z) as `load` gives them.

    Not where it is over 0: resampling leaves small negative values inside stripped brains.
    """
    inside: NDArray[np.bool_] = (images != 0).any(axis=0)
    return inside


def normalise(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Give each modality mean 0 and standard deviation 1 over its voxels other than 0.

    Args:
        images: (4, X, Y, Z) in any unit, 0 outside the brain.

    Returns:
        (4, X, Y, Z) float32; voxels of 0 stay 0, and so does a missing modality.

    Source: nnU-Net, Isensee et al. 2021 (doi 10.1038/s41592-020-01008-z), z-score in the mask.
    """
    result = np.zeros(images.shape, np.float32)
    for image, normal in zip(images, result, strict=True):
        inside = image != 0
        values = image[inside]
        if values.size and (deviation := values.std(dtype=np.float64)) > 0:
            normal[inside] = (values - values.mean(dtype=np.float64)) / deviation
    return result


def _header_notes(volumes: dict[str, Volume]) -> list[str]:
    """Suspicious headers, images with the same suspicion together."""
    told: dict[str, list[str]] = {}
    for name, volume in volumes.items():
        if suspicion := suspicious_header(volume):
            told.setdefault(suspicion, []).append(name)
    return [f"{', '.join(names)}: {suspicion}" for suspicion, names in told.items()]


def _volumes(folder: Path) -> list[Path]:
    if not folder.is_dir():
        what = "is a file; give the folder that holds it" if folder.exists() else "no such folder"
        raise InputError(f"{folder}: {what}")
    return [
        path
        for path in sorted(folder.iterdir())
        if path.name.lower().endswith(ENDINGS) and not path.name.startswith(".") and path.is_file()
    ]


def _split(path: Path) -> tuple[str, str]:
    """Case and last part of a file name: `ID-t1c.nii.gz` gives ID and t1c."""
    stem = path.name
    for ending in ENDINGS:
        if stem.lower().endswith(ending):
            stem = stem[: -len(ending)]
    match = _ENDING.fullmatch(stem)
    return (match["case"], match["suffix"].lower()) if match else (stem, "")


def _ordered(files: dict[str, Path]) -> list[tuple[str, Path]]:
    return [(name, files[name]) for name in MODALITIES if name in files]


def _found(case: Case) -> str:
    return ", ".join(f"{name} ({path.name})" for name, path in _ordered(case.files))


def _options(names: Iterable[str]) -> str:
    return ", ".join(f"--{name}" for name in names)


def _names(paths: Iterable[Path]) -> str:
    return _listed([path.name for path in paths])


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _other(folder: Path) -> str:
    """What a folder without volumes holds, for the message."""
    folders = [path.name for path in sorted(folder.iterdir()) if path.is_dir()]
    return f"folders only ({_listed(folders)})" if folders else f"no {', '.join(ENDINGS)}"
