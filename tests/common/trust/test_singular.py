# SPDX-License-Identifier: Apache-2.0
"""Wide and deep optimality: the three classifiers, by worked examples and in the limit."""

import json
import math
from pathlib import Path

import pytest
import torch

from fieldfare.common.trust.singular import deep_kernel, limit_of, singular_kernel

FILE = Path(__file__).resolve().parents[2] / "reference/wide_and_deep/examples.json"
TOLD = json.loads(FILE.read_text())
ACTIVATIONS = {
    "singular d2 (h1+h3)": (0.0, 1.0, 0.0, 1.0),
    "nearest (h2+h3)": (0.0, 0.0, 1.0, 1.0),
    "majority (0.4,0.3,0.5,0.7)": (0.4, 0.3, 0.5, 0.7),
}
ILL_CONDITIONED = {("singular d2 (h1+h3)", "1"), ("nearest (h2+h3)", "9")}
"""In double precision; the worked examples have 120 digits."""

KINDS = {
    "singular kernel": "singular",
    "1-nearest neighbour": "nearest",
    "majority vote": "majority",
}


@pytest.mark.parametrize("name", TOLD["wide_and_deep.taxonomy"])
def test_the_activation_decides_on_the_classifier(name: str) -> None:
    told = TOLD["wide_and_deep.taxonomy"][name]
    found = limit_of(told["hermite"])
    assert found.kind == KINDS[told["classifier"]]
    assert found.order == (
        None if told["order_alpha"] is None else pytest.approx(told["order_alpha"], rel=1e-5)
    )


def points() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    told = TOLD["wide_and_deep.points"]
    return tuple(torch.tensor(told[n]).double() for n in ("train_angles", "labels", "test_angles"))  # type: ignore[return-value]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_deep_kernels_predict_the_worked_signs(name: str) -> None:
    known, labels, new = points()
    for layers, signs in TOLD[f"wide_and_deep.ntk_sign.{name}"].items():
        if (name, layers) in ILL_CONDITIONED:
            continue
        inner, outer = (
            deep_kernel(torch.cos(angles[:, None] - known), ACTIVATIONS[name], int(layers))
            for angles in (known, new)
        )
        assert (outer @ torch.linalg.solve(inner, labels)).sign().tolist() == signs


def on_circle(angles: torch.Tensor) -> torch.Tensor:
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def test_large_orders_are_the_nearest_neighbour() -> None:
    known, labels, new = points()
    shares = singular_kernel(on_circle(known), (labels > 0).long(), on_circle(new), order=500.0)
    signs = (2 * shares.argmax(1) - 1).tolist()
    told = TOLD["wide_and_deep.one_nearest"]
    tied = 2  # as far from 0.7 as from 1.0
    assert signs[:tied] + signs[tied + 1 :] == told[:tied] + told[tied + 1 :]


def test_a_deep_singular_network_is_the_singular_kernel() -> None:
    """At order 2 on the circle's embedding, signs settle to those of the kernel."""
    known, labels, new = points()
    settled = TOLD["wide_and_deep.ntk_sign.singular d2 (h1+h3)"]["60"]
    shares = singular_kernel(on_circle(known), (labels > 0).long(), on_circle(new), order=2.0)
    assert (2 * shares.argmax(1) - 1).tolist() == settled


def test_known_examples_have_their_own_labels() -> None:
    torch.manual_seed(0)
    known, labels = torch.randn(60, 5), torch.randint(4, (60,))
    shares = singular_kernel(known, labels, known, order=4.0, classes=6)
    assert shares.shape == (60, 6)
    assert torch.equal(shares.argmax(1), labels)
    assert torch.allclose(shares.sum(1), torch.ones(60).double())
    twice = singular_kernel(torch.ones(2, 3), torch.tensor([0, 1]), torch.ones(1, 3), order=2.0)
    assert twice.tolist() == [[0.5, 0.5]]


def test_shares_by_hand() -> None:
    known, labels = torch.tensor([[0.0], [3.0]]), torch.tensor([0, 1])
    shares = singular_kernel(known, labels, torch.tensor([[1.0]]), order=1.0)
    assert shares.tolist() == [[pytest.approx(2 / 3), pytest.approx(1 / 3)]]


def test_what_has_no_limit_is_refused() -> None:
    for coefficients in ([0.0, 0.0], [0.0, 1.0]):
        with pytest.raises(ValueError, match="activation"):
            limit_of(coefficients)
    with pytest.raises(ValueError, match="order"):
        singular_kernel(torch.ones(1, 1), torch.zeros(1).long(), torch.ones(1, 1), order=0.0)
    assert limit_of([0.0, 1.0, 1.0]).order == pytest.approx(4 * math.log(2**0.5) / math.log(1.5))
