# SPDX-License-Identifier: Apache-2.0
"""Draw channels, precode them in three ways, compare the rates.

Usage: python examples/wireless.py FOLDER
"""

import sys
from pathlib import Path

import torch

from fieldfare.wireless.channels.draw import draw_channels
from fieldfare.wireless.channels.files import write_arrays
from fieldfare.wireless.precoding.learned import load_precoder
from fieldfare.wireless.precoding.methods import baseline
from fieldfare.wireless.signals.rates import rate

USERS, ANTENNAS, COUNT = 6, 8, 50


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    H = draw_channels("correlated", COUNT, USERS, ANTENNAS, seed=1)
    precoders = {
        "rzf": baseline("rzf"),
        "wmmse": baseline("wmmse"),
        "icgnn": load_precoder("icgnn_precoder"),
    }
    one = torch.ones(COUNT)
    for snr in (0, 10, 20):
        power = one * 10 ** (snr / 10)
        for name, precode in precoders.items():
            W = precode(H, power, one, None).W
            rates = rate(H, W, one)
            write_arrays(folder / f"{name}_{snr}dB.npz", {"W": W, "rate": rates})
            print(f"{snr} dB {name}: mean sum rate {rates.sum(-1).mean():.2f} bits/s/Hz")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
