# SPDX-License-Identifier: Apache-2.0
"""Columns of labels files: our own, and those of CIC-IDS (CICFlowMeter) and UNSW-NB15."""

import datetime
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

FILE_COLUMNS = ("file", "class", "split")
FLOW_COLUMNS = ("l4", "addr_a", "port_a", "addr_b", "port_b")
TIME_COLUMNS = ("start", "end")

_OTHERS = {
    "l4": ("protocol", "proto"),
    "addr_a": ("src ip", "source ip", "srcip"),
    "port_a": ("src port", "source port", "sport"),
    "addr_b": ("dst ip", "destination ip", "dstip"),
    "port_b": ("dst port", "destination port", "dsport"),
    "class": ("attack cat", "label"),
    "start": ("stime",),
    "end": ("ltime",),
}
"""Names that other data sets give these columns, in small letters, blanks for underscores."""


@dataclass(frozen=True)
class Columns:
    """Where a labels file has what is read of it; all other columns are for people.

    Attributes:
        names: the file's own name of each of our columns that it has.
        foreign: it is of another data set: rows need not name a capture or a split.
    """

    names: Mapping[str, str]
    foreign: bool

    @property
    def single(self) -> bool:
        """Whether it labels single flows."""
        return any(name in self.names for name in FLOW_COLUMNS)

    def missing(self) -> str | None:
        """A column that is needed and not there."""
        needed = list(FILE_COLUMNS) if not self.foreign else ["class"]
        needed += FLOW_COLUMNS if self.single else ()
        return next((name for name in needed if name not in self.names), None)

    def pick(self, row: Mapping[str, str]) -> dict[str, str]:
        """A row by our names."""
        return {ours: row[theirs].strip() for ours, theirs in self.names.items()}


def find_columns(given: Sequence[str]) -> Columns:
    """Our columns among those of a file."""
    known = (*FILE_COLUMNS, *FLOW_COLUMNS, *TIME_COLUMNS)
    names = {name: name for name in known if name in given}
    if any(name in names for name in FLOW_COLUMNS):
        return Columns(names, foreign=False)
    plain = {name.strip().lower().replace("_", " "): name for name in given}
    theirs = {
        ours: next((plain[other] for other in others if other in plain), "")
        for ours, others in _OTHERS.items()
    }
    if not all(theirs[name] for name in ("addr_a", "addr_b")):
        return Columns(names, foreign=False)
    return Columns({ours: name for ours, name in theirs.items() if name} | names, foreign=True)


def read_time(text: str) -> float:
    """Seconds since 1970 (UTC), of a number of them or of a date as in ISO 8601 (UTC if it says
    none).

    Raises:
        ValueError: neither.
    """
    try:
        seconds = float(text)
    except ValueError:
        date = datetime.datetime.fromisoformat(text)
        if date.tzinfo is None:
            date = date.replace(tzinfo=datetime.UTC)
        return date.timestamp()
    if not math.isfinite(seconds):
        raise ValueError(f"{text} is no time")
    return seconds
