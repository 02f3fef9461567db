# SPDX-License-Identifier: Apache-2.0
"""Losses, each beside its equation written out in numpy."""

import numpy as np
import pytest
import torch

from fieldfare.common.errors import InputError
from fieldfare.remote_sensing.buildings.training.losses import LOSSES, DeepSupervision, parse_loss


@pytest.fixture
def maps():
    """Logits, truth and weight, (2, 9, 11) float64; one image without any building."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (2, 9, 11))
    truth = np.zeros((2, 9, 11))
    truth[0, 2:6, 3:8] = 1
    weight = (rng.random((2, 9, 11)) > 0.3).astype(float)
    return tuple(torch.from_numpy(array) for array in (logits, truth, weight))


def probability(logits):
    return 1 / (1 + np.exp(-logits))


def mean(values, weight):
    return (values * weight).sum() / weight.sum()


def bce_in_numpy(logits, truth, weight):
    p = probability(logits)
    return mean(-(truth * np.log(p) + (1 - truth) * np.log(1 - p)), weight)


def dice_in_numpy(logits, truth, weight):
    p, t = (array[weight > 0] for array in (probability(logits), truth))
    return 1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1)


def focal_in_numpy(logits, truth, weight):
    of_truth = np.where(truth > 0, probability(logits), 1 - probability(logits))
    return mean(-((1 - of_truth) ** 2) * np.log(of_truth), weight)


def gce_in_numpy(logits, truth, weight):
    of_truth = np.where(truth > 0, probability(logits), 1 - probability(logits))
    return mean((1 - of_truth**0.7) / 0.7, weight)


def boundary_in_numpy(logits, truth, weight):
    """The distance to the outline: half a pixel short of that to the nearest other pixel."""
    distance = np.ones(truth.shape)  # without any building all is far outside
    for index, mask in enumerate(truth > 0):
        if mask.any():
            for place in np.ndindex(mask.shape):
                others = np.argwhere(mask != mask[place])
                nearest = np.sqrt(((others - place) ** 2).sum(axis=1).min()) - 0.5
                sign = -1 if mask[place] else 1
                distance[(index, *place)] = sign * min(nearest / 16, 1)
    return mean(probability(logits) * distance, weight)


IN_NUMPY = {
    "bce": bce_in_numpy,
    "dice": dice_in_numpy,
    "focal": focal_in_numpy,
    "gce": gce_in_numpy,
    "boundary": boundary_in_numpy,
}


@pytest.mark.parametrize("name", LOSSES)
def test_loss_equals_its_equation(maps, name):
    expected = IN_NUMPY[name](*(tensor.numpy() for tensor in maps))
    assert float(LOSSES[name](*maps)) == pytest.approx(expected, rel=1e-9)


def test_numbers_by_hand():
    """Two pixels, probabilities 3/4 and 1/4, the first a building."""
    logits = torch.tensor([[[np.log(3), -np.log(3)]]])
    truth, weight = torch.tensor([[[1.0, 0.0]]]), torch.ones(1, 1, 2)
    found = {name: float(loss(logits, truth, weight)) for name, loss in LOSSES.items()}
    assert found == pytest.approx(
        {
            "bce": -np.log(0.75),
            "dice": 1 - (2 * 0.75 + 1) / (1 + 1 + 1),
            "focal": -(0.25**2) * np.log(0.75),
            "gce": (1 - 0.75**0.7) / 0.7,
            "boundary": (0.75 * -0.5 / 16 + 0.25 * 0.5 / 16) / 2,
        },
        rel=1e-5,
    )


def test_a_wrong_label_pulls_less_than_in_cross_entropy():
    """Where the network is sure of the opposite, the gradient of gce falls, that of bce grows."""

    def pull(name, confidence):
        logits = torch.full((1, 1, 1), confidence, requires_grad=True)
        LOSSES[name](logits, torch.zeros(1, 1, 1), torch.ones(1, 1, 1)).backward()
        return float(logits.grad)

    assert pull("gce", 4.0) < 0.1 * pull("bce", 4.0)
    assert pull("gce", 4.0) < pull("gce", 1.0) < pull("bce", 1.0)


@pytest.mark.parametrize("name", LOSSES)
def test_gradient_is_that_of_the_value(maps, name):
    logits, truth, weight = maps
    assert torch.autograd.gradcheck(
        lambda x: LOSSES[name](x, truth, weight), logits.clone().requires_grad_()
    )


@pytest.mark.parametrize("name", LOSSES)
def test_logits_of_unknown_pixels_have_no_influence(maps, name):
    logits, truth, weight = maps
    other = torch.where(weight > 0, logits, 5 - 3 * logits).requires_grad_()
    value = LOSSES[name](other, truth, weight)
    torch.testing.assert_close(value, LOSSES[name](logits, truth, weight))
    value.backward()
    assert (other.grad[weight == 0] == 0).all()
    assert (other.grad[weight > 0] != 0).all()


@pytest.mark.parametrize("name", ["bce", "dice", "focal"])
def test_truth_of_unknown_pixels_has_no_influence(maps, name):
    """But for the distance to an outline, which is one whatever the image shows there."""
    logits, truth, weight = maps
    other = torch.where(weight > 0, truth, 1 - truth)
    torch.testing.assert_close(
        LOSSES[name](logits, other, weight), LOSSES[name](logits, truth, weight)
    )


@pytest.mark.parametrize("name", LOSSES)
def test_nothing_known_gives_no_gradient_and_no_nan(maps, name):
    logits, truth, weight = maps
    logits = logits.clone().requires_grad_()
    value = LOSSES[name](logits, truth, torch.zeros_like(weight))
    value.backward()
    assert float(value.detach()) == 0
    assert not logits.grad.any()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("filled", [0.0, 1.0])
def test_large_logits_and_even_images_stay_finite(name, filled):
    truth = torch.full((1, 4, 4), filled)
    right = torch.full((1, 4, 4), 200 * (2 * filled - 1)).requires_grad_()
    wrong = (-right).detach().requires_grad_()
    values = [LOSSES[name](x, truth, torch.ones(1, 4, 4)) for x in (right, wrong)]
    sum(values).backward()
    assert torch.isfinite(right.grad).all()
    assert torch.isfinite(wrong.grad).all()
    assert float(values[0].detach()) < float(values[1].detach()) < float("inf")


@pytest.mark.parametrize("name", LOSSES)
def test_descending_finds_the_truth(name):
    truth = torch.zeros(1, 12, 12)
    truth[:, 3:8, 4:9] = 1
    logits = torch.zeros(1, 12, 12, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.3)
    for _ in range(60):
        optimizer.zero_grad()
        LOSSES[name](logits, truth, torch.ones_like(truth)).backward()
        optimizer.step()
    assert torch.equal((logits > 0).float(), truth)


@pytest.mark.parametrize(
    ("text", "factors"),
    [
        ("bce", {"bce": 1}),
        ("bce+dice", {"bce": 1, "dice": 1}),
        (" focal + 0.5 * dice ", {"focal": 1, "dice": 0.5}),
        ("2*bce+bce", {"bce": 3}),
        ("1e-3*boundary+dice", {"boundary": 1e-3, "dice": 1}),
    ],
)
def test_a_sum_of_losses(maps, text, factors):
    expected = sum(factor * LOSSES[name](*maps) for name, factor in factors.items())
    torch.testing.assert_close(parse_loss(text)(*maps), expected)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "iou",
        "bce+",
        "+bce",
        "bce,dice",
        "bce-dice",
        "0*bce",
        "-1*dice",
        "nan*bce",
        "inf*dice",
        "x*bce",
        "*bce",
        "2*",
        "2*3*bce",
    ],
)
def test_what_is_no_sum_of_losses_is_refused(text):
    with pytest.raises(InputError, match=r"--loss .*: add up bce, dice, focal, gce, boundary"):
        parse_loss(text)


def test_depth_weights_add_up_to_one_whatever_their_scale():
    assert DeepSupervision(LOSSES["bce"], (1, 1, 2), [1.0]).depth_weights == [0.25, 0.25, 0.5]
    assert DeepSupervision(LOSSES["bce"], (10, 10, 20), [1.0]).depth_weights == [0.25, 0.25, 0.5]


def test_deep_supervision_is_the_weighted_sum_over_depths_and_outputs():
    rng = torch.Generator().manual_seed(0)
    logits = [torch.randn(2, 2, 6, 7, generator=rng) for _ in range(3)]
    truth = (torch.rand(2, 2, 6, 7, generator=rng) > 0.5).float()
    known = (torch.rand(2, 6, 7, generator=rng) > 0.2).float()
    found = DeepSupervision(LOSSES["bce"], (1, 2, 5), [1.0, 0.5])(logits, truth, known)
    expected = 0.0
    for depth, x in zip((1, 2, 5), logits, strict=True):
        for channel, output in enumerate((1.0, 0.5)):
            arrays = (x[:, channel], truth[:, channel], known)
            expected += depth / 8 * output * bce_in_numpy(*(a.numpy() for a in arrays))
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_one_depth_is_the_plain_loss(maps):
    logits, truth, weight = maps
    supervision = DeepSupervision(LOSSES["dice"], (0.3,), [1.0])
    expected = LOSSES["dice"](logits.float(), truth, weight)
    torch.testing.assert_close(supervision([logits[:, None]], truth[:, None], weight), expected)


def test_a_depth_without_weight_has_no_gradient(maps):
    logits, truth, weight = maps
    shallow, deep = (logits[:, None].clone().requires_grad_() for _ in range(2))
    supervision = DeepSupervision(LOSSES["bce"], (0, 1), [1.0])
    supervision([shallow, deep], truth[:, None], weight).backward()
    assert not shallow.grad.any()
    assert deep.grad.any()


def test_half_precision_logits_are_compared_in_single_precision():
    logits = torch.full((1, 1, 3, 3), 9.0, dtype=torch.bfloat16)
    truth, weight = torch.ones(1, 1, 3, 3), torch.ones(1, 3, 3)
    found = DeepSupervision(LOSSES["bce"], (1,), [1.0])([logits], truth, weight)
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx(np.log1p(np.exp(-9.0)), rel=1e-3)


def test_a_number_of_maps_other_than_that_of_the_weights_is_an_error(maps):
    logits, truth, weight = maps
    with pytest.raises(ValueError, match="zip"):
        DeepSupervision(LOSSES["bce"], (1, 1), [1.0])([logits[:, None]], truth[:, None], weight)
