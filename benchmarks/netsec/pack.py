# SPDX-License-Identifier: Apache-2.0
"""Fit the evidence beside one network or two, measure them together, and write one model file.

    python benchmarks/netsec/pack.py NAME first.safetensors [second.safetensors] \\
        --labels labels.csv [--write] [--training TEXT] [--data TEXT]

Ports and embeddings come from the split train, weight, temperature, familiarity and window from
val; nothing is chosen on test, which is measured once for the card. Besides scores it tells what
becomes of flows of other protocols: those of the captures without a row in the labels file, with
payload, at ports that no flow of the split train has, at most 15 a capture.
"""

import argparse
import dataclasses
import datetime
import time
from pathlib import Path

import numpy as np

from fieldfare.common import console
from fieldfare.common.trust.guard import PART as GUARD
from fieldfare.common.trust.guard import Guard
from fieldfare.common.weights import Metric, ModelCard, load_model_file, locate, save_with_page
from fieldfare.netsec import weights
from fieldfare.netsec.capture import FlowBatch, read_flows
from fieldfare.netsec.data.dataset import TRAINING_OPTIONS, LabelledFlows, load_flows
from fieldfare.netsec.data.flow_rows import concatenate, is_bare, take
from fieldfare.netsec.data.labels import LabelTable, Matched, match, read_labels
from fieldfare.netsec.data.masking import mask
from fieldfare.netsec.data.variations import Chances, vary
from fieldfare.netsec.evaluation.compare import unknown_rows
from fieldfare.netsec.evaluation.fitting import fit_evidence, fit_guard
from fieldfare.netsec.evaluation.scores import Scores, score
from fieldfare.netsec.inference.classifier import SECOND, FlowClassifier, load_classifier
from fieldfare.netsec.inference.evidence import PART
from fieldfare.netsec.inference.ports import is_icmp, port_keys
from fieldfare.netsec.networks.architectures import TASK

MOST_OTHERS = 15
LIMITS = (
    "small captures made to test programs, many of one host or one tool; labels are those of a DPI "
    "engine. Classes of 3 to 11 flows in test swing macro-F1 by points. Flows of a known class at "
    "a port it has not had, or cut short, are often called unknown. Train on your own network "
    "before you rely on it"
)


def other_flows(table: LabelTable, split: str, known_ports: np.ndarray) -> FlowBatch | None:
    """Flows of other protocols in a split's captures."""
    found = []
    for capture in table.captures:
        if capture.split != split or capture.whole is not None:
            continue
        parts = list(read_flows(table.folder / capture.file, options=TRAINING_OPTIONS))
        if not parts:
            continue
        batch = concatenate(parts)
        unnamed = np.array([name is None for name in match(capture, batch, Matched())], bool)
        strange = unnamed & ~is_bare(batch) & ~is_icmp(batch)
        strange &= ~np.isin(port_keys(batch), known_ports)
        found.append(take(batch, np.flatnonzero(strange)[:MOST_OTHERS]))
    found = [batch for batch in found if len(batch)]
    return concatenate(found) if found else None


def misplaced(flows: FlowBatch) -> FlowBatch:
    """Each flow at the lower port of another one of them."""
    drawn = np.random.default_rng(0).permutation(len(flows))
    lower = np.minimum(flows.src_port, flows.dst_port)[drawn]
    return dataclasses.replace(
        flows, src_port=lower, dst_port=np.full(len(flows), 50_000, np.uint16)
    )


def measure(
    classifier: FlowClassifier, data: LabelledFlows, others: FlowBatch | None
) -> tuple[dict[str, float], Scores]:
    """Scores as they are, changed, with ports hidden, at wrong ports; known and others named."""
    wanted = data.label
    before = time.process_time()
    probabilities = classifier(data.flows)
    seconds = time.process_time() - before
    scores = score(wanted, probabilities, data.classes)
    hidden = score(wanted, classifier(mask(data.flows, ["ports"])), data.classes)
    wrong = score(wanted, classifier(misplaced(data.flows)), data.classes)
    assert scores.reliability is not None
    assert classifier.evidence is not None
    row = {
        "macro_f1": scores.macro_f1,
        "accuracy": scores.accuracy,
        "ece": scores.reliability.error,
        "hidden_f1": hidden.macro_f1,
        "hidden_accuracy": hidden.accuracy,
        "wrong_port_accuracy": wrong.accuracy,
        "flows_per_cpu_s": len(data) / seconds,
    }
    chances = Chances.draw(len(data), np.random.default_rng(0))
    changed = dataclasses.replace(data, flows=vary(data.flows, chances))
    row["varied_accuracy"] = score(wanted, classifier(changed.flows), data.classes).accuracy
    limit = classifier.evidence.unknown_below
    for name, flows in (("named_right", data), ("varied_named_right", changed)):
        rows = unknown_rows(classifier, flows) or []
        row[name] = next(r["named_right"] for r in rows if r["unknown_below"] == limit)
    if others is not None:
        named = classifier.classify(others).familiarity >= limit
        row |= {"others": len(others), "others_named": float(named.mean())}
    return row, scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("networks", nargs="+")
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--write", action="store_true", help="Measure test, write NAME.")
    parser.add_argument("--summary")
    parser.add_argument("--training", help="Instead of what the first network's card says.")
    parser.add_argument("--data", help="Instead of what the first network's card says.")
    parser.add_argument("--data-licence")
    options = parser.parse_args()
    table = read_labels(options.labels)
    data = load_flows(table, cache=options.cache, quiet=True)
    members = [load_classifier(name)[0] for name in options.networks]
    for member in members:
        member.evidence = member.second = None
    train = data.of_split("train")
    evidence = fit_evidence(members, train, data.of_split("val"))
    first, second = members[0], members[1] if len(members) > 1 else None
    classifier = FlowClassifier(
        first.network, first.config, options.name, evidence=evidence, second=second
    )
    ports = np.unique(port_keys(train.flows))
    splits = ["val", "test"] if options.write else ["val"]
    rows = {}
    for split in splits:
        rows[split], scores = measure(
            classifier, data.of_split(split), other_flows(table, split, ports)
        )
        print(split, console.table([rows[split]]), sep="\n", flush=True)
        low = [(row["class"], round(row["f1"], 2)) for row in scores.rows() if row["f1"] < 0.9]
        print("below 0.9:", low)
    stages = [(stage.weight, round(stage.temperature, 3)) for stage in evidence.stages]
    print("weight of the port, temperature:", stages, "window:", evidence.window)
    if options.write:
        write(options, classifier, fit_guard(classifier, data.of_split("val")), rows)


def write(
    options: argparse.Namespace,
    classifier: FlowClassifier,
    guard: Guard | None,
    rows: dict[str, dict[str, float]],
) -> None:
    """The model file and its page, into the package."""
    card, tensors = load_model_file(locate(options.networks[0], TASK))
    parts = {PART: classifier.evidence.to_tensors()} if classifier.evidence else {}
    if guard is not None:
        parts[GUARD] = guard.to_tensors()
    config = dataclasses.replace(classifier.config, second=None)
    if classifier.second is not None:
        second = classifier.second
        parts[SECOND] = second.network.state_dict()
        config = dataclasses.replace(config, second=dataclasses.asdict(second.config))
    test, val = rows["test"], rows["val"]
    told = "test; of networks and port"
    metrics = [
        Metric("macro-F1", test["macro_f1"], f"mean F1 of the classes; {told}"),
        Metric("accuracy", test["accuracy"], told),
        Metric("expected calibration error", test["ece"], f"15 bins; {told}"),
        Metric("macro-F1, ports hidden", test["hidden_f1"], "test; networks alone"),
        Metric("accuracy, ports hidden", test["hidden_accuracy"], "test; networks alone"),
        Metric("accuracy, wrong ports", test["wrong_port_accuracy"], "test; ports exchanged"),
        Metric(
            "named rightly", test["named_right"], "share of test flows; the rest: unknown or wrong"
        ),
        Metric(
            "other protocols named", test["others_named"],
            f"share of {test['others']} flows of no class in test captures that got a name",
        ),
        Metric("macro-F1, validation", val["macro_f1"], "what the model was chosen by"),
        Metric("macro-F1, validation, ports hidden", val["hidden_f1"], "networks alone"),
    ]  # fmt: skip
    named = {"summary": options.summary, "training": options.training, "data": options.data}
    named |= {"data_licence": options.data_licence}
    card = dataclasses.replace(
        card,
        name=options.name,
        config=dataclasses.asdict(config),
        metrics=tuple(metrics),
        weights_licence="Apache-2.0",
        limits=LIMITS,
        date=datetime.date.today().isoformat(),
        **{name: value for name, value in named.items() if value},
    )
    target = Path(weights.__file__).parent / f"{options.name}.safetensors"
    card = ModelCard.from_json(card.to_json())  # in the order that its file will have
    print(save_with_page(target, tensors, card, parts), target.stat().st_size)


if __name__ == "__main__":
    main()
