# SPDX-License-Identifier: Apache-2.0
"""What the disagreement of THOR's experts says of an answer, alone and within familiarity.

    python benchmarks/netsec/spread.py --labels labels.csv -o runs/

Of the network that `experts.py train --systems THOR` left in `-o`. On the split val: AUROC of wrong
answers against right ones, and of flows of other protocols (in captures of val, and of train)
against known ones, by the disagreement and by the largest softmax of the experts' mean; and by the
familiarity that `infer` goes by, fitted without the disagreement and with it. Familiarity of known
flows is fitted on one half of val's captures and told on the other, in turn; `named` is the share
of flows of other protocols that get a name where 90 % of the known ones keep a right one.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from experts import HIDDEN, SYSTEMS, trained
from pack import other_flows

from fieldfare.common import console
from fieldfare.common.experts.stochastic import members
from fieldfare.netsec.capture import FlowBatch
from fieldfare.netsec.data.dataset import LabelledFlows, load_flows
from fieldfare.netsec.data.labels import read_labels
from fieldfare.netsec.evaluation.fitting import fit_evidence
from fieldfare.netsec.inference.calibration import fit_temperature
from fieldfare.netsec.inference.classifier import ClassifierConfig, FlowClassifier
from fieldfare.netsec.inference.ports import port_keys
from fieldfare.netsec.inference.spread import experts_to_ask
from fieldfare.netsec.inference.start import load_start


def auroc(high: np.ndarray, low: np.ndarray) -> float:
    """Share of pairs in which the first is higher; ties count half."""
    difference = high[:, None] - low
    return float((difference > 0).mean() + (difference == 0).mean() / 2)


def named(strange: np.ndarray, known: np.ndarray, right: np.ndarray) -> float:
    """Share of strange flows that pass where 90 % of the known ones keep a right name."""
    looks = np.sort(np.where(right, known, np.inf))
    limit = looks[min(len(looks) - 1, int(np.ceil(0.9 * len(looks))) - 1)]
    return float((strange <= limit).mean())


def alone(
    network: FlowClassifier, val: LabelledFlows, strange: dict[str, FlowBatch]
) -> list[dict[str, Any]]:
    """Disagreement and largest softmax by themselves."""
    count = experts_to_ask(network.network)

    def looks(flows: FlowBatch) -> dict[str, np.ndarray]:
        every = members(network.network, lambda: torch.from_numpy(network.look(flows)[0]), count)
        share = every.double().softmax(dim=2).mean(dim=0)
        return {
            "disagreement": network.spread(flows, count),
            "largest softmax": -share.amax(dim=1).numpy(),
            "answer": share.argmax(dim=1).numpy(),
        }

    known = looks(val.flows)
    others = {name: looks(flows) for name, flows in strange.items()}
    right = known["answer"] == val.label
    print(f"{(~right).sum()} of {len(right)} wrong")
    return [row(sign, known[sign], right, {n: o[sign] for n, o in others.items()})
            for sign in ("disagreement", "largest softmax")]  # fmt: skip


def row(
    sign: str, known: np.ndarray, right: np.ndarray, others: dict[str, np.ndarray]
) -> dict[str, Any]:
    """AUROC and named flows by what is large where an answer is to be doubted."""
    found: dict[str, Any] = {"sign": sign, "wrong answers": auroc(known[~right], known[right])}
    for name, strange in others.items():
        found |= {f"{name}, {len(strange)}": auroc(strange, known)}
        found |= {f"named of {name}": named(strange, known, right)}
    return found


def within(
    network: FlowClassifier,
    train: LabelledFlows,
    val: LabelledFlows,
    strange: dict[str, FlowBatch],
    *,
    disagreement: bool,
) -> dict[str, Any]:
    """The same of familiarity, each half of val by what was fitted on the other."""
    known, right = np.zeros(len(val)), np.zeros(len(val), bool)
    others = {name: np.zeros((2, len(flows))) for name, flows in strange.items()}
    half = np.unique(val.capture, return_inverse=True)[1] % 2
    for fold in (0, 1):
        own, away = (val.select(np.flatnonzero(half == side)) for side in (fold, 1 - fold))
        evidence = fit_evidence([network], train, own, disagreement=disagreement)
        judge = FlowClassifier(network.network, network.config, "judge", evidence=evidence)
        found = judge.classify(away.flows)
        known[half != fold] = -found.familiarity
        right[half != fold] = found.probabilities.argmax(axis=1) == away.label
        for name, flows in strange.items():
            others[name][fold] = -judge.classify(flows).familiarity
    name = "familiarity with disagreement" if disagreement else "familiarity"
    return row(name, known, right, {n: values.mean(axis=0) for n, values in others.items()})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, default=Path("experts_runs"))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.quiet = True
    torch.set_num_threads(1)
    labels = read_labels(options.labels)
    data = load_flows(labels, cache=options.output / "flows", quiet=True)
    system = next(system for system in SYSTEMS if system.name == "THOR")
    begin, trunk = trained(options, system, load_start("netfound_tiny"), data, options.seed)
    assert system.experts is not None
    described = ClassifierConfig(
        "netfound", begin.config.to_dict(), data.classes, HIDDEN, experts=system.experts.to_dict()
    )
    network = FlowClassifier(trunk, described, "THOR")
    train, val = data.of_split("train"), data.of_split("val")
    temperature = fit_temperature(network.look(val.flows)[0], val.label)
    described = ClassifierConfig(**{**vars(described), "temperature": temperature})
    network = FlowClassifier(trunk, described, "THOR")
    ports = np.unique(port_keys(train.flows))
    strange = {split: other_flows(labels, split, ports) for split in ("val", "train")}
    some = {name: flows for name, flows in strange.items() if flows is not None}
    rows = alone(network, val, some)
    for disagreement in (False, True):
        rows.append(within(network, train, val, some, disagreement=disagreement))
    print(console.table(rows))


if __name__ == "__main__":
    main()
