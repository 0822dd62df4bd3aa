"""The prose of a comparison, the same in every format: notes, counts, and how one number reads.

Also says why two reports have nothing in common. Plain text only; renderers add markup.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from sweep.compare import decide
from sweep.compare.best import Ranking, Wanted
from sweep.compare.decide import Comparison, Explanation, Matched, Options, Speed
from sweep.compare.load import Cell, Report
from sweep.compare.matching import FIELDS, Rule, differences, match
from sweep.report.words import cells_words

MODEL = "model"
HELD = {name: value for name, value in FIELDS.items() if name != "cell"}
SHOWN_VALUES = 4
SHOWN_SETTINGS = 8


def nothing_in_common(before: Report, after: Report, rule: Rule) -> str:
    """Why no cells of the two can be compared, in one line; "" if some can. Raises CompareError as `match` does."""
    for report in (before, after):
        if not report.cells:
            return f"{report.name} has no cells"
    if match(before, after, rule).pairs:
        return ""
    disjoint, unequal = [], []
    for name, value in HELD.items():
        ours, theirs = ({value(cell) for cell in report.cells.values()} for report in (before, after))
        words = f"{before.name} has {name} {_some(ours)}, {after.name} has {_some(theirs)}"
        if not ours & theirs:
            disjoint.append(words)
            if name == MODEL:
                break  # the model explains the rest
        elif ours != theirs:
            unequal.append(words)
    differ = disjoint or unequal
    if not differ:
        known = ", ".join(HELD)
        differ = [
            f"both have the same {known}, but differ in something that reports do not hold (prompt texts, seed, "
            "guidance, warm-up, feature options or device)"
        ]
    if rule.by_key and not disjoint:
        differ[-1] += "; --ignore SETTING or --by features,batch,model compares cells of unlike configurations"
    return f"no cells in common: {'; '.join(differ)}"


def notes(comparison: Comparison, options: Options) -> list[str]:
    """What to know before trusting the numbers, one line each."""
    before, after = comparison.before, comparison.after
    found = list(dict.fromkeys(report.note for report in (before, after) if report.note))
    found += filter(None, [_differences("machine", before.machine, after.machine)])
    found += filter(None, [_differences("versions", before.versions, after.versions)])
    if before.git_commit != after.git_commit:
        found.append(f"commit: {before.git_commit[:12] or 'unknown'} -> {after.git_commit[:12] or 'unknown'}")
    found += _unlike(comparison)
    together = None if options.relative else decide.moved_together(comparison.matched, options.min_change)
    if together is not None:
        found.append(
            f"every cell took {together:.2f}x as long: the machine, the environment or code that all cells share has "
            "changed; --relative compares speed-ups over each sweep's own baseline"
        )
    hint = "" if options.relative else _relative_sees_more(before, after)
    if hint:
        found.append(hint)
    unknown = Counter(one.speed.why for one in comparison.matched if one.speed.verdict == decide.UNKNOWN)
    for why, count in unknown.items():
        advice = "; sweep with aa=1 or more" if why and why.code == decide.NO_AA else ""
        found.append(f"speed of {cells_words(count)} unknown: {why.text if why else ''}{advice}")
    doubted = sum(bool(one.doubt) for one in comparison.matched)
    if doubted:
        verb = "is" if doubted == 1 else "are"
        found.append(f"{cells_words(doubted)} {verb} not valid, so never a regression of speed or quality")
    return found


NOT_VALID = "not to be trusted"
SHOWN = {NOT_VALID: "not valid"}
"""Keys of `counts` that read differently for people; in JSON they stay."""


def counts(comparison: Comparison) -> dict[str, int]:
    """How many cells are slower, faster, …; only what occurs, gravest first."""
    verdicts = Counter(one.speed.verdict for one in comparison.matched)
    order = (
        *(decide.SLOWER, decide.MAYBE_SLOWER, decide.SLIGHTLY_SLOWER),
        *(decide.FASTER, decide.MAYBE_FASTER, decide.SLIGHTLY_FASTER, decide.NO_DIFFERENCE, decide.UNKNOWN),
    )
    doubted = sum(bool(one.doubt) and one.speed.verdict != decide.NOT_JUDGED for one in comparison.matched)
    statuses = Counter(one.status for one in comparison.matched)
    qualities = Counter(one.quality for one in comparison.matched)
    found = {
        **{verdict: verdicts[verdict] for verdict in order},
        "status worse": statuses[decide.WORSE] + statuses[decide.LOST],
        "status better": statuses[decide.BETTER],
        "status changed": statuses[decide.OTHER],
        "quality worse": qualities[decide.WORSE],
        "quality better": qualities[decide.BETTER],
        "load worse": sum(one.load.worse for one in comparison.matched if one.load),
        "load better": sum(one.load.better for one in comparison.matched if one.load),
        NOT_VALID: doubted,
        f"only in {comparison.before.name}": len(comparison.only_before),
        f"only in {comparison.after.name}": len(comparison.only_after),
    }
    return {name: count for name, count in found.items() if count}


def summary(comparison: Comparison) -> str:
    """One line, gravest first: `12 cells compared: 1 slower, 11 no difference`."""
    judged = [one for one in comparison.matched if not one.before.is_repeat]
    words = ", ".join(f"{count:,} {SHOWN.get(name, name)}" for name, count in counts(comparison).items())
    return f"{cells_words(len(judged))} compared: {words or 'nothing measured'}"


HIDDEN = 1.1
"""If noise could hide a larger slowdown than this, the conclusion says so."""


def conclusion(failed_on: Sequence[str], matched: Sequence[Matched]) -> str:
    """The exit code in words; if nothing was found, also what noise could hide."""
    words = {
        decide.REGRESSION: "a cell is slower beyond noise",
        decide.STATUS: "a status got worse",
        decide.QUALITY: "quality got worse",
    }
    if failed_on:
        return f"FAILED: {', '.join(f'{words[name]}{_which(name, matched)}' for name in failed_on)}"
    if matched and all(one.speed.verdict in (decide.UNKNOWN, decide.NOT_JUDGED) for one in matched):
        return "no speed is known, so no regression could be seen: sweep with aa=1 or more"
    maybe = [one for one in matched if one.speed.verdict == decide.MAYBE_SLOWER and not one.doubt]
    if maybe:
        return f"nothing is slower beyond noise, but maybe {_named(maybe, matched)}: sweep with aa=3 and more prompts"
    hidden = max((1 / one.speed.ratio.low for one in matched if one.speed.ratio.low), default=1.0)
    if hidden < HIDDEN:
        return "no regression"
    return f"no regression found, but noise could hide one of up to {hidden:.2f}x: sweep with aa=3 and more prompts"


NAMED = 3
"""Cells that a conclusion names, at most."""


def _which(name: str, matched: Sequence[Matched]) -> str:
    """` (teacache b1 1.33x)`: the cells that fail for this reason, slowest first."""
    failing = [one for one in matched if name in one.failures]
    return f" ({_named(failing, matched, name == decide.REGRESSION)})" if failing else ""


def _named(cells: Sequence[Matched], among: Sequence[Matched], factors: bool = True) -> str:
    """`teacache b1 1.33x, tp b1 1.2x and 2 more`: the slowest first, and how many times as long they take."""
    slowest = sorted(cells, key=lambda one: one.speed.ratio.ratio or 1.0)
    full = len({(one.before.model, one.before.engine) for one in among}) > 1
    said = []
    for one in slowest[:NAMED]:
        ratio = one.speed.ratio.ratio
        said.append(label(one.before, full) + (f" {1 / ratio:.2f}x" if factors and ratio else ""))
    more = f" and {len(slowest) - NAMED} more" if len(slowest) > NAMED else ""
    return f"{', '.join(said)}{more}"


def left_out(ranking: Ranking, wanted: Wanted) -> list[str]:
    """How many cells of a context are not ranked, and why."""
    found = []
    if ranking.too_poor:
        found.append(f"{ranking.too_poor} left out: below {wanted}, or quality unknown")
    if ranking.left_out:
        found.append(f"{ranking.left_out} not ranked (no speed-up, FAIL, ERROR, SKIP or not valid)")
    return found


def label(cell: Cell, full: bool) -> str:
    """A cell's name; if `full`, with model and engine."""
    return f"{cell.label} ({cell.model}, {cell.engine})" if full else cell.label


def several_contexts(reports: Sequence[Report]) -> bool:
    """Whether there are several models or engines, so that a label alone is ambiguous."""
    return len({(one.model, one.engine) for report in reports for one in report.cells.values()}) > 1


def speed_words(speed: Speed) -> str:
    """`slower 1.32x (1.25-1.40)`: after ÷ before if slower, else before ÷ after."""
    ratio = speed.ratio
    if ratio.ratio is None:
        return speed.why.text if speed.why else ""
    slower = speed.verdict in (decide.SLOWER, decide.MAYBE_SLOWER, decide.SLIGHTLY_SLOWER)
    shown = 1 / ratio.ratio if slower else ratio.ratio
    interval = ""
    if ratio.low is not None and ratio.high is not None:
        low, high = (1 / ratio.high, 1 / ratio.low) if slower else (ratio.low, ratio.high)
        interval = f" ({low:.2f}-{high:.2f})"
    verdict = "unknown (no A/A run finished)" if speed.verdict == decide.UNKNOWN else speed.verdict
    return f"{verdict} {shown:.2f}x{interval}"


def explanation_words(explanation: Explanation) -> str:
    """`denoise_step +210 ms of +222 ms (95 %)`, or two phases."""
    if not explanation.shifts:
        return ""
    parts = [f"{shift.phase} {_ms(shift.ms)} ms" for shift in explanation.shifts]
    shares = ", ".join(f"{shift.share:.0%}".replace("%", " %") for shift in explanation.shifts)
    return f"{', '.join(parts)} of {_ms(explanation.total_ms)} ms ({shares})"


def status_words(one: Matched) -> str:
    """`PASS -> FAIL`, or one status if it is the same; marks a lost cell."""
    if not one.status:
        return one.after.status
    return f"{one.before.status} -> {one.after.status}{' (lost)' if one.status == decide.LOST else ''}"


def quality_words(one: Matched) -> str:
    """`worse: diff 0.004 -> 0.031, PSNR 39.0 -> 24.1 dB, SSIM 0.990 -> 0.871`; "" if nothing changed."""
    if not one.quality:
        return ""
    parts = []
    for name, title, form, unit in (
        ("mean_diff", "diff", "{:.4f}", ""),
        ("psnr_db", "PSNR", "{:.1f}", " dB"),
        ("ssim", "SSIM", "{:.3f}", ""),
    ):
        pair = [cell.quality[name] for cell in (one.before, one.after)]
        if None not in pair:
            parts.append(f"{title} {' -> '.join(form.format(value) for value in pair)}{unit}")
    return f"{one.quality}: {', '.join(parts)}"


def detail_words(one: Matched) -> str:
    """What explains the row: phases, the reason for a new status, quality, what a load got done, doubt."""
    reason = one.after.reason if one.status else ""
    doubted = f"not valid: {one.doubt}" if one.doubt else ""
    load = one.load.text if one.load else ""
    return "; ".join(filter(None, [explanation_words(one.explanation), reason, quality_words(one), load, doubted]))


def ordered(matched: Sequence[Matched]) -> list[Matched]:
    """Gravest first: what fails, what may be worse, what improved, then the rest in the report's order."""

    def gravity(one: Matched) -> tuple[int, float]:
        ratio = one.speed.ratio.ratio or 1.0
        verdict = one.speed.verdict
        if one.failures:
            return 0, ratio
        doubtful = one.status or one.quality or one.doubt or (one.load and one.load.worse)
        if verdict in (decide.MAYBE_SLOWER, decide.SLIGHTLY_SLOWER) or doubtful:
            return 1, ratio
        return (2, -ratio) if verdict in (decide.FASTER, decide.MAYBE_FASTER, decide.SLIGHTLY_FASTER) else (3, 0.0)

    return sorted(matched, key=gravity)


def _differences(what: str, before: Mapping[str, str], after: Mapping[str, str]) -> str:
    names = [name for name in dict.fromkeys((*before, *after)) if before.get(name) != after.get(name)]
    words = [f"{name} {before.get(name) or 'absent'} -> {after.get(name) or 'absent'}" for name in names]
    return f"{what} changed: {', '.join(words)}" if words else ""


def _unlike(comparison: Comparison) -> list[str]:
    """What matched cells differ in, if they were not matched by their whole configuration."""
    seen = Counter(
        (name, *pair) for one in comparison.matched for name, pair in differences(one.before, one.after).items()
    )
    if not seen:
        return []
    words = [
        f"{name} {old} -> {new} ({cells_words(count)})" if (old, new) != ("", "") else f"{name} ({cells_words(count)})"
        for (name, old, new), count in seen.most_common()
    ]
    more = f" and {len(words) - SHOWN_SETTINGS} more" if len(words) > SHOWN_SETTINGS else ""
    return [f"matched cells differ in {', '.join(words[:SHOWN_SETTINGS])}{more}"]


def _relative_sees_more(before: Report, after: Report) -> str:
    """Advice to use --relative, if noise against interleaved baselines is much smaller."""
    for name, floor in before.floors.items():
        pair = (floor, after.floors.get(name, floor))
        alone = max(one.alone.sd or 0.0 for one in pair)
        interleaved = max(one.interleaved.sd or 0.0 for one in pair)
        if alone > 2 * interleaved and all(one.interleaved.df for one in pair):
            return (
                f"start-to-start noise is {alone:.1%}, but only {interleaved:.1%} relative to an interleaved baseline: "
                "--relative detects smaller changes"
            )
    return ""


def _some(values: set[object]) -> str:
    shown = sorted(map(str, values), key=lambda text: (len(text), text))
    more = f" and {len(shown) - SHOWN_VALUES} more" if len(shown) > SHOWN_VALUES else ""
    return ", ".join(shown[:SHOWN_VALUES]) + more


def _ms(value: float) -> str:
    return f"{value:+.0f}" if abs(value) >= 10 else f"{value:+.2g}"
