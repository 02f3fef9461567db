# SPDX-License-Identifier: Apache-2.0
"""net-traffic eval."""

from pathlib import Path

from fieldfare.common import console

from ..data.dataset import load_flows, training_options
from ..data.labels import read_labels
from ..evaluation.compare import Comparison, compare
from ..inference.classifier import load_classifier
from ..options import EvalOptions


def evaluate(labels: Path, options: EvalOptions) -> None:
    """Score a model on a split, beside what a user would try instead."""
    classifier, _ = load_classifier(
        options.model,
        show=options.show,
        device=options.device,
        experts_per_token=options.experts_per_token,
    )
    if options.adapters is not None:
        from ..inference.adapters import adapt

        adapt(classifier, options.adapters)
    table = read_labels(labels, options.captures, options.label_timezone)
    cache = options.output / "flows" if options.output else None
    kept = training_options(classifier.kept, trees=options.trees, timed=table.timed)
    flows = load_flows(table, options=kept, cache=cache, quiet=options.quiet)
    found = compare(
        classifier,
        flows,
        options.split,
        trees=options.trees,
        neighbours=options.neighbours,
        evasions=options.evasions,
        first_packets=options.first_packets or (),
    )
    if options.output is not None:
        found.save(options.output)
    console.emit(found.to_dict(), as_json=options.as_json, text=_text(found))


def _text(found: Comparison) -> str:
    """For people: macro-F1 and classes first."""
    scores = found.scores
    lines = [
        f"{found.model} on {found.split}: macro-F1 {scores.macro_f1:.3f}, accuracy "
        f"{scores.accuracy:.3f}, {scores.support.sum()} flows; hidden from the model: "
        f"{', '.join(found.hidden) or 'nothing'}",
        "",
        console.table(scores.rows()),
        "",
        "shortcut audit: scores with fields hidden in turn",
        console.table(found.audit),
    ]
    if found.rivals:
        rows = [
            {"baseline": name, "macro_f1": rival.macro_f1, "accuracy": rival.accuracy}
            for name, rival in found.rivals.items()
        ]
        lines += ["", "instead of a network, on the same flows", console.table(rows)]
    if scores.reliability is not None:
        lines += ["", f"expected calibration error {scores.reliability.error:.3f}"]
    if found.robust is not None:
        lines += [
            "",
            f"clean macro-F1 {scores.macro_f1:.3f}, robust {found.robust['macro_f1']:.3f}; "
            f"accuracy {scores.accuracy:.3f}, robust {found.robust['accuracy']:.3f}: each flow's "
            f"sender keeps the best of {found.robust['evasions']} disguises",
        ]
    if found.unknown is not None:
        lines += ["", "flows of known classes by --unknown-below", console.table(found.unknown)]
    if found.first_packets:
        lines += ["", "after the first packets of a flow", console.table(found.first_packets)]
    return "\n".join(lines)
