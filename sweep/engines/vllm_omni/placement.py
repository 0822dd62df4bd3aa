"""On which devices of a cell the AR and the DiT stage run. Pure; devices are counted from 0 within the cell."""

from collections.abc import Mapping
from typing import Any

from sweep.config.stages import PREFIX, device_numbers

Devices = tuple[int, ...]


def own_devices(stages: Mapping[str, Any], split: bool) -> int:
    """Devices that the AR stage has for itself; 0 if it shares those of the DiT stage."""
    ar, dit = _given(stages, "ar") or (0,), _given(stages, "dit")
    return len(ar) if not {*ar} & {*dit} and (dit or split) else 0


def placed(stages: Mapping[str, Any], split: bool, ranks: int) -> tuple[Devices, Devices]:
    """Devices of the AR stage, and of a DiT stage of `ranks` processes.

    By default the AR stage is on the first device, alone there if `split`, and the DiT stage on as many as
    it has ranks, the AR stage's included unless `split`.
    """
    ar = _given(stages, "ar") or (0,)
    first = len(ar) if split else 0
    return ar, _given(stages, "dit") or tuple(range(first, first + ranks))


def misplaced(stages: Mapping[str, Any], split: bool, ranks: int) -> str:
    """Why stages cannot be placed as configured, in one line; "" when they can."""
    ar, dit = placed(stages, split, ranks)
    asked = " and ".join(
        f"{PREFIX}{name}.devices={stages[name]['devices']}"
        for name in ("ar", "dit")
        if stages.get(name, {}).get("devices")
    )
    if not asked:
        return ""
    if len(dit) != ranks:
        return f"{asked}: the DiT stage runs on {ranks} GPU{'s' * (ranks > 1)} with these features, not on {len(dit)}"
    both = {*ar, *dit}
    if both != set(range(len(both))):
        there = f"the stages are on {_listed(sorted(both))}"
        return f"{asked}: a cell's GPUs are counted from 0 without gaps, and {there}"
    if {*ar} & {*dit} and not {*ar} <= {*dit}:
        return f"{asked}: the AR stage shares all of its GPUs with the DiT stage or none"
    if len(both) != ranks + own_devices(stages, split):
        apart = "set model.stages.dit.devices as well, or engine.placement=split"
        return f"{asked}: the DiT stage is on {_listed(dit)}; for GPUs of their own, {apart}"
    return ""


def _given(stages: Mapping[str, Any], name: str) -> Devices:
    return device_numbers(stages.get(name, {}).get("devices") or "")


def _listed(devices: Devices | list[int]) -> str:
    return f"GPU{'s' * (len(devices) > 1)} {' and '.join(map(str, devices))}"
