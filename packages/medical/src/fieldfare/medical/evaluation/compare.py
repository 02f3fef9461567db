# SPDX-License-Identifier: Apache-2.0
"""Compare segmentations with the truth: one case, many cases, raters with a consensus; reports."""

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fieldfare.common.errors import InputError
from fieldfare.common.files import atomic_path, write_text

from ..data.regions import REGIONS, to_regions
from ..volumes.formats import ENDINGS, ending_of
from ..volumes.images import geometry_differences, read_labels, turn_like
from .lesions import LESION_DEFINITIONS, LesionDefinition, score_lesions
from .metrics import DEFINITIONS, EmptyPolicy, HausdorffDefinition, dice, score

MEASURES = ("dice", "hd95_mm", "nsd", "lesion_dice", "lesion_hd95_mm", "lesion_nsd", "lesion_f1")

Row = dict[str, Any]


@dataclass(frozen=True)
class Rules:
    """How masks are compared; every report says it. The fields are those of `score_lesions`."""

    hd: HausdorffDefinition = "max"
    empty: EmptyPolicy = EmptyPolicy.NAN
    tolerance_mm: float = 1.0
    lesions: LesionDefinition = "brats2023"
    dilation: int = 3
    least_mm3: float = 50.0

    def definitions(self) -> dict[str, str]:
        """One line for each measure as these rules define it."""
        chosen = ("dice", f"hd95:{self.hd}", "nsd", f"empty:{EmptyPolicy(self.empty)}")
        lines = {name: DEFINITIONS[name] for name in chosen}
        lesions = f"lesions:{self.lesions}"
        return {**lines, lesions: LESION_DEFINITIONS[lesions]}


def evaluate_regions(
    predicted: NDArray[np.bool_],
    truth: NDArray[np.bool_],
    spacing: Sequence[float],
    rules: Rules = Rules(),
    *,
    case: str = "",
) -> list[Row]:
    """Compare the regions of one case.

    Args:
        predicted: (3, X, Y, Z) bool, in the order of `REGIONS`.
        truth: the same shape.
        spacing: size of a voxel along each axis, mm.
        case: name of the case, for the table.

    Returns:
        A row for each region: Dice and NSD in 0 .. 1, HD95 in mm, the same lesion by lesion, true
        lesions found and missed, false lesions, volumes in ml. NaN where the rules give no value.

    Raises:
        ValueError: shapes that differ or are not (3, X, Y, Z), or a bad spacing.
    """
    if predicted.shape != truth.shape or predicted.ndim != 4 or len(predicted) != len(REGIONS):
        raise ValueError(f"regions of shapes {predicted.shape} and {truth.shape}, not (3, X, Y, Z)")
    common: dict[str, Any] = {
        "hd": rules.hd,
        "tolerance_mm": rules.tolerance_mm,
        "empty": rules.empty,
    }
    millilitres = float(np.prod([float(size) for size in spacing])) / 1000
    rows = []
    for region, ours, theirs in zip(REGIONS, predicted, truth, strict=True):
        whole = score(ours, theirs, spacing, **common)
        lesions = score_lesions(
            ours,
            theirs,
            spacing,
            definition=rules.lesions,
            dilation=rules.dilation,
            least_mm3=rules.least_mm3,
            **common,
        )
        row: Row = {"case": case, "region": region, **whole._asdict()}
        row |= {f"lesion_{name}": value for name, value in lesions.mean._asdict().items()}
        row |= {
            "lesion_f1": lesions.f1,
            "lesions_found": lesions.found,
            "lesions_missed": lesions.missed,
            "lesions_false": lesions.false_positives,
            "predicted_ml": np.count_nonzero(ours) * millilitres,
            "truth_ml": np.count_nonzero(theirs) * millilitres,
        }
        rows.append(row)
    return rows


def evaluate_case(
    predicted: Path,
    truth: Path,
    scheme: str,
    rules: Rules = Rules(),
    *,
    case: str = "",
    truth_scheme: str | None = None,
) -> list[Row]:
    """Compare a label file with the true one.

    Args:
        predicted: labels in `scheme`, NIfTI or NRRD.
        truth: labels on the same grid; their axes may run otherwise.
        scheme: what the labels mean: brats2020, brats2023 or brats2024.
        case: name for the table; the truth's own where empty.
        truth_scheme: what the labels of `truth` mean, where it is something else.

    Returns:
        The rows WT, TC, ET of `evaluate_regions`.

    Raises:
        InputError: a file that cannot be read or holds labels outside the scheme, or grids that
            differ; the differences are named.
    """
    ours, theirs, spacing = _read_pair(predicted, truth, scheme, truth_scheme or scheme)
    return evaluate_regions(ours, theirs, spacing, rules, case=case or case_name(truth))


def evaluate_folder(
    pairs: Iterable[tuple[Path, Path]], scheme: str, rules: Rules = Rules()
) -> list[Row]:
    """Compare many pairs of predicted and true label files, as `evaluate_case` does one."""
    return [
        row for predicted, truth in pairs for row in evaluate_case(predicted, truth, scheme, rules)
    ]


def agreement(
    raters: Sequence[Path],
    consensus: Path,
    scheme: str,
    *,
    empty: EmptyPolicy = EmptyPolicy.NAN,
) -> list[Row]:
    """Dice of several raters with one consensus: what a model can be measured against.

    A consensus that the raters themselves voted on flatters them: the number is an upper bound.

    Args:
        raters: label files in `scheme` on the grid of the consensus.
        consensus: labels in `scheme`.
        empty: the Dice where rater and consensus both have none of a region: NaN or 1.

    Returns:
        A row for each rater with its Dice of each region, then their mean, NaN left out.

    Raises:
        InputError: no rater, or what `evaluate_case` raises.
    """
    if not raters:
        raise InputError(f"{consensus}: there are no raters to compare with it; name at least one")
    rows: list[Row] = []
    for rater in raters:
        ours, theirs, _ = _read_pair(rater, consensus, scheme, scheme)
        values = [dice(a, b, empty=empty) for a, b in zip(ours, theirs, strict=True)]
        rows.append({"rater": case_name(rater), **dict(zip(REGIONS, values, strict=True))})
    means = {region: _mean([row[region] for row in rows]) for region in REGIONS}
    return [*rows, {"rater": "mean", **means}]


def summarise(rows: Sequence[Row]) -> list[Row]:
    """Mean and median over the cases for each region, NaN left out.

    A missed region has no HD95 under the NaN policy and so does not worsen its mean: beside the
    number of `cases`, `dice_cases` and `hd95_cases` say how many have the measure at all.
    """
    summary: list[Row] = []
    for name, reduce in (("mean", _mean), ("median", _median)):
        for region in REGIONS:
            chosen = [row for row in rows if row["region"] == region]
            line: Row = {"case": name, "region": region}
            line |= {key: reduce([row[key] for row in chosen]) for key in MEASURES}
            line["cases"] = len(chosen)
            line["dice_cases"] = sum(math.isfinite(row["dice"]) for row in chosen)
            line["hd95_cases"] = sum(math.isfinite(row["hd95_mm"]) for row in chosen)
            summary.append(line)
    return summary


def pair_files(
    predicted: Path, truth: Path, *, skip_missing: bool = False
) -> list[tuple[Path, Path]]:
    """Pairs of label files to compare: two files, or two folders with the same cases.

    A case is known by its file's name without `_seg` or `-seg`. In a folder of folders, as BraTS
    comes, only files with that ending count.

    Args:
        skip_missing: leave out cases without partner, as `unpaired` lists them.

    Raises:
        InputError: a folder without label files, a case twice, a case without its partner, or no
            pair at all.
    """
    if not predicted.is_dir() and not truth.is_dir():
        return [(predicted, truth)]
    ours, theirs = _both(predicted, truth)
    pairs = [(path, theirs[name]) for name, path in ours.items() if name in theirs]
    lonely = unpaired(predicted, truth)
    if lonely and not (skip_missing and pairs):
        name = case_name(lonely[0])
        other = predicted if name in theirs else truth
        raise InputError(
            f"{lonely[0]}: {other} holds no labels of case {name} to compare with; complete it or "
            "add --skip-missing"
        )
    return pairs


def unpaired(predicted: Path, truth: Path) -> list[Path]:
    """Label files of one folder whose case the other lacks; errors as of `pair_files`."""
    if not predicted.is_dir() and not truth.is_dir():
        return []
    ours, theirs = _both(predicted, truth)
    lonely = [path for name, path in ours.items() if name not in theirs]
    return lonely + [path for name, path in theirs.items() if name not in ours]


def _both(predicted: Path, truth: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    for folder in (predicted, truth):
        if not folder.is_dir():
            raise InputError(f"{folder}: is no folder; give two files or two folders")
    return _label_files(predicted), _label_files(truth)


def case_name(path: Path) -> str:
    """Name of the case that a label file is of: `X/ID_seg.nii.gz` and `ID-seg.nii` give `ID`."""
    name = path.name[: len(path.name) - len(ending_of(path))]
    return name.removesuffix("_seg").removesuffix("-seg") or path.parent.name


def _label_files(folder: Path) -> dict[str, Path]:
    files = [path for path in sorted(folder.iterdir()) if ending_of(path)]
    marked = [f"{mark}seg{ending}" for mark in ("_", "-") for ending in ENDINGS]
    files += [path for path in sorted(folder.glob("*/*")) if path.name.endswith(tuple(marked))]
    if not files:
        raise InputError(f"{folder}: holds no {', '.join(ENDINGS)} of labels")
    found: dict[str, Path] = {}
    for path in files:
        name = case_name(path)
        if name in found:
            raise InputError(f"{path}: {found[name]} is of the same case {name}; keep one of them")
        found[name] = path
    return found


def _read_pair(
    predicted: Path, truth: Path, scheme: str, truth_scheme: str
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], Sequence[float]]:
    """The regions of both files, (3, X, Y, Z) each, and the spacing they share."""
    theirs = read_labels(truth)
    ours = turn_like(read_labels(predicted), theirs)
    differences = geometry_differences(ours, theirs)
    if differences:
        raise InputError(
            f"{predicted}: its grid is not that of {truth} ({'; '.join(differences)}); "
            "compare files on one grid"
        )
    regions = [
        to_regions(volume.data, meaning, source=path)
        for volume, meaning, path in ((ours, scheme, predicted), (theirs, truth_scheme, truth))
    ]
    return regions[0], regions[1], theirs.spacing


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan


def _median(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return float(np.median(known)) if known else math.nan


def write_reports(
    folder: Path,
    rows: Sequence[Row],
    rules: Rules = Rules(),
    *,
    settings: Mapping[str, Any] | None = None,
) -> dict[str, Path]:
    """Write evaluation.csv, evaluation.json and boxplot.png into a folder, made where missing.

    Args:
        rows: of `evaluate_regions`, one or many cases. The files hold the summary as well.
        settings: what else to record, as the label scheme and the model.

    Returns:
        The three paths by kind: csv, json, png.

    Raises:
        InputError: no rows, or a folder that is a file.
    """
    if not rows:
        raise InputError(f"{folder}: there are no cases to report")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; name a folder for the reports")
    folder.mkdir(parents=True, exist_ok=True)
    summary = summarise(rows)
    names = {"csv": "evaluation.csv", "json": "evaluation.json", "png": "boxplot.png"}
    paths = {kind: folder / name for kind, name in names.items()}
    with (
        atomic_path(paths["csv"]) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as table,
    ):
        columns = list(rows[0]) + [key for key in summary[0] if key not in rows[0]]
        writer = csv.DictWriter(table, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows([*rows, *summary])
    report = {
        "definitions": rules.definitions(),
        "settings": {**asdict(rules), **(settings or {})},
        "cases": [_finite(row) for row in rows],
        "summary": [_finite(row) for row in summary],
    }
    write_text(paths["json"], json.dumps(report, indent=1, allow_nan=False) + "\n")
    draw_boxplot(paths["png"], rows, rules)
    return paths


def draw_boxplot(path: Path, rows: Sequence[Row], rules: Rules = Rules()) -> None:
    """Draw Dice, lesion-wise Dice, NSD and HD95 of the regions over the cases as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    titles = {
        "dice": "Dice",
        "lesion_dice": f"Dice by lesion ({rules.lesions})",
        "nsd": f"NSD at {rules.tolerance_mm:g} mm",
        "hd95_mm": f"HD95 in mm ({rules.hd})",
    }
    colours = ("#0072b2", "#c29a00", "#d55e00")  # blue, yellow, red of the report, darker
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (key, title) in zip(figure.subplots(1, len(titles)), titles.items(), strict=True):
        values = [
            [r[key] for r in rows if r["region"] == region and math.isfinite(r[key])]
            for region in REGIONS
        ]
        axes.boxplot(values, widths=0.5, showfliers=False, medianprops={"color": "black"})
        for place, (points, colour) in enumerate(zip(values, colours, strict=True), start=1):
            # Every case is shown: a box of few cases says little.
            axes.plot([place] * len(points), points, "o", markersize=4, alpha=0.6, color=colour)
        axes.set_xticks(range(1, len(REGIONS) + 1))
        axes.set_xticklabels(
            [f"{name}\nn = {len(points)}" for name, points in zip(REGIONS, values, strict=True)]
        )
        axes.set_title(title, fontsize=10)
        if key != "hd95_mm":
            axes.set_ylim(-0.02, 1.02)
        else:
            axes.set_ylim(bottom=0)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120, metadata={"Software": None})


def _finite(row: Row) -> Row:
    """JSON knows no NaN: it becomes null."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in row.items()
    }
