"""Which device predictions of a plan are for: the one that cells run on here, or the chosen one, wherever it is.

Reads files of hardware and asks the driver. Knows nothing of predictions, so that finding none costs little.
"""

from sweep.config.hardware import AUTO, Hardware
from sweep.machine.devices import device_names, is_called
from sweep.places import THIS_MACHINE, machine_conf
from sweep.predict.hardware import GROUP, Device, by_device_name, device_for, device_of
from sweep.refusals import ConfigError


def device_here(hardware: Hardware, kind: str) -> Device | None:
    """The device that cells run on here, `cpu` or `cuda`; None when nothing is known about it.

    It is the chosen hardware, unless this machine has another: a cell runs on the device that is there.
    """
    if kind == "cpu":
        return _cpu_here(hardware)
    chosen, names = _described(hardware), device_names()
    others = chosen is not None and chosen.match and names and not is_called(names[0], chosen.match)
    if chosen is not None and chosen.kind == kind and not others:
        return chosen
    return by_device_name(names[0]) if names else None


def _cpu_here(hardware: Hardware) -> Device | None:
    measured = (machine_conf() / GROUP / f"{THIS_MACHINE}.yaml").is_file()
    if hardware.name == AUTO and not measured:
        return None
    chosen = _described(hardware)
    if chosen is None or chosen.kind != "cpu":  # a GPU that these cells do not run on
        chosen = device_for(THIS_MACHINE) if measured else None
    return chosen if chosen is not None and chosen.kind == "cpu" else None


def device_chosen(hardware: Hardware) -> Device | None:
    """The device with the given name, even if it is not here; None for hardware=auto."""
    return None if hardware.name == AUTO else _described(hardware)


def _described(hardware: Hardware) -> Device | None:
    try:
        return device_of(hardware)
    except ConfigError:
        return None
