# SPDX-License-Identifier: Apache-2.0
"""The command net-traffic: parse, call, print. Everything heavy is imported inside the verbs."""

from pathlib import Path
from typing import Any

import click

from fieldfare.common import console

from .options import capture_options, first_packets_option, show_option, training_options

DEFAULT_MODEL = "netmamba_small"
file_path = click.Path(path_type=Path)


@click.group(cls=console.CommandGroup)
@click.version_option(package_name="fieldfare-netsec")
def main() -> None:
    """Label the flows of packet captures."""


@main.command()
@click.argument("captures", nargs=-1, metavar="CAPTURE...")
@console.output_option
@console.model_option(DEFAULT_MODEL)
@show_option
@click.option("--report", type=file_path, help="Also write a page on the flows: *.html.")
@click.option(
    "--unknown-below",
    type=click.FloatRange(0, 1),
    help="Label flows of less confidence `unknown`; eval tells which values suit. [default: off]",
)
@click.option(
    "--first-packets",
    type=console.Numbers(int, 1),
    help="Look at no more than this many packets of a flow. [default: as in training]",
)
@click.option(
    "--early",
    type=click.IntRange(1, 1 << 16),
    metavar="K",
    help="Write a flow at its K-th packet, with its counts until then, and not at its end.",
)
@click.option("--embeddings", is_flag=True, help="Also write the model's vector of each flow.")
@capture_options
@console.device_option
@console.overwrite_option
@console.quiet_option
@console.json_option
def infer(captures: tuple[str, ...], output: Path, **options: Any) -> None:
    """Write the flows of captures with their classes: .parquet, .csv or .jsonl.

    CAPTURE and -o are as for `flows`, and so are the first columns; then label, probability (the
    network's own), confidence (calibrated on validation flows) and model.
    """
    from .commands import infer as work

    work.infer(captures, output, options)


@main.command()
@click.argument("captures", nargs=-1, metavar="CAPTURE...")
@console.output_option
@capture_options
@console.overwrite_option
@console.quiet_option
@console.json_option
def flows(captures: tuple[str, ...], output: Path, **options: Any) -> None:
    """Write the flows of captures as a table: .parquet, .csv or .jsonl.

    CAPTURE is a pcap or pcapng file, plain, gzip or zstd, or - for standard input; several are
    read in order as one recording. With -o - the flows go to standard output as JSON lines, as they
    end. Columns: src_ip, src_port, dst_ip, dst_port, protocol (number), start, end (seconds, UTC),
    packets_fwd, packets_bwd, bytes_fwd, bytes_bwd (of IP packets); the forward direction is that
    of the first packet.
    """
    from .commands import flows as work

    work.flows(captures, output, options)


@main.command()
@click.argument("labels", type=file_path, metavar="LABELS.csv")
@click.option(
    "-o", "--output", type=file_path, required=True, help="Folder of checkpoint, log and model."
)
@click.option("--captures", type=file_path, help="Folder of the captures. [default: of LABELS.csv]")
@click.option(
    "--init",
    metavar="NAME|PATH",
    help="Begin with the encoder of this model, in its size, instead of a preset.",
)
@training_options(steps=3000, batch=32, learning_rate=2e-3)
@click.option(
    "--shots", type=click.IntRange(min=1), help="Train on so many flows a class. [default: all]"
)
@click.option(
    "--balance",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="Weight of classes in the loss: 0 by their flows, 1 all alike.",
)
@click.option(
    "--smoothing",
    type=click.FloatRange(0, 0.9),
    default=0.05,
    show_default=True,
    help="Of the labels.",
)
@console.seed_option
@console.device_option
@console.quiet_option
@console.json_option
def train(labels: Path, output: Path, **options: Any) -> None:
    """Train on labelled captures; run again to resume.

    LABELS.csv has columns file, class and split (train, val, test, heldout), one row a capture; to
    label single flows also l4 (TCP, UDP or a number), addr_a, port_a, addr_b and port_b. A capture
    lies in one split, and so does a 5-tuple.
    """
    from .commands import train as work

    work.train(labels, output, options)


@main.command()
@click.argument("sources", nargs=-1, type=file_path, required=True, metavar="CAPTURE|FOLDER...")
@click.option(
    "-o", "--output", type=file_path, required=True, help="Folder of checkpoint, log and model."
)
@training_options(steps=2000, batch=64, learning_rate=2e-3)
@console.seed_option
@console.device_option
@console.quiet_option
@console.json_option
def pretrain(sources: tuple[Path, ...], output: Path, **options: Any) -> None:
    """Train on captures without labels, for `train --init`; run again to resume."""
    from .commands import train as work

    work.run_pretraining(sources, output, options)


@main.command("eval")
@click.argument("labels", type=file_path, metavar="LABELS.csv")
@console.model_option(DEFAULT_MODEL)
@show_option
@click.option("--captures", type=file_path, help="Folder of the captures. [default: of LABELS.csv]")
@click.option("--split", default="test", show_default=True, help="Which rows to score.")
@click.option("--trees", is_flag=True, help="Also fit and score 400 extra-trees.")
@first_packets_option
@click.option("-o", "--output", type=file_path, help="Folder for scores.json and pictures.")
@console.device_option
@console.quiet_option
@console.json_option
def evaluate(labels: Path, **options: Any) -> None:
    """Score a model: macro-F1 and classes, calibration, and an audit of shortcuts.

    The audit hides ports, TTL, addresses and all of them in turn; beside it stand a lookup of the
    port, and trees if asked for, fitted to the split train of LABELS.csv (see `train`).
    """
    from .commands import evaluate as work

    work.evaluate(labels, options)


@main.command()
@console.json_option
def models(as_json: bool) -> None:
    """List the packaged models: data, scores, limits."""
    from .commands import models as work

    work.models(as_json)


@main.command()
@click.argument("capture", type=file_path, metavar="CAPTURE")
@console.model_option(DEFAULT_MODEL)
@click.option(
    "--batch", type=click.IntRange(min=1), default=256, show_default=True, help="Flows a call."
)
@click.option(
    "--repeats", type=click.IntRange(min=2), default=10, show_default=True, help="Timed calls."
)
@console.device_option
@console.json_option
def bench(capture: Path, **options: Any) -> None:
    """Measure flows a second, from first packets to labels."""
    from .commands import models as work

    work.bench(capture, options)


@main.command()
@console.output_option
@console.model_option(DEFAULT_MODEL)
@console.overwrite_option
def export(output: Path, **options: Any) -> None:
    """Write the network as ONNX; ONNX Runtime must agree with torch before it is kept."""
    from .commands import models as work

    work.export(output, options)


@main.command()
@click.argument("source", type=file_path, metavar="CHECKPOINT")
@console.output_option
@click.option(
    "--architecture",
    type=click.Choice(["netmamba", "netfound"]),
    required=True,
    help="What CHECKPOINT is of.",
)
@click.option("--classes", help="Names of a fine-tuned checkpoint's classes, in order: A,B,...")
@console.overwrite_option
@console.quiet_option
@console.json_option
def convert(source: Path, output: Path, **options: Any) -> None:
    """Write a published checkpoint as .safetensors; nothing in it is executed."""
    from .commands import models as work

    work.convert(source, output, options)
