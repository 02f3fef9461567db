# SPDX-License-Identifier: Apache-2.0
"""What adapters give where a model meets sites that it was not trained on.

    python benchmarks/netsec/adapters.py statistics --labels labels.csv -o runs/
    python benchmarks/netsec/adapters.py likeness   --labels labels.csv -o runs/
    python benchmarks/netsec/adapters.py sources    --labels labels.csv -o runs/
    python benchmarks/netsec/adapters.py sensors    --labels labels.csv -o runs/

`sources`: a netFound tiny is trained from fresh weights on the train captures of `--home` alone;
`--sites` are other projects that captures of the split train come from, by the first letters of
their names, of which two captures of five are held out and an adapter is trained on the rest.
`sensors`: the packaged netFound tiny meets sensors that record otherwise (`SENSORS`); adapters are
trained on the split train as these have it and tested on val as these have it. Held-out captures
are each looked at as a recording of its own: without adapters, with the site's own, with the mean
of all, with Glider's mixture. `statistics` prints the constants of `data.site`; `likeness` how
alike captures are to their own and to other sites, training captures and held-out ones apart. Goes
on where it stopped.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from fieldfare.common import console
from fieldfare.common.training import TrainSettings
from fieldfare.common.weights import ModelCard, load_model_file, save_model_file
from fieldfare.netsec.capture import FirstPackets, FlowBatch
from fieldfare.netsec.data import site
from fieldfare.netsec.data.dataset import LabelledFlows, load_flows
from fieldfare.netsec.data.flow_rows import PACKET_COLUMNS, packet_number
from fieldfare.netsec.data.labels import read_labels
from fieldfare.netsec.data.variations import Chances, vary
from fieldfare.netsec.evaluation.scores import score
from fieldfare.netsec.inference.adapters import LEAST, SCALE, Adapter, KnownSites
from fieldfare.netsec.inference.classifier import ClassifierConfig, FlowClassifier
from fieldfare.netsec.inference.start import Start, load_start
from fieldfare.netsec.networks.adapters import digest
from fieldfare.netsec.networks.architectures import preset
from fieldfare.netsec.training.adapting import train_adapter
from fieldfare.netsec.training.run import FineTuning, train_classifier

HIDDEN = ("addresses", "ports", "ttl", "checksums")
HOW = FineTuning(HIDDEN, per_capture=40)
HELD_OUT = (1, 3)
SENSORS = ("one direction", "headers alone")
"""How sites' sensors record: a flow's first packet and forward ones; no more than 54 bytes of each
packet from the IP header on (a snap length of 68 over Ethernet)."""
SNAP = 54
RANK = 4
KIND, CONFIG = preset("netfound/tiny")


@dataclass(frozen=True)
class Place:
    """A site: flows to train on and captures that are held out."""

    name: str
    train: LabelledFlows
    held: tuple[LabelledFlows, ...]


def sites_of(data: LabelledFlows) -> np.ndarray:
    """(N,) name of each flow's site."""
    names = np.array([Path(name).name.partition("__")[0] for name in data.captures])
    found: np.ndarray = names[data.capture]
    return found


def by_capture(data: LabelledFlows) -> list[LabelledFlows]:
    """The flows of each capture."""
    return [
        data.select(np.flatnonzero(data.capture == number)) for number in np.unique(data.capture)
    ]


def place(data: LabelledFlows, name: str) -> Place:
    """A site of the split train."""
    own = data.select(np.flatnonzero((sites_of(data) == name) & (data.split == 0)))
    order = np.unique(own.capture)
    away = order[np.isin(np.arange(len(order)) % 5, HELD_OUT)]
    held = np.isin(own.capture, away)
    captures = by_capture(own.select(np.flatnonzero(held)))
    return Place(name, own.select(np.flatnonzero(~held)), tuple(captures))


def changed(data: LabelledFlows, name: str) -> LabelledFlows:
    """All flows as a sensor records them."""
    flows = data.flows
    if name == "one direction":
        kept = ~flows.first_packets.backward | (packet_number(flows) == 0)
        packets = {key: getattr(flows.first_packets, key)[kept] for key in PACKET_COLUMNS}
        none = np.zeros_like(flows.packets_bwd)
        flows = replace(
            flows, packets_bwd=none, bytes_bwd=none, first_packets=FirstPackets(**packets)
        )
        return replace(data, flows=flows)
    count = len(data)
    never = Chances(*(np.full(count, 0.5) for _ in Chances._fields))
    always = never._replace(
        some=np.ones(count, np.int64),
        snapped=np.zeros(count),
        snap=np.full(count, np.log(SNAP + 0.5)),
    )
    return replace(data, flows=vary(flows, always))


def places_of(options: argparse.Namespace, data: LabelledFlows) -> list[Place]:
    """Sites of a kind."""
    if options.what == "sources":
        return [place(data, name) for name in options.sites]
    train, val = data.of_split("train"), by_capture(data.of_split("val"))
    return [
        Place(name, changed(train, name), tuple(changed(capture, name) for capture in val))
        for name in SENSORS
    ]


def settings_of(steps: int, seed: int, rate: float) -> TrainSettings:
    return TrainSettings(
        steps=steps, batch_size=32, learning_rate=rate, seed=seed, warmup_steps=steps // 10,
        weight_decay=0.05, betas=(0.9, 0.95), clip_norm=1.0, ema_decay=0.98, checkpoint_every=25,
        log_every=20, validate_every=10**9,
    )  # fmt: skip


def base_of(options: argparse.Namespace, data: LabelledFlows) -> Start:
    """The model of the home site, trained once."""
    path = options.output / "base.safetensors"
    if not path.exists():
        home = data.select(np.flatnonzero((sites_of(data) == options.home) & (data.split == 0)))
        network, _ = train_classifier(
            KIND, CONFIG, home, HOW, settings_of(options.base_steps, options.seed, 2e-3),
            options.output / "base", quiet=options.quiet,
        )  # fmt: skip
        card = ModelCard("base", "benchmark", "", {})
        save_model_file(path, network.state_dict(), card)
    tensors = load_model_file(path)[1]
    return Start(KIND, CONFIG, tensors, path, None, data.classes, HIDDEN)


def network_of(start: Start, data: LabelledFlows) -> FlowClassifier:
    network = KIND.classifier(start.config, len(data.classes))
    network.load_state_dict(dict(start.tensors))
    described = ClassifierConfig("netfound", start.config.to_dict(), data.classes, start.hidden)
    return FlowClassifier(network.eval(), described, "base")


def adapter_for(options: argparse.Namespace, start: Start, own: Place) -> Adapter:
    tensors = train_adapter(
        start, own.train, replace(HOW, hidden=start.hidden),
        settings_of(options.steps, options.seed, options.rate),
        options.output / own.name.replace(" ", "_"), RANK, quiet=options.quiet,
    )  # fmt: skip
    return Adapter(own.name, digest(start.tensors), tensors.pop("site"), tensors)


def merged(start: Start, several: Sequence[Adapter], data: LabelledFlows) -> FlowClassifier:
    """The network with the mean of all adapters in its weights."""
    tensors = dict(start.tensors)
    for adapter in several:
        for name in {key.rpartition(".")[0] for key in adapter.tensors}:
            change = adapter.tensors[f"{name}.up"] @ adapter.tensors[f"{name}.down"]
            tensors[f"{name}.weight"] = tensors[f"{name}.weight"] + change / len(several)
    return network_of(replace(start, tensors=tensors), data)


def scores_of(
    look: Callable[[FlowBatch], np.ndarray], captures: Sequence[LabelledFlows]
) -> tuple[float, float, int]:
    """Macro-F1, accuracy and flows of captures, each looked at by itself."""
    logits = np.concatenate([look(capture.flows) for capture in captures])
    label = np.concatenate([capture.label for capture in captures])
    found = score(label, logits, captures[0].classes)
    return found.macro_f1, found.accuracy, len(label)


def measure(options: argparse.Namespace, data: LabelledFlows) -> None:
    """Train what is not trained yet, and score all on held-out captures."""
    places = places_of(options, data)
    tests = {own.name: own.held for own in places}
    if options.what == "sources":
        start = base_of(options, data)
        for name, split in ((options.home, 1), (options.stranger, 0)):
            own = data.select(np.flatnonzero((sites_of(data) == name) & (data.split == split)))
            tests[f"{name}, no adapter"] = tuple(by_capture(own))
    else:
        start = load_start("netfound_tiny")
        tests["as packaged"] = tuple(by_capture(data.of_split("val")))
    several = [adapter_for(options, start, own) for own in places]
    base = network_of(start, data)
    rows = []
    for name, captures in tests.items():
        found = {"no adapter": base, "mean of all": merged(start, several, data)}
        own = [adapter for adapter in several if adapter.name == name]
        for label, adapters, least in (("own, always", own, -1.0), ("Glider", several, LEAST)):
            if adapters:
                found[label] = network_of(start, data)
                found[label].sites = KnownSites(base, adapters, SCALE, least)
        for label, classifier in found.items():
            macro, accuracy, flows = scores_of(lambda f, c=classifier: c.look(f)[0], captures)
            row = {"site": name, "network": label, "flows": flows, "macro_f1": macro}
            rows.append(row | {"accuracy": accuracy, "looked": _shares(classifier)})
    kilobytes = sum(t.numel() * t.element_size() for t in several[0].tensors.values()) / 1e3
    print(f"{kilobytes:.0f} kB an adapter")
    print(console.table(rows))


def _shares(classifier: FlowClassifier) -> str:
    if classifier.sites is None:
        return ""
    return " ".join(f"{name} {count}" for name, count in classifier.sites.to_json().items())


def statistics(data: LabelledFlows) -> None:
    """Mean and deviation of captures of the split train."""
    train = data.of_split("train")
    found = np.array([site.raw_vector(capture.flows) for capture in by_capture(train)])
    spread = np.maximum(found.std(axis=0), 0.1)
    for name, values in (("CENTRE", found.mean(axis=0)), ("SCALE", spread)):
        print(name, "=", tuple(round(float(value), 3) for value in values))


def likenesses(options: argparse.Namespace, data: LabelledFlows) -> None:
    """Cosines of captures and sites."""
    options.what = "sources"
    places = places_of(options, data)
    options.what = "sensors"
    places += places_of(options, data)
    sites = torch.tensor(np.array([site.site_vector(own.train.flows) for own in places]))
    others = {
        f"{options.home} (train)": (options.home, 0),
        f"{options.home} (val)": (options.home, 1),
        f"{options.stranger}": (options.stranger, 0),
    }
    sets = {f"{own.name}, train": by_capture(own.train) for own in places}
    sets |= {f"{own.name}, held out": list(own.held) for own in places}
    for name, (kind, split) in others.items():
        own = data.select(np.flatnonzero((sites_of(data) == kind) & (data.split == split)))
        sets[name] = by_capture(own)
    rows = []
    for name, captures in sets.items():
        tasks = torch.tensor(np.array([site.site_vector(c.flows) for c in captures]))
        near = torch.nn.functional.cosine_similarity(tasks[:, None], sites, dim=-1)
        row: dict[str, float | str] = {"captures of": name, "count": len(captures)}
        for number, own_place in enumerate(places):
            row[own_place.name] = float(near[:, number].median())
        best = near.argmax(dim=1)
        own_number = [number for number, p in enumerate(places) if name.startswith(p.name)]
        row["own"] = float((best == own_number[0]).double().mean()) if own_number else float("nan")
        for least in (0.3, 0.5, 0.7):
            row[f">= {least}"] = float((near >= least).any(dim=1).double().mean())
        rows.append(row)
    print(console.table(rows))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["statistics", "likeness", "sources", "sensors"])
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, default=Path("adapter_runs"))
    parser.add_argument("--home", default="ndpi")
    parser.add_argument("--sites", nargs="+", default=["pcpp", "zeek"])
    parser.add_argument("--stranger", default="nfst")
    parser.add_argument("--base-steps", type=int, default=200)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rate", type=float, default=5e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quiet", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.output.mkdir(parents=True, exist_ok=True)
    data = load_flows(
        read_labels(options.labels), cache=options.output / "flows", quiet=options.quiet
    )
    if options.what == "statistics":
        statistics(data)
    elif options.what == "likeness":
        likenesses(options, data)
    else:
        measure(options, data)


if __name__ == "__main__":
    main()
