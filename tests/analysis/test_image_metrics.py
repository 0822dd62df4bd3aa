"""Image differences on real files, with values worked out by hand."""

import math
from pathlib import Path

import numpy as np
import pytest
import skimage.metrics
from PIL import Image

from sweep.analysis.image_metrics import ImageDifference, aggregate, compare_images
from tests.conftest import ROOT


def save(path, pixels, mode=None):
    image = Image.fromarray(np.asarray(pixels, dtype=np.uint16 if mode == "I;16" else np.uint8))
    assert mode is None or image.mode == mode
    image.save(path)
    return path


@pytest.fixture
def noise():
    return np.random.default_rng(0).integers(0, 256, size=(32, 48, 3), dtype=np.uint8)


def test_identical_images(tmp_path, noise):
    a, b = save(tmp_path / "a.png", noise), save(tmp_path / "b.png", noise)
    assert compare_images(a, b) == ImageDifference(0.0, 0.0, math.inf, 1.0)


def test_a_decrease_does_not_wrap_around(tmp_path):
    """In uint8, 1 − 2 is 255; the difference is one grey level whichever image is brighter."""
    one, two = save(tmp_path / "one.png", np.full((8, 8, 3), 1)), save(tmp_path / "two.png", np.full((8, 8, 3), 2))
    for difference in (compare_images(one, two), compare_images(two, one)):
        assert difference.mean_diff == pytest.approx(1 / 255)
        assert difference.max_diff == pytest.approx(1 / 255)
        assert difference.psnr_db == pytest.approx(20 * math.log10(255))


def test_one_changed_channel_of_one_pixel(tmp_path, noise):
    changed = noise.copy()
    changed[3, 5, 1] = noise[3, 5, 1] ^ 128
    difference = compare_images(save(tmp_path / "a.png", noise), save(tmp_path / "b.png", changed))
    assert difference.max_diff == pytest.approx(128 / 255)
    assert difference.mean_diff == pytest.approx(128 / 255 / noise.size)
    assert 0.9 < difference.ssim < 1.0
    assert math.isfinite(difference.psnr_db)


def test_black_against_white_is_the_largest_difference(tmp_path):
    a, b = save(tmp_path / "a.png", np.zeros((16, 16, 3))), save(tmp_path / "b.png", np.full((16, 16, 3), 255))
    difference = compare_images(a, b)
    assert (difference.mean_diff, difference.max_diff, difference.psnr_db) == (1.0, 1.0, 0.0)
    assert difference.ssim < 0.01


@pytest.mark.parametrize("side", [1, 2, 3, 5, 6, 7])
def test_images_smaller_than_the_ssim_window(tmp_path, side):
    a = save(tmp_path / "a.png", np.full((side, side, 3), 10))
    difference = compare_images(a, save(tmp_path / "b.png", np.full((side, side, 3), 200)))
    assert difference.mean_diff == pytest.approx(190 / 255)
    assert 0 <= difference.ssim < 0.5


@pytest.mark.parametrize("mode", ["L", "RGBA", "I;16"])
def test_other_modes_are_on_the_same_scale(tmp_path, mode):
    shape = {"L": (8, 8), "RGBA": (8, 8, 4), "I;16": (8, 8)}[mode]
    white = 65535 if mode == "I;16" else 255
    a, b = save(tmp_path / "a.png", np.zeros(shape), mode), save(tmp_path / "b.png", np.full(shape, white), mode)
    assert compare_images(a, b).mean_diff == 1.0


def test_a_different_size_is_an_error_that_names_both(tmp_path, noise):
    a, b = save(tmp_path / "a.png", noise), save(tmp_path / "b.png", noise[:16])
    with pytest.raises(ValueError, match=r"a\.png \(48×32 RGB\).*b\.png \(48×16 RGB\)"):
        compare_images(a, b)


def test_a_different_mode_is_an_error_that_names_both(tmp_path, noise):
    a, b = save(tmp_path / "a.png", noise), save(tmp_path / "b.png", noise[..., 0])
    with pytest.raises(ValueError, match=r"48×32 RGB.*48×32 L"):
        compare_images(a, b)


def test_a_palette_image_is_refused_rather_than_compared_by_index(tmp_path, noise):
    Image.fromarray(noise).quantize(4).save(tmp_path / "p.png")
    with pytest.raises(ValueError, match=r"p\.png: .*\bmode P\b"):
        compare_images(tmp_path / "p.png", tmp_path / "p.png")


def test_one_identical_image_does_not_hide_the_others():
    identical, wrong = ImageDifference(0.0, 0.0, math.inf, 1.0), ImageDifference(0.2, 0.9, 20.0, 0.5)
    both = aggregate([identical, wrong])
    assert (both.mean_diff, both.max_diff, both.ssim) == (0.1, 0.9, 0.75)
    assert both.psnr_db == pytest.approx(20.0 + 10 * math.log10(2))  # half the mean squared error
    assert aggregate([identical, identical]) == identical
    assert aggregate([wrong]).psnr_db == pytest.approx(20.0)
    assert aggregate([]) is None


def test_the_aggregate_equals_the_psnr_of_all_pixels_at_once(tmp_path, noise):
    softer, darker = (noise * 0.9).astype(np.uint8), (noise * 0.5).astype(np.uint8)
    base = save(tmp_path / "a.png", noise)
    parts = [compare_images(base, save(tmp_path / f"{i}.png", other)) for i, other in enumerate((softer, darker))]
    joined = compare_images(
        save(tmp_path / "aa.png", np.vstack([noise, noise])), save(tmp_path / "bb.png", np.vstack([softer, darker]))
    )
    assert aggregate(parts).psnr_db == pytest.approx(joined.psnr_db)
    assert aggregate(parts).mean_diff == pytest.approx(joined.mean_diff)


RECORDED = ROOT / "tests" / "data" / "images"
"""Real pairs: three images of tiny GLM-Image and the same three with TeaCache, as a sweep stored them."""


def equals_scikit_image(first: Path, second: Path) -> None:
    """Our figures against scikit-image's own on the stored bytes, with its own conversion and data range."""
    a, b = (np.asarray(Image.open(path)) for path in (first, second))
    ours = compare_images(first, second)
    difference = np.abs(a.astype(int) - b.astype(int))
    assert ours.mean_diff == pytest.approx(difference.mean() / 255, abs=1e-9)
    assert ours.max_diff == pytest.approx(difference.max() / 255, abs=1e-9)
    assert ours.psnr_db == pytest.approx(skimage.metrics.peak_signal_noise_ratio(a, b, data_range=255), abs=1e-9)
    ssim = skimage.metrics.structural_similarity(a, b, channel_axis=2 if a.ndim == 3 else None, data_range=255)
    assert ours.ssim == pytest.approx(ssim, abs=1e-9)


@pytest.mark.parametrize("number", range(3))
def test_figures_are_scikit_images_on_real_pairs(number):
    first, second = (RECORDED / f"{name}_{number:02d}.png" for name in ("baseline", "teacache"))
    assert not np.array_equal(Image.open(first), Image.open(second))
    equals_scikit_image(first, second)


@pytest.mark.parametrize("seed", range(20))
def test_figures_are_scikit_images_on_random_pairs(tmp_path, seed):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(7, 90, size=2)
    shape = (height, width, 3) if seed % 4 else (height, width)
    first = rng.integers(0, 256, size=shape, dtype=np.uint8)
    second = np.clip(first + rng.normal(0, rng.uniform(0.5, 60), size=shape), 0, 255).round().astype(np.uint8)
    equals_scikit_image(save(tmp_path / "a.png", first), save(tmp_path / "b.png", second))
