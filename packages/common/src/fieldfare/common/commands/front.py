# SPDX-License-Identifier: Apache-2.0
"""fieldfare front."""

import csv
import dataclasses
import io
from typing import Any

from .. import console
from ..budget import latency
from ..budget.choose import format_bytes, format_macs
from ..budget.front import dominated, draw
from ..budget.variants import Variants, packaged_variants, variants_of
from ..errors import InputError
from ..files import check_output, write_text
from ..progress import Progress
from ..runtime import set_threads
from .front_options import FrontOptions


def front(task: str | None, options: FrontOptions) -> None:
    """Print, and where wanted write or draw, the variants of a task."""
    if task is None:
        tasks = list(packaged_variants())
        text = "\n".join(tasks) or "no installed package has variants"
        console.emit({"tasks": tasks}, as_json=options.as_json, text=text)
        return
    found, output = variants_of(task), options.output
    if output is not None:
        if output.suffix not in (".csv", ".png"):
            raise InputError(f"{output}: write a table (.csv) or a picture (.png)")
        check_output(output, overwrite=options.overwrite)
    if options.measure:
        found = _measured(found, options)
    rows = [
        dataclasses.asdict(variant) | {"dominated": out}
        for variant, out in zip(found.variants, dominated(found.variants), strict=True)
    ]
    if output is not None and output.suffix == ".csv":
        write_text(output, _csv(rows))
    elif output is not None:
        draw(found, output)
    told = dataclasses.asdict(found) | {"variants": rows}
    console.emit(told, as_json=options.as_json, text=_text(found, rows))


def _measured(found: Variants, options: FrontOptions) -> Variants:
    """The same with the seconds of this machine."""
    latency.refuse_load()
    prepare = latency.units_of(found.task)
    set_threads()
    units = {variant.name: prepare(variant.settings) for variant in found.variants}
    total = len(units) * (options.repeats + 1)
    with Progress("measure", total, unit="unit", quiet=options.quiet) as bar:
        seconds = latency.measure(units, repeats=options.repeats, told=bar.update)
    rows = tuple(
        dataclasses.replace(variant, seconds=seconds[variant.name]) for variant in found.variants
    )
    return dataclasses.replace(found, variants=rows, machine=latency.machine())


def _csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [name for name in rows[0] if name != "settings"] if rows else []
    writer.writerow(names)
    writer.writerows([row[name] for name in names] for row in rows)
    return text.getvalue()


def _text(found: Variants, rows: list[dict[str, Any]]) -> str:
    shown = [
        {
            "variant": row["name"] + " (beaten)" * row["dominated"],
            "quality": row["quality"],
            "seconds": row["seconds"],
            "operations": format_macs(row["macs"]),
            "weights": format_bytes(row["bytes"]),
            "memory": format_bytes(row["peak_bytes"]) if row["peak_bytes"] else None,
        }
        for row in rows
    ]
    lines = [f"{found.task}: {found.metric}; cost of {found.unit}, {found.machine}"]
    return "\n".join([*lines, console.table(shown)])
