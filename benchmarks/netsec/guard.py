# SPDX-License-Identifier: Apache-2.0
"""What `--guard` sees: evasion and plain damage, beside what needs no neighbours.

    python benchmarks/netsec/guard.py traffic_pair --labels labels.csv [--split val] [--write]

Evasion: against NetMamba, whose table of byte values tells by its gradient what another value would
cost (Ebrahimi et al., arXiv 1712.06751). The evader may set the second half of the payload of the
packets that it sends itself, as padding. `fgsm` takes the best value for all such bytes at once,
`pgd` a tenth of them in each of ten steps; flows whose label by the first network changed are told
from clean ones. Damage: flows whose payload bytes are exchanged with chance 0.2, whose payload is
shuffled within each packet, whose headers are damaged so. AUROC of three scores, small where a flow
should not be believed: the guard's agreement, the largest probability of the network, familiarity.
`flagged` is of the guard at its threshold. With --write the guard is fitted on val and kept in the
packaged model's file; nothing is chosen on test.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from fieldfare.common import console
from fieldfare.common.trust.guard import PART as GUARD
from fieldfare.common.trust.guard import Guard, read_guard
from fieldfare.common.weights import load_model_file, load_part, locate, save_with_page
from fieldfare.netsec.capture import FlowBatch
from fieldfare.netsec.data.dataset import load_flows
from fieldfare.netsec.data.flow_rows import first_packets_only, is_bare, packet_number, take
from fieldfare.netsec.data.labels import read_labels
from fieldfare.netsec.data.masking import mask
from fieldfare.netsec.evaluation.fitting import fit_guard
from fieldfare.netsec.inference.calibration import softmax
from fieldfare.netsec.inference.classifier import SECOND, FlowClassifier, load_classifier
from fieldfare.netsec.inference.evidence import PART
from fieldfare.netsec.inference.guard import agreement
from fieldfare.netsec.networks.architectures import TASK
from fieldfare.netsec.networks.netmamba.network import NetMambaClassifier, StrideTable

STEPS = 10
DAMAGE = 0.2
TOGETHER = 16


def free_bytes(flows: FlowBatch, classifier: FlowClassifier) -> np.ndarray:
    """(N, bytes) bool, places of the network's input that an evader may set."""
    packets = flows.first_packets
    column = np.arange(packets.data.shape[1])
    begin = packets.header + packets.payload // 2
    end = packets.header + packets.payload
    free = (column >= begin[:, None]) & (column < end[:, None]) & ~packets.backward[:, None]
    marked = replace(flows, first_packets=replace(packets, data=free.astype(np.uint8)))
    return read(marked, classifier) > 0


def read(flows: FlowBatch, classifier: FlowClassifier) -> np.ndarray:
    """(N, bytes) uint8, the network's input."""
    inputs = classifier.architecture.read(flows, classifier.network_config)
    return cast(Tensor, inputs.batch(np.arange(len(flows)))).numpy()


def written(flows: FlowBatch, rows: np.ndarray, free: np.ndarray, c: FlowClassifier) -> FlowBatch:
    """The flows with the free bytes of the network's input put back into their packets."""
    packets, number = flows.first_packets, packet_number(flows)
    config = c.network_config
    width = config.header_bytes + config.payload_bytes
    data = packets.data.copy()
    for row in np.flatnonzero(number < config.packets):
        at = number[row] * width + config.header_bytes
        flow = packets.flow[row]
        some = np.flatnonzero(free[flow, at : at + config.payload_bytes])
        data[row, packets.header[row] + some] = rows[flow, at + some]
    return replace(flows, first_packets=replace(packets, data=data))


def attack(classifier: FlowClassifier, flows: FlowBatch, steps: int) -> FlowBatch:
    """Flows whose free bytes are set against the network's own answer."""
    network = cast(NetMambaClassifier, classifier.network)
    table = cast(StrideTable, network.patch_embed)
    values = table.table.weight.detach().unflatten(0, (table.stride, 256))
    seen = mask(flows, classifier.hidden)
    rows = torch.from_numpy(read(seen, classifier))
    free = torch.from_numpy(free_bytes(flows, classifier))
    own = torch.from_numpy(classifier.look(flows)[0].argmax(axis=1))
    for first in range(0, len(rows), TOGETHER):
        some = slice(first, first + TOGETHER)
        for _ in range(steps):
            tokens = network.embed_tokens(rows[some]).detach().requires_grad_()
            loss = cross_entropy(
                network.classify(network.encode(tokens)[:, -1]), own[some], reduction="sum"
            )
            (gradient,) = torch.autograd.grad(loss, tokens)
            gain = torch.einsum("btd,svd->btsv", gradient, values).flatten(1, 2)
            now = gain.gather(2, rows[some].long()[..., None])
            best, value = (gain - now).max(dim=2)
            best = torch.where(free[some], best, -torch.inf)
            share = free[some].sum(dim=1) if steps == 1 else -(-free[some].sum(dim=1) // steps)
            rank = best.argsort(dim=1, descending=True).argsort(dim=1)
            changed = (rank < share[:, None]) & free[some] & (best > 0)
            rows[some] = torch.where(changed, value.to(torch.uint8), rows[some])
    return written(flows, rows.numpy(), free.numpy(), classifier)


def damage(flows: FlowBatch, kind: str) -> FlowBatch:
    """Flows as a fault would leave them."""
    rng = np.random.default_rng(0)
    packets = flows.first_packets
    column = np.arange(packets.data.shape[1])
    payload = (column >= packets.header[:, None]) & (
        column < (packets.header + packets.payload)[:, None]
    )
    if kind == "payload shuffled":
        order = np.where(payload, rng.random(packets.data.shape), column / len(column) + 1.0)
        order = np.where(column < packets.header[:, None], column / len(column) - 1.0, order)
        data = np.take_along_axis(packets.data, np.argsort(order, axis=1), axis=1)
    else:
        header = (column < packets.header[:, None]) & (column > 0)
        chosen = payload if kind == "payload bytes" else header
        chosen = chosen & (rng.random(packets.data.shape) < DAMAGE)
        data = np.where(chosen, rng.integers(0, 256, packets.data.shape), packets.data)
    return replace(flows, first_packets=replace(packets, data=data.astype(np.uint8)))


def auroc(clean: np.ndarray, other: np.ndarray) -> float:
    """Chance that a clean score is above another, ties half."""
    ordered = np.sort(other)
    below = np.searchsorted(ordered, clean, side="left")
    upto = np.searchsorted(ordered, clean, side="right")
    return float((below + upto).mean() / 2 / len(other))


def scores(classifier: FlowClassifier, guard: Guard, flows: FlowBatch) -> dict[str, np.ndarray]:
    """Of each flow."""
    found = classifier.classify(flows)
    return {
        "guard": agreement(guard, classifier, flows),
        "max_softmax": softmax(found.logits).max(axis=1),
        "familiarity": found.familiarity,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--labels", required=True)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--split", default="val")
    parser.add_argument("--flows", type=int, default=200, help="At most, drawn at random.")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    classifier, card = load_classifier(options.model)
    data = load_flows(read_labels(options.labels), cache=options.cache, quiet=True)
    path = locate(options.model, TASK)
    guard = fit_guard(classifier, data.of_split("val")) if options.write else read_guard(path)
    if guard is None:
        raise SystemExit("no guard: too few flows of val, or none kept; try --write")
    if options.write:
        parts = {part: load_part(path, part) for part in (PART, SECOND)}
        parts = {name: held for name, held in parts.items() if held}
        _, tensors = load_model_file(path)
        save_with_page(path, tensors, card, parts | {GUARD: guard.to_tensors()})
    flows = data.of_split(options.split).flows
    named = np.random.default_rng(0).permutation(np.flatnonzero(~is_bare(flows)))
    flows = take(flows, np.sort(named[: options.flows]))
    flows = first_packets_only(flows, classifier.kept["keep_packets"])
    clean = scores(classifier, guard, flows)
    label = classifier.look(flows)[0].argmax(axis=1)
    flagged = float(guard.flags(clean["guard"]).mean())
    rows = [{"input": f"clean {options.split}", "flows": len(flows), "flagged": flagged}]
    rows[0] |= dict.fromkeys(clean)
    changed = {
        kind: damage(flows, kind) for kind in ("payload bytes", "payload shuffled", "headers")
    }
    if isinstance(getattr(classifier.network, "patch_embed", None), StrideTable):
        for name, steps in (("fgsm", 1), ("pgd", STEPS)):
            moved = attack(classifier, flows, steps)
            fooled = classifier.look(moved)[0].argmax(axis=1) != label
            print(f"{name}: {fooled.mean():.1%} of {len(flows)} flows get another label")
            changed[name] = take(moved, fooled)
    for name, moved in changed.items():
        if not len(moved):
            continue
        found = scores(classifier, guard, moved)
        row = {"input": name, "flows": len(moved)}
        row["flagged"] = float(guard.flags(found["guard"]).mean())
        rows.append(row | {key: auroc(clean[key], values) for key, values in found.items()})
    print(options.model, "threshold", guard.threshold)
    print(console.table(rows))


if __name__ == "__main__":
    main()
