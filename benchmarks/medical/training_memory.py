# SPDX-License-Identifier: Apache-2.0
"""Peak memory of a training step: the reversible network against others of equal parameters.

    python benchmarks/medical/training_memory.py [--side 64] [--batch 1] [--csv training_memory.csv]

Beside the preset in its three memory modes: a plain 3D U-Net, and MONAI's SegResNet and DynUNet
(`pip install monai` for these two; without it they are left out). Their widths are such that they
have about as many parameters; `same widths` is the plain U-Net with the preset's channels. One step
of Adam on Dice and cross-entropy, each in a process of its own, on one thread: resident memory
above Python and torch, bytes kept for the backward pass, CPU seconds.
"""

import argparse
import importlib.util
import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from step_memory import in_a_process, training_step, write_csv
from torch import Tensor, nn

from fieldfare.common.blocks import MEMORY_MODES
from fieldfare.medical.networks.config import PRESETS
from fieldfare.medical.networks.create import create_network

FACTORS = (1, 2, 4, 8)
"""Channels of the levels, in multiples of the first's."""

Build = Callable[[], nn.Module]


class PlainUNet(nn.Module):
    """Çiçek et al. 2016, 3D U-Net (arXiv 1606.06650), with instance norm and padded convolutions.

    Two convolutions 3x3x3 a level, max pooling down, transposed convolutions up, skips joined.

    Args:
        width: channels of the first level; they double with each.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        widths = [width * factor for factor in FACTORS]
        pairs = list(pairwise(widths))
        self.down = nn.ModuleList(_double(a, b) for a, b in [(4, width), *pairs])
        self.up = nn.ModuleList(nn.ConvTranspose3d(b, a, 2, stride=2) for a, b in pairs)
        self.merge = nn.ModuleList(_double(2 * a, a) for a, _ in pairs)
        self.head = nn.Conv3d(width, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 4, *size) -> (B, 3, *size), sides multiples of 8."""
        skips: list[Tensor] = []
        for level, layers in enumerate(self.down):
            x = layers(nn.functional.max_pool3d(x, 2) if level else x)
            skips.append(x)
        skips.pop()
        for up, merge in zip(reversed(self.up), reversed(self.merge), strict=True):
            x = merge(torch.cat([up(x), skips.pop()], dim=1))
        return self.head(x)


def _double(channels: int, out: int) -> nn.Sequential:
    def layer(width: int) -> list[nn.Module]:
        return [
            nn.Conv3d(width, out, 3, padding=1, bias=False),
            nn.InstanceNorm3d(out, affine=True),
            nn.LeakyReLU(0.01, inplace=True),
        ]

    return nn.Sequential(*layer(channels), *layer(out))


def segresnet(width: int) -> nn.Module:
    """MONAI's, with its own numbers of blocks."""
    from monai.networks.nets import SegResNet

    groups = {"num_groups": math.gcd(width, 8)}
    return SegResNet(init_filters=width, in_channels=4, out_channels=3, norm=("GROUP", groups))


def dynunet(width: int) -> nn.Module:
    """MONAI's, four levels, without deep supervision."""
    from monai.networks.nets import DynUNet

    return DynUNet(
        spatial_dims=3,
        in_channels=4,
        out_channels=3,
        kernel_size=[3] * 4,
        strides=[1, 2, 2, 2],
        upsample_kernel_size=[2] * 3,
        filters=[width * factor for factor in FACTORS],
    )


def parameters(network: nn.Module) -> int:
    """How many numbers are learnt."""
    return sum(parameter.numel() for parameter in network.parameters())


def of_parameters(build: Callable[[int], nn.Module], wanted: int) -> int:
    """The width whose network has the number of parameters nearest to the wanted one."""
    with torch.device("meta"):
        return min(range(4, 65), key=lambda width: abs(parameters(build(width)) - wanted))


def networks(preset: str) -> dict[str, Build]:
    """What is compared, by name."""
    config = PRESETS[preset]
    found: dict[str, Build] = {
        f"{preset}, {mode}": partial(create_network, config, mode) for mode in MEMORY_MODES
    }
    wanted = parameters(create_network(config))
    others: dict[str, Callable[[int], nn.Module]] = {"plain U-Net": PlainUNet}
    if importlib.util.find_spec("monai"):
        others |= {"SegResNet": segresnet, "DynUNet": dynunet}
    else:
        print("MONAI is not installed: SegResNet and DynUNet are left out (pip install monai)")
    for name, build in others.items():
        width = of_parameters(build, wanted)
        found[f"{name}, {width} wide"] = partial(build, width)
    width = config.channels[0]
    found[f"plain U-Net, same widths ({width})"] = partial(PlainUNet, width)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="reversible")
    parser.add_argument("--side", type=int, default=64, help="Of the patch, voxels.")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--default-allocator", action="store_true", help="See step_memory.py.")
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args()
    if options.side % 8:
        parser.error(f"--side {options.side}: must be a multiple of 8")
    size = (options.side,) * PRESETS[options.preset].ndim
    rows: list[dict[str, Any]] = []
    print(f"{options.batch} x {' x '.join(map(str, size))}")
    print(f"{'network':36s} parameters  kept MiB  peak MiB  CPU s  to reversible")
    for name, build in networks(options.preset).items():
        row = in_a_process(
            partial(
                training_step,
                build,
                size,
                batch=options.batch,
                default_allocator=options.default_allocator,
            )
        )
        if row is None:
            print(f"{name:36s} did not fit into this machine's memory")
            continue
        rows.append({"network": name, **row})
    ours = next((row for row in rows if row["network"].endswith("reversible")), None)
    for row in rows:
        row["to_reversible"] = round(row["peak_mib"] / ours["peak_mib"], 2) if ours else ""
        print(
            f"{row['network']:36s} {row['parameters']:10,d} {row['kept_mib']:9.1f} "
            f"{row['peak_mib']:9.1f} {row['cpu_s']:6.1f}  {row['to_reversible']}x"
        )
    write_csv(options.csv, rows)


if __name__ == "__main__":
    main()
