# SPDX-License-Identifier: Apache-2.0
"""Measure every variant of the packaged traffic models and keep them for `infer --within`.

    python benchmarks/netsec/traffic_variants.py --data "$FIELDFARE_DATA"

Quality is macro-F1 of network and port on the validation flows of the labelled captures, which the
models were chosen by; with few flows of some classes, a hundredth is noise. Cost is of 64 flows of
12 packets of random bytes, of which a pair asks both networks. Processor time on one thread.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fieldfare.common.budget.collect import collect
from fieldfare.common.budget.variants import SUFFIX
from fieldfare.common.weights import locate
from fieldfare.netsec import weights
from fieldfare.netsec.data.dataset import LabelledFlows, load_flows, training_options
from fieldfare.netsec.data.flow_rows import first_packets_only
from fieldfare.netsec.data.labels import read_labels
from fieldfare.netsec.evaluation.scores import score
from fieldfare.netsec.inference.classifier import load_classifier
from fieldfare.netsec.inference.units import FLOWS, PACKETS
from fieldfare.netsec.networks.architectures import TASK
from fieldfare.netsec.options import DEFAULT_MODEL

NAMES = {
    "traffic_pair": "pair",
    "netmamba_small": "netmamba",
    "netfound_tiny": "netfound",
    "netfound_experts": "experts",
}
FIRST = {
    "pair": (None, 10, 5),
    "netmamba": (None,),
    "netfound": (None, 10, 5, 4, 3, 2),
    "experts": (None, 5),
}


def plans() -> dict[str, dict[str, Any]]:
    """Settings by name."""
    return {
        name if first is None else f"{name}-{first}": {
            "model": model,
            "first_packets": None if first is None else [first],
        }
        for model, name in NAMES.items()
        for first in FIRST[name]
    }


def validation(data: Path) -> LabelledFlows:
    """The labelled flows of the split val."""
    table = read_labels(data / "pcaps/labels.csv", None, None)
    kept = training_options(load_classifier(DEFAULT_MODEL)[0].kept, trees=False, timed=table.timed)
    return load_flows(table, options=kept, cache=None, quiet=True).of_split("val")


def quality(settings: dict[str, Any], flows: LabelledFlows) -> float:
    """Macro-F1."""
    classifier, _ = load_classifier(settings["model"])
    first = settings["first_packets"]
    seen = first_packets_only(flows.flows, first[0]) if first else flows.flows
    place = np.array([classifier.classes.index(name) for name in flows.classes])
    return score(place[flows.label], classifier(seen), classifier.classes).macro_f1


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    flows = validation(options.data)
    found = collect(
        TASK,
        plans(),
        unit=f"{FLOWS} flows of {PACKETS} packets",
        metric=f"macro-F1 on {len(flows)} validation flows",
        quality=lambda settings: quality(dict(settings), flows),
        weights=lambda settings: locate(settings["model"], TASK).stat().st_size,
        repeats=options.repeats,
    )
    found.write(Path(weights.__file__).parent / f"{TASK}{SUFFIX}")


if __name__ == "__main__":
    main()
