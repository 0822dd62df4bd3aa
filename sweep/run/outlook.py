"""What is known of a plan before it runs: earlier results, predictions, what does not fit into memory.

Looks up the device and earlier results, and predicts only on request or if that costs nothing against the sweep.
"""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.config.hardware import AUTO, Hardware
from sweep.config.run import RunConfig
from sweep.config.values import seconds_of
from sweep.engines import registry
from sweep.machine.devices import discover
from sweep.plan.cells import AA, BASELINE, Cell
from sweep.plan.features import gpus_needed
from sweep.plan.plans import Plan, build_plan, repeats_of_baselines
from sweep.results.latest import OUTPUTS

if TYPE_CHECKING:
    from sweep.predict.planned import Forecast
    from sweep.report.plan_table import Elsewhere, Outlook
    from sweep.run.budget import Budget

NO_GPU = "no_gpu"
"""Code of a skip: this machine has no GPU. On other hardware such a cell would run."""


def checked(plan: Plan, looked_at: bool) -> "tuple[Plan, list[str], Forecast | None]":
    """The plan, without what does not fit if skip_oom is set; notes; and its predictions.

    `looked_at`: the user wants to see the plan. Otherwise a sweep predicts nothing for a CPU whose hardware was not
    named.
    """
    run = _first(plan)
    if run is None:
        return plan, [], None
    kind, hardware = _kind(plan), run.hardware
    if not (looked_at or run.budget or run.skip_oom or kind == "cuda" or hardware.name != AUTO):
        return plan, [], None
    from sweep.predict.devices import device_here

    device = device_here(hardware, kind)
    if device is None:
        return plan, [_nothing_skipped(hardware)] if run.skip_oom else [], None
    from sweep.predict import fitting
    from sweep.predict.planned import forecast

    found = forecast((cell for cell in plan.cells if cell.device == kind), device)
    skips = fitting.too_large(plan, found)
    if run.skip_oom:
        unknown = device.usable_bytes is None and device.memory_bytes is None
        return fitting.without(plan, skips), [_nothing_skipped(hardware)] if unknown else [], found
    return plan, [note] if (note := fitting.note(plan, skips)) else [], found


def _nothing_skipped(hardware: Hardware) -> str:
    where = "" if hardware.name == AUTO else f" (hardware={hardware.name} is another device)"
    return f"skip_oom=true skips nothing, because the memory of the device here is unknown{where}"


def outlook(plan: Plan, folder: Path, forecast: "Forecast | None", jobs: int, single: bool) -> "Outlook":
    """What a dry run shows; a `single` run has no baselines."""
    from sweep.predict.times import Times
    from sweep.report.plan_table import Outlook
    from sweep.results.earlier import expected

    times = Times(expected(plan, folder, OUTPUTS), forecast)
    seen = Outlook(times, jobs=jobs, elsewhere=_elsewhere(plan, single))
    run = _first(plan)
    if run is None:
        return seen
    seen = dataclasses.replace(seen, devices=_devices(run))
    if seen.elsewhere is None and _kind(plan) == "cuda":  # else its price is not that of what is here
        seen = dataclasses.replace(seen, hardware=run.hardware)
    if not run.budget:
        return seen
    from sweep.run.budget import Known, expected_to_fit

    known = Known(plan, times, {}, times.earlier.kept)
    fits = expected_to_fit(known, seconds_of(run.budget, "budget"), jobs, seen.devices)
    return dataclasses.replace(seen, budget=run.budget, fits=fits)


def _elsewhere(plan: Plan, single: bool) -> "Elsewhere | None":
    """The same plan on the chosen hardware, where that is not what is here."""
    hardware = plan.cells[0].run_config.hardware if plan.cells else Hardware()
    if hardware.name == AUTO:
        return None
    from sweep.predict.devices import device_chosen, device_here

    absent = any(cell.skip and cell.skip.code == NO_GPU for cell in plan.cells)
    device = device_chosen(hardware)
    if device is None or not (absent or device != device_here(hardware, _kind(plan))):
        return None
    from sweep.predict import fitting
    from sweep.predict.planned import forecast
    from sweep.report.plan_table import Elsewhere

    there = _with_gpus(plan, single)
    found = forecast(there.cells, device)
    return Elsewhere(there, found, hardware, fitting.note(there, fitting.too_large(there, found)))


def _with_gpus(plan: Plan, single: bool) -> Plan:
    """The plan as it would be if there were GPUs, with the baselines that it would then have."""
    cells = [
        dataclasses.replace(cell, skip=None) if cell.skip and cell.skip.code == NO_GPU else cell
        for cell in plan.cells
        if cell.role != AA
    ]
    run = [cell for cell in cells if cell.skip is None and cell.run_config.baselines and not single]
    missing = {cell.baseline_key: cell for cell in run if cell.baseline_key not in plan.by_key}
    cells += map(_baseline_of, missing.values())
    return build_plan([*cells, *repeats_of_baselines(cells)])


def _baseline_of(cell: Cell) -> Cell:
    """The baseline of a cell, as far as predictions need it. Those of one configuration share an engine."""
    engine = json.dumps([cell.config[name] for name in ("engine", "model", "parallel")], sort_keys=True)
    return dataclasses.replace(
        cell,
        key=cell.baseline_key,
        engine_key=f"baseline of {engine}",
        label=f"{BASELINE} b{cell.config['batch']} {cell.suffix}".strip(),
        role=BASELINE,
        features=(),
        gpus=gpus_needed(()) + registry.kind(cell.config["engine"]["name"]).stage_devices(cell.run_config),
        config={**cell.config, "feature": {}},
        origin=cell.baseline_key,
        interleaved="",
        base_key="",
    )


def budget_of(plan: Plan, folder: Path, forecast: "Forecast | None", jobs: int) -> "Budget | None":
    """The budget that a run was given; None when there is none."""
    run = _first(plan)
    if run is None or not run.budget:
        return None
    from sweep.predict.times import Times
    from sweep.results.earlier import expected
    from sweep.run.budget import Budget

    times = Times(expected(plan, folder, OUTPUTS), forecast)
    return Budget(run.budget, seconds_of(run.budget, "budget"), times, jobs, _devices(run))


def in_order(plan: Plan, forecast: "Forecast | None") -> Plan:
    """The plan with the most informative groups first, if there is a budget."""
    run = _first(plan)
    if run is None or not run.budget:
        return plan
    from sweep.predict.times import Times
    from sweep.results.earlier import NOTHING_KNOWN
    from sweep.run.budget import ordered

    return ordered(plan, Times(NOTHING_KNOWN, forecast).worth)


def _first(plan: Plan) -> RunConfig | None:
    """The configuration of a cell that runs; what is read from it here is the same in all."""
    return next((cell.run_config for cell in plan.cells if cell.skip is None), None)


def _kind(plan: Plan) -> str:
    return next((cell.device for cell in plan.cells if cell.skip is None), "cpu")


def _devices(run: RunConfig) -> int:
    return discover(run.engine, run.model, run.hardware).count
