# SPDX-License-Identifier: Apache-2.0
"""A small NetMamba is trained and stitched to a packaged one, whose blocks learn too or do not.

    python benchmarks/netsec/stitched_traffic.py LABELS.csv -o runs/

The small one has blocks of a quarter of the width and learns, beside the labels, what the large one
says. Prints what `fieldfare stitch` tells of every network of the family (macro-F1 on the
split val by the network alone, ports hidden; operations, milliseconds, bytes); and macro-F1 alone
before training, with `--frozen`, and of both models after they learnt with the stitches. Goes on
where it was stopped.
"""

import argparse
import dataclasses
from pathlib import Path

import torch

from fieldfare.common.commands.stitch import names, stitch, trained
from fieldfare.common.commands.stitch_options import StitchOptions
from fieldfare.common.runtime import set_threads
from fieldfare.common.training import TrainSettings
from fieldfare.common.training.loop import CHECKPOINT
from fieldfare.common.weights import ModelCard, save_model_file
from fieldfare.netsec.commands.slimming import TrafficWorkshop
from fieldfare.netsec.commands.stitching import TrafficFamily
from fieldfare.netsec.data.dataset import load_flows, training_options
from fieldfare.netsec.data.labels import read_labels
from fieldfare.netsec.inference.classifier import load_classifier
from fieldfare.netsec.networks.architectures import TASK
from fieldfare.netsec.training.run import FineTuning, train_classifier

PER_CAPTURE, VARIATIONS = 40, 2


def train_small(labels: Path, large: str, width: int, depth: int, steps: int, folder: Path) -> Path:
    """The model file of a network of that size; one that is there stays."""
    target = folder / "small.safetensors"
    if target.exists():
        return target
    teacher, _ = load_classifier(large)
    config = dataclasses.replace(teacher.network_config, embed_dim=width, depth=depth)
    table = read_labels(labels)
    kept = training_options(teacher.kept, timed=table.timed, varied=True)
    data = load_flows(table, options=kept, cache=folder / "flows")
    optional = teacher.config.optional
    hidden = tuple(name for name in teacher.config.hidden if name not in optional)
    how = FineTuning(hidden, optional, per_capture=PER_CAPTURE, variations=VARIATIONS)
    settings = TrainSettings(
        steps=steps, batch_size=32, learning_rate=4e-3, warmup_steps=steps // 10,
        weight_decay=0.05, betas=(0.9, 0.95), clip_norm=1.0, ema_decay=0.99,
        checkpoint_every=100, log_every=20, validate_every=max(1, steps // 5),
    )  # fmt: skip
    network, temperature = train_classifier(
        teacher.architecture, config, data, how, settings, folder / "small",
        teacher=lambda flows: teacher.classify(flows).networks,
    )  # fmt: skip
    described = dataclasses.replace(
        teacher.config, network=config.to_dict(), temperature=temperature or 1.0
    )
    card = ModelCard(
        "small",
        TASK,
        f"NetMamba of {depth} blocks of width {width}.",
        dataclasses.asdict(described),
        data=labels.name,
        training=f"{steps} steps from fresh weights, taught by {large} too",
    )
    save_model_file(target, network.state_dict(), card)
    return target


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("labels", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--large", default="netmamba_small")
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--small-steps", type=int, default=900)
    parser.add_argument("--steps", type=int, default=300)
    options = parser.parse_args()
    set_threads()
    options.output.mkdir(parents=True, exist_ok=True)
    small = train_small(
        options.labels, options.large, options.width, options.depth, options.small_steps,
        options.output,
    )  # fmt: skip
    pair = str(small), options.large
    family = family_of(pair, options.labels, options.steps)
    family.network.eval().initialise(family.sample())
    tell("before training", family)
    folder = options.output / "frozen"
    trained(family, family.settings, folder, frozen=True, quiet=False)
    tell("frozen", family)
    folder = options.output / "stitched"
    stitch(*pair, StitchOptions(output=folder, data=(options.labels,), steps=options.steps))
    family = family_of(pair, options.labels, options.steps)
    state = torch.load(folder / CHECKPOINT, weights_only=True)["ema"]["shadow"]
    family.network.load_state_dict(state)
    tell("all blocks learnt", family)


def tell(when: str, family: TrafficFamily) -> None:
    """Print macro-F1 of every network."""
    for number, name in names(family.network).items():
        network = family.networks[number] if number < 2 else family.extract(number)
        print(f"{when}, {name}: {family.data.score(network.eval()):.4f}", flush=True)


def family_of(pair: tuple[str, str], labels: Path, steps: int) -> TrafficFamily:
    """Both models and their stitches, untrained."""
    found = TrafficWorkshop().stitch(pair, [labels], steps=steps, seed=0, device="cpu", quiet=True)
    assert isinstance(found, TrafficFamily)
    return found


if __name__ == "__main__":
    main()
