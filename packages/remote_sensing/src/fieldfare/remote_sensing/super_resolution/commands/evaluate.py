# SPDX-License-Identifier: Apache-2.0
"""rs-sr eval."""

from pathlib import Path

from fieldfare.common import console
from fieldfare.common.progress import Progress
from fieldfare.common.runtime import set_threads

from ...rasters.opening import environment
from ..evaluation import compare as evaluation
from ..inference import restore
from ..options import EvalOptions


@environment()
def evaluate(folder: Path, options: EvalOptions) -> None:
    """Print the table of means; write the reports where asked."""
    set_threads()
    pairs = evaluation.find_pairs(folder, restore.BICUBIC_SCALE, options.match)
    contenders = _contenders(options)
    with Progress("evaluate", len(pairs), unit="image", quiet=options.quiet) as bar:
        rows, shown = evaluation.evaluate(
            pairs,
            contenders,
            tile=options.tile,
            overlap=options.overlap,
            consistent=options.consistent,
            progress=lambda done, total: bar.update(done),
        )
    means = evaluation.summarise(rows)
    text = f"{len(pairs)} images\n{console.table(means)}"
    if options.output:
        made = evaluation.write_reports(options.output, rows, shown)
        text += "".join(f"\n{path}" for path in made)
    console.emit({"images": len(pairs), "means": means}, as_json=options.as_json, text=text)


def _contenders(options: EvalOptions) -> dict[str, restore.Restorer]:
    """Bicubic, then every model with every number of steps."""
    contenders: dict[str, restore.Restorer] = {restore.BICUBIC: restore.BicubicRestorer()}
    for name in options.models:
        for steps in options.steps or (None,):
            restorer = restore.load_restorer(
                name,
                sampler=options.sampler,
                steps=steps,
                seed=options.seed,
                device=options.device,
                precision=options.precision,
            )
            count = getattr(restorer, "steps", 0)
            contenders[f"{Path(name).stem} {count} step{'s' * (count != 1)}"] = restorer
    return contenders
