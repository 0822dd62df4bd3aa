"""The section "How far from the limit" as plain values: sentences, and tables of times, phases and memory."""

from collections.abc import Callable, Collection, Sequence
from typing import Any

from sweep.plan.cells import BASELINE, FEATURE
from sweep.predict.hardware import Device
from sweep.predict.memory import TOGETHER, Ledger
from sweep.predict.shown import NAMES
from sweep.report import costs, limit_words
from sweep.report.context import Context, context_of
from sweep.report.limit_cells import LimitCell
from sweep.report.words import Row, digits, number, percent, saved, signed, text

MOST = 8
"""Cells that the tables show: a baseline and the best of four contexts."""

LEAST = 0.001
"""The smallest share of a peak that is shown."""

WEIGHTS, AR_RESERVED = "weights", "ar_reserved"
GB = 1e9

HEADINGS = (
    *("cell", "predicted, s", "measured, s", "error", "limit, s", "reached", "MFU", "memory predicted, GB", "measured"),
    *("cost of 1,000 images", "predicted", "saving"),
)


def view(cells: Sequence[LimitCell], winners: Collection[str]) -> dict[str, Any] | None:
    """Values for the template; None where no limit is known. `winners` are the keys of the cells to take."""
    chosen = shown(cells, winners)
    if not chosen:
        return None
    best = [one for one in chosen if text(one.row, "role") == FEATURE] or chosen
    return {
        "sentences": [limit_words.sentence(one) for one in best],
        "known_as": limit_words.known_as(chosen),
        "devices": ", ".join(dict.fromkeys(_about(one.found.device) for one in chosen)),
        **_table(chosen, cells),
        "phase_headings": PHASE_HEADINGS,
        "phases": [{"name": one.name, "lines": _phases(one)} for one in chosen],
        "ledger": _ledger(chosen),
        "left_out": max(0, sum(one.compared for one in cells) - len(chosen)),
    }


def shown(cells: Sequence[LimitCell], winners: Collection[str]) -> list[LimitCell]:
    """The baseline and the recommended cell of each context; without one, the baseline alone, or the only cell."""
    contexts: dict[Context, list[LimitCell]] = {}
    for one in cells:
        if one.compared:
            contexts.setdefault(context_of(one.row), []).append(one)
    found = []
    for group in contexts.values():
        kept = [one for one in group if text(one.row, "role") == BASELINE or one.key in winners]
        found += kept or group[:1]
    return found[:MOST]


def _about(device: Device) -> str:
    """`H200: 989 TFLOP/s in bfloat16, 4,800 GB/s`."""
    peak, bandwidth = device.peak("bfloat16") or device.peak("float32"), device.bandwidth_bytes_s
    dtype = "bfloat16" if device.peak("bfloat16") else "float32"
    parts = [
        f"{digits(peak / 1e12)} TFLOP/s in {dtype}" if peak else "",
        f"{bandwidth / 1e9:,.0f} GB/s" if bandwidth else "",
    ]
    return f"{limit_words.called(device)}: {', '.join(filter(None, parts))}"


def _table(chosen: Sequence[LimitCell], cells: Sequence[LimitCell]) -> dict[str, Any]:
    """Headings and lines of `chosen`, without columns that say nothing, and where prices are from."""
    priced, prices = costs.priced([one.row for one in cells], cells)
    by_key = {text(row, "cell_key"): row for row in priced}
    lines = [[*_line(one), *_costs(by_key.get(one.key, {}))] for one in chosen]
    kept = [place for place, values in enumerate(zip(*lines, strict=True)) if any(values)]
    return {
        "headings": [HEADINGS[place] for place in kept],
        "lines": [[line[place] for place in kept] for line in lines],
        "prices": prices,
    }


def _costs(row: Row) -> list[str]:
    saving = number(row, costs.SAVING)
    return [*(digits(number(row, name)) for name in (costs.COST, costs.PREDICTED)), saved(saving)]


def _line(one: LimitCell) -> list[str]:
    found, memory = one.found, one.found.peak_memory_bytes
    return [
        one.name,
        digits(found.said.latency_s),
        digits(found.latency_s),
        signed(found.prediction_error),
        digits(found.limit_s),
        percent(found.limit_share),
        percent(found.mfu),
        digits(found.said.memory.total / GB),
        "" if memory is None else digits(memory / GB),
    ]


PHASE_HEADINGS = ("phase", "predicted, ms", "measured, ms", "limit, ms", "MFU", "bandwidth")


def _phases(one: LimitCell) -> list[list[str]]:
    """Each phase that was measured: times, and the shares of peak and bandwidth that it reached."""
    found = one.found
    said = {phase.name: phase.seconds for phase in found.said.phases}
    lines = []
    for name, seconds in found.phases_s.items():
        if name not in found.limits_s or not seconds:
            continue
        limit = max(found.limits_s[name])
        shares = [
            share if share and share >= LEAST else None
            for share in (found.mfu_of(name), found.bandwidth_share_of(name))
        ]
        times = [digits(1000 * value) for value in (said.get(name, 0.0), seconds)]
        lines.append([NAMES[name], *times, digits(1000 * limit) if limit else "", *map(percent, shares)])
    return lines


def _ledger(cells: Sequence[LimitCell]) -> dict[str, Any]:
    """Memory of the fullest device by component: predicted, and `predicted / measured` where workers recorded it."""
    ledgers = [one.found.said.memory for one in cells]
    names = list(dict.fromkeys(name for ledger in ledgers for name, _ in ledger.parts))
    lines = [[limit_words.component(name), *(_part(ledger, name) for ledger in ledgers)] for name in names]
    lines += _recorded(cells)
    totals: list[tuple[str, Callable[[LimitCell], float | None]]] = [
        ("predicted peak", lambda one: one.found.said.memory.total),
        ("measured peak", lambda one: one.found.peak_memory_bytes),
    ]
    lines += [[name, *(_gb(value(one)) for one in cells)] for name, value in totals]
    return {"names": [one.name for one in cells], "lines": lines}


def _part(ledger: Ledger, name: str) -> str:
    size = ledger[name]
    if not size:
        return ""
    smaller = name in TOGETHER and size < max(ledger[other] for other in TOGETHER)
    return f"({_gb(size)})" if smaller else _gb(size)


def _recorded(cells: Sequence[LimitCell]) -> list[list[str]]:
    """Lines of what workers recorded; [] where none did."""
    lines = []
    for name in (WEIGHTS, *TOGETHER, AR_RESERVED):
        values = [one.found.parts_bytes.get(name) for one in cells]
        if any(values):
            lines.append([f"{limit_words.component(name)}, measured", *map(_gb, values)])
    return lines


def _gb(size: float | None) -> str:
    return "" if size is None else digits(size / GB)
