# SPDX-License-Identifier: Apache-2.0
"""Models by name or path."""

from typing import Any

from fieldfare.common.weights import ModelCard, from_pretrained

from .deanet import DEANet, DEANetConfig

TASK = "dehazing"

PRESETS = {
    "small": DEANetConfig(width=16, blocks=(2, 2, 6, 2, 2), head="scattering", reduction=4),
    "published": DEANetConfig(),
}
"""Networks that `rs-dehaze train` knows."""


def load_model(name_or_path: str) -> tuple[DEANet, ModelCard]:
    """A packaged model by name or a weight file by path, in evaluation mode, not folded."""

    def build(config: dict[str, Any]) -> DEANet:
        return DEANet(DEANetConfig.from_dict(config))

    return from_pretrained(name_or_path, TASK, build)
