# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldfare.remote_sensing.super_resolution.networks import fast
from fieldfare.remote_sensing.super_resolution.networks.ediffsr import EDiffSR, EDiffSRConfig
from fieldfare.remote_sensing.super_resolution.networks.fast import FastEDiffSR

TOLERANCE = 2e-6
"""Of the output's largest value."""


def assert_equal(found, expected):
    assert found.shape == expected.shape
    difference = float((found - expected).abs().max() / expected.abs().max())
    assert difference <= TOLERANCE, f"{difference:.2e} of the largest value"


def images(batch, height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x, mu = torch.rand(2, batch, 3, height, width, generator=generator)
    return x, mu


@settings(max_examples=12, deadline=None)
@given(
    name=st.sampled_from(["tiny2", "tiny4"]),
    batch=st.integers(1, 3),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    t=st.one_of(st.integers(1, 100), st.floats(0.5, 100)),
    rows_a_strip=st.sampled_from([1, 2, 5, 1000]),
)
def test_equals_the_network(random_tiny, name, batch, height, width, t, rows_a_strip):
    network = random_tiny(name)
    x, mu = images(batch, height, width)
    with pytest.MonkeyPatch.context() as patch:
        row_bytes = 8 * network.config.width * (width + -width % network.multiple)
        patch.setattr(fast, "STRIP_BYTES", row_bytes * rows_a_strip)
        assert_equal(FastEDiffSR(network)(x, mu, t), network(x, mu, torch.tensor([t])))


@pytest.mark.parametrize("name", ["tiny2", "tiny4"])
@pytest.mark.parametrize("case", ["a", "b"])
def test_equals_the_published_output(name, case, reference, tiny, assert_close):
    expected, quick = reference(f"{name}_forward"), FastEDiffSR(tiny(name))
    times = expected[f"{case}.t"].expand(len(expected[f"{case}.x"]))
    outputs = [
        quick(expected[f"{case}.x"][[i]], expected[f"{case}.cond"][[i]], t)
        for i, t in enumerate(times.tolist())
    ]
    assert_close(torch.cat(outputs), expected[f"{case}.out"])


def test_changing_times_and_repeated_calls_give_the_same(random_tiny):
    network = random_tiny("tiny2")
    quick, (x, mu) = FastEDiffSR(network), images(2, 12, 20)
    kept = x.clone(), mu.clone()
    first = {t: quick(x, mu, t) for t in (100, 3.5, 50)}
    for t in (50, 100, 3.5):
        assert torch.equal(quick(x, mu, t), first[t])
        assert_equal(first[t], network(x, mu, torch.tensor([t])))
    assert torch.equal(x, kept[0])
    assert torch.equal(mu, kept[1])


def test_threads_do_not_matter(random_tiny):
    quick, (x, mu) = FastEDiffSR(random_tiny("tiny2")), images(1, 36, 28)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = quick(x, mu, 9)
        torch.set_num_threads(2)
        two = quick(x, mu, 9)
    finally:
        torch.set_num_threads(threads)
    assert_equal(two, one)


def test_a_network_in_channels_last_is_taken_as_well(random_tiny):
    network, (x, mu) = random_tiny("tiny4"), images(1, 20, 20)
    expected = network(x, mu, torch.tensor([70]))
    network.to(memory_format=torch.channels_last)
    assert_equal(FastEDiffSR(network)(x, mu, 70), expected)


def test_published_size_equals_the_network():
    torch.manual_seed(0)
    network = EDiffSR().eval().requires_grad_(False)
    for name, parameter in network.named_parameters():
        if name.endswith((".beta", ".gamma")):
            torch.nn.init.normal_(parameter, 0, 0.1)
    x, mu = images(1, 64, 48)
    assert_equal(FastEDiffSR(network)(x, mu, 42), network(x, mu, torch.tensor([42])))


def test_weights_that_want_gradients_are_taken_as_well():
    network = EDiffSR(EDiffSRConfig(width=16, encoder_blocks=(1,), decoder_blocks=(1,)))
    x, mu = images(1, 8, 8)
    assert not FastEDiffSR(network)(x, mu, 5).requires_grad


def test_the_folded_prior_is_refused():
    config = EDiffSRConfig(width=16, encoder_blocks=(1,), decoder_blocks=(1,), cpem="folded")
    with pytest.raises(ValueError, match="got 'folded'"):
        FastEDiffSR(EDiffSR(config))
