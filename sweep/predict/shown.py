"""Predictions as text: an answer, a table of cells, and for one cell its phases, its memory and how each is known."""

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from profiling.printing import clean
from sweep.predict.calibrate import Calibration
from sweep.predict.hardware import Device
from sweep.predict.memory import TOGETHER
from sweep.predict.prediction import Prediction
from sweep.predict.relative import Relative, relatives
from sweep.predict.row import Row

MOST = 40
"""Rows of a table; the others are counted in a line."""

NAMES = {
    "text_encode": "text encoder",
    "image_encode": "VAE encode",
    "ar_prefill": "AR prefill",
    "ar_decode": "AR decode",
    "stage_transfer": "hand-over",
    "denoise_step": "DiT, all steps",
    "vae_decode": "VAE decode",
    "other": "request, to and from",
}


def number(value: float | None, digits: int = 3) -> str:
    """`0.0123`, `1,234`; "?" where it is unknown."""
    if value is None:
        return "?"
    if value == 0:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 10 ** (digits - 1) else f"{value:#.{digits}g}"


COLUMNS = (
    *("GPUs", "memory GB", "fits", "latency s", "speed-up", "images/s", "÷ limit"),
    *("efficiency", "batch gain", "sent GB", "J/image", "$/1,000", "most time"),
)
LEAST_IMPORTANT = (
    *("sent GB", "batch gain", "J/image", "efficiency", "most time", "÷ limit"),
    *("$/1,000", "GPUs", "images/s", "memory GB", "speed-up"),
)
"""Columns that a narrow terminal omits, in this order."""

LEAST_LABEL = 24
"""Width that labels keep before columns are left out."""


def table(rows: Sequence[Row], several: bool, width: int, compared: Sequence[Relative] = ()) -> Table:
    """One row for each configuration, in their order; columns that a terminal of `width` has no room for are left out.

    `compared` has the comparison with other rows, where those are not among them.
    """
    listed = [_values(row, one) for row, one in zip(rows[:MOST], compared or relatives(rows), strict=False)]
    named = max((len(row.device.name) for row in rows[:MOST]), default=0) + 2 if several else 0
    wide = {name: max([len(name), *(len(one[name]) for one in listed if name in one)]) + 2 for name in COLUMNS}
    label = max((len(row.label) for row in rows[:MOST] if row.prediction), default=0)
    kept = [name for name in COLUMNS if any(one.get(name) for one in listed)]
    for name in (name for name in LEAST_IMPORTANT if name in kept):
        if max(LEAST_LABEL, min(label, 44)) + named + sum(wide[one] for one in kept) <= width:
            break
        kept.remove(name)
    shown = Table(box=None, pad_edge=False)
    shown.add_column("cell", no_wrap=True, overflow="ellipsis")
    if several:
        shown.add_column("hardware", no_wrap=True)
    for name in kept:
        shown.add_column(name, justify="left" if name == "most time" else "right", no_wrap=True)
    for row, one in zip(rows, listed, strict=False):
        if row.prediction is not None:
            hardware = [row.device.name] if several else []
            values = [Text(one[name], style="bold red" if one[name] == "NO" else "") for name in kept]
            shown.add_row(Text(clean(row.label)), *hardware, *values)
    return shown


def skips(rows: Sequence[Row]) -> list[str]:
    """Why rows have no prediction: a line for each reason, with the cells that it holds for."""
    found: dict[str, list[str]] = {}
    for row in rows:
        if row.prediction is None:
            found.setdefault(row.skip, []).append(row.label)
    lines = []
    for why, labels in found.items():
        more = f" and {len(labels) - 3} more" if len(labels) > 3 else ""
        lines.append(f"SKIP {', '.join(dict.fromkeys(labels[:3]))}{more}: {why}")
    return lines


def _values(row: Row, beside: Relative) -> dict[str, str]:
    found = row.prediction
    if found is None:
        return {}
    longest = found.bottleneck
    return {
        "GPUs": str(found.point.gpus),
        "memory GB": number(found.memory.told / 1e9),
        "fits": {None: "?", True: "yes", False: "NO"}[found.fits],
        "latency s": number(found.latency_s),
        "images/s": number(found.images_per_s),
        "speed-up": f"{beside.speedup:.2f}×" if beside.speedup and row.features else "",
        "efficiency": f"{beside.efficiency:.0%}" if beside.efficiency and found.point.gpus > 1 else "",
        "batch gain": f"{beside.batching_gain:.2f}×" if beside.batching_gain else "",
        "sent GB": number(found.sent_bytes / 1e9) if found.sent_bytes else "",
        "÷ limit": f"{found.latency_s / found.limit_s:.1f}×",
        "J/image": number(found.energy_j) if found.energy_j is not None else "",
        "$/1,000": number(found.cost * 1000) if found.cost is not None else "",
        "most time": f"{NAMES[longest.name]}, {longest.bound}",
    }


def si(value: float, unit: str) -> str:
    """`2.77 PFLOP`, `0.481 GB`."""
    for prefix, size in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{number(value / size)} {prefix}{unit}"
    return f"{number(value)} {unit}"


def phases(found: Prediction, width: int) -> Table:
    """Where the time goes: predicted and least seconds of each phase, and in a wide terminal what it does."""
    shown = Table(box=None, pad_edge=False)
    does = ("operations", "weights read") if width >= 100 else ()
    for name in ("phase", "predicted ms", "limit ms", "reached", *does, "most time"):
        shown.add_column(name, justify="left" if name in ("phase", "most time") else "right", no_wrap=True)
    for phase in found.phases:
        work = phase.phase.work
        counted = (
            si(work.operations, "FLOP") if work.operations else "",
            si(phase.phase.weight_bytes, "B") if work.weights else "",
        )
        shown.add_row(
            NAMES[phase.name],
            number(phase.seconds * 1e3),
            number(phase.limit_s * 1e3) if phase.limit_s else "",
            f"{phase.limit_s / phase.seconds:.0%}" if phase.limit_s else "",
            *(counted if does else ()),
            phase.bound,
        )
    return shown


def memory(found: Prediction) -> Table:
    """What the fullest device holds."""
    shown = Table(box=None, pad_edge=False)
    for name in ("memory of the fullest device", "GB", "known as"):
        shown.add_column(name, justify="right" if name == "GB" else "left", no_wrap=True)
    largest = max(
        (name for name, _ in found.memory.parts if name in TOGETHER), key=lambda n: found.memory[n], default=""
    )
    for name, size in found.memory.parts:
        apart = " (not at the fullest moment)" if name in TOGETHER and name != largest else ""
        shown.add_row(f"{name.replace('_', ' ')}{apart}", _gigabytes(size), found.memory.grade(name))
    room = "" if found.memory_bytes is None else f" of {number(found.memory_bytes / 1e9)}"
    shown.add_row("total", f"{number(found.memory.told / 1e9)}{room}", "", style="bold")
    return shown


def _gigabytes(size: float) -> str:
    return number(size / 1e9) if size >= 5e6 else "<0.01"


def grades(device: Device, made: Calibration) -> list[str]:
    """How the figures of a device are known."""
    by = made.factors
    lines = [
        f"{device.grade('peak_flops') or 'given'}: peaks of {device.name}, which make its limits",
        f"{by.grade}: how much of them is reached, what the host costs{f' ({by.origin})' if by.origin else ''}",
    ]
    if held := made.held_out.get("latency"):
        lines.append(
            f"    on {held.cells} cells, each by a fit that had not seen it, latency was off by {held.median:.0%} "
            f"(median) and {held.p90:.0%} (90th percentile)"
        )
    return lines


def show(console: Console, lines: Iterable[str]) -> None:
    """Lines as they are, never as markup."""
    for line in lines:
        console.print(Text(clean(line)), soft_wrap=True)
