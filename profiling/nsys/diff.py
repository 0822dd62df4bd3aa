"""`python -m profiling diff A B`: which phases and kernels explain the difference between two Nsight Systems traces.

Phases are compared per request and process, kernels by name within a phase, and the ranges of a phase by the order of
their launches.
"""

import argparse
import difflib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from profiling.cell_names import cell_folders
from profiling.errors import Refusal
from profiling.nsys import launches
from profiling.nsys.analyze import KINDS, add_host_only, read_trace, whole_number
from profiling.nsys.launches import Launched, Repeat
from profiling.nsys.phase_analysis import OWN_DOMAINS
from profiling.nsys.plausible import NOTHING, LeftOut
from profiling.nsys.projection import COLUMNS
from profiling.nsys.rendering import columns
from profiling.nsys.verdict import duration, short
from profiling.printing import clean, json_text, say

LONGEST_ALIGNED = 4000  # launches of a range; of longer ranges only the number of launches is compared
EPILOG = """\
examples
  python -m profiling diff outputs/mine/baseline-b1-1a2b3c4d outputs/mine/teacache-b1-5e6f7a8b
  python -m profiling diff outputs/mine baseline teacache         the same by their labels
  python -m profiling diff a.sqlite b.sqlite --top 20 --format json

Times are per request and process (rank), so you can compare runs of different lengths and on several GPUs. Each kernel
counts only in the innermost phase that launched it, so the changes of the kernels add up. "launch order" compares what
the ranges of a phase launched: a cache that skips blocks shows up as ranges with missing launches.

exit codes: 0 done, 2 bad input (explained in one line)"""


@dataclass(frozen=True)
class PhaseChange:
    """A phase of either trace, in ns per request and process. 0 where a trace does not have it."""

    phase: str
    ranges: tuple[float, float]
    on_gpu_ns: tuple[float, float]
    on_host_ns: tuple[float, float]
    parts_ns: dict[str, float]  # change of each of projection.COLUMNS

    @property
    def change_ns(self) -> float:
        """Change on the GPU."""
        return self.on_gpu_ns[1] - self.on_gpu_ns[0]

    @property
    def host_change_ns(self) -> float:
        """Change on the host."""
        return self.on_host_ns[1] - self.on_host_ns[0]


@dataclass(frozen=True)
class KernelChange:
    """Operations of one name within a phase, per request and process."""

    phase: str
    kernel: str
    count: tuple[float, float]
    total_ns: tuple[float, float]

    @property
    def change_ns(self) -> float:
        """Change of the sum of durations."""
        return self.total_ns[1] - self.total_ns[0]


@dataclass(frozen=True)
class OrderChange:
    """How the ranges of a phase differ in what they launch. Pairs are (launches, ranges), the most ranges first."""

    phase: str
    before: tuple[tuple[int, int], ...]
    after: tuple[tuple[int, int], ...]
    missing: int  # launches of the usual range in A that the most frequent other kind of range in B lacks
    added: int
    of: int  # launches of the usual range in A
    ranges: int  # ranges in B of that kind
    repeats: Repeat | None  # the group that the missing launches repeat
    added_repeats: Repeat | None
    clause: str  # the sentence without its subject, the phase

    @property
    def sentence(self) -> str:
        """The difference in words."""
        return f"{self.phase}: {self.clause}"


@dataclass(frozen=True)
class Difference:
    """B against A."""

    a: str
    b: str
    requests: tuple[float, float]  # per process; 1 where no request was recorded
    alone: tuple[tuple[str, ...], tuple[str, ...]]  # phases that only A has, and those that only B has
    on_host: bool  # neither trace has CUDA, so host times are compared
    phases: tuple[PhaseChange, ...]  # of both, largest change first
    kernels: tuple[KernelChange, ...]  # largest change first
    orders: tuple[OrderChange, ...]
    left_out: tuple[LeftOut, LeftOut] = (NOTHING, NOTHING)


def configure(parser: argparse.ArgumentParser) -> None:
    """The command line."""
    parser.epilog = EPILOG
    kinds = f"the traces before and after: {KINDS}, or a sweep's folder and the labels of cells"
    parser.add_argument("traces", type=Path, nargs="+", metavar="TRACE", help=kinds)
    parser.add_argument(
        "--format", choices=("text", "json"), default="text", help="format of the output (default text)"
    )
    top = "number of kernels to show, in text only (default 10)"
    parser.add_argument("--top", type=whole_number, default=10, metavar="N", help=top)
    add_host_only(parser)


def run(asked: argparse.Namespace) -> int:
    """Compare and print; returns the exit code. Raises Refusal."""
    traces = cell_folders(asked.traces)
    if len(traces) != 2:
        raise Refusal(f"give two traces, before and after, not {len(traces)} (--help shows examples)", "usage")
    before, after = traces
    found = compare(before, after, asked.host_only)
    if asked.format == "json":
        say(json_text(document(found)))
    else:
        say(text(found, max(0, asked.top)))
    return 0


def compare(a: Path, b: Path, without_cuda: bool = False) -> Difference:
    """The difference. Raises Refusal when a trace is damaged, or the two have no range in common."""
    exports = [read_trace(path, without_cuda) for path in (a, b)]
    if exports[0].has_cuda != exports[1].has_cuda:
        without = a if exports[1].has_cuda else b
        problem = "has no CUDA activity but the other trace has, so they cannot be compared"
        raise Refusal(f"{without} {problem}", "cuda_in_one")
    own = [zip(one.ranges.name, one.ranges.domain, strict=True) for one in exports]
    names = [{name for name, domain in ranges if domain in OWN_DOMAINS} for ranges in own]
    common = names[0] & names[1]
    if not common:
        problem = "have no NVTX range in common, so they cannot be compared by phase"
        raise Refusal(f"{a} and {b} {problem}", "no_common_range")
    phases = sorted(names[0] | names[1])
    before, after = (defaultdict(Launched, launches.launched(export, set(phases))) for export in exports)
    scales, on_host = (_requests(before), _requests(after)), not exports[0].has_cuda
    return Difference(
        a=str(a),
        b=str(b),
        requests=scales,
        alone=(tuple(sorted(names[0] - common)), tuple(sorted(names[1] - common))),
        on_host=on_host,
        phases=tuple(
            sorted(
                (_phase(p, before[p], after[p], scales) for p in phases),
                key=lambda one: -abs(one.host_change_ns if on_host else one.change_ns),
            )
        ),
        kernels=tuple(
            sorted(
                (one for phase in phases for one in _kernels(phase, before[phase], after[phase], scales)),
                key=lambda one: -abs(one.change_ns),
            )
        ),
        orders=tuple(filter(None, (_order(phase, before[phase], after[phase]) for phase in sorted(common)))),
        left_out=(exports[0].left_out, exports[1].left_out),
    )


def _requests(found: dict[str, Launched]) -> float:
    """Requests per process."""
    requests = found.get("request")
    return requests.ranges / len(requests.processes) if requests else 1.0


def _scale(phase: Launched, requests: float) -> float:
    """Divisor that turns its sums into sums per request and process; also for a phase that never ran."""
    return max(1, len(phase.processes)) * requests


def _phase(name: str, before: Launched, after: Launched, requests: tuple[float, float]) -> PhaseChange:
    scales = _scale(before, requests[0]), _scale(after, requests[1])
    parts = after.parts_ns / scales[1] - before.parts_ns / scales[0]
    return PhaseChange(
        phase=name,
        ranges=(before.ranges / scales[0], after.ranges / scales[1]),
        on_gpu_ns=(before.projected_ns / scales[0], after.projected_ns / scales[1]),
        on_host_ns=(before.host_ns / scales[0], after.host_ns / scales[1]),
        parts_ns={column: float(part) for column, part in zip(COLUMNS, parts, strict=True)},
    )


def _kernels(name: str, before: Launched, after: Launched, requests: tuple[float, float]) -> list[KernelChange]:
    a, b = _scale(before, requests[0]), _scale(after, requests[1])
    return [
        KernelChange(
            name,
            kernel,
            (before.counts[kernel] / a, after.counts[kernel] / b),
            (before.total_ns[kernel] / a, after.total_ns[kernel] / b),
        )
        for kernel in sorted({*before.counts, *after.counts})
    ]


def _order(name: str, before: Launched, after: Launched) -> OrderChange | None:
    """None when the ranges of both traces launch the same operations, or none."""
    usual = max(before.sequences, key=lambda one: (before.sequences[one], len(one)), default=())
    others = {sequence: count for sequence, count in after.sequences.items() if sequence not in before.sequences}
    if not usual or not others:
        return None
    kinds_after: dict[int, int] = {}
    for sequence, count in others.items():
        kinds_after[len(sequence)] = kinds_after.get(len(sequence), 0) + count
    other = max(others, key=lambda one: (others[one] * abs(len(one) - len(usual)), others[one]))
    missing, added, repeats, added_repeats = len(usual) - len(other), 0, None, None
    if max(len(usual), len(other)) <= LONGEST_ALIGNED:
        gone, come = _aligned(usual, other)
        missing, added = len(gone), len(come)
        repeats, added_repeats = (launches.repeat_of(one) if len(one) >= 8 else None for one in (gone, come))
    elif missing < 0:
        missing, added = 0, -missing
    ranges = kinds_after[len(other)]
    launch = f"{ranges:,} of {after.ranges:,} ranges in B launch {len(other):,} operations instead of {len(usual):,}"
    changes = [(missing, "missing", repeats), (added, "new", added_repeats)]
    counted = [_counted(*change) for change in sorted(changes, key=lambda one: -one[0]) if change[0]]
    return OrderChange(
        phase=name,
        before=_lengths(before),
        after=_lengths(after),
        missing=missing,
        added=added,
        of=len(usual),
        ranges=ranges,
        repeats=repeats,
        added_repeats=added_repeats,
        clause="; ".join([launch, *counted]),
    )


def _counted(count: int, what: str, repeat: Repeat | None) -> str:
    """Such as "1,451 are missing (a group of 73 repeated 20 times, like transformer blocks)"."""
    are = f"{count:,} {'is' if count == 1 else 'are'} {what}"
    return (
        f"{are} (a group of {repeat.group} repeated {repeat.times} times, like transformer blocks)" if repeat else are
    )


def _lengths(phase: Launched) -> tuple[tuple[int, int], ...]:
    found: dict[int, int] = {}
    for sequence, count in phase.sequences.items():
        found[len(sequence)] = found.get(len(sequence), 0) + count
    return tuple(sorted(found.items(), key=lambda pair: -pair[1]))


def _aligned(a: launches.Sequence, b: launches.Sequence) -> tuple[launches.Sequence, launches.Sequence]:
    """What only `a` has and what only `b` has, each in order."""
    gone: list[str] = []
    come: list[str] = []
    for kind, a0, a1, b0, b1 in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if kind != "equal":
            gone += a[a0:a1]
            come += b[b0:b1]
    return tuple(gone), tuple(come)


def document(found: Difference) -> dict[str, object]:
    """For JSON; `left_out` (of A, of B) only where something was."""
    fields = asdict(found)
    fields.pop("left_out")
    if any(one.counted() for one in found.left_out):
        fields["left_out"] = [one.counted() for one in found.left_out]
    for kind in ("phases", "kernels"):
        for row, one in zip(fields[kind], getattr(found, kind), strict=True):
            row["change_ns"] = one.change_ns
    for row, order in zip(fields["orders"], found.orders, strict=True):
        del row["clause"]
        row["sentence"] = order.sentence
    return {"schema_version": 1, **fields}


def text(found: Difference, top: int) -> str:
    """For a terminal."""
    lines = [f"A {clean(found.a)}", f"B {clean(found.b)}"]
    if found.requests != (1.0, 1.0):
        lines.append(f"per request and process; {found.requests[0]:g} requests in A, {found.requests[1]:g} in B")
    header: tuple[str, ...] = ("phase", "ranges", "on host in A", "in B", "change")
    if not found.on_host:
        header = ("phase", "ranges", "on GPU in A", "in B", "change", "kernels", "comm.", "copies", "idle")
    lines += columns(header, [_cells(one, found.on_host) for one in found.phases])
    if found.on_host:
        return "\n".join([*lines, "", *_left_out(found), *_explained(found)])
    whole = sum(one.change_ns for one in found.kernels)
    lines += ["", f"kernels and copies: {_signed(whole)} in total, largest change first"]
    for one in [kernel for kernel in found.kernels if kernel.change_ns][:top]:
        counts = f"{one.count[0]:,.6g} → {one.count[1]:,.6g}"
        lines.append(f"  {_signed(one.change_ns):>12}  {counts:>16} ×  {one.phase:<14}  {short(one.kernel, 70)}")
    if found.orders:
        lines += ["", "launch order", *(f"  {one.sentence}" for one in found.orders)]
    return "\n".join(["\n".join(lines), "", *_left_out(found), *_explained(found)])


def _cells(one: PhaseChange, on_host: bool) -> tuple[str, ...]:
    ranges = f"{one.ranges[0]:.6g}" if one.ranges[0] == one.ranges[1] else f"{one.ranges[0]:.6g} → {one.ranges[1]:.6g}"
    if on_host:
        return one.phase, ranges, duration(one.on_host_ns[0]), duration(one.on_host_ns[1]), _signed(one.host_change_ns)
    idle = one.parts_ns["idle_for_host"] + one.parts_ns["idle_otherwise"]
    parts = (one.parts_ns["compute"], one.parts_ns["communication"], one.parts_ns["copy"], idle)
    return (
        one.phase,
        ranges,
        duration(one.on_gpu_ns[0]),
        duration(one.on_gpu_ns[1]),
        _signed(one.change_ns),
        *(_signed(part) if round(part) else "" for part in parts),
    )


def _explained(found: Difference) -> Sequence[str]:
    """The one line to take away."""
    inner = [one for one in found.phases if one.phase not in ("request", "denoise_step")] or list(found.phases)
    largest = inner[0]
    if found.on_host:
        change = _signed(largest.host_change_ns)
        return [f"largest change: {largest.phase}, {change} on the host; nothing ran on a GPU"]
    if not largest.change_ns:
        return ["no phase changed on the GPU"]
    parts = sorted(largest.parts_ns.items(), key=lambda part: -abs(part[1]))
    what = {"compute": "kernels", "copy": "copies", "idle_for_host": "waiting for the host"}
    what |= {"idle_otherwise": "waiting for something else"}
    change = f"{_signed(largest.change_ns)}, mostly {what.get(parts[0][0], parts[0][0])}"
    order = next((one for one in found.orders if one.phase == largest.phase), None)
    return [f"largest change: {largest.phase}, {change}{f' ({order.clause})' if order else ''}"]


def _left_out(found: Difference) -> list[str]:
    sides = zip("AB", found.left_out, strict=True)
    return [f"in {name}, {sentence}" for name, one in sides for sentence in one.said()]


def _signed(ns: float) -> str:
    if not round(ns):
        return "0"
    return f"{'+' if ns > 0 else '−'}{duration(abs(ns))}"
