# SPDX-License-Identifier: Apache-2.0
"""Small untrained netFounds with experts, and flows for them."""

import dataclasses
from pathlib import Path

import torch
from judged_flows import CLASSES

from fieldfare.common.weights import ModelCard, save_model_file
from fieldfare.netsec.inference.classifier import ClassifierConfig, FlowClassifier
from fieldfare.netsec.networks.architectures import TASK, architecture
from fieldfare.netsec.networks.experts import ExpertsConfig
from fieldfare.netsec.networks.netfound import NetFoundConfig
from fieldfare.netsec.networks.netfound.config import CLS
from fieldfare.netsec.networks.netfound.embedding import FlowInputs

CONFIG = NetFoundConfig(
    16, 2, 2, 32, vocabulary="bytes", payload_tokens=2, max_bursts=4, dropout=0.0
)  # fmt: skip
KIND = architecture("netfound")


def dense(config=CONFIG, classes=3):
    """With weights large enough that feed-forward layers count."""
    torch.manual_seed(0)
    network = KIND.classifier(config, classes).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "mlp.W" in name or name.startswith("classifier"):
                parameter.mul_(10)
    return network


def routed(kind, *, k=2, count=4, start="split", config=CONFIG):
    """A network and its experts."""
    network = dense(config)
    experts = ExpertsConfig(kind=kind, count=count, k=k, start=start)
    torch.manual_seed(1)
    KIND.install_experts(network, config, experts)
    return network.eval(), experts


def inputs(count=6, bursts=4, length=20):
    """Flows of different lengths, with padding."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, CLS, (count, bursts, length), generator=generator)
    used = 1 + torch.arange(count * bursts).view(count, bursts) * 7 % length
    real = torch.arange(bursts) <= torch.arange(count)[:, None] % bursts
    mask = (torch.arange(length) < used[..., None]) & real[..., None]
    ids[:, :, 0] = CLS
    sizes = torch.rand(count, bursts, generator=generator) * 100 * real
    protocol = torch.tensor([6, 17, 1])[torch.arange(count) % 3]
    return FlowInputs(ids * mask, mask, real.float(), sizes, real.float(), sizes, protocol)


def model_file(path: Path, kind="learned", **options) -> Path:
    """A model file of such a network, without evidence."""
    network, experts = routed(kind, **options)
    described = ClassifierConfig(
        "netfound", CONFIG.to_dict(), CLASSES, ("addresses", "ports"), experts=experts.to_dict()
    )
    card = ModelCard(path.stem, TASK, "Made up.", dataclasses.asdict(described))
    save_model_file(path, network.state_dict(), card)
    return path


def classifier(kind="learned", **options) -> FlowClassifier:
    """The same, in memory."""
    network, experts = routed(kind, **options)
    described = ClassifierConfig(
        "netfound", CONFIG.to_dict(), CLASSES, ("addresses", "ports"), experts=experts.to_dict()
    )
    return FlowClassifier(network, described, kind)
