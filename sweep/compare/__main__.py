"""`python -m sweep.compare A B`: what became faster, slower, broken or different, and which phase explains it."""

import argparse
import gc
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from sweep.streams import printed, refusal, steady

if TYPE_CHECKING:
    from sweep.compare.decide import Comparison, Options
    from sweep.compare.load import Report

FAIL_ON = ("regression", "status", "quality")
DESCRIPTION = """\
Compare sweeps cell by cell. A is before, B is after; each further sweep is also compared with A. Two cells match if
their configurations are the same (cell_key), apart from what --ignore names, or if they are alike in what --by names.
The command reads only report.json."""
EPILOG = """\
examples
  python -m sweep.compare outputs/before outputs/after              a table; exit code 1 on a regression
  python -m sweep.compare before/report.json after/report.json --format markdown --output comment.md
  python -m sweep.compare laptop server --relative                  different machines: compare speed-ups, not seconds
  python -m sweep.compare before after --fail-on regression,status,quality --min-change 5
  python -m sweep.compare compiled eager --ignore engine.args       what another engine argument changes, cell by cell
  python -m sweep.compare A B --by features,batch,model             cells that are alike in these, whatever else differs
  python -m sweep.compare outputs/mine --best                       the fastest cells that pass, for each context
  python -m sweep.compare outputs/mine --best --min-psnr 35         the same, of cells with at least 35 dB

what is judged
  speed     Latencies are paired by prompt and seed. The interval includes start-to-start noise, which each sweep
            measures in its A/A runs (the baseline measured again in a fresh engine). Without A/A runs in both sweeps
            the verdict is "unknown". An A/A run also counts as one more start of its baseline.
            "slower" and "faster" hold for all cells of the command together: the chance of any wrong verdict is 5 %
            (Holm). "maybe slower" is slower when judged alone, but not among so many cells. "slightly slower" is
            certain, but less than --min-change. For slower cells the output names the phase that grew most.
  status    The order is PASS, WARN, FAIL, ERROR; later is worse. A cell that was PASS or WARN and is now SKIP or
            NOT RUN is lost, which also counts as worse. Other changes are listed but never fail: from or to SKIP or
            NOT RUN, PASS to WARN with "slower than the baseline" as the only reason (speed is judged above), cells
            in only one sweep.
  quality   The mean pixel difference from the baseline's images. It counts as changed if it moved by more than 0.002
            and by more than two baseline runs differ.
  load      Latency under load is speed, from when requests were due if they were, with the noise of loads. Goodput and
            failed requests are worse or better where their 95 % intervals do not meet; goodput only if load.slo is the
            same. Requests a second are shown. None of this fails a command by itself: a failed request is a status.
  not valid Rows that a sweep marks as not valid are compared and shown, but never count as a regression of speed or
            quality.

exit codes: 0 nothing in --fail-on happened, 1 something did, 2 bad input (one line says what), 3 the result could not
be printed (the reader went away, the output is closed, the disk is full). --best of several reports compares them too,
and ends in the same way; of one report it ends with 0, 2 or 3."""

UNPRINTED = 3
"""Exit code when the output could not all be written, so that it is not mistaken for a verdict."""


class _Parser(argparse.ArgumentParser):
    """Reports bad usage in one line, like all bad input."""

    def error(self, message: str) -> NoReturn:
        refuse(f"{message} (--help shows examples)")


def refuse(message: str) -> NoReturn:
    """Report bad input in one line, with exit code 2."""
    refusal("sweep.compare", message)
    raise SystemExit(2)


def fail_on(text: str) -> tuple[str, ...]:
    """`regression,status` as names; `none` as no name. Raises argparse.ArgumentTypeError."""
    names = [name.strip() for name in text.split(",")]
    if names == ["none"]:
        return ()
    unknown = [name for name in names if name not in FAIL_ON]
    if unknown:
        raise argparse.ArgumentTypeError(f"'{unknown[0]}' is not one of {', '.join(FAIL_ON)}; none must be alone")
    return tuple(name for name in FAIL_ON if name in names)


def names(text: str) -> tuple[str, ...]:
    """`features,batch` as names. Raises argparse.ArgumentTypeError."""
    found = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not found:
        raise argparse.ArgumentTypeError("give at least one name, such as features,batch,model")
    return found


def percent(text: str) -> float:
    """`2` or `2%` as 0.02. Raises argparse.ArgumentTypeError."""
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"'{text}' is not a percentage of 0 or more")
    return value / 100


def number(text: str) -> float:
    """A finite number. Raises argparse.ArgumentTypeError."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"'{text}' is not a number")
    return value


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = _Parser(
        prog="python -m sweep.compare",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("reports", nargs="+", metavar="REPORT", help="a sweep's folder, or a report.json")
    made.add_argument(
        "--ignore",
        action="append",
        default=[],
        metavar="SETTING",
        help="match cells that differ in this setting, or in those below it, such as engine.args (repeatable)",
    )
    made.add_argument(
        "--by",
        type=names,
        default=(),
        metavar="NAMES",
        help="match cells by these alone, such as features,batch,model, whatever else differs",
    )
    made.add_argument("--relative", action="store_true", help="compare speed-ups over each sweep's own baseline")
    made.add_argument(
        "--min-change",
        type=percent,
        default="2",
        metavar="PCT",
        help="a smaller change of speed is never a regression, even if certain (default: 2)",
    )
    made.add_argument(
        "--fail-on",
        type=fail_on,
        default="regression,status",
        metavar="WHAT",
        help=f"comma-separated list of {', '.join(FAIL_ON)}; none: always exit 0 (default: regression,status)",
    )
    made.add_argument("--best", action="store_true", help="rank the cells of all reports by speed-up")
    made.add_argument(
        "--min-psnr", type=number, metavar="DB", help="with --best: rank only cells whose images reach this PSNR in dB"
    )
    made.add_argument(
        "--min-ssim", type=number, metavar="SSIM", help="with --best: rank only cells whose images reach this SSIM"
    )
    made.add_argument("--format", choices=("text", "markdown", "json"), default="text", help="default: text")
    made.add_argument("--output", type=Path, metavar="FILE", help="write to this file instead of the terminal")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0, or 1 if something in --fail-on happened, or UNPRINTED; SystemExit(2) for bad input."""
    steady("sweep.compare")
    chosen = parser().parse_args(arguments)
    if len(chosen.reports) < 2 and not chosen.best:
        refuse("give two reports, before and after (or one with --best)")
    for name in ("min_psnr", "min_ssim"):
        if getattr(chosen, name) is not None and not chosen.best:
            refuse(f"--{name.replace('_', '-')} goes with --best")
    if chosen.by and chosen.ignore:
        refuse("--by says what has to be alike, --ignore what need not be; choose one of them")
    from sweep.compare.load import CompareError, load

    try:
        reports = [load(argument) for argument in chosen.reports]
        code, text = _best(reports, chosen) if chosen.best else _compare(reports, chosen)
    except CompareError as error:
        refuse(str(error))
    _write(text, chosen.output)
    return code if chosen.output or printed() else UNPRINTED


def _compare(reports: "list[Report]", chosen: argparse.Namespace) -> tuple[int, str]:
    from sweep.compare import as_json, decide, describe, markdown, text
    from sweep.compare.load import CompareError

    options = _options(chosen)
    for other in reports[1:]:
        why = describe.nothing_in_common(reports[0], other, options.rule)
        if why:
            raise CompareError(why)
    comparisons = decide.compare_reports(reports[0], reports[1:], options)
    failed_on = _failed_on(comparisons, chosen)
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

    wanted = best.Wanted(chosen.min_psnr, chosen.min_ssim)
    rankings = best.rank(reports, wanted)
    failed_on, said = _regressions(reports, chosen)
    code = int(bool(failed_on))
    if chosen.format == "json":
        return code, _json(as_json.ranking_values(rankings, wanted, said, failed_on))
    if chosen.format == "markdown":
        return code, markdown.ranking_markdown(rankings, reports, wanted, said)
    console = text.console(chosen.output is None)
    text.ranking_text(rankings, reports, wanted, said, bool(failed_on), console)
    return code, text.taken(console)


def _regressions(reports: "list[Report]", chosen: argparse.Namespace) -> tuple[list[str], str]:
    """What comparing a ranking's reports finds, and the same in words; nothing for a single report."""
    from sweep.compare import decide, describe

    options = _options(chosen)
    others = [other for other in reports[1:] if not describe.nothing_in_common(reports[0], other, options.rule)]
    if len(reports) < 2:
        return [], ""
    if not others:
        return [], "the reports have no cells in common, so there is no regression to judge"
    comparisons = decide.compare_reports(reports[0], others, options)
    failed_on = _failed_on(comparisons, chosen)
    matched = [one for comparison in comparisons for one in comparison.matched]
    where = f"{reports[0].name} -> {', '.join(other.name for other in others)}"
    return failed_on, f"{where}: {describe.conclusion(failed_on, matched)}"


def _options(chosen: argparse.Namespace) -> "Options":
    from sweep.compare.decide import Options
    from sweep.compare.matching import Rule

    return Options(chosen.min_change, chosen.relative, Rule(chosen.by, tuple(chosen.ignore)))


def _failed_on(comparisons: "Sequence[Comparison]", chosen: argparse.Namespace) -> list[str]:
    happened = {name for comparison in comparisons for name in comparison.failures}
    return [name for name in chosen.fail_on if name in happened]


def _json(values: object) -> str:
    return json.dumps(values, ensure_ascii=False, allow_nan=False, indent=1) + "\n"


def _write(text: str, output: Path | None) -> None:
    if output is None:
        sys.stdout.write(text)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        refuse(f"--output {output} cannot be written: {error.strerror}")


if __name__ == "__main__":
    gc.disable()  # nothing to collect in a command this short; halves the time to read large reports
    sys.exit(main())
