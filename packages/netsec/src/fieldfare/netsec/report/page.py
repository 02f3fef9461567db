# SPDX-License-Identifier: Apache-2.0
"""The report of a run: one HTML page that needs no network, gathered while the flows go by.

A content security policy in the page forbids the browser to fetch anything and to run any script
but the page's own. Names and addresses come from hostile captures; all are escaped.
"""

import datetime
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from fieldfare.common.files import write_text
from fieldfare.common.progress import format_seconds
from fieldfare.common.report import render, versions

from ..data.flow_files import UNKNOWN
from .timeline import Timeline

MOST_ROWS = 10_000
MOST_COLOURS = 8
COLOURS = (
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b3a800", "#8a929c",
)  # fmt: skip
"""Of the largest classes, after Okabe and Ito; the last is for all others."""

COLUMNS = {
    "label": "Class",
    "confidence": "Confidence",
    "src_ip": "Source",
    "src_port": "Port",
    "dst_ip": "Destination",
    "dst_port": "Port",
    "protocol": "Protocol",
    "start": "Start (UTC)",
    "end": "Duration (s)",
    "packets_fwd": "Packets →",
    "packets_bwd": "Packets ←",
    "bytes_fwd": "Bytes →",
    "bytes_bwd": "Bytes ←",
}
"""Of the table of flows, with their headings."""

_NEEDED = (*COLUMNS, "probability", "model")

PACKET_NOTES = {
    "packets": "read",
    "not_ip": "without IP (ARP and others); in no flow",
    "damaged": "damaged: a header contradicts itself or ends too early; left out",
    "unsupported": "of a link type that cannot be read; left out",
    "shortened": "whose IP header claims more than was on the wire; counted with the less",
    "lone_fragments": "later fragments whose first was not seen; counted under ports 0",
    "evicted": "flows cut because the table was full",
    "packets_without_bytes": "first packets not looked at for want of memory",
    "odd_times": "without a time, far ahead of the next packet, or over a second late",
    "filtered": "that do not fit the filter; left out",
    "unread_captures": "captures that could not be read; left out",
    "lost": "dropped by the kernel before they were read",
}
_TROUBLE = ("damaged", "unsupported", "evicted", "packets_without_bytes", "lost")


class FlowReport:
    """Gathers what a report tells from flow tables, in bounded memory.

    Feed it with `add` and end with `write`.
    """

    def __init__(self) -> None:
        self._names: list[str] = []
        self._totals = np.zeros((0, 4))
        self._timeline = Timeline()
        self._rows: list[pa.Table] = []
        self._kept = 0
        self._span: tuple[float, float] | None = None
        self._models: list[str] = []

    def add(self, table: pa.Table) -> None:
        """Count the flows of a table.

        Args:
            table: with the columns of `net-traffic infer`; a label that is null counts as unknown.

        Raises:
            ValueError: a column is missing.
        """
        if missing := [name for name in _NEEDED if name not in table.column_names]:
            raise ValueError(f"the table of flows has no column {missing[0]!r}")
        if not len(table):
            return
        labels = [UNKNOWN if name is None else name for name in table["label"].to_pylist()]
        for name in dict.fromkeys(labels):
            if name not in self._names:
                self._names.append(name)
        places = {name: place for place, name in enumerate(self._names)}
        number = np.array([places[name] for name in labels])
        amount = _column(table, "bytes_fwd") + _column(table, "bytes_bwd")
        packets = _column(table, "packets_fwd") + _column(table, "packets_bwd")
        confidence = np.nan_to_num(_column(table, "confidence"))
        new = np.zeros((len(self._names), 4))
        new[: len(self._totals)] = self._totals
        for column, values in enumerate((np.ones(len(table)), packets, amount, confidence)):
            new[:, column] += np.bincount(number, values, len(self._names))
        self._totals = new
        start, end = _column(table, "start"), _column(table, "end")
        self._timeline.add(number, start, end, amount)
        before = self._span or (np.inf, -np.inf)
        self._span = (min(before[0], float(start.min())), max(before[1], float(end.max())))
        for model in table["model"].unique().to_pylist():
            if model is not None and model not in self._models:
                self._models.append(model)
        if self._kept < MOST_ROWS:
            some = table.select(list(COLUMNS)).slice(0, MOST_ROWS - self._kept)
            self._rows.append(some)
            self._kept += len(some)

    def classes(self) -> list[dict[str, Any]]:
        """Totals of each class, most bytes first.

        Each has `name`, `flows`, `packets`, `bytes`, their shares `flow_share` and `byte_share`,
        and `confidence`, the mean over its flows.
        """
        sums = np.maximum(self._totals.sum(axis=0), 1)
        order = sorted(range(len(self._names)), key=lambda i: (-self._totals[i, 2], self._names[i]))
        return [
            {
                "name": self._names[i],
                "flows": int(flows),
                "packets": int(packets),
                "bytes": int(amount),
                "flow_share": float(flows / sums[0]),
                "byte_share": float(amount / sums[2]),
                "confidence": float(confidence / flows),
            }
            for i in order
            for flows, packets, amount, confidence in [self._totals[i]]
        ]

    def write(
        self,
        path: Path,
        *,
        captures: Sequence[str],
        counts: Mapping[str, int],
        settings: Mapping[str, Any] | None = None,
        warnings: Sequence[str] = (),
        experts: Mapping[str, Any] | None = None,
    ) -> None:
        """Write the page, whole or not at all; an existing file is replaced.

        Args:
            captures: what was read; only the names are told, not their folders.
            counts: what became of the packets, of `recordings.describe`.
            settings: what else to tell, by name.
            warnings: sentences for the box on top.
            experts: what ran, as of `inference.experts.ExpertUse.to_json`.
        """
        classes = self.classes()
        unknown = next((entry for entry in classes if entry["name"] == UNKNOWN), None)
        script = files(__package__).joinpath("templates", "report.js").read_text(encoding="utf-8")
        named = [Path(capture).name or capture for capture in captures]
        about = [f"Model {', '.join(self._models)}"] * bool(self._models)
        if self._span:
            about.append(f"recorded {time_text(self._span[0])} to {time_text(self._span[1])} UTC")
        page = render(
            __package__,
            "report.html",
            command="net-traffic",
            kind="Traffic classification",
            about=about,
            footer="Classes are guesses of a model.",
            scripts=[script],
            filters={"amount": amount_text, "time": time_text, "duration": duration_text},
            title=", ".join(named[:3]) + (f" and {len(named) - 3} more" if named[3:] else ""),
            totals={
                name: sum(entry[name] for entry in classes)
                for name in ("flows", "packets", "bytes")
            },
            classes=classes,
            by_flows=sorted(classes, key=lambda entry: (-entry["flows"], entry["name"])),
            unknown=unknown,
            colours=self._colours(classes),
            others=COLOURS[-1],
            timeline=self._chart(classes),
            colours_of_experts={True: COLOURS[0], False: COLOURS[-1]},
            experts=experts and experts["classes"] and experts,
            packets=[
                {
                    "count": value,
                    "note": PACKET_NOTES.get(name, name.replace("_", " ")),
                    "trouble": name in _TROUBLE,
                }
                for name, value in counts.items()
            ],
            damaged=counts.get("damaged", 0),
            warnings=warnings,
            settings={
                "captures": named,
                **(settings or {}),
                "versions": versions("fieldfare-netsec", "numpy", "pyarrow"),
            },
            columns=COLUMNS,
            rows=self._flow_rows(),
            kept=self._kept,
        )
        write_text(path, page)

    def _colours(self, classes: Sequence[Mapping[str, Any]]) -> dict[str, str]:
        largest = [entry["name"] for entry in classes[: MOST_COLOURS - 1]]
        return dict(zip(largest, COLOURS, strict=False))

    def _chart(self, classes: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
        """Stacked columns: of each bar its class, and left edge, top and height in [0, 1]."""
        line = self._timeline
        if not line.values.size:
            return None
        values = np.maximum(line.values, 0)
        named = list(self._colours(classes))
        layers = {name: values[self._names.index(name)] for name in named}
        if len(named) < len(self._names):
            layers["others"] = values.sum(axis=0) - sum(layers.values())
        most = float(values.sum(axis=0).max()) or 1.0
        top = np.zeros(values.shape[1])
        bars = []
        for name, layer in layers.items():
            top += layer
            for place in np.flatnonzero(layer > most / 1000).tolist():
                bars.append((name, place, 1 - top[place] / most, layer[place] / most))
        begin = line.first * line.width
        return {
            "bars": bars,
            "bins": values.shape[1],
            "most": most,
            "width": line.width,
            "begin": begin,
            "end": begin + values.shape[1] * line.width,
            "names": list(layers),
        }

    def _flow_rows(self) -> list[list[Any]]:
        """The columns of the table of flows."""
        if not self._rows:
            return [[] for _ in COLUMNS]
        table = pa.concat_tables(self._rows)
        rows = {name: table[name].to_pylist() for name in COLUMNS}
        rows["label"] = [UNKNOWN if name is None else name for name in rows["label"]]
        rows["confidence"] = [None if c is None else round(c, 4) for c in rows["confidence"]]
        rows["end"] = [
            round(end - start, 6) for start, end in zip(rows["start"], rows["end"], strict=True)
        ]
        return list(rows.values())


def _column(table: pa.Table, name: str) -> np.ndarray:
    return np.asarray(table[name].to_numpy(), np.float64)


def amount_text(count: float) -> str:
    """Bytes as people read them: 999 B, 12.3 kB, 1.20 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.0f} B" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB" if count < 1000 else f"{count:,.0f} TB"


def duration_text(seconds: float) -> str:
    """The width of a column: 0.5 s, 20 min 00 s, 70 days."""
    if seconds < 60:
        return f"{seconds:g} s"
    return format_seconds(seconds) if seconds < 86_400 else f"{seconds / 86_400:g} days"


def time_text(seconds: float) -> str:
    """Seconds since 1970 as a date and time in UTC."""
    whole = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    try:
        return (whole + datetime.timedelta(seconds=seconds)).strftime("%Y-%m-%d %H:%M:%S")
    except OverflowError:  # a hostile clock
        return f"{seconds:.0f} s"
