# SPDX-License-Identifier: Apache-2.0
"""The command net-traffic: parse, call, print. Everything heavy is imported inside the verbs."""

from pathlib import Path
from typing import Any

import click

from fieldfare.common import console

from .options import capture_options


@click.group(cls=console.CommandGroup)
@click.version_option(package_name="fieldfare-netsec")
def main() -> None:
    """Turn packet captures into flows."""


@main.command()
@click.argument("captures", nargs=-1, metavar="CAPTURE...")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="Where to write."
)
@capture_options
@console.overwrite_option
@console.quiet_option
@console.json_option
def flows(captures: tuple[str, ...], output: Path, **options: Any) -> None:
    """Write the flows of captures as a table: .parquet, .csv or .jsonl.

    CAPTURE is a pcap or pcapng file, plain, gzip or zstd, or - for standard input; several are
    read in order as one recording. Columns: src_ip, src_port, dst_ip, dst_port, protocol (number),
    start, end (seconds, UTC), packets_fwd, packets_bwd, bytes_fwd, bytes_bwd (of IP packets); the
    forward direction is that of the first packet.
    """
    from .commands import flows as work

    work.flows(captures, output, options)
