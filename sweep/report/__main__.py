"""`python -m sweep.report DIR`: rebuild summary.csv, plots and report.html from stored results alone."""

import argparse
import sys
from pathlib import Path

from sweep.config import ConfigError
from sweep.results.folder import SweepFolder


def main() -> int:
    """Exit code 0, or 2 when DIR is no sweep."""
    parser = argparse.ArgumentParser(prog="python -m sweep.report", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR", help="a sweep's folder, e.g. outputs/2026-11-21/10-00-00")
    parser.add_argument("--no-plots", action="store_true", help="write summary.csv and print the table only")
    arguments = parser.parse_args()
    from sweep.report.build import rebuild

    try:
        rebuild(SweepFolder(arguments.folder), plots=not arguments.no_plots)
    except ConfigError as error:
        print(f"sweep.report: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
