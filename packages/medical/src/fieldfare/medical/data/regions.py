# SPDX-License-Identifier: Apache-2.0
"""What labels mean: the schemes of the BraTS years, and the regions they are scored by.

Label 4 is enhancing tumour up to 2022 and resection cavity from 2024 on, so that the numbers in a
file cannot tell the scheme: it is always named, and kept in a JSON file beside the labels.

Regions (BraTS, Menze et al. 2015, doi 10.1109/TMI.2014.2377694): whole tumour WT holds necrosis,
oedema and enhancing tumour; tumour core TC necrosis and enhancing tumour; ET enhancing tumour. A
resection cavity belongs to none.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fieldfare.common.errors import InputError
from fieldfare.common.files import write_text

from ..volumes.formats import ENDINGS
from ..volumes.images import Volume, write_like

SCHEMES: dict[str, dict[int, str]] = {
    "brats2020": {1: "NCR", 2: "ED", 4: "ET"},
    "brats2023": {1: "NCR", 2: "ED", 3: "ET"},
    "brats2024": {1: "NETC", 2: "SNFH", 3: "ET", 4: "RC"},
}
"""Labels of each scheme: necrotic core, oedema, enhancing tumour, resection cavity; in 2024 the
first two are called non-enhancing tumour core and surrounding non-enhancing FLAIR hyperintensity.
brats2020 serves 2017 to 2022, brats2023 that year, brats2024 the post-treatment task from then on.
"""

REGIONS = ("WT", "TC", "ET")

_SAME = {"NETC": "NCR", "SNFH": "ED"}
_TISSUES = {"WT": ("NCR", "ED", "ET"), "TC": ("NCR", "ET"), "ET": ("ET",)}

Array = NDArray[Any]


def scheme_labels(scheme: str) -> dict[str, int]:
    """Label of each tissue by its common name: NCR, ED, ET, and RC where the scheme has it.

    Raises:
        InputError: no such scheme.
    """
    if scheme not in SCHEMES:
        raise InputError(f"label scheme {scheme}: unknown; choose {', '.join(SCHEMES)}")
    return {_SAME.get(name, name): label for label, name in SCHEMES[scheme].items()}


def region_labels(scheme: str) -> dict[str, tuple[int, ...]]:
    """The labels that make up each region: WT (1, 2, 4), TC (1, 4), ET (4) in brats2020."""
    labels = scheme_labels(scheme)
    return {region: tuple(labels[name] for name in _TISSUES[region]) for region in REGIONS}


def check_labels(labels: Array, scheme: str, source: str | Path = "labels") -> None:
    """Refuse labels outside a scheme; 0 is background in every one.

    Args:
        labels: integers of any shape.
        scheme: a key of SCHEMES.
        source: the file they come from, for the message.

    Raises:
        InputError: other labels (named, with the schemes that would know them), or no such scheme.
    """
    scheme_labels(scheme)
    found = _present(labels)
    strange = found - SCHEMES[scheme].keys()
    if not strange:
        return
    known = ", ".join(f"{label} {name}" for label, name in SCHEMES[scheme].items())
    fitting = [name for name, meanings in SCHEMES.items() if found <= meanings.keys()]
    advice = f"name the right scheme ({' or '.join(fitting)}?)" if fitting else "correct the labels"
    first = sorted(strange)
    shown = ", ".join(map(str, first[:5])) + (f" and {len(first) - 5} more" if first[5:] else "")
    raise InputError(f"{source}: holds {shown}, not in {scheme} ({known}); {advice}")


def _present(labels: Array) -> set[int]:
    """The labels other than 0."""
    if labels.dtype == np.uint8:
        values = np.flatnonzero(np.bincount(labels.ravel(), minlength=256))
    else:
        values = np.unique(labels)
    return {int(value) for value in values} - {0}


def to_regions(labels: Array, scheme: str, source: str | Path = "labels") -> NDArray[np.bool_]:
    """Labels as regions, which overlap: ET lies in TC, TC in WT.

    Args:
        labels: (X, Y, Z) integers.
        scheme: a key of SCHEMES.
        source: the file they come from, for the message.

    Returns:
        (3, X, Y, Z) bool: WT, TC, ET.

    Raises:
        InputError: what `check_labels` raises.
    """
    check_labels(labels, scheme, source)
    tissue = scheme_labels(scheme)
    enhancing = labels == tissue["ET"]
    core = enhancing | (labels == tissue["NCR"])
    return np.stack([core | (labels == tissue["ED"]), core, enhancing])


def to_labels(regions: Array, scheme: str) -> NDArray[np.uint8]:
    """Regions as labels, ET over TC over WT.

    Predicted regions need not be nested. The inner one wins: an ET voxel outside TC or WT becomes
    ET, and a TC voxel outside WT core, so that the outer regions grow and no inner one shrinks.

    Args:
        regions: (3, X, Y, Z), true where not 0: WT, TC, ET.
        scheme: a key of SCHEMES.

    Returns:
        (X, Y, Z) uint8.

    Raises:
        InputError: no such scheme.
        ValueError: not three regions.
    """
    if len(regions) != len(REGIONS):
        raise ValueError(f"{len(regions)} regions where WT, TC, ET are wanted")
    tissue = scheme_labels(scheme)
    whole, core, enhancing = (np.asarray(region, bool) for region in regions)
    labels = np.zeros(whole.shape, np.uint8)
    labels[whole] = tissue["ED"]
    labels[core] = tissue["NCR"]
    labels[enhancing] = tissue["ET"]
    return labels


def relabel(
    labels: Array, source_scheme: str, target_scheme: str, source: str | Path = "labels"
) -> NDArray[np.uint8]:
    """Convert labels from one scheme into another by what they mean.

    Args:
        labels: integers of any shape, in source_scheme.
        source: the file they come from, for the message.

    Returns:
        uint8 of the same shape, in target_scheme.

    Raises:
        InputError: labels outside source_scheme, no such scheme, or a tissue that target_scheme
            cannot express (resection cavity before brats2024).
    """
    check_labels(labels, source_scheme, source)
    old, new = scheme_labels(source_scheme), scheme_labels(target_scheme)
    found = _present(labels)
    table = np.zeros(256, np.uint8)
    for name, label in old.items():
        if name in new:
            table[label] = new[name]
        elif label in found:
            voxels = np.count_nonzero(labels == label)
            raise InputError(
                f"{source}: {voxels} voxels are {name} (label {label}), which {target_scheme} "
                f"cannot express; keep {source_scheme} or remove them first"
            )
    return table[labels]


def replace_small_et(labels: Array, scheme: str, voxels: int = 200) -> Array:
    """Turn all enhancing tumour into necrotic core where there is less of it than a threshold.

    A few false voxels in a case without enhancing tumour score as badly as a tumour missed. The
    count is of the whole image, in voxels of the BraTS grid (1 mm^3 each).

    Args:
        labels: (X, Y, Z) integers in scheme.
        voxels: below this many ET goes; ET of this many or more stays whole.

    Returns:
        Labels of the same type, a copy where anything changed.

    Source: nnU-Net for brain tumour segmentation, Isensee et al. 2020 (arXiv 2011.00848).
    """
    tissue = scheme_labels(scheme)
    enhancing = labels == tissue["ET"]
    if not 0 < np.count_nonzero(enhancing) < voxels:
        return labels
    return np.where(enhancing, np.asarray(tissue["NCR"], labels.dtype), labels)


def sidecar_path(segmentation: Path) -> Path:
    """The JSON file beside a label file: seg.json beside seg.nii.gz."""
    name = segmentation.name
    ending = next((e for e in ENDINGS if name.lower().endswith(e)), segmentation.suffix)
    return segmentation.with_name(f"{name[: len(name) - len(ending)]}.json")


def write_sidecar(segmentation: Path, scheme: str, /, **details: Any) -> Path:
    """Write what the labels of a file mean into the JSON file beside it.

    Args:
        segmentation: the label file, which need not exist yet.
        scheme: a key of SCHEMES.
        details: what else to record, as JSON can hold it: model, post-processing, notes.

    Returns:
        The path of the JSON file.

    Raises:
        InputError: no such scheme.
    """
    regions = {name: list(labels) for name, labels in region_labels(scheme).items()}
    meanings = {str(label): name for label, name in SCHEMES[scheme].items()}
    content = {"label_scheme": scheme, "labels": meanings, "regions": regions, **details}
    path = sidecar_path(segmentation)
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    return path


def write_labels(
    path: Path, labels: Array, reference: Volume, scheme: str, /, **details: Any
) -> list[Path]:
    """Write labels and the JSON file that says what they mean: both or neither.

    Args:
        path: see `write_like`.
        labels: (X, Y, Z) in scheme, on the grid of the reference.
        details: see `write_sidecar`.

    Returns:
        The paths of both.
    """
    write_like(path, labels, reference)
    try:
        return [path, write_sidecar(path, scheme, **details)]
    except BaseException:
        path.unlink()  # labels without their scheme are worse than none
        raise


def read_sidecar(segmentation: Path) -> dict[str, Any] | None:
    """What `write_sidecar` wrote; None without such a file or where it is of another kind.

    Raises:
        InputError: not JSON, or a scheme unknown here.
    """
    path = sidecar_path(segmentation)
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not readable as JSON ({error}); mend or remove it") from None
    if not isinstance(content, dict) or "label_scheme" not in content:
        return None
    if content["label_scheme"] not in SCHEMES:
        raise InputError(
            f"{path}: label scheme {content['label_scheme']} is unknown; "
            f"known are {', '.join(SCHEMES)}"
        )
    return content


def resolve_scheme(segmentation: Path, given: str | None, *, option: str = "--labels") -> str:
    """The scheme of a label file: as given, or else as its JSON file says.

    Args:
        option: by which the user gives it, for the message.

    Raises:
        InputError: neither says it, or the two contradict each other.
    """
    content = read_sidecar(segmentation)
    recorded: str | None = content["label_scheme"] if content else None
    if given and recorded and given != recorded:
        raise InputError(
            f"{segmentation}: {sidecar_path(segmentation).name} says {recorded}, not {given}; "
            f"give {option} {recorded} or correct that file"
        )
    scheme = given or recorded
    if scheme is None:
        raise InputError(
            f"{segmentation}: what its labels mean is not known; give {option} {'|'.join(SCHEMES)}"
        )
    return scheme
