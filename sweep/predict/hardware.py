"""A device in SI units: what it can do, where each figure comes from, and which one this machine has.

Reads conf/hardware/ and what `python -m sweep.predict measure` wrote. Knows neither torch nor Hydra.
"""

import bisect
import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sweep.config.hardware import AUTO, FIGURES, GIVEN, MEASURED, AllReduce, Hardware, Origin
from sweep.config.run import CONF
from sweep.machine.devices import device_names, is_called
from sweep.places import THIS_MACHINE, machine_conf
from sweep.plan.typed import typed
from sweep.refusals import ConfigError, nearest, require

GROUP = "hardware"

TERA, GIGA, MICRO = 1e12, 1e9, 1e-6

SAME_AS = {"float16": "bfloat16"}
"""Dtypes that are as fast as another on all hardware in conf/hardware/."""


@dataclass(frozen=True)
class Device:
    """One GPU, or one CPU core with a rank of its own. None: unknown.

    Figures of a data sheet are upper limits; measured ones are what PyTorch achieves. `grade` says which one it is.
    """

    name: str  # of its file in conf/hardware/
    kind: str = "cuda"  # or cpu
    match: tuple[str, ...] = ()  # whole names as drivers report them
    peak_flops: Mapping[str, float] = field(default_factory=dict, hash=False)  # dtype -> operations/s, dense; `peak`
    bandwidth_bytes_s: float | None = None  # read and written together
    memory_bytes: float | None = None  # as the driver reports it
    usable_bytes: float | None = None  # what one process can allocate, its context included
    link_bytes_s: float | None = None  # sent to all other devices of its host together
    peer_bytes_s: float | None = None  # sent to a single one of them
    launch_s: float | None = None  # of the host, for one kernel from PyTorch
    all_reduce: tuple[AllReduce, ...] | None = field(default=None, hash=False)  # measured times; see `all_reduce_s`
    power_w: float | None = None  # power limit
    idle_w: float | None = None
    price_per_hour: float | None = None
    origins: Mapping[str, Origin] = field(
        default_factory=dict, hash=False
    )  # field of this class -> where it comes from

    def peak(self, dtype: str) -> float | None:
        """Operations/s of products of matrices in `dtype` (float32, tf32, bfloat16, float16, fp8, int8)."""
        return self.peak_flops.get(SAME_AS.get(dtype, dtype))

    def grade(self, figure: str) -> str:
        """How the figure (a field of this class) is known, in the words of `sweep.config.GRADES`; "" when it is not."""
        origin = self.origins.get(figure)
        return origin.grade if origin else ""

    def all_reduce_s(self, nbytes: float, ranks: int) -> float | None:
        """Seconds that an all-reduce of `nbytes` on each of `ranks` devices takes; None where none was measured.

        A number of ranks that was not measured takes the time of the next smaller measured one, else of the smallest.
        Between two measured sizes, time is a power of size. Below the smallest it is that of the smallest, and above
        the largest it grows with size.
        """
        counts = {row.ranks for row in self.all_reduce or ()}
        if not counts:
            return None
        known = max((count for count in counts if count <= ranks), default=min(counts))
        rows = sorted((row.bytes, row.us * MICRO) for row in self.all_reduce or () if row.ranks == known)
        sizes = [size for size, _ in rows]
        after = bisect.bisect_left(sizes, nbytes)
        if after == 0:
            return rows[0][1]
        if after == len(rows):
            size, time = rows[-1]
            return time * nbytes / size
        (low, fast), (high, slow) = rows[after - 1], rows[after]
        share = math.log(nbytes / low) / math.log(high / low)
        return fast * (slow / fast) ** share


UNITS: Mapping[str, tuple[str, float]] = {
    "price_per_gpu_hour": ("price_per_hour", 1.0),
    "bandwidth_gb_s": ("bandwidth_bytes_s", GIGA),
    "memory_gb": ("memory_bytes", GIGA),
    "usable_gb": ("usable_bytes", GIGA),
    "link_gb_s": ("link_bytes_s", GIGA),
    "peer_gb_s": ("peer_bytes_s", GIGA),
    "launch_us": ("launch_s", MICRO),
    "power_w": ("power_w", 1.0),
    "idle_w": ("idle_w", 1.0),
}
"""Figure of `Hardware` -> field of `Device`, and what its unit is in SI. peak_tflops and all_reduce are separate."""

NAMES = {
    **{figure: name for figure, (name, _) in UNITS.items()},
    "peak_tflops": "peak_flops",
    "all_reduce": "all_reduce",
}


def device_for(name: str) -> Device:
    """The device of this name in conf/hardware/ or of this machine, or of a file (`….yaml`); `auto` is the one here.

    Raises ConfigError, with one line, for an unknown name and for a file that holds no hardware.
    """
    if name == AUTO:
        found = device_here()
        require(found is not None, f"{GROUP}={AUTO}: {_nothing_known(device_names())}")
        assert found is not None
        return found
    return _device(hardware_for(name))


def device_of(hardware: Hardware) -> Device | None:
    """The device that a cell's configuration describes, with what the command line changed; None when none is known.

    `auto` is the device of this machine.
    """
    if hardware.name == AUTO:
        here = device_here()
        given = {name: value for name in FIGURES if (value := getattr(hardware, name)) not in (None, {}, [])}
        if here is None and not given:
            return None
        changed = _device(Hardware(**given, sources={name: Origin(GIVEN) for name in given}))
        base = here or Device(AUTO)
        values = {NAMES[name]: getattr(changed, NAMES[name]) for name in given}
        return dataclasses.replace(base, **values, origins={**base.origins, **changed.origins})
    try:
        file = hardware_for(hardware.name)
    except ConfigError:  # it belongs to another machine, where this plan was made
        return _device(hardware)
    changed_here = [name for name in FIGURES if getattr(file, name) != getattr(hardware, name)]
    return _device(
        dataclasses.replace(hardware, sources={**hardware.sources, **dict.fromkeys(changed_here, Origin(GIVEN))})
    )


def device_where(hardware: Hardware, machine: Mapping[str, Any], kind: str) -> Device | None:
    """The device that a stored cell ran on; None where nothing is known about it.

    `machine` is what manifest.json says about the sweep's machine, `kind` cpu or cuda. What the cell's configuration
    chose counts if it is a device of that name, else the file that has it.
    """
    gpus = machine.get("gpus")
    names = {machine.get("cpu")} if kind == "cpu" else set(map(str, gpus)) if isinstance(gpus, list) else set()
    name = names.pop() if len(names) == 1 else None
    if not isinstance(name, str) or not name:
        return None
    chosen = None if hardware.name == AUTO else device_of(hardware)
    found = chosen if chosen is not None and is_called(name, chosen.match) else by_device_name(name)
    return found if found is not None and found.kind == kind else None


def device_here() -> Device | None:
    """This machine's device: by its name where conf/hardware/ has it, else as it was measured; None for neither."""
    names = device_names()
    known = by_device_name(names[0]) if names else None
    if known is not None:
        return known
    measured = _files().get(THIS_MACHINE)
    return _device(_read(measured)) if measured else None


def by_device_name(name: str) -> Device | None:
    """The device whose file has this name (`NVIDIA H200`) under `match`; what was measured here comes last.

    Names are compared by `sweep.machine.devices.is_called`.
    """
    for known in sorted(known_names(), key=lambda stem: stem == THIS_MACHINE):
        found = hardware_for(known)
        if is_called(name, found.match):
            return _device(found)
    return None


def known_names() -> list[str]:
    """What device_for accepts: the files of conf/hardware/, and what was measured on this machine."""
    return sorted(name for name in _files() if name != AUTO)


def hardware_for(name: str) -> Hardware:
    """The configuration of this name, or in the file of this path. Raises ConfigError."""
    if name.endswith((".yaml", ".yml")):
        return _read(Path(name).expanduser())
    files = _files()
    if name == THIS_MACHINE and name not in files:
        raise ConfigError(f"{GROUP}={name}: nothing was measured here yet; run python -m sweep.predict measure")
    if name not in files or name == AUTO:
        known = known_names()
        raise ConfigError(f"unknown {GROUP} '{name}'{nearest(name, known)} (choose from {', '.join(known)})")
    return _read(files[name])


def _files() -> dict[str, Path]:
    """Names of hardware and their files, as Hydra would find them: conf/ comes first."""
    found = [path for place in (machine_conf(), CONF) for path in (place / GROUP).glob("*.yaml")]
    return {path.stem: path for path in found}


def _read(path: Path) -> Hardware:
    """Raises ConfigError with one line for a file that cannot be read or that holds no hardware."""
    try:
        changed = path.stat().st_mtime_ns
    except OSError as error:
        raise ConfigError(f"{GROUP}={path}: cannot be read ({error.strerror})") from error
    return dataclasses.replace(_parsed(path, changed))


@functools.lru_cache(maxsize=256)
def _parsed(path: Path, changed_ns: int) -> Hardware:
    """Parsed once for each file and time of its last change."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)
    except OSError as error:
        raise ConfigError(f"{GROUP}={path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{GROUP}={path}: not YAML ({str(error).splitlines()[0]})") from error
    require(isinstance(values, dict), f"{GROUP}={path}: holds no hardware, which is figures by name, as memory_gb: 80")
    return typed({"name": path.stem, **_checked(values, path)}, Hardware, f"{GROUP}={path}")


def _checked(values: Mapping[Any, Any], path: Path) -> Mapping[Any, Any]:
    """The values, if each is one of a field: a misspelt figure must not be ignored silently."""
    known = [one.name for one in dataclasses.fields(Hardware)]
    for name in values:
        require(name in known, f"{GROUP}={path}: unknown field '{name}'{nearest(str(name), known)}")
    return values


def _device(hardware: Hardware) -> Device:
    """In SI units."""
    si = {
        name: value * unit for figure, (name, unit) in UNITS.items() if (value := getattr(hardware, figure)) is not None
    }
    return Device(
        name=hardware.name,
        kind=hardware.kind,
        match=tuple(hardware.match),
        peak_flops={dtype: peak * TERA for dtype, peak in hardware.peak_tflops.items()},
        all_reduce=tuple(hardware.all_reduce) or None,
        origins={NAMES[figure]: origin for figure, origin in hardware.sources.items()},
        **si,
    )


def _nothing_known(gpus: Sequence[str]) -> str:
    """What to do where nothing is known about this machine's device."""
    here = f"no file in conf/{GROUP}/ is for {gpus[0]}" if gpus else "this machine has no GPU that the driver reports"
    return f"{here}; run python -m sweep.predict measure, or choose {GROUP}={', '.join(known_names())}"


def is_measured(device: Device) -> bool:
    """Whether its peaks were measured, so that they are what PyTorch achieves and not upper limits."""
    return device.grade("peak_flops") == MEASURED
