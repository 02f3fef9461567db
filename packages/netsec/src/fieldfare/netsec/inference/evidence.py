# SPDX-License-Identifier: Apache-2.0
"""From what networks say of flows to labels: ports, calibration, and how familiar a flow is.

Familiarity is a conformal p-value: the share of known validation flows that look as strange. What
looks strange is told by three kinds of signs, none of them the softmax alone: how sure the networks
and the port are together, whether the port is one that the class has had, and how far the networks'
embeddings lie from those of the training flows (`fieldfare.common.trust.familiar`).

Source: conformal p-values for outliers, Bates, Candes, Lei, Romano and Sesia 2023 (arXiv
    2104.08279), equation 2.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from fieldfare.common.trust.familiar import Familiar

from ..capture import FlowBatch
from .calibration import softmax
from .ports import PortTable

PART = "evidence"
"""Under which a model file keeps it."""

PORT_COUNTS = 2.0
"""Times that the port's sign counts, chosen on flows of other protocols in captures of the splits
train and val: with 7 % of known flows lost, 0.8 % instead of 2.4 % of 249 in train are named."""

PORT = 1
"""Column of the port among the signs."""

ROUNDING = 1e-4
"""Standard deviations; an embedding's last digits depend on the flows beside it."""

LEAST_SPREAD = 1e-6
"""Nats; what lies below is rounding."""

_TOGETHER = 512
"""Flows whose distances are computed together: 40 KB each."""

STRANGEST = 6.0
"""Standard deviations that one sign may count."""


@dataclass(frozen=True)
class Stage:
    """What belongs to one network, or to two of them together.

    Attributes:
        weight: of the port's evidence beside the networks' mean log-probability.
        temperature: that their sum is divided by, so that probabilities hold on validation flows.
        centre, spread: (F,) of the signs on known validation flows.
        scores: (V,) float64, those flows' sums of signs, ascending.
    """

    weight: float
    temperature: float
    centre: np.ndarray
    spread: np.ndarray
    scores: np.ndarray

    def familiarity(self, signs: np.ndarray) -> np.ndarray:
        """(N, F) signs -> (N,) share of known validation flows at most as familiar, above 0."""
        rank = np.searchsorted(self.scores, self.sums(signs) + ROUNDING, side="right")
        found: np.ndarray = (rank + 1) / (len(self.scores) + 1)
        return found

    def sums(self, signs: np.ndarray) -> np.ndarray:
        """(N, F) signs -> (N,) sum in standard deviations, the port's `PORT_COUNTS` times."""
        unit = (signs - self.centre) / self.spread
        counts = np.ones(signs.shape[1])
        counts[PORT] = PORT_COUNTS
        found: np.ndarray = np.clip(unit, -STRANGEST, STRANGEST) @ counts
        return found


@dataclass(frozen=True)
class Judged:
    """Of N flows and C classes.

    Attributes:
        probabilities: (N, C) float64, of networks and port, calibrated.
        networks: (N, C) float64, of the networks alone, of the same temperature.
        familiarity: (N,) float64; 1 where the protocol alone decides.
    """

    probabilities: np.ndarray
    networks: np.ndarray
    familiarity: np.ndarray


@dataclass(frozen=True)
class Evidence:
    """What a model file keeps beside its networks.

    Attributes:
        ports: see `PortTable`.
        familiar: of each network's embeddings.
        stages: of the first network alone, and of both.
        window: flows of less familiarity by the first network alone are shown to the second.
        unknown_below: familiarity below which a flow is better called unknown.
        members: experts of the first network that are asked one by one, how far they disagree
            being a further sign (THOR, see `spread`); 0: none.
    """

    ports: PortTable
    familiar: tuple[Familiar, ...]
    stages: tuple[Stage, ...]
    window: float
    unknown_below: float
    members: int = 0

    def judge(
        self,
        flows: FlowBatch,
        logs: Sequence[np.ndarray],
        embeddings: Sequence[np.ndarray],
        spread: np.ndarray | None = None,
    ) -> Judged:
        """Judge flows by the first network, or by the mean of both.

        Args:
            logs: log-probabilities (N, C) of one or of both networks.
            embeddings: (N, E) of the same.
            spread: (N,) by `spread.spread_of`, of a model with `members`.
        """
        stage = self.stages[len(logs) - 1]
        ports = self.ports(flows)
        mean = np.mean(logs, axis=0)
        rule = self.ports.rule(flows)
        alone, summed = (
            softmax(part / stage.temperature + rule) for part in (mean, mean + stage.weight * ports)
        )
        found = Judged(summed, alone, np.ones(len(flows)))
        free = ~self.ports.decides(flows)
        seen = signs(found.probabilities, ports, self.familiar, embeddings, spread)
        found.familiarity[free] = stage.familiarity(seen)[free]
        return found

    def to_tensors(self) -> dict[str, Tensor]:
        """For `save_model_file(..., parts={PART: evidence.to_tensors()})`."""
        about = {
            "icmp": self.ports.icmp,
            "window": self.window,
            "unknown_below": self.unknown_below,
            "stages": [[stage.weight, stage.temperature] for stage in self.stages],
            "rest": [one.rest for one in self.familiar],
        }
        if self.members:
            about["members"] = self.members
        text = json.dumps(about, sort_keys=True).encode()
        found = {
            "about": torch.frombuffer(bytearray(text), dtype=torch.uint8),
            "ports.keys": torch.from_numpy(self.ports.keys),
            "ports.log_odds": torch.from_numpy(self.ports.log_odds),
        }
        for place, stage in enumerate(self.stages):
            for name in ("centre", "spread", "scores"):
                found[f"stage{place}.{name}"] = torch.from_numpy(getattr(stage, name))
        for place, one in enumerate(self.familiar):
            kept = asdict(one)
            del kept["rest"]
            found |= {f"familiar{place}.{n}": torch.from_numpy(v).float() for n, v in kept.items()}
        return found

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "Evidence":
        """Read what `to_tensors` wrote; raises ValueError on anything else."""
        try:
            about = json.loads(bytes(tensors["about"].tolist()))
            arrays = {name: tensor.numpy() for name, tensor in tensors.items()}

            def of(prefix: str) -> dict[str, np.ndarray]:
                names = [name for name in arrays if name.startswith(f"{prefix}.")]
                return {n.removeprefix(f"{prefix}."): arrays[n].astype(float) for n in names}

            return cls(
                PortTable(arrays["ports.keys"], arrays["ports.log_odds"], int(about["icmp"])),
                tuple(
                    Familiar(**of(f"familiar{place}"), rest=float(rest))
                    for place, rest in enumerate(about["rest"])
                ),
                tuple(
                    Stage(float(weight), float(temperature), **of(f"stage{place}"))
                    for place, (weight, temperature) in enumerate(about["stages"])
                ),
                float(about["window"]),
                float(about["unknown_below"]),
                int(about.get("members", 0)),
            )
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise ValueError(f"not a model's evidence: {error!r}") from None


def signs(
    probabilities: np.ndarray,
    ports: np.ndarray,
    familiar: Sequence[Familiar],
    embeddings: Sequence[np.ndarray],
    spread: np.ndarray | None = None,
) -> np.ndarray:
    """(N, 2 + networks) signs of familiarity of the class chosen, large where all is as usual.

    The logarithm of the odds of the choice, what the port says of it, of each network how near the
    embedding lies to a class's training flows, and, where they were asked, how well its experts
    agree.
    """
    best = probabilities.argmax(axis=1)
    rows = np.arange(len(best))
    rest = np.maximum(1 - probabilities[rows, best], 1e-6)
    columns = [np.log(np.maximum(probabilities[rows, best], 1e-6) / rest), ports[rows, best]]
    for one, found in zip(familiar, embeddings, strict=False):
        if not len(found):  # of no width either
            columns.append(np.empty(0))
            continue
        nearest = np.concatenate(
            [
                one.distances(some.astype(np.float64)).min(axis=1, initial=np.inf)
                for some in np.split(found, range(_TOGETHER, len(found), _TOGETHER))
            ]
        )
        columns.append(-np.log(np.clip(nearest, 1e-3, 1e3)))
    if spread is not None:
        columns.append(-np.log(np.maximum(spread, LEAST_SPREAD)))
    return np.stack(columns, axis=1)
