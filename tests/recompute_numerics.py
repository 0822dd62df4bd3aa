"""Student's t, bootstrap, PNG and SSIM for `recompute`, written anew with numpy and the standard library."""

import functools
import math
import statistics
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

RESAMPLES, SEED, TAILS = 2000, 20240901, 1.25


def interval(differences: "np.ndarray", spread: float | None, df: float, by_chance: float) -> dict[str, Any]:
    """`spread`: variance of the mean over starts; `by_chance`: of one prompt's difference, by the same noise."""
    n, centre = len(differences), float(differences.mean())
    low = high = p = None
    if spread is not None:
        uneven = max(0.0, float(np.var(differences, ddof=1)) - (by_chance if n > 2 else 0)) if n > 1 else 0.0
        errors = [(TAILS * math.sqrt(spread), df), (math.sqrt(uneven / n), n - 1)]
        half = half_width(0.05, errors)
        low, high = math.exp(centre - half), math.exp(centre + half)
        p = two_sided(abs(centre), errors) if n > 1 else None
    elif n > 1:
        low, high = (math.exp(end) for end in bootstrap(differences))
    called = ""
    if p is not None and low is not None and high is not None:
        called = "faster" if low > 1 else "slower" if high < 1 else "no difference"
    return {"speedup": math.exp(centre), "speedup_low": low, "speedup_high": high, "p_value": p, "called": called}


def half_width(alpha: float, errors: Sequence[tuple[float, float]]) -> float:
    """Root of the sum of the squared half-widths of Student intervals."""
    return math.hypot(*(error * student_quantile(1 - alpha / 2, df) for error, df in errors if error))


def two_sided(distance: float, errors: Sequence[tuple[float, float]]) -> float:
    """The alpha at which the half-width is `distance`, by bisection on t of the first part."""
    real = [(error, df) for error, df in errors if error]
    if not real:
        return float(distance == 0)
    error, df = real[0]
    low, high = 0.0, distance / error
    for _ in range(200):
        middle = (low + high) / 2
        tail = student_tail(middle, df)
        others = (other * student_quantile(1 - tail, other_df) for other, other_df in real[1:])
        low, high = (middle, high) if math.hypot(error * middle, *others) < distance else (low, middle)
    return 2 * student_tail((low + high) / 2, df)


def bootstrap(differences: "np.ndarray") -> tuple[float, float]:
    """Expanded percentile interval of the mean (Hesterberg 2015)."""
    n = len(differences)
    picks = np.random.default_rng(SEED).integers(0, n, size=(RESAMPLES, n))
    means = np.sort(differences[picks].mean(axis=1))
    outer = statistics.NormalDist().cdf(student_quantile(0.025, n - 1) * math.sqrt(n / (n - 1)))
    return float(np.quantile(means, outer)), float(np.quantile(means, 1 - outer))


def student_tail(t: float, df: float) -> float:
    """P(T > t) for t ≥ 0."""
    return 0.5 * incomplete_beta(df / 2, 0.5, df / (df + t * t))


@functools.cache
def student_quantile(p: float, df: float) -> float:
    """By bisection."""
    if p < 0.5:
        return -student_quantile(1 - p, df)
    low, high = 0.0, 1e6
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if student_tail(middle, df) > 1 - p else (low, middle)
    return (low + high) / 2


def incomplete_beta(a: float, b: float, x: float) -> float:
    """Regularised, by Lentz's continued fraction (Numerical Recipes, 6.4)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - incomplete_beta(b, a, 1 - x)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)) / a
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1))
    fraction = d
    for m in range(1, 500):
        for step in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / (1 + step * d)
            c = 1 + step / c
            fraction *= c * d
        if abs(c * d - 1) < 1e-16:
            break
    return front * fraction


def read_png(path: Path) -> "np.ndarray":
    """Height × width × 3 of an 8-bit RGB file without interlacing."""
    data = path.read_bytes()
    place, packed, width, height = 8, b"", 0, 0
    while place < len(data):
        length, kind = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
        body = data[place + 8 : place + 8 + length]
        if kind == b"IHDR":
            width, height = int.from_bytes(body[:4], "big"), int.from_bytes(body[4:8], "big")
            assert tuple(body[8:]) == (8, 2, 0, 0, 0), "8-bit RGB, not interlaced"
        packed += body if kind == b"IDAT" else b""
        place += length + 12
    lines = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(height, 1 + 3 * width).astype(int)
    found = np.zeros((height + 1, 3 * (width + 1)), int)  # with a black line above and a black pixel to the left
    for y in range(height):
        kind = lines[y, 0]
        for x in range(3, 3 * (width + 1)):
            left, above, corner = found[y + 1, x - 3], found[y, x], found[y, x - 3]
            nearest = min((left, above, corner), key=lambda one: abs(left + above - corner - one))
            guess = (0, left, above, (left + above) // 2, nearest)[kind]
            found[y + 1, x] = (lines[y, x - 2] + guess) % 256
    return found[1:, 3:].reshape(height, width, 3).astype(float)


def ssim(one: "np.ndarray", two: "np.ndarray") -> float:
    """Wang et al. 2004 with a uniform window of 7 and sample covariance, mean over channels and whole windows."""
    size = 7
    windows = [np.lib.stride_tricks.sliding_window_view(image, (size, size), axis=(0, 1)) for image in (one, two)]
    mu = [window.mean(axis=(-2, -1)) for window in windows]
    sample = size**2 / (size**2 - 1)
    var = [sample * ((w**2).mean(axis=(-2, -1)) - m**2) for w, m in zip(windows, mu, strict=True)]
    cov = sample * ((windows[0] * windows[1]).mean(axis=(-2, -1)) - mu[0] * mu[1])
    c1, c2 = 0.01**2, 0.03**2
    upper = (2 * mu[0] * mu[1] + c1) * (2 * cov + c2)
    return float((upper / ((mu[0] ** 2 + mu[1] ** 2 + c1) * (var[0] + var[1] + c2))).mean())
