"""What pictures cost, and what a cell saves against its baseline.

The price is the one that a sweep ran with (`cost_per_image`), else the list price of its device. Rows of summary.csv
in, rows with more fields out.
"""

from collections.abc import Mapping, Sequence

from sweep.plan.cells import BASELINE, FEATURE
from sweep.report.context import Context, context_of
from sweep.report.limit_cells import LimitCell
from sweep.report.limit_words import called
from sweep.report.words import Row, number, text

COST, PREDICTED, SAVING = "cost_of_1000", "predicted_cost_of_1000", "saving"
"""Fields of a row: what 1,000 pictures cost, their predicted cost, and 1 − cost ÷ that of the baseline, whose
95 % interval is in `saving_low` and `saving_high`."""

NO_PRICE = "no price is known; run with hardware=NAME or hardware.price_per_gpu_hour=PRICE"


def priced(rows: Sequence[Row], limits: Sequence[LimitCell]) -> tuple[list[Row], str]:
    """The rows whose cost is known, and where prices are from; [] without a price."""
    by_key = {one.key: one for one in limits}
    costs = {text(row, "cell_key"): _cost(row, by_key.get(text(row, "cell_key"))) for row in rows}
    baselines = {context_of(row): row for row in rows if text(row, "role") == BASELINE}
    found: list[Row] = []
    for row in rows:
        cost, one = costs[text(row, "cell_key")], by_key.get(text(row, "cell_key"))
        if cost is not None and text(row, "role") in (BASELINE, FEATURE):
            said = one.found.said.cost if one is not None else None
            more = {COST: 1000 * cost, PREDICTED: None if said is None else 1000 * said}
            found.append({**row, **more, **_saving(row, baselines, costs)})
    return found, _origin(found, by_key)


def _cost(row: Row, one: LimitCell | None) -> float | None:
    """Cost of a picture."""
    if text(row, "profiled"):
        return None
    stored = number(row, "cost_per_image")
    if stored is not None or one is None or one.found.device.price_per_hour is None:
        return stored
    point = one.found.ran
    return point.gpus * one.found.device.price_per_hour * one.found.latency_s / 3600 / point.batch


def _saving(row: Row, baselines: Mapping[Context, Row], costs: Mapping[str, float | None]) -> dict[str, float | None]:
    """From the speed-up if there is one, because its pairs are measured at the same time; else from both costs."""
    base = baselines.get(context_of(row))
    if base is None or base is row:
        return {}
    speedups = [number(row, f"speedup{end}") for end in ("", "_low", "_high")]
    devices = [number(one, "gpus") for one in (row, base)]
    if speedups[0] and devices[0] and devices[1]:
        more = devices[0] / devices[1]
        savings = [1 - more / speedup if speedup else None for speedup in speedups]
        return dict(zip((SAVING, f"{SAVING}_low", f"{SAVING}_high"), savings, strict=True))
    cost, before = costs[text(row, "cell_key")], costs.get(text(base, "cell_key"))
    return {SAVING: 1 - cost / before} if cost is not None and before else {}


def _origin(rows: Sequence[Row], limits: Mapping[str, LimitCell]) -> str:
    """`Prices: H200 at 4.59 USD an hour (list price, 2026-10-07).`, where the sweep had no price of its own."""
    listed = {}
    for row in rows:
        one = limits.get(text(row, "cell_key"))
        if number(row, "cost_per_image") is None and one is not None:
            listed[one.found.device.name] = one.found.device
    said = []
    for device in listed.values():
        origin = device.origins.get("price_per_hour")
        date = f", {origin.date}" if origin is not None and origin.date else ""
        said.append(f"{called(device)} at {device.price_per_hour:g} USD an hour (list price{date})")
    return f"Prices: {'; '.join(said)}." if said else ""
