# SPDX-License-Identifier: Apache-2.0
"""Quality of an image against the truth; images are (bands, H, W) float32 in [0, 1]."""

import numpy as np
from skimage.metrics import structural_similarity


def rounded(image: np.ndarray) -> np.ndarray:
    """Clip to [0, 1] and round to 256 levels, as a uint8 file would."""
    levels: np.ndarray = np.rint(np.clip(image, 0, 1) * 255)
    return (levels / 255).astype(np.float32)


def psnr(image: np.ndarray, truth: np.ndarray, border: int = 4) -> float:
    """Peak signal-to-noise ratio in dB without a border of so many pixels; infinite if equal."""
    inside = slice(border, -border or None)
    error = float(np.mean((image - truth)[:, inside, inside].astype(np.float64) ** 2))
    return float("inf") if error == 0 else -10 * float(np.log10(error))


def ssim(image: np.ndarray, truth: np.ndarray, border: int = 4) -> float:
    """Structural similarity, Gaussian window 11 x 11 of sigma 1.5, mean over bands, border cut.

    Source: Wang et al. 2004 (doi 10.1109/TIP.2003.819861).
    """
    inside = slice(border, -border or None)
    return float(
        structural_similarity(
            image[:, inside, inside],
            truth[:, inside, inside],
            channel_axis=0,
            data_range=1.0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )


def seam_score(
    image: np.ndarray, rows: list[int], columns: list[int], scale: int = 4
) -> float | None:
    """Step across tile borders over the mean step of nearby lines, averaged over the borders.

    The lines 1 to 3 input pixels away are taken, which lie alike within an input pixel.

    Args:
        rows, columns: output pixels at which a tile begins or ends, inside the image.

    Returns:
        1 where there is no seam; None where there is no border.
    """
    ratios = []
    for axis, lines in ((1, rows), (2, columns)):
        steps = np.abs(np.diff(image, axis=axis)).mean(axis=(0, 3 - axis))
        for line in lines:
            nearby = [line - 1 + away * scale for away in (-3, -2, -1, 1, 2, 3)]
            nearby = [i for i in nearby if 0 <= i < len(steps)]
            if 0 < line <= len(steps) and nearby:
                ratios.append(steps[line - 1] / max(float(steps[nearby].mean()), 1e-6))
    return float(np.mean(ratios)) if ratios else None
