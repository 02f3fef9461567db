# SPDX-License-Identifier: Apache-2.0
"""rs-dehaze eval."""

from pathlib import Path

from fieldfare.common import console
from fieldfare.common.errors import InputError
from fieldfare.common.progress import Progress
from fieldfare.common.runtime import set_threads

from ...rasters import scores
from ...rasters.opening import environment
from ..evaluation import compare as evaluation
from ..inference.dehazers import DARK_CHANNEL, DarkChannelDehazer, Dehazer, load_dehazer
from ..options import EvalOptions


@environment()
def evaluate(folder: Path, options: EvalOptions) -> None:
    """Print the table of means; write the reports where asked."""
    set_threads()
    if options.overlap >= options.tile:
        raise InputError(f"--overlap {options.overlap}: must be from 0 to {options.tile - 1}")
    pairs = evaluation.find_pairs(folder, options.match)
    contenders: dict[str, Dehazer] = {DARK_CHANNEL: DarkChannelDehazer()}
    for name in options.models:
        found = load_dehazer(name, device=options.device, precision=options.precision)
        if options.tile < found.least:
            raise InputError(f"--tile {options.tile}: {name} takes {found.least} or more")
        contenders[Path(name).stem] = found
    with Progress("evaluate", len(pairs), unit="image", quiet=options.quiet) as bar:
        rows, shown = evaluation.evaluate(
            pairs,
            contenders,
            seed=options.seed,
            tile=options.tile,
            overlap=options.overlap,
            progress=lambda done, total: bar.update(done),
        )
    means = scores.summarise(rows, tuple(evaluation.DEFINITIONS))
    text = f"{len(pairs)} images\n{console.table(means)}"
    if options.output:
        made = evaluation.write_reports(options.output, rows, shown)
        text += "".join(f"\n{path}" for path in made)
    console.emit({"images": len(pairs), "means": means}, as_json=options.as_json, text=text)
