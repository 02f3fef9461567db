# SPDX-License-Identifier: Apache-2.0
"""net-traffic compress."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from fieldfare.common import console, files
from fieldfare.common.commands.train import today
from fieldfare.common.errors import InputError
from fieldfare.common.trust.guard import PART as GUARD
from fieldfare.common.weights import ModelCard, load_part, locate, save_with_page

from ..capture import FlowBatch, FlowOptions, read_flows
from ..data.dataset import LabelledFlows, load_flows, training_options
from ..data.flow_rows import is_bare, take
from ..data.labels import read_labels
from ..data.recordings import expand_folders, told_of_compiling
from ..data.spool import joined, pieces
from ..inference.calibration import fit_temperature
from ..inference.classifier import ClassifierConfig, FlowClassifier, load_classifier
from ..inference.evidence import PART
from ..inference.experts import passes
from ..networks.architectures import TASK
from ..networks.experts import ExpertsConfig, turn
from ..networks.narrow import HiddenUnits, check_routed, merged, observed, without_unused
from ..options import CompressOptions
from .train import fitted_parts


class Smaller(NamedTuple):
    """A changed network with its configurations, and whether no answer changed by it."""

    network: nn.Module
    config: Any
    experts: ExpertsConfig | None
    exact: bool
    done: str


def compress(model: str, options: CompressOptions) -> None:
    """Write a smaller or cheaper model file."""
    if options.expert_count is not None and options.macs is not None:
        raise InputError("--expert-count and --macs: give one")
    captures = expand_folders(options.captures_for)
    if options.output.exists() and options.output.samefile(locate(model, TASK)):
        raise InputError(f"{options.output}: is the model itself; choose another output")
    files.check_output(options.output, overwrite=options.overwrite)
    if options.output.suffix != ".safetensors":
        raise InputError(f"{options.output}: a model is written to a file *.safetensors")
    classifier, card = load_classifier(model)
    if classifier.config.second is not None:
        raise InputError(f"{model}: holds two networks; name one of them")
    known = classifier.config.experts
    experts = None if known is None else ExpertsConfig(**known)
    if options.macs is None:
        check_routed(experts, model)
    data = _labelled(options, classifier)
    if not captures and data is None:
        raise InputError("say what traffic the model is for: --for CAPTURE, or --fit-to")
    for capture in captures:
        if not capture.is_file():
            raise InputError(f"{capture}: no such file")

    def flows() -> Iterator[FlowBatch]:
        """What the model is for, as its network sees it."""
        if captures:
            parts = _recorded(captures, classifier)
        else:
            assert data is not None
            parts = pieces(data.of_split("train").flows)
        for part in parts:
            keep = slice(None) if classifier.config.names_bare else ~is_bare(part)
            yield take(part, np.arange(len(part))[keep])

    with told_of_compiling(quiet=options.quiet):
        before = _logits(classifier, flows)
    found = _changed(classifier, experts, flows, options)
    described = dataclasses.replace(
        classifier.config,
        network=found.config.to_dict(),
        experts=None if found.experts is None else found.experts.to_dict(),
    )
    after = FlowClassifier(found.network.eval(), described, card.name)
    answers = _logits(after, flows)
    described, parts = _fitted(model, after, data, exact=found.exact)
    written = _card(card, options.output.stem, described, found.done)
    save_with_page(options.output, found.network.state_dict(), written, parts)
    _tell(model, options, before, answers, found, kept=bool(parts))


def _changed(
    classifier: FlowClassifier,
    experts: ExpertsConfig | None,
    flows: Callable[[], Iterator[FlowBatch]],
    options: CompressOptions,
) -> Smaller:
    """As the options want it."""
    network, config = classifier.network, classifier.network_config

    def look() -> Iterator[object]:
        for part in flows():
            yield from passes(classifier, part)

    if options.macs is not None and experts is not None:
        k = int(options.macs * experts.count + 1e-9)
        if not k:
            raise InputError(f"--macs: {options.macs:g} of {experts.count} experts is none")
        try:
            experts = turn(network, experts, k)
        except ValueError as error:
            raise InputError(f"--macs: {error}") from None
        return Smaller(network, config, experts, False, f"{k} experts per token")
    if options.macs is not None:
        if classifier.config.architecture != "netfound":
            raise InputError("--macs: NetMamba has no feed-forward layers to cut; take netFound")
        units = HiddenUnits(network, config.layers)
        with torch.inference_mode():
            for _ in look():
                pass
        units.close()
        config, tensors = units.narrowed(config, options.macs)
        narrow = classifier.architecture.classifier(config, len(classifier.classes))
        narrow.load_state_dict(tensors)
        done = f"{config.intermediate_size} hidden units of a feed-forward layer"
        return Smaller(narrow, config, None, False, done)
    routed = check_routed(experts, classifier.name)
    statistics = observed(network, look())
    if not statistics:
        raise InputError("--for: there is no flow that the network would see")
    if options.expert_count is not None:
        changed = merged(network, routed, statistics, options.expert_count)
        done = f"experts merged to {options.expert_count} a layer on average"
        return Smaller(network, config, changed, False, done)
    changed = without_unused(network, routed, statistics)
    held = [sizes[0] for sizes in (changed.held or {}).values()]
    done = f"unused experts taken away: {', '.join(map(str, held))} of {routed.count} left"
    return Smaller(network, config, changed, True, done)


def _labelled(options: CompressOptions, classifier: FlowClassifier) -> LabelledFlows | None:
    if options.fit_to is None:
        return None
    table = read_labels(options.fit_to, options.captures, options.label_timezone)
    kept = training_options(classifier.kept, timed=table.timed)
    data = load_flows(table, options=kept, quiet=options.quiet)
    if data.classes != classifier.classes:
        raise InputError(f"--fit-to: {options.fit_to} has other classes than {classifier.name}")
    return data


def _recorded(captures: list[Path], classifier: FlowClassifier) -> Iterator[FlowBatch]:
    for capture in captures:
        yield from read_flows(capture, options=FlowOptions(**classifier.kept))


@torch.inference_mode()
def _logits(classifier: FlowClassifier, flows: Callable[[], Iterator[FlowBatch]]) -> np.ndarray:
    """(N, C) of all flows."""
    found = [np.zeros((0, len(classifier.classes)), np.float32)]
    for part in flows():
        logits = np.zeros((len(part), len(classifier.classes)), np.float32)
        for rows, some in passes(classifier, part):
            logits[rows] = some.float().cpu().numpy()
        found.append(logits)
    return joined(found)


def _fitted(
    model: str, after: FlowClassifier, data: LabelledFlows | None, *, exact: bool
) -> tuple[ClassifierConfig, dict[str, dict[str, Tensor]]]:
    """Calibration and what lies beside the network: fitted anew, or kept where nothing changed."""
    if data is not None and (data.split == 1).any():
        val = data.of_split("val")
        logits = joined([after.look(part)[0] for part in pieces(val.flows)])
        config = dataclasses.replace(after.config, temperature=fit_temperature(logits, val.label))
        fresh = FlowClassifier(after.network, config, after.name)
        return config, fitted_parts(fresh, data.of_split("train"), data)
    if not exact:
        return after.config, {}
    path = locate(model, TASK)
    held = {name: load_part(path, name) for name in (PART, GUARD)}
    return after.config, {name: tensors for name, tensors in held.items() if tensors}


def _card(card: ModelCard, name: str, config: ClassifierConfig, done: str) -> ModelCard:
    return dataclasses.replace(
        card,
        name=name,
        summary=f"{card.summary} Compressed: {done}.",
        config=dataclasses.asdict(config),
        training=f"{card.training}; compressed from {card.name} ({done})",
        date=today(),
        metrics=(),
    )


def _tell(
    model: str,
    options: CompressOptions,
    before: np.ndarray,
    after: np.ndarray,
    found: Smaller,
    *,
    kept: bool,
) -> None:
    """What became of the file and of the answers."""
    same = float((before.argmax(axis=1) == after.argmax(axis=1)).mean()) if len(before) else 1.0
    largest = float(np.abs(before - after).max(initial=0.0))
    sizes = [locate(model, TASK).stat().st_size, options.output.stat().st_size]
    result = {
        "output": str(options.output),
        "done": found.done,
        "bytes_before": sizes[0],
        "bytes": sizes[1],
        "flows": len(before),
        "same_label": same,
        "largest_difference": largest,
        "familiarity": kept,
    }
    text = (
        f"{options.output}: {found.done}; {sizes[1] / 1e6:.2f} MB of {sizes[0] / 1e6:.2f}; of "
        f"{len(before)} flows {100 * same:.1f} % keep their first choice, logits change by at most "
        f"{largest:.2g}"
    )
    if not kept:
        text += "; knows no familiarity: give --fit-to, or train --init it"
    console.emit(result, as_json=options.as_json, text=text)
