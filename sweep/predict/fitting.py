"""Which cells of a plan do not fit into the memory of the device, by prediction: SKIP with skip_oom=true, else a note.

Pure. A cell is left alone where the device's memory or the cell's shape is unknown.
"""

import dataclasses
from collections.abc import Mapping

from sweep.findings import SKIP, Finding
from sweep.plan.cells import AA
from sweep.plan.plans import Plan, build_plan, repeats_of_baselines
from sweep.predict.memory import Ledger
from sweep.predict.planned import Forecast

TOO_LARGE = "predicted_out_of_memory"
"""Code of the skip."""

GIGA = 1e9


def too_large(plan: Plan, forecast: Forecast) -> dict[str, Finding]:
    """By key, cells that do not fit, and why."""
    found = {}
    for cell in plan.cells:
        one = forecast.cells.get(cell.key)
        if cell.skip is None and one is not None and one.prediction.fits is False:
            room = one.prediction.memory_bytes or 0.0
            found[cell.key] = _finding(one.prediction.memory, room, forecast.device.name)
    return found


def _finding(ledger: Ledger, room: float, device: str) -> Finding:
    largest = max((name for name, _ in ledger.parts), key=lambda name: ledger[name])
    part = f"{largest.replace('_', ' ')} {_gb(ledger[largest])}"
    needs = f"needs {_gb(ledger.needed)} GB"
    return Finding(TOO_LARGE, f"{needs} by prediction, {device} has {_gb(room)} (largest part: {part})", SKIP, needs)


def _gb(size: float) -> str:
    """`1.23`, `93.4`, `150`."""
    value = size / GIGA
    return f"{value:.0f}" if value >= 100 else f"{value:#.3g}"


def without(plan: Plan, skips: Mapping[str, Finding]) -> Plan:
    """The plan with these cells skipped; only baselines that run have A/A runs or are interleaved."""
    if not skips:
        return plan
    cells = [
        dataclasses.replace(
            cell,
            skip=skips.get(cell.key, cell.skip),
            interleaved="" if cell.interleaved in skips else cell.interleaved,
        )
        for cell in plan.cells
        if cell.role != AA
    ]
    return build_plan([*cells, *repeats_of_baselines(cells)])


def note(plan: Plan, found: Mapping[str, Finding]) -> str:
    """One line where cells will probably not fit; "" where all do."""
    named = {key: finding for key, finding in found.items() if plan.cell(key).role != AA}
    if not named:
        return ""
    key, first = next(iter(named.items()))
    more = f" and {len(named) - 1} more" if len(named) > 1 else ""
    them = "them" if more else "it"
    return f"{plan.cell(key).label}{more} will probably not fit: {first.text}; skip_oom=true leaves {them} out"
