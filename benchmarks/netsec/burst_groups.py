# SPDX-License-Identifier: Apache-2.0
"""netFound's training step with bursts of like length together, against all padded as published.

    python benchmarks/netsec/burst_groups.py --labels "$FIELDFARE_DATA/pcaps/labels.csv"

The reduced network on the same batches of 32 flows of the train split, drawn at random; one thread,
CPU time of forward and backward pass. Also prints the share of places that hold a token.
"""

import argparse
import time
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from fieldfare.common.console import table
from fieldfare.netsec.data.dataset import load_flows
from fieldfare.netsec.data.labels import read_labels
from fieldfare.netsec.networks.netfound import CONFIGS, FlowInputs, NetFoundClassifier
from fieldfare.netsec.networks.netfound.architecture import NetFoundArchitecture


def seconds(network: NetFoundClassifier, batches: list[FlowInputs], together: bool) -> float:
    """CPU seconds of a step; the first batch warms up."""
    # The network pads all where a compiler wants a graph of fixed shape.
    with mock.patch.object(torch.compiler, "is_compiling", return_value=not together):
        for number, batch in enumerate(batches):
            if number == 1:
                began = time.process_time()
            network(batch).logsumexp(dim=1).sum().backward()
    return (time.process_time() - began) / (len(batches) - 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--batches", type=int, default=11)
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = CONFIGS["tiny"]
    train = load_flows(read_labels(options.labels), quiet=True).of_split("train")
    tokens = NetFoundArchitecture().read(train.flows, config)
    rng = np.random.default_rng(0)
    batches = [tokens.batch(rng.integers(len(tokens), size=32)) for _ in range(options.batches)]
    network = NetFoundClassifier(config, len(train.classes))
    padded, grouped = (seconds(network, batches, together) for together in (False, True))
    share = sum(batch.mask.sum() for batch in batches) / sum(b.mask.numel() for b in batches)
    row = {
        "places_with_tokens": float(share),
        "padded_s": padded,
        "grouped_s": grouped,
        "ratio": padded / grouped,
    }
    print(table([row]))


if __name__ == "__main__":
    main()
