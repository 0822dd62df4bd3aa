"""`python -m sweep.report DIR`: rebuild the summary, plots and page of a sweep from its stored results."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sweep.config import ConfigError
from sweep.results.files import Unfit
from sweep.results.folder import SweepFolder
from sweep.streams import refusal, steady


class _Columns(argparse.Action):
    """Print the table of columns and exit."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from sweep.analysis.columns import COLUMNS

        width = max(len(column.name) for column in COLUMNS)
        for column in COLUMNS:
            better = f" ({column.better} is better)" if column.better else ""
            print(f"{column.name:{width}}  {column.meaning}{better}")
        parser.exit()


def main(given: Sequence[str] | None = None) -> int:
    """Exit code 0, or 2 when DIR is not a sweep or cannot be written."""
    steady("sweep.report")
    parser = argparse.ArgumentParser(prog="python -m sweep.report", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR", help="a sweep's folder, e.g. outputs/2026-11-21/10-00-00")
    parser.add_argument("--no-plots", action="store_true", help="skip plots and report.html")
    parser.add_argument("--columns", action=_Columns, nargs=0, help="list the columns of summary.csv")
    arguments = parser.parse_args(given)
    from sweep.report.build import rebuild

    try:
        rebuild(SweepFolder(arguments.folder), plots=not arguments.no_plots)
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
    return 0


if __name__ == "__main__":
    sys.exit(main())
