# SPDX-License-Identifier: Apache-2.0
"""Labels of flows from a CSV file, for single flows or whole captures, and their splits.

Columns: `file` (relative to the folder of captures), `class` and `split`; for single flows also
`l4` (TCP, UDP, ICMP, SCTP or a protocol number), `addr_a`, `port_a`, `addr_b` and `port_b`, where a
and b are the two ends in any order and ports are 0 where the protocol has none; and, where a
5-tuple
has one class at one time and another at another, `start` and `end`. Further columns are not read.

Files of CIC-IDS and UNSW-NB15 are read by their own names (see `label_columns`). They name neither
captures nor splits: their rows hold for all captures of the folder, and all are of the split train.
"""

import csv
import datetime
import ipaddress
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from fieldfare.common.errors import InputError

from ..capture import FlowBatch
from .flow_keys import FlowKey, flow_keys, pack_key
from .label_columns import (
    FILE_COLUMNS,
    FLOW_COLUMNS,
    Columns,
    find_columns,
    read_time,
    read_times,
    read_zone,
)
from .recordings import find_captures

SPLITS = ("train", "val", "test", "heldout")

_PROTOCOLS = {"tcp": 6, "udp": 17, "icmp": 1, "icmpv6": 1, "sctp": 132}


@dataclass(frozen=True)
class CaptureLabels:
    """Labels of one capture.

    Attributes:
        file: relative to the folder of captures.
        split: one of `SPLITS`.
        whole: the class of all its flows, or None.
        flows: classes of single flows; empty where `whole` is given.
        times: of flows whose rows give times, (start, end, class) of each row, in seconds.
        unreadable: rows whose address is none; no flow can match them.
    """

    file: str
    split: str
    whole: str | None = None
    flows: dict[FlowKey, str] = field(default_factory=dict)
    times: dict[FlowKey, list[tuple[float, float, str]]] = field(default_factory=dict)
    unreadable: int = 0


@dataclass(frozen=True)
class LabelTable:
    """A labels file.

    Attributes:
        path: of the CSV file.
        folder: of the captures.
        captures: in order of their first rows.
        classes: sorted names.
    """

    path: Path
    folder: Path
    captures: tuple[CaptureLabels, ...]
    classes: tuple[str, ...]

    @property
    def timed(self) -> bool:
        """Whether flows are told apart by their times too."""
        return any(labels.times for labels in self.captures)

    def paths(self, split: str) -> list[Path]:
        """The captures of a split."""
        return [self.folder / labels.file for labels in self.captures if labels.split == split]


@dataclass
class Matched:
    """What became of labels and flows.

    Attributes:
        flows: flows with a label.
        flows_without_label: flows that no row names; left out.
        labels_without_flow: rows whose flow is not in its capture.
        unreadable: rows whose address is none.
        evicted: flows cut because their packets did not fit in memory; each part counts as a flow.
        in_earlier_split: flows of captures labelled as a whole whose 5-tuple also occurs in another
            split; left out of the later one.
    """

    flows: int = 0
    flows_without_label: int = 0
    labels_without_flow: int = 0
    unreadable: int = 0
    in_earlier_split: int = 0
    evicted: int = 0


def read_labels(
    path: str | os.PathLike[str],
    folder: str | os.PathLike[str] | None = None,
    timezone: str | None = None,
) -> LabelTable:
    """Read a labels file and check its splits.

    Args:
        path: of the CSV file, UTF-8 with a header line.
        folder: of the captures; the file's own when None.
        timezone: IANA name of the zone of dates that name none, as in files of CIC-IDS.

    Raises:
        InputError: such a zone is needed to tell classes apart and not given; not such a file;
            missing columns; a value that cannot be; a capture that is missing or in two splits; a
            5-tuple in two splits or with two classes in one capture; no usable row.
    """
    path = Path(path)
    folder = path.parent if folder is None else Path(folder)
    zone = None if timezone is None else read_zone(timezone)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    captures: dict[str, CaptureLabels] = {}
    seen: dict[FlowKey, str] = {}
    try:
        with path.open(encoding="utf-8-sig", errors=_lenience(path), newline="") as file:
            rows = csv.DictReader(file, strict=True)
            columns = _check_columns(path, rows.fieldnames)
            for row in rows:
                where = f"{path}: line {rows.line_num}"
                if None in row or None in row.values():
                    raise InputError(f"{where}: has not one field for each column")
                if columns.foreign:
                    _add_foreign(where, columns.pick(row), captures, zone)
                else:
                    _add(where, columns.pick(row), columns.single, captures, seen)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: is not a CSV file in UTF-8 ({error})") from None
    if columns.foreign:
        captures = _for_all(captures, folder)
    names = {name for labels in captures.values() for name in labels.flows.values()}
    names |= {labels.whole for labels in captures.values() if labels.whole}
    if not names:
        raise InputError(f"{path}: holds no usable label")
    for name in captures:
        if not (folder / name).is_file():
            raise InputError(f"{folder / name}: no such capture, but {path} labels it")
    return LabelTable(path, folder, tuple(captures.values()), tuple(sorted(names)))


def _lenience(path: Path) -> str:
    """How to take what is not UTF-8: other data sets have signs of Windows in names of classes."""
    with path.open("rb") as file:
        header = file.readline().removeprefix(b"\xef\xbb\xbf").decode(errors="replace")
    foreign = find_columns(next(csv.reader([header]), [])).foreign
    return "replace" if foreign else "strict"


def _check_columns(path: Path, given: Sequence[str] | None) -> Columns:
    given = list(given or ())
    columns = find_columns(given)
    if not columns.foreign and len(set(given)) != len(given):
        raise InputError(f"{path}: two columns have one name")
    if missing := columns.missing():
        needed = (*FILE_COLUMNS, *(FLOW_COLUMNS if columns.single else ()))
        raise InputError(f"{path}: column {missing!r} is missing; needed are {needed}")
    return columns


_EVERY = ""
"""In place of a capture, while rows hold for all."""


def _add_foreign(
    where: str,
    row: Mapping[str, str],
    captures: dict[str, CaptureLabels],
    zone: datetime.tzinfo | None,
) -> None:
    """Add a row of another data set; what cannot be read, or has two classes, counts so."""
    labels = captures.setdefault(_EVERY, CaptureLabels(_EVERY, SPLITS[0]))
    try:
        key, times = _read_key("", row), read_times(row, zone)
    except (InputError, ValueError):
        key, times = None, None
    if key is None:
        captures[_EVERY] = replace(labels, unreadable=labels.unreadable + 1)
        return
    name = row["class"] or "Normal"
    if times is not None:
        labels.times.setdefault(key, []).append((*times, name))
    elif labels.flows.get(key, name) != name:
        if row.get("start"):
            raise InputError(
                f"{where}: {_key_text(row)} has the classes {labels.flows[key]} and {name}, at "
                "times whose zone is nowhere said: name it with --label-timezone"
            )
        name = _AMBIGUOUS
    labels.flows[key] = name


_AMBIGUOUS = "?"
"""The class of a 5-tuple that has several and no times; its flows are left out."""


def _for_all(captures: dict[str, CaptureLabels], folder: Path) -> dict[str, CaptureLabels]:
    """The same labels for each capture of a folder, without 5-tuples of several classes."""
    found = captures.get(_EVERY)
    if found is None:
        return {}
    flows = {key: name for key, name in found.flows.items() if name != _AMBIGUOUS}
    unreadable = found.unreadable + len(found.flows) - len(flows)
    names = [os.path.relpath(path, folder) for path in find_captures([folder])]
    return {
        name: replace(found, file=name, flows=flows, unreadable=0 if number else unreadable)
        for number, name in enumerate(names)
    }


def _add(
    where: str,
    row: Mapping[str, str],
    single: bool,
    captures: dict[str, CaptureLabels],
    seen: dict[FlowKey, str],
) -> None:
    file, name, split = (row[column] for column in FILE_COLUMNS)
    if not file or not name:
        raise InputError(f"{where}: file and class must not be empty")
    if os.path.isabs(file) or ".." in Path(file).parts:
        raise InputError(f"{where}: {file}: give the capture relative to its folder")
    if split not in SPLITS:
        raise InputError(f"{where}: split {split!r}: choose one of {', '.join(SPLITS)}")
    known = captures.get(file)
    if known is not None and known.split != split:
        raise InputError(f"{where}: {file} is in the splits {known.split} and {split}; choose one")
    if not single:
        if known is not None and known.whole != name:
            raise InputError(f"{where}: {file} has the classes {known.whole} and {name}")
        captures[file] = CaptureLabels(file, split, whole=name)
        return
    labels = captures.setdefault(file, CaptureLabels(file, split))
    key = _read_key(where, row)
    if key is None:
        captures[file] = replace(labels, unreadable=labels.unreadable + 1)
        return
    if seen.setdefault(key, split) != split:
        raise InputError(
            f"{where}: the 5-tuple {_key_text(row)} is in the splits {seen[key]} and {split}; "
            "keep it in one"
        )
    if row.get("start") or row.get("end"):
        try:
            start, end = read_time(row["start"]), read_time(row["end"])
        except (KeyError, ValueError) as error:
            raise InputError(
                f"{where}: start and end: give both, in seconds or as a date ({error})"
            ) from None
        labels.flows[key] = name
        labels.times.setdefault(key, []).append((start, end, name))
    elif labels.flows.setdefault(key, name) != name:
        raise InputError(
            f"{where}: {_key_text(row)} has the classes {labels.flows[key]} and {name} in {file}"
        )


def _read_key(where: str, row: Mapping[str, str]) -> FlowKey | None:
    """The 5-tuple of a row, None where an address is none."""
    text = row["l4"].lower()
    protocol = _PROTOCOLS.get(text, int(text) if text.isdecimal() else -1)
    if not 0 <= protocol <= 255:
        raise InputError(f"{where}: l4 {row['l4']!r} is no protocol; give TCP, UDP or a number")
    ends = []
    for end in ("a", "b"):
        port = row[f"port_{end}"]
        if not port.isdecimal() or int(port) > 65535:
            raise InputError(f"{where}: port_{end} {port!r} is not in 0..65535")
        try:
            address = ipaddress.ip_address(row[f"addr_{end}"])
        except ValueError:
            return None
        ends.append((address, int(port)))
    return pack_key(protocol, *ends)


def _key_text(row: Mapping[str, str]) -> str:
    return "{l4} {addr_a} {port_a} {addr_b} {port_b}".format_map(row)


class Matcher:
    """Finds the classes of one capture's flows, batch by batch.

    Args:
        labels: of the capture.
        matched: counts to go on with.
    """

    def __init__(self, labels: CaptureLabels, matched: Matched) -> None:
        matched.unreadable += labels.unreadable
        self._labels, self._matched = labels, matched
        self._missing = set(labels.flows)

    def names(self, batch: FlowBatch) -> list[str | None]:
        """The class of each flow, bidirectional; None where it has no label."""
        labels, matched = self._labels, self._matched
        if labels.whole is not None:
            matched.flows += len(batch)
            return [labels.whole] * len(batch)
        keys = flow_keys(batch)
        self._missing.difference_update(keys)
        names = [
            _at_time(labels.times[key], start, end)
            if key in labels.times
            else labels.flows.get(key)
            for key, start, end in zip(
                keys, (batch.start / 1e9).tolist(), (batch.end / 1e9).tolist(), strict=True
            )
        ]
        found = sum(name is not None for name in names)
        matched.flows += found
        matched.flows_without_label += len(names) - found
        return names

    def finish(self) -> None:
        """Count the labels that no flow had."""
        self._matched.labels_without_flow += len(self._missing)


def match(labels: CaptureLabels, batch: FlowBatch, matched: Matched) -> list[str | None]:
    """The class of each flow of one capture, None where it has no label.

    Args:
        batch: all flows of the capture, bidirectional.
        matched: counts to go on with.
    """
    matcher = Matcher(labels, matched)
    names = matcher.names(batch)
    matcher.finish()
    return names


_SLACK = 1.0
"""Seconds by which the times of a row may differ from those of its flow."""


def _at_time(rows: list[tuple[float, float, str]], start: float, end: float) -> str | None:
    """The class of the row that overlaps most with a flow, None where none does."""
    shared = [(min(end, until) - max(start, since), name) for since, until, name in rows]
    best, name = max(shared, key=lambda found: found[0])
    return name if best >= -_SLACK else None
