# SPDX-License-Identifier: Apache-2.0
"""Cases: which files hold the four modalities of a patient."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fieldfare.common.errors import InputError

from ..volumes.formats import ENDINGS, ending_of, files_of
from ..volumes.itk import is_series
from .naming import LABELS, MODALITIES, MODALITY_OF, NUMBERS, numbers_of, parse


@dataclass(frozen=True)
class Case:
    """The files of one patient's images.

    Attributes:
        name: of the patient or visit.
        files: the file, or folder of a DICOM series, of each modality that there is, by its name in
            MODALITIES.
        ignored: other volumes in the folder.
        channels: where all images are in one 4D file, the modalities in its order.
        notes: what a user should know of how they were found, a sentence each.
    """

    name: str
    files: dict[str, Path]
    ignored: tuple[Path, ...] = ()
    channels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

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
            raise InputError(f"no image given; name {options(MODALITIES)}")
        seen: dict[Path, str] = {}
        for name, path in files.items():
            first = seen.setdefault(path.resolve(), name)
            if first != name:
                raise InputError(f"{path}: given as both --{first} and --{name}; name two files")
        path = next(iter(files.values()))
        return cls(parse(path)[0] or path.absolute().parent.name, files)

    @classmethod
    def from_channels(cls, path: Path, channels: Sequence[str]) -> "Case":
        """A case whose images are the channels of one 4D file, as in the Medical Decathlon.

        Args:
            channels: what each is, by any of its names in `naming.NAMES`.

        Raises:
            InputError: no such file, a name that is no modality's, or one twice.
        """
        if not path.is_file():
            raise InputError(f"{path}: no such file; --channels needs the one 4D file of a case")
        names = tuple(MODALITY_OF.get(channel.strip().lower(), "") for channel in channels)
        if not all(names) or len(set(names)) < len(names):
            raise InputError(
                f"--channels {','.join(channels)}: name each channel once, in the file's order, "
                f"from {', '.join(MODALITIES)}"
            )
        stem = path.name[: len(path.name) - len(ending_of(path))]
        return cls(stem, dict.fromkeys(names, path), channels=names)

    @property
    def missing(self) -> tuple[str, ...]:
        """Modalities without file."""
        return tuple(name for name in MODALITIES if name not in self.files)

    @property
    def sources(self) -> list[Path]:
        """Every file that is read: of a pair both, of a DICOM series each slice."""
        parts = [part for path in self.files.values() for part in files_of(path)]
        return list(dict.fromkeys(parts))

    def describe(self) -> str:
        """What was found, in one line."""
        parts = [f"{name} {path.name}" for name, path in self.ordered()]
        if self.channels:
            parts = [f"{', '.join(self.channels)} in {next(iter(self.files.values())).name}"]
        if self.missing:
            parts.append(f"no {', no '.join(self.missing)}")
        if self.ignored:
            parts.append(f"ignored {_names(self.ignored)}")
        return f"{self.name}: {'; '.join(parts)}"

    def ordered(self) -> list[tuple[str, Path]]:
        """Modalities and files in the order of MODALITIES."""
        return [(name, self.files[name]) for name in MODALITIES if name in self.files]


def find_case(folder: Path) -> Case:
    """Find the modalities of a case by the ends of the names of files, or of folders of DICOM.

    All schemes of `naming` count, whatever the case of letters; what numbers mean is read from
    nnU-Net's dataset.json where there is one. Other volumes, such as labels, are
    ignored and listed. A folder that holds only `anat`, as in BIDS, stands for that.

    Raises:
        InputError: no folder, no modality in it, one twice, or files of more than one case.
    """
    volumes = _volumes(folder)
    if not volumes and (folder / "anat").is_dir():
        return find_case(folder / "anat")
    numbers = numbers_of(folder)
    found: dict[str, dict[int, list[Path]]] = {}
    ignored = []
    for path in volumes:
        _, modality, rank = parse(path, numbers or NUMBERS)
        if modality in MODALITIES:
            found.setdefault(modality, {}).setdefault(rank, []).append(path)
        else:
            ignored.append(path)
    if not found:
        raise InputError(
            f"{folder}: no file name ends in {', '.join(MODALITY_OF)}; found "
            f"{_names(volumes) or _other(folder)}; name the files by {options(MODALITIES)}"
        )
    # Of several treatments of one image the best is meant.
    best = {modality: ranks[min(ranks)] for modality, ranks in found.items()}
    chosen = {path for paths in best.values() for path in paths}
    ignored += [p for ranks in found.values() for ps in ranks.values() for p in ps]
    ignored = sorted(path for path in ignored if path not in chosen)
    # Two patients in a folder also give doubled modalities; that they are two says more.
    cases = sorted({parse(path)[0] for path in chosen})
    if len(cases) > 1:
        raise InputError(
            f"{folder}: holds images of {len(cases)} cases ({_listed(cases)}); put each into a "
            f"folder of its own or name the files by {options(MODALITIES)}"
        )
    for modality, paths in best.items():
        if len(paths) > 1:
            raise InputError(
                f"{folder}: {len(paths)} files of {modality}: {_names(paths)}; keep one or name "
                f"the files by {options(MODALITIES)}"
            )
    files = {name: best[name][0] for name in MODALITIES if name in best}
    return Case(
        cases[0] or folder.resolve().name,
        files,
        tuple(ignored),
        notes=() if numbers else _numbered(files),
    )


def find_labels(folder: Path) -> Path | None:
    """The label file of a case, ID_seg or ID-seg; None without one.

    Raises:
        InputError: no folder, or more than one such file.
    """
    found = [path for path in _volumes(folder) if parse(path)[1] == LABELS[0]]
    if len(found) > 1:
        raise InputError(f"{folder}: {len(found)} label files: {_names(found)}; keep one")
    return found[0] if found else None


def options(names: Iterable[str]) -> str:
    """For messages: --t1, --t2."""
    return ", ".join(f"--{name}" for name in names)


def _numbered(files: dict[str, Path]) -> tuple[str, ...]:
    """That numbers say little: data sets made for nnU-Net order channels as they like."""
    named = {name: number for number, name in NUMBERS.items()}
    told = [
        f"{named[modality]} as {modality}"
        for modality, path in files.items()
        if path.name[: len(path.name) - len(ending_of(path))].endswith(named[modality])
    ]
    if not told:
        return ()
    return (
        f"the files are only numbered: {', '.join(told)} was assumed, the order of nnU-Net's "
        f"BraTS; name them by {options(MODALITIES)} where it is another",
    )


def _volumes(folder: Path) -> list[Path]:
    """Files of images, and folders of a DICOM series that have the name of a modality."""
    if not folder.is_dir():
        what = "no such folder"
        if folder.exists():
            what = "is a file; give the folder that holds it, or --channels if it holds all images"
        raise InputError(f"{folder}: {what}")
    return [
        path
        for path in sorted(folder.iterdir())
        if not path.name.startswith(".")
        and (
            (path.is_file() and ending_of(path))
            or (path.is_dir() and parse(path)[1] in MODALITIES and is_series(path))
        )
    ]


def _names(paths: Iterable[Path]) -> str:
    return _listed([path.name for path in paths])


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _other(folder: Path) -> str:
    """What a folder without volumes holds, for the message."""
    folders = [path.name for path in sorted(folder.iterdir()) if path.is_dir()]
    return f"folders only ({_listed(folders)})" if folders else f"no {', '.join(ENDINGS)}"
