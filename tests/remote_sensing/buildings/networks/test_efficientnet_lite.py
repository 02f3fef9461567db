# SPDX-License-Identifier: Apache-2.0
"""Our EfficientNet-Lite is timm's: names, first weights, features, gradients, statistics."""

import pytest
import torch

from fieldfare.common.encoders import create_encoder
from fieldfare.remote_sensing.buildings.networks.efficientnet_lite import (
    FEATURES,
    VARIANTS,
    EfficientNetLite,
)


@pytest.mark.parametrize("in_channels", [1, 3])
@pytest.mark.parametrize("name", VARIANTS)
def test_a_seed_gives_the_weights_that_timm_draws(name, in_channels):
    torch.manual_seed(0)
    peer = create_encoder(name, in_channels)
    after = torch.rand(1)
    torch.manual_seed(0)
    network = EfficientNetLite(name, in_channels)
    assert torch.equal(torch.rand(1), after)
    assert (network.channels, network.strides) == (peer.channels, peer.strides)
    theirs = peer.state_dict()
    assert list(network.state_dict()) == list(theirs)
    assert all(torch.equal(own, theirs[key]) for key, own in network.state_dict().items())


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("size", [(64, 96), (65, 50)], ids=str)
def test_features_gradients_and_statistics_are_those_of_timm(training, size):
    torch.manual_seed(0)
    name = "tf_efficientnet_lite0"
    network, peer = EfficientNetLite(name, 3), create_encoder(name, 3)
    peer.load_state_dict(network.state_dict())
    image = torch.rand(2, 3, *size)
    found, expected = network.train(training)(image), peer.train(training)(image)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))
    ours, theirs = (
        torch.autograd.grad(sum(f.square().sum() for f in features), list(model.parameters()))
        for features, model in ((found, network), (expected, peer))
    )
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    pairs = zip(network.buffers(), peer.buffers(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("features", range(1, len(FEATURES) + 1))
def test_stages_that_no_feature_needs_are_not_built(features):
    with torch.device("meta"):
        network = EfficientNetLite("tf_efficientnet_lite0", 3, features)
        peer = create_encoder("tf_efficientnet_lite0", 3, features=features)
        found = network(torch.zeros(1, 3, 64, 64))
    assert list(network.state_dict()) == list(peer.state_dict())
    assert tuple(f.shape[1] for f in found) == network.channels == peer.channels
    assert network.strides == peer.strides == (2, 4, 8, 16, 32)[:features]
