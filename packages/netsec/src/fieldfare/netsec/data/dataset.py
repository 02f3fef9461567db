# SPDX-License-Identifier: Apache-2.0
"""Labelled flows of a folder of captures: read once, kept in one plain file, picked by split."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fieldfare.common import console
from fieldfare.common.errors import InputError
from fieldfare.common.progress import Progress

from ..capture import FlowBatch, FlowOptions, Kept, read_flows
from .flow_keys import KEY_BYTES, key_rows
from .flow_rows import take
from .kept_flows import KeptFlows, digest, load_kept, save_kept
from .labels import SPLITS, CaptureLabels, LabelTable, Matched, Matcher
from .spool import PIECE, FlowSpool, RowSpool, spooled

TRAINING_OPTIONS = FlowOptions(
    idle_timeout=None,
    active_timeout=None,
    linger=None,
    decapsulate=True,
    keep_packets=72,
    keep_header=128,
    keep_payload=256,
)
"""One flow for each 5-tuple of a capture, as labels mean it, with what both models look at.

netFound reads 12 bursts of 6 packets, NetMamba 80 bytes of headers and 240 of payload of each.
"""

_LATER_PACKETS = 15
_TIMED_IDLE = 120.0
_TREES = Kept(keep_packets=5, keep_header=128, keep_payload=64)


def training_options(
    kept: Kept, *, trees: bool = False, timed: bool = False, varied: bool = False
) -> FlowOptions:
    """`TRAINING_OPTIONS` with no more kept of packets than is looked at.

    Args:
        kept: what the network reads.
        trees: also keep what `baselines.Trees` reads.
        timed: labels tell flows apart by their times, so one 5-tuple may be several flows.
        varied: also keep what `variations.vary` needs.
    """
    if varied:
        kept = Kept(
            keep_packets=kept["keep_packets"] + _LATER_PACKETS,
            keep_header=max(kept["keep_header"], TRAINING_OPTIONS.keep_header),
            keep_payload=kept["keep_payload"],
        )
    if trees:
        kept = Kept(
            keep_packets=max(kept["keep_packets"], _TREES["keep_packets"]),
            keep_header=max(kept["keep_header"], _TREES["keep_header"]),
            keep_payload=max(kept["keep_payload"], _TREES["keep_payload"]),
        )
    options = replace(TRAINING_OPTIONS, **kept)
    return replace(options, idle_timeout=_TIMED_IDLE, linger=10.0) if timed else options


@dataclass(frozen=True)
class LabelledFlows:
    """N flows with their classes.

    Attributes:
        flows: with their first packets; they lie on disk and cannot be written to.
        label: (N,) int64, index into `classes`.
        capture: (N,) int64, index into `captures`.
        split: (N,) int64, index into `labels.SPLITS`.
        classes: sorted names; all of the labels file, whichever flows are held.
        captures: names of files, relative to their folder.
        matched: what became of labels and flows when the captures were read.
        folder: of temporary files; None: the system's.
    """

    flows: FlowBatch
    label: np.ndarray
    capture: np.ndarray
    split: np.ndarray
    classes: tuple[str, ...]
    captures: tuple[str, ...]
    matched: Matched
    folder: Path | None = None

    def __len__(self) -> int:
        return len(self.label)

    def select(self, rows: np.ndarray) -> "LabelledFlows":
        """Some of the flows; rows as of `flow_rows.take`."""
        return LabelledFlows(
            spooled(self.flows, rows, self.folder),
            self.label[rows],
            self.capture[rows],
            self.split[rows],
            self.classes,
            self.captures,
            self.matched,
            self.folder,
        )

    def of_split(self, split: str) -> "LabelledFlows":
        """The flows of a split.

        Raises:
            InputError: no such split, or no flow in it.
        """
        if split not in SPLITS:
            raise InputError(f"split {split!r}: choose one of {', '.join(SPLITS)}")
        rows = np.flatnonzero(self.split == SPLITS.index(split))
        if not rows.size:
            raise InputError(f"the labels file has no flows in the split {split!r}")
        return self.select(rows)

    def support(self) -> np.ndarray:
        """(C,) int64, flows of each class."""
        return np.bincount(self.label, minlength=len(self.classes))

    def to_keep(self) -> KeptFlows:
        """For `kept_flows.save_kept`."""
        return KeptFlows(*(getattr(self, name) for name in KeptFlows._fields))


def load_flows(
    labels: LabelTable,
    *,
    options: FlowOptions = TRAINING_OPTIONS,
    cache: Path | None = None,
    quiet: bool = False,
) -> LabelledFlows:
    """The labelled flows of all captures, in order of captures and of first packets.

    Args:
        options: what makes a flow, and what is kept of its packets; not `directed`.
        cache: folder for the finished arrays, and for temporary files, made if missing. Their name
            holds a digest of labels, captures and options, so that a changed file is read again.
        quiet: print no progress.

    Raises:
        InputError: a capture cannot be read, or no label matches a flow.
        ValueError: directed options, which labels of both directions cannot match.
    """
    if options.directed:
        raise ValueError("labels name flows of both directions; directed must be False")
    kept = None
    if cache is not None:
        kept = cache / f"flows-{digest(labels, options)}.npz"
        if (found := load_kept(kept)) is not None:
            return LabelledFlows(*found, folder=cache)
    flows = _read(labels, options, cache, quiet)
    if kept is not None:
        save_kept(kept, flows.to_keep())
    return flows


def _read(
    labels: LabelTable, options: FlowOptions, folder: Path | None, quiet: bool
) -> LabelledFlows:
    matched = Matched()
    index = {name: place for place, name in enumerate(labels.classes)}
    files = [capture.file for capture in labels.captures]
    kept, numbers = FlowSpool(folder), RowSpool(folder)
    seen = _Seen()
    # In order of splits, so that a 5-tuple stays where it is needed first.
    order = sorted(range(len(files)), key=lambda place: SPLITS.index(labels.captures[place].split))
    with Progress("reading", len(files), unit="capture", quiet=quiet) as progress:
        for done, place in enumerate(order, 1):
            capture = labels.captures[place]
            flows, cut = _read_capture(labels.folder / capture.file, options, folder)
            matched.evicted += cut
            progress.update(done)
            if flows is None:
                matched.labels_without_flow += len(capture.flows)
                matched.unreadable += capture.unreadable
                continue
            matcher = Matcher(capture, matched)
            for part in pieces_in_order(flows):
                batch = part if capture.whole is None else seen.unseen(capture, part, matched)
                names = matcher.names(batch)
                label = np.array([index[name] for name in names if name is not None], np.int64)
                kept.add(take(batch, np.array([name is not None for name in names], bool)))
                of_split = np.full(len(label), SPLITS.index(capture.split))
                number = np.full(len(label), place)
                numbers.append({"label": label, "capture": number, "split": of_split})
            matcher.finish()
    _tell_evicted(matched.evicted)
    if not matched.flows:
        raise InputError(f"{labels.path}: none of its labels matches a flow of {labels.folder}")
    told = {name: np.array(values) for name, values in numbers.finish().items()}
    return LabelledFlows(
        kept.finish(),
        **told,
        classes=labels.classes,
        captures=tuple(files),
        matched=matched,
        folder=folder,
    )


def read_captures(
    paths: Sequence[Path],
    *,
    options: FlowOptions = TRAINING_OPTIONS,
    folder: Path | None = None,
    quiet: bool = False,
) -> FlowBatch:
    """All flows of captures, labelled or not, each capture by itself, as for pre-training.

    Captures that cannot be read are told on stderr and left out.

    Args:
        options: what makes a flow, and what is kept of its packets.
        folder: of temporary files; None: the system's.
        quiet: print no progress.

    Raises:
        InputError: there is no flow in any.
    """
    kept, evicted = FlowSpool(folder), 0
    with Progress("reading", len(paths), unit="capture", quiet=quiet) as progress:
        for done, path in enumerate(paths, 1):
            try:
                flows, cut = _read_capture(path, options, folder)
                evicted += cut
                for part in pieces_in_order(flows) if flows is not None else ():
                    kept.add(part)
            except InputError as error:
                console.say(f"left out: {error}")
            progress.update(done)
    _tell_evicted(evicted)
    if not len(kept):
        raise InputError(f"no flow in {len(paths)} captures; give captures with IP packets")
    return kept.finish()


def _read_capture(
    path: Path, options: FlowOptions, folder: Path | None
) -> tuple[FlowBatch | None, int]:
    """The flows of one capture as they end, None where there is none.

    Beside them how many were cut because their packets did not fit in memory.
    """
    stream = read_flows(path, options=options)
    spool = FlowSpool(folder)
    for part in stream:
        spool.add(part)
    return spool.finish() if len(spool) else None, stream.counts.evicted


def pieces_in_order(flows: FlowBatch) -> Iterator[FlowBatch]:
    """The flows in order of their first packets, `PIECE` at a time."""
    order = np.argsort(flows.flow_id, kind="stable")
    for first in range(0, len(order), PIECE):
        yield take(flows, order[first : first + PIECE])


def _tell_evicted(count: int) -> None:
    if count:
        console.say(
            f"{count:,} flows were cut, as their packets did not fit in memory: give captures of "
            "fewer flows at a time"
        )


class _Seen:
    """The 5-tuples of captures that are labelled as a whole; captures come in order of splits."""

    def __init__(self) -> None:
        self._split = ""
        self._earlier = np.empty(0, _KEY)
        self._own: list[np.ndarray] = []

    def unseen(self, capture: CaptureLabels, batch: FlowBatch, matched: Matched) -> FlowBatch:
        """The flows whose 5-tuple no earlier split has had."""
        if capture.split != self._split:
            self._earlier = np.unique(np.concatenate([self._earlier, *self._own]))
            self._split, self._own = capture.split, []
        keys = np.ascontiguousarray(key_rows(batch)).view(_KEY).reshape(-1)
        self._own.append(keys)
        own = ~np.isin(keys, self._earlier)
        matched.in_earlier_split += int((~own).sum())
        return take(batch, own)


_KEY = np.dtype(f"S{KEY_BYTES}")  # all are of one length, so zeros at their ends are no matter


def at_most(data: LabelledFlows, count: int) -> LabelledFlows:
    """The flows, or where there are more, `count` of them drawn at random, the same every time."""
    if len(data) <= count:
        return data
    drawn = np.random.default_rng(0).permutation(len(data))[:count]
    return data.select(np.sort(drawn))


def few_shot(label: Sequence[int] | np.ndarray, count: int, seed: int) -> np.ndarray:
    """Rows of at most `count` flows of each class, drawn at random, ascending.

    Args:
        label: (N,) class numbers.
        count: flows a class, at least 1; a class with fewer gives all it has.

    Returns:
        (K,) int64. The draw for a class does not depend on the other classes.
    """
    label = np.asarray(label)
    drawn = [
        np.random.default_rng((seed, name)).permutation(np.flatnonzero(label == name))[:count]
        for name in np.unique(label).tolist()
    ]
    return np.sort(np.concatenate(drawn)) if drawn else np.empty(0, np.int64)


def class_weights(
    label: Sequence[int] | np.ndarray, classes: int, power: float = 1.0
) -> np.ndarray:
    """Weights of classes against imbalance, with mean 1 over the flows.

    Args:
        label: (N,) class numbers of the training flows.
        power: 0 all equal, 1 each class counts the same in all, 0.5 between the two.

    Returns:
        (C,) float64, proportional to support ** -power; 0 for a class without flows.
    """
    support = np.bincount(label, minlength=classes).astype(float)
    present = support > 0
    weights = np.where(present, np.maximum(support, 1) ** -power, 0.0)
    found: np.ndarray = weights * support.sum() / max((weights * support).sum(), 1e-300)
    return found
