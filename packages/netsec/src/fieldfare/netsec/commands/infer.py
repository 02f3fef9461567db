# SPDX-License-Identifier: Apache-2.0
"""net-traffic infer."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from fieldfare.common import console, files
from fieldfare.common.errors import InputError

from ..capture import FlowBatch, to_table
from ..data.flow_files import FLOW_SCHEMA, check_table, open_table
from ..data.flow_rows import first_packets_only, regroup
from ..data.recordings import describe, has_no_end, open_recording, tell, told_of_compiling, watched
from ..inference.calibration import is_unknown, softmax
from ..inference.classifier import Classified, FlowClassifier, load_classifier
from ..report.page import UNKNOWN, FlowReport

GROUP = 1024
"""Flows classified at a time. Groups are cut by count alone, so that the result does not depend on
how the capture was read."""

DIGITS = 6
"""Of probabilities; what lies behind depends on the processor."""

LABEL_SCHEMA = pa.schema(
    [
        ("label", pa.string()),
        ("probability", pa.float64()),
        ("confidence", pa.float64()),
        ("model", pa.string()),
    ]
)
EMBEDDING = pa.field("embedding", pa.list_(pa.float32()))


def infer(captures: Sequence[str], output: Path, options: Mapping[str, Any]) -> None:
    """Write the flows with their labels as they end."""
    check_table(output, options)
    report_path: Path | None = options["report"]
    if report_path is not None:
        files.check_output(report_path, overwrite=options["overwrite"])
    if options["embeddings"] and output.suffix == ".csv":
        raise InputError(f"{output}: a CSV file cannot hold embeddings; name it *.parquet")
    classifier, _ = load_classifier(
        options["model"], show=options["show"], device=options["device"]
    )
    if classifier.config.directed and not options["directed"]:
        console.say(
            f"{classifier.name}: was trained on flows of one direction; add --directed",
            quiet=options["quiet"],
        )
    schema = pa.schema([*FLOW_SCHEMA, *LABEL_SCHEMA, *[EMBEDDING] * options["embeddings"]])
    report = FlowReport() if report_path is not None else None
    counted = dict.fromkeys([*classifier.classes, UNKNOWN], 0)
    kept = {**classifier.kept, "early_packets": options["early"] or 0}
    with (
        told_of_compiling(quiet=options["quiet"]),
        open_recording(captures, options, **kept) as stream,
        open_table(output, schema) as table,
    ):
        flows: Iterable[FlowBatch] = watched(stream, captures, "infer", quiet=options["quiet"])
        if not has_no_end(captures, options):
            flows = regroup(flows, GROUP)
        for batch in flows:
            labelled = label_flows(classifier, batch, options)
            for name in labelled["label"].to_pylist():
                counted[name] += 1
            table.write(labelled)
            if report is not None:
                report.add(labelled.drop_columns(["embedding"] * options["embeddings"]))
    told = describe(stream.counts)
    if report is not None and report_path is not None:
        report.write(
            report_path,
            captures=list(captures) or [options["interface"]],
            counts=told,
            settings={
                "hidden from the model": ", ".join(classifier.hidden) or "nothing",
                "unknown below": options["unknown_below"] or "off",
            },
        )
    found = {name: count for name, count in counted.items() if count}
    found = dict(sorted(found.items(), key=lambda item: -item[1]))
    result = {"model": classifier.name, "flows": sum(counted.values()), "labels": found}
    tell(output, result, told, options)


def label_flows(
    classifier: FlowClassifier, batch: FlowBatch, options: Mapping[str, Any]
) -> pa.Table:
    """A batch as a table with labels."""
    if options["first_packets"]:
        batch = first_packets_only(batch, options["first_packets"][0])
    found = classifier.classify(batch)
    columns = dict(zip(LABEL_SCHEMA.names, _labels(classifier, found, options), strict=True))
    if options["embeddings"]:
        columns[EMBEDDING.name] = pa.array(list(found.embeddings), EMBEDDING.type)
    table = to_table(batch)
    for name, column in columns.items():
        table = table.append_column(name, column)
    return table


def _labels(
    classifier: FlowClassifier, found: Classified, options: Mapping[str, Any]
) -> Iterator[pa.Array]:
    """The columns of `LABEL_SCHEMA`."""
    rows = np.arange(len(found.logits))
    best = found.probabilities.argmax(axis=1)
    names = np.array(classifier.classes, object)[best]
    if options["unknown_below"]:
        names[is_unknown(found.probabilities, options["unknown_below"])] = UNKNOWN
    yield pa.array(names, pa.string())
    for probabilities in (softmax(found.logits), found.probabilities):
        yield pa.array(probabilities[rows, best].round(DIGITS), pa.float64())
    yield pa.array([classifier.name] * len(rows), pa.string())
