"""How one number reads, in the terminal, on the page and in comparisons. Plain values in, text out."""

import math
from collections.abc import Iterable, Mapping, Sequence

from sweep.analysis.paired import NO_DIFFERENCE, UNKNOWN
from sweep.findings import Finding
from sweep.plan.cells import AA

Row = Mapping[str, object]

AA_EXPLAINED = "An A/A run is the baseline measured again in a fresh engine; any difference between the two is noise."


def mentions_aa(rows: Iterable[Row]) -> bool:
    """Whether a reader of these rows meets the term A/A: in a label, or in the note that noise is unknown."""
    return any(
        text(row, "role") == AA
        or (text(row, "features") and number(row, "speedup") is not None and text(row, "called") == UNKNOWN)
        for row in rows
    )


def number(row: Row, name: str) -> float | None:
    """A field as float; None if it is absent, empty, NaN or not a number."""
    value = row.get(name)
    if value is None or isinstance(value, bool) or value == "":
        return None
    try:
        found = float(str(value))
    except ValueError:
        return None
    return None if math.isnan(found) else found


def text(row: Row, name: str) -> str:
    """A field as text; "" if it is absent, None or NaN."""
    value = row.get(name)
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else str(value)


def digits(value: float | None, unit: str = "") -> str:
    """Three significant digits, without an exponent if that is readable: `0.845 s`, `1270 ms`; "" for None."""
    if value is None:
        return ""
    if value == 0 or not math.isfinite(value):
        shown = f"{value:g}"
    elif abs(value) < 1e-4:
        shown = f"{value:.2e}"
    else:
        shown = f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"
    return f"{shown} {unit}".rstrip()


def percent(share: float | None) -> str:
    """`41 %`; `0.4 %` below one; "" for None."""
    return "" if share is None else f"{100 * share:.{0 if abs(share) >= 0.00995 else 1}f} %"


def signed(share: float) -> str:
    """`+11 %`, `−3 %`."""
    return f"{'−' if share < -0.005 else '+' if share > 0.005 else ''}{abs(100 * share):.0f} %"


def saved(share: float | None) -> str:
    """`46 %`, `−8 %`; "" for None."""
    return "" if share is None else signed(share).removeprefix("+")


def speedup_text(row: Row) -> str:
    """`1.42x (1.38-1.47)`, `1.42x` if there is no interval, or `profiled`. ASCII, so that every terminal shows it."""
    return "profiled" if text(row, "profiled") else times_text(row, "speedup")


def times_text(row: Row, name: str) -> str:
    """A ratio with its interval, the columns `name`, `name_low` and `name_high`: `1.42x (1.38-1.47)`."""
    ratio, low, high = (number(row, f"{name}{end}") for end in ("", "_low", "_high"))
    if ratio is None:
        return ""
    if low is None or high is None or low == high:
        return f"{_times(ratio)}x"
    return f"{_times(ratio)}x ({_times(low)}-{_times(high)})"


def _times(value: float) -> str:
    """`1.42`, `57.5`, `211`: what is far from 1 needs no hundredths."""
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:.0f}"


def verdict_text(row: Row) -> str:
    """The verdict on a speed-up: faster, slower, no difference, within noise or unknown; "" where nothing is judged.

    "No difference" is known to be none; "within noise" may hide one (`vague`).
    """
    if text(row, "profiled") or not text(row, "features") or number(row, "speedup") is None:
        return ""
    called = text(row, "called")
    return WITHIN_NOISE if called == NO_DIFFERENCE and vague(row) else called or "unknown"


WITHIN_NOISE = "within noise"

VAGUE = 0.05
"""From this half-width on, a speed-up of no difference may hide one: the default of `precision`."""


def vague(row: Row) -> bool:
    """Whether a speed-up is known less well than ±5 %."""
    low, high = number(row, "speedup_low"), number(row, "speedup_high")
    return not low or high is None or math.sqrt(high / low) - 1 > VAGUE


def interval_text(row: Row) -> str:
    """`0.97-1.52x`; "" without an interval."""
    low, high = number(row, "speedup_low"), number(row, "speedup_high")
    return "" if low is None or high is None else f"{_times(low)}-{_times(high)}x"


def baseline_latency_s(row: Row) -> float | None:
    """The latency that a speed-up compares with; of rows from before its column, what `summary` fills it with."""
    stored, own, ratio = (number(row, name) for name in ("baseline_latency_s", "latency_mean_s", "speedup"))
    return own * ratio if stored is None and own is not None and ratio is not None else stored


def latency_text(row: Row, arrow: str = " → ") -> str:
    """`2.16 → 1.74`: seconds of the baseline, then of the cell; or of the cell alone where it has no speed-up."""
    beside = number(row, "baseline_latency_s")
    before = digits(number(row, "baseline_beside_s") if beside is None else beside)
    own = digits(number(row, "latency_mean_s"))
    return f"{before}{arrow}{own}" if before and own and number(row, "speedup") is not None else own


def quality_text(row: Row) -> str:
    """`identical`, or PSNR in dB, or the mean difference if only that is known."""
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


def duration_words(seconds: float) -> str:
    """`12 s`, `4 min 5 s`, `2 h 10 min`."""
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def listed(names: Sequence[str], most: int) -> str:
    """`a, b and c`; `a, b and 7 more` where there are more than `most`."""
    shown = list(names) if len(names) <= most else [*names[: most - 1], f"{len(names) - most + 1} more"]
    return " and ".join(filter(None, (", ".join(shown[:-1]), shown[-1]))) if shown else ""


def said(row: Row, kind: str) -> Sequence[Finding]:
    """The `findings`, `doubts` or `notes` of a row; () if it has none, like a row read from summary.csv."""
    found = row.get(kind)
    return found if isinstance(found, list | tuple) else ()
