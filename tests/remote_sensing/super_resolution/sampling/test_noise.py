# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldfare.remote_sensing.super_resolution.sampling.noise import BLOCK, noise_field

starts = st.integers(-3 * BLOCK, 3 * BLOCK)
lengths = st.integers(1, 2 * BLOCK)


@settings(max_examples=25, deadline=None)
@given(starts, lengths, starts, lengths, st.integers(0, 2**64 - 1), st.integers(0, 300))
def test_any_window_is_cut_from_the_same_endless_field(top, height, left, width, seed, stream):
    window = noise_field(seed, stream, 2, (top, top + height), (left, left + width))
    around = noise_field(
        seed, stream, 2, (top - 9, top + height + 70), (left - 70, left + width + 9)
    )
    assert window.dtype == np.float32
    np.testing.assert_array_equal(window, around[:, 9 : 9 + height, 70 : 70 + width])


def test_more_channels_leave_the_first_ones_alone():
    few, many = (noise_field(1, 2, c, (0, 70), (-5, 70)) for c in (1, 4))
    np.testing.assert_array_equal(few, many[:1])


def test_seeds_streams_blocks_and_channels_are_independent():
    base = noise_field(0, 0, 1, (0, 64), (0, 64)).ravel()
    others = [
        noise_field(1, 0, 1, (0, 64), (0, 64)),
        noise_field(0, 1, 1, (0, 64), (0, 64)),
        noise_field(0, 0, 1, (64, 128), (0, 64)),
        noise_field(0, 0, 1, (0, 64), (64, 128)),
        noise_field(0, 0, 1, (-64, 0), (0, 64)),
        noise_field(0, 0, 2, (0, 64), (0, 64))[1:],
    ]
    for other in others:
        assert abs(np.corrcoef(base, other.ravel())[0, 1]) < 0.07  # 4.5 standard errors


def test_a_large_sample_is_standard_normal_and_white():
    field = noise_field(3, 0, 1, (-300, 724), (-300, 724))[0].astype(np.float64)
    error = 1 / field.size**0.5
    assert abs(field.mean()) < 4 * error
    assert abs(field.std() - 1) < 4 * error
    assert abs((field**3).mean()) < 4 * 15**0.5 * error
    assert abs((field**4).mean() - 3) < 4 * 96**0.5 * error
    for step in ((0, 1), (1, 0), (1, 1), (0, BLOCK), (BLOCK, 0)):
        shifted = np.roll(field, step, axis=(0, 1))
        assert abs((field * shifted).mean()) < 4 * error
    power = np.abs(np.fft.fft2(field)) ** 2 / field.size
    quarters = power.reshape(4, 256, 4, 256).mean(axis=(1, 3))
    assert np.abs(quarters - 1).max() < 5 * 2**0.5 / 256


def test_the_field_never_changes():
    """Published results depend on these values; a change of them is a change of every result."""
    corner = noise_field(42, 7, 2, (62, 66), (-2, 2))
    np.testing.assert_allclose(
        corner[:, 1:3, 1:3].ravel(),
        [
            0.518460214,
            -0.987946808,
            1.01754189,
            -1.37314808,
            -0.357335836,
            0.672967017,
            -0.946572363,
            1.3587836,
        ],
        rtol=1e-6,
    )
    total = noise_field(0, 0, 3, (-32, 96), (-32, 96)).astype(np.float64)
    assert float(np.abs(total).sum()) == pytest.approx(38944.7502624, rel=1e-7)


@pytest.mark.parametrize(("seed", "stream"), [(-1, 0), (2**64, 0), (0, -1), (0, 2**64)])
def test_seed_and_stream_outside_64_bits_are_refused(seed, stream):
    with pytest.raises(ValueError, match=str(seed or stream)):
        noise_field(seed, stream, 1, (0, 2), (0, 2))
