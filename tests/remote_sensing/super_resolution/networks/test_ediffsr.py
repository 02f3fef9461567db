# SPDX-License-Identifier: Apache-2.0
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldfare.common.efficiency import cost
from fieldfare.remote_sensing.super_resolution.networks.ediffsr import (
    EDiffSR,
    EDiffSRConfig,
    channel_layer_norm,
    simple_gate,
    sinusoidal_embedding,
)

NETWORKS = ["tiny2", "tiny4"]


@pytest.mark.parametrize("name", NETWORKS)
def test_output_and_every_activation_equal_the_published(name, reference, tiny, assert_close):
    network, expected, seen = tiny(name), reference(f"{name}_forward"), {}

    def record(key):
        return lambda module, inputs, output: seen.__setitem__(key, output)

    keys = [key for key in expected if key.startswith("a.act.")]
    for key in keys:
        network.get_submodule(key.removeprefix("a.act.")).register_forward_hook(record(key))
    output = network(expected["a.x"], expected["a.cond"], expected["a.t"])
    assert len(keys) > 10
    for key in keys:
        assert_close(seen[key], expected[key])
    assert_close(output, expected["a.out"])


@pytest.mark.parametrize("name", NETWORKS)
def test_padded_21_x_27_output_equals_the_published(name, reference, tiny, assert_close):
    expected = reference(f"{name}_forward")
    output = tiny(name)(expected["b.x"], expected["b.cond"], expected["b.t"])
    assert_close(output, expected["b.out"])


@pytest.mark.parametrize(("name", "parameters"), [("tiny2", 109_988), ("tiny4", 1_248_740)])
def test_small_networks_have_the_published_number_of_parameters(name, parameters, random_tiny):
    assert sum(p.numel() for p in random_tiny(name).parameters()) == parameters


def test_published_network_has_20_403_719_parameters_in_424_tensors():
    with torch.device("meta"):
        state = EDiffSR().state_dict()
    assert len(state) == 424
    assert sum(tensor.numel() for tensor in state.values()) == 20_403_719


def test_published_network_takes_46_17_gmacs_at_256_x_256():
    with torch.device("meta"):
        network = EDiffSR()
    image = (1, 3, 256, 256)
    assert cost(network, image, image, (1,)).macs / 1e9 == pytest.approx(46.17, abs=0.005)


def test_tensors_bear_the_published_names():
    with torch.device("meta"):
        names = set(EDiffSR().state_dict())
    block = "beta gamma mlp.1.weight conv1.weight conv5.bias sca.1.weight norm1.g norm2.g"
    assert {f"encoders.0.13.{key}" for key in block.split()} <= names
    assert {"time_mlp.1.weight", "time_mlp.3.bias", "intro.bias", "ending.weight"} <= names
    assert {"enhance.rcab.3.attention.1.weight", "enhance.rcab.2.bias"} <= names
    assert {"ups.0.0.weight", "downs.3.bias", "middle_blks.0.conv3.bias"} <= names
    assert "ups.0.0.bias" not in names


def test_one_time_serves_the_whole_batch(random_tiny, assert_close):
    network, x = random_tiny("tiny2"), torch.rand(3, 3, 8, 8)
    each = network(x, x / 2, torch.tensor([7, 7, 7]))
    for t in (7, torch.tensor(7), torch.tensor([7.0])):
        assert_close(network(x, x / 2, t), each, 1e-6)


def test_images_of_a_batch_do_not_mix(random_tiny, assert_close):
    network, x, t = random_tiny("tiny2"), torch.rand(2, 3, 8, 12), torch.tensor([3, 88])
    alone = torch.cat([network(x[i : i + 1], x[i : i + 1], t[i : i + 1]) for i in range(2)])
    assert_close(network(x, x, t), alone, 1e-6)


@settings(max_examples=8, deadline=None)
@given(height=st.integers(1, 25), width=st.integers(1, 25), scale=st.sampled_from([2, 3, 4]))
def test_folded_prior_takes_any_size_and_passes_gradients(height, width, scale):
    config = EDiffSRConfig(
        width=16, encoder_blocks=(1, 1), decoder_blocks=(1, 1), scale=scale, cpem="folded"
    )
    network, x = EDiffSR(config), torch.rand(1, 3, height, width)
    low = torch.rand(1, 3, -(-height // scale), -(-width // scale))
    output = network(x, x.flip(-1), torch.tensor([5]), low)
    assert output.shape == x.shape
    assert not torch.equal(output, network(x, x.flip(-1), torch.tensor([5]), low.flip(-2) + 1))
    with pytest.raises(ValueError, match="needs low_resolution"):
        network(x, x.flip(-1), torch.tensor([5]))
    output.square().mean().backward()
    for part in (network.enhance.embed, network.enhance.unfold[0], network.intro):
        assert part.weight.grad.abs().max() > 0


def test_embedding_at_time_zero_is_sines_then_cosines_of_zero():
    embedded = sinusoidal_embedding(torch.tensor([0.0]), 8)
    assert embedded.tolist() == [[0, 0, 0, 0, 1, 1, 1, 1]]


def test_layer_norm_has_zero_mean_and_unit_variance_over_channels():
    normal = channel_layer_norm(torch.randn(2, 32, 3, 5) * 4 + 7, torch.ones(1, 32, 1, 1))
    torch.testing.assert_close(normal.mean(dim=1), torch.zeros(2, 3, 5), atol=1e-6, rtol=0)
    variance = normal.var(dim=1, unbiased=False)
    torch.testing.assert_close(variance, torch.ones(2, 3, 5), atol=1e-4, rtol=0)


def test_gate_multiplies_the_halves():
    x = torch.rand(2, 6, 4)
    assert torch.equal(simple_gate(x), x[:, :3] * x[:, 3:])


def test_config_survives_json():
    config = EDiffSRConfig(width=24, encoder_blocks=(3, 1), decoder_blocks=(1, 2), cpem="folded")
    assert EDiffSRConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"width": 8}, "got 8"),
        ({"width": 17}, "got 17"),
        ({"encoder_blocks": (1, 1)}, "got 2 and 4"),
        ({"cpem": "paper"}, "got 'paper'"),
    ],
)
def test_wrong_config_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        EDiffSRConfig(**wrong)
