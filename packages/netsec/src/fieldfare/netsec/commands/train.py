# SPDX-License-Identifier: Apache-2.0
"""net-traffic train."""

import dataclasses
from pathlib import Path
from typing import cast

from torch import Tensor

from fieldfare.common.commands.train import tell_trained, today
from fieldfare.common.errors import InputError
from fieldfare.common.experts.recipes import Kind, Start
from fieldfare.common.trust.guard import PART as GUARD
from fieldfare.common.weights import ModelCard, save_with_page

from ..data.dataset import LabelledFlows, load_flows, training_options
from ..data.flow_rows import is_bare
from ..data.labels import SPLITS, read_labels
from ..data.masking import field_names
from ..data.spool import joined, pieces
from ..evaluation.fitting import LEAST, fit_evidence, fit_guard, free_flows
from ..inference.classifier import ClassifierConfig, FlowClassifier, load_classifier, most_kept
from ..inference.evidence import PART
from ..inference.start import load_start
from ..networks.architectures import TASK, preset, title
from ..networks.experts import ONE_EXPERT, ExpertsConfig
from ..options import PRESETS, TrainOptions
from ..training.run import FineTuning, train_classifier, training_flows
from .training_settings import settings_of, told

LIMITS = (
    "Knows the classes and the networks that it was trained on; without a split val it labels "
    "whatever it sees as one of them. Scores on the captures of one place say little of another's."
)


def train(labels: Path, options: TrainOptions) -> None:
    """Fine-tune a classifier, then write `model.safetensors` with its card."""
    if options.init is not None and options.preset is not None:
        raise InputError("--preset and --init: give one, the network of --init has its own size")
    start = None if options.init is None else load_start(options.init)
    if options.adapter_rank:
        from .adapt import adapt

        adapt(start, read_labels(labels, options.captures, options.label_timezone), options)
        return
    kind, config = (
        preset(options.preset or PRESETS[0]) if start is None else (start.kind, start.config)
    )
    experts = experts_of(options, None if start is None else start.experts)
    hidden, optional = field_names(options.hide), field_names(options.optional)
    if twice := set(hidden) & set(optional):
        raise InputError(f"--optional: {min(twice)} is always hidden, by --hide")
    table = read_labels(labels, options.captures, options.label_timezone)
    teacher = None if options.teacher is None else load_classifier(options.teacher)[0]
    kept = kind.kept(config) if teacher is None else most_kept(kind.kept(config), teacher.kept)
    flow_options = training_options(kept, timed=table.timed, varied=options.variations > 0)
    data = load_flows(
        table, options=flow_options, cache=options.output / "flows", quiet=options.quiet
    )
    if teacher is not None and teacher.classes != data.classes:
        raise InputError(f"--teacher: {options.teacher} knows other classes than {labels}")
    how = FineTuning(
        hidden, optional, options.balance, options.smoothing, options.shots, options.per_capture,
        options.variations, robust=options.robust, contrast=options.contrast,
    )  # fmt: skip
    settings = settings_of(options, validate_every=max(1, options.steps // 10))
    network, temperature = train_classifier(
        kind, config, data, how, settings, options.output, start=start,
        teacher=None if teacher is None else lambda flows: teacher.classify(flows).networks,
        experts=experts, quiet=options.quiet,
    )  # fmt: skip
    described = ClassifierConfig(
        architecture=kind.published.name,
        network=config.to_dict(),
        classes=data.classes,
        hidden=(*hidden, *optional),
        optional=optional,
        temperature=temperature or 1.0,
        names_bare=_has_bare(data),
        experts=None if experts is None else experts.to_dict(),
    )
    counts = {split: int((data.split == number).sum()) for number, split in enumerate(SPLITS)}
    shots = f", {options.shots} flows a class of them" if options.shots else ""
    shots += f", at most {options.per_capture} a capture" if options.per_capture else ""
    card = ModelCard(
        name=options.output.name,
        task=TASK,
        summary=f"{title(kind, config)}: {len(data.classes)} classes of traffic.",
        config=dataclasses.asdict(described),
        data=f"{labels.name}: {counts['train']} flows{shots}",
        split=f"by capture: {counts['val']} flows for validation, {counts['test']} for test",
        training=told(options, settings)
        + (f"; {experts.sentence()}" if experts else "")
        + (f"; from {start.path.name}" if start else "")
        + (f"; on the worst of {options.robust} disguises" if options.robust else "")
        + (
            f"; also on first packets, contrast {options.contrast:g}"
            if how.contrast is not None
            else ""
        )
        + (f"; taught by {teacher.name}" if teacher else ""),
        limits=LIMITS,
        seed=settings.seed,
        date=today(),
    )
    train_flows = training_flows(data, how, settings.seed)
    parts = fitted_parts(FlowClassifier(network, described, card.name), train_flows, data)
    target = options.output / "model.safetensors"
    tell_trained(save_with_page(target, network.state_dict(), card, parts), options)


def _has_bare(data: LabelledFlows) -> bool:
    """Whether a flow to train on carries nothing."""
    bare = joined([is_bare(part) for part in pieces(data.flows)])
    return bool(bare[data.split == SPLITS.index("train")].any())


def experts_of(options: TrainOptions, have: ExpertsConfig | None) -> ExpertsConfig | None:
    """The experts to train: those asked for, or those of the start.

    Raises:
        InputError: both, or what `ExpertsConfig` refuses.
    """
    if options.experts is None:
        if options.experts_per_token is not None:
            raise InputError("--experts-per-token: needs --experts; a start keeps its own number")
        return have
    if have is not None:
        raise InputError(f"--experts: {options.init} has {have.kind} experts already; leave it out")
    count = options.expert_count
    k = options.experts_per_token
    if k is None:
        k = 1 if options.experts in ONE_EXPERT else max(1, count // 2)
    elif k > 1 and options.experts in ONE_EXPERT:
        raise InputError(f"--experts-per-token: of {options.experts} experts each token runs one")
    try:
        return ExpertsConfig(
            kind=cast(Kind, options.experts), count=count, k=k,
            start=cast(Start, options.expert_start), seed=options.seed,
        )  # fmt: skip
    except ValueError as error:
        raise InputError(f"--experts: {error}") from None


def fitted_parts(
    classifier: FlowClassifier, train_flows: LabelledFlows, data: LabelledFlows
) -> dict[str, dict[str, Tensor]]:
    """What is fitted on val; nothing where that split is missing or small."""
    if not (data.split == SPLITS.index("val")).any():
        return {}
    val = data.of_split("val")
    if min(len(train_flows), free_flows(val)) < LEAST:
        return {}
    evidence = fit_evidence([classifier], train_flows, val)
    guard = fit_guard(classifier, val)
    parts = {PART: evidence.to_tensors()}
    return parts | {GUARD: guard.to_tensors()} if guard else parts
