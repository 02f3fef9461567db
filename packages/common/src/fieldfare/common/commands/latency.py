# SPDX-License-Identifier: Apache-2.0
"""fieldfare latency."""

from collections import Counter
from textwrap import shorten
from typing import Any

from .. import console
from ..budget import latency as clock
from ..budget.table import NAME, Call, LatencyTable, cache_folder, calls_of, read_table
from ..progress import Progress
from ..runtime import set_threads
from ..slim.workshop import workshop_of
from .latency_options import LatencyOptions

WIDTH = 70
"""Signs of a layer's description that are shown."""


def latency(model: str | None, options: LatencyOptions) -> None:
    """Show the table, or measure what a model needs of it."""
    set_threads()
    path, machine = cache_folder() / NAME, clock.machine()
    table = LatencyTable(machine) if options.renew else read_table(path, machine)
    result: dict[str, Any] = {"machine": machine, "table": path}
    if model is None:
        if options.renew:
            table.write(path)
        result |= {"layers": len(table.seconds), "factor": table.factor()}
        networks = len(table.wholes.get("torch", []))
        text = (
            f"{machine}: {len(table.seconds)} layers, factor {table.factor():.3f} by {networks} "
            f"networks, in {path}"
        )
        console.emit(result, as_json=options.as_json, text=text)
        return
    _, workshop = workshop_of(model)
    network, _ = workshop.load(model)
    running, unit = workshop.unit_of(network)
    calls = calls_of(running, unit)
    if table.missing(calls):
        clock.refuse_load()
        total = len(table.missing(calls)) * (options.repeats + 1)
        with Progress("measure", total, unit="call", quiet=options.quiet) as bar:
            table.measure(calls, repeats=options.repeats, told=bar.update)
        whole = clock.measure({"whole": unit}, repeats=options.repeats)["whole"]
        table.fit(calls, whole)
        clock.refuse_load()  # nor while it was measured
        table.write(path)
    rows = _rows(calls, table)
    seconds = table.predict(calls)
    result |= {"unit": workshop.unit, "seconds": seconds, "factor": table.factor(), "layers": rows}
    shown = [
        row | {"ms": f"{row['ms']:.2f}", "what": shorten(row["what"], WIDTH, placeholder="...")}
        for row in rows[: options.most]
    ]
    text = (
        f"{model}: {1000 * seconds:.1f} ms a {workshop.unit} expected, {len(calls)} layers times "
        f"{table.factor():.3f}; {machine}\n{console.table(shown)}"
    )
    console.emit(result, as_json=options.as_json, text=text)


def _rows(calls: list[Call], table: LatencyTable) -> list[dict[str, Any]]:
    """Kinds of layers, those that take longest first, each by the name of the first."""
    counts = Counter(call.key for call in calls)
    first = {call.key: call.name for call in reversed(calls)}
    rows = [
        {"ms": 1000 * count * table.seconds[key], "times": count, "layer": first[key], "what": key}
        for key, count in counts.items()
    ]
    return sorted(rows, key=lambda row: -row["ms"])
