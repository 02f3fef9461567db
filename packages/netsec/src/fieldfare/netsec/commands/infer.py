# SPDX-License-Identifier: Apache-2.0
"""net-traffic infer."""

import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa

from fieldfare.common import batch, console
from fieldfare.common.errors import InputError
from fieldfare.common.weights import locate

from ..data.recordings import (
    describe,
    expand_folders,
    has_no_end,
    open_recording,
    tell,
    told_of_compiling,
    watched,
)
from ..inference.classifier import FlowClassifier, load_classifier
from ..inference.label import EMBEDDING, LabelSettings, write_labels
from ..networks.architectures import TASK
from ..options import InferOptions
from . import tables


def infer(captures: Sequence[Path], options: InferOptions) -> None:
    """Write the flows with their labels as they end."""
    captures = expand_folders(captures)
    if tables.goes_to_folder(captures, options):
        _infer_each(captures, options)
        return
    tables.check_recording(captures, options, report=options.report)
    classifier = _load(options, csv=options.output.suffix == ".csv")
    if options.dry_run:
        tables.show_recording(captures, options, model=classifier.name)
        return
    report = None
    if options.report is not None:
        from ..report.page import FlowReport

        report = FlowReport()

    def show(table: pa.Table) -> None:
        if report is not None:
            report.add(table.drop_columns([EMBEDDING.name] * options.embeddings))

    with told_of_compiling(quiet=options.quiet):
        labels, counts = _write(captures, options.output, classifier, options, show)
    if report is not None and options.report is not None:
        report.write(
            options.report,
            captures=[str(capture) for capture in captures] or [str(options.interface)],
            counts=counts,
            settings={
                "hidden from the model": ", ".join(classifier.hidden) or "nothing",
                "unknown below": options.unknown_below or "off",
            },
        )
    result = {"model": classifier.name, "flows": sum(labels.values()), "labels": labels}
    tell(result, counts, options)


def _load(options: InferOptions, *, csv: bool) -> FlowClassifier:
    """The classifier; says on stderr where its flows were others than those asked for.

    Raises:
        InputError: no such model, or embeddings for a CSV file.
    """
    if options.embeddings and csv:
        raise InputError(
            f"{options.output}: a CSV file cannot hold embeddings; choose parquet or jsonl"
        )
    classifier, _ = load_classifier(options.model, show=options.show, device=options.device)
    if classifier.config.directed and not options.directed:
        console.say(
            f"{classifier.name}: was trained on flows of one direction; add --directed",
            quiet=options.quiet,
        )
    return classifier


def _settings(options: InferOptions) -> LabelSettings:
    return LabelSettings(
        unknown_below=options.unknown_below,
        first_packets=options.first_packets[0] if options.first_packets else None,
        embeddings=options.embeddings,
        statistics=options.statistics,
        sizes=options.packet_sizes,
    )


def _write(
    captures: Sequence[Path],
    target: Path,
    classifier: FlowClassifier,
    options: InferOptions,
    also: Callable[[pa.Table], None] | None = None,
    *,
    quiet: bool = False,
) -> tuple[dict[str, int], dict[str, int]]:
    """Flows of each label, and what became of the packets."""
    kept, early = classifier.kept, options.early or 0
    with open_recording(captures, options, kept=kept, early_packets=early) as stream:
        labels = write_labels(
            classifier,
            watched(stream, captures, "infer", quiet=quiet or options.quiet),
            target,
            _settings(options),
            at_once=has_no_end(captures, options),
            also=also,
        )
    return labels, describe(stream.counts)


def _infer_each(captures: Sequence[Path], options: InferOptions) -> None:
    """Label each capture by itself, into a folder."""
    _load(options, csv=options.format == "csv")  # so that a wrong model is refused at once
    weights = hashlib.sha256(locate(options.model, TASK).read_bytes()).hexdigest()
    tables.write_each(
        captures,
        functools.partial(_make_worker, options),
        options,
        settings={
            **asdict(_settings(options)),
            "early": options.early,
            "show": sorted(set(options.show)),
            "weights": weights,
        },
        report=options.report,
    )


def _make_worker(options: InferOptions) -> batch.Process:
    """Load the model once; the returned function labels one capture."""
    classifier, _ = load_classifier(options.model, show=options.show, device=options.device)

    def process(item: batch.Item, temporaries: Sequence[Path]) -> dict[str, int]:
        labels, counts = _write(item.inputs, temporaries[0], classifier, options, quiet=True)
        return {"flows": sum(labels.values()), **counts}

    return process
