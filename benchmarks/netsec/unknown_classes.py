# SPDX-License-Identifier: Apache-2.0
"""Which score tells flows of unknown classes: classes held out one group at a time.

    python benchmarks/netsec/unknown_classes.py --labels labels.csv --cache looked.npz
    python benchmarks/netsec/unknown_classes.py --labels labels.csv --cache looked.npz \\
        --retrain runs/ --steps 400

For each group of classes the heads of both networks of the packaged pair, its ports, familiarity
and calibration are fitted to the other classes alone; then the flows of val of the held-out classes
are unknown ones. The trunks stay as packaged: they have seen the held-out classes in training, so
these numbers are better than those of classes that nobody has seen. With --retrain both networks
are trained for each group from random weights on the other classes alone, so that nothing has seen
the group; the same command goes on where it stopped. Beside them `others`: flows of other protocols
in the captures of val and train, which no part has seen (see pack.py).

For each score: AUROC between known and unknown flows, and what share of the unknown ones is named
at the threshold at which 90 % of the known ones keep a right name. Then, for the pair as packaged,
what thresholds of familiarity give, and whether a higher confidence is right more often.

Looking at all flows takes minutes; it is kept in --cache, so that the rest can be run again.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from guard import auroc
from pack import other_flows

from fieldfare.common import console
from fieldfare.common.training import TrainSettings
from fieldfare.netsec.capture import FlowBatch
from fieldfare.netsec.data.dataset import LabelledFlows, load_flows
from fieldfare.netsec.data.flow_rows import concatenate
from fieldfare.netsec.data.labels import read_labels
from fieldfare.netsec.data.variations import capped
from fieldfare.netsec.evaluation.fitting import fit_evidence
from fieldfare.netsec.inference.calibration import log_softmax, softmax
from fieldfare.netsec.inference.classifier import (
    Classified,
    ClassifierConfig,
    FlowClassifier,
    load_classifier,
)
from fieldfare.netsec.inference.evidence import Evidence, signs
from fieldfare.netsec.inference.ports import port_keys
from fieldfare.netsec.networks.architectures import preset
from fieldfare.netsec.training.run import FineTuning, train_classifier

GROUPS = {
    "names": ("DNS", "MDNS", "NETBIOS"),
    "web": ("HTTP", "SSDP"),
    "secured": ("TLS", "QUIC", "DTLS", "SSH"),
    "directories": ("LDAP", "KERBEROS", "SNMP"),
    "files": ("FTP", "NFS", "BITTORRENT"),
    "small": ("DHCP", "NTP", "STUN", "DNP3"),
}
PRESETS = ("netmamba/small", "netfound/tiny")
HOW = FineTuning(
    hidden=("addresses", "ports", "ttl", "numbers", "checksums"), per_capture=40, variations=2
)
PER_CAPTURE = 40
KEPT_RIGHT = 0.9
THRESHOLDS = (0.05, 0.06, 0.07, 0.08, 0.09, 0.1, 0.11, 0.12)


@dataclass
class Config:
    """Stands for `ClassifierConfig`."""

    temperature: float = 1.0


@dataclass
class Member:
    """A network whose embeddings are known by the numbers of flows, with a head of its own."""

    classes: tuple[str, ...]
    embeddings: np.ndarray
    weight: np.ndarray
    bias: np.ndarray
    config: Config = field(default_factory=Config)

    def classify(self, flows: FlowBatch) -> Classified:
        """As of `FlowClassifier`; `flow_id` is the number."""
        seen = self.embeddings[flows.flow_id]
        logits = (seen @ self.weight.T + self.bias).astype(np.float32)
        nothing = np.full(len(flows), np.nan)
        return Classified(logits, softmax(logits), softmax(logits), nothing, seen)


def fit_head(seen: np.ndarray, label: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Softmax regression with a little weight decay."""
    centre, spread = seen.mean(axis=0), seen.std(axis=0) + 1e-6
    inputs = torch.from_numpy((seen - centre) / spread).double()
    wanted = torch.from_numpy(label)
    weight = torch.zeros(classes, seen.shape[1], dtype=torch.double, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.double, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(inputs @ weight.T + bias, wanted)
        loss = loss + 1e-4 * (weight**2).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    scaled = weight.detach().numpy() / spread
    return scaled, bias.detach().numpy() - scaled @ centre


def embedded(network: FlowClassifier, data: LabelledFlows, others: FlowBatch) -> np.ndarray:
    """Of all flows, then of the others."""
    return np.concatenate([network.look(flows)[1] for flows in (data.flows, others)])


def look(options: argparse.Namespace, data: LabelledFlows, others: FlowBatch) -> list[np.ndarray]:
    """Embeddings (flows and others) of each network."""
    if options.cache.is_file():
        with np.load(options.cache) as kept:
            found = [kept["first"], kept["second"]]
        if len(found[0]) == len(data) + len(others):
            return found
    pair = load_classifier("traffic_pair")[0]
    found = [embedded(member, data, others) for member in (pair, pair.second)]
    np.savez(options.cache, first=found[0], second=found[1])
    return found


def all_scores(
    evidence: Evidence, members: list[Member], flows: FlowBatch
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Probabilities, and scores that are small where a class is unknown."""
    found = [member.classify(flows) for member in members]
    logs = [log_softmax(one.logits) for one in found]
    embeddings = [one.embeddings for one in found]
    both = evidence.judge(flows, logs, embeddings)
    first = evidence.judge(flows, logs[:1], embeddings[:1])
    unsure = first.familiarity < evidence.window
    probabilities = np.where(unsure[:, None], both.probabilities, first.probabilities)
    stage = evidence.stages[1]
    columns = signs(both.probabilities, evidence.ports(flows), evidence.familiar, embeddings)
    unit = np.clip((columns - stage.centre) / stage.spread, -6, 6)
    networks = softmax(np.mean(logs, axis=0))
    apart = np.abs(softmax(found[0].logits) - softmax(found[1].logits)).sum(axis=1)
    scores = {
        "max softmax": networks.max(axis=1),
        "entropy": (networks * np.log(np.maximum(networks, 1e-12))).sum(axis=1),
        "energy": sum(np.log(np.exp(one.logits.astype(float)).sum(axis=1)) for one in found),
        "agreement of both": -apart,
        "port": unit[:, 1],
        "distance of embeddings": unit[:, 2:].sum(axis=1),
        "log-odds": unit[:, 0],
        "all, port once": unit.sum(axis=1),
        "all, port twice (packaged)": unit.sum(axis=1) + unit[:, 1],
        "all, port three times": unit.sum(axis=1) + 2 * unit[:, 1],
        "familiarity (cascade, packaged)": np.where(unsure, both.familiarity, first.familiarity),
    }
    return probabilities, scores


def named_at(known: np.ndarray, right: np.ndarray, other: np.ndarray) -> float:
    """Share of others named where `KEPT_RIGHT` of the known keep a right name; 1: none does."""
    kept = np.sort(known[right])[::-1]
    wanted = int(np.ceil(KEPT_RIGHT * len(known)))
    if wanted > len(kept):
        return 1.0
    return float((other >= kept[wanted - 1]).mean())


def subset(data: LabelledFlows, rows: np.ndarray, classes: list[str]) -> LabelledFlows:
    """Flows of some classes, numbered anew."""
    found = data.select(rows)
    place = np.array([classes.index(n) if n in classes else -1 for n in data.classes])
    return replace(found, label=place[found.label], classes=tuple(classes))


def retrained(
    name: str, data: LabelledFlows, others: FlowBatch, options: argparse.Namespace
) -> list[np.ndarray]:
    """Embeddings of two networks that have never seen a group of classes."""
    classes = [known for known in data.classes if known not in GROUPS[name]]
    known = np.flatnonzero(np.isin(np.array(data.classes)[data.label], classes))
    found = []
    for wanted in PRESETS:
        folder = options.retrain / f"{wanted.replace('/', '_')}_{name}"
        kept = folder / "embeddings.npy"
        if not kept.is_file():
            kind, config = preset(wanted)
            settings = TrainSettings(
                steps=options.steps, batch_size=32, learning_rate=2e-3, seed=0,
                warmup_steps=options.steps // 10, weight_decay=0.05, betas=(0.9, 0.95),
                clip_norm=1.0, ema_decay=0.98, checkpoint_every=50, log_every=20,
                validate_every=options.steps,
            )  # fmt: skip
            trained, _ = train_classifier(
                kind, config, subset(data, known, classes), HOW, settings, folder
            )
            described = ClassifierConfig(
                kind.published.name, config.to_dict(), tuple(classes), HOW.hidden
            )
            np.save(kept, embedded(FlowClassifier(trained.eval(), described, name), data, others))
        found.append(np.load(kept))
    return found


def held_out(
    data: LabelledFlows, embeddings_for: Callable[[str], list[np.ndarray]], others: FlowBatch
) -> None:
    """Print what each score tells, over all groups.

    Args:
        embeddings_for: of each network, of all flows and the others, by the group that is held out.
    """
    gathered: dict[str, list[tuple[float, float, int]]] = {}
    strange: dict[str, list[tuple[float, float, int]]] = {}
    for name, group in GROUPS.items():
        classes = [known for known in data.classes if known not in group]
        known = np.isin(np.array(data.classes)[data.label], classes)
        train = np.flatnonzero((data.split == 0) & known)
        train = train[capped(data.label[train], data.capture[train], PER_CAPTURE, seed=0)]
        val, held = (np.flatnonzero((data.split == 1) & which) for which in (known, ~known))
        fitted = subset(data, train, classes)
        members = [
            Member(
                tuple(classes), seen, *fit_head(seen[train], fitted.label, len(classes)), Config()
            )
            for seen in embeddings_for(name)
        ]
        known_val = subset(data, val, classes)
        evidence = fit_evidence(members, fitted, known_val, disagreement=False)  # type: ignore
        probabilities, inside = all_scores(evidence, members, known_val.flows)
        right = probabilities.argmax(axis=1) == known_val.label
        _, outside = all_scores(evidence, members, data.select(held).flows)
        _, beyond = all_scores(evidence, members, others)
        accuracy = f"{right.mean():.3f}"
        print(f"{name}: {len(val)} known flows of val, accuracy {accuracy}; {len(held)} held out")
        for score, values in inside.items():
            for target, other in ((gathered, outside[score]), (strange, beyond[score])):
                row = (auroc(values, other), named_at(values, right, other), len(other))
                target.setdefault(score, []).append(row)
    rows = []
    for score, found in gathered.items():
        counts = np.array([row[2] for row in found])
        mean = [np.average([row[place] for row in found], weights=counts) for place in (0, 1)]
        beyond_rows = np.mean([row[:2] for row in strange[score]], axis=0)
        worst = max(row[1] for row in found)
        rows.append(
            {
                "score": score, "auroc": mean[0], "named": mean[1], "named_worst_group": worst,
                "others_auroc": beyond_rows[0], "others_named": beyond_rows[1],
            }
        )  # fmt: skip
    print(console.table(rows))


def packaged(data: LabelledFlows, others: dict[str, FlowBatch]) -> None:
    """Print thresholds and calibration of the pair as packaged, on val."""
    pair = load_classifier("traffic_pair")[0]
    val = data.of_split("val")
    found = pair.classify(val.flows)
    right = found.probabilities.argmax(axis=1) == val.label
    strange = {name: pair.classify(flows).familiarity for name, flows in others.items()}
    rows = []
    for limit in THRESHOLDS:
        row = {"unknown_below": limit, "named_right": (right & (found.familiarity >= limit)).mean()}
        row |= {f"others_named, {n}": (values >= limit).mean() for n, values in strange.items()}
        rows.append(row)
    print({name: len(values) for name, values in others.items()}, console.table(rows), sep="\n")
    confidence = found.probabilities.max(axis=1)
    order = np.argsort(confidence, kind="stable")
    sizes = (20, 40, 80)
    ends = [*np.cumsum(sizes), len(order)]
    rows = []
    for first, last in zip([0, *ends[:-1]], ends, strict=True):
        some = order[first:last]
        rows.append(
            {
                "flows": len(some), "least": confidence[some[0]],
                "confidence": confidence[some].mean(), "right": right[some].mean(),
            }
        )  # fmt: skip
    print("flows of val by confidence", console.table(rows), sep="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--retrain", type=Path, metavar="FOLDER", help="Of the trainings.")
    parser.add_argument("--steps", type=int, default=400, help="Of each training.")
    options = parser.parse_args()
    table = read_labels(options.labels)
    data = load_flows(table, cache=options.cache.parent, quiet=True)
    data = data.select(np.flatnonzero(data.split < 2))
    ports = np.unique(port_keys(data.of_split("train").flows))
    others = {split: other_flows(table, split, ports) for split in ("val", "train")}
    if any(flows is None for flows in others.values()):
        raise SystemExit("no flows of other protocols")
    strange = concatenate(list(others.values()))
    if options.retrain:
        embeddings = {name: retrained(name, data, strange, options) for name in GROUPS}
    else:
        packaged(data, others)
        embeddings = dict.fromkeys(GROUPS, look(options, data, strange))
    numbered = replace(data, flows=replace(data.flows, flow_id=np.arange(len(data))))
    strange = replace(strange, flow_id=np.arange(len(strange)) + len(data))
    held_out(numbered, embeddings.__getitem__, strange)


if __name__ == "__main__":
    main()
