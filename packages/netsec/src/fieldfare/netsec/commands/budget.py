# SPDX-License-Identifier: Apache-2.0
"""What `infer` takes with a variant: captures are read once to count their flows, some labelled."""

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fieldfare.common.budget.process import held_bytes, peak_bytes
from fieldfare.common.commands.budget import Needs, limits_of
from fieldfare.common.commands.infer import seconds_of
from fieldfare.common.errors import InputError

from ..capture import FlowBatch, Kept
from ..data.flow_rows import concatenate, take
from ..data.recordings import has_no_end, open_recording, told_of_compiling
from ..inference.classifier import FlowClassifier, load_classifier
from ..inference.label import LabelSettings, label_flows
from ..options import DEFAULT_MODEL, InferOptions

FLOWS, FEW, SHARE = 128, 16, 4
"""So many are labelled on trial, if there are that many: the fewer, the more each costs; of few
flows a quarter, but as many as are labelled before that, since the first are slow."""

LATER = 96 * 2**20
"""Bytes of what is loaded only when labels are written."""

FROM_EACH = 32
"""At most so many come of one batch, so that they are not all of one hour."""

Recording = tuple[Path, ...]


@dataclass(frozen=True)
class Sample:
    """Of a recording: how many flows it has, some of them, what reading took."""

    count: int
    flows: FlowBatch | None
    seconds: float
    memory: int


def check_end(captures: Sequence[Path], options: InferOptions) -> None:
    """Raise InputError where limits are asked of a recording whose length nobody knows."""
    if limits_of(options) and has_no_end(captures, options):
        raise InputError(
            "--within, --max-memory and --budget: nobody knows how long this recording is; name "
            "a --variant"
        )


def sample(recording: Recording, options: InferOptions, kept: Kept) -> Sample:
    """Read a recording once."""
    before, began = held_bytes(), time.perf_counter()
    chosen: list[FlowBatch] = []
    count = 0
    quiet = told_of_compiling(quiet=options.quiet)
    early = options.early or 0
    with quiet, open_recording(recording, options, kept=kept, early_packets=early) as stream:
        for batch in stream:
            count += len(batch)
            missing = min(FLOWS - sum(map(len, chosen)), FROM_EACH, len(batch))
            if missing > 0:
                rows = np.linspace(0, len(batch) - 1, missing).astype(np.int64)
                chosen.append(take(batch, rows))
    return Sample(
        count,
        concatenate(chosen) if chosen else None,
        time.perf_counter() - began,
        max(0, peak_bytes() - before),
    )


def needs_of(
    settings_of: Callable[[InferOptions, FlowClassifier], LabelSettings],
) -> Callable[[InferOptions], Needs[Recording]]:
    """Of a variant's options; each recording is read once for all variants."""

    @functools.cache
    def read(recording: Recording, options: InferOptions) -> Sample:
        kept = load_classifier(DEFAULT_MODEL)[0].kept  # of all packaged models the most
        return sample(recording, options, kept)

    first: InferOptions | None = None

    def needs(chosen: InferOptions) -> Needs[Recording]:
        nonlocal first
        first = first or chosen
        given = first  # how packets become flows does not depend on the variant

        def seconds(recording: Recording) -> float:
            found = read(recording, given)
            if found.flows is None:
                return found.seconds
            few = min(max(FEW, found.count // SHARE), len(found.flows))
            flows = take(found.flows, np.linspace(0, len(found.flows) - 1, few).astype(np.int64))
            classifier, _ = load_classifier(chosen.model, show=chosen.show, device=chosen.device)
            settings = settings_of(chosen, classifier)
            label_flows(classifier, take(flows, np.arange(min(FEW, len(flows)))), settings)
            each = seconds_of(
                lambda: label_flows(classifier, flows, settings),
                count=1 / len(flows),
                warm_up=False,
            )
            return found.seconds + found.count * each

        return Needs(lambda recording: read(recording, given).memory + LATER, seconds)

    return needs
