# SPDX-License-Identifier: Apache-2.0
"""The verb `models` of wl-precode and wl-power."""

import dataclasses

from fieldfare.common import console
from fieldfare.common.weights import available, read_card


def models(task: str, as_json: bool) -> None:
    """Print every packaged model's card in short.

    Args:
        task: as in the cards.
        as_json: as one JSON object.
    """
    lines, listed = [], []
    for path in available(task).values():
        card = read_card(path)
        lines += [card.name, f"  {card.summary}"]
        lines += [f"  {m.name}: {m.value:.4g} ({m.definition})" for m in card.metrics]
        lines += [f"  trained on: {card.data}", f"  limits: {card.limits}"]
        lines.append(f"  card: {path.with_suffix('.md')}")
        listed.append(dataclasses.asdict(card) | {"bytes": path.stat().st_size})
    console.emit({"models": listed}, as_json=as_json, text="\n".join(lines))
