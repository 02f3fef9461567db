# SPDX-License-Identifier: Apache-2.0
"""What holds for every backbone of this package: channels, features, decoders."""

import pytest
import timm
import torch

from fieldfare.common import backbones  # registers them
from fieldfare.common.encoders import create_encoder

OWN = [
    name
    for name in timm.list_models()
    if timm.model_entrypoint(name).__module__.startswith(backbones.__name__)
]
PYRAMIDS = [name for name in OWN if not name.startswith(("slab_deit", "eeea_net_cifar"))]


def size_of(name: str) -> int:
    return 224 if name.startswith("slab") else 64


@pytest.mark.parametrize("name", OWN)
def test_classifies_images_or_gives_what_its_classifier_sees(name):
    size = size_of(name)
    with torch.device("meta"):
        model = timm.create_model(name, in_chans=4, num_classes=5)
        images = torch.zeros(2, 4, size, size)
        assert model(images).shape == (2, 5)
        model.reset_classifier(0)
        assert model(images).shape == (2, model.head_hidden_size)


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("channels", [1, 3, 4, 13])
def test_is_an_encoder_whose_features_have_the_channels_and_strides_it_says(name, channels):
    size = size_of(name)
    with torch.device("meta"):
        encoder = create_encoder(name, channels).eval()
        features = encoder(torch.zeros(1, channels, size, size))
    assert list(encoder.strides) == sorted(encoder.strides)
    assert [tuple(feature.shape) for feature in features] == [
        (1, width, size // stride, size // stride)
        for width, stride in zip(encoder.channels, encoder.strides, strict=True)
    ]


@pytest.mark.parametrize("name", PYRAMIDS)
def test_is_an_encoder_of_segmentation_models(name):
    smp = pytest.importorskip("segmentation_models_pytorch")
    size = size_of(name)
    with torch.device("meta"):
        network = smp.UnetPlusPlus(f"tu-{name}", encoder_weights=None, in_channels=13, classes=2)
        assert network(torch.zeros(2, 13, size, size)).shape == (2, 2, size, size)
