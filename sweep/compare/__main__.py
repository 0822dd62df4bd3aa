"""`python -m sweep.compare A B`: what became faster, slower, broken or different, and in which phase."""

import argparse
import gc
import io
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from sweep.compare.load import Report

FAIL_ON = ("regression", "status", "quality")
DESCRIPTION = """\
Compare sweeps cell by cell. A is before, B after; each further one is compared with A too. Cells match when their
configurations are the same (cell_key). Only report.json is read."""
EPILOG = """\
examples
  python -m sweep.compare outputs/before outputs/after              a table; exit code 1 on a regression
  python -m sweep.compare before/report.json after/report.json --format markdown --output comment.md
  python -m sweep.compare laptop server --relative                  other machine: compare speed-ups, not seconds
  python -m sweep.compare before after --fail-on regression,status,quality --min-change 5
  python -m sweep.compare outputs/mine --best                       the fastest cells that pass, for each context

what is judged
  speed     Latencies are paired by prompt and seed; the interval holds the noise between engine starts that the sweeps
            measured (A/A). "slower" and "faster" hold together for all cells of the command: the chance of any wrong
            call is 5 % (Holm). "maybe slower" is slower by itself, not among so many; "slightly slower" is less than
            --min-change. Without A/A in both sweeps speed is "unknown". A/A cells count as further starts of their
            baseline. Of slower cells the phase that grew most is named.
  status    PASS, WARN, FAIL, ERROR in this order: later is worse. A cell that was PASS or WARN and is SKIP now is
            lost, which is worse too. Listed, and never failing: any other change from or to SKIP, PASS to WARN only
            for "slower than the baseline" (speed is judged above), and cells that only one sweep has.
  quality   The mean pixel difference to the baseline's images, changed by more than 0.002 and more than two baselines
            differ.
  invalid   Rows marked invalid are compared, shown as not to be trusted, and no regression of speed or quality.

exit codes: 0 nothing of --fail-on happened, 1 something did, 2 bad input (one line says what). --best: 0 or 2."""


class _Parser(argparse.ArgumentParser):
    """Bad usage is one line, like all bad input."""

    def error(self, message: str) -> NoReturn:
        refuse(f"{message} (--help shows examples)")


def refuse(message: str) -> NoReturn:
    """Bad input: one line, exit code 2."""
    print(f"sweep.compare: {message}", file=sys.stderr)
    raise SystemExit(2)


def fail_on(text: str) -> tuple[str, ...]:
    """`regression,status` as names; `none` as no name. Raises argparse.ArgumentTypeError."""
    names = [name.strip() for name in text.split(",")]
    if names == ["none"]:
        return ()
    unknown = [name for name in names if name not in FAIL_ON]
    if unknown:
        raise argparse.ArgumentTypeError(f"'{unknown[0]}' is not one of {', '.join(FAIL_ON)}, or none alone")
    return tuple(name for name in FAIL_ON if name in names)


def percent(text: str) -> float:
    """`2` or `2%` as 0.02. Raises argparse.ArgumentTypeError."""
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"'{text}' is not a percentage of 0 or more")
    return value / 100


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = _Parser(
        prog="python -m sweep.compare",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("reports", nargs="+", metavar="REPORT", help="a sweep's folder, or a report.json")
    made.add_argument("--relative", action="store_true", help="compare speed-ups over each sweep's own baseline")
    made.add_argument(
        "--min-change",
        type=percent,
        default="2",
        metavar="PCT",
        help="a smaller difference of speed is never a regression, even if certain (default: 2)",
    )
    made.add_argument(
        "--fail-on",
        type=fail_on,
        default="regression,status",
        metavar="WHAT",
        help=f"comma list of {', '.join(FAIL_ON)}; none: always exit 0 (default: regression,status)",
    )
    made.add_argument("--best", action="store_true", help="rank the cells of all reports by speed-up, compare nothing")
    made.add_argument("--format", choices=("text", "markdown", "json"), default="text", help="default: text")
    made.add_argument("--output", type=Path, metavar="FILE", help="write there instead of to the terminal")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0, 1 when something of --fail-on happened; SystemExit(2) for bad input."""
    chosen = parser().parse_args(arguments)
    if len(chosen.reports) < 2 and not chosen.best:
        refuse("two reports are needed, before and after (or one with --best)")
    from sweep.compare.load import CompareError, load

    try:
        reports = [load(argument) for argument in chosen.reports]
        code, text = _best(reports, chosen) if chosen.best else _compare(reports, chosen)
    except CompareError as error:
        refuse(str(error))
    _write(text, chosen.output)
    return code


def _compare(reports: "list[Report]", chosen: argparse.Namespace) -> tuple[int, str]:
    from sweep.compare import as_json, decide, describe, markdown, text
    from sweep.compare.load import CompareError

    for other in reports[1:]:
        why = describe.nothing_in_common(reports[0], other)
        if why:
            raise CompareError(why)
    options = decide.Options(min_change=chosen.min_change, relative=chosen.relative)
    comparisons = decide.compare_reports(reports[0], reports[1:], options)
    happened = {name for comparison in comparisons for name in comparison.failures}
    failed_on = [name for name in chosen.fail_on if name in happened]
    code = int(bool(failed_on))
    if chosen.format == "json":
        return code, _json(as_json.comparison_values(comparisons, options, chosen.fail_on, failed_on))
    if chosen.format == "markdown":
        return code, markdown.comparison_markdown(comparisons, options, failed_on)
    console = text.console(chosen.output is None)
    text.comparison_text(comparisons, options, failed_on, console)
    return code, text.taken(console)


def _best(reports: "list[Report]", chosen: argparse.Namespace) -> tuple[int, str]:
    from sweep.compare import as_json, best, markdown, text

    rankings = best.rank(reports)
    if chosen.format == "json":
        return 0, _json(as_json.ranking_values(rankings))
    if chosen.format == "markdown":
        return 0, markdown.ranking_markdown(rankings, reports)
    console = text.console(chosen.output is None)
    text.ranking_text(rankings, reports, console)
    return 0, text.taken(console)


def _json(values: object) -> str:
    return json.dumps(values, ensure_ascii=False, allow_nan=False, indent=1) + "\n"


def _write(text: str, output: Path | None) -> None:
    if output is None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # a terminal that is not UTF-8
        sys.stdout.write(text)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        refuse(f"--output {output} cannot be written: {error.strerror}")


if __name__ == "__main__":
    gc.disable()  # nothing to collect in a command this short; halves the time to read large reports
    sys.exit(main())
