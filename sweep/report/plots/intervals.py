"""The 95 % intervals that rows know, for every quantity that a plot shows.

summary.csv has no interval of a mean latency. It has one of the latency's ratio to the interleaved baseline: with
the baseline's latency held fixed, that is an interval of the latency. Knows nothing about how it is drawn.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas

OWN = "Whiskers: 95 % intervals."
FROM_SPEEDUP = "Whiskers: the 95 % interval of the speed-up, with the baseline's latency held fixed."

SLOWING = ("latency_mean_s", "total_ms")
"""Columns that shrink as the speed-up grows; `total_ms` is the sum of all phases."""


def of(rows: "pandas.DataFrame", column: str) -> "tuple[pandas.Series, pandas.Series, str]":
    """Lower and upper ends of `column`, NaN where none is known, and what they are ("" where none is known)."""
    value = rows[column]
    loads = bool((rows["load"] != "").any())
    said = OWN
    if column in ("speedup", "requests_per_s"):
        low, high = rows[f"{column}_low"], rows[f"{column}_high"]
    elif column == "goodput_per_s":
        low, high = (value * rows[f"goodput_{end}"] / rows["goodput_share"] for end in ("low", "high"))
    elif column == "images_per_s" and loads:
        low, high = (value * rows[f"requests_per_s_{end}"] / rows["requests_per_s"] for end in ("low", "high"))
    elif column == "images_per_s":
        low, high = (value * rows[f"speedup_{end}"] / rows["speedup"] for end in ("low", "high"))
        said = FROM_SPEEDUP
    elif column in SLOWING:
        low, high = (value * rows["speedup"] / rows[f"speedup_{end}"] for end in ("high", "low"))
        said = FROM_SPEEDUP
    else:
        low = high = value * float("nan")
    known = (low < high) & (low <= value) & (value <= high) & (high < float("inf"))
    return low.where(known), high.where(known), said if known.any() else ""
