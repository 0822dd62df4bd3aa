"""What limits a phase, judged from its numbers alone.

The projected time of a phase is split into five parts (see `phase_analysis.Phase`); the largest gives the verdict.
"Compute-bound" says that kernels fill the time. A timeline cannot show whether kernels themselves wait for arithmetic
or for memory.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from profiling.nsys.phase_analysis import Phase


@dataclass(frozen=True)
class Verdict:
    """`bound` is one of BOUNDS, or "" when the phase did not use a GPU; `sentence` says why, with numbers."""

    bound: str
    sentence: str


WORTH_TELLING = 0.1
"""Share of a phase above which the sentence also mentions a part that is not the largest."""

BOUNDS = {
    "compute-bound": "kernels fill the time",
    "communication-bound": "the GPU exchanges data with other GPUs while no kernel runs",
    "memory-copy-bound": "the GPU copies or fills memory while no kernel runs",
    "launch-bound": "the GPU waits for the host to launch the next operation",
    "wait-bound": "the GPU waits although work is launched: for an event, another stream or another GPU",
}


ALSO = {
    "communication-bound": "communication",
    "memory-copy-bound": "copies",
    "launch-bound": "waiting for the host",
    "wait-bound": "waiting for something else",
}
"""Other parts that the sentence mentions. Kernels are not among them: they are what the GPU is busy with."""


def judge(phase: Phase) -> Verdict:
    """The verdict on a phase."""
    if not phase.projected_ns:
        return Verdict("", f"{phase.name} launched nothing on a GPU; it took {duration(phase.host_ns)} on the host")
    parts = {
        "compute-bound": phase.compute_ns,
        "communication-bound": phase.communication_exposed_ns,
        "memory-copy-bound": phase.copy_exposed_ns,
        "launch-bound": phase.idle_for_host_ns,
        "wait-bound": phase.idle_otherwise_ns,
    }
    shares = {name: ns / phase.projected_ns for name, ns in parts.items()}
    bound, *others = sorted(parts, key=lambda name: -parts[name])
    also = [f"{ALSO[name]} {shares[name]:.0%}" for name in others if name in ALSO and shares[name] >= WORTH_TELLING]
    busy = f"GPU busy {(phase.busy_share or 0):.0%}"
    busy += f"; also: {', '.join(also)}" if also else ""
    return Verdict(bound, f"{phase.name} is {bound}: {_because(bound, shares[bound], phase, busy)}")


def _because(bound: str, share: float, phase: Phase, busy: str) -> str:
    if bound == "launch-bound":
        late = (
            f"{(phase.late_share or 0):.0%} of its {phase.launches:,} launches came after the GPU had run out of work"
        )
        return f"{late}; {busy}"
    if bound == "wait-bound":
        return f"the GPU spends {share:.0%} of the time waiting for something other than the next launch; {busy}"
    if bound == "communication-bound":
        hidden = phase.communication_hidden_share or 0
        return (
            f"communication fills {share:.0%} of its time, and kernels hide {hidden:.0%} of all communication; {busy}"
        )
    if bound == "memory-copy-bound":
        rate = phase.copied_bytes / phase.copy_ns if phase.copy_ns else 0
        return f"copies fill {share:.0%} of its time ({size(phase.copied_bytes)} at {rate:.3g} GB/s); {busy}"
    longest = next((kernel for kernel in phase.kernels if kernel.kind == "kernel"), None)
    most = f" ({longest.total_ns / phase.projected_ns:.0%} in {short(longest.name)})" if longest else ""
    return f"kernels fill {share:.0%} of its {duration(phase.projected_ns)}{most}; {busy}"


def waiting(phases: Iterable[Phase]) -> list[str]:
    """A sentence for each phase in which a process waits in collectives for a slower one.

    `phases`: outer before inner, as they come. A collective's kernel runs from the moment its process arrives until all
    have arrived, so the process that arrives last waits least. The same wait is reported for the innermost phase only.
    """
    found: dict[str, list[Phase]] = {}
    for phase in phases:
        found.setdefault(phase.name, []).append(phase)
    said: dict[tuple[int, int], str] = {}
    for name, processes in found.items():
        last = min(processes, key=lambda one: one.communication_ns)
        first = max(processes, key=lambda one: one.communication_ns)
        waits = first.communication_ns - last.communication_ns
        if last.communication_ns and waits >= WORTH_TELLING * first.projected_ns:
            said[first.communication_ns, last.communication_ns] = (
                f"{name}: communication takes {duration(first.communication_ns)} in process {first.process} and "
                f"{duration(last.communication_ns)} in process {last.process}; "
                f"process {first.process} spends the difference waiting for process {last.process}"
            )
    return list(said.values())


def short(kernel: str, limit: int = 60) -> str:
    """A kernel's name without return type, template and call arguments."""
    if not kernel.startswith("["):
        call = kernel.removeprefix("void ").replace("(anonymous namespace)::", "").replace("<unnamed>::", "")
        kernel = call.partition("<")[0].partition("(")[0].strip().split(" ")[-1] or kernel
    name = kernel
    return name if len(name) <= limit else name[: limit - 1] + "…"


def size(count: float) -> str:
    """Bytes in the first of B, kB and MB that makes the number smaller than 1000, else in GB."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.2f} GB"


def duration(ns: float) -> str:
    """A time in ms, or in µs below 1 ms."""
    return f"{ns / 1e6:,.1f} ms" if ns >= 1e6 else f"{ns / 1e3:,.1f} µs"
