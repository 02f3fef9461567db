# SPDX-License-Identifier: Apache-2.0
"""Five labelled flows a class: networks, trees, and a frozen encoder's neighbours; on test.

    python benchmarks/netsec/few_shot.py --labels "$FIELDFARE_DATA/pcaps/labels.csv" \\
        --init pretrained.safetensors [--work FOLDER] [--seeds 5] [--steps 250] \\
        [options of `net-traffic train`, such as --preset netfound/tiny]

Every seed draws other flows, the same for all contenders. Networks are trained and scored by the
commands' own code, ports and the other fields hidden; finished runs in --work are not done again.
"""

import argparse
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path

from fieldfare.common.console import table
from fieldfare.netsec.cli import main as net_traffic
from fieldfare.netsec.data.dataset import LabelledFlows, few_shot, load_flows
from fieldfare.netsec.data.labels import read_labels
from fieldfare.netsec.evaluation.baselines import Trees
from fieldfare.netsec.evaluation.embeddings import SingularKernel
from fieldfare.netsec.evaluation.scores import Scores, score
from fieldfare.netsec.inference.classifier import ClassifierConfig, FlowClassifier, load_classifier
from fieldfare.netsec.inference.start import first_network, load_start

HIDDEN = ("addresses", "ttl", "numbers", "checksums", "ports")


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


def untrained(options: argparse.Namespace, data: LabelledFlows) -> FlowClassifier:
    """The encoder of --init as it is, behind an untrained head."""
    start = load_start(str(options.init))
    network = first_network(start.kind, start.config, data.classes, start, None).eval()
    described = ClassifierConfig(
        start.kind.published.name, start.config.to_dict(), data.classes, HIDDEN
    )
    return FlowClassifier(network, described)


def neighbours(
    encoder: FlowClassifier, data: LabelledFlows, shots: int, seed: int, *, nearest: bool
) -> Scores:
    """The singular kernel, or the nearest flow, on the vectors of an encoder, on test."""
    train, test = data.of_split("train"), data.of_split("test")
    few = train.select(few_shot(train.label, shots, seed))
    kernel = SingularKernel(
        lambda flows: encoder.look(flows)[1], len(data.classes), nearest=nearest
    ).fit(few.flows, few.label)
    return score(test.label, kernel(test.flows), data.classes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--init", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("few_shot_runs"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--shots", type=int, default=5)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--untrained", action="store_true", help="Only what trains no network.")
    options, more = parser.parse_known_args()
    options.more = more
    data = load_flows(read_labels(options.labels), cache=options.work / "flows", quiet=True)
    contenders: dict[str, Callable[[int], Scores]] = {"trees": partial(trees, options, data)}
    encoder = untrained(options, data)
    for name, nearest in (("singular kernel", False), ("nearest flow", True)):
        contenders[f"{name}, frozen encoder"] = partial(
            neighbours, encoder, data, options.shots, nearest=nearest
        )
    if not options.untrained:
        contenders["pre-trained"] = partial(network, options, data, init=True)
        contenders["from scratch"] = partial(network, options, data, init=False)
    found: dict[str, list[Scores]] = {name: [] for name in contenders}
    for seed in range(options.seeds):
        for name, contender in contenders.items():
            found[name].append(contender(seed))
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
