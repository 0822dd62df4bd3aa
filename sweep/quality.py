"""Image against image: how far an accelerated cell's pictures are from its baseline's.

Everything is computed in float64 on [0, 1]: uint8 subtraction wraps around and would hide differences.
Knows nothing of features, gates or verdicts.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

FULL_SCALE = {"L": 255.0, "LA": 255.0, "RGB": 255.0, "RGBA": 255.0, "I;16": 65535.0}
"""Value of white, by Pillow mode; modes that are not here are refused."""

SSIM_WINDOW = 7  # pixels; scikit-image's default (uniform window)


@dataclass(frozen=True)
class ImageDifference:
    """One image against another, or (`aggregate`) a cell's images against its baseline's."""

    mean_diff: float  # mean absolute difference over pixels and channels, in [0, 1]
    max_diff: float  # largest absolute difference, in [0, 1]
    psnr_db: float  # peak signal-to-noise ratio, dB; inf when identical
    ssim: float  # structural similarity, at most 1


def compare_images(a: Path, b: Path) -> ImageDifference:
    """Difference of two image files of the same size and mode; identical pixels give 0, 0, inf, 1.

    Raises ValueError when size or mode differ: such images have no pixel-wise difference.
    """
    import numpy as np
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    (first, first_mode), (second, second_mode) = _read(a), _read(b)
    if first.shape != second.shape or first_mode != second_mode:
        raise ValueError(
            f"cannot compare {a.name} ({_describe(first, first_mode)}) with {b.name} ({_describe(second, second_mode)})"
        )
    if np.array_equal(first, second):
        return ImageDifference(0.0, 0.0, math.inf, 1.0)
    difference = np.abs(first - second)
    shortest = min(first.shape[:2])
    window = min(SSIM_WINDOW, shortest if shortest % 2 else shortest - 1)  # must be odd and fit
    ssim = structural_similarity(
        first,
        second,
        win_size=max(1, window),
        channel_axis=2 if first.ndim == 3 else None,
        data_range=1.0,
        use_sample_covariance=window > 1,  # a window of one pixel has no sample covariance
    )
    psnr_db = peak_signal_noise_ratio(first, second, data_range=1.0)
    return ImageDifference(float(difference.mean()), float(difference.max()), float(psnr_db), float(ssim))


def aggregate(differences: Sequence[ImageDifference]) -> ImageDifference | None:
    """A cell's images as one: mean of means, max of maxima, mean SSIM; None when there are none.

    PSNR is that of the mean squared error over all images: the mean of decibels would be inf as soon as
    one image is identical, and hide the others. So it is inf only when every image is identical.
    """
    if not differences:
        return None
    count = len(differences)
    squared_error = sum(10 ** (-d.psnr_db / 10) for d in differences) / count  # inf dB is an error of 0
    return ImageDifference(
        mean_diff=sum(d.mean_diff for d in differences) / count,
        max_diff=max(d.max_diff for d in differences),
        psnr_db=-10 * math.log10(squared_error) if squared_error > 0 else math.inf,
        ssim=sum(d.ssim for d in differences) / count,
    )


def _read(path: Path) -> "tuple[np.ndarray, str]":
    """Pixels as float64 in [0, 1], height × width (× channels), and the Pillow mode they were stored in."""
    import numpy as np
    from PIL import Image

    with Image.open(path) as image:
        mode = image.mode
        if mode not in FULL_SCALE:
            raise ValueError(f"{path.name}: images of mode {mode} are not compared; choose {', '.join(FULL_SCALE)}")
        return np.asarray(image).astype(np.float64) / FULL_SCALE[mode], mode


def _describe(pixels: "np.ndarray", mode: str) -> str:
    height, width = pixels.shape[:2]
    return f"{width}×{height} {mode}"
