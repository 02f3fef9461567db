# SPDX-License-Identifier: Apache-2.0
"""The ways in which a task's packaged models can be run, with what was measured of each.

A package keeps them beside its weights in `<task>.variants.json`, which a script in benchmarks/
writes from measurements. Nothing heavy is imported here.
"""

import importlib.util
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from ..errors import InputError

GROUP = "fieldfare.models"
SUFFIX = ".variants.json"


@dataclass(frozen=True)
class Variant:
    """One way to run one model.

    Attributes:
        name: for `--variant`.
        settings: options of `infer` and their values: model, depth, precision, ...
        quality: of the metric of its `Variants`; higher is better.
        macs: multiply-accumulates of one unit, see `efficiency.cost`.
        bytes: of the weight file.
        seconds: of one unit on the machine that is named in `Variants`, one thread.
        peak_bytes: memory that one unit adds there.
        only_named: it is never chosen unless its model or itself is named: what the default model
            promises besides its quality, it does not.
    """

    name: str
    settings: Mapping[str, Any]
    quality: float
    macs: int
    bytes: int
    seconds: float
    peak_bytes: int | None = None
    only_named: bool = False


@dataclass(frozen=True)
class Variants:
    """All variants of a task.

    Attributes:
        task: as in the models' cards.
        unit: what cost and time are of, in words: `tile of 512 x 512 pixels`.
        metric: what quality is, and on which data, in words.
        machine: where seconds and memory were measured.
    """

    task: str
    unit: str
    metric: str
    machine: str
    variants: tuple[Variant, ...]

    def named(self, name: str) -> Variant:
        """The variant of a name.

        Raises:
            InputError: there is none; the message lists those there are.
        """
        for variant in self.variants:
            if variant.name == name:
                return variant
        known = ", ".join(variant.name for variant in self.variants)
        raise InputError(f"--variant {name}: there is none of that name; there are: {known}")

    def write(self, path: Path) -> None:
        """Keep them in a file, rows sorted by quality, the best first."""
        rows = sorted(self.variants, key=lambda variant: (-variant.quality, variant.name))
        values = asdict(self) | {"variants": [asdict(row) for row in rows]}
        path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def read_variants(path: Path) -> Variants:
    """What `Variants.write` wrote.

    Raises:
        InputError: the file holds something else.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        rows = tuple(Variant(**row) for row in values.pop("variants"))
        return Variants(**values, variants=rows)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(f"{path}: holds no variants ({error})") from None


def packaged_variants() -> dict[str, Path]:
    """Of every task of the installed packages that has some: task -> file."""
    found = {}
    for point in entry_points(group=GROUP):
        spec = importlib.util.find_spec(point.module)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            for path in sorted(Path(folder).glob(f"*{SUFFIX}")):
                found[path.name.removesuffix(SUFFIX)] = path
    return found


def variants_of(task: str) -> Variants:
    """The packaged variants of a task.

    Raises:
        InputError: no installed package has any; the message names the tasks there are.
    """
    known = packaged_variants()
    if task not in known:
        raise InputError(f"no variants of {task!r}; there are of: {', '.join(known) or 'nothing'}")
    return read_variants(known[task])
