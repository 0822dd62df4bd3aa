"""`python -m sweep.predict measure`: writes what this machine achieves where `hardware=this_machine` finds it.

Knows the file and how it is used; `measure` knows how each figure is measured.
"""

import argparse
import contextlib
import dataclasses
import math
import os
import platform
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from profiling.atomic_write import write_atomic
from profiling.printing import complain
from sweep.config.hardware import AUTO, Hardware
from sweep.config.run import CONF
from sweep.machine.devices import Devices, cuda_device_count
from sweep.machine.leases import lease
from sweep.places import THIS_MACHINE, machine_conf
from sweep.predict.hardware import GROUP
from sweep.refusals import ConfigError, require
from sweep.streams import say

LEAST_S, MOST_S = 1.0, 600.0

EPILOG = """\
examples
  python -m sweep.predict measure                       then: hardware=this_machine
  python -m sweep.predict measure --device cpu --seconds 10
  python -m sweep.predict measure --out mine/hardware/box.yaml      then: --config-dir mine hardware=box

What is measured is one device, a GPU or one CPU core with one thread, with PyTorch: operations a second in products of
large matrices by dtype, bytes a second of copies in its memory, the host's time to launch a kernel, and between two and
more devices the time of an all-reduce by size. GPUs also tell their memory, power limit and power without work.

exit codes: 0 written, 2 bad input or nothing could be measured (one line says why), 130 interrupted"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.description = "Measure what this machine achieves, and write it as hardware to predict with."
    parser.epilog = EPILOG
    parser.add_argument(
        "--out", metavar="FILE", help=f"file to write, NAME.yaml (default: where {GROUP}={THIS_MACHINE} finds it)"
    )
    parser.add_argument("--seconds", default="40", metavar="S", help="how long to measure, about (default 40)")
    parser.add_argument(
        "--device", default=AUTO, metavar="D", help="auto, cpu or cuda (default: cuda where there is one)"
    )


def run(asked: argparse.Namespace) -> int:
    """Measure and write. Raises ConfigError; KeyboardInterrupt leaves nothing behind."""
    seconds = _seconds(asked.seconds)
    require(asked.device in (AUTO, "cpu", "cuda"), f"--device {asked.device}: choose auto, cpu or cuda")
    path = _place(asked.out)
    try:
        from sweep.predict import measure

        kind = measure.kind_of(asked.device)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"measuring needs the package {error.name}; run pip install 'gen-sweep[diffusers]'"
        ) from error
    with _all_devices(kind):
        found = measure.hardware(path.stem, kind, seconds, _progress)
    try:
        write_atomic(path, _text(found))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror}); choose another with --out FILE") from error
    say(f"{path}: {', '.join(found.match) or kind}, {_summary(found)}")
    say(_use(path))
    return 0


def _seconds(text: str) -> float:
    try:
        value = float(text.removesuffix("s"))
    except ValueError:
        value = math.nan
    require(LEAST_S <= value <= MOST_S, f"--seconds {text}: must be a number from {LEAST_S:g} to {MOST_S:g}")
    return value


def _place(out: str | None) -> Path:
    """The file to write. Raises ConfigError, before measuring, also where it could not be written."""
    path = Path(out).expanduser().absolute() if out else machine_conf() / GROUP / f"{THIS_MACHINE}.yaml"
    named = re.fullmatch(r"\w[\w-]*\.yaml", path.name, re.ASCII)
    require(bool(named) and path.stem != AUTO, f"--out {out}: name a file NAME.yaml; sweeps choose it as {GROUP}=NAME")
    taken = path.parent == machine_conf() / GROUP and (CONF / GROUP / path.name).exists()
    require(not taken, f"--out {out}: {GROUP}={path.stem} is there already, in {CONF / GROUP}; choose another name")
    require(not path.is_dir(), f"--out {out}: is a folder")
    there = next(folder for folder in path.parents if folder.exists())
    require(
        there.is_dir() and os.access(there, os.W_OK),
        f"{path}: cannot be written, as {there} does not allow it; choose another with --out FILE",
    )
    return path


@contextlib.contextmanager
def _all_devices(kind: str) -> Iterator[None]:
    """Hold all devices, as a cell does, so that a sweep and this command do not disturb each other."""
    count = cuda_device_count() if kind == "cuda" else os.cpu_count() or 1
    if not count:  # GPUs whose driver cannot be queried
        yield
        return
    with lease(Devices(kind, count), count, _progress):
        yield


def _progress(line: str) -> None:
    complain(f"sweep.predict: {line}")


def _text(found: Hardware) -> str:
    """The file."""
    import yaml

    values: dict[str, Any] = {k: v for k, v in dataclasses.asdict(found).items() if v not in (None, [], {})}
    when = datetime.now(UTC).date().isoformat()
    head = f"# What {', '.join(found.match) or 'a device'} of {platform.node()} achieves, measured on {when} by\n"
    body = yaml.safe_dump(values, sort_keys=False, default_flow_style=None, width=116, allow_unicode=True)
    return f"{head}# python -m sweep.predict measure\n{body}"


def _summary(found: Hardware) -> str:
    peaks = [f"{dtype} {_si(peak * 1e12)}FLOP/s" for dtype, peak in found.peak_tflops.items()]
    rest = [f"copies {_si((found.bandwidth_gb_s or 0) * 1e9)}B/s", f"launch {found.launch_us or 0:.3g} µs"]
    return ", ".join([*peaks, *rest])


def _si(value: float) -> str:
    for unit, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if value >= unit:
            return f"{value / unit:.3g} {prefix}"
    return f"{value:.3g} "


def _use(path: Path) -> str:
    """How a sweep and a prediction name the file."""
    place = machine_conf() / GROUP
    if path.parent == place:
        return f"to use it, write {GROUP}={path.stem}"
    if path.parent.name == GROUP:
        return f"to use it, write --config-dir {path.parent.parent} {GROUP}={path.stem}"
    return f"to use it, move it to {place} and write {GROUP}={path.stem}"
