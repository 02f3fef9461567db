# SPDX-License-Identifier: Apache-2.0
"""fieldfare cascade."""

import dataclasses
from typing import Any

from .. import console
from ..budget.choose import format_macs
from ..errors import InputError
from ..files import check_output
from ..runtime import set_threads
from ..slim.workshop import workshop_of
from ..weights import Metric
from .slim_options import CascadeOptions
from .train import today


def cascade(small: str, large: str, options: CascadeOptions) -> None:
    """Join two models, say what that gives, and write the file."""
    check_output(options.output, overwrite=options.overwrite)
    if options.output.suffix != ".safetensors":
        raise InputError(f"{options.output}: write a .safetensors file")
    task, workshop = workshop_of(small)
    other, _ = workshop_of(large)
    if other != task:
        raise InputError(f"{large}: is a {other} model, but {small} one of {task}")
    _, card = workshop.load(small)
    set_threads()
    joined = workshop.join((small, large), options.data, quiet=options.quiet)
    rows = joined.measured()
    found = rows["cascade"]
    names = ", ".join(path.name for path in options.data)
    card = dataclasses.replace(
        card,
        name=options.output.stem,
        summary=f"{small}, and {large} where that one is unsure.",
        training=f"{card.training}; joined with {large} by fieldfare cascade on {names}",
        date=today(),
        metrics=(Metric(joined.metric, found["quality"], f"split val of {names}"),),
    )
    joined.save(card, options.output)
    shown: list[dict[str, Any]] = [
        {
            "model": name,
            joined.metric: row["quality"],
            f"operations of a {joined.unit}": format_macs(row["macs"]),
            "passed on": f"{row['passed_on']:.1%}" if "passed_on" in row else "",
        }
        for name, row in rows.items()
    ]
    result = {"task": task, "metric": joined.metric, "rows": rows, "model": options.output}
    text = f"{console.table(shown)}\n{options.output}"
    console.emit(result, as_json=options.as_json, text=text)
