# SPDX-License-Identifier: Apache-2.0
"""Published checkpoints become model files; made-up ones of the published names and shapes."""

import functools
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from fieldfare.common.errors import InputError
from fieldfare.common.weights import from_pretrained, load_model_file
from fieldfare.netsec.networks import conversion
from fieldfare.netsec.networks.netfound import (
    CONFIGS,
    NetFoundClassifier,
    NetFoundConfig,
    NetFoundPretraining,
)
from fieldfare.netsec.networks.netfound.convert import PUBLISHED, fill_shared, load_backbone

convert_checkpoint = functools.partial(conversion.convert_checkpoint, PUBLISHED)

TINY = NetFoundConfig(16, 2, 4, 24, compat=True)
SHARED = ("lm_head.decoder.weight", "lm_head.decoder.bias", ".layer.1.position_embeddings.weight")


def state(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


@pytest.fixture(scope="module")
def classifier():
    torch.manual_seed(0)
    return NetFoundClassifier(TINY, 3).eval()


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_a_fine_tuned_checkpoint_computes_the_same_after_conversion(
    suffix, classifier, flow_tokens, tmp_path
):
    source, target = tmp_path / f"published{suffix}", tmp_path / "ours.safetensors"
    save_file(state(classifier), source) if suffix == ".safetensors" else torch.save(
        state(classifier), source
    )
    card = convert_checkpoint(source, target, task="traffic", classes=["DNS", "TLS", "SSH"])
    assert card.config["classes"] == ["DNS", "TLS", "SSH"]

    def build(config):
        return NetFoundClassifier(NetFoundConfig(**config["network"]), len(config["classes"]))

    loaded, read = from_pretrained(str(target), "traffic", build)
    assert read == card
    assert loaded.config == TINY
    inputs = flow_tokens.batch(slice(None))
    with torch.no_grad():
        assert torch.equal(loaded(inputs), classifier(inputs))


def test_a_pretrained_folder_without_its_shared_tensors_converts(tmp_path):
    torch.manual_seed(1)
    network = NetFoundPretraining(TINY)
    kept = {name: t for name, t in state(network).items() if not name.endswith(SHARED)}
    save_file(kept, tmp_path / "model.safetensors")
    card = convert_checkpoint(tmp_path, tmp_path / "ours.safetensors", task="traffic")
    _, tensors = load_model_file(tmp_path / "ours.safetensors")
    assert card.config["classes"] is None
    assert tensors.keys() == network.state_dict().keys()
    assert all(torch.equal(tensors[name], t) for name, t in network.state_dict().items())


@pytest.mark.parametrize("size", ["small", "base", "large"])
@pytest.mark.parametrize("payload_tokens", [0, 6])
def test_the_configuration_of_published_sizes_is_found_from_their_shapes(
    size, payload_tokens, tmp_path
):
    config = replace(CONFIGS[size], payload_tokens=payload_tokens, compat=True)
    with torch.device("meta"):
        tensors = NetFoundClassifier(config, 2).state_dict()
    assert conversion.infer_config(PUBLISHED, tensors, tmp_path) == config


def test_a_classifier_takes_the_backbone_of_a_pretrained_network(tmp_path):
    torch.manual_seed(2)
    pretrained, classifier = NetFoundPretraining(TINY), NetFoundClassifier(TINY, 4)
    head = classifier.classifier.weight.clone()
    load_backbone(classifier, pretrained.state_dict(), tmp_path)
    taken = classifier.base_transformer.state_dict()
    assert all(
        torch.equal(taken[n], t) for n, t in pretrained.base_transformer.state_dict().items()
    )
    assert torch.equal(classifier.attentivePooling.v.weight, pretrained.attentivePooling.v.weight)
    assert torch.equal(classifier.classifier.weight, head)
    other = NetFoundClassifier(replace(TINY, layers=3), 4)
    with pytest.raises(InputError, match="missing"):
        load_backbone(other, pretrained.state_dict(), tmp_path)


def test_shared_tensors_are_filled_in_only_where_they_are_missing(classifier):
    tensors = state(classifier)
    assert fill_shared(tensors, tensors).keys() == tensors.keys()
    name = "base_transformer.encoder.layer.1.position_embeddings.weight"
    del tensors[name]
    first = tensors[name.replace("layer.1", "layer.0")]
    assert torch.equal(fill_shared(tensors, classifier.state_dict())[name], first)


@pytest.mark.parametrize(
    ("change", "classes", "message"),
    [
        (lambda t: t.pop("hiddenLayer.bias"), None, "1 missing: hiddenLayer.bias"),
        (lambda t: t.update(extra=torch.zeros(1)), None, "1 unexpected: extra"),
        (lambda t: None, ["a", "b"], "3 classes; 2 names"),
        (lambda t: t.clear() or t.update(weight=torch.zeros(2)), None, "no netFound checkpoint"),
    ],
)
def test_checkpoints_that_do_not_fit_are_refused(change, classes, message, classifier, tmp_path):
    tensors = state(classifier)
    change(tensors)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=message):
        convert_checkpoint(tmp_path, tmp_path / "ours.safetensors", task="traffic", classes=classes)
    assert not (tmp_path / "ours.safetensors").exists()


def test_a_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds neither model"):
        convert_checkpoint(tmp_path, tmp_path / "ours.safetensors", task="traffic")
