"""A comparison or a ranking for a terminal. Labels and reasons are printed literally, never read as markup."""

import io
from collections.abc import Sequence
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sweep.compare import describe, tabular
from sweep.compare.best import Ranking, Wanted
from sweep.compare.decide import Comparison, Options
from sweep.compare.load import Report
from sweep.compare.tabular import Line
from sweep.report.words import cells_words

STYLES = {"bad": "bold red", "doubtful": "yellow", "good": "green", "": ""}
ROWS = 100  # of changed cells
QUIET_ROWS = 40  # of unchanged cells; if there are more, they are only counted
BEST_ROWS = 10
A_SCREEN = 20  # lines after which the top has scrolled out of sight
FILE_WIDTH = 140
NAMES = 20  # of cells in only one report


def comparison_text(
    comparisons: Sequence[Comparison], options: Options, failed_on: Sequence[str], console: Console
) -> None:
    """Print the conclusion, then every comparison, and the conclusion once more where it has scrolled away."""
    conclusion = describe.conclusion(failed_on, [one for comparison in comparisons for one in comparison.matched])
    line = Text(conclusion, style=STYLES["bad" if failed_on else "good"])
    console.print(line)
    before = taken(console).count("\n")
    for comparison in comparisons:
        _comparison(comparison, options, console)
    if taken(console).count("\n") - before >= A_SCREEN:
        console.print(line)


def ranking_text(
    rankings: Sequence[Ranking],
    reports: Sequence[Report],
    wanted: Wanted,
    regressions: str,
    failed: bool,
    console: Console,
) -> None:
    """Print the best cells of each context, then whether one of several reports has a regression."""
    for note in dict.fromkeys(report.note for report in reports if report.note):
        console.print(Text(f"note: {note}"))
    if not rankings:
        console.print("no cell has a feature")
    for ranking in rankings:
        console.print(Text(str(ranking.context), style="bold"))
        lines, more = tabular.cut(tabular.ranked_rows(ranking, len(reports)), BEST_ROWS)
        if lines:
            console.print(_table(tabular.RANKED, lines, right=(0, 4, 5)))
        left = [f"{more} more"] if more else []
        left += describe.left_out(ranking, wanted)
        if left:
            console.print(Text(f"{'; '.join(left)}; --format json lists every ranked cell", style="dim"))
    if regressions:
        console.print(Text(regressions, style=STYLES["bad" if failed else "good"]))


def console(terminal: bool) -> Console:
    """A console that collects output, with the terminal's width and colours; for a file, plain and FILE_WIDTH wide."""
    if not terminal:
        return Console(file=io.StringIO(), width=FILE_WIDTH, color_system=None)
    real = Console()
    colours: Literal["auto"] | None = "auto" if real.is_terminal else None
    return Console(file=io.StringIO(), width=real.width, color_system=colours, force_terminal=real.is_terminal)


def taken(console: Console) -> str:
    """Everything that was printed."""
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def _comparison(comparison: Comparison, options: Options, console: Console) -> None:
    title = f"{comparison.before.name} -> {comparison.after.name}{' (relative to baselines)' * options.relative}"
    console.print(Text(title, style="bold"))
    console.print(Text(describe.summary(comparison)))
    for note in describe.notes(comparison, options):
        console.print(Text(f"note: {note}"))
    changed, rest = tabular.changed_and_rest(comparison)
    shown, more = tabular.cut(changed, ROWS)
    quiet = rest if len(rest) <= QUIET_ROWS else []
    if shown or quiet:
        console.print(_table(tabular.COMPARED, [*shown, *quiet]))
    if more:
        console.print(Text(f"{more} more changed cells; --format json lists them", style="dim"))
    if rest and not quiet:
        console.print(Text(f"{cells_words(len(rest))} unchanged; --format json lists them", style="dim"))
    for name, labels in tabular.only_in(comparison):
        left = f" and {len(labels) - NAMES:,} more" if len(labels) > NAMES else ""
        console.print(Text(f"only in {name}: {', '.join(labels[:NAMES])}{left}"))


def _table(headings: Sequence[str], lines: Sequence[Line], right: Sequence[int] = ()) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number in right else "left", overflow="fold")
    for line in lines:
        table.add_row(*(Text(value) for value in line.values), style=STYLES[line.style])
    return table
