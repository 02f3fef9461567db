# SPDX-License-Identifier: Apache-2.0
"""Quality of a restored image; images are (3, H, W) float32 in [0, 1]."""

import numpy as np

from ...rasters.quality import psnr as psnr
from ...rasters.quality import rounded as rounded
from ...rasters.quality import seam_score as seam_score
from ...rasters.quality import ssim as ssim
from ..data.reduction import reduce_bicubic

DEFINITIONS = {
    "psnr": "peak signal-to-noise ratio in dB, RGB, border of 4 pixels cut, rounded to uint8",
    "ssim": "structural similarity, Gaussian window 11 x 11 of sigma 1.5, mean over R, G and B, "
    "border of 4 pixels cut",
    "lite0": "squared distance of unit EfficientNet-Lite0 features, mean over five stages; smaller "
    "is closer (not LPIPS)",
    "lr_rmse": "root mean square error in grey levels between the low-resolution input and the "
    "result reduced again by Pillow's bicubic filter",
    "seam": "mean absolute step across tile borders over that of lines 1 to 3 input pixels away; "
    "1 is seamless, - where an image is one tile",
}


def low_resolution_rmse(image: np.ndarray, low: np.ndarray) -> float:
    """See `DEFINITIONS`; low is (3, h, w) in [0, 1]."""
    scale = image.shape[1] // low.shape[1]
    again = reduce_bicubic(np.rint(image * 255).astype(np.uint8).transpose(1, 2, 0), scale)
    error = again.transpose(2, 0, 1).astype(np.float64) - low.astype(np.float64) * 255
    return float(np.sqrt(np.mean(error**2)))
