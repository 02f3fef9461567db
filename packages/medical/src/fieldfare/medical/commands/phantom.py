# SPDX-License-Identifier: Apache-2.0
"""med-seg phantom."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np

from fieldfare.common import console
from fieldfare.common.errors import InputError
from fieldfare.common.files import atomic_path, temporary_sibling, write_text
from fieldfare.common.progress import Progress

from ..options import PhantomOptions
from ..phantoms.anatomy import load_atlas
from ..phantoms.generate import PHANTOMS, make_phantom, write_case
from ..phantoms.surfaces import load_surfaces

READY = {"atlas": load_atlas, "growth": load_surfaces}
"""What each generator needs; says what is not installed before work starts."""

SETTINGS = "phantom.json"
TABLE = "cases.csv"


def phantom(options: PhantomOptions) -> None:
    """Draw cases into a folder with a table for `med-seg train`; finished ones are kept."""
    folder, count, validation = options.output, options.count, options.val
    if validation > count:
        raise InputError(f"--val {validation}: is more than --count {count}")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; give a folder")
    READY[options.generator]()
    kept = {
        "seed": options.seed,
        "spacing": options.spacing,
        "generator": options.generator,
        "naming": options.naming,
        "phantoms": PHANTOMS,
    }
    _check_settings(folder, kept)
    names = [f"phantom_{number:04d}" for number in range(count)]
    missing = [number for number, name in enumerate(names) if not (folder / name).is_dir()]
    progress = Progress(
        "phantom", count, unit="case", done=count - len(missing), quiet=options.quiet
    )
    with progress:
        for done, number in enumerate(missing, start=count - len(missing) + 1):
            rng = np.random.default_rng((options.seed, number))
            drawn = make_phantom(rng, options.spacing, options.generator)
            # Under its own name inside a hidden folder, then moved: a case is there whole or not.
            hidden = temporary_sibling(folder / names[number])
            try:
                write_case(hidden / names[number], drawn, options.naming)
                (hidden / names[number]).rename(folder / names[number])
            finally:
                shutil.rmtree(hidden, ignore_errors=True)
            progress.update(done)
    _write_table(folder / TABLE, names, count - validation)
    result = {"table": folder / TABLE, "cases": count, "train": count - validation}
    console.emit(result, as_json=options.as_json, text=str(folder / TABLE))


def _check_settings(folder: Path, settings: dict[str, object]) -> None:
    """Refuse a folder that holds cases of other settings; note those of a new one."""
    path = folder / SETTINGS
    if path.exists():
        if json.loads(path.read_text(encoding="utf-8")) != settings:
            raise InputError(
                f"{folder}: holds other phantoms (seed, spacing, generator, naming, version); "
                "choose another"
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(settings, indent=2) + "\n")


def _write_table(path: Path, names: list[str], training: int) -> None:
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("case", "split", "patient"))
        for number, name in enumerate(names):
            writer.writerow((name, "train" if number < training else "val", name))
