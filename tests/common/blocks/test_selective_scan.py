# SPDX-License-Identifier: Apache-2.0
"""The selective scan: the published numbers, and what must hold for any input."""

import importlib
import importlib.util

import pytest
import torch
from safetensors.torch import load_file

from fieldfare.common.blocks import selective_scan

module = importlib.import_module("fieldfare.common.blocks.selective_scan")

CASES = ("L1", "L7_noz_noD", "L64", "L401", "L130_nosoftplus", "stiff_L401")
NAMES = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")
HAS_NUMBA = importlib.util.find_spec("numba") is not None


@pytest.fixture(params=["compiled", "torch"])
def way(request, monkeypatch):
    """Both ways to compute on a CPU."""
    if request.param == "torch":
        monkeypatch.setattr(module, "_compiled", lambda: None)
    elif not HAS_NUMBA:
        pytest.skip("NOT CHECKED: numba is not installed")
    return request.param


@pytest.fixture(scope="session")
def cases(reference):
    return load_file(reference / "netmamba" / "selective_scan_cases.safetensors")


def made_up(b=2, d=5, n=3, length=70, dtype=torch.float32, seed=0):
    random = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=random, dtype=dtype)

    return {
        "u": draw(b, d, length),
        "delta": draw(b, d, length),
        "A": -draw(d, n).exp(),
        "B": draw(b, n, length),
        "C": draw(b, n, length),
        "D": draw(d),
        "z": draw(b, d, length),
        "delta_bias": draw(d),
    }


@pytest.mark.parametrize("case", CASES)
def test_forward_and_gradients_equal_the_published_ones(case, cases, way):
    found = {name: cases.get(f"{case}/{name}") for name in NAMES}
    inputs = {name: t.requires_grad_() for name, t in found.items() if t is not None}
    y, last = selective_scan(
        **inputs, delta_softplus=bool(cases[f"{case}/delta_softplus"]), return_last_state=True
    )
    for ours, name in ((y, "out"), (last, "last_state")):
        published = cases[f"{case}/{name}"]
        # L401 reaches 48, and the published numbers are 1.4e-5 from the exact ones there.
        allowed = max(1e-5, 1e-6 * float(published.abs().max()))
        torch.testing.assert_close(ours, published, rtol=0, atol=allowed)
    gradients = torch.autograd.grad(y, list(inputs.values()), cases[f"{case}/grad_out"])
    for name, gradient in zip(inputs, gradients, strict=True):
        published = cases[f"{case}/grad_{name}"]
        error = (gradient - published).abs().max()
        assert error <= 1e-4 * published.abs().max(), (name, float(error))


@pytest.mark.parametrize("case", CASES)
def test_no_further_from_the_exact_output_than_the_published_numbers(case, cases, way):
    inputs = {name: cases.get(f"{case}/{name}") for name in NAMES}
    softplus = bool(cases[f"{case}/delta_softplus"])
    wide = {name: None if t is None else t.double() for name, t in inputs.items()}
    exact = selective_scan(**wide, delta_softplus=softplus)
    ours = (selective_scan(**inputs, delta_softplus=softplus) - exact).abs().max()
    assert ours < 1.5 * (cases[f"{case}/out"] - exact).abs().max() + 1e-6


def test_gradients_are_those_of_finite_differences():
    inputs = made_up(b=1, d=2, n=2, length=35, dtype=torch.float64)
    torch.autograd.gradcheck(
        lambda *values: selective_scan(
            **dict(zip(inputs, values, strict=True)), delta_softplus=True, return_last_state=True
        ),
        tuple(t.requires_grad_() for t in inputs.values()),
    )


def test_compiled_loops_equal_plain_torch_in_double_precision(monkeypatch):
    if not HAS_NUMBA:
        pytest.skip("NOT CHECKED: numba is not installed")
    inputs = made_up(b=2, d=130, n=19, length=70)  # more than one group, more than one register
    gradients = []
    for dtype in (torch.float32, torch.float64):
        wide = {name: t.to(dtype).requires_grad_() for name, t in inputs.items()}
        y, last = selective_scan(**wide, delta_softplus=True, return_last_state=True)
        gradients.append(
            torch.autograd.grad(y.square().sum() + last.sin().sum(), list(wide.values()))
        )
    for name, ours, exact in zip(inputs, *gradients, strict=True):
        error = (ours - exact).abs().max() / exact.abs().max()
        assert error < 1e-5, (name, float(error))


def test_compiled_a_sequence_depends_neither_on_its_batch_nor_on_threads():
    if not HAS_NUMBA:
        pytest.skip("NOT CHECKED: numba is not installed")
    inputs = made_up(b=5, d=70, n=16)
    # torch's own softplus and silu round by a tensor's length and strides: none of them here.
    inputs["delta"], inputs["z"] = inputs["delta"].exp(), None
    inputs["delta_bias"] = None
    inputs = {name: t for name, t in inputs.items() if t is not None}
    whole = selective_scan(**inputs)
    assert torch.equal(selective_scan(**inputs), whole)
    of_sequence = ("u", "delta", "B", "C")
    for i in range(5):
        one = {name: t[i : i + 1] if name in of_sequence else t for name, t in inputs.items()}
        assert torch.equal(selective_scan(**one)[0], whole[i])
    threads = torch.get_num_threads()
    gradients = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            needing = {name: t.clone().requires_grad_() for name, t in inputs.items()}
            y = selective_scan(**needing)
            assert torch.equal(y, whole)
            gradients.append(torch.autograd.grad(y.sum(), list(needing.values())))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_steps_after_a_time_have_no_effect_before_it(way):
    inputs = made_up(length=80)
    whole = selective_scan(**inputs, delta_softplus=True)
    start = {n: t[..., :33] if t.ndim == 3 else t for n, t in inputs.items()}
    assert torch.equal(selective_scan(**start, delta_softplus=True), whole[..., :33])


def test_a_state_that_does_not_forget_is_a_running_sum(way):
    u = torch.arange(1.0, 41).view(1, 1, 40)
    ones = torch.ones(1, 2, 40)
    y, last = selective_scan(
        u, torch.ones_like(u), torch.zeros(1, 2), ones, ones, return_last_state=True
    )
    torch.testing.assert_close(y, 2 * u.cumsum(dim=2))
    torch.testing.assert_close(last, torch.full((1, 1, 2), 820.0))


@pytest.mark.parametrize("exponent", [-1e4, -200.0, -88.0, -1e-8, 20.0])
def test_extreme_decays_neither_overflow_nor_turn_into_nan(exponent, way):
    u = torch.tensor([[[1.0, 1.0]]]).requires_grad_()
    rate = torch.tensor([[exponent]]).requires_grad_()
    ones = torch.ones(1, 1, 2)
    y = selective_scan(u, torch.ones(1, 1, 2), rate, ones, ones)
    expected = torch.tensor([1.0, 1 + torch.tensor(exponent).exp()])
    torch.testing.assert_close(y[0, 0], expected, rtol=2e-6, atol=0)
    y[0, 0, 1].backward()
    torch.testing.assert_close(u.grad[0, 0, 0], expected[1] - 1, rtol=2e-6, atol=2e-7)
    assert rate.grad.isfinite().all()


def test_nan_goes_through(way):
    inputs = made_up(b=1, length=40)
    inputs["delta"][0, 1, 20] = float("nan")
    y = selective_scan(**inputs, delta_softplus=True)
    assert y[0, 1, 20:].isnan().all()
    assert not y[0, 1, :20].isnan().any()
    assert not y[0, 0].isnan().any()


def test_bfloat16_inputs_are_computed_in_float32(way):
    inputs = {name: t.bfloat16() for name, t in made_up().items()}
    y, last = selective_scan(**inputs, delta_softplus=True, return_last_state=True)
    wide, _ = selective_scan(
        **{name: t.float() for name, t in inputs.items()},
        delta_softplus=True,
        return_last_state=True,
    )
    assert y.dtype == torch.bfloat16
    assert last.dtype == torch.float32
    assert torch.equal(y, wide.bfloat16())


def test_strides_of_the_inputs_do_not_matter(way):
    inputs = made_up()
    turned = {n: t.mT.contiguous().mT if t.ndim > 1 else t for n, t in inputs.items()}
    whole = selective_scan(**inputs, delta_softplus=True)
    torch.testing.assert_close(selective_scan(**turned, delta_softplus=True), whole)


def test_states_are_kept_between_chunks_only():
    inputs = {name: t.requires_grad_() for name, t in made_up(d=16, n=16, length=320).items()}
    sizes = []

    def pack(tensor):
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        selective_scan(**inputs, delta_softplus=True)
    assert max(sizes) == 2 * 16 * 320  # not times 16 states


@pytest.mark.parametrize("length", [1, 6, 75])
@pytest.mark.parametrize("stiffness", [1.0, 1e4])
def test_traced_it_gives_the_same_in_few_operations(length, stiffness):
    class Scan(torch.nn.Module):
        def forward(self, u, delta, rate, b, c):
            return selective_scan(u, delta, rate, b, c, delta_softplus=True, return_last_state=True)

    inputs = made_up(length=length)
    inputs["A"] = inputs["A"] * stiffness
    values = tuple(inputs[name] for name in NAMES[:5])
    program = torch.export.export(Scan(), values)
    assert len(program.graph.nodes) < 60 + 20 * length**0.5  # step by step 12 a step
    for traced, whole in zip(program.module()(*values), Scan()(*values), strict=True):
        torch.testing.assert_close(traced, whole, rtol=1e-5, atol=1e-5)


def test_shapes_that_do_not_fit_are_named():
    inputs = made_up()
    inputs["B"] = inputs["B"].mT
    with pytest.raises(ValueError, match=r"B and C \(b, n, l\); got .*\[2, 70, 3\]"):
        selective_scan(**inputs)
