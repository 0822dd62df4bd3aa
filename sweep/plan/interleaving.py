"""Whether a baseline is interleaved with a cell, batch by batch. Pure."""

from sweep.config.run import RunConfig
from sweep.engines import registry
from sweep.machine.devices import Devices
from sweep.plan import features as feature_rules
from sweep.plan.cells import FEATURE, Cell
from sweep.plan.rules import OFFLINE


def is_interleaved(run: RunConfig, found: Devices, need: int) -> bool:
    """Whether the baseline is interleaved with a cell that needs `need` devices.

    On a CPU, an engine that waits costs only memory. On GPUs, each of the two engines needs its own devices.
    """
    if not may_interleave(run):
        return False
    if found.kind == "cpu":
        return True
    own = feature_rules.gpus_needed(()) + registry.kind(run.engine.name).stage_devices(run)
    return run.interleave == "true" and need + own <= found.count


def may_interleave(run: RunConfig) -> bool:
    """Whether the baseline is interleaved with such a cell if there is room for it."""
    if run.profile != "off" or run.load.name != OFFLINE:
        return False  # recording slows the cell down, so its speed is not compared; a load is measured as a whole
    return run.interleave != "false" and registry.kind(run.engine.name).generates and run.baselines


def lacks_room(cell: Cell) -> bool:
    """Whether a cell was to be interleaved with its baseline and is not, for lack of GPUs."""
    if cell.role != FEATURE or cell.skip or cell.interleaved or cell.device != "cuda":
        return False
    return cell.run_config.interleave == "true" and may_interleave(cell.run_config)
