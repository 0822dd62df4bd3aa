"""`python -m profiling timeline CELL`: a measured cell as a Perfetto trace and as one picture.

Reads what the cell's folder holds, writes timeline.json, timeline.png and timeline.svg, and prints where the time
went. What they show is decided in `lanes`.
"""

import argparse
import io
import json
from collections.abc import Sequence
from pathlib import Path

from profiling.atomic_write import write_atomic
from profiling.errors import Refusal
from profiling.measured_cell import NEARLY_ALIGNED, UNKNOWN, RecordedCell, read_cell
from profiling.timeline.bottleneck import PhaseTime, bottleneck, held_up_by, phase_times
from profiling.timeline.lanes import Window, span, window_of

DPI = 150
EXAMPLES = """
examples:
  python -m profiling timeline outputs/mine/teacache-b1-1a2b3c4d
  python -m profiling timeline CELL --request r001 --repeat 2     another request; all of its batch is shown
  python -m profiling timeline CELL --from 1.2 --to 1.5           seconds since the cell's first request
  python -m profiling timeline CELL --from 0 --out figures        the whole cell, elsewhere

timeline.json opens in https://ui.perfetto.dev; it holds the whole cell unless a part of it was asked for.
exit codes: 0 done, 2 bad input (one line says what)"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.description = __doc__.split("\n", 1)[0] if __doc__ else ""
    parser.epilog = EXAMPLES
    parser.add_argument("cell", type=Path, metavar="CELL", help="folder of a measured cell, which holds phases.csv")
    parser.add_argument("--request", default="", metavar="ID", help="show the batch of this request (default: first)")
    parser.add_argument("--repeat", type=int, metavar="N", help="show this repeat of it, from 0")
    parser.add_argument("--from", dest="from_s", type=float, metavar="SECONDS", help="show from here")
    parser.add_argument("--to", dest="to_s", type=float, metavar="SECONDS", help="show to here")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where to write (default: the cell's folder)")


def run(asked: argparse.Namespace) -> int:
    """Exit code 0. Raises Refusal."""
    cell = read_cell(asked.cell)
    window = window_of(cell, asked.request, asked.repeat, asked.from_s, asked.to_s)
    chosen = bool(asked.request or asked.repeat is not None or asked.from_s is not None or asked.to_s is not None)
    folder = asked.out or asked.cell
    written = write(cell, window, folder, window if chosen else Window(*span(cell)))
    for line in said(cell, window):
        print(line)
    for path in written:
        print(f"{path.name:14} {path}")
    return 0


def write(cell: RecordedCell, window: Window, folder: Path, traced: Window) -> list[Path]:
    """Write trace and pictures, each whole or not at all; `traced` is the part that the trace holds. Raises Refusal."""
    from profiling.plot_style import style
    from profiling.timeline.plot import draw
    from profiling.timeline.trace import trace

    files = {"timeline.json": json.dumps(trace(cell, traced), separators=(",", ":")).encode()}
    with style():
        figure = draw(cell, window)
        for kind in ("png", "svg"):
            drawn = io.BytesIO()
            # Without a date the same cell gives the same file.
            figure.savefig(drawn, format=kind, dpi=DPI, metadata={"Date": None} if kind == "svg" else None)
            figure.set_layout_engine("none")  # laid out by now; once is enough
            files[f"timeline.{kind}"] = drawn.getvalue()
    for name, content in files.items():
        try:
            write_atomic(folder / name, content)
        except OSError as error:
            said = f"{folder / name} cannot be written ({error.strerror}): choose another folder with --out"
            raise Refusal(said) from error
    return [folder / name for name in files]


def said(cell: RecordedCell, window: Window) -> list[str]:
    """What the terminal says: the part shown, its phases, and the one that takes longest."""
    times = phase_times(cell, window)
    of = f" (request {window.batch})" if window.batch else ""
    lines = [f"{cell.label}: {window.start_s:.3f} to {window.end_s:.3f} s{of}, rank 0"]
    lines += _table(times)
    longest = bottleneck(times)
    if longest is not None:
        why = held_up_by(longest)
        lines.append(
            f"bottleneck: {longest.phase}, {100 * longest.share:.0f} % of the time" + (f" ({why})" if why else "")
        )
    if cell.clock == UNKNOWN:
        lines.append("telemetry is left out: how its clock lies to that of the phases was not stored")
    if cell.clock == NEARLY_ALIGNED:
        lines.append("telemetry is aligned to about 0.02 s: this cell was measured before its clock was stored")
    return lines


def _table(times: Sequence[PhaseTime]) -> list[str]:
    on_gpu = any(one.gpu_ms is not None for one in times)
    busy = any(one.gpu_busy_pct is not None for one in times)
    heads = ["count", *(["GPU ms"] if on_gpu else []), "host ms", "share", *(["GPU busy"] if busy else [])]
    lines = [f"{'phase':15}" + "".join(f"{head:>10}" for head in heads)]
    for one in times:
        fields = [f"{one.count}", *([_ms(one.gpu_ms)] if on_gpu else []), _ms(one.host_ms), f"{100 * one.share:.1f} %"]
        fields += ["" if one.gpu_busy_pct is None else f"{one.gpu_busy_pct:.0f} %"] if busy else []
        lines.append(f"{one.phase:15}" + "".join(f"{field:>10}" for field in fields))
    return [line.rstrip() for line in lines]


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
