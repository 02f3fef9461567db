# SPDX-License-Identifier: Apache-2.0
"""Labelled flows of a folder of captures: read once, kept in one plain file, picked by split."""

import hashlib
import json
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from fieldfare.common import console
from fieldfare.common.errors import InputError
from fieldfare.common.files import atomic_path
from fieldfare.common.progress import Progress

from ..capture import FirstPackets, FlowBatch, FlowOptions, Kept, read_flows
from .flow_rows import COLUMNS, PACKET_COLUMNS, concatenate, take
from .labels import SPLITS, CaptureLabels, FlowKey, LabelTable, Matched, flow_keys, match

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

_FORMAT = 2
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
        flows: with their first packets.
        label: (N,) int64, index into `classes`.
        capture: (N,) int64, index into `captures`.
        split: (N,) int64, index into `labels.SPLITS`.
        classes: sorted names; all of the labels file, whichever flows are held.
        captures: names of files, relative to their folder.
        matched: what became of labels and flows when the captures were read.
    """

    flows: FlowBatch
    label: np.ndarray
    capture: np.ndarray
    split: np.ndarray
    classes: tuple[str, ...]
    captures: tuple[str, ...]
    matched: Matched

    def __len__(self) -> int:
        return len(self.label)

    def select(self, rows: np.ndarray) -> "LabelledFlows":
        """Some of the flows; rows as of `flow_rows.take`."""
        return LabelledFlows(
            take(self.flows, rows),
            self.label[rows],
            self.capture[rows],
            self.split[rows],
            self.classes,
            self.captures,
            self.matched,
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
        cache: folder for the finished arrays, made if missing. Their name holds a digest of labels,
            captures and options, so that a changed file is read again.
        quiet: print no progress.

    Raises:
        InputError: a capture cannot be read, or no label matches a flow.
        ValueError: directed options, which labels of both directions cannot match.
    """
    if options.directed:
        raise ValueError("labels name flows of both directions; directed must be False")
    kept = None
    if cache is not None:
        kept = cache / f"flows-{_digest(labels, options)}.npz"
        if (found := _load(kept)) is not None:
            return found
    flows = _read(labels, options, quiet)
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        _save(kept, flows)
    return flows


def _read(labels: LabelTable, options: FlowOptions, quiet: bool) -> LabelledFlows:
    matched = Matched()
    index = {name: place for place, name in enumerate(labels.classes)}
    files = [capture.file for capture in labels.captures]
    batches: list[FlowBatch] = []
    label: list[int] = []
    number: list[int] = []
    split: list[int] = []
    seen: dict[FlowKey, str] = {}
    # In order of splits, so that a 5-tuple stays where it is needed first.
    order = sorted(range(len(files)), key=lambda place: SPLITS.index(labels.captures[place].split))
    with Progress("reading", len(files), unit="capture", quiet=quiet) as progress:
        for done, place in enumerate(order, 1):
            capture = labels.captures[place]
            batch, evicted = _read_capture(labels.folder / capture.file, options)
            matched.evicted += evicted
            progress.update(done)
            if batch is None:
                matched.labels_without_flow += len(capture.flows)
                matched.unreadable += capture.unreadable
                continue
            if capture.whole is not None:
                batch = _unseen(capture, batch, seen, matched)
            names = match(capture, batch, matched)
            found = [index[name] for name in names if name is not None]
            batches.append(take(batch, np.array([name is not None for name in names], bool)))
            label += found
            number += [place] * len(found)
            split += [SPLITS.index(capture.split)] * len(found)
    _tell_evicted(matched.evicted)
    if not label:
        raise InputError(f"{labels.path}: none of its labels matches a flow of {labels.folder}")
    return LabelledFlows(
        concatenate(batches),
        np.array(label),
        np.array(number),
        np.array(split),
        labels.classes,
        tuple(files),
        matched,
    )


def read_captures(
    paths: Sequence[Path], *, options: FlowOptions = TRAINING_OPTIONS, quiet: bool = False
) -> FlowBatch:
    """All flows of captures, labelled or not, each capture by itself, as for pre-training.

    Captures that cannot be read are told on stderr and left out.

    Raises:
        InputError: there is no flow in any.
    """
    batches, evicted = [], 0
    with Progress("reading", len(paths), unit="capture", quiet=quiet) as progress:
        for done, path in enumerate(paths, 1):
            try:
                batch, cut = _read_capture(path, options)
                batches.append(batch)
                evicted += cut
            except InputError as error:
                console.say(f"left out: {error}")
            progress.update(done)
    _tell_evicted(evicted)
    found = [batch for batch in batches if batch is not None]
    if not found:
        raise InputError(f"no flow in {len(paths)} captures; give captures with IP packets")
    return concatenate(found)


def _read_capture(path: Path, options: FlowOptions) -> tuple[FlowBatch | None, int]:
    """The flows of one capture in order of their first packets, None where there is none.

    Beside them how many were cut because their packets did not fit in memory.
    """
    stream = read_flows(path, options=options)
    parts = list(stream)
    evicted = stream.counts.evicted
    if not parts:
        return None, evicted
    batch = concatenate(parts)
    parts.clear()
    return take(batch, np.argsort(batch.flow_id, kind="stable")), evicted


def _tell_evicted(count: int) -> None:
    if count:
        console.say(
            f"{count:,} flows were cut, as their packets did not fit in memory: give captures of "
            "fewer flows at a time"
        )


def _unseen(
    capture: CaptureLabels, batch: FlowBatch, seen: dict[FlowKey, str], matched: Matched
) -> FlowBatch:
    """The flows whose 5-tuple no other split has had."""
    split = capture.split
    own = np.array([seen.setdefault(key, split) == split for key in flow_keys(batch)], bool)
    matched.in_earlier_split += int((~own).sum())
    return take(batch, own)


def _digest(labels: LabelTable, options: FlowOptions) -> str:
    digest = hashlib.sha256(json.dumps([_FORMAT, asdict(options)], sort_keys=True).encode())
    for path in (labels.path, *(labels.folder / capture.file for capture in labels.captures)):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def _save(path: Path, flows: LabelledFlows) -> None:
    arrays = {f"flow.{name}": getattr(flows.flows, name) for name in COLUMNS}
    packets = flows.flows.first_packets
    arrays |= {f"packet.{name}": getattr(packets, name) for name in PACKET_COLUMNS}
    names = {"classes": flows.classes, "captures": flows.captures, "matched": asdict(flows.matched)}
    with atomic_path(path) as temporary:
        np.savez_compressed(
            temporary,
            **arrays,
            label=flows.label,
            capture=flows.capture,
            split=flows.split,
            names=np.frombuffer(json.dumps(names).encode(), np.uint8),
        )


def _load(path: Path) -> LabelledFlows | None:
    """What was kept, None where nothing was or it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            names = json.loads(kept["names"].tobytes())
            packets = FirstPackets(**{name: kept[f"packet.{name}"] for name in PACKET_COLUMNS})
            columns = {name: kept[f"flow.{name}"] for name in COLUMNS}
            return LabelledFlows(
                FlowBatch(**columns, first_packets=packets),
                kept["label"],
                kept["capture"],
                kept["split"],
                tuple(names["classes"]),
                tuple(names["captures"]),
                Matched(**names["matched"]),
            )
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
        return None


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
