"""How a running sweep looks on a terminal: one line per cell, the progress of all in the last line.

Pure: cells and their states in, lines out. However many cells there are, the lines fit the terminal with one to spare,
because a terminal that scrolls keeps lines that cannot be taken back. Only labels and remarks are shortened.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len
from rich.text import Text

from profiling.printing import clean
from sweep.analysis.early import Early
from sweep.plan.cells import Cell
from sweep.report import labels
from sweep.report.terminal import heading_line
from sweep.report.words import digits

FINAL = ("done", "error")
"""States in which a cell of this run has ended."""

OVER, IDLE = (*FINAL, "kept", "skipped"), ("pending", "waiting")

STYLES = {
    "done": "green",
    "error": "bold red",
    "running": "cyan",
    "analysing": "cyan",
    "loading": "yellow",
    "warm-up": "yellow",
}

STATE, TIME = 9, 8  # columns: `analysing`, `10:00:00`
BAR, LEAST_BAR = 24, 8
REMARK, MOST_REMARK = 22, 60  # `~1.42x  0.974 → 0.99 s`; and what a wide terminal shows of a reason
GAP = 2
LEAST_ROOM = 4  # with fewer lines than this, headings take none from the cells


@dataclass(frozen=True)
class Shown:
    """A cell, its last event, and seconds since it began; None where it has not."""

    cell: Cell
    state: Mapping[str, Any]
    since_s: float | None


@dataclass(frozen=True)
class Totals:
    """How far the sweep is: cells, seconds, part of the work in [0, 1], and the time left in words."""

    done: int
    cells: int
    elapsed_s: float
    fraction: float
    left: str


def lines(
    shown: Sequence[Shown], totals: Totals, speed: Callable[[str], Early | None], width: int, height: int
) -> list[Text]:
    """The whole view, of fewer than `height` lines. `speed` is called for visible finished cells."""
    room = max(1, height - 3)  # a line of what is hidden, the progress, and one that stays empty
    names = _names(shown)
    listed = _grouped(range(len(shown)), names)
    if len(listed) > room:  # why cells are skipped is said when the sweep ends
        run = [place for place, one in enumerate(shown) if one.state["state"] != "skipped"]
        listed = _grouped(run, names)
    visible, above, below = _window(listed, shown, room)
    cells = [place for place in visible if isinstance(place, int)]
    short = dict(zip(cells, _labels([names[place].label for place in cells], width), strict=True))
    label = max(map(cell_len, short.values()), default=0)
    table = [
        heading_line(one, width) if isinstance(one, str) else _line(shown[one], short[one], label, speed, width)
        for one in visible
    ]
    skipped = sum(one.state["state"] == "skipped" for one in shown)
    return [*table, _hidden(above, below, skipped, width), progress_line(totals, width)]


def _names(shown: Sequence[Shown]) -> list[labels.Name]:
    found = []
    for one in shown:
        model, engine, work = (one.cell.config[name] for name in ("model", "engine", "workload"))
        facts = (model["name"], engine["name"], str(work["width"]), str(work["height"]))
        found.append(labels.Cell(clean(one.cell.label), *map(clean, facts)))
    return labels.named(found)


def _grouped(places: Sequence[int], names: Sequence[labels.Name]) -> list[int | str]:
    """Headings, each before its cells, in running order."""
    listed: list[int | str] = []
    for heading, members in labels.by_heading(places, names).items():
        listed += [heading] if heading else []
        listed += members
    return listed


def _window(listed: Sequence[int | str], shown: Sequence[Shown], room: int) -> tuple[list[int | str], int, int]:
    """What is visible, around the cell that runs, and how many cells are hidden above and below."""
    first = max(0, min(_active(listed, shown) - room // 2, len(listed) - room))
    visible = [*listed[first : first + room]]
    above = [one for one in listed[:first] if isinstance(one, int)]
    if above and isinstance(visible[0], int) and room >= LEAST_ROOM:
        headings = [one for one in listed[:first] if isinstance(one, str)]
        if headings:  # it scrolled away, and takes the place of the first cell
            above.append(visible[0])
            visible[0] = headings[-1]
    below = [one for one in listed[first + room :] if isinstance(one, int)]
    return visible, len(above), len(below)


def _active(listed: Sequence[int | str], shown: Sequence[Shown]) -> int:
    """Position of the first running cell, else of the one that runs next, else the end."""
    cells = sorted(one for one in listed if isinstance(one, int))
    for idle in ((*IDLE, *OVER), OVER):
        for one in cells:
            if shown[one].state["state"] not in idle:
                return listed.index(one)
    return len(listed)


def _labels(names: Sequence[str], width: int) -> list[str]:
    return labels.shortened(names, max(1, width - STATE - TIME - REMARK - 3 * GAP))


def _line(one: Shown, label: str, label_width: int, speed: Callable[[str], Early | None], width: int) -> Text:
    name = str(one.state["state"])
    remark_width = max(0, min(MOST_REMARK, width - label_width - STATE - TIME - 3 * GAP))
    remark = labels.cut(clean(str(one.state.get("reason") or "")), remark_width)
    line = Text(no_wrap=True, overflow="crop")
    line.append(labels.padded(label, label_width + GAP))
    line.append(labels.padded(labels.cut(clean(name), STATE), STATE + GAP), STYLES.get(name, "dim"))
    if name == "running":
        part = one.state["done"] / (one.state["total"] or 1)
        line.append_text(_bar(part, min(BAR, remark_width)))
        line.append(" " * max(0, remark_width - min(BAR, remark_width)))
    elif name in ("done", "kept"):
        line.append(labels.padded(labels.cut(speed_text(speed(one.cell.key)), remark_width), remark_width))
    else:
        line.append(labels.padded(remark, remark_width), "dim")
    took = one.state["took"] if name in FINAL else one.since_s
    shown = "" if took is None or name == "waiting" else duration(took)
    line.append(labels.padded(shown, GAP + TIME, right=True))
    return line


def _hidden(above: int, below: int, skipped: int, width: int) -> Text:
    counts = ((above, "↑ {} above"), (below, "↓ {} below"), (skipped, "{} skipped"))
    said = "  ".join(words.format(f"{count:,}") for count, words in counts if count)
    return Text(labels.cut(said, width), style="dim", no_wrap=True, overflow="crop")


def progress_line(totals: Totals, width: int) -> Text:
    """`9 of 34 cells  0:55  ━━━━━━────  about 2:34 left`; the bar shrinks first."""
    done, elapsed = f"{totals.done:,} of {totals.cells:,} cells", clock(totals.elapsed_s)
    words = cell_len(done) + cell_len(elapsed) + cell_len(totals.left) + 3 * GAP
    bar = min(BAR, width - words - 3)  # what the terminal echoes, such as ^C, gets no line of its own
    line = Text(no_wrap=True, overflow="crop")
    line.append(done, "bold").append(f"{' ' * GAP}{elapsed}{' ' * GAP}")
    if bar >= LEAST_BAR:
        line.append_text(_bar(totals.fraction, bar)).append(" " * GAP)
    return line.append(totals.left, "bold")


def _bar(part: float, width: int) -> Text:
    full = round(max(0.0, min(1.0, part)) * width)
    return Text.assemble(("━" * full, "cyan"), ("─" * (width - full), "dim"))


def speed_text(speed: Early | None) -> str:
    """`~1.42x  2.16 → 1.52 s`: an early estimate of the speed-up, from the latencies that follow; or the latency."""
    if speed is None:
        return ""
    if speed.speedup is None:
        return digits(speed.latency_s, "s")
    return f"~{speed.speedup:.2f}x  {digits(speed.baseline_s)} → {digits(speed.latency_s, 's')}"


def duration(seconds: float) -> str:
    """`11.3 s`, `12:05`, `1:02:03`: at most TIME columns for anything below 1,000 hours."""
    return f"{seconds:.1f} s" if seconds < 99.95 else clock(seconds)


def clock(seconds: float) -> str:
    """`0:55`, `1:02:03`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
