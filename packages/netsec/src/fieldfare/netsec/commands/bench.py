# SPDX-License-Identifier: Apache-2.0
"""net-traffic bench."""

from pathlib import Path

import numpy as np

from fieldfare.common import console, efficiency
from fieldfare.common.errors import InputError
from fieldfare.common.runtime import set_threads

from ..capture import FlowOptions, read_flows
from ..data.flow_rows import concatenate, take
from ..inference.classifier import load_classifier
from ..options import BenchOptions


def bench(capture: Path, options: BenchOptions) -> None:
    """Print flows a second, from packets to labels, on the flows of one capture."""
    threads = set_threads()
    classifier, card = load_classifier(options.model, device=options.device)
    batches = list(read_flows(capture, options=FlowOptions(**classifier.kept)))
    if not batches:
        raise InputError(f"{capture}: holds no flows; choose another capture")
    flows = concatenate(batches)
    flows = take(flows, np.arange(options.batch) % len(flows))
    timing = efficiency.bench(classifier.classify, flows, repeats=options.repeats)
    result = {
        "model": card.name,
        "parameters": classifier.parameters(),
        "device": str(classifier.device),
        "threads": threads,
        "flows": len(flows),
        "median_s": timing.median_s,
        "iqr_s": timing.iqr_s,
        "flows_per_s": len(flows) / timing.median_s,
        "peak_mb": None if timing.peak_bytes is None else timing.peak_bytes / 2**20,
    }
    console.emit(result, as_json=options.as_json, text=console.table([result]))
