# SPDX-License-Identifier: Apache-2.0
"""A small raster and a small model for every test."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fieldfare.common.weights import ModelCard, save_model_file
from fieldfare.remote_sensing.super_resolution.networks.ediffsr import EDiffSR, EDiffSRConfig
from fieldfare.remote_sensing.super_resolution.networks.model import ModelConfig

sys.path.insert(0, str(Path(__file__).parent))  # tests share sample_rasters.py

from sample_rasters import smooth, write_raster


@pytest.fixture
def rgb(tmp_path: Path) -> Path:
    """A georeferenced RGB raster of 40 x 52 bytes."""
    return write_raster(
        tmp_path / "rgb.tif", smooth(3, 40, 52, 20, 230).astype(np.uint8), photometric="RGB"
    )


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """A velocity model of 16 channels with random weights, as a model file."""
    config = ModelConfig(
        network=EDiffSRConfig(
            width=16, encoder_blocks=(1, 1), middle_blocks=1, decoder_blocks=(1, 1)
        ),
        prediction="velocity",
        max_sigma=16 / 255,
        default_steps=2,
    )
    torch.manual_seed(0)
    network = EDiffSR(config.network)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 4 and parameter.shape[0] == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    card = ModelCard("tiny", "super-resolution", "Random weights.", config.to_dict())
    save_model_file(path, network.state_dict(), card)
    return path
