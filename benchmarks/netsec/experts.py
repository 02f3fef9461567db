# SPDX-License-Identifier: Apache-2.0
"""What mixtures of experts give netFound: feed-forward MACs, bytes and macro-F1 of each system.

    python benchmarks/netsec/experts.py train  --labels labels.csv -o runs/
    python benchmarks/netsec/experts.py test   --labels labels.csv -o runs/
    python benchmarks/netsec/experts.py save   --labels labels.csv -o runs/ --systems NAME --k K
    python benchmarks/netsec/experts.py table  -o runs/
    python benchmarks/netsec/experts.py cost   --captures a.pcap b.pcap

Each system begins with the trained weights of `netfound_tiny` (head too), its feed-forward layers
cut into experts, and is fine-tuned on the split train for as many steps as all others: so does the
dense network itself ("dense, equal weights"), and one with half of its hidden units, those of the
largest mean activation on train ("dense, equal MACs"). `train` appends lines to `val.jsonl` for
each system and seed: as trained, at each place of its dial, merged, pruned; it goes on where it
stopped. `test` measures the trained systems once on test; `save` writes the last seed of one system
as a model file; `table` prints what there is; `cost` counts all MACs of the packaged networks, and
their processor time. What the disagreement of THOR's experts says is in `spread.py`.

MACs are those of the feed-forward layers and their routers for the tokens of the flows measured,
over those of the dense layers (router in brackets); no token of padding counts. Ports are hidden
from the network. Nothing is chosen on test.
"""

import argparse
import copy
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fieldfare.common import console
from fieldfare.common.experts import chains
from fieldfare.common.experts.host import layers
from fieldfare.common.experts.merge import merge_network
from fieldfare.common.experts.prune import prune_network
from fieldfare.common.training import TrainSettings
from fieldfare.common.weights import ModelCard, save_model_file
from fieldfare.netsec.capture import FlowOptions, read_flows
from fieldfare.netsec.data.dataset import LabelledFlows, load_flows
from fieldfare.netsec.data.flow_rows import concatenate
from fieldfare.netsec.data.labels import read_labels
from fieldfare.netsec.data.masking import mask
from fieldfare.netsec.evaluation.scores import score
from fieldfare.netsec.inference.calibration import fit_temperature
from fieldfare.netsec.inference.classifier import ClassifierConfig, FlowClassifier, load_classifier
from fieldfare.netsec.inference.experts import passes
from fieldfare.netsec.inference.start import Start, load_start
from fieldfare.netsec.networks.architectures import TASK, Architecture, Inputs
from fieldfare.netsec.networks.experts import ExpertsConfig, turn
from fieldfare.netsec.networks.narrow import HiddenUnits, observed
from fieldfare.netsec.training.run import FineTuning, train_classifier

HIDDEN = ("addresses", "ports", "ttl", "checksums")
BATCH = 32


@dataclass(frozen=True)
class System:
    """A row of the table; without experts it is dense, with that share of its hidden units."""

    name: str
    experts: ExpertsConfig | None = None
    width: float = 1.0
    dial: tuple[int, ...] = ()


ALL = (1, 2, 3, 4, 5, 6, 7, 8)
SYSTEMS = (
    System("dense, equal weights"),
    System("dense, equal MACs", width=0.5),
    System("fixed random router", ExpertsConfig(kind="random"), dial=ALL),
    System("protocol lookup", ExpertsConfig(kind="lookup", count=2, k=1)),
    System("learned router", ExpertsConfig(kind="learned"), dial=ALL),
    System("MoE++", ExpertsConfig(kind="moe++", k=5), dial=(1, 2, 3, 4, 5, 6, 8)),
    System("RMoE", ExpertsConfig(kind="recurrent"), dial=ALL),
    System("THOR", ExpertsConfig(kind="stochastic", count=2, k=1)),
    System("switch", ExpertsConfig(kind="switch", count=2, k=1)),
    System("Union of Experts", ExpertsConfig(kind="union")),
)


def start_of(system: System, start: Start, train: LabelledFlows) -> Start:
    """The start, with fewer hidden units where the system is narrower."""
    if system.width == 1:
        return start
    network = start.kind.classifier(start.config, len(start.classes or ()))
    network.load_state_dict(dict(start.tensors))
    network.eval()
    units = HiddenUnits(network, start.config.layers)
    look(network, start.kind, start.config, train, "train")
    units.close()
    config, tensors = units.narrowed(start.config, system.width)
    return replace(start, config=config, tensors=tensors)


def batches(kind: Architecture, config: Any, data: LabelledFlows) -> Iterator[tuple[Any, Any]]:
    """Rows and what the network reads of them."""
    inputs: Inputs = kind.read(mask(data.flows, HIDDEN), config)
    order = inputs.by_size()
    for first in range(0, len(order), 16):
        rows = order[first : first + 16]
        yield rows, inputs.batch(rows)


@torch.inference_mode()
def look(
    network: nn.Module, kind: Architecture, config: Any, data: LabelledFlows, split: str
) -> dict[str, float]:
    """Macro-F1, accuracy and MACs on a split's flows."""
    some = data if split == "train" else data.of_split(split)
    logits = np.zeros((len(some), len(data.classes)))
    spent = routed = dense = 0.0
    each = 3 * 128 * 256
    for rows, batch in batches(kind, config, some):
        logits[rows] = network(batch).numpy()
        tokens = int(batch.mask.sum()) + int(batch.mask[:, :, 0].sum())
        dense += config.layers * tokens * each
        hosted = layers(network)
        for chain in chains(network):
            for name, choice in chain.choices.items():
                layer = hosted[name]
                counted = int(choice.mask.sum()) if choice.mask is not None else 0
                spent += layer.macs(choice)
                routed += counted * router_macs(layer.router)
        if not hosted:
            spent += config.layers * tokens * 3 * config.hidden_size * config.intermediate_size
    scores = score(some.label, logits, data.classes)
    return {
        "macro_f1": scores.macro_f1,
        "accuracy": scores.accuracy,
        "ffn_macs": spent / dense,
        "router_macs": routed / dense,
    }


def router_macs(router: Any) -> int:
    """Products that a router takes for a token."""
    tensors = [*router.parameters(), *router.buffers()]
    cell = getattr(router, "_shared", (None,))[0]
    if cell is not None and not any(cell is module for module in router.modules()):
        tensors += list(cell.parameters())
    return sum(tensor.numel() for tensor in tensors if tensor.ndim == 2)


def weigh(network: nn.Module) -> int:
    """Bytes of its tensors in a file."""
    return sum(t.numel() * t.element_size() for t in network.state_dict().values())


def variants(
    system: System,
    network: nn.Module,
    kind: Architecture,
    config: Any,
    data: LabelledFlows,
    *,
    choosing: bool,
) -> Iterator[tuple[dict[str, Any], nn.Module]]:
    """A trained network as it is; where it is chosen, also turned, merged and pruned."""
    experts = system.experts
    yield {"k": experts.k if experts else None, "form": "trained"}, network
    if experts is None or not choosing:
        return
    for k in system.dial:
        if k != experts.k:
            turned = copy.deepcopy(network)
            turn(turned, experts, k)
            yield {"k": k, "form": "trained"}, turned
    if experts.kind not in ("random", "learned", "recurrent"):
        return
    train = data.of_split("train")
    known = observed(network, (network(batch) for _, batch in batches(kind, config, train)))
    merged = copy.deepcopy(network)
    merge_network(merged, known, experts.count / 2)
    yield {"k": experts.k, "form": "half merged"}, merged
    for factor in (1, 2):
        pruned = copy.deepcopy(network)
        prune_network(pruned, known, factor)
        yield {"k": experts.k, "form": f"pruned by {factor}"}, pruned


def trained(
    options: argparse.Namespace, system: System, start: Start, data: LabelledFlows, seed: int
) -> tuple[Start, nn.Module]:
    """The start and what training made of it; a finished run is only read."""
    begin = start_of(system, start, data.of_split("train"))
    settings = TrainSettings(
        steps=options.steps, batch_size=BATCH, learning_rate=options.rate, seed=seed,
        warmup_steps=options.steps // 10, weight_decay=0.05, betas=(0.9, 0.95), clip_norm=1.0,
        ema_decay=0.98, checkpoint_every=50, log_every=20, validate_every=10**9,
    )  # fmt: skip
    experts = None if system.experts is None else replace(system.experts, seed=seed)
    folder = options.output / f"{system.name.replace(' ', '_').replace(',', '')}_{seed}"
    network, _ = train_classifier(
        begin.kind, begin.config, data, FineTuning(HIDDEN, per_capture=40), settings, folder,
        start=begin, experts=experts, keep_head=True, quiet=options.quiet,
    )  # fmt: skip
    return begin, network.eval()


def work(options: argparse.Namespace, data: LabelledFlows, split: str) -> None:
    """Train what is not trained yet, and measure it on a split."""
    file = options.output / f"{split}.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    done = {(row["system"], row["seed"]) for row in rows}
    start = load_start("netfound_tiny")
    chosen = [s for s in SYSTEMS if not options.systems or s.name in options.systems]
    for seed in range(options.seeds):
        for system in chosen:
            if (system.name, seed) in done:
                continue
            begin, network = trained(options, system, start, data, seed)
            lines = [
                {"system": system.name, "seed": seed, **about, "bytes": weigh(form)}
                | look(form, begin.kind, begin.config, data, split)
                for about, form in variants(
                    system, network, begin.kind, begin.config, data, choosing=split == "val"
                )
            ]
            with file.open("a") as out:
                out.writelines(json.dumps(line) + "\n" for line in lines)
            print(console.table(lines), flush=True)


def save(options: argparse.Namespace, data: LabelledFlows) -> None:
    """Write a trained system as a model file, for `pack.py`."""
    (name,), seed = options.systems, options.seeds - 1
    system = next(system for system in SYSTEMS if system.name == name)
    begin, network = trained(options, system, load_start("netfound_tiny"), data, seed)
    experts = None if system.experts is None else replace(system.experts, seed=seed)
    if experts is not None and options.k:
        experts = turn(network, experts, options.k)
    described = ClassifierConfig(
        architecture="netfound",
        network=begin.config.to_dict(),
        classes=data.classes,
        hidden=HIDDEN,
        experts=None if experts is None else experts.to_dict(),
    )
    val = data.of_split("val")
    logits, _ = FlowClassifier(network, described).look(val.flows)
    described = replace(described, temperature=fit_temperature(logits, val.label))
    card = ModelCard(
        options.output.name, TASK, f"netFound tiny, {name}: {len(data.classes)} classes.",
        asdict(described), seed=seed,
        split=f"by capture: {len(val)} flows for validation, {(data.split == 2).sum()} for test",
    )  # fmt: skip
    save_model_file(options.output / "model.safetensors", network.state_dict(), card)


@torch.inference_mode()
def whole_cost(captures: list[Path]) -> None:
    """MACs and processor time of the packaged networks, dense and with experts, on some flows."""
    for name in ("netfound_tiny", "netfound_experts"):
        classifier, _ = load_classifier(name)
        options = FlowOptions(**classifier.kept)
        parts = [part for path in captures for part in read_flows(path, options=options)]
        flows = concatenate(parts)
        with FlopCounterMode(display=False) as counter:
            list(passes(classifier, flows))
        seconds = []
        for _ in range(5):
            begin = time.process_time()
            list(passes(classifier, flows))
            seconds.append(time.process_time() - begin)
        macs = counter.get_total_flops() / 2e6
        print(f"{name}: {len(flows)} flows, {macs:.0f} MMAC, {1e3 * min(seconds):.0f} ms")


def table(folder: Path) -> None:
    """Mean over the seeds of all rows, by split."""
    for split in ("val", "test"):
        file = folder / f"{split}.jsonl"
        if not file.exists():
            continue
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        grouped: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
        for row in rows:
            grouped.setdefault((row["system"], row["form"], row["k"]), []).append(row)
        shown = [
            {"system": name, "form": form, "k": k, "seeds": len(found)}
            | {
                key: f"{np.mean([row[key] for row in found]):.3f}"
                for key in ("ffn_macs", "router_macs", "macro_f1", "accuracy")
            }
            | {"deviation": f"{np.std([row['macro_f1'] for row in found]):.3f}"}
            | {"megabytes": f"{found[0]['bytes'] / 1e6:.2f}"}
            for (name, form, k), found in grouped.items()
        ]
        print(split, console.table(shown), sep="\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["train", "test", "save", "cost", "table"])
    parser.add_argument("--labels", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("experts_runs"))
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--systems", nargs="*")
    parser.add_argument("--captures", type=Path, nargs="*", help="Of `cost`.")
    parser.add_argument("--k", type=int, help="Experts per token of what is saved.")
    parser.add_argument("--quiet", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.what == "table":
        table(options.output)
        return
    if options.what == "cost":
        whole_cost(options.captures)
        return
    options.output.mkdir(parents=True, exist_ok=True)
    data = load_flows(
        read_labels(options.labels), cache=options.output / "flows", quiet=options.quiet
    )
    if options.what == "save":
        save(options, data)
        return
    work(options, data, "val" if options.what == "train" else "test")


if __name__ == "__main__":
    main()
