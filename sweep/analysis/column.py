"""What a column of summary.csv is, and columns that come in kinds: percentiles, phases, shares."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from profiling.phases import OTHER
from sweep.analysis import load_metrics, metrics
from sweep.analysis.cell_data import CellData
from sweep.plan.cells import Cell

IDENTITY, STATUS, METRIC, PHASE, SPEED, QUALITY, FACT = (
    *("identity", "status", "metric", "phase", "speed", "quality", "fact"),
)
"""Kinds of columns. Each kind has its own place in report.json."""

LOWER, HIGHER = "lower", "higher"


@dataclass(frozen=True)
class Column:
    """One column. `name` ends with the unit if there is one and the name has room for it."""

    name: str
    kind: str
    meaning: str  # one line for people
    value: Callable[[CellData], Any] | None = None  # None: `summary` fills it in
    label: str = ""  # in a cell's section of the page, and on axes; "": not shown there
    heading: str = ""  # in the page's table; "": not shown there
    unit: str = ""
    better: str = ""  # LOWER or HIGHER

    @property
    def axis(self) -> str:
        """Text for the axis of a plot: label, unit, and which direction is better."""
        text = f"{self.label}, {self.unit}" if self.unit else self.label
        return text + {LOWER: "\n← lower is better", HIGHER: "\nhigher is better →"}.get(self.better, "")


def identity(name: str, meaning: str, value: Callable[[Cell], Any]) -> Column:
    """A column that the plan alone fills."""
    return Column(name, IDENTITY, meaning, lambda m: value(m.cell))


def of_task(task: str, what: str) -> list[Column]:
    """Latency of one kind of request, where a load mixes several."""
    latencies_s = load_metrics.latency_of(task)

    def mean_s(measured: CellData) -> float | None:
        return metrics.mean(latencies_s(measured))

    mixed = f"mean latency of {what}, where a load mixes kinds of requests"
    return [
        Column(f"{task}_latency_mean_s", METRIC, mixed, mean_s, unit="s", better=LOWER),
        *percentiles(f"{task}_latency", f"latency of {what}", latencies_s, (95,)),
    ]


def percentiles(name: str, what: str, values: Callable[[CellData], list[float]], qs: tuple[int, ...]) -> list[Column]:
    """Percentiles of one distribution, e.g. `latency_p90_s`. `qs` in [0, 100]."""

    def column(q: int) -> Column:
        return Column(
            f"{name}_p{q}_s",
            METRIC,
            f"{q}th percentile of {what}" + (f"; needs {metrics.samples_needed(q)} samples" if q >= 95 else ""),
            lambda m: metrics.percentile(values(m), q),
            unit="s",
            better=LOWER,
            **({"label": "latency, p95", "heading": "p95, s"} if (name, q) == ("latency", 95) else {}),
        )

    return [column(q) for q in qs]


def phase_column(phase: str) -> Column:
    """Mean milliseconds of a phase."""
    what = {"request": "", OTHER: " spent outside all phases"}.get(phase, f" spent in {phase}")
    return Column(
        f"{phase}_ms",
        PHASE,
        f"mean time per batch{what}",
        lambda m: m.totals_ms.get(phase),
        unit="ms",
        better=LOWER,
    )


def baseline_phase_column(phase: str) -> Column:
    """The same for the interleaved baseline."""
    return Column(
        f"baseline_{phase}_ms",
        METRIC,
        f"{phase}_ms of the interleaved baseline",
        lambda m: m.baseline_totals_ms.get(phase),
        unit="ms",
    )


def share_column(phase: str) -> Column:
    """Share of a phase in its request."""
    return Column(f"{phase}_share", METRIC, f"{phase}_ms ÷ request_ms, in [0, 1]", lambda m: m.shares.get(phase))
