# SPDX-License-Identifier: Apache-2.0
"""fieldfare slim."""

import dataclasses
import json
import math
from typing import Any

import torch
from torch import nn

from .. import console
from ..budget import latency
from ..budget.choose import format_macs
from ..errors import InputError, RunError
from ..files import check_output
from ..runtime import set_threads
from ..slim.steps import Measured, Target, Tried, bytes_of, rounded, run
from ..slim.workshop import Data, Draft, Step, Workshop, workshop_of
from ..weights import Metric, ModelCard, load_model_file, locate
from .slim_notes import Done, Notes
from .slim_options import SlimOptions
from .train import today

SAME = 1e-6
"""Difference in quality between what was measured and what is read back."""


def slim(model: str, options: SlimOptions) -> None:
    """Make a model cheaper, step by step, and write it."""
    check_output(options.output, overwrite=options.overwrite)
    if options.output.suffix != ".safetensors":
        raise InputError(f"{options.output}: write a .safetensors file")
    for path in options.data:
        if not path.exists():
            raise InputError(f"{path}: no such file")
    target = _target(options.target)
    task, workshop = workshop_of(model)
    network, card = workshop.load(model)
    set_threads()
    data = workshop.read(network, options.data, quiet=options.quiet)
    steps = workshop.steps(network, data)
    if (load := latency.overload()) is not None:
        console.say(f"{load}; trust the operations more than the times", quiet=options.quiet)
    judge = Judge(workshop, network, data, options.repeats)
    draft = Draft(network, half=_is_half(model, task))
    whole = judge(draft)
    rows = [_row("", "as it is", whole, kept=True)]
    _tell(rows[0], whole, quiet=options.quiet)
    result: dict[str, Any] = {"task": task, "unit": workshop.unit, "metric": workshop.metric}
    if options.dry_run:
        text = "steps: " + ", ".join(step.name for step in steps)
        console.emit(result | {"rows": rows}, as_json=options.as_json, text=text)
        return
    notes = Notes(options.output, _identity(model, card, options))
    now, first = whole, 0
    if (done := notes.read()) is not None:
        console.say(f"going on after {steps[done.steps - 1].name}", quiet=options.quiet)
        rows, first = rows[:1] + done.rows, done.steps
        draft = Draft(workshop.load(str(notes.part))[0], done.half)
        now = judge(draft)

    def told(tried: Tried) -> None:
        rows.append(_row(tried.step, tried.what, tried.measured, kept=tried.kept))
        _tell(rows[-1], whole, quiet=options.quiet)

    def finished(step: Step, left: Draft) -> None:
        workshop.save(left, card, None, notes.part)
        notes.write(Done(steps.index(step) + 1, left.half, rows[1:]))

    least = whole.quality - options.max_loss
    draft, now = run(
        draft, steps[first:], judge, target, least, now=now, told=told, finished=finished
    )
    card = _card(card, options, rows, whole, now, workshop)
    workshop.save(draft, card, data, notes.part)
    again = data.score(workshop.load(str(notes.part))[0])
    if not math.isclose(again, now.quality, abs_tol=SAME):
        raise RunError(f"{notes.part}: scores {again:.6f} when read, {now.quality:.6f} before")
    written, met = notes.publish(), target.met(now)
    text = f"{written}: {_change(now, whole, workshop)}"
    if not met:
        text += "\nwhat was asked for was not reached; what was kept is the best within --max-loss"
    result |= {"rows": rows, "model": written, "met": met}
    table = console.table([_shown(row, whole) for row in rows])
    console.emit(result, as_json=options.as_json, text=f"{table}\n{text}")


class Judge:
    """Measures drafts, their times in turn with the whole network's.

    What else a machine does lengthens both alike, so a draft's time is its share of the time that
    the whole network took at first.
    """

    def __init__(self, workshop: Workshop, network: nn.Module, data: Data, repeats: int) -> None:
        self._workshop, self._data, self._repeats = workshop, data, repeats
        _, self._whole = workshop.unit_of(network)
        self._seconds = latency.measure({"whole": self._whole}, repeats=repeats)["whole"]
        self._timed = (network, self._seconds)

    def __call__(self, draft: Draft) -> Measured:
        return Measured(
            quality=self._data.score(rounded(draft)),
            seconds=self._seconds_of(draft.network),
            macs=self._workshop.macs(draft.network),
            bytes=bytes_of(draft),
        )

    def _seconds_of(self, network: nn.Module) -> float:
        """Of a unit; of the network that was timed last, as it was."""
        if network is not self._timed[0]:
            _, unit = self._workshop.unit_of(network)
            units = {"whole": self._whole, "draft": unit}
            took = latency.measure(units, repeats=self._repeats)
            self._timed = network, self._seconds * took["draft"] / took["whole"]
        return self._timed[1]


def _target(wanted: tuple[tuple[str, float], ...]) -> Target:
    most = dict(wanted)
    size = most.get("bytes")
    return Target(most.get("seconds"), most.get("macs"), None if size is None else int(size))


def _is_half(model: str, task: str) -> bool:
    """Whether a model file holds weights in half precision."""
    _, tensors = load_model_file(locate(model, task))
    return any(tensor.dtype == torch.float16 for tensor in tensors.values())


def _identity(model: str, card: ModelCard, options: SlimOptions) -> str:
    files = [(str(path.resolve()), path.stat().st_mtime_ns) for path in options.data]
    return json.dumps([model, card.to_json(), files, options.target, options.max_loss])


def _row(step: str, what: str, found: Measured, *, kept: bool) -> dict[str, Any]:
    return {"step": step, "what": what} | dataclasses.asdict(found) | {"kept": kept}


def _shown(row: dict[str, Any], whole: Measured) -> dict[str, Any]:
    """For people, with the changes from the whole network."""
    return {
        "step": row["step"],
        "what": row["what"],
        "kept": "" if not row["step"] else ("yes" if row["kept"] else "no"),
        "quality": f"{row['quality']:.4f} ({row['quality'] - whole.quality:+.4f})",
        "ms": f"{1000 * row['seconds']:.1f} ({row['seconds'] / whole.seconds:.0%})",
        "operations": f"{format_macs(row['macs'])} ({row['macs'] / whole.macs:.0%})",
        "weights": f"{row['bytes'] / 1e6:.2f} MB ({row['bytes'] / whole.bytes:.0%})",
    }


def _tell(row: dict[str, Any], whole: Measured, *, quiet: bool) -> None:
    shown = _shown(row, whole)
    kept = {"": "", "yes": ", kept", "no": ", not kept"}[shown["kept"]]
    numbers = ", ".join(shown[name] for name in ("quality", "ms", "operations", "weights"))
    console.say(f"{row['step']} {row['what']}: {numbers}{kept}".strip(), quiet=quiet)


def _change(found: Measured, whole: Measured, workshop: Workshop) -> str:
    return (
        f"{workshop.metric} {found.quality:.4f} of {whole.quality:.4f}, "
        f"{found.seconds / whole.seconds:.0%} of the time of a {workshop.unit}, "
        f"{found.macs / whole.macs:.0%} of the operations, {found.bytes / whole.bytes:.0%} of the "
        "bytes"
    )


def _card(
    card: ModelCard,
    options: SlimOptions,
    rows: list[dict[str, Any]],
    whole: Measured,
    found: Measured,
    workshop: Workshop,
) -> ModelCard:
    """Of the slimmed model: what it was made from and how, and what it was measured to be."""
    kept = [f"{row['step']} ({row['what']})" for row in rows[1:] if row["kept"]]
    names = ", ".join(path.name for path in options.data)
    told = f"on {names}, which it was chosen by; {whole.quality:.4f} before"
    return dataclasses.replace(
        card,
        name=options.output.stem,
        summary=f"{card.summary.rstrip('.')}, slimmed from {card.name}.",
        training=f"{card.training}; then fieldfare slim: {', '.join(kept) or 'nothing kept'}",
        date=today(),
        metrics=(Metric(workshop.metric, found.quality, told),),
    )
