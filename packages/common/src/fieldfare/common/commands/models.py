# SPDX-License-Identifier: Apache-2.0
"""`models`: the packaged models of a task, with what was measured."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .. import console
from ..console.shared import JsonOptions
from ..trust.knowledge import read_knowledge
from ..weights import ModelCard, available, read_card


def list_models(
    task: str,
    options: JsonOptions,
    *,
    more: Callable[[ModelCard], Mapping[str, Any]] = lambda _: {},
    baseline: str = "",
) -> None:
    """Print every packaged model's card in short.

    Args:
        task: as in the cards.
        more: what else to tell of a model, by name: a list of rows becomes a table.
        baseline: a line on what stands beside the models.
    """
    lines: list[str] = []
    listed = []
    for path in available(task).values():
        card = read_card(path)
        added = more(card)
        knowledge = read_knowledge(path)
        knows = knowledge.summary() if knowledge else None
        lines += _card_lines(path, card, added)
        lines += [f"  {knows}"] * bool(knows)
        listed.append(
            dataclasses.asdict(card) | {"bytes": path.stat().st_size, "knows": knows} | dict(added)
        )
    lines += [baseline] * bool(baseline)
    console.emit({"models": listed}, as_json=options.as_json, text="\n".join(lines) or "(none)")


def _card_lines(path: Path, card: ModelCard, more: Mapping[str, Any]) -> list[str]:
    lines = [card.name, f"  {card.summary}"]
    lines += [f"  {m.name}: {m.value:.4g} ({m.definition})" for m in card.metrics]
    for name, value in more.items():
        if isinstance(value, list):
            lines += [f"  {line}" for line in console.table(value).splitlines()]
        else:
            lines.append(f"  {name}: {value}")
    lines += [f"  trained on: {card.data}", f"  limits: {card.limits}"]
    return [*lines, f"  card: {path.with_suffix('.md')}"]
