# SPDX-License-Identifier: Apache-2.0
"""med-seg eval."""

from pathlib import Path

from fieldfare.common import console
from fieldfare.common.errors import InputError
from fieldfare.common.progress import Progress

from ..data.regions import read_sidecar, resolve_scheme
from ..evaluation import compare as evaluation
from ..evaluation.metrics import EmptyPolicy
from ..options import EvaluateOptions

SHOWN = (
    *("case", "region", "dice", "hd95_mm", "nsd", "lesion_dice", "lesion_hd95_mm", "lesion_f1"),
    *("predicted_ml", "truth_ml"),
)


def evaluate(predicted: Path, truth: Path, options: EvaluateOptions) -> None:
    """Print a row for each case and region and their mean; write the reports where asked."""
    rules = evaluation.Rules(
        hd=options.hd,
        empty=EmptyPolicy(options.empty),
        tolerance_mm=options.tolerance,
        lesions=options.lesions,
        dilation=options.dilation,
        least_mm3=options.least,
    )
    output = options.output
    if output is not None and output.exists() and not output.is_dir():
        raise InputError(f"{output}: is a file; name a folder for the reports")
    for path in (predicted, truth):
        if not path.exists():
            raise InputError(f"{path}: no such file or folder")
    pairs = evaluation.pair_files(predicted, truth, skip_missing=options.skip_missing)
    skipped = evaluation.unpaired(predicted, truth)
    if skipped:
        shown = ", ".join(sorted(evaluation.case_name(path) for path in skipped)[:8])
        console.say(f"warning: {len(skipped)} cases of one side only were left out: {shown}")
    # All before the first case, so that a long run does not end at its last for want of a scheme.
    schemes = [_schemes(ours, theirs, options) for ours, theirs in pairs]
    rows: list[evaluation.Row] = []
    with Progress("compare", len(pairs), unit="case", quiet=options.quiet) as bar:
        for (ours, theirs), (scheme, meant) in zip(pairs, schemes, strict=True):
            rows += evaluation.evaluate_case(ours, theirs, scheme, rules, truth_scheme=meant)
            bar.update(len(rows) // 3)
    summary = evaluation.summarise(rows)
    settings = {
        "predicted": str(predicted),
        "truth": str(truth),
        "labels": sorted({scheme for scheme, _ in schemes}),
        "truth_labels": sorted({meant for _, meant in schemes}),
        "skipped": [str(path) for path in skipped],
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
    console.emit(result, as_json=options.as_json, text="\n".join(lines))


def _schemes(predicted: Path, truth: Path, options: EvaluateOptions) -> tuple[str, str]:
    """What the labels of a pair mean.

    Each file's own JSON file is asked where no option says it. --labels also holds for a truth of
    which nothing is known, for most comparisons are within one scheme.
    """
    scheme = resolve_scheme(predicted, options.labels)
    given = options.truth_labels
    if given is None and read_sidecar(truth) is None:
        given = options.labels
    return scheme, resolve_scheme(truth, given, option="--truth-labels")
