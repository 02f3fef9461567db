# SPDX-License-Identifier: Apache-2.0
"""A classifier whose weights stay in their file while it runs, for models larger than memory.

The same answers, to the bit: each layer's weights are read when it is called and make room for
others within a limit (`fieldfare.common.experts.stream`); of experts only those that are chosen are
read. Activations, some MB a batch, come on top.
"""

from collections.abc import Collection
from typing import Any

import torch

from fieldfare.common.errors import InputError
from fieldfare.common.experts.cache import Cache
from fieldfare.common.experts.stream import stream
from fieldfare.common.weights import ModelCard, locate, read_card

from ..networks.architectures import TASK, architecture
from ..networks.experts import ExpertsConfig
from .classifier import ClassifierConfig, FlowClassifier, read_evidence, turn_dial


def stream_classifier(
    name_or_path: str,
    limit: int,
    *,
    show: Collection[str] = (),
    experts_per_token: int | None = None,
) -> tuple[FlowClassifier, ModelCard, "Cache[Any]"]:
    """As `load_classifier`, with at most so many bytes of weights in memory; on the CPU.

    Returns:
        The classifier, its card, and the cache: `loads` and `peak`.

    Raises:
        InputError: no such model, one of another architecture than netFound or of two networks, or
            a limit below its largest layer.
    """
    path = locate(name_or_path, TASK)
    card = read_card(path)
    if card.task != TASK:
        raise InputError(f"{path}: is a {card.task} model; this needs one of {TASK}")
    try:
        config = ClassifierConfig.from_card(card.config)
        kind = architecture(config.architecture)
        sizes = kind.read_config(config.network)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: its card describes no usable network: {error}") from None
    if config.architecture != "netfound" or config.second is not None or config.classes is None:
        raise InputError(
            f"--weights-memory: {card.name} is no single netFound classifier; its weights cannot "
            "stay in the file"
        )
    with torch.device("meta"):
        network = kind.classifier(sizes, len(config.classes))
    if config.experts is not None:
        kind.install_experts(network, sizes, ExpertsConfig(**config.experts))
    cache = stream(network.eval(), path, limit)
    # The whole network is never called, only its parts: a pass begins with the encoder.
    encoder = network.get_submodule("base_transformer")
    encoder.register_forward_pre_hook(lambda *_: cache.begin())
    classifier = FlowClassifier(network, config, card.name, show=show, evidence=read_evidence(path))
    if experts_per_token is not None:
        turn_dial(classifier, experts_per_token)
    return classifier, card, cache
