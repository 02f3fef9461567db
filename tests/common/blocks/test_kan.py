# SPDX-License-Identifier: Apache-2.0
"""Kolmogorov-Arnold layers: the published pool, its properties, and how one basis is selected."""

import pytest
import torch
from published_blocks import assert_near, part, published
from torch import nn

from fieldfare.common.blocks.kan import BASES, ConvKAN, SelectableKAN, prune_bases
from fieldfare.common.blocks.kan_bases import (
    WAVELETS,
    ChebyshevKAN,
    GaussianKAN,
    GramKAN,
    JacobiKAN,
    ReluKAN,
    SplineKAN,
    SwitchKAN,
    WaveletKAN,
)
from fieldfare.common.blocks.steps import advance

FILE = "kan/layers"
SPLINE = {
    "base_weight": "base",
    "spline_weight": "coefficients",
    "spline_scaler": "scale",
    "grid": "grid",
}
CHEBYSHEV = {"cheby_coeffs": "coefficients"}
GAUSSIAN = {
    "base_linear.weight": "base.weight",
    "base_linear.bias": "base.bias",
    "rbf_linear.grid": "centres",
    "rbf_linear.spline_weight": "basis.weight",
}
NORMALISED = {
    "base_linear.weight": "base.weight",
    "base_linear.bias": "base.bias",
    "rbf.grid": "centres",
    "spline_linear.weight": "basis.weight",
    "layernorm.weight": "norm.weight",
    "layernorm.bias": "norm.bias",
}
WAVELET = {
    "scale": "width",
    "translation": "shift",
    "wavelet_weights": "weight",
    "weight1": "base",
    **{f"bn.{n}": f"norm.{n}" for n in ("weight", "bias", "running_mean", "running_var")},
}
NORMED = {
    "base_weights": "base",
    "norm.weight": "norm.weight",
    "norm.bias": "norm.bias",
}
JACOBI = NORMED | {"jacobi_coeffs": "coefficients"}
GRAM = NORMED | {"grams_basis_weights": "coefficients", "beta_weights": "damping"}
RELU = {
    "equal_size_conv.weight": "basis.weight",
    "equal_size_conv.bias": "basis.bias",
    "phase_low": "low",
    "phase_height": "high",
}
SWITCH = {k: v for k, v in NORMALISED.items() if not k.startswith("base")}
CASES = {
    "spline": (SplineKAN, SPLINE),
    "chebyshev": (ChebyshevKAN, CHEBYSHEV),
    "gaussian": (GaussianKAN, GAUSSIAN),
    "gaussian_layernorm": (lambda i, o: GaussianKAN(i, o, normalised=True), NORMALISED),
    "switch": (SwitchKAN, SWITCH),
    "jacobi": (JacobiKAN, JACOBI),
    "gram": (GramKAN, GRAM),
    "relu": (ReluKAN, RELU),
    **{
        f"wavelet_{name}": (lambda i, o, w=wavelet: WaveletKAN(i, o, wavelet=w), WAVELET)
        for name, wavelet in zip(("mexican_hat", "morlet", "dog", "meyer"), WAVELETS, strict=True)
    },
}


def shaped(value: torch.Tensor, like: torch.Tensor, name: str) -> torch.Tensor:
    """A published tensor in the shape of ours."""
    if name == "rbf_linear.spline_weight":
        return value.T
    return value.reshape(like.shape)


def loaded(layer: nn.Module, names: dict[str, str], state) -> nn.Module:
    ours = layer.state_dict()
    ours |= {our: shaped(state[name], ours[our], name) for name, our in names.items()}
    layer.load_state_dict(ours)
    return layer.eval()


@pytest.mark.parametrize("name", CASES)
def test_outputs_and_gradients_are_the_published_ones(name):
    given = part(published(FILE), f"{name}.")
    kind, names = CASES[name]
    layer = loaded(kind(4, 5), names, part(given, "sd."))
    x = given["in.x"].clone().requires_grad_()
    y = layer(x)
    assert_near(y, given["out.y"], 1e-5)
    y.backward(given["grad.cotangent"])
    # The published backward of the switch multiplies the derivative of the basis by a number (0.5
    # unless it is trained) that its forward pass does not know.
    factor = 1 / given["sd.rbf.inv_denominator"] if name == "switch" else 1
    assert_near(x.grad, factor * given["grad.x"], 1e-4)
    parameters = dict(layer.named_parameters())
    for theirs, ours in names.items():
        if ours in parameters and f"grad.{theirs}" in given:
            behind = theirs.startswith("layernorm")
            expected = given[f"grad.{theirs}"] * (factor if behind else 1)
            found = parameters[ours].grad
            assert_near(found, shaped(expected, found, theirs), 1e-4)


def test_spline_bases_are_the_published_ones_and_sum_to_one():
    given = part(published(FILE), "spline.")
    layer = loaded(SplineKAN(4, 5), SPLINE, part(given, "sd."))
    assert_near(layer.bases(given["in.x"]), given["act.bases"], 1e-6)
    fresh = SplineKAN(3, 2)
    inside = torch.rand(50, 3) * 2 - 1
    assert torch.allclose(fresh.bases(inside).sum(-1), torch.ones(50, 3), atol=1e-5)
    assert (fresh.bases(torch.full((1, 3), 9.0)) == 0).all()


def test_a_new_grid_and_the_regularisation_are_the_published_ones():
    given = part(published(FILE), "spline.")
    layer = loaded(SplineKAN(4, 5), SPLINE, part(given, "sd."))
    assert_near(layer.regularisation()[None], given["regularisation"], 1e-5)
    x = given["update.in.x"]
    assert_near(layer(x), given["update.out.before"], 1e-5)
    layer.update_grid(x)
    assert_near(layer.grid, given["update.out.grid"], 1e-5)


def test_functions_survive_a_new_grid():
    layer = SplineKAN(2, 3)
    nn.init.normal_(layer.coefficients)
    x = torch.rand(400, 2) * 1.8 - 0.9
    before = layer(x).detach()
    layer.update_grid(x)
    assert float((layer(x) - before).detach().square().mean()) < 0.02 * float(before.var())


def test_clamped_inputs_of_chebyshev_are_the_published_ones_and_have_finite_gradients():
    given = part(published(FILE), "chebyshev.")
    layer = loaded(ChebyshevKAN(4, 5), CHEBYSHEV, part(given, "sd."))
    assert_near(layer(given["in.unclamped"]), given["out.clamped"], 1e-5)
    x = torch.tensor([[1.0, -1.0, 2.0, 0.0]], requires_grad=True)
    layer(x).sum().backward()
    assert torch.isfinite(x.grad).all()
    assert x.grad[0, 2] == 0


@pytest.mark.parametrize(
    ("name", "kind", "names"),
    [
        ("spline", SplineKAN, SPLINE),
        ("chebyshev", ChebyshevKAN, CHEBYSHEV),
        ("gaussian", GaussianKAN, GAUSSIAN),
    ],
)
def test_convolutions_are_the_published_ones(name, kind, names):
    given = part(published(FILE), f"conv_{name}.")
    layer = loaded(kind(18, 3), names, part(given, "sd.kanlayer."))
    x = given["in.x"].clone().requires_grad_()
    y = ConvKAN(layer, 3, padding=1)(x)
    assert_near(y, given["out.y"], 1e-5)
    y.backward(given["grad.cotangent"])
    assert_near(x.grad, given["grad.x"], 1e-4)


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_a_linear_layer_over_patches_is_a_convolution(ndim):
    conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[ndim](2, 3, 3, stride=2, padding=1)
    linear = nn.Linear(2 * 3**ndim, 3)
    linear.weight.data.copy_(conv.weight.flatten(1))
    linear.bias.data.copy_(conv.bias)
    x = torch.randn(2, 2, *[6] * ndim)
    ours = ConvKAN(linear, 3, stride=2, padding=1, ndim=ndim)(x)
    assert_near(ours, conv(x).detach(), 1e-5)


@pytest.mark.parametrize("name", BASES)
def test_layers_take_any_leading_axes(name):
    layer = BASES[name](4, 3).eval()
    x = torch.randn(2, 5, 4)
    assert torch.allclose(layer(x)[1], layer(x[1]), atol=1e-5)


def test_shares_begin_equal_and_end_on_one():
    layer = SelectableKAN(2, 3, ("spline", "relu", "gaussian"), full=2, selective=4)
    assert layer.shares().tolist() == pytest.approx([1 / 3] * 3)
    layer.preference.data = torch.tensor([0.1, 0.3, 0.2])
    largest = []
    for _ in range(8):
        largest.append(float(layer.shares().max().detach()))
        advance(layer)
    assert largest[0] == largest[1] == largest[2]  # the first stage
    assert largest[2:7] == sorted(largest[2:7])
    assert largest[6] > 0.9999
    assert largest[7] == largest[6]


def test_after_pruning_the_layer_is_the_surviving_basis_exactly():
    model = nn.Sequential(SelectableKAN(2, 4), nn.Tanh(), SelectableKAN(4, 1)).eval()
    model[0].preference.data[1] = 1
    model[2].preference.data[3] = 1
    survivors = [model[0].bases["chebyshev"], model[2].bases["wavelet"]]
    before = sum(value.numel() for value in model.parameters())
    assert prune_bases(model) == {"0": "chebyshev", "2": "wavelet"}
    x = torch.randn(7, 2)
    assert torch.equal(model(x), survivors[1](torch.tanh(survivors[0](x))))
    assert sum(value.numel() for value in model.parameters()) < before
    assert prune_bases(model) == {"0": "chebyshev", "2": "wavelet"}


def test_training_leaves_the_one_basis_that_can_fit_the_data():
    torch.manual_seed(0)
    layer = SelectableKAN(1, 1, ("relu", "gaussian"), full=60, selective=60)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    x = torch.linspace(-2, -0.7, 64)[:, None]  # no bell of the ReLU layer begins below -0.6
    y = torch.sin(4 * x)
    for _ in range(120):
        optimizer.zero_grad()
        loss = (layer(x) - y).square().mean()
        loss.backward()
        optimizer.step()
        advance(layer)
    assert layer.prune() == "gaussian"
    assert float((layer(x) - y).detach().square().mean()) < 0.05 * float(y.var())


def test_a_selectable_convolution_keeps_size_in_three_dimensions():
    layer = ConvKAN(SelectableKAN(2 * 27, 3, ("gram", "jacobi")), 3, padding=1, ndim=3)
    assert layer(torch.randn(1, 2, 4, 5, 3)).shape == (1, 3, 4, 5, 3)


@pytest.mark.parametrize("pool", [(), ("spline", "spline"), ("fourier",)])
def test_a_pool_of_none_one_twice_or_an_unknown_basis_is_refused(pool):
    with pytest.raises(ValueError, match="pool must be"):
        SelectableKAN(2, 2, pool)


def test_an_unknown_wavelet_and_a_fourth_dimension_are_refused():
    with pytest.raises(ValueError, match="wavelet must be"):
        WaveletKAN(2, 2, wavelet="haar")
    with pytest.raises(ValueError, match="ndim"):
        ConvKAN(nn.Identity(), 3, ndim=4)
