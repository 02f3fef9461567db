# SPDX-License-Identifier: Apache-2.0
"""Five labelled flows a class: a network with and without pre-training, and trees; on test.

    python benchmarks/netsec/few_shot.py --labels "$FIELDFARE_DATA/pcaps/labels.csv" \\
        --init pretrained.safetensors [--work FOLDER] [--seeds 5] [--steps 250] \\
        [options of `net-traffic train`, such as --preset netfound/tiny]

Every seed draws other flows, the same for all contenders. Networks are trained and scored by the
commands' own code, ports and the other fields hidden; finished runs in --work are not done again.
"""

import argparse
import statistics
from pathlib import Path

from fieldfare.common.console import table
from fieldfare.netsec.cli import main as net_traffic
from fieldfare.netsec.data.dataset import LabelledFlows, few_shot, load_flows
from fieldfare.netsec.data.labels import read_labels
from fieldfare.netsec.evaluation.baselines import Trees
from fieldfare.netsec.evaluation.scores import Scores, score
from fieldfare.netsec.inference.classifier import load_classifier


def network(options: argparse.Namespace, data: LabelledFlows, seed: int, init: bool) -> Scores:
    """A fine-tuned network on test."""
    folder = options.work / f"{'init' if init else 'fresh'}{seed}"
    model = folder / "model.safetensors"
    if not model.exists():
        command = ["train", options.labels, "-o", folder, "--shots", options.shots]
        command += ["--steps", options.steps, "--learning-rate", 3e-3, "--seed", seed, "--quiet"]
        command += options.more
        if init:  # brings its own size
            at = command.index("--preset") if "--preset" in command else len(command)
            command = [*command[:at], *command[at + 2 :], "--init", options.init]
        net_traffic([str(part) for part in command], standalone_mode=False)
    classifier, _ = load_classifier(str(model))
    test = data.of_split("test")
    return score(test.label, classifier(test.flows), data.classes)


def trees(options: argparse.Namespace, data: LabelledFlows, seed: int) -> Scores:
    """400 extra-trees on test."""
    train, test = data.of_split("train"), data.of_split("test")
    rows = few_shot(train.label, options.shots, seed)
    few = train.select(rows)
    forest = Trees(len(data.classes), seed).fit(few.flows, few.label)
    return score(test.label, forest(test.flows), data.classes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--init", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("few_shot_runs"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--shots", type=int, default=5)
    parser.add_argument("--steps", type=int, default=250)
    options, options.more = parser.parse_known_args()
    data = load_flows(read_labels(options.labels), cache=options.work / "flows", quiet=True)
    found: dict[str, list[Scores]] = {"pre-trained": [], "from scratch": [], "trees": []}
    for seed in range(options.seeds):
        found["pre-trained"].append(network(options, data, seed, init=True))
        found["from scratch"].append(network(options, data, seed, init=False))
        found["trees"].append(trees(options, data, seed))
        rows = []
        for name, scores in found.items():
            row: dict[str, float | str] = {"contender": name}
            for measure in ("macro_f1", "accuracy"):
                values = [getattr(each, measure) for each in scores]
                row[measure] = statistics.mean(values)
                row[f"{measure}_sd"] = statistics.stdev(values) if seed else 0.0
            rows.append(row)
        print(f"{seed + 1} seeds, {options.shots} flows a class")
        print(table(rows), flush=True)


if __name__ == "__main__":
    main()
