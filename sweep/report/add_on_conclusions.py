"""Sentences on what add-ons gain over the combination that they were added to."""

from collections.abc import Sequence

from sweep.findings import USABLE
from sweep.report.conclusion import NAMED, Conclusion, counts
from sweep.report.context import Context, context_of
from sweep.report.words import Row, listed, number, text, times_text

ADD_ON = "add_on"

BASES = 6
"""The most bases, such as one at each batch size, that sentences on add-ons cover."""


def add_ons(rows: Sequence[Row]) -> list[Conclusion]:
    """A sentence for each base on what was added to it."""
    by_base: dict[tuple[Context, str], list[Row]] = {}
    for row in rows:
        if text(row, "base"):
            by_base.setdefault((context_of(row), text(row, "base")), []).append(row)
    found = []
    for (context, name), added in list(by_base.items())[:BASES]:
        base = next((row for row in rows if text(row, "cell") == name and context_of(row) == context), None)
        if base is not None:
            found.append(_add_on(base, added))
    if len(by_base) > BASES:
        found.append(Conclusion(ADD_ON, f"Gains over {len(by_base) - BASES} more bases are in summary.csv."))
    return found


def _add_on(base: Row, added: Sequence[Row]) -> Conclusion:
    keys = tuple(text(row, "cell_key") for row in (base, *added))
    if why := _why_unknown(base):
        return Conclusion(ADD_ON, f"What add-ons gain over {text(base, 'cell')} is unknown, as it is {why}.", keys)
    names = [_added(row, base) for row in added]
    known, lost = [], []
    for row, name in zip(added, names, strict=True):
        shown = name if names.count(name) == 1 else text(row, "cell")
        gain, why = number(row, "gain_over_base"), _why_unknown(row)
        if gain is None or why:
            lost.append(f"{shown} ({why or 'nothing to compare'})")
        else:
            trusted = counts(row) and counts(base)
            known.append((gain, f"{shown} {times_text(row, 'gain_over_base')}{'' if trusted else ' (not judged)'}"))
    gains = [words for _, words in sorted(known, key=lambda one: -one[0])]
    parts = [", ".join(gains), f"no gain known for {listed(lost, NAMED)}" if lost else ""]
    return Conclusion(ADD_ON, f"On top of {text(base, 'cell')}: {'; '.join(filter(None, parts))}.", keys)


def _why_unknown(row: Row) -> str:
    """What keeps its times from being compared: its status, profiled or not valid; "" when nothing does."""
    if row["status"] not in USABLE:
        return text(row, "status")
    return "profiled" if text(row, "profiled") else "" if row.get("valid") else "not valid"


def _added(row: Row, base: Row) -> str:
    theirs = text(base, "features").split("+")
    return "+".join(name for name in text(row, "features").split("+") if name not in theirs)
