# SPDX-License-Identifier: Apache-2.0
"""Published NetMamba checkpoints become model files; made-up ones of their names and shapes."""

import argparse
import functools

import pytest
import torch

from fieldfare.common.errors import InputError
from fieldfare.common.weights import from_pretrained, load_model_file
from fieldfare.netsec.networks import conversion
from fieldfare.netsec.networks.netmamba import (
    NetMambaClassifier,
    NetMambaConfig,
    NetMambaPretraining,
)
from fieldfare.netsec.networks.netmamba.convert import PUBLISHED, load_encoder

convert_checkpoint = functools.partial(conversion.convert_checkpoint, PUBLISHED)

TINY = NetMambaConfig(byte_length=64, embed_dim=32, depth=2)
SPECIAL = NetMambaConfig(
    byte_length=48, stride=8, embed_dim=16, depth=3, decoder_embed_dim=32, decoder_depth=1,
    state_dim=8, conv_kernel=3, expand=3,
)  # fmt: skip


def write(network, path, **more):
    torch.save({"model": network.state_dict(), "epoch": 3, **more}, path)
    return path


def test_a_fine_tuned_checkpoint_computes_the_same_after_conversion(tmp_path):
    torch.manual_seed(0)
    network = NetMambaClassifier(TINY, 3).eval()
    target = tmp_path / "ours.safetensors"
    card = convert_checkpoint(
        write(network, tmp_path / "published.pth"), target, task="traffic", classes=["a", "b", "c"]
    )
    assert card.config["classes"] == ["a", "b", "c"]

    def build(config):
        return NetMambaClassifier(NetMambaConfig(**config["network"]), len(config["classes"]))

    loaded, read = from_pretrained(str(target), "traffic", build)
    assert read == card
    assert loaded.config == TINY
    data = torch.randint(0, 256, (2, 64), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(loaded(data), network(data))


@pytest.mark.parametrize("config", [TINY, SPECIAL, NetMambaConfig()], ids=str)
def test_the_configuration_of_a_pretrained_checkpoint_is_found_from_its_shapes(config, tmp_path):
    network = NetMambaPretraining(config)
    target = tmp_path / "ours.safetensors"
    card = convert_checkpoint(write(network, tmp_path / "p.pth"), target, task="traffic")
    assert NetMambaConfig(**card.config["network"]) == config
    assert card.config["classes"] is None
    _, tensors = load_model_file(target)
    assert all(torch.equal(tensors[name], t) for name, t in network.state_dict().items())


def test_a_classifier_takes_a_pretrained_encoder_of_another_length(tmp_path):
    torch.manual_seed(0)
    pretrained = NetMambaPretraining(TINY)
    longer = NetMambaConfig(byte_length=128, embed_dim=32, depth=2)
    classifier = NetMambaClassifier(longer, 4)
    head = classifier.head.weight.clone()
    load_encoder(classifier, pretrained.state_dict(), tmp_path)
    assert torch.equal(classifier.head.weight, head)
    assert torch.equal(classifier.pos_embed[:, -1], pretrained.pos_embed[:, -1])
    assert torch.equal(classifier.blocks[1].mixer.A_log, pretrained.blocks[1].mixer.A_log)
    same = NetMambaClassifier(TINY, 4)
    load_encoder(same, pretrained.state_dict(), tmp_path)
    assert torch.equal(same.pos_embed, pretrained.pos_embed)
    with pytest.raises(InputError, match="missing"):
        load_encoder(
            NetMambaClassifier(NetMambaConfig(byte_length=64, embed_dim=32, depth=3), 4),
            pretrained.state_dict(),
            tmp_path,
        )


@pytest.mark.parametrize(
    ("change", "classes", "message"),
    [
        (lambda t: t.pop("norm_f.weight"), None, "1 missing: norm_f.weight"),
        (lambda t: t.update(extra=torch.zeros(1)), None, "1 unexpected: extra"),
        (lambda t: None, ["a", "b"], "3 classes; 2 names"),
        (lambda t: t.pop("pos_embed"), None, "no NetMamba checkpoint"),
        (lambda t: t.update(pos_embed=torch.zeros(1, 1, 32)), None, "fits no NetMamba"),
    ],
)
def test_checkpoints_that_do_not_fit_are_refused(change, classes, message, tmp_path):
    state = NetMambaClassifier(TINY, 3).state_dict()
    change(state)
    torch.save({"model": state}, tmp_path / "p.pth")
    with pytest.raises(InputError, match=message):
        convert_checkpoint(
            tmp_path / "p.pth", tmp_path / "ours.safetensors", task="traffic", classes=classes
        )
    assert not (tmp_path / "ours.safetensors").exists()


def test_a_checkpoint_with_code_in_it_is_refused(tmp_path):
    path = write(NetMambaClassifier(TINY, 3), tmp_path / "p.pth", args=argparse.Namespace(a=1))
    with pytest.raises(InputError, match="Python objects besides tensors"):
        convert_checkpoint(path, tmp_path / "ours.safetensors", task="traffic")
