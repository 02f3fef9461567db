# SPDX-License-Identifier: Apache-2.0
"""A whole classifier as one ONNX graph: one network or two, port, calibration and familiarity."""

from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim

from fieldfare.common.efficiency.export import export_onnx
from fieldfare.common.errors import InputError
from fieldfare.common.trust.familiar import Familiar

from ..networks.architectures import FlowNetwork
from ..networks.export import TOLERANCE, export_classifier
from .classifier import FlowClassifier
from .evidence import PORT, PORT_COUNTS, ROUNDING, STRANGEST, Evidence, Stage
from .ports import CERTAIN

PORT_KEY = "port_key"
"""Input (flows,) int64: protocol * 65536 + lower port, ICMPv6 as ICMP; see `ports.port_keys`."""

OUTPUTS = ("probabilities", "familiarity", "logits")
"""As of `Classified`: (flows, classes), (flows,), float64; logits of the first network, float32."""

_ICMP = 1


class JudgedNetworks(nn.Module):
    """`FlowClassifier.classify` on tensors; the second network sees all flows, few count.

    Args:
        classifier: with evidence.
    """

    def __init__(self, classifier: FlowClassifier) -> None:
        super().__init__()
        assert classifier.evidence is not None
        self.members = [classifier, *([classifier.second] if classifier.second else [])]
        self.networks = nn.ModuleList(member.network for member in self.members)
        self.evidence: Evidence = classifier.evidence
        self.widths = [len(m.architecture.example(m.network_config)) for m in self.members]
        table = self.evidence.ports
        self.keys, self.log_odds = torch.from_numpy(table.keys.copy()), _double(table.log_odds)

    def example(self) -> dict[str, Tensor]:
        """Three flows made up, by name of input; those of a second network begin so."""
        found: dict[str, Tensor] = {}
        for prefix, member in zip(("", "second_"), self.members, strict=False):
            own = member.architecture.example(member.network_config)
            found |= {prefix + name: tensor for name, tensor in own.items()}
        known = self.evidence.ports.keys
        port = int(known[0]) if len(known) else 17 << 16
        return found | {PORT_KEY: torch.tensor([port, 6 << 16 | 9, _ICMP << 16])}

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs in the order of `example` -> `OUTPUTS`."""
        port, at = inputs[-1], 0
        logs: list[Tensor] = []
        embeddings: list[Tensor] = []
        first: Tensor | None = None
        for member, network, width in zip(self.members, self.networks, self.widths, strict=True):
            flow_network = cast(FlowNetwork, network)
            batch = member.architecture.join(inputs[at : at + width])
            embeddings.append(flow_network.embed(batch))
            logits = flow_network.classify(embeddings[-1])
            first = logits if first is None else first
            logs.append((logits.double() / member.config.temperature).log_softmax(dim=1))
            at += width
        found, familiar = self._judge(port, logs[:1], embeddings[:1])
        if len(logs) > 1:
            unsure = familiar < self.evidence.window
            other, there = self._judge(port, logs, embeddings)
            found = torch.where(unsure[:, None], other, found)
            familiar = torch.where(unsure, there, familiar)
        assert first is not None
        return found, familiar, first

    def _judge(
        self, port: Tensor, logs: list[Tensor], embeddings: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """`Evidence.judge`."""
        evidence, stage = self.evidence, self.evidence.stages[len(logs) - 1]
        said = torch.eq(port[:, None], self.keys).double() @ self.log_odds
        summed = torch.stack(logs).mean(dim=0) + stage.weight * said
        icmp = (port // 65536) == _ICMP
        rule = torch.zeros_like(said)
        if evidence.ports.icmp >= 0:
            of_icmp = torch.arange(said.shape[1]) == evidence.ports.icmp
            certain = torch.where(icmp[:, None] == of_icmp, CERTAIN, -CERTAIN)
            rule = torch.where(icmp[:, None] | of_icmp, certain, 0.0).double()
        found = (summed / stage.temperature + rule).softmax(dim=1)
        best = found.argmax(dim=1, keepdim=True)
        top = found.gather(1, best)
        signs = [(top.clamp(min=1e-6) / (1 - top).clamp(min=1e-6)).log(), said.gather(1, best)]
        for one, embedding in zip(evidence.familiar, embeddings, strict=False):
            signs.append(-_nearest(one, embedding.double()).clamp(1e-3, 1e3).log()[:, None])
        familiar = _familiarity(stage, torch.cat(signs, dim=1))
        if evidence.ports.icmp >= 0:
            familiar = torch.where(icmp, 1.0, familiar)
        return found, familiar


def _double(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(values, np.float64))


def _nearest(one: Familiar, features: Tensor) -> Tensor:
    """(N, F) -> (N,): the least of `Familiar.distances`."""
    offsets = (features / _double(one.scale))[:, None] - _double(one.means)
    along = offsets @ _double(one.directions)
    beside = ((offsets**2).sum(-1) - (along**2).sum(-1)).clamp(min=0)
    squares = (along**2 / _double(one.variances)).sum(-1) + beside / one.rest
    return (squares / features.shape[1]).sqrt().amin(dim=1)


def _familiarity(stage: Stage, signs: Tensor) -> Tensor:
    """`Stage.familiarity`."""
    unit = ((signs - _double(stage.centre)) / _double(stage.spread)).clamp(-STRANGEST, STRANGEST)
    counts = torch.ones(signs.shape[1], dtype=torch.float64)
    counts[PORT] = PORT_COUNTS
    rank = (_double(stage.scores) <= (unit @ counts + ROUNDING)[:, None]).sum(dim=1)
    return (rank + 1).double() / (len(stage.scores) + 1)


def export_judged(classifier: FlowClassifier, target: Path) -> float:
    """Write all that a classifier is; without evidence its network alone, to `logits`.

    Returns:
        The largest difference between torch and ONNX Runtime; errors as of `export_onnx`.
    """
    if classifier.evidence is None:
        return export_classifier(
            classifier.architecture, classifier.network, classifier.network_config, target
        )
    if classifier.evidence.members:
        raise InputError(
            f"{classifier.name}: its familiarity asks each expert by itself, which one ONNX graph "
            "cannot"
        )
    judged = JudgedNetworks(classifier)
    example, batch = judged.example(), Dim("batch")
    return export_onnx(
        judged,
        list(example.values()),
        target,
        input_names=tuple(example),
        output_name=OUTPUTS,
        dynamic_shapes={"inputs": tuple({0: batch} for _ in example)},
        tolerance=TOLERANCE,
        install="fieldfare-netsec[onnx]",
    )
