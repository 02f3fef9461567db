# SPDX-License-Identifier: Apache-2.0
"""rs-detect eval."""

from pathlib import Path

from fieldfare.common import console
from fieldfare.common.errors import InputError
from fieldfare.common.progress import Progress
from fieldfare.common.runtime import set_threads

from ...rasters.opening import environment
from ...scenes.table import SPLITS
from ..data.table import read_table
from ..evaluation.compare import Scores, compare_greenness, compare_model
from ..evaluation.reports import table, write_reports
from ..inference.run import InferSettings
from ..options import EvalOptions
from .infer import settings_of

GSD = 0.6
"""Metres per pixel that greenness is looked at with."""


@environment()
def evaluate(path: Path, options: EvalOptions) -> None:
    """Print a row for each area and model; write the reports where asked."""
    set_threads()
    if options.split not in SPLITS:
        raise InputError(f"--split {options.split}: must be one of {', '.join(SPLITS)}")
    runs: list[InferSettings] = [settings_of(options, model) for model in options.models]
    predictors = [settings.predictor() for settings in runs]
    bands = max(predictor.config.in_channels for predictor in predictors)
    scenes, messages = read_table(path, bands=bands)
    for text in messages:
        console.say(text, quiet=options.quiet)
    chosen = [scene for scene in scenes if scene.split == options.split]
    if not chosen:
        raise InputError(f"{path}: has no scene in the split {options.split}")
    scores: list[Scores] = []
    with Progress("evaluate", len(chosen) * len(runs), quiet=options.quiet) as bar:
        for number, (settings, predictor) in enumerate(zip(runs, predictors, strict=True)):
            before = number * len(chosen)
            scores.append(
                compare_model(
                    chosen,
                    settings,
                    predictor,
                    reach=options.reach,
                    progress=lambda done, before=before: bar.update(before + done),  # type: ignore[misc]
                )
            )
    if options.baseline:
        scores.append(compare_greenness(chosen, gsd=GSD, reach=options.reach))
    rows = table(scores)
    used = [name for name in rows[0] if any(row[name] is not None for row in rows)]
    text = console.table([{name: row[name] for name in used} for row in rows])
    if options.output:
        text += "".join(f"\n{made}" for made in write_reports(options.output, scores))
    console.emit({"rows": rows}, as_json=options.as_json, text=text)
