# SPDX-License-Identifier: Apache-2.0
"""Three memory modes, one function: outputs, gradients, and what is kept for the backward pass."""

import copy
import subprocess
import sys
import warnings

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from fieldfare.common.blocks import MEMORY_MODES, MBConv, ReversibleStage


def stage(blocks=4, memory="reversible", *, channels=8, dtype=torch.float64, ndim=3, **options):
    torch.manual_seed(0)

    def branch(width: int) -> nn.Module:
        return MBConv(width, expansion=2, ndim=ndim, **options)

    return ReversibleStage(branch, channels, blocks, memory).to(dtype)


def gradients(module: nn.Module, x: torch.Tensor, seed: int = 1) -> list[torch.Tensor]:
    """Output, gradient of the input, gradients of the weights of a quadratic loss."""
    x = x.clone().requires_grad_()
    torch.manual_seed(seed)
    y = module(x)
    y.square().sum().backward()
    return [y.detach(), x.grad, *[p.grad for p in module.parameters()]]


def difference(one: list[torch.Tensor], other: list[torch.Tensor]) -> float:
    """Relative, over all gradients together."""
    a, b = (torch.cat([t.flatten() for t in tensors]) for tensors in (one, other))
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("memory", ["checkpoint", "reversible"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
def test_modes_agree_with_the_plain_one(ndim, memory, dtype, tolerance):
    x = torch.randn(2, 8, *[6] * ndim, dtype=dtype)
    plain = gradients(stage(memory="none", dtype=dtype, ndim=ndim), x)
    other = gradients(stage(memory=memory, dtype=dtype, ndim=ndim), x)
    assert torch.equal(plain[0], other[0])
    assert difference(other, plain) < tolerance


@pytest.mark.parametrize("memory", ["checkpoint", "reversible"])
def test_dropout_draws_the_same_mask_again(memory):
    x = torch.randn(1, 8, 6, 6, 6, dtype=torch.float64)
    plain = gradients(stage(memory="none", dropout=0.4), x)
    assert difference(gradients(stage(memory=memory, dropout=0.4), x), plain) < 1e-12
    assert difference(gradients(stage(memory=memory, dropout=0.4), x, seed=2), plain) > 0.01


def test_the_random_state_after_a_step_is_that_of_the_plain_mode():
    x, states = torch.randn(1, 8, 4, 4, 4, dtype=torch.float64), []
    for memory in MEMORY_MODES:
        gradients(stage(memory=memory, dropout=0.4), x)
        states.append(torch.get_rng_state())
    assert all(torch.equal(state, states[0]) for state in states)


def test_inverse_gives_the_input_back():
    module = stage(8).eval()
    x = torch.randn(1, 8, 5, 5, 5, dtype=torch.float64)
    with torch.no_grad():
        assert torch.allclose(module.inverse(module(x)), x, atol=1e-12)


def kept_bytes(module: nn.Module, x: torch.Tensor) -> int:
    own = {p.untyped_storage().data_ptr() for p in module.parameters()}
    seen: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        y = module(x)
    assert y.requires_grad
    return sum(seen.values())


def test_bytes_kept_do_not_grow_from_2_to_16_blocks():
    x = torch.randn(1, 8, 10, 10, 10, requires_grad=True)
    kept = [kept_bytes(stage(n, dtype=torch.float32), x) for n in (2, 4, 8, 16)]
    assert max(kept) <= 1.01 * min(kept)
    plain = kept_bytes(stage(16, "none", dtype=torch.float32), x)
    assert plain > 50 * kept[-1]


def test_gradients_under_autocast_are_those_of_the_plain_mode():
    x, found = torch.randn(1, 8, 6, 6, 6), []
    for memory in MEMORY_MODES:
        with torch.autocast("cpu", torch.bfloat16):
            found.append(gradients(stage(2, memory, dtype=torch.float32), x))
    assert found[0][0].dtype == torch.float32
    assert difference(found[1], found[0]) < 1e-3
    assert difference(found[2], found[0]) < 0.03


def test_streams_stay_in_float32_when_the_input_is_not():
    y = stage(2, dtype=torch.float32)(torch.randn(1, 8, 4, 4, 4).bfloat16())
    assert y.dtype == torch.float32


def test_many_blocks_under_autocast_warn():
    module, x = stage(9, dtype=torch.float32), torch.randn(1, 8, 2, 2, 2)
    with torch.autocast("cpu", torch.bfloat16), pytest.warns(UserWarning, match="9 reversible"):
        module(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module(x)


def test_autograd_grad_and_frozen_weights():
    module = stage(3)
    for parameter in module.first[1].parameters():
        parameter.requires_grad_(False)
    x = torch.randn(1, 8, 4, 4, 4, dtype=torch.float64)
    trained = [p for p in module.parameters() if p.requires_grad]
    found = torch.autograd.grad(module(x).square().sum(), trained)
    plain = copy.deepcopy(module)
    plain.memory = "none"
    wanted = torch.autograd.grad(
        plain(x).square().sum(), [p for p in plain.parameters() if p.requires_grad]
    )
    assert difference(list(found), list(wanted)) < 1e-12


def test_a_weight_shared_by_two_blocks_gets_both_gradients():
    shared = MBConv(4, expansion=2).double()
    x = torch.randn(1, 8, 4, 4, 4, dtype=torch.float64)
    found = []
    for memory in ("none", "reversible"):
        shared.zero_grad()
        ReversibleStage(lambda width: shared, 8, 2, memory)(x).square().sum().backward()
        found.append([p.grad.clone() for p in shared.parameters()])
    assert difference(found[1], found[0]) < 1e-12


def test_without_gradients_nothing_is_kept():
    module = stage(3)
    with torch.no_grad():
        y = module(torch.randn(1, 8, 4, 4, 4, dtype=torch.float64))
    assert not y.requires_grad


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 7}, "even"),
        ({"blocks": 0}, "at least 1"),
        ({"memory": "magic"}, "memory must be"),
        ({"norm": "batch"}, "batch norm"),
    ],
)
def test_what_cannot_be_reversed_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        stage(**options)


def test_compiled_it_is_left_out_of_the_graph():
    x = torch.randn(1, 8, 6, 6, dtype=torch.float64)
    module = stage(2, ndim=2)
    whole = nn.Sequential(module, nn.Tanh())
    eager = gradients(whole, x)
    compiled = gradients(torch.compile(whole, backend="eager"), x)
    assert difference(compiled[:2], eager[:2]) < 1e-12


def test_the_compiler_is_not_imported_before_it_is_wanted():
    check = "import sys, fieldfare.common.blocks; sys.exit('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
