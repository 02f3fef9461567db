# SPDX-License-Identifier: Apache-2.0
"""net-traffic models, bench, export and convert."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim

from fieldfare.common import console, efficiency, files
from fieldfare.common.efficiency import export as common_export
from fieldfare.common.errors import InputError
from fieldfare.common.runtime import set_threads
from fieldfare.common.weights import available, read_card

from ..capture import FlowOptions, read_flows
from ..data.flow_rows import concatenate, take
from ..inference.classifier import FlowClassifier, load_classifier
from ..networks.architectures import TASK, FlowNetwork, architecture
from ..networks.netfound import FlowInputs
from ..networks.netmamba import NetMambaConfig

TOLERANCE = 1e-3
"""Of logits of size about 1 to 10."""


def models(as_json: bool) -> None:
    """Print every packaged model's card in short."""
    lines, listed = [], []
    for path in available(TASK).values():
        card = read_card(path)
        lines += [card.name, f"  {card.summary}"]
        lines += [f"  {m.name}: {m.value:.4g} ({m.definition})" for m in card.metrics]
        lines += [f"  trained on: {card.data}", f"  limits: {card.limits}"]
        lines.append(f"  card: {path.with_suffix('.md')}")
        listed.append(dataclasses.asdict(card) | {"bytes": path.stat().st_size})
    console.emit({"models": listed}, as_json=as_json, text="\n".join(lines) or "(none)")


def bench(capture: Path, options: Mapping[str, Any]) -> None:
    """Print flows a second, from packets to labels, on the flows of one capture."""
    threads = set_threads()
    classifier, card = load_classifier(options["model"], device=options["device"])
    kept: Any = classifier.kept
    batches = list(read_flows(capture, options=FlowOptions(**kept)))
    if not batches:
        raise InputError(f"{capture}: holds no flows; choose another capture")
    flows = concatenate(batches)
    flows = take(flows, np.arange(options["batch"]) % len(flows))
    timing = efficiency.bench(classifier.classify, flows, repeats=options["repeats"])
    parameters = sum(parameter.numel() for parameter in classifier.network.parameters())
    result = {
        "model": card.name,
        "parameters": parameters,
        "device": str(classifier.device),
        "threads": threads,
        "flows": len(flows),
        "median_s": timing.median_s,
        "iqr_s": timing.iqr_s,
        "flows_per_s": len(flows) / timing.median_s,
        "peak_mb": None if timing.peak_bytes is None else timing.peak_bytes / 2**20,
    }
    console.emit(result, as_json=options["as_json"], text=console.table([result]))


def export(output: Path, options: Mapping[str, Any]) -> None:
    """Write ONNX; ONNX Runtime must agree with torch before it is kept."""
    files.check_output(output, overwrite=options["overwrite"])
    classifier, card = load_classifier(options["model"])
    graph, inputs, names = _graph(classifier)
    console.say("exporting takes about a minute")
    batch = Dim("batch")
    difference = common_export.export_onnx(
        graph,
        inputs,
        output,
        input_names=names,
        output_name="logits",
        dynamic_shapes={"inputs": tuple({0: batch} for _ in names)},
        tolerance=TOLERANCE,
        install="fieldfare-netsec[onnx]",
    )
    console.say(f"{card.name}: ONNX Runtime and torch agree within {difference:.1e}")
    console.emit({}, as_json=False, text=str(output))


class _Logits(nn.Module):
    """A classifier on plain tensors."""

    def __init__(self, network: nn.Module, grouped: bool) -> None:
        super().__init__()
        self.network, self.grouped = network, grouped

    def forward(self, *inputs: Tensor) -> Tensor:
        network = cast(FlowNetwork, self.network)
        batch = FlowInputs(*inputs) if self.grouped else inputs[0]
        return network.classify(network.embed(batch))


def _graph(classifier: FlowClassifier) -> tuple[nn.Module, list[Tensor], tuple[str, ...]]:
    """The module to export, example inputs of three flows, and their names."""
    generator = torch.Generator().manual_seed(0)
    config = classifier.network_config
    if isinstance(config, NetMambaConfig):
        data = torch.randint(0, 256, (3, config.byte_length), generator=generator)
        return _Logits(classifier.network, False), [data.to(torch.uint8)], ("bytes",)
    shape = (3, config.max_bursts)
    ids = torch.randint(1, 65537, (*shape, config.burst_length), generator=generator)
    example = FlowInputs(
        ids=ids,
        mask=torch.ones_like(ids, dtype=torch.bool),
        direction=torch.ones(shape),
        bytes=torch.rand(shape, generator=generator) * 1000,
        packets=torch.ones(shape),
        interval=torch.rand(shape, generator=generator),
        protocol=torch.tensor([6, 17, 1]),
    )
    return _Logits(classifier.network, True), list(example), FlowInputs._fields


def convert(source: Path, output: Path, options: Mapping[str, Any]) -> None:
    """Write a published checkpoint as a model file."""
    files.check_output(output, overwrite=options["overwrite"])
    if output.suffix != ".safetensors":
        raise InputError(f"{output}: name it *.safetensors")
    if not source.exists():
        raise InputError(f"{source}: no such file")
    names: list[str] | None = None
    if options["classes"] is not None:
        names = options["classes"].split(",")
    kind = architecture(options["architecture"])
    card = kind.convert(source, output, task=TASK, classes=names)
    console.say(card.summary, quiet=options["quiet"])
    console.emit({"model": output}, as_json=options["as_json"], text=str(output))
