"""Whether a cell's images are inside the quality gates of its features: one gate for each measure of a difference.

The difference between two baseline runs is never charged to a feature, so it is added to what a gate allows. Decibels
and similarities do not add up, so each measure defines a loss that does (`Measure.loss`). Pure functions over
differences that are already averaged; knows no files and no evidence.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sweep.config.feature import Feature
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
    value: Callable[[float], float]  # of a loss
    shown: Callable[[float], str]
    outside: str  # of a value, its gate, and how far it is below that


def _same(difference: float) -> float:
    return difference


MEASURES = (
    Measure("mean_diff", _same, _same, "{:.4f}".format, "images differ by {0} on average, more than the gate of {1:g}"),
    Measure("max_diff", _same, _same, "{:.3f}".format, "a pixel differs by {0}, more than the gate of {1:g}"),
    # The root of the mean squared error is a norm, so the triangle inequality holds.
    Measure(
        "psnr_db",
        lambda db: 10 ** (-db / 20),
        lambda error: -20 * math.log10(error) if error > 0 else math.inf,
        "{:.1f} dB".format,
        "PSNR is {0}, {2:.2g} dB below the gate of {1:g} dB",
    ),
    Measure(
        "ssim",
        lambda ssim: 1 - ssim,
        lambda loss: 1 - loss,
        "{:.3f}".format,
        "SSIM is {0}, {2:.2g} below the gate of {1:g}",
    ),
)


def judge(features: Sequence[Feature], pixels: Pixels, floor: Pixels) -> Finding | None:
    """How the images are outside the quality gates, gravest first; None when they are inside.

    `floor` is the difference between two runs of the baseline. Lossless features have gates that leave room for the
    order of sums; with a lossy one among them, the gates of the lossy ones count. The laxest of several gates counts.
    """
    if not pixels.comparable:
        return Finding(NOT_COMPARABLE, "the difference of the images is not a finite number", FAIL)
    lossy, judging = any(feature.lossy for feature in features), _judging(features)
    for level, status in LEVELS:
        said = [text for measure in MEASURES if (text := _outside(measure, level, judging, pixels, floor))]
        if said:
            text = "; ".join(said)
            return Finding(OUTSIDE, text, status) if lossy else Finding(NOT_LOSSLESS, f"lossless, but {text}", status)
    return None


LEVELS = (("fail", FAIL), ("warn", WARN))


def limits(features: Sequence[Feature], floor: Pixels) -> dict[str, float]:
    """The value of each measure from which a cell with these features is FAIL or WARN, e.g. `gate_fail_psnr_db`.

    It is the gate plus the difference between two runs of the baseline; measures without a gate are missing.
    """
    found = {}
    for measure in MEASURES:
        for level, _ in LEVELS:
            gate = _gate(measure, level, _judging(features))
            if gate is not None:
                loss = measure.loss(getattr(floor, measure.name)) + measure.loss(gate)
                found[f"gate_{level}_{measure.name}"] = measure.value(loss)
    return found


LIMITS = tuple(f"gate_{level}_{measure.name}" for measure in MEASURES for level, _ in LEVELS)
"""Names of all limits."""


def _judging(features: Sequence[Feature]) -> Sequence[Feature]:
    """The features whose gates count."""
    return [feature for feature in features if feature.lossy] or features


def _gate(measure: Measure, level: str, features: Sequence[Feature]) -> float | None:
    """The laxest gate of these features; None where one has none, or without a feature."""
    gates = [getattr(feature.gate, f"{level}_{measure.name}") for feature in features]
    return None if not gates or None in gates else max(gates, key=measure.loss)


def _outside(measure: Measure, level: str, features: Sequence[Feature], pixels: Pixels, floor: Pixels) -> str:
    """How a value is outside the gates of this level; "" when it is inside, or when a feature has no such gate."""
    gate = _gate(measure, level, features)
    if gate is None:
        return ""
    value, chance = getattr(pixels, measure.name), getattr(floor, measure.name)
    if measure.loss(value) <= measure.loss(chance) + measure.loss(gate):  # never true for a floor that is not a number
        return ""
    by_chance = f" (two baseline runs: {measure.shown(chance)})" if measure.loss(chance) else ""
    return measure.outside.format(measure.shown(value), gate, gate - value) + by_chance
