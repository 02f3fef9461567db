# SPDX-License-Identifier: Apache-2.0
"""Columns of labels files: our own, and those of CIC-IDS (CICFlowMeter) and UNSW-NB15."""

import datetime
import math
import zoneinfo
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fieldfare.common.errors import InputError

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
    "start": ("stime", "timestamp"),
    "end": ("ltime",),
    "duration": ("flow duration",),
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


_DAY_FIRST = ("%d/%m/%Y %H:%M:%S", "%d/%m/%Y %H:%M", "%d/%m/%Y %I:%M:%S %p")
"""As CICFlowMeter writes times."""


def read_zone(name: str) -> datetime.tzinfo:
    """A time zone by its IANA name.

    Raises:
        InputError: none has that name.
    """
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise InputError(
            f"no time zone is named {name!r}; give an IANA name, such as America/Halifax or UTC"
        ) from None


def read_times(row: Mapping[str, str], zone: datetime.tzinfo | None) -> tuple[float, float] | None:
    """Start and end of a row of another data set, in seconds since 1970 (UTC).

    Args:
        row: by our names; the end may be told by a duration in microseconds instead.
        zone: of dates that name none.

    Returns:
        None where the row has no times, or dates whose zone nothing tells.

    Raises:
        ValueError: what stands there is no time.
    """
    if not row.get("start") or not (row.get("end") or row.get("duration")):
        return None
    start = _seconds(row["start"], zone)
    if start is None:
        return None
    if row.get("end"):
        end = _seconds(row["end"], zone)
        return None if end is None else (start, end)
    return start, start + max(float(row["duration"]), 0.0) / 1e6


def _seconds(text: str, zone: datetime.tzinfo | None) -> float | None:
    """None where the zone is not known."""
    if "/" not in text:
        return read_time(text)
    if zone is None:
        return None
    for form in _DAY_FIRST:
        try:
            return datetime.datetime.strptime(text, form).replace(tzinfo=zone).timestamp()
        except ValueError:
            continue
    raise ValueError(f"{text} is no time, day first")


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
