# SPDX-License-Identifier: Apache-2.0
"""Training takes even haze off; its validation measures what it says."""

import numpy as np
import pytest
import torch

from fieldfare.common.training import TrainSettings
from fieldfare.remote_sensing.dehazing.data.haze import HazeRange
from fieldfare.remote_sensing.dehazing.data.pairs import BandOrder
from fieldfare.remote_sensing.dehazing.networks.deanet import DEANet, DEANetConfig
from fieldfare.remote_sensing.dehazing.training.run import DataSettings, HazeValidation, loss, train

TINY = DEANetConfig(width=8, blocks=(1, 1, 1, 1, 1), head="scattering", reduction=2)
ALWAYS = HazeRange(clear_share=0, cloud_share=0, thickness=(0.8, 1.0), light=(0.8, 0.9))


def tile(seed):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 200, (48, 48, 3)).astype(np.uint8)


def test_the_loss_is_the_mean_absolute_error():
    clear = torch.rand(2, 3, 32, 32)
    batch = {"hazy": clear - 0.25, "clear": clear}
    assert loss(torch.nn.Identity(), batch).item() == pytest.approx(0.25)


def test_a_network_that_changes_nothing_is_measured_so():
    network = DEANet(TINY)
    with torch.no_grad():
        network.end.weight.zero_()
        network.end.bias.fill_(-30)
    found = HazeValidation([tile(0), tile(1)], ALWAYS)(network)
    assert found["psnr"] == found["psnr_hazy"] < 20
    assert found["psnr_clear"] == pytest.approx(70)


def test_a_few_steps_take_haze_off(tmp_path):
    from sample_rasters import write_raster

    for number in range(3):
        write_raster(tmp_path / f"{number}.tif", tile(number).transpose(2, 0, 1))
    order = BandOrder(reversed_share=0, single_share=0)
    data = DataSettings(patch=32, holdout=3, haze=ALWAYS, order=order)
    settings = TrainSettings(steps=40, batch_size=2, learning_rate=3e-3, ema_decay=0.9)
    network, known = train(TINY, [tmp_path], settings, data, tmp_path / "run", quiet=True)
    assert known is None, "from three small tiles"
    found = HazeValidation([tile(0)], ALWAYS)(network)
    assert found["psnr"] > found["psnr_hazy"] + 0.5
