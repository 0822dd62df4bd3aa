"""`python -m sweep.report DIR`: rebuild the summary, plots and page of a sweep from its stored results."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sweep.refusals import ConfigError
from sweep.results.files import Unfit
from sweep.results.folder import SweepFolder
from sweep.streams import refusal, steady

EPILOG = """\
Without an option, everything but the text report and the dashboard is rebuilt. --plots, --latex, --markdown and --costs
make only what they name, also of a folder that has summary.csv alone. --throughput, --latency, --text and
--interactive make only what they name, and can be given together; they are about cells under load.

exit codes are those of the sweep: 0 every cell is fine or skipped, 1 a cell is FAIL or ERROR; or 2 when DIR is not a
sweep, has no such cells, or cannot be written (one line says what is wrong)."""


class _Columns(argparse.Action):
    """Print the table of columns and exit."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from sweep.analysis import options
        from sweep.analysis.columns import COLUMNS

        shown = [(one.name, one.meaning + (f" ({one.better} is better)" if one.better else "")) for one in COLUMNS]
        shown += options.MEANINGS.items()
        width = max(len(name) for name, _ in shown)
        for name, meaning in shown:
            print(f"{name:{width}}  {meaning}")
        parser.exit()


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m sweep.report",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("folder", type=Path, metavar="DIR", help="a sweep's folder, e.g. outputs/2026-11-21/10-00-00")
    made.add_argument("--no-plots", action="store_true", help="skip plots and report.html")
    made.add_argument("--columns", action=_Columns, nargs=0, help="list the columns of summary.csv")
    paper = made.add_argument_group("for a paper or a page (nothing is rebuilt)")
    paper.add_argument(
        "--plots", nargs="?", const="", metavar="NAMES", help="draw the plots into DIR/plots, or those in NAMES: a,b"
    )
    paper.add_argument(
        "--format", action="append", default=[], metavar="F", help="format of plots: png, svg, pdf (default: png,svg)"
    )
    paper.add_argument("--width", metavar="INCHES", help="width of plots, 3.3 for one column; all texts get one size")
    paper.add_argument("--no-title", action="store_true", help="draw plots without title, for a paper's own caption")
    paper.add_argument("--latex", action="store_true", help="print the summary as a LaTeX table (booktabs)")
    paper.add_argument("--markdown", action="store_true", help="print the summary as a Markdown table")
    paper.add_argument(
        "--costs", action="store_true", help="print what images cost and save instead, as text or in one of these"
    )
    loads = made.add_argument_group("cells under load")
    loads.add_argument("--throughput", action="store_true", help="draw only the plots of throughput")
    loads.add_argument("--latency", action="store_true", help="draw only the plots of latency")
    loads.add_argument("--text", action="store_true", help="print a plain-text report")
    loads.add_argument(
        "--interactive", action="store_true", help="write dashboard.html, one file with interactive charts"
    )
    loads.add_argument(
        "--all", action="store_true", help="rebuild everything, print the text report, write the dashboard"
    )
    return made


def main(given: Sequence[str] | None = None) -> int:
    """Exit code as the sweep's, 0 or 1; 2 when DIR is not a sweep, has no loads to report on, or cannot be written."""
    steady("sweep.report")
    arguments = parser().parse_args(given)
    try:
        return _run(arguments)
    except ConfigError as error:
        refusal("sweep.report", str(error))
        return 2
    except Unfit as error:
        refusal("sweep.report", f"{arguments.folder} holds a folder that {error}")
        return 2
    except OSError as error:
        place = error.filename or arguments.folder
        advice = "make room, or copy the folder elsewhere"
        refusal("sweep.report", f"{place} cannot be written ({error.strerror}); {advice}")
        return 2


def _run(arguments: argparse.Namespace) -> int:
    """Make what was chosen; the sweep's exit code. Raises ConfigError, Unfit and OSError."""
    from sweep.analysis.summary import exit_code
    from sweep.report import paper
    from sweep.report.build import rebuild

    folder = SweepFolder(arguments.folder)
    chosen = paper.wanted(
        arguments.plots,
        arguments.format,
        arguments.width,
        not arguments.no_title,
        arguments.latex,
        arguments.markdown,
        arguments.costs,
    )
    parts = [name for name in ("throughput", "latency", "text", "interactive") if getattr(arguments, name)]
    code = 0
    if chosen.anything:
        code = exit_code(paper.make(folder, chosen))
    elif arguments.all or not parts:
        code = rebuild(folder, plots=not arguments.no_plots)
        parts = ["text", "interactive"] if arguments.all else []
    return _of_loads(folder, parts) if parts else code


def _of_loads(folder: SweepFolder, parts: Sequence[str]) -> int:
    from rich.console import Console

    from sweep.analysis.summary import exit_code
    from sweep.report import drawing, load_text, stored
    from sweep.report.build import print_pictures
    from sweep.report.load_report import PLOTS
    from sweep.report.terminal import literal

    found = stored.read(folder)
    if not any(cell.under_load for cell in found.plan.cells):
        raise ConfigError(f"{folder.path}: {load_text.NOTHING}")
    console = Console()
    only = {name for kind in ("throughput", "latency") if kind in parts for name in PLOTS[kind]}
    if only:
        print_pictures(console, drawing.draw(found, only))
    if "text" in parts:
        sys.stdout.write(load_text.text_of(found))
    if "interactive" in parts:
        from sweep.report import dashboard

        path = dashboard.write(found)
        console.print(literal(f"{path.name:14} {path}"), soft_wrap=True)
    return exit_code(found.summary.rows)


if __name__ == "__main__":
    sys.exit(main())
