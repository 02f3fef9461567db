# SPDX-License-Identifier: Apache-2.0
import pytest
import torch

from fieldfare.common.trust.features import pooled

SHAPES = ((2, 5, 33, 20), (1, 7, 12, 10, 9), (2, 3, 40))


def expected(output: torch.Tensor) -> torch.Tensor:
    flat = output.double().flatten(2)
    spread = flat.std(dim=2, correction=0).clamp(min=1e-6).log()
    return torch.cat((flat.mean(dim=2), spread), dim=1)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("offset", [0.0, 0.7, 30.0, -1000.0])
@pytest.mark.parametrize("layout", ["plain", "channels last", "every second"])
def test_is_the_mean_and_the_deviation_of_each_channel(shape, offset, layout) -> None:
    generator = torch.Generator().manual_seed(0)
    output = torch.randn(shape, generator=generator) + offset
    if layout == "channels last":
        output = output.movedim(1, -1).contiguous().movedim(-1, 1)
    elif layout == "every second":
        output = output.repeat_interleave(2, dim=-1)[..., ::2]
    found = torch.from_numpy(pooled(output))
    torch.testing.assert_close(found, expected(output), rtol=1e-4, atol=1e-4)


def test_a_channel_without_variation_has_the_least_deviation() -> None:
    output = torch.full((1, 2, 8, 8), 3.1)
    output[0, 1] = 0
    found = pooled(output)[0]
    assert found[:2] == pytest.approx([3.1, 0])
    assert found[2:] == pytest.approx([-13.8155, -13.8155], abs=1e-3)


def test_has_no_deviation_without_space() -> None:
    output = torch.arange(6.0).reshape(2, 3)
    assert pooled(output).tolist() == output.tolist()
