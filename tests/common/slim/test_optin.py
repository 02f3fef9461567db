# SPDX-License-Identifier: Apache-2.0
"""OPTIN: published distances, scores and masks; a smaller network that computes the same."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer
from tiny_bert import TinyBert

from fieldfare.common.efficiency import cost
from fieldfare.common.slim import optin

REFERENCE = Path(__file__).parents[2] / "reference" / "optin"
FILES = ("bert_three_layers", "bert_three_layers_trajectory_only")


@pytest.fixture(scope="module", params=FILES)
def case(request):
    """The file's tensors and numbers, our network and its layers, clean and published bends."""
    path = REFERENCE / f"{request.param}.safetensors"
    given = load_file(path)
    with safe_open(path, "pt") as file:
        numbers = file.metadata()
    state = {name[3:]: tensor for name, tensor in given.items() if name.startswith("sd.")}
    model = TinyBert(state, int(numbers["heads"])).eval()
    layers = [
        optin.Layer((b.query, b.key, b.value), b.project, b.first, b.second, b.heads)
        for b in model.layer
    ]

    def run():
        return model(given["input_ids"], given["attention_mask"])

    bends = [optin.measure(layers, run, published=published) for published in (False, True)]
    return given, numbers, layers, run, *bends


def assert_near(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().mean()))


def test_bends_are_the_published_ones(case):
    given, _, layers, run, clean, published = case
    with torch.no_grad(), optin.masked(layers, optin.all_kept(layers)) as outputs:
        torch.testing.assert_close(run(), given["base_logits"], rtol=0, atol=1e-5)
    for index, output in enumerate(outputs):
        torch.testing.assert_close(output, given[f"base_ffn_output.{index}"], rtol=0, atol=1e-5)
    assert_near(clean.head_distance, given["head_trajectory_distance"])
    assert_near(clean.head_divergence, given["head_logit_divergence"])
    assert_near(clean.neuron_distance, given["neuron_trajectory_distance"])
    assert_near(clean.neuron_divergence, given["neuron_logit_divergence"])
    assert_near(published.head_distance, given["published_mask_head_trajectory_distance"])
    assert_near(published.head_divergence, given["published_mask_head_logit_divergence"])


def test_scores_and_masks_are_the_published_ones(case):
    given, numbers, layers, _, _, bends = case
    heads, neurons = optin.scores(bends, logits="KL" in numbers["loss"], published=True)
    assert_near(-heads, given["head_score"])
    assert_near(-neurons, given["neuron_score"])
    macs = optin.unit_macs(layers[0], given["input_ids"].shape[1])
    assert macs == (given["mac_head"], given["mac_neuron"])
    base = heads.numel() * macs[0] + neurons.numel() * macs[1]
    assert base == given["mac_base"]
    masks = optin.select(heads, neurons, macs, float(numbers["mac_constraint"]) * base)
    assert torch.equal(masks.heads, given["head_mask"].bool())
    assert torch.equal(masks.neurons, given["neuron_mask"].bool())
    used = int(masks.heads.sum()) * macs[0] + int(masks.neurons.sum()) * macs[1]
    assert used == given["mac_used"]


def network() -> VisionTransformer:
    return VisionTransformer(
        img_size=16, patch_size=4, embed_dim=24, num_heads=4, depth=3, mlp_ratio=2, num_classes=5
    ).eval()


def test_a_unit_without_effect_bends_nothing_and_goes_first():
    model = network()
    layers = optin.vision_transformer_layers(model)
    with torch.no_grad():
        layers[1].second.weight[:, 7] = 0
        layers[0].project.weight[:, 6:12] = 0
    x = torch.randn(2, 3, 16, 16)
    bends = optin.measure(layers, lambda: model(x))
    assert bends.neuron_distance[1, 7] == bends.neuron_divergence[1, 7] == 0
    assert bends.head_distance[0, 1] == bends.head_divergence[0, 1] == 0
    heads, neurons = optin.scores(bends)
    assert heads.argmin() == 1
    assert neurons.argmin() == neurons.shape[1] + 7


@pytest.mark.parametrize("share", [0.75, 0.5, 0.12])
def test_the_smaller_network_computes_what_the_masked_one_does(share):
    model, x = network(), torch.randn(2, 3, 16, 16)
    layers = optin.vision_transformer_layers(model)
    heads, neurons = torch.rand(3, 4), torch.rand(3, 48)
    heads[1] = 0  # a layer that loses all its heads
    macs = optin.unit_macs(layers[0], 17)
    budget = share * (12 * macs[0] + 144 * macs[1])
    masks = optin.select(heads, neurons, macs, budget)
    assert int(masks.heads.sum()) * macs[0] + int(masks.neurons.sum()) * macs[1] <= budget
    with torch.no_grad():
        with optin.masked(layers, masks):
            expected = model(x)
        before = cost(model, (1, 3, 16, 16)).macs
        optin.remove(layers, masks)
        torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-5)
    gone = (~masks.heads).sum() * macs[0] + (~masks.neurons).sum() * macs[1]
    assert cost(model, (1, 3, 16, 16)).macs == before - int(gone)


def test_a_budget_below_one_head_is_refused():
    with pytest.raises(ValueError, match="one head alone takes 100 operations"):
        optin.select(torch.ones(1, 2), torch.ones(1, 4), (100, 10), 99)


def test_the_divergence_counts_a_tenth_of_the_distance():
    found = optin.combine(torch.tensor([[100.0, 1.0, 0.0]]), torch.tensor([[1.0, 2.0, 0.5]]))
    assert found.tolist() == [[110.0, 21.0, 5.0]]
