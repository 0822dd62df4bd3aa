"""A comparison or a ranking as GitHub markdown, for a pull request's comment.

All text from a report is escaped: it may hold table bars, backticks, HTML, mentions or references.
"""

from collections.abc import Sequence

from sweep.compare import describe, tabular
from sweep.compare.best import Ranking, Wanted
from sweep.compare.decide import Comparison, Options
from sweep.compare.load import Report
from sweep.compare.tabular import Line
from sweep.report.escaping import markdown as escape
from sweep.report.words import cells_words

ROWS = 50  # GitHub refuses a comment of more than 65,536 characters
QUIET_ROWS = 100
BEST_ROWS = 10
NAMES = 50
MOST = 60_000  # characters of a whole comment


def comparison_markdown(comparisons: Sequence[Comparison], options: Options, failed_on: Sequence[str]) -> str:
    """A summary line with counts, then what changed, then the rest, folded."""
    parts = []
    for comparison in comparisons:
        parts += _comparison(comparison, options, f": {escape(describe.conclusion(failed_on, comparison.matched))}")
    return _fit(parts)


def ranking_markdown(rankings: Sequence[Ranking], reports: Sequence[Report], wanted: Wanted, regressions: str) -> str:
    """The best cells of each context, then whether one of several reports has a regression."""
    parts = [f"> {escape(note)}\n" for note in dict.fromkeys(report.note for report in reports if report.note)]
    if not rankings:
        parts.append("No cell has a feature.")
    for ranking in rankings:
        lines, more = tabular.cut(tabular.ranked_rows(ranking, len(reports)), BEST_ROWS)
        parts += [f"**{escape(str(ranking.context))}**", ""]
        parts += _table(tabular.RANKED, lines) if lines else ["Nothing to rank.", ""]
        left = [f"{more} more"] * bool(more) + describe.left_out(ranking, wanted)
        if left:
            parts += [f"{escape('; '.join(left))}.", ""]
    if regressions:
        parts += [f"**{escape(regressions)}**"]
    return _fit(parts)


def _comparison(comparison: Comparison, options: Options, conclusion: str) -> list[str]:
    relative = ", relative to baselines" if options.relative else ""
    title = f"{escape(comparison.before.name)} → {escape(comparison.after.name)}{relative}"
    parts = [f"**{escape(describe.summary(comparison))}** ({title}){conclusion}", ""]
    changed, rest = tabular.changed_and_rest(comparison)
    shown, more = tabular.cut(changed, ROWS)
    if shown:
        parts += _table(tabular.COMPARED, shown)
    if more:
        parts += [f"{more} more changed cells.", ""]
    notes = describe.notes(comparison, options)
    if notes:
        parts += [*(f"* {escape(note)}" for note in notes), ""]
    quiet, more = tabular.cut(rest, QUIET_ROWS)
    if quiet:
        folded = _table(tabular.COMPARED, quiet) + ([f"{more:,} more.", ""] if more else [])
        parts += _details(f"{cells_words(len(rest))} unchanged", folded)
    for name, labels in tabular.only_in(comparison):
        folded = [*(f"* {escape(label)}" for label in labels[:NAMES]), ""]
        folded += [f"{len(labels) - NAMES:,} more.", ""] if len(labels) > NAMES else []
        parts += _details(f"{cells_words(len(labels))} only in {name}", folded)
    return parts


def _details(title: str, inside: Sequence[str]) -> list[str]:
    # Inside <summary> GitHub reads HTML, not markdown: entities only.
    plain = title.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("@", "@\u200b")
    return ["<details>", f"<summary>{plain}</summary>", "", *inside, "</details>", ""]


def _table(headings: Sequence[str], lines: Sequence[Line]) -> list[str]:
    marks = {"bad": "**", "doubtful": "", "good": "", "": ""}
    rows = [
        "| " + " | ".join(_marked(value, marks[line.style] if n == 0 else "") for n, value in enumerate(line.values))
        + " |"
        for line in lines
    ]  # fmt: skip
    return ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings), *rows, ""]


def _marked(value: str, mark: str) -> str:
    return f"{mark}{escape(value)}{mark}" if value else ""


def _fit(parts: Sequence[str]) -> str:
    """As many whole lines as GitHub's limit allows."""
    kept, size, open_details = [], 0, False
    for part in parts:
        size += len(part) + 1
        if size > MOST:
            kept += ["", "</details>"] * open_details + ["", "… cut here; `--format json` has everything."]
            break
        open_details = part == "<details>" or (open_details and part != "</details>")
        kept.append(part)
    return "\n".join(kept).rstrip() + "\n"
