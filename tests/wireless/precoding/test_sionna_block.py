# SPDX-License-Identifier: Apache-2.0
"""The precoder as a block of a Sionna chain, beside Sionna's own."""

from typing import Any

import numpy as np
import pytest
import torch

from fieldfare.wireless.channels.rayleigh import rayleigh
from fieldfare.wireless.precoding.learned import load_precoder
from fieldfare.wireless.precoding.methods import baseline
from fieldfare.wireless.signals.rates import sum_rate

NOISE = 0.1


@pytest.fixture(scope="module")
def chain() -> Any:
    """Grid, streams and Sionna's precoder: two transmitters of 4 antennas, two receivers each."""
    pytest.importorskip("sionna.phy")
    from sionna.phy.mimo import StreamManagement
    from sionna.phy.ofdm import ResourceGrid, RZFPrecoder

    belongs = np.array([[1, 0], [1, 0], [0, 1], [0, 1]])
    streams = StreamManagement(belongs, 2)
    grid = ResourceGrid(
        num_ofdm_symbols=2,
        fft_size=8,
        subcarrier_spacing=15e3,
        num_tx=2,
        num_streams_per_tx=2,
        num_guard_carriers=(1, 1),
        dc_null=True,
    )
    generator = torch.Generator().manual_seed(0)
    x = rayleigh((3, 2, 2, 2, 8), generator)
    h = rayleigh((3, 4, 1, 2, 4, 2, 8), generator)
    return grid, streams, RZFPrecoder(grid, streams, True, device="cpu"), x, h


def test_with_rzf_it_is_sionnas_own_block(chain: Any) -> None:
    from fieldfare.wireless.precoding.sionna_block import PrecoderBlock

    grid, streams, theirs, x, h = chain
    ours = PrecoderBlock(grid, streams, baseline("rzf"), True, device="cpu")
    for found, expected in zip(ours(x, h, NOISE), theirs(x, h, NOISE), strict=True):
        assert found.shape == expected.shape
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_the_network_gives_every_transmitter_more_rate(chain: Any) -> None:
    from fieldfare.wireless.precoding.sionna_block import PrecoderBlock

    grid, streams, theirs, x, h = chain
    ours = PrecoderBlock(grid, streams, load_precoder("icgnn_precoder"), True, device="cpu")
    rates = []
    for block in (ours, theirs):
        _, seen = block(x, h, NOISE)
        own = seen[:, :2, 0, 0].permute(0, 3, 4, 1, 2)  # the first transmitter's receivers
        rates.append(sum_rate(own, torch.eye(2, dtype=own.dtype), NOISE))
    assert (rates[0] >= rates[1] * (1 - 1e-4)).all()
    assert rates[0].mean() > rates[1].mean()
    with pytest.raises(ValueError, match="positive"):
        ours(x, h, 0.0)
