# SPDX-License-Identifier: Apache-2.0
"""What `infer` and `flows` do alike: one recording to one table, or each capture to its own."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from fieldfare.common import batch
from fieldfare.common.commands.infer import check_targets, infer_many, show_plan
from fieldfare.common.errors import InputError

from .. import __version__
from ..capture.container import first_record
from ..capture.links import NAMES
from ..capture.sources import open_source
from ..data.flow_files import STANDARD_OUTPUT, check_table
from ..data.recordings import (
    check_captures,
    has_no_end,
    is_pipe,
    recording_name,
    told_of_compiling,
)
from ..options import CaptureOptions, FlowsOptions


def goes_to_folder(captures: Sequence[Path], options: FlowsOptions) -> bool:
    """Whether each capture is a recording of its own: OUTPUT is a folder, or shall become one."""
    output = options.output
    if output == STANDARD_OUTPUT:
        return False
    return output.is_dir() or (len(captures) > 1 and not output.suffix)


def check_recording(captures: Sequence[Path], options: FlowsOptions, **more: Path | None) -> None:
    """Refuse a recording and a table that cannot be, before work begins.

    Args:
        more: further files to write, by their options.

    Raises:
        InputError: no captures, a missing one, or what `check_targets` refuses.
    """
    check_table(options.output)
    if options.packet_sizes and options.output.suffix == ".csv":
        raise InputError(
            f"{options.output}: a CSV file cannot hold --packet-sizes; choose parquet or jsonl"
        )
    to_standard_output = options.output == STANDARD_OUTPUT
    if to_standard_output and options.as_json:
        raise InputError("-o - writes the flows to standard output; leave --json out")
    table = None if to_standard_output else options.output
    named = {f"--{name}": path for name, path in more.items()}
    check_targets(captures, {"--output": table, **named}, options)
    report = more.get("report")
    if report is not None and report.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"{report}: --report writes a page; name it *.html")
    check_captures(captures, options)


def show_recording(captures: Sequence[Path], options: FlowsOptions, **more: object) -> None:
    """Print what would be read and written.

    Args:
        more: what else to tell, by name.
    """
    plan: dict[str, Any]
    if has_no_end(captures, options):
        plan = {"reads": options.interface or ", ".join(map(str, captures))}
    else:
        with told_of_compiling(quiet=options.quiet):
            links = dict.fromkeys(_link_name(capture) for capture in captures)
        size = sum(capture.stat().st_size for capture in captures)
        plan = {
            "captures": len(captures),
            "megabytes": round(size / 1e6, 3),
            "link": ", ".join(links),
        }
    show_plan({**plan, **more, "output": options.output}, options)


def _link_name(capture: Path) -> str:
    try:
        first = first_record(open_source(capture))
    except InputError as error:
        return f"left out: {error}"
    return "no packets" if first is None else NAMES.get(first.link, f"link type {first.link}")


def write_each(
    captures: Sequence[Path],
    make_worker: batch.MakeWorker,
    options: FlowsOptions,
    *,
    settings: Mapping[str, Any],
    report: Path | None = None,
    finish: Callable[[], Mapping[str, Any]] = dict,
) -> None:
    """Work through captures, each a recording of its own, to tables in the folder OUTPUT.

    Args:
        make_worker: see `batch.run`; must be picklable.
        settings: what the tables depend on, besides the options of captures.
        finish: see `infer_many`.

    Raises:
        InputError: what takes a single recording, no captures, or what `infer_many` refuses.
        SystemExit: some or all captures failed.
    """
    single = {"--interface": options.interface, "--follow": options.follow, "--report": report}
    single |= {str(capture): is_pipe(capture) for capture in captures}
    if name := next((name for name, value in single.items() if value), None):
        raise InputError(
            f"{name}: takes a single recording; name a table instead of the folder {options.output}"
        )
    if not captures:
        raise InputError("give captures or --interface")
    told = asdict(options)
    flows = {field.name: told[field.name] for field in fields(CaptureOptions)}
    del flows["interface"], flows["follow"]

    def outputs_of(capture: Path) -> tuple[Path, ...]:
        return (options.output / f"{recording_name(capture)}.{options.format}",)

    infer_many(
        captures,
        make_worker,
        outputs_of,
        options,
        settings={**flows, **settings, "version": __version__},
        noun="captures",
        key=recording_name,
        finish=finish,
    )
