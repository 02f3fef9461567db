# SPDX-License-Identifier: Apache-2.0
"""Fixed point: worked examples, gradients, and numbers of bits that are learnt."""

import pytest
import torch

from fieldfare.common.slim.fixed_point import Format, LearntBits, fixed_point, format_for

VALUES = torch.tensor([-2.3, -0.61, -0.06, 0.0, 0.13, 0.49, 1.26, 3.7])
EXPECTED = {
    Format(1, 2): [-2.0, -0.5, -0.0, 0.0, 0.25, 0.5, 1.25, 1.75],
    Format(3, 4): [-2.3125, -0.625, -0.0625, 0.0, 0.125, 0.5, 1.25, 3.6875],
}


@pytest.mark.parametrize("form", EXPECTED)
def test_worked_examples_and_gradients(form):
    x = VALUES.clone().requires_grad_()
    y = fixed_point(x, form)
    assert y.tolist() == EXPECTED[form]
    y.sum().backward()
    inside = (-(2**form.integer) <= VALUES) & (2**form.integer - 2**-form.fraction >= VALUES)
    assert torch.equal(x.grad, inside.float())
    assert form.bits == (4 if form.integer == 1 else 8)


@pytest.mark.parametrize("bits", [2, 4, 8, 16])
def test_a_format_holds_the_largest_value_if_it_can(bits):
    form = format_for(VALUES, bits)
    assert form.bits == bits
    error = (fixed_point(VALUES, form) - VALUES).abs().max()
    if bits >= 4:
        assert error <= 2.0**-form.fraction
    assert format_for(VALUES / 100, bits).integer == 0


@pytest.mark.parametrize(("price", "bits"), [(0.0, 8), (1.0, 2)])
def test_bits_are_learnt_by_what_they_cost(price, bits):
    forms = [format_for(VALUES, bits) for bits in (2, 4, 8)]
    layer = LearntBits(forms, temperature=0.5).train()
    optimizer = torch.optim.Adam([layer.alpha], 0.1)
    for _ in range(60):
        optimizer.zero_grad()
        ((layer(VALUES) - VALUES).square().mean() + price * layer.bits()).backward()
        optimizer.step()
    assert forms[int(layer.alpha.argmax())].bits == bits
    assert torch.equal(layer.eval()(VALUES), fixed_point(VALUES, format_for(VALUES, bits)))
    with pytest.raises(ValueError, match="at least one format"):
        LearntBits([])
