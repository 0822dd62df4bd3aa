"""The control group in words: lines below the terminal's table, and values for the page's section.

Plain values in, plain values out. Knows nothing about files or how the numbers were computed.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from profiling.phases import EXCLUSIVE_PHASES, OTHER
from sweep.analysis.control_group import CONTROL, Comparison, ControlGroup, Missing, Side
from sweep.analysis.paired import NO_DIFFERENCE, UNKNOWN
from sweep.report.words import digits, quality_text, speedup_text

LINES = 12  # in the terminal
ROWS = 300  # of the page's table, and of the list of missing pairs
NAMES = 6  # of cells with the same doubt
BARS = 24  # pairs whose phases are drawn
_PHASES = (*EXCLUSIVE_PHASES, OTHER)


def lines(group: ControlGroup) -> list[str]:
    """One line for each pair: `teacache b1: vllm_omni vs diffusers: 1.32x (1.30-1.34), memory 20.1 vs 24.3 GB`."""
    found = [_line(one) for one in group.compared]
    found += [f"{_pair(one)}: not compared: {one.reason}" for one in group.missing]
    shown = found[:LINES]
    if len(found) > LINES:
        shown.append(f"{len(found) - LINES} more comparisons with {CONTROL} are in report.json.")
    shown += [f"? {said}: {names}" for said, names in _doubts(group.compared)]
    if _noise_unknown(group):
        shown.append("Start-to-start noise is unknown: both engines need an A/A run (the baseline measured again).")
    return shown


def view(group: ControlGroup, anchors: Mapping[str, str]) -> dict[str, Any] | None:
    """Values for the page's template; None if there is nothing to show. `anchors` of cells by their key."""
    if not group:
        return None
    drawn = [one for one in group.compared if _total(one.cell) and _total(one.control)]
    return {
        "engine": CONTROL,
        "table": _table(group.compared[:ROWS], anchors),
        "left_out": max(0, len(group.compared) - ROWS),
        "doubts": _doubts(group.compared),
        "problems": _shared((one.images_problem, one.name) for one in group.compared if one.images_problem),
        "starts_unknown": _noise_unknown(group),
        "bars": [_bars(one, anchors) for one in drawn[:BARS]],
        "bars_left_out": max(0, len(drawn) - BARS),
        "missing": [{"name": _pair(one), "reason": one.reason} for one in group.missing[:ROWS]],
        "missing_left_out": max(0, len(group.missing) - ROWS),
    }


def _noise_unknown(group: ControlGroup) -> bool:
    """Whether some pair has no verdict, because an engine has no A/A run."""
    return any(one.ratio.called == UNKNOWN for one in group.compared)


def _pair(one: Comparison | Missing) -> str:
    return f"{one.name}: {one.cell.engine} vs {one.control.engine}"


def _line(one: Comparison) -> str:
    mine, theirs = one.cell.peak_memory_gb, one.control.peak_memory_gb
    parts = [_speed(one), "within noise" if one.ratio.called == NO_DIFFERENCE else ""]
    if mine is not None and theirs is not None:
        parts.append(f"memory {digits(mine)} vs {digits(theirs)} GB")
    if one.images is not None:
        difference = one.images.mean_diff
        parts.append(f"images differ by {digits(difference)} on average" if difference else "images identical")
    elif one.images_problem:
        parts.append(f"images not compared: {one.images_problem}")
    return f"{_pair(one)}: {', '.join(filter(None, parts))}{' ?' if one.doubts else ''}"


def _doubts(compared: Sequence[Comparison]) -> list[tuple[str, str]]:
    """Why some pairs may not be comparable, with the names of those pairs."""
    return _shared((doubt, one.name) for one in compared for doubt in one.doubts)


def _shared(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """(text, name) pairs merged: each text once with all its names, at most LINES texts and NAMES names."""
    by_text: dict[str, list[str]] = {}
    for text, name in pairs:
        by_text.setdefault(text, []).append(name)
    return [
        (text, ", ".join(names[:NAMES]) + (f", {len(names) - NAMES} more" if len(names) > NAMES else ""))
        for text, names in list(by_text.items())[:LINES]
    ]


def _speed(one: Comparison) -> str:
    return speedup_text({"speedup": one.ratio.ratio, "speedup_low": one.ratio.low, "speedup_high": one.ratio.high})


def _images(one: Comparison) -> str:
    if one.images is None:
        return "not compared" if one.images_problem else ""
    return quality_text({"mean_diff": one.images.mean_diff, "psnr_db": one.images.psnr_db})


def _table(compared: Sequence[Comparison], anchors: Mapping[str, str]) -> dict[str, Any]:
    """Columns (heading, whether it sorts by number) and lines; empty columns are left out."""
    rows = [_fields(one) for one in compared]
    kept = [heading for heading in (rows[0] if rows else ()) if any(row[heading][0] for row in rows)]
    return {
        "columns": [(heading, any(row[heading][1] is not None for row in rows)) for heading in kept],
        "lines": [
            {
                "label": one.name,
                "engine": one.cell.engine,
                "anchor": anchors.get(one.cell.key, ""),
                "control_anchor": anchors.get(one.control.key, ""),
                "doubt": "; ".join(one.doubts),
                "fields": [row[heading] for heading in kept],
            }
            for one, row in zip(compared, rows, strict=True)
        ],
    }


def _fields(one: Comparison) -> dict[str, tuple[str, str | None]]:
    """Text and sort value of each column; the sort value is "" for a missing number, None in a column of words."""
    images = one.images
    speed = _speed(one).replace("x", "×").replace("-", "–")
    return {
        "speed ratio (95 %)": (speed, _sorted_by(one.ratio.ratio)),
        "verdict": (one.ratio.called, None),
        "latency, s": _both(one.cell.latency_mean_s, one.control.latency_mean_s),
        "memory, GB": _both(one.cell.peak_memory_gb, one.control.peak_memory_gb),
        "images": (_images(one), None),
        "mean / max diff": _both(images.mean_diff, images.max_diff) if images else ("", ""),
        "SSIM": (digits(images.ssim if images else None), _sorted_by(images.ssim if images else None)),
        "energy, J/image": _both(one.cell.energy_j_per_image, one.control.energy_j_per_image),
        "loading, s": _both(one.cell.load_s, one.control.load_s),
    }


def _both(first: float | None, second: float | None) -> tuple[str, str]:
    """`20.1 / 24.3`: two numbers, sorted by the first."""
    words = "" if first is None and second is None else f"{digits(first) or '–'} / {digits(second) or '–'}"
    return words, _sorted_by(first)


def _sorted_by(value: float | None) -> str:
    return "" if value is None else f"{value:.9g}"


def _total(side: Side) -> float:
    """Milliseconds of the exclusive phases and `other`."""
    return sum(side.phases_ms.get(phase, 0.0) for phase in _PHASES)


def _bars(one: Comparison, anchors: Mapping[str, str]) -> dict[str, Any]:
    """Both requests as bars on one scale, and the milliseconds of each phase."""
    sides = one.cell, one.control
    longest = max(_total(side) for side in sides)
    present = [phase for phase in _PHASES if any(side.phases_ms.get(phase, 0.0) > 0 for side in sides)]
    bars = []
    for side in sides:
        parts = [(phase, round(100 * side.phases_ms.get(phase, 0.0) / longest, 2)) for phase in present]
        rest = round(100 * (1 - _total(side) / longest), 2)
        parts = [(phase, percent) for phase, percent in parts if percent > 0]
        bars.append({"engine": side.engine, "parts": parts, "rest": rest, "total": digits(_total(side), "ms")})
    key = [{"name": phase, "words": _phase_words(one, phase)} for phase in present]
    return {"name": one.name, "anchor": anchors.get(one.cell.key, ""), "bars": bars, "key": key}


def _phase_words(one: Comparison, phase: str) -> str:
    """`280 / 410 ms (1.46×)`: the engine's time, the control's time, and control ÷ engine."""
    mine, theirs = one.cell.phases_ms.get(phase), one.control.phases_ms.get(phase)
    ratio = f" ({theirs / mine:.2f}×)" if mine and theirs else ""
    return f"{digits(mine) or '–'} / {digits(theirs) or '–'} ms{ratio}"
