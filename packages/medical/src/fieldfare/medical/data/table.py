# SPDX-License-Identifier: Apache-2.0
"""The table of labelled cases: reading it, folds, and that no patient lies in two splits."""

import csv
import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fieldfare.common.errors import InputError

from .cases import Case, find_case, find_labels
from .naming import MODALITIES
from .regions import read_sidecar, resolve_scheme, sidecar_path

SPLITS = ("train", "val", "test")
COLUMNS = "case,split,patient"


@dataclass(frozen=True)
class LabelledCase:
    """One row of the table.

    Attributes:
        images: the files of the modalities.
        labels: the label file.
        scheme: what its labels mean, a key of `regions.SCHEMES`.
        split: one of `SPLITS`.
        patient: cases of one patient lie in one split.
    """

    images: Case
    labels: Path
    scheme: str
    split: str
    patient: str

    @property
    def identity(self) -> list[str | int]:
        """What tells it from another case, for comparing runs."""
        files = [*self.images.files.values(), self.labels]
        sizes = [path.stat().st_size for path in files]
        return [self.images.name, self.patient, self.split, self.scheme, *sizes]


def read_table(
    table: Path,
    *,
    scheme: str | None = None,
    fold: tuple[int, int] | None = None,
    modalities: Collection[str] = MODALITIES,
    allow_missing: bool = False,
) -> list[LabelledCase]:
    """Read a CSV of cases: the folder `case`, relative to the table, `split` and `patient`.

    Args:
        scheme: what the labels mean; None asks the JSON file beside each label file.
        fold: (k, n): the k-th of n parts of the patients, counted from 1, is for validation and
            the others for training; the column split is then only asked which cases are for test,
            which stay so. Patients are shuffled the same way every time.
        modalities: those that the network takes; files of others are left out.
        allow_missing: whether a case may lack some of them.

    Returns:
        The cases in the order of the table. `patient` is the name of the case where it is empty.

    Raises:
        InputError: an unreadable table or row, a case in it twice, without labels, with a result of
            med-seg as its labels, or without a modality; a patient in two splits; a fold that
            there is not.
    """
    rows = _rows(table, needs_split=fold is None)
    found: list[LabelledCase] = []
    lines: dict[Path, int] = {}
    for number, row in enumerate(rows, start=2):
        where = f"{table}, line {number}"
        case = _labelled_case(
            where, table.parent, row, scheme, modalities, allow_missing, folds=fold is not None
        )
        folder = case.labels.parent.resolve()
        first = lines.setdefault(folder, number)
        if first != number:
            raise InputError(f"{where}: the case of line {first} again; keep one of them")
        found.append(case)
    check_patients(found)
    return found if fold is None else _with_fold(found, *fold)


def _rows(table: Path, *, needs_split: bool) -> list[dict[str, str]]:
    if not table.is_file():
        raise InputError(f"{table}: no such file; give a CSV with the columns {COLUMNS}")
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table}: not a CSV in UTF-8 ({error})") from None
    needed = {"case", "split"} if needs_split else {"case"}
    if not rows or not needed <= set(rows[0]):
        raise InputError(f"{table}: needs a header and rows with the columns {COLUMNS}")
    return rows


def _labelled_case(
    where: str,
    base: Path,
    row: dict[str, str],
    scheme: str | None,
    modalities: Collection[str],
    allow_missing: bool,
    *,
    folds: bool,
) -> LabelledCase:
    name, split = (row["case"] or "").strip(), (row.get("split") or "").strip()
    if not name:
        raise InputError(f"{where}: case is empty; name a folder")
    if folds and split != "test":
        split = "train"
    if split not in SPLITS:
        raise InputError(f"{where}: split {split!r} must be one of {', '.join(SPLITS)}")
    folder = base / name
    case = find_case(folder)
    case = dataclasses.replace(
        case, files={m: path for m, path in case.files.items() if m in modalities}
    )
    missing = [modality for modality in modalities if modality not in case.files]
    if not case.files or (missing and not allow_missing):
        raise InputError(
            f"{folder}: no {', no '.join(missing)}; complete the case, take it out of the table or "
            "train with --modality-dropout"
        )
    labels = _truth(folder)
    return LabelledCase(
        images=case,
        labels=labels,
        scheme=resolve_scheme(labels, scheme),
        split=split,
        patient=(row.get("patient") or "").strip() or case.name,
    )


def _truth(folder: Path) -> Path:
    """The label file of a case, which must not be what a network found."""
    labels = find_labels(folder)
    if labels is None:
        raise InputError(
            f"{folder}: no labels; add a file that ends in _seg or -seg, or take the case out of "
            "the table"
        )
    model = (read_sidecar(labels) or {}).get("model")
    if model:
        raise InputError(
            f"{labels}: is a result of med-seg ({sidecar_path(labels).name} names the model "
            f"{_short(model)}), not truth; give labels made by people, or delete the JSON file if "
            "someone has corrected them"
        )
    return labels


def _short(model: object) -> str:
    name = model.get("name", "unnamed") if isinstance(model, dict) else model
    return str(name)


def check_patients(found: Sequence[LabelledCase]) -> None:
    """Refuse a patient in two splits: scores on a patient seen in training mean nothing.

    Raises:
        InputError: two cases of one patient lie in different splits.
    """
    first: dict[str, LabelledCase] = {}
    for case in found:
        other = first.setdefault(case.patient, case)
        if other.split != case.split:
            raise InputError(
                f"{other.images.name} ({other.split}) and {case.images.name} ({case.split}): "
                f"patient {case.patient} is in two splits; keep a patient in one"
            )


def _with_fold(found: Sequence[LabelledCase], k: int, n: int) -> list[LabelledCase]:
    patients = sorted({case.patient for case in found if case.split != "test"})
    if not 2 <= n <= len(patients) or not 1 <= k <= n:
        raise InputError(
            f"--fold {k}/{n}: give k/n with k from 1 to n and n from 2 to the number of patients "
            f"that are not for test, {len(patients)}"
        )
    order = np.random.default_rng(0).permutation(len(patients))
    held_out = {patients[index] for index in order[k - 1 :: n]}
    return [
        dataclasses.replace(case, split="val") if case.patient in held_out else case
        for case in found
    ]


def parse_fold(text: str | None) -> tuple[int, int] | None:
    """`2/5` as (2, 5); None as it is.

    Raises:
        InputError: anything else.
    """
    if text is None:
        return None
    k, slash, n = text.partition("/")
    if not (slash and k.isdecimal() and n.isdecimal()):
        raise InputError(f"--fold {text}: give k/n, for example 1/5")
    return int(k), int(n)
