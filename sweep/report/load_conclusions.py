"""Sentences on which configuration serves best under load."""

from collections.abc import Sequence

from sweep.analysis.ladders import ATTAINED, KNEE, Ladder
from sweep.report.conclusion import NAMED, Conclusion
from sweep.report.words import Row, listed, number, text

BEST_LOAD = "best_under_load"


def best_under_load(ladders: Sequence[Ladder]) -> list[Conclusion]:
    """Which configuration meets the SLO at the highest rate, or serves most; none when there is nothing to compare."""
    found = []
    for code, words, rate, beaten in (
        (ATTAINED, "meets the SLO at the highest rate", _asked, _misses_where),
        (KNEE, "serves most at its knee", _served, _clearly_less),
    ):
        same = sorted((one for one in ladders if one.code == code and one.knee is not None), key=rate, reverse=True)
        if len(same) < 2:
            continue
        best, close = same[0], [one for one in same[1:] if not beaten(one, same[0])]
        rates = listed([f"{one.name} {rate(one):.3g}/s" for one in same], NAMED)
        keys = tuple(text(_rung(one), "cell_key") for one in same)
        names = listed([one.name for one in (best, *close)], NAMED)
        said_of_it = f"too close to call: {names}" if close else f"{best.name} {words}"
        found.append(Conclusion(BEST_LOAD, f"Under load, {said_of_it} ({rates}).", keys))
    return found


def _rung(ladder: Ladder) -> Row:
    return next(row for row in ladder.rows if float(row[ladder.level]) == ladder.knee)


def _asked(ladder: Ladder) -> float:
    return ladder.knee or 0.0


def _served(ladder: Ladder) -> float:
    return number(_rung(ladder), "requests_per_s") or 0.0


def _misses_where(ladder: Ladder, best: Ladder) -> bool:
    """Whether it was seen to miss the SLO at a rate that the best one meets."""
    missed = [float(row[ladder.level]) for row in ladder.rows if float(row[ladder.level]) > _asked(ladder)]
    return bool(missed) and min(missed) <= _asked(best)


def _clearly_less(ladder: Ladder, best: Ladder) -> bool:
    """Whether the intervals of what the two serve do not overlap."""
    high, low = number(_rung(ladder), "requests_per_s_high"), number(_rung(best), "requests_per_s_low")
    return high is not None and low is not None and high < low
