"""Whether a cell's images are inside the quality gates of its features: one gate for each measure of a difference.

What two runs of the baseline differ by is never charged to a feature, so it is added to what a gate allows. Decibels
and similarities do not add up, so each measure says what does (`Measure.loss`). Pure functions over differences that
are already averaged; knows no files and no evidence.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sweep.config import Feature
from sweep.findings import FAIL, WARN, Finding

NOT_COMPARABLE, OUTSIDE, NOT_LOSSLESS = "images_not_comparable", "images_outside_gate", "lossless_images_differ"
"""Codes of the findings."""


@dataclass(frozen=True)
class Pixels:
    """How far images differ, as `image_metrics.aggregate` defines it: a cell's from its baseline's, or A/A's."""

    mean_diff: float = 0.0  # in [0, 1]
    max_diff: float = 0.0  # in [0, 1]
    psnr_db: float = math.inf  # dB; inf when identical
    ssim: float = 1.0

    @classmethod
    def of(cls, values: Mapping[str, float | None]) -> "Pixels":
        """From the columns of a row; what it lacks counts as identical."""
        known = {field.name: values.get(field.name) for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in known.items() if value is not None})

    def worst(self, other: "Pixels") -> "Pixels":
        """The larger difference of the two, measure by measure."""
        return Pixels(
            max(self.mean_diff, other.mean_diff),
            max(self.max_diff, other.max_diff),
            min(self.psnr_db, other.psnr_db),
            min(self.ssim, other.ssim),
        )

    @property
    def comparable(self) -> bool:
        """Whether every measure is a number that a gate can judge."""
        return all(map(math.isfinite, (self.mean_diff, self.max_diff, self.ssim))) and self.psnr_db > -math.inf


IDENTICAL = Pixels()


@dataclass(frozen=True)
class Measure:
    """One way to say how far images differ. `name` is its column, and with `warn_` or `fail_` its gate."""

    name: str
    loss: Callable[[float], float]  # 0 when identical; the losses of two causes together are at most their sum
    shown: Callable[[float], str]
    outside: str  # of a value, its gate, and how far it is below that


def _same(difference: float) -> float:
    return difference


MEASURES = (
    Measure("mean_diff", _same, "{:.4f}".format, "images differ by {0} on average, more than the gate of {1:g}"),
    Measure("max_diff", _same, "{:.3f}".format, "a pixel differs by {0}, more than the gate of {1:g}"),
    # The root of the mean squared error is a norm, so the triangle inequality holds.
    Measure(
        "psnr_db",
        lambda db: 10 ** (-db / 20),
        "{:.1f} dB".format,
        "PSNR is {0}, {2:.2g} dB below the gate of {1:g} dB",
    ),
    Measure("ssim", lambda ssim: 1 - ssim, "{:.3f}".format, "SSIM is {0}, {2:.2g} below the gate of {1:g}"),
)


def judge(features: Sequence[Feature], pixels: Pixels, floor: Pixels) -> Finding | None:
    """How the images are outside the quality gates, gravest first; None when they are inside.

    `floor` is the difference between two runs of the baseline. Lossless features have gates that leave room for the
    order of sums; with a lossy one among them, the gates of the lossy ones count. Of several, the laxest counts.
    """
    if not pixels.comparable:
        return Finding(NOT_COMPARABLE, "the difference of the images is not a finite number", FAIL)
    lossy = [feature for feature in features if feature.lossy]
    judging = lossy or features
    for level, status in (("fail", FAIL), ("warn", WARN)):
        said = [text for measure in MEASURES if (text := _outside(measure, level, judging, pixels, floor))]
        if said:
            text = "; ".join(said)
            return Finding(OUTSIDE, text, status) if lossy else Finding(NOT_LOSSLESS, f"lossless, but {text}", status)
    return None


def _outside(measure: Measure, level: str, features: Sequence[Feature], pixels: Pixels, floor: Pixels) -> str:
    """How a value is outside the gates of this level; "" when it is inside, or when a feature has no such gate."""
    gates = [getattr(feature.gate, f"{level}_{measure.name}") for feature in features]
    if None in gates:
        return ""
    gate = max(gates, key=measure.loss)
    value, chance = getattr(pixels, measure.name), getattr(floor, measure.name)
    if measure.loss(value) <= measure.loss(chance) + measure.loss(gate):  # never true of a floor that is not a number
        return ""
    by_chance = f" (two baseline runs: {measure.shown(chance)})" if measure.loss(chance) else ""
    return measure.outside.format(measure.shown(value), gate, gate - value) + by_chance
