# SPDX-License-Identifier: Apache-2.0
"""net-traffic infer."""

import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from fieldfare.common import batch, console
from fieldfare.common.commands import budget
from fieldfare.common.commands.trust import warning
from fieldfare.common.errors import InputError
from fieldfare.common.trust.guard import Verdict
from fieldfare.common.trust.knowledge import Judgement
from fieldfare.common.weights import locate

from ..data.recordings import (
    check_captures,
    describe,
    expand_folders,
    has_no_end,
    open_recording,
    tell,
    told_of_compiling,
    watched,
)
from ..inference.classifier import FlowClassifier, load_classifier
from ..inference.guard import HeldAnswers, load_guard
from ..inference.label import EMBEDDING, LabelSettings, check_familiarity, write_labels
from ..inference.unlike import UnlikeFlows
from ..networks.architectures import TASK
from ..options import InferOptions
from . import tables
from .budget import check_end, needs_of


class Written(NamedTuple):
    """One recording: flows of each label, what became of packets, and whether to believe it."""

    labels: dict[str, int]
    counts: dict[str, int]
    judgement: Judgement | None
    verdict: Verdict | None


def infer(captures: Sequence[Path], options: InferOptions) -> None:
    """Write the flows with their labels as they end."""
    _check_adapters(options)
    captures = expand_folders(captures)
    check_end(captures, options)
    each = tables.goes_to_folder(captures, options)
    if not each:
        tables.check_recording(captures, options, report=options.report)
    elif budget.asked(options):
        check_captures(captures, options)
    options, planned = budget.within(
        TASK,
        options,
        [(capture,) for capture in captures] if each else [tuple(captures)],
        needs_of(_settings),
        workers=options.workers if each else None,
    )
    if each:
        _infer_each(captures, options, planned)
    else:
        _infer_one(captures, options, planned)
    budget.tell(planned, options)


def _infer_one(
    captures: Sequence[Path], options: InferOptions, planned: budget.Plan | None
) -> None:
    """Label all captures as one recording."""
    classifier = _load(options, csv=options.output.suffix == ".csv")
    if options.guard:
        load_guard(options.model, classifier)
    if options.dry_run:
        tables.show_recording(captures, options, model=classifier.name)
        return
    report = None
    if options.report is not None:
        from ..report.page import FlowReport

        report = FlowReport()
    use = None
    if options.explain:
        from ..inference.experts import ExpertUse, expert_layers, member_with_experts

        use = ExpertUse(expert_layers(member_with_experts(classifier)))

    def show(table: pa.Table) -> None:
        if report is not None:
            report.add(table.drop_columns([EMBEDDING.name] * options.embeddings))
        if use is not None:
            use.add(table)

    with told_of_compiling(quiet=options.quiet):
        found = _write(captures, options.output, classifier, options, show)
    if report is not None and options.report is not None:
        report.write(
            options.report,
            captures=[str(capture) for capture in captures] or [str(options.interface)],
            counts=found.counts,
            settings={
                "hidden from the model": ", ".join(classifier.hidden) or "nothing",
                "unknown below familiarity": _unknown_below(classifier, options) or "off",
                **({} if options.adapters is None else {"adapters": str(options.adapters)}),
            },
            experts=None if use is None else use.to_json(),
        )
    result: dict[str, Any] = {"model": classifier.name, "flows": sum(found.labels.values())}
    judgement, verdict = found.judgement, found.verdict
    result |= {"labels": found.labels, "judgement": judgement and judgement.to_json()}
    result["guard"] = verdict and asdict(verdict)
    if use is not None:
        result["experts"] = use.to_json()
    if classifier.sites is not None:
        result["adapters"] = classifier.sites.to_json()
    result |= budget.outcome(planned)
    tell(result, found.counts, options)


def _load(options: InferOptions, *, csv: bool) -> FlowClassifier:
    """The classifier; says on stderr where its flows were others than those asked for.

    Raises:
        InputError: no such model, or embeddings for a CSV file.
    """
    if options.embeddings and csv:
        raise InputError(
            f"{options.output}: a CSV file cannot hold embeddings; choose parquet or jsonl"
        )
    if options.explain and csv:
        raise InputError(f"{options.output}: a CSV file cannot hold --explain; choose parquet")
    classifier = _classifier(options)
    if options.explain:
        from ..inference.experts import member_with_experts

        member_with_experts(classifier)
    check_familiarity(classifier, options.unknown_below)
    if classifier.config.directed and not options.directed:
        console.say(
            f"{classifier.name}: was trained on flows of one direction; add --directed",
            quiet=options.quiet,
        )
    return classifier


def _classifier(options: InferOptions) -> FlowClassifier:
    """As the options want it."""
    if options.weights_memory is not None:
        from ..inference.streamed import stream_classifier

        if options.device == "cuda":
            raise InputError("--weights-memory: weights are read on the CPU; take --device cpu")
        return stream_classifier(
            options.model,
            options.weights_memory,
            show=options.show,
            experts_per_token=options.experts_per_token,
        )[0]
    classifier, _ = load_classifier(
        options.model,
        show=options.show,
        device=options.device,
        experts_per_token=options.experts_per_token,
    )
    if options.adapters is not None:
        from ..inference.adapters import adapt

        adapt(classifier, options.adapters)
    return classifier


def _check_adapters(options: InferOptions) -> None:
    """Raise InputError where adapters would be left out, or their model exchanged."""
    if options.adapters is None:
        return
    for name, given in (
        ("weights-memory", options.weights_memory is not None),
        ("explain", options.explain),
        ("within, --max-memory, --budget and --variant", budget.asked(options)),
    ):
        if given:
            raise InputError(f"--adapters: cannot be used together with --{name}")


def _unknown_below(classifier: FlowClassifier, options: InferOptions) -> float | None:
    given = options.unknown_below
    return classifier.unknown_below if given is None else given


def _settings(options: InferOptions, classifier: FlowClassifier) -> LabelSettings:
    return LabelSettings(
        unknown_below=options.unknown_below,
        first_packets=options.first_packets[0] if options.first_packets else None,
        embeddings=options.embeddings,
        statistics=options.statistics,
        sizes=options.packet_sizes,
        guard=load_guard(options.model, classifier) if options.guard else None,
        explain=options.explain,
    )


def _write(
    captures: Sequence[Path],
    target: Path,
    classifier: FlowClassifier,
    options: InferOptions,
    also: Callable[[pa.Table], None] | None = None,
    *,
    quiet: bool = False,
) -> Written:
    """Write the flows of one recording.

    Raises:
        InputError: with `--strict`, a recording unlike what the model knows, or whose answers do
            not hold.
    """
    name = ", ".join(map(str, captures)) or str(options.interface)
    settings = _settings(options, classifier)
    unlike, held = UnlikeFlows(classifier), HeldAnswers(settings.guard)

    def gather(table: pa.Table) -> None:
        unlike.add(table)
        held.add(table)
        if also is not None:
            also(table)

    def check() -> None:
        if line := warning(unlike.judgement(), name, options):
            console.say(f"warning: {line}")
        verdict = held.verdict()
        if verdict is not None and verdict.alarm:
            line = f"{name}: {verdict.sentence()}"
            if options.strict:
                raise InputError(f"{line}; nothing was written, as --strict was given")
            console.say(f"warning: {line}")

    kept, early = classifier.kept, options.early or 0
    with open_recording(captures, options, kept=kept, early_packets=early) as stream:
        labels = write_labels(
            classifier,
            watched(stream, captures, "infer", quiet=quiet or options.quiet),
            target,
            settings,
            at_once=has_no_end(captures, options),
            also=gather,
            check=check,
        )
    return Written(labels, describe(stream.counts), unlike.judgement(), held.verdict())


def _infer_each(
    captures: Sequence[Path], options: InferOptions, planned: budget.Plan | None
) -> None:
    """Label each capture by itself, into a folder."""
    # So that a wrong model is refused at once.
    known = _settings(options, _load(options, csv=options.format == "csv"))
    weights = hashlib.sha256(locate(options.model, TASK).read_bytes()).hexdigest()
    tables.write_each(
        captures,
        functools.partial(_make_worker, options),
        options,
        settings={
            **asdict(known),
            "early": options.early,
            "strict": options.strict,
            "show": sorted(set(options.show)),
            "weights": weights,
            "experts_per_token": options.experts_per_token,
            **_adapters_record(options),
            **budget.record(planned),
        },
        report=options.report,
        finish=lambda: budget.outcome(planned),
    )


def _adapters_record(options: InferOptions) -> dict[str, str]:
    """What a run that goes on must share: the adapters."""
    if options.adapters is None:
        return {}
    from ..inference.adapters import FILE

    files = sorted(options.adapters.rglob(FILE))
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    return {"adapters": " ".join(digests)}


def _make_worker(options: InferOptions) -> batch.Process:
    """Load the model once; the returned function labels one capture."""
    classifier = _classifier(options)

    def process(item: batch.Item, temporaries: Sequence[Path]) -> dict[str, float]:
        found = _write(item.inputs, temporaries[0], classifier, options, quiet=True)
        told: dict[str, float] = {"flows": sum(found.labels.values()), **found.counts}
        if found.judgement is not None:
            told["unlike"] = found.judgement.beyond
        if found.verdict is not None:
            told["flagged"] = found.verdict.flagged
        return told

    return process
