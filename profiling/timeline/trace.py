"""A measured cell in the Trace Event Format, for Perfetto (ui.perfetto.dev) and chrome://tracing.

Each process has a track for its host and, if phases have GPU times, one for its GPU. Telemetry is shown as counters of
a separate process. The format: https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from profiling.measured_cell import UNKNOWN, Reading, RecordedCell
from profiling.timeline.lanes import LEFT_OUT, Process, Slice, Window, held, host_end_s, power, processes, span

Event = dict[str, Any]
TOLERANCE_S = 5e-6  # neighbours may overlap by this much, because times are rounded when they are written
COUNTERS = {
    "gpu_util_pct": ("GPU busy", "%"),
    "gpu_memory_gb": ("GPU memory", "GB"),
    "energy_j": ("GPU power", "W"),
    "power_w": ("GPU power reported by NVML (mean over about 1 s)", "W"),
    "sm_clock_mhz": ("SM clock", "MHz"),
    "cpu_pct": ("CPU busy", "% of a core"),
    "rss_gb": ("memory of the processes", "GB"),
}
"""Column: name and unit of its counter. Other columns keep their own name."""
OF_THE_PROCESSES = ("cpu_pct", "rss_gb")
SINCE_THE_LAST = ("gpu_util_pct", "cpu_pct")


@dataclass
class _Track:
    """One track while it is being filled."""

    done: list[Slice] = field(default_factory=list)
    opened: list[Slice] = field(default_factory=list)
    free_s: float = float("-inf")  # end of the slices that are no longer open

    def takes(self, one: Slice) -> bool:
        """Whether the slice lies after or inside the slices so far; call it in order of start."""
        while self.opened and self.opened[-1].end_s <= one.start_s + TOLERANCE_S:
            self.free_s = max(self.free_s, self.opened.pop().end_s)
        return not self.opened or one.end_s <= self.opened[-1].end_s + TOLERANCE_S

    def add(self, one: Slice) -> None:
        """Add a slice that fits, trimmed where it overlaps by less than the precision of the files."""
        start_s = max(one.start_s, self.free_s)
        end_s = min([one.end_s, *(outer.end_s for outer in self.opened[-1:])])
        fitted = Slice(one.record, start_s, max(start_s, end_s))
        self.done.append(fitted)
        self.opened.append(fitted)


def trace(cell: RecordedCell, window: Window) -> dict[str, Any]:
    """The whole file as JSON values, with everything that touches the window. The format has no times below 0."""
    zero_s = min(0.0, span(cell)[0])
    events: list[Event] = []
    found = processes(cell.phases)
    for pid, process in enumerate(found, start=1):
        events += _names(pid, process.name)
        tid = 0
        for name, slices in _tracks(process).items():
            shown = (one for one in slices if one.end_s >= window.start_s and one.start_s <= window.end_s)
            for number, part in enumerate(nesting(shown), start=1):
                tid += 1
                events.append(_named(pid, tid, "thread_name", name=name if number == 1 else f"{name} {number}"))
                events.append(_named(pid, tid, "thread_sort_index", sort_index=tid))
                events += (_complete(pid, tid, one, zero_s) for one in part)
    if cell.telemetry:
        events += _names(len(found) + 1, "telemetry")
        since_zero = replace(window, start_s=max(window.start_s, zero_s))
        events += _counters(len(found) + 1, cell.telemetry, since_zero, zero_s)
    before = f"{-zero_s:.6f} s before " if zero_s < 0 else ""
    about = {"cell": cell.label, "clock": f"microseconds from {before}the start of the first request"}
    if cell.clock == UNKNOWN:
        about["telemetry"] = LEFT_OUT
    return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": about}


def nesting(slices: Iterable[Slice]) -> list[list[Slice]]:
    """As few tracks as possible, in order of time, in which slices follow or contain each other, as the format
    requires."""
    tracks: list[_Track] = []
    for one in sorted(slices, key=lambda s: (s.start_s, -s.end_s)):
        track = next((track for track in tracks if track.takes(one)), None)
        if track is None:
            track = _Track()
            tracks.append(track)
        track.add(one)
    return [track.done for track in tracks]


def _tracks(process: Process) -> dict[str, list[Slice]]:
    """Slices by the name of their track."""
    tracks = {"host": [Slice(record, record.start_s, host_end_s(record)) for record in process.records]}
    on_gpu = [one for lane in process.lanes if lane.gpu for one in lane.slices]
    return tracks | ({"GPU, reconstructed from CUDA events": on_gpu} if on_gpu else {})


def _names(pid: int, name: str) -> list[Event]:
    return [_named(pid, 0, "process_name", name=name), _named(pid, 0, "process_sort_index", sort_index=pid)]


def _named(pid: int, tid: int, kind: str, **details: Any) -> Event:
    return {"ph": "M", "pid": pid, "tid": tid, "name": kind, "args": details}


def _complete(pid: int, tid: int, one: Slice, zero_s: float) -> Event:
    record = one.record
    details = {"request": record.request_id, "index": record.index, "host_ms": record.host_ms, "gpu_ms": record.gpu_ms}
    start_us, end_us = _us(one.start_s - zero_s), _us(one.end_s - zero_s)
    return {
        **{"ph": "X", "cat": "phase", "name": record.phase, "pid": pid, "tid": tid},
        **{"ts": start_us, "dur": round(end_us - start_us, 3)},
        "args": {name: value for name, value in details.items() if value is not None},
    }


def _counters(pid: int, telemetry: Sequence[Reading], window: Window, zero_s: float) -> Iterator[Event]:
    """Every column as a counter; GPU columns as one counter per GPU. A counter holds until its next value, so a value
    that covers the time since the previous reading is placed at that reading."""
    gpus = sorted({one.gpu_index for one in telemetry if one.gpu_index is not None})
    rows: list[int | None] = [*gpus] or [None]
    for gpu in rows:
        mine = [one for one in telemetry if one.gpu_index == gpu]
        for column in dict.fromkeys(name for one in mine for name in one.values):
            own = column in OF_THE_PROCESSES
            if own and gpu != rows[0]:
                continue  # the rows of all GPUs repeat the same value
            name, unit = COUNTERS.get(column, (column, column))
            name = name if own or gpu is None else f"{name}, GPU {gpu}"
            for time_s, value in _values(mine, column, window):
                shown = {unit: round(value, 4)}
                ts = _us(time_s - zero_s)
                yield {"ph": "C", "pid": pid, "tid": 0, "name": name, "ts": ts, "args": shown}


def _values(readings: Sequence[Reading], column: str, window: Window) -> Sequence[tuple[float, float]]:
    """(time, value) of a column within the window; the energy counter becomes power."""
    if column == "energy_j":
        return power(readings, window)[::2]
    if column in SINCE_THE_LAST:
        return held(readings, column, window)[::2]
    known = [(one.time_s, one.values[column]) for one in readings if column in one.values]
    return [one for one in known if window.start_s <= one[0] <= window.end_s]


def _us(seconds: float) -> float:
    return round(max(0.0, seconds) * 1e6, 3)
