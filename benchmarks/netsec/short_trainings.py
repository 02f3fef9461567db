# SPDX-License-Identifier: Apache-2.0
"""What `train --robust` and `--contrast` give: short fine-tunings that differ in this alone.

    python benchmarks/netsec/short_trainings.py robust   --labels labels.csv -o runs/
    python benchmarks/netsec/short_trainings.py contrast --labels labels.csv -o runs/

All begin with the same packaged network, head too, and take equal steps. Printed for the split val,
ports hidden, by the network alone: macro-F1 and accuracy, clean, after the first packets of each
flow, and where each sender keeps the best of 8 disguises. `--shown ttl numbers` lets the network
see fields that a sender sets as he likes; by default it sees neither. Goes on where it stopped.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fieldfare.common import console
from fieldfare.common.training import TrainSettings
from fieldfare.netsec.capture import FlowBatch
from fieldfare.netsec.data.dataset import LabelledFlows, load_flows
from fieldfare.netsec.data.labels import read_labels
from fieldfare.netsec.evaluation.early import first_packets_curve
from fieldfare.netsec.evaluation.robust import robust_scores
from fieldfare.netsec.evaluation.scores import score
from fieldfare.netsec.inference.calibration import softmax
from fieldfare.netsec.inference.classifier import ClassifierConfig, FlowClassifier
from fieldfare.netsec.inference.start import load_start
from fieldfare.netsec.training.run import FineTuning, train_classifier

HIDDEN = ("addresses", "ports", "ttl", "numbers", "checksums")
ARMS: dict[str, dict[str, dict[str, Any]]] = {
    "robust": {"plain": {}, "robust 4": {"robust": 4}},
    "contrast": {
        "plain": {},
        "also cut short": {"contrast": 0.0},
        "contrast 0.1": {"contrast": 0.1},
    },
}
PACKETS = (1, 2, 4, 8, 72)
EVASIONS = 8


def trained(
    options: argparse.Namespace, data: LabelledFlows, arm: str, how: dict[str, Any], seed: int
) -> FlowClassifier:
    """A fine-tuned network; a finished run is only read."""
    start = load_start(options.init)
    hidden = tuple(name for name in HIDDEN if name not in options.shown)
    settings = TrainSettings(
        steps=options.steps, batch_size=32, learning_rate=options.rate, seed=seed,
        warmup_steps=options.steps // 10, weight_decay=0.05, betas=(0.9, 0.95), clip_norm=1.0,
        ema_decay=0.98, checkpoint_every=50, log_every=20, validate_every=10**9,
    )  # fmt: skip
    folder = options.output / "_".join(
        [options.init, *options.shown, arm.replace(" ", ""), str(seed)]
    )
    network, _ = train_classifier(
        start.kind, start.config, data, FineTuning(hidden, per_capture=40, **how), settings, folder,
        start=start, keep_head=True, quiet=options.quiet,
    )  # fmt: skip
    described = ClassifierConfig(
        start.kind.published.name, start.config.to_dict(), data.classes, hidden
    )
    return FlowClassifier(network.eval(), described, arm)


def measure(classifier: FlowClassifier, val: LabelledFlows, *, early: bool) -> dict[str, Any]:
    """Scores on validation flows."""

    def classify(flows: FlowBatch) -> np.ndarray:
        return softmax(classifier.look(flows)[0])

    clean = score(val.label, classify(val.flows), val.classes)
    found: dict[str, Any] = {"macro_f1": clean.macro_f1, "accuracy": clean.accuracy}
    if early:
        curve = first_packets_curve(classify, val.flows, val.label, val.classes, PACKETS)
        return found | {f"first {row['packets']}": row["macro_f1"] for row in curve}
    left = robust_scores(classify, val.flows, val.label, val.classes, EVASIONS)
    return found | {"robust_macro_f1": left.macro_f1, "robust_accuracy": left.accuracy}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=list(ARMS))
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, default=Path("short_runs"))
    parser.add_argument("--init", default="netmamba_small")
    parser.add_argument("--shown", nargs="*", default=[], choices=HIDDEN)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--quiet", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.output.mkdir(parents=True, exist_ok=True)
    file = options.output / f"{options.what}.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    about = {"init": options.init, "shown": " ".join(options.shown), "steps": options.steps}
    data = load_flows(
        read_labels(options.labels), cache=options.output / "flows", quiet=options.quiet
    )
    val = data.of_split("val")
    for seed in range(options.seeds):
        for arm, how in ARMS[options.what].items():
            row = about | {"arm": arm, "seed": seed}
            if any(row.items() <= done.items() for done in rows):
                continue
            classifier = trained(options, data, arm, how, seed)
            rows.append(row | measure(classifier, val, early=options.what == "contrast"))
            with file.open("a") as out:
                out.write(json.dumps(rows[-1]) + "\n")
    print(console.table([row for row in rows if about.items() <= row.items()]))


if __name__ == "__main__":
    main()
