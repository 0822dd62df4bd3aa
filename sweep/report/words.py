"""The words of one number, for the terminal, the page and comparisons alike. Plain values in, text out."""

import math
from collections.abc import Mapping, Sequence

from sweep.findings import Finding

Row = Mapping[str, object]


def number(row: Row, name: str) -> float | None:
    """A field as float; None when it is absent, empty, NaN or no number."""
    value = row.get(name)
    if value is None or isinstance(value, bool) or value == "":
        return None
    try:
        found = float(str(value))
    except ValueError:
        return None
    return None if math.isnan(found) else found


def text(row: Row, name: str) -> str:
    """A field as text; "" when it is absent, None or NaN."""
    value = row.get(name)
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else str(value)


def digits(value: float | None, unit: str = "") -> str:
    """Three significant digits without exponent where that is readable, "" for None: `0.845 s`, `1270 ms`."""
    if value is None:
        return ""
    if value == 0 or not math.isfinite(value):
        shown = f"{value:g}"
    elif abs(value) < 1e-4:
        shown = f"{value:.2e}"
    else:
        shown = f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"
    return f"{shown} {unit}".rstrip()


def speedup_text(row: Row) -> str:
    """`1.42x (1.38-1.47)`, without the interval when there is none; `profiled`. ASCII, so every terminal shows it."""
    if text(row, "profiled"):
        return "profiled"
    ratio, low, high = (number(row, name) for name in ("speedup", "speedup_low", "speedup_high"))
    if ratio is None:
        return ""
    if low is None or high is None or low == high:
        return f"{ratio:.2f}x"
    return f"{ratio:.2f}x ({low:.2f}-{high:.2f})"


def quality_text(row: Row) -> str:
    """`identical`, or PSNR in dB; the mean difference where only that is known."""
    difference, psnr_db = number(row, "mean_diff"), number(row, "psnr_db")
    if difference == 0 or psnr_db == math.inf:
        return "identical"
    if psnr_db is not None:
        return f"{psnr_db:.1f} dB"
    return "" if difference is None else f"diff {digits(difference)}"


def bottleneck_text(row: Row) -> str:
    """`denoise_step 53%`."""
    phase = text(row, "bottleneck")
    share = number(row, f"{phase}_share")
    return phase if not phase or share is None else f"{phase} {share:.0%}"


def cells_words(count: int) -> str:
    """`1 cell`, `10,000 cells`."""
    return f"{count:,} cell{'' if count == 1 else 's'}"


def said(row: Row, kind: str) -> Sequence[Finding]:
    """The `findings`, `doubts` or `notes` of a row; () where it has none, as one that was read from summary.csv."""
    found = row.get(kind)
    return found if isinstance(found, list | tuple) else ()
