# SPDX-License-Identifier: Apache-2.0
"""BEYOND: the published implementation's scores, and what it promises."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch.nn.functional import conv2d, linear

from fieldfare.common.trust.beyond import Neighbourhood, threshold

REFERENCE = Path(__file__).parents[2] / "reference" / "beyond"


def load(path: Path):
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118


def toy(tensors, sizes) -> Neighbourhood:
    """The reference's encoder, classifier, projector and stored augmentations."""

    def weights(name):
        return tensors[f"sd.{name}.weight"], tensors[f"sd.{name}.bias"]

    def encode(images):
        hidden = conv2d(images, *weights("backbone.0"), stride=2, padding=1).relu()
        hidden = conv2d(hidden, *weights("backbone.2"), stride=2, padding=1).relu().mean((2, 3))
        projected = linear(hidden, *weights("projector.0")).relu()
        return linear(projected, *weights("projector.2")), linear(hidden, *weights("classifier"))

    def augmentation(k):
        shift, flip = tensors["shifts"][k].tolist(), bool(tensors["flips"][k])

        def augment(images):
            moved = torch.roll(images, shift, (2, 3)) * tensors["gains"][k]
            return moved.flip(3) if flip else moved

        return augment

    augmentations = [augmentation(k) for k in range(int(sizes["aug_num"]))]
    return Neighbourhood(encode, augmentations, float(sizes["alpha"]), int(sizes["var_K"]))


def assert_published(path: Path) -> None:
    tensors, sizes = load(path)
    detector = toy(tensors, sizes)
    fitted = detector.agreements(tensors["fit_images"])
    torch.testing.assert_close(fitted, tensors["fit_sorted_similarity"], rtol=0, atol=1e-6)
    limit = threshold(detector.scores(tensors["fit_images"]), int(sizes["percentile"]) / 100)
    assert limit == pytest.approx(float(tensors["threshold"]), abs=1e-6)
    for kind in ("clean", "perturbed"):
        scores = detector.scores(tensors[f"{kind}_images"])
        torch.testing.assert_close(scores, tensors[f"{kind}_score"], rtol=0, atol=1e-6)
        assert torch.equal(scores < limit, tensors[f"{kind}_flag"])


def test_scores_and_flags_are_the_published_ones():
    assert_published(REFERENCE / "toy_detector.safetensors")


def test_second_configuration_is_the_published_one(reference):
    assert_published(reference / "beyond" / "toy_detector_half.safetensors")


def test_a_network_that_changes_nothing_scores_one():
    def encode(inputs):
        return torch.ones(len(inputs), 4), torch.tensor([[0.0, 3.0]]).repeat(len(inputs), 1)

    detector = Neighbourhood(encode, [lambda x: x + 1, lambda x: -x], rank=2)
    torch.testing.assert_close(detector.scores(torch.randn(3, 5)), torch.ones(3))


def test_dense_predictions_are_compared_pixel_by_pixel():
    def encode(inputs):
        return inputs.flatten(1), torch.stack((inputs, -inputs), dim=1)

    half_turned = torch.ones(2, 4, 4)
    half_turned[:, :2] = -1
    detector = Neighbourhood(encode, [lambda x: x * half_turned], alpha=1.0, rank=1)
    assert detector.scores(torch.ones(2, 4, 4)).tolist() == pytest.approx([0.0, 0.0], abs=1e-6)


def test_a_rank_without_that_many_neighbours_is_refused():
    with pytest.raises(ValueError, match="rank 3 needs as many augmentations; there are 1"):
        Neighbourhood(lambda x: (x, x), [lambda x: x], rank=3)
