"""Renders an analysis as CSV, as JSON and for a terminal. Decides columns and units, computes nothing."""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from profiling.nsys.phase_analysis import Analysis, Kernel, Phase
from profiling.nsys.verdict import duration, judge, short, waiting
from profiling.printing import clean, for_spreadsheets

LONG_SHARE = 0.1  # of the longest phase; shorter phases show their kernels only with --all
HOST_HEADER = ("phase", "process", "ranges", "on host")
HOST_ONLY = "nothing ran on a GPU during the recording, so these are host times only"
KERNELS_IN_JSON = 20  # per phase; kernels.csv has all
PHASE_COLUMNS = (
    *(
        "phase",
        "process",
        "domain",
        "ranges",
        "instances",
        "host_ns",
        "projected_ns",
        "busy_ns",
        "busy_share",
        "gap_ns",
    ),
    *("compute_ns", "communication_exposed_ns", "copy_exposed_ns", "idle_for_host_ns", "idle_otherwise_ns"),
    *("communication_ns", "communication_hidden_share", "copy_ns", "copied_bytes"),
    *("operations", "launches", "late_launches", "late_share", "mean_queue_ns", "graph_launches"),
    *("verdict", "sentence", "trace"),
)
KERNEL_COLUMNS = ("phase", "process", "kernel", "kind", "count", "total_ns", "mean_ns", "share_of_projected", "trace")


def phase_row(phase: Phase, trace: str) -> dict[str, Any]:
    """Values of PHASE_COLUMNS; missing ones are None."""
    verdict = judge(phase)
    row = {"phase": phase.name, "trace": clean(trace), "verdict": verdict.bound or None, "sentence": verdict.sentence}
    return {column: row[column] if column in row else _rounded(getattr(phase, column)) for column in PHASE_COLUMNS}


def kernel_row(kernel: Kernel, phase: Phase, trace: str) -> dict[str, Any]:
    """Values of KERNEL_COLUMNS."""
    return {
        "phase": phase.name,
        "process": phase.process,
        "kernel": kernel.name,
        "kind": kernel.kind,
        "count": kernel.count,
        "total_ns": kernel.total_ns,
        "mean_ns": _rounded(kernel.total_ns / kernel.count),
        "share_of_projected": _rounded(kernel.total_ns / phase.projected_ns) if phase.projected_ns else None,
        "trace": clean(trace),
    }


def document(analyses: Sequence[Analysis]) -> dict[str, Any]:
    """For JSON: all phases of all traces in one list, each phase with its longest kernels."""
    phases = []
    for analysis in analyses:
        for phase in analysis.phases:
            row = phase_row(phase, analysis.trace)
            kernels = [kernel_row(kernel, phase, analysis.trace) for kernel in phase.kernels[:KERNELS_IN_JSON]]
            own = ("phase", "process", "trace")
            shown = [{key: value for key, value in one.items() if key not in own} for one in kernels]
            phases.append({"name": row.pop("phase"), **row, "kernels_total": len(phase.kernels), "kernels": shown})
    return {"schema_version": 1, "traces": [_about(one) for one in analyses], "phases": phases}


def _about(analysis: Analysis) -> dict[str, Any]:
    """A trace without its phases; `left_out` only where something was."""
    about = {key: value for key, value in vars(analysis).items() if key not in ("phases", "left_out")}
    return about | ({"left_out": counted} if (counted := analysis.left_out.counted()) else {})


def phases_csv(analyses: Sequence[Analysis]) -> str:
    """nsys_phases.csv."""
    return _csv(PHASE_COLUMNS, (phase_row(phase, one.trace) for one in analyses for phase in one.phases))


def kernels_csv(analyses: Sequence[Analysis]) -> str:
    """kernels.csv: every kernel of every phase."""
    found = ((one, phase, kernel) for one in analyses for phase in one.phases for kernel in phase.kernels)
    return _csv(KERNEL_COLUMNS, (kernel_row(kernel, phase, one.trace) for one, phase, kernel in found))


def text(analysis: Analysis, top: int, shown: int | None) -> str:
    """For a terminal: a table of phases, a verdict for each, and the `top` longest kernels of the long phases.

    `shown`: how many phases; None for all, including those of libraries (domains other than ours and the default).
    """
    gpus = f", {_counted(analysis.gpus)}" if analysis.gpus else ""
    lines = [f"{clean(analysis.trace)}: {analysis.operations:,} GPU operations{gpus}, export schema {analysis.schema}"]
    phases = analysis.phases if shown is None else analysis.main()[:shown]
    if not analysis.operations:
        table = columns(HOST_HEADER, [_cells(phase)[:4] for phase in phases])
        return "\n".join([*lines, "", *table, "", HOST_ONLY, *analysis.left_out.said()])
    header = ("phase", "process", "ranges", "on host", "on GPU", "busy", "comm.", "copies", "idle", "late", "queue")
    lines += ["", *columns(header, [_cells(phase) for phase in phases])]
    if len(phases) < len(analysis.phases):
        hidden = len(analysis.phases) - len(phases)
        lines.append(f"--all shows {hidden} more: shorter phases and ranges of libraries")
    processes = Counter(phase.name for phase in phases)
    lines += [""]
    for phase in phases:
        where = f"process {phase.process}: " if processes[phase.name] > 1 else ""
        lines.append(f"* {where}{judge(phase).sentence}")
    lines += [f"* {said}" for said in waiting(phases)]
    long = max((phase.projected_ns for phase in phases), default=0) * LONG_SHARE
    for phase in phases if top else ():
        if phase.kernels and (shown is None or phase.projected_ns >= long):
            which = f"longest of {len(phase.kernels)} kernels and copies"
            lines += ["", f"{phase.name}, process {phase.process}: {which}"]
            lines += [_kernel_line(kernel, phase) for kernel in phase.kernels[:top]]
    notes = list(_notes(analysis))
    return "\n".join([*lines, *([""] if notes else []), *notes])


def _cells(phase: Phase) -> tuple[str, ...]:
    whole = phase.projected_ns
    return (
        phase.name if len(phase.name) <= 44 else phase.name[:43] + "…",
        str(phase.process),
        f"{phase.instances:,} of {phase.ranges:,}" if 0 < phase.instances < phase.ranges else f"{phase.ranges:,}",
        duration(phase.host_ns),
        duration(whole) if whole else "",
        _percent(phase.busy_share),
        _percent(phase.communication_exposed_ns / whole if phase.communication_ns else None),
        _percent(phase.copy_exposed_ns / whole if phase.copy_ns else None),
        _percent(phase.gap_ns / whole if whole else None),
        _percent(phase.late_share),
        "" if phase.mean_queue_ns is None else duration(phase.mean_queue_ns),
    )


def columns(header: Sequence[str], cells: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table: the first column is left-aligned, all others are right-aligned."""
    rows = [header, *cells]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    aligned = [
        [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        for row in rows
    ]
    return ["  ".join(row).rstrip() for row in aligned]


def _kernel_line(kernel: Kernel, phase: Phase) -> str:
    share = kernel.total_ns / phase.projected_ns if phase.projected_ns else 0
    return f"  {duration(kernel.total_ns):>12}  {share:>6.1%}  {kernel.count:>9,} ×  {short(kernel.name, 90)}"


def _notes(analysis: Analysis) -> Iterable[str]:
    yield from analysis.left_out.said()
    if analysis.outside and analysis.operations:
        yield f"{analysis.outside / analysis.operations:.1%} of the operations were launched outside any range"
    if analysis.unknown:
        yield f"operations without a recorded API call, because launched before recording began: {analysis.unknown:,}"
    if analysis.still_open:
        yield f"ranges left out, because still open when recording ended: {analysis.still_open:,}"
    if any(kernel.name == "[CUDA graph]" for phase in analysis.phases for kernel in phase.kernels):
        yield "CUDA graphs were traced as a whole, so idle time inside them is hidden; --cuda-graph-trace=node shows it"
    if analysis.operations:
        yield (
            "on GPU: from the start of the first operation launched in a range to the end of the last; "
            "busy: share of that time with an operation running; comm., copies: share that no kernel hides; "
            "late: launches that came after the GPU had run out of work; queue: mean time from launch to start"
        )


def _counted(names: Sequence[str]) -> str:
    counts: Mapping[str, int] = {name: names.count(name) for name in names}
    return ", ".join(f"{count} × {name}" if count > 1 else name for name, count in counts.items())


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"


def _rounded(value: Any) -> Any:
    return round(value, 6) if isinstance(value, float) else value


def _csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:  # None is written as empty
        writer.writerow({key: for_spreadsheets(one) if isinstance(one, str) else one for key, one in row.items()})
    return out.getvalue()
