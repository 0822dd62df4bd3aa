"""`python -m profiling analyze TRACE…`: what an Nsight Systems trace says of each phase, and what bounds it."""

import argparse
import json
from dataclasses import replace
from pathlib import Path

from profiling.atomic_write import write_atomic
from profiling.errors import Refusal
from profiling.measured_cell import stored_result
from profiling.nsys import export, nsys_cli, rendering
from profiling.nsys.locate import sqlite_of
from profiling.nsys.phase_analysis import Analysis, analyse

SHOWN = 12
RECORD = "record with nsys profile -t cuda,nvtx"
EPILOG = """\
examples
  python -m profiling analyze trace.nsys-rep                       per phase: busy, idle, late launches, and a verdict
  python -m profiling analyze rank0.sqlite rank1.sqlite --format json
  python -m profiling analyze trace.sqlite --top 10 --all          ten longest kernels of every range
                                                                   (JSON has 20 and kernels_total; kernels.csv all)
  python -m profiling analyze trace.nsys-rep --save FOLDER         nsys_phases.csv and kernels.csv
  python -m profiling analyze trace.sqlite --plot phases.png

record with   nsys profile -t cuda,nvtx --cuda-graph-trace=node -s none --cpuctxsw=none -o trace python -m sweep …

verdicts
  A phase's time on the GPU, from the start of its first to the end of its last operation, is cut into kernels,
  communication and copies with no kernel beside them, idle time that waits for the host, and other idle time. The
  largest of them names the verdict: compute-, communication-, memory-copy-, launch- or wait-bound.

exit codes: 0 done, 2 bad input (one line says what)"""


def configure(parser: argparse.ArgumentParser) -> None:
    """The command line."""
    parser.epilog = EPILOG
    parser.add_argument(
        "traces", nargs="+", type=Path, metavar="TRACE", help=".nsys-rep, its .sqlite export, or a cell's folder"
    )
    parser.add_argument("--format", choices=("text", "json", "csv"), default="text", help="of stdout (default text)")
    parser.add_argument(
        "--top", type=whole_number, default=3, metavar="N", help="longest kernels of a phase (default 3; of text)"
    )
    parser.add_argument("--all", action="store_true", help=f"show every range's name, not the {SHOWN} longest")
    parser.add_argument("--save", type=Path, metavar="FOLDER", help="also write nsys_phases.csv and kernels.csv there")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="also draw the phases: .png, .svg or .pdf")
    add_host_only(parser)


def whole_number(text: str) -> int:
    """A number from 0 on. Raises ArgumentTypeError."""
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 on")
    return int(text)


def add_host_only(parser: argparse.ArgumentParser) -> None:
    """The option for traces without CUDA."""
    said = "accept a trace without CUDA: times on the host alone (so it is for cells that ran on a CPU)"
    parser.add_argument("--host-only", action="store_true", help=said)


def run(asked: argparse.Namespace) -> int:
    """Analyse, print, save; returns the exit code. Raises Refusal."""
    analyses = [analysed(trace, asked.host_only) for trace in asked.traces]
    if asked.save:
        told = [replace(one, trace=_seen_from(asked.save, one.trace)) for one in analyses]
        write_atomic(asked.save / nsys_cli.PHASES_TABLE, rendering.phases_csv(told))
        write_atomic(asked.save / nsys_cli.KERNELS_TABLE, rendering.kernels_csv(told))
    if asked.plot:
        from profiling.nsys.plot import draw

        draw(analyses, asked.plot)
    if asked.format == "json":
        print(json.dumps(rendering.document(analyses), indent=1))
    elif asked.format == "csv":
        print(rendering.phases_csv(analyses), end="")
    else:
        print("\n\n".join(rendering.text(one, asked.top, None if asked.all else SHOWN) for one in analyses))
    return 0


def _seen_from(folder: Path, trace: str) -> str:
    """The trace's path within the folder, so that the folder can be moved; as it is when it lies elsewhere."""
    path = Path(trace).resolve()
    return str(path.relative_to(folder.resolve())) if path.is_relative_to(folder.resolve()) else trace


def analysed(trace: Path, host_only: bool = False) -> Analysis:
    """Analysis of one trace. Raises Refusal with one line when there is nothing to analyse."""
    return analyse(read_trace(trace, host_only), str(trace))


def read_trace(trace: Path, host_only: bool = False) -> export.Export:
    """The trace in arrays. Raises Refusal when it is bad, or has no ranges, or no CUDA.

    Without CUDA it is taken with `host_only`, and as the folder of a cell that ran on a CPU.
    """
    with sqlite_of(trace) as path:
        found = export.read(path)
    if not found.ranges.name and not found.ranges.still_open:
        raise Refusal(f"{trace}: no NVTX ranges: {RECORD} (python -m profiling doctor helps)")
    if not found.ranges.name:
        raise Refusal(f"{trace}: every NVTX range was still open when recording ended: record for longer")
    if not found.has_cuda and not host_only and stored_result(trace).get("device") != "cpu":
        raise Refusal(f"{trace}: no CUDA activity: {RECORD} (--host-only: host times alone)")
    return found
