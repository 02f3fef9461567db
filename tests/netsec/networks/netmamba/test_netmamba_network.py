# SPDX-License-Identifier: Apache-2.0
"""NetMamba: the published numbers, and what must hold for any input."""

import json

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from fieldfare.netsec.networks.netmamba import (
    NetMambaClassifier,
    NetMambaConfig,
    NetMambaPretraining,
    normalise,
)
from fieldfare.netsec.networks.netmamba.mamba import Mamba, add
from fieldfare.netsec.networks.netmamba.network import resize_positions

SMALL = NetMambaConfig(byte_length=64, embed_dim=32, depth=2, decoder_embed_dim=16)


def published(reference, name):
    """(tensors, state dict) of a fixture."""
    tensors = load_file(reference / "netmamba" / f"{name}.safetensors")
    return tensors, {key[3:]: t for key, t in tensors.items() if key.startswith("sd.")}


def check_gradients(network, tensors):
    compared = 0
    for name, parameter in network.named_parameters():
        if f"grad.{name}" in tensors:
            expected = tensors[f"grad.{name}"]
            error = (parameter.grad - expected).abs().max()
            assert error <= 1e-4 * expected.abs().max(), (name, float(error))
            compared += 1
    assert compared == sum(name.startswith("grad.") for name in tensors)


def test_mixer_equals_the_published_one(reference):
    tensors, state = published(reference, "mamba_mixer")
    mixer = Mamba(32)
    mixer.load_state_dict(state)
    x = tensors["input"].requires_grad_()
    y = mixer(x)
    torch.testing.assert_close(y, tensors["output"], rtol=0, atol=1e-5)
    y.backward(tensors["grad_output"])
    check_gradients(mixer, tensors)
    torch.testing.assert_close(x.grad, tensors["grad_input"], rtol=1e-4, atol=1e-6)


def test_classifier_equals_the_published_one(reference):
    tensors, state = published(reference, "classifier_tiny")
    network = NetMambaClassifier(NetMambaConfig(embed_dim=64), 7).eval()
    network.load_state_dict(state)
    data = tensors["input_u8"]
    torch.testing.assert_close(normalise(data), tensors["input"].flatten(1), rtol=0, atol=1e-7)
    encoded = network.encode(network.embed_tokens(data))
    torch.testing.assert_close(encoded, tensors["encoder_out"], rtol=0, atol=1e-5)
    logits = network(data)
    torch.testing.assert_close(logits, tensors["logits"], rtol=0, atol=1e-5)
    loss = F.cross_entropy(logits, tensors["target"], label_smoothing=0.1)
    torch.testing.assert_close(loss, tensors["loss"], rtol=0, atol=1e-5)
    loss.backward()
    check_gradients(network, tensors)


def test_pretraining_equals_the_published_one(reference):
    tensors, state = published(reference, "pretrain_tiny")
    network = NetMambaPretraining(NetMambaConfig(embed_dim=64, decoder_embed_dim=32)).eval()
    network.load_state_dict(state)
    data, noise = tensors["input"].flatten(1), tensors["noise"]
    order = noise.argsort(dim=1)
    latent = network.encode_visible(data, order[:, :39])
    torch.testing.assert_close(latent, tensors["latent"], rtol=0, atol=1e-5)
    made = network(data, noise)
    assert torch.equal(made.mask, tensors["mask"])
    torch.testing.assert_close(made.prediction, tensors["pred"], rtol=0, atol=1e-5)
    torch.testing.assert_close(made.loss, tensors["loss"], rtol=0, atol=1e-5)
    made.loss.backward()
    check_gradients(network, tensors)
    network.normalise_targets = True
    torch.testing.assert_close(network(data, noise).loss, tensors["loss_norm_pix"])


@pytest.mark.parametrize(
    ("build", "name", "parameters"),
    [
        (
            lambda: NetMambaClassifier(NetMambaConfig(), 20),
            "net_mamba_classifier:num_classes=20",
            1_861_652,
        ),
        (lambda: NetMambaPretraining(NetMambaConfig()), "net_mamba_pretrain", 2_174_724),
    ],
    ids=["classifier_1_861_652", "pretraining_2_174_724"],
)
def test_published_names_shapes_and_parameters(build, name, parameters, reference):
    with torch.device("meta"):
        network = build()
    assert sum(p.numel() for p in network.parameters()) == parameters
    official = json.loads((reference / "netmamba" / "official_keys_shapes.json").read_text())
    ours = {key: list(t.shape) for key, t in network.state_dict().items()}
    assert ours == official[name]["keys"]


def test_published_initial_values():
    torch.manual_seed(0)
    network = NetMambaPretraining(NetMambaConfig())
    assert [block.drop_path for block in network.blocks] == pytest.approx([0, 0, 0.1 / 3, 0.2 / 3])
    mixer = network.blocks[0].mixer
    torch.testing.assert_close(mixer.A_log.exp(), torch.arange(1.0, 17).repeat(512, 1))
    steps = F.softplus(mixer.dt_proj.bias)
    assert 9e-4 < steps.min() < 2e-3
    assert 0.05 < steps.max() < 0.101
    bound = (3 / 512) ** 0.5 * (2 / 6) ** 0.5 / 2  # kaiming uniform with a = sqrt(5), / sqrt(4)
    assert 0.95 * bound < mixer.out_proj.weight.abs().max() <= bound
    assert network.patch_embed.proj.weight.std().item() == pytest.approx(0.5, rel=0.1)
    assert 0.019 < network.pos_embed.std() < 0.021
    assert not network.decoder_pred.bias.any()


def test_encoder_is_causal_and_cls_sees_all():
    torch.manual_seed(0)
    network = NetMambaClassifier(SMALL, 3).eval()
    data = torch.randint(0, 256, (1, 64), dtype=torch.uint8)
    changed = data.clone()
    changed[0, 40] ^= 0xFF  # in token 10
    with torch.no_grad():
        before, after = (network.encode(network.embed_tokens(x)) for x in (data, changed))
    assert torch.equal(before[:, :10], after[:, :10])
    assert not torch.allclose(before[:, -1], after[:, -1])


def test_flows_of_a_batch_do_not_mix():
    torch.manual_seed(0)
    network = NetMambaClassifier(SMALL, 3).eval()
    data = torch.randint(0, 256, (4, 64), dtype=torch.uint8)
    with torch.no_grad():
        turned = network(data.flip(0)).flip(0)
        torch.testing.assert_close(network(data), turned, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(network(data[:1]), turned[:1], rtol=1e-5, atol=1e-6)


def test_hidden_bytes_do_not_reach_the_encoder():
    torch.manual_seed(0)
    network = NetMambaPretraining(SMALL).eval()
    data = torch.randint(0, 256, (2, 64), dtype=torch.uint8)
    noise = torch.rand(2, 16)
    with torch.no_grad():
        made = network(data, noise, mask_ratio=0.5)
        assert made.mask.sum(dim=1).tolist() == [8, 8]
        hidden = made.mask.repeat_interleave(4, dim=1).bool()
        other = torch.where(hidden, 255 - data, data)
        assert torch.equal(network(other, noise, mask_ratio=0.5).prediction, made.prediction)


def test_stochastic_depth_leaves_whole_samples_out_and_keeps_the_mean():
    torch.manual_seed(0)
    x, residual = torch.ones(20_000, 1, 2), torch.zeros(20_000, 1, 2)
    y = add(x, residual, 0.1, training=True)
    assert torch.equal(y[..., 0], y[..., 1])
    assert sorted({round(v, 4) for v in y.flatten().tolist()}) == [0, 1.1111]
    assert y.mean().item() == pytest.approx(1, abs=0.01)
    assert torch.equal(add(x, residual, 0.1, training=False), x)


def test_a_small_network_learns_a_rule():
    torch.manual_seed(0)
    network = NetMambaClassifier(SMALL, 2)
    data = torch.randint(0, 256, (64, 64), dtype=torch.uint8)
    data[:, 7] = torch.arange(64) % 2 * 200
    target = torch.arange(64) % 2
    optimiser = torch.optim.AdamW(network.parameters(), 3e-3)
    for _ in range(40):
        optimiser.zero_grad()
        F.cross_entropy(network(data), target).backward()
        optimiser.step()
    assert (network.eval()(data).argmax(dim=1) == target).float().mean() > 0.95


def test_positions_of_another_length_keep_cls_last_and_the_ends():
    positions = torch.cat([torch.arange(8.0), torch.tensor([100.0])]).view(1, 9, 1)
    for tokens in (4, 8, 16):
        resized = resize_positions(positions, tokens)
        assert resized.shape == (1, tokens + 1, 1)
        assert resized[0, -1] == 100
        assert (resized[0, 1:-1] > resized[0, :-2]).all()
    assert resize_positions(positions, 4)[0, :4, 0].tolist() == [0.5, 2.5, 4.5, 6.5]


@pytest.mark.parametrize("byte_length", [4, 20, 3200])
def test_any_number_of_tokens(byte_length):
    config = NetMambaConfig(byte_length=byte_length, embed_dim=16, depth=1)
    network = NetMambaClassifier(config, 2).eval()
    assert network(torch.zeros(1, byte_length, dtype=torch.uint8)).shape == (1, 2)


def test_another_number_of_bytes_is_refused():
    network = NetMambaClassifier(SMALL, 2)
    with pytest.raises(ValueError, match=r"\(B, 64\), got \[1, 60\]"):
        network(torch.zeros(1, 60))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"byte_length": 10}, "no multiple of 4"),
        ({"depth": 0}, "depth is 0"),
        ({"drop_path": 1.0}, "drop_path is 1.0"),
    ],
)
def test_impossible_configurations_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        NetMambaConfig(**values)
