# SPDX-License-Identifier: Apache-2.0
"""The command net-traffic: parse, call, print. Everything heavy is imported inside the verbs."""

from pathlib import Path

import click

from fieldfare.common import console
from fieldfare.common.console import shared

from .options import (
    BenchOptions,
    CompressOptions,
    ConvertOptions,
    EvalOptions,
    ExportOptions,
    FlowsOptions,
    InferOptions,
    PretrainOptions,
    TrainOptions,
)


@click.group(cls=console.CommandGroup)
@click.version_option(package_name="fieldfare-netsec")
def main() -> None:
    """Label the flows of packet captures."""


@main.command()
@click.argument("captures", nargs=-1, type=console.FILE, metavar="CAPTURE...")
@console.options(InferOptions)
def infer(captures: tuple[Path, ...], options: InferOptions) -> None:
    """Write the flows of captures with their classes: .parquet, .csv or .jsonl.

    CAPTURE and -o are as for `flows`, and so are the first columns; then label, probability (the
    network's own), confidence (calibrated on validation flows) and model.
    """
    from .commands.infer import infer as work

    work(captures, options)


@main.command()
@click.argument("captures", nargs=-1, type=console.FILE, metavar="CAPTURE...")
@console.options(FlowsOptions)
def flows(captures: tuple[Path, ...], options: FlowsOptions) -> None:
    """Write the flows of captures as a table: .parquet, .csv or .jsonl.

    CAPTURE is a pcap or pcapng file, plain or compressed (gzip, zstd, lz4, xz, bzip2), a folder of
    such files (in order of their first packets), or - for standard input; several are read in
    order as one recording. With -o FOLDER each is a recording of its own, and worker processes
    write its table to FOLDER. With -o - the flows go to standard output as JSON lines, as they
    end. Columns: src_ip, src_port, dst_ip, dst_port, protocol (number), start, end (seconds, UTC),
    packets_fwd, packets_bwd, bytes_fwd, bytes_bwd (of IP packets), duration, start_ns, end_ns,
    tcp_flags_fwd, tcp_flags_bwd, vlan, vlan_inner, end_reason, flow_id, community_id; source is
    who sent SYN, else who sent the first packet.
    """
    from .commands.flows import flows as work

    work(captures, options)


@main.command()
@click.argument("labels", type=console.FILE, metavar="LABELS.csv")
@console.options(TrainOptions)
def train(labels: Path, options: TrainOptions) -> None:
    """Train on labelled captures; run again to resume.

    LABELS.csv has columns file, class and split (train, val, test, heldout), one row a capture; to
    label single flows also l4 (TCP, UDP or a number), addr_a, port_a, addr_b and port_b, and where
    a 5-tuple has several classes start and end. A capture lies in one split, and so does a
    5-tuple. Files of CIC-IDS and UNSW-NB15 are read as they are.
    """
    from .commands.train import train as work

    work(labels, options)


@main.command()
@click.argument("sources", nargs=-1, type=console.FILE, required=True, metavar="CAPTURE|FOLDER...")
@console.options(PretrainOptions)
def pretrain(sources: tuple[Path, ...], options: PretrainOptions) -> None:
    """Train on captures without labels, for `train --init`; run again to resume."""
    from .commands.pretrain import pretrain as work

    work(sources, options)


@main.command("eval")
@click.argument("labels", type=console.FILE, metavar="LABELS.csv")
@console.options(EvalOptions)
def evaluate(labels: Path, options: EvalOptions) -> None:
    """Score a model: macro-F1 and classes, calibration, and an audit of shortcuts.

    The audit hides ports, TTL, addresses and all of them in turn; beside it stand a lookup of the
    port, and trees if asked for, fitted to the split train of LABELS.csv (see `train`).
    """
    from .commands.evaluate import evaluate as work

    work(labels, options)


@main.command()
@console.options(shared.JsonOptions)
def models(options: shared.JsonOptions) -> None:
    """List the packaged models: data, scores, limits."""
    from .commands.models import models as work

    work(options)


@main.command()
@click.argument("capture", type=console.FILE, metavar="CAPTURE")
@console.options(BenchOptions)
def bench(capture: Path, options: BenchOptions) -> None:
    """Measure flows a second, from first packets to labels."""
    from .commands.bench import bench as work

    work(capture, options)


@main.command()
@console.options(ExportOptions)
def export(options: ExportOptions) -> None:
    """Write the network as ONNX; ONNX Runtime must agree with torch before it is kept."""
    from .commands.export import export as work

    work(options)


@main.command()
@click.argument("model", metavar="MODEL")
@console.options(CompressOptions)
def compress(model: str, options: CompressOptions) -> None:
    """Make a model smaller or cheaper: experts merged, taken away, or fewer of them run.

    MODEL is a packaged model or a .safetensors file. With --for alone the experts that this traffic
    never uses go, which changes no bit of its answers.
    """
    from .commands.compress import compress as work

    work(model, options)


@main.command()
@click.argument("source", type=console.FILE, metavar="CHECKPOINT")
@console.options(ConvertOptions)
def convert(source: Path, options: ConvertOptions) -> None:
    """Write a published checkpoint as .safetensors; nothing in it is executed."""
    from .commands.convert import convert as work

    work(source, options)
