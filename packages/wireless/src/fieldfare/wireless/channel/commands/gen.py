# SPDX-License-Identifier: Apache-2.0
"""wl-channel gen."""

import torch

from fieldfare.common import console, files

from ...channels.draw import draw_channels
from ...channels.drops import DropSettings, draw_networks
from ...channels.files import ChannelFile, check_name, write_channels, write_network
from ...signals.csi import imperfect_csi
from ..options import CELL_FREE, GenerateOptions


def generate(options: GenerateOptions) -> None:
    """Draw and write."""
    output, count, seed = options.output, options.count, options.seed
    check_name(output)
    files.check_output(output, overwrite=options.overwrite)
    if options.channel == CELL_FREE:
        network = draw_networks(
            count,
            options.users,
            options.aps,
            options.antennas,
            serving_aps=options.serving,
            clusters=options.clusters,
            settings=DropSettings(pilots=options.pilots),
            generator=torch.Generator().manual_seed(seed),
        )
        write_network(output, network)
    else:
        H = draw_channels(options.channel, count, options.users, options.antennas, seed=seed)
        truth = None
        if options.csi_error:
            generator = torch.Generator().manual_seed(seed + 1)
            H, truth = imperfect_csi(H, options.csi_error, generator), H
        power = torch.tensor(10 ** (options.power_db / 10), dtype=H.real.dtype)
        write_channels(output, ChannelFile(H, torch.ones_like(power), power, H_true=truth))
    result = {"output": output, "channel": options.channel, "count": count, "seed": seed}
    console.emit(result, as_json=options.as_json, text=str(output))
