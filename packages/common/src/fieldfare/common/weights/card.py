# SPDX-License-Identifier: Apache-2.0
"""The model card: what a weight file is, where it comes from and how good it was measured to be."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Metric:
    """One measured number; `definition` says on what and how it was computed."""

    name: str
    value: float
    definition: str


@dataclass(frozen=True)
class ModelCard:
    """Everything a user must know before trusting a model.

    Attributes:
        name: of the model, lower_snake.
        task: which command can use it, for example `super-resolution`.
        summary: one sentence.
        config: what the task's code needs to build the network.
        data, data_licence, split: what it was trained on, under which licence, what was held out.
        weights_licence: SPDX identifier, or `unknown` for a converted checkpoint.
        training: machine, duration, settings, in words.
        limits: where not to trust it.
        seed, date: of the training run; date is ISO 8601.
    """

    name: str
    task: str
    summary: str
    config: dict[str, Any]
    data: str = "unknown"
    data_licence: str = "unknown"
    split: str = "unknown"
    weights_licence: str = "unknown"
    training: str = "unknown"
    limits: str = "unknown"
    seed: int | None = None
    date: str = "unknown"
    metrics: tuple[Metric, ...] = field(default=())

    def to_json(self) -> str:
        """One JSON object with sorted keys, as stored in the weight file's header."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "ModelCard":
        """Read what `to_json` wrote; raises ValueError on anything else."""
        try:
            values = json.loads(text)
            metrics = tuple(Metric(**metric) for metric in values.pop("metrics"))
            card = cls(**values, metrics=metrics)
        except (TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(f"not a model card: {error}") from None
        if not isinstance(card.config, dict):
            raise ValueError("not a model card: its config is not an object")
        return card

    def to_markdown(self) -> str:
        """The card as a page."""
        rows = [
            ("Task", self.task),
            ("Training data", self.data),
            ("Licence of the data", self.data_licence),
            ("Split", self.split),
            ("Training", self.training),
            ("Seed", "unknown" if self.seed is None else str(self.seed)),
            ("Date", self.date),
            ("Licence of the weights", self.weights_licence),
            ("Limits", self.limits),
        ]
        rows = [(title, _cell(text)) for title, text in rows]
        lines = [f"# {self.name}", "", self.summary, "", "| | |", "| --- | --- |"]
        lines += [f"| {title} | {text} |" for title, text in rows]
        if self.metrics:
            lines += ["", "| metric | value | definition |", "| --- | --- | --- |"]
            for m in self.metrics:
                lines.append(f"| {_cell(m.name)} | {m.value:.4g} | {_cell(m.definition)} |")
        lines += ["", "```json", json.dumps(self.config, indent=2), "```", ""]
        return "\n".join(lines)


def _cell(text: str) -> str:
    """Text that stays within one cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")
