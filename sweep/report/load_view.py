"""How the terminal, the text report and the page describe the loads of a sweep. Findings in, text out."""

from collections.abc import Mapping, Sequence

from sweep.analysis.summary import Summary
from sweep.engines.protocol import EDIT, GENERATE
from sweep.report.words import digits, number, text

Line = tuple[str, str]
"""The configuration, and the text about it."""

Row = Mapping[str, object]

PERCENTILES = ((50, 1), (90, 1), (95, 20), (99, 100))
"""Percentiles, with the fewest samples that each needs."""

OF_A_KIND = ((95, 20),)
"""The same for requests of one kind, where a load mixes several."""

SAID = (
    *("latency_mean_s", "latency_p95_s", "ttft_mean_s", "tpot_mean_s", "images_per_s", "queue_mean_s"),
    *("e2e_with_queue_mean_s", "goodput_per_s", "itl_mean_s"),
)
"""Columns that `figures` puts into words."""


def lines(summary: Summary) -> list[Line]:
    """A line each: first the ladders, then how they compare with the queueing model, what serving costs, and what
    became of long loads."""
    return [
        *((one.name, one.text) for one in summary.ladders),
        *((one.name, one.text) for one in summary.queues if one.tells),
        *((one.name, one.text) for one in summary.serving),
        *((one.name, one.text) for one in summary.trends),
    ]


def figures(row: Row) -> dict[str, str]:
    """A cell's load in words, by what they are about; {} offline. From its row of summary.csv."""
    if not text(row, "load"):
        return {}
    found = {
        "load": text(row, "load"),
        "requests": _requests(row),
        "steady state": _window(row),
        "rates": _rates(row),
        "latency": _spread(row, "latency"),
        "pictures from text": _spread(row, f"{GENERATE}_latency", OF_A_KIND),
        "edits": _spread(row, f"{EDIT}_latency", OF_A_KIND),
        "from when due": _spread(row, "e2e_with_queue"),
        "time to first token": _spread(row, "ttft"),
        "time per token": _spread(row, "tpot"),
        "between chunks": _spread(row, "itl"),
        "waiting in the server": digits(number(row, "queue_mean_s"), "s on average"),
        "stages at work": _stages(row),
        "goodput": _goodput(row),
        "queueing model": _predicted(row),
    }
    return {name: words for name, words in found.items() if words}


def _requests(row: Row) -> str:
    sent, failed = number(row, "requests_sent"), number(row, "requests_failed")
    if sent is None:
        return ""
    return f"{sent:.0f} sent, {'none' if not failed else f'{failed:.0f}'} failed"


def _window(row: Row) -> str:
    judged, seconds = number(row, "requests_judged"), number(row, "window_s")
    if not judged or seconds is None:
        return ""
    return f"{judged:.0f} requests in {digits(seconds, 's')}; latencies and rates are of these"


def _rates(row: Row) -> str:
    parts = [
        digits(number(row, "requests_per_s"), "requests/s"),
        digits(number(row, "input_tokens_per_s"), "tokens read/s"),
        digits(number(row, "output_tokens_per_s"), "tokens written/s"),
        digits(number(row, "in_flight"), "in flight"),
        digits(number(row, "batch_mean"), "in a batch"),
    ]
    return ", ".join(filter(None, parts))


def _spread(row: Row, name: str, percentiles: Sequence[tuple[int, int]] = PERCENTILES) -> str:
    """Mean and percentiles, and which of them need more requests."""
    mean = number(row, f"{name}_mean_s")
    if mean is None:
        return ""
    parts = [f"mean {digits(mean, 's')}"]
    for q, least in percentiles:
        value = number(row, f"{name}_p{q}_s")
        if value is not None:
            parts.append(f"p{q} {digits(value, 's')}")
        elif least > 1:
            parts.append(f"p{q} needs {least} {'gaps' if name == 'itl' else 'requests'}")
    return ", ".join(parts)


def _stages(row: Row) -> str:
    ar, dit, both = (number(row, name) for name in ("ar_busy", "dit_busy", "stage_overlap"))
    if ar is None or dit is None or both is None:
        return ""
    beside = f"in {both:.0%} of the DiT's time the AR stage works on another request" if both else "never both at once"
    return f"AR {ar:.0%} of the load, DiT {dit:.0%}; {beside}"


def _predicted(row: Row) -> str:
    """What the queueing model says about it."""
    share = number(row, "predicted_goodput_share")
    busy = number(row, "predicted_busy")
    parts = [
        digits(number(row, "predicted_p50_s"), "s at p50"),
        digits(number(row, "predicted_p95_s"), "s at p95"),
        digits(number(row, "predicted_requests_per_s"), "requests/s"),
        "" if share is None else f"{share:.0%} meet the SLO",
        "" if busy is None else f"the server works {min(1.0, busy):.0%} of the time",
    ]
    return ", ".join(filter(None, parts))


def _goodput(row: Row) -> str:
    share, low, high = (number(row, f"goodput_{name}") for name in ("share", "low", "high"))
    if share is None:
        return ""
    interval = "" if low is None or high is None else f" ({low:.0%}–{high:.0%})"
    rate = digits(number(row, "goodput_per_s"), "requests/s")
    return f"{share:.0%}{interval} of requests meet the SLO{f', {rate}' if rate else ''}"
