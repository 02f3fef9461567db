# SPDX-License-Identifier: Apache-2.0
"""med-seg eval and relabel."""

from pathlib import Path
from typing import Any

from fieldfare.common import console, files
from fieldfare.common.errors import InputError
from fieldfare.common.progress import Progress

from ..data.regions import (
    read_sidecar,
    relabel,
    resolve_scheme,
    sidecar_path,
    write_sidecar,
)
from ..evaluation import compare as evaluation
from ..evaluation.metrics import EmptyPolicy
from ..volumes.formats import ENDINGS
from ..volumes.images import read_labels, write_like

SHOWN = (
    *("case", "region", "dice", "hd95_mm", "nsd", "lesion_dice", "lesion_hd95_mm", "lesion_f1"),
    *("predicted_ml", "truth_ml"),
)


def evaluate(predicted: Path, truth: Path, options: dict[str, Any]) -> None:
    """Print a row for each case and region and their mean; write the reports where asked."""
    rules = evaluation.Rules(
        hd=options["hd"],
        empty=EmptyPolicy(options["empty"]),
        tolerance_mm=options["tolerance"],
        lesions=options["lesions"],
        dilation=options["dilation"],
        least_mm3=options["least"],
    )
    output = options["output"]
    if output is not None and output.exists() and not output.is_dir():
        raise InputError(f"{output}: is a file; name a folder for the reports")
    for path in (predicted, truth):
        if not path.exists():
            raise InputError(f"{path}: no such file or folder")
    pairs = evaluation.pair_files(predicted, truth)
    # All before the first case, so that a long run does not end at its last for want of a scheme.
    schemes = [_schemes(ours, theirs, options) for ours, theirs in pairs]
    rows: list[evaluation.Row] = []
    with Progress("compare", len(pairs), unit="case", quiet=options["quiet"]) as bar:
        for (ours, theirs), (scheme, meant) in zip(pairs, schemes, strict=True):
            rows += evaluation.evaluate_case(ours, theirs, scheme, rules, truth_scheme=meant)
            bar.update(len(rows) // 3)
    summary = evaluation.summarise(rows)
    settings = {
        "predicted": str(predicted),
        "truth": str(truth),
        "labels": sorted({scheme for scheme, _ in schemes}),
        "truth_labels": sorted({meant for _, meant in schemes}),
    }
    made: dict[str, Path] = {}
    if output is not None:
        made = evaluation.write_reports(output, rows, rules, settings=settings)
    table = [*rows, *summary] if len(pairs) > 1 else rows
    lines = [console.table([{name: row.get(name) for name in SHOWN} for row in table]), ""]
    lines += [f"{name}: {text}" for name, text in rules.definitions().items()]
    lines += [str(path) for path in made.values()]
    result = {
        "cases": rows,
        "summary": summary,
        "definitions": rules.definitions(),
        "settings": settings,
        "written": made,
    }
    console.emit(result, as_json=options["as_json"], text="\n".join(lines))


def _schemes(predicted: Path, truth: Path, options: dict[str, Any]) -> tuple[str, str]:
    """What the labels of a pair mean.

    Each file's own JSON file is asked where no option says it. --labels also holds for a truth of
    which nothing is known, for most comparisons are within one scheme.
    """
    scheme = resolve_scheme(predicted, options["labels"])
    given = options["truth_labels"]
    if given is None and read_sidecar(truth) is None:
        given = options["labels"]
    return scheme, resolve_scheme(truth, given, option="--truth-labels")


def convert(source: Path, output: Path, options: dict[str, Any]) -> None:
    """Write labels in another scheme, with the JSON file that names it."""
    if not output.name.lower().endswith(ENDINGS):
        raise InputError(f"{output}: cannot be written; give a name in {', '.join(ENDINGS)}")
    if output.exists() and source.exists() and output.samefile(source):
        raise InputError(f"{output}: is the input; choose another output")
    sidecar = sidecar_path(output)
    if sidecar.exists() and sidecar == sidecar_path(source):
        raise InputError(f"{output}: its JSON file would be that of {source}; choose another name")
    for path in (output, sidecar):
        files.check_output(path, overwrite=options["overwrite"])
    volume = read_labels(source)
    old = resolve_scheme(source, options["source_scheme"], option="--from")
    new = options["target_scheme"]
    labels = relabel(volume.data, old, new, source=source)
    # What else is recorded of the labels stays true of them.
    details = read_sidecar(source) or {}
    kept = {
        key: value
        for key, value in details.items()
        if key not in ("label_scheme", "labels", "regions")
    }
    write_like(output, labels, volume)
    try:
        write_sidecar(output, new, **{**kept, "relabelled_from": old, "source": source.name})
    except BaseException:
        output.unlink()  # labels without their scheme are worse than none
        raise
    result = {"output": output, "sidecar": sidecar, "from": old, "to": new}
    console.emit(result, as_json=options["as_json"], text=f"{output}\n{sidecar}")
