"""`python -m profiling analyze TRACE…`: what each phase of an Nsight Systems trace does, and what limits it."""

import argparse
from dataclasses import replace
from pathlib import Path

from profiling.atomic_write import write_atomic
from profiling.cell_names import cell_folders
from profiling.errors import Refusal
from profiling.measured_cell import stored_result
from profiling.nsys import export, nsys_cli, rendering
from profiling.nsys.locate import sqlite_of
from profiling.nsys.phase_analysis import Analysis, analyse
from profiling.nsys.sqlite_file import EXPORT_AGAIN
from profiling.printing import complain, json_text, say

KINDS = ".nsys-rep, its .sqlite export, a cell's folder"
SHOWN = 12
RECORD = "record with nsys profile -t cuda,nvtx"
EPILOG = """\
examples
  python -m profiling analyze trace.nsys-rep                       per phase: busy, idle, late launches, and a verdict
  python -m profiling analyze outputs/mine teacache                a cell by its label, or by how that begins
  python -m profiling analyze rank0.sqlite rank1.sqlite --format json
  python -m profiling analyze trace.sqlite --top 10 --all          the ten longest kernels of every range
                                                                   (JSON lists 20, kernels.csv lists all)
  python -m profiling analyze trace.nsys-rep --save FOLDER         also write nsys_phases.csv and kernels.csv
  python -m profiling analyze trace.sqlite --plot phases.png

record with   nsys profile -t cuda,nvtx --cuda-graph-trace=node -s none --cpuctxsw=none -o trace python -m sweep …

verdicts
  A phase's time on the GPU runs from the start of its first operation to the end of its last. It is split into five
  parts: kernels, communication that no kernel hides, copies that no kernel hides, idle time waiting for the host, and
  other idle time. The largest part gives the verdict: compute-, communication-, memory-copy-, launch- or wait-bound.

exit codes: 0 done, 2 bad input (explained in one line)"""


def configure(parser: argparse.ArgumentParser) -> None:
    """The command line."""
    parser.epilog = EPILOG
    parser.add_argument(
        "traces", nargs="+", type=Path, metavar="TRACE", help=f"{KINDS}, or a sweep's folder and the labels of cells"
    )
    parser.add_argument(
        "--format", choices=("text", "json", "csv"), default="text", help="format of the output (default text)"
    )
    top = "number of longest kernels to show for each phase, in text only (default 3)"
    parser.add_argument("--top", type=whole_number, default=3, metavar="N", help=top)
    parser.add_argument("--all", action="store_true", help=f"show all phases, not just the {SHOWN} longest")
    saved = "also write nsys_phases.csv and kernels.csv to this folder"
    parser.add_argument("--save", type=Path, metavar="FOLDER", help=saved)
    parser.add_argument("--plot", type=Path, metavar="FILE", help="also draw the phases (.png, .svg or .pdf)")
    add_host_only(parser)


def whole_number(text: str) -> int:
    """A whole number, 0 or more. Raises ArgumentTypeError."""
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 0 or more")
    return int(text)


def add_host_only(parser: argparse.ArgumentParser) -> None:
    """The option for traces without CUDA."""
    accepted = "accept a trace without CUDA and report host times only (implied for cells that ran on a CPU)"
    parser.add_argument("--host-only", action="store_true", help=accepted)


def run(asked: argparse.Namespace) -> int:
    """Analyse, print and save; returns the exit code. Raises Refusal."""
    analyses = [analysed(trace, asked.host_only) for trace in cell_folders(asked.traces)]
    if asked.save:
        saved = [replace(one, trace=_seen_from(asked.save, one.trace)) for one in analyses]
        write_atomic(asked.save / nsys_cli.PHASES_TABLE, rendering.phases_csv(saved))
        write_atomic(asked.save / nsys_cli.KERNELS_TABLE, rendering.kernels_csv(saved))
    if asked.plot:
        from profiling.nsys.plot import draw

        draw(analyses, asked.plot)
    if asked.format == "json":
        say(json_text(rendering.document(analyses)))
    elif asked.format == "csv":
        say(rendering.phases_csv(analyses), end="")
        for one in analyses:
            for sentence in one.left_out.said():
                complain(f"profiling: {one.trace}: {sentence}")
    else:
        say("\n\n".join(rendering.text(one, asked.top, None if asked.all else SHOWN) for one in analyses))
    return 0


def _seen_from(folder: Path, trace: str) -> str:
    """The trace's path relative to the folder, so that the folder can be moved; unchanged if it lies elsewhere."""
    path = Path(trace).resolve()
    return str(path.relative_to(folder.resolve())) if path.is_relative_to(folder.resolve()) else trace


def analysed(trace: Path, host_only: bool = False) -> Analysis:
    """Analysis of one trace. Raises Refusal when there is nothing to analyse."""
    return analyse(read_trace(trace, host_only), str(trace))


def read_trace(trace: Path, host_only: bool = False) -> export.Export:
    """The trace as arrays. Raises Refusal when it is damaged, has no ranges, or has no CUDA.

    A trace without CUDA is accepted with `host_only`, or if it is the folder of a cell that ran on a CPU.
    """
    with sqlite_of(trace) as path:
        found = export.read(path)
    if why := _no_ranges(found):
        raise Refusal(f"{trace}: {why[0]}", why[1])
    if not host_only and stored_result(trace).get("device") != "cpu" and (why := _no_cuda(found)):
        raise Refusal(f"{trace}: {why[0]}, or add --host-only to see host times only", why[1])
    return found


def _no_ranges(found: export.Export) -> tuple[str, str] | None:
    """Why there is no range to analyse, what to do, and the code; None if there is one."""
    if found.ranges.name:
        return None
    if found.left_out.ranges:
        problem = f"none of the {found.left_out.ranges:,} NVTX ranges has possible times"
        return f"{problem}; {EXPORT_AGAIN}", "no_times"
    if found.ranges.still_open:
        return "every NVTX range was still open when recording ended; record for longer", "ranges_open"
    there = f" ({lacking})" if (lacking := found.lacks(export.RANGES)) else ""
    advice = f"{RECORD} (python -m profiling doctor finds out what is missing)"
    return f"the trace has no NVTX ranges{there}; {advice}", "no_ranges"


def _no_cuda(found: export.Export) -> tuple[str, str] | None:
    """Why the trace says nothing about GPUs, what to do, and the code; None if it does."""
    count = len(found.operations.start)
    if count and len(found.calls.start):
        return None
    if count:
        there = found.lacks(export.CALLS) or f"no usable row in {export.CALLS}"
        problem = f"the trace has {count:,} GPU operations but not the API calls that launched them ({there})"
        return f"{problem}; {RECORD}", "no_calls"
    if found.left_out.operations:
        problem = f"none of the {found.left_out.operations:,} GPU operations has possible times"
        return f"{problem}; {RECORD}", "no_times"
    absent = [found.lacks(table) for table in export.OPERATIONS.values()]
    alike = next((lacking for lacking in absent if ", but " in lacking), "")
    there = f" ({alike})" if alike else ""
    return f"the trace has no CUDA activity{there}; {RECORD}", "no_cuda"
