# SPDX-License-Identifier: Apache-2.0
"""EvoNorm B0 and S0: timm's layers in two dimensions, and what holds in the others."""

import pytest
import torch
from published_blocks import assert_near, part, published
from torch import nn

from fieldfare.common.blocks import EvoNormB0, EvoNormS0, MBConv, ReversibleStage, normalisation

SIZES = {1: (9,), 2: (9, 7), 3: (5, 7, 6)}


@pytest.mark.parametrize("name", ["b0", "s0"])
def test_outputs_gradients_and_statistics_are_those_of_the_reference(name):
    given = part(published("evonorm/b0_s0"), f"{name}.")
    norm = EvoNormB0(12) if name == "b0" else EvoNormS0(12, int(given["groups"]))
    norm.load_state_dict(part(given, "sd."))
    assert norm.eps == pytest.approx(float(given["eps"]))
    assert_near(norm.eval()(given["in.x"]), given["out.eval"], 1e-6)
    x = given["in.x"].clone().requires_grad_()
    y = norm.train()(x)
    assert_near(y, given["out.train"], 1e-6)
    y.backward(given["grad.cotangent"])
    assert_near(x.grad, given["grad.x"], 2e-6)
    for parameter in ("weight", "bias", "v"):
        assert_near(getattr(norm, parameter).grad, given[f"grad.{parameter}"], 2e-6)
    if name == "b0":
        assert_near(norm.running_var, given["running_var_after"], 1e-6)


def shaken(norm: nn.Module) -> nn.Module:
    """The layer with weights other than those it starts with."""
    for value in norm.parameters():
        nn.init.normal_(value)
    return norm


@pytest.mark.parametrize("norm", [EvoNormS0(8, 4), EvoNormB0(8)])
def test_a_volume_of_one_slice_gives_what_the_image_gives(norm):
    x = torch.randn(2, 8, 5, 6)
    shaken(norm)
    assert torch.allclose(norm(x[:, :, None])[:, :, 0], norm(x), atol=1e-6)


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("norm", [EvoNormS0(8, 4), EvoNormB0(8)])
def test_gradients_are_those_of_the_function(norm, ndim):
    norm = shaken(norm).double()
    x = torch.randn(2, 8, *SIZES[ndim][:1], *[2] * (ndim - 1), dtype=torch.float64)
    assert torch.autograd.gradcheck(norm, x.requires_grad_())


def test_s0_does_not_depend_on_the_rest_of_the_batch_and_b0_does():
    x = torch.randn(4, 8, 5, 6)
    x[3] *= 10
    s0, b0 = EvoNormS0(8), EvoNormB0(8)
    assert torch.allclose(s0(x)[:1], s0(x[:1]), atol=1e-6)
    assert not torch.allclose(b0(x)[:1], b0(x[:1]), atol=1e-2)


def test_s0_forgets_the_scale_of_its_input_where_v_is_large():
    norm = EvoNormS0(8)
    norm.v.data.fill_(1e4)
    x = torch.rand(2, 8, 5, 6) + 1
    assert torch.allclose(norm(x * 5), norm(x), rtol=1e-3)


def test_groups_that_do_not_divide_and_single_values_are_refused():
    with pytest.raises(ValueError, match="groups 5 must divide channels 8"):
        EvoNormS0(8, 5)
    with pytest.raises(ValueError, match="no variance"):
        EvoNormS0(8, 8)(torch.randn(2, 8, 1, 1))
    with pytest.raises(ValueError, match="no variance"):
        EvoNormB0(8)(torch.randn(1, 8, 1, 1))


def test_a_bottleneck_with_evonorm_has_no_other_activation():
    block = MBConv(6, 10, ndim=2, norm="evonorm")
    assert not any(isinstance(module, nn.SiLU) for module in block.modules())
    assert sum(isinstance(module, EvoNormS0) for module in block.modules()) == 2
    assert block(torch.randn(2, 6, 9, 7)).shape == (2, 10, 9, 7)


def test_evonorm_is_a_norm_by_name_and_goes_with_reversible_stages():
    assert isinstance(normalisation("evonorm", 3, 12), EvoNormS0)
    stage = ReversibleStage(lambda c: MBConv(c, ndim=3, norm="evonorm"), 8, 2)
    x = torch.randn(1, 8, 3, 4, 5, requires_grad=True)
    gradients = []
    for memory in ("none", "reversible"):
        stage.memory = memory
        (found,) = torch.autograd.grad(stage(x).square().sum(), x)
        gradients.append(found)
    assert torch.allclose(*gradients, rtol=1e-3, atol=1e-4)
    with pytest.raises(ValueError, match="batch norm"):
        ReversibleStage(lambda _: EvoNormB0(4), 8, 1)
