# SPDX-License-Identifier: Apache-2.0
"""What the packaged precoder loses with 4-bit weights and 8-bit activations, and what it saves.

    python benchmarks/wireless/low_precision.py [--steps 1500] [--work FOLDER]

The twin starts from the packaged weights and trains on for a while with the rounding in place; on
channels that neither has seen it is compared with its teacher, and with the same rounding without
training. A second twin learns the bits of every weight and input, 2 to 16. Runs resume from their
folders. `wl-precode train --init icgnn_precoder --bits 4` (or `learn`) does the same.
"""

import argparse
from pathlib import Path

from fieldfare.common.console import table
from fieldfare.common.runtime import set_threads
from fieldfare.wireless.networks.models import load_precoder_network
from fieldfare.wireless.networks.quantised import (
    learn_bits,
    quantise,
    stored_bytes,
)
from fieldfare.wireless.networks.rounded import freeze
from fieldfare.wireless.training.run import train_precoder, training_settings
from fieldfare.wireless.training.samples import CellBatches, CellSettings
from fieldfare.wireless.training.validation import PrecoderValidation


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--model", default="icgnn_precoder")
    parser.add_argument("--work", type=Path, default=Path("low_precision_run"))
    options = parser.parse_args()
    set_threads(1)
    network, _ = load_precoder_network(options.model)
    rounded = quantise(network)
    trained = train_precoder(
        CellBatches(CellSettings()),
        training_settings(options.steps, 1e-3),
        options.work,
        start=quantise(network),
    )
    learnt = train_precoder(
        CellBatches(CellSettings()),
        training_settings(options.steps, 1e-2),
        options.work.with_name(options.work.name + "_learnt"),
        start=learn_bits(network),
    ).eval()
    measure = PrecoderValidation()
    names = {
        "float32": network,
        "rounded": freeze(rounded),
        "rounded, trained on": freeze(trained),
        "bits learned": freeze(learnt),
    }
    print("sum rate over WMMSE's, mean over fully loaded, part loaded and correlated channels")
    rows = [
        {"weights": name, "bytes": stored_bytes(net), "ratio": round(measure(net)["ratio"], 4)}
        for name, net in names.items()
    ]
    print(table(rows))
    print("\nbits learned, of weights and inputs")
    chosen = [
        {"layer": name, "weight": weight, "input": given}
        for name, (weight, given) in names["bits learned"].config["bits"].items()
    ]
    print(table(chosen))


if __name__ == "__main__":
    main()
