"""`python -m profiling timeline CELL`: a measured cell as a Perfetto trace and a picture.

Reads the cell's folder, writes timeline.json, timeline.png and timeline.svg, and prints where the time went. `lanes`
decides what they show.
"""

import argparse
import io
from collections.abc import Sequence
from pathlib import Path

from profiling.atomic_write import write_atomic
from profiling.cell_names import cell_folders
from profiling.errors import Refusal
from profiling.measured_cell import RecordedCell, read_cell
from profiling.printing import clean, compact_json, say
from profiling.timeline.bottleneck import PhaseTime, bottleneck, held_up_by, phase_times
from profiling.timeline.lanes import Window, clock_notes, span, window_of

DPI = 150
EXAMPLES = """
examples:
  python -m profiling timeline outputs/mine teacache              a cell by its label, or by how that begins
  python -m profiling timeline outputs/mine/teacache-b1-1a2b3c4d  the same by its folder
  python -m profiling timeline CELL --request r001 --repeat 2     another request, shown with its whole batch
  python -m profiling timeline CELL --from 1.2 --to 1.5           seconds since the cell's first request
  python -m profiling timeline CELL --from 0 --out figures        the whole cell, written to another folder

Open timeline.json in https://ui.perfetto.dev. It holds the whole cell unless you select a part.

exit codes: 0 done, 2 bad input (explained in one line)"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.description = "Draw a measured cell as a Perfetto trace and a picture, and print where the time went."
    parser.epilog = EXAMPLES
    cell = "folder of a measured cell (contains phases.csv), or a sweep's folder and the cell's label"
    parser.add_argument("cell", type=Path, nargs="+", metavar="CELL", help=cell)
    parser.add_argument("--request", default="", metavar="ID", help="show the batch of this request (default: first)")
    parser.add_argument("--repeat", type=int, metavar="N", help="show this repeat of the request, counted from 0")
    parser.add_argument("--from", dest="from_s", type=float, metavar="SECONDS", help="start of the part to show")
    parser.add_argument("--to", dest="to_s", type=float, metavar="SECONDS", help="end of the part to show")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where to write (default: the cell's folder)")


def run(asked: argparse.Namespace) -> int:
    """Write the files and print the summary; returns exit code 0. Raises Refusal."""
    path, *others = cell_folders(asked.cell)
    if others and path.exists():
        raise Refusal(f"give one cell, not {len(asked.cell)}: a folder, or a sweep's folder and a label", "several")
    cell = read_cell(path)
    window = window_of(cell, asked.request, asked.repeat, asked.from_s, asked.to_s)
    chosen = bool(asked.request or asked.repeat is not None or asked.from_s is not None or asked.to_s is not None)
    folder = asked.out or path
    written = write(cell, window, folder, window if chosen else Window(*span(cell)))
    for line in said(cell, window):
        say(clean(line))
    for file in written:
        say(clean(f"{file.name:14} {file}"))
    return 0


def write(cell: RecordedCell, window: Window, folder: Path, traced: Window) -> list[Path]:
    """Write the trace and the pictures, each completely or not at all; the trace holds `traced`. Raises Refusal."""
    from profiling.plot_style import lay_out, style
    from profiling.timeline.plot import draw
    from profiling.timeline.trace import trace

    files = {"timeline.json": compact_json(trace(cell, traced)).encode()}
    with style():
        figure = draw(cell, window)
        lay_out(figure, DPI)
        for kind in ("png", "svg"):
            drawn = io.BytesIO()
            # No date, so that the same cell gives the same file.
            figure.savefig(drawn, format=kind, dpi=DPI, metadata={"Date": None} if kind == "svg" else None)
            files[f"timeline.{kind}"] = drawn.getvalue()
    for name, content in files.items():
        try:
            write_atomic(folder / name, content)
        except OSError as error:
            problem = f"{folder / name} cannot be written ({error.strerror}); choose another folder with --out"
            raise Refusal(problem, "not_writable") from error
    return [folder / name for name in files]


def said(cell: RecordedCell, window: Window) -> list[str]:
    """Lines for the terminal: the part shown, its phases, and the one that takes longest."""
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
    return [*lines, *clock_notes(cell)]


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
