"""Image against image: how far an accelerated cell's pictures are from its baseline's.

Everything is computed in float64 on [0, 1]: uint8 subtraction wraps around and would hide differences.
Knows nothing of features, gates or verdicts.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.results import stored_images
from sweep.results.files import Unfit

if TYPE_CHECKING:
    import numpy as np

FULL_SCALE = {"L": 255.0, "LA": 255.0, "RGB": 255.0, "RGBA": 255.0, "I;16": 65535.0}
"""Value of white, by Pillow mode; other modes are refused."""

SSIM_WINDOW = 7  # pixels; scikit-image's default (uniform window)


@dataclass(frozen=True)
class ImageDifference:
    """One image against another, or (`aggregate`) a cell's images against its baseline's."""

    mean_diff: float  # mean absolute difference over pixels and channels, in [0, 1]
    max_diff: float  # largest absolute difference, in [0, 1]
    psnr_db: float  # peak signal-to-noise ratio, dB; inf when identical
    ssim: float  # structural similarity, at most 1


@dataclass(frozen=True)
class Bitmap:
    """An image as it is stored."""

    name: str
    mode: str  # Pillow's
    values: "np.ndarray"  # integers, height × width (× channels)

    def __str__(self) -> str:
        height, width = self.values.shape[:2]
        return f"{self.name} ({width}×{height} {self.mode})"


def compare_images(a: Path, b: Path) -> ImageDifference:
    """Difference of two image files of the same size and mode; identical pixels give 0, 0, inf, 1.

    Raises ValueError when size or mode differ: such images have no pixel-wise difference.
    """
    return compare(read(a), read(b))


def read(path: Path, digest: str = "") -> Bitmap:
    """An image file, whose pixels must have this sha256 if one is given.

    Raises ValueError when it is not such an image or has a mode that is not compared, OSError when it cannot be read.
    """
    import numpy as np

    try:
        image = stored_images.opened(path)
    except Unfit as error:
        raise ValueError(f"{path.name} {error}") from error
    if stored_images.differs(image, digest):
        shape = f"{image.width}×{image.height} {image.mode}"
        raise ValueError(f"{path.name} ({shape}) is another picture than the one that was generated")
    if image.mode not in FULL_SCALE:
        raise ValueError(
            f"{path.name}: images of mode {image.mode} cannot be compared; use one of {', '.join(FULL_SCALE)}"
        )
    return Bitmap(path.name, image.mode, np.asarray(image))


def compare(first: Bitmap, second: Bitmap) -> ImageDifference:
    """`compare_images` for images that have been read."""
    import numpy as np
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    if first.values.shape != second.values.shape or first.mode != second.mode:
        raise ValueError(f"cannot compare {first} with {second}")
    if np.array_equal(first.values, second.values):
        return ImageDifference(0.0, 0.0, math.inf, 1.0)
    one, other = (image.values.astype(np.float64) / FULL_SCALE[image.mode] for image in (first, second))
    difference = np.abs(one - other)
    shortest = min(one.shape[:2])
    window = min(SSIM_WINDOW, shortest if shortest % 2 else shortest - 1)  # must be odd and fit
    ssim = structural_similarity(
        one,
        other,
        win_size=max(1, window),
        channel_axis=2 if one.ndim == 3 else None,
        data_range=1.0,
        use_sample_covariance=window > 1,  # a window of one pixel has no sample covariance
    )
    psnr_db = peak_signal_noise_ratio(one, other, data_range=1.0)
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
