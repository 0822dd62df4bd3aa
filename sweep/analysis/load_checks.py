"""What is wrong with a load: requests that failed, a server that fell behind, a load generator too slow. Pure."""

import statistics
from collections import Counter
from collections.abc import Sequence

from sweep.analysis.cell_data import CellData
from sweep.analysis.metrics import mean
from sweep.findings import FAIL, WARN, Finding
from sweep.results.records import RunResult

BUSY = 0.9
"""Share of a core from which the load generator counts as the bottleneck: it has one core."""

LAG_S, LAG_SHARE = 0.010, 0.05
"""How late it may send: these seconds, or this share of the mean latency where that is more."""

KEPT_UP = 0.9
"""Requests done ÷ requests that arrived, in the steady state, below which a server falls behind."""

LITTLE = 0.2
"""How far in-flight requests may be from rate × latency, relative (Little's law)."""

FEWEST_FOR_LAW = 20
"""Fewest requests for this check: at the edges of a window the law holds only on average."""

REQUESTS_FAILED = "requests_failed"
"""Code of the finding that requests were not answered as they should."""

UNSTEADY, THIRDS, FEWEST_IN_THIRD = 1.25, 3, 4
"""Ratio from which equal batches differ between thirds of a load (medians), and fewest batches in a third."""

CAUSES = {
    "refused": "refused because the server was full",
    "http": "answered with an error",
    "timeout": "not answered in time",
    "connection": "cut off",
    "reply": "answered with what cannot be used",
}


def judge(data: CellData) -> list[Finding]:
    """Findings of a cell under load; [] offline."""
    if not data.cell.under_load:
        return []
    return [*_failed(data.results), *_behind(data)]


def _failed(results: Sequence[RunResult]) -> list[Finding]:
    rows = [row for result in results for row in result.failed]
    if not rows:
        return []
    count = sum(len(result.requests) for result in results) + len(rows)
    kinds = Counter(row.failure for row in rows).most_common()
    first = {kind: next(row.error for row in rows if row.failure == kind) for kind, _ in kinds}
    parts = [f"{number} {CAUSES.get(kind, 'failed')} ({first[kind]})" for kind, number in kinds]
    return [Finding(REQUESTS_FAILED, f"{len(rows)} of {count} requests failed: {'; '.join(parts)}", FAIL)]


def _behind(data: CellData) -> list[Finding]:
    """An open load that arrives faster than the server works: its latency depends on how long it lasted."""
    if data.cell.config["load"]["name"] != "open" or any(window.whole for window in data.windows):
        return []
    came, done, seconds = len(data.judged), len(data.completed), data.wall_s
    if not seconds or done >= KEPT_UP * came:
        return []
    rates = f"{came / seconds:.3g} requests/s came and {done / seconds:.3g}/s were done"
    why = f"over-saturated: {rates}, so requests wait the longer the later they come, and mean latency says little"
    return [Finding("over_saturated", why, WARN)]


def doubts(results: Sequence[RunResult]) -> list[Finding]:
    """Why times under load cannot be trusted."""
    return [found for result in results if (found := _client(result))]


def _client(result: RunResult) -> Finding | None:
    own = result.load
    if own is None or not own.wall_s:
        return None
    latency_s = mean([one.e2e_s for one in result.requests]) or 0.0
    allowed_s = max(LAG_S, LAG_SHARE * latency_s)
    said = []
    if own.cpu_s > BUSY * own.wall_s:
        said.append(f"it used {own.cpu_s / own.wall_s:.0%} of a core")
    if own.loop_lag_s > allowed_s:
        said.append(f"its event loop was {1e3 * own.loop_lag_s:.0f} ms late (p99)")
    if own.send_lag_s > allowed_s:
        said.append(f"it sent {1e3 * own.send_lag_s:.0f} ms late (p99)")
    what = f"the client was the bottleneck: {', '.join(said)}; more processes send with load.clients=N"
    return Finding("client_bottleneck", what) if said else None


def law(data: CellData, in_flight: float | None, rate: float | None) -> Finding | None:
    """Where in-flight requests, rate and latency contradict each other (Little 1961), one of them is wrong."""
    latency_s = mean(data.latencies_s)
    short = min(len(data.judged), len(data.completed)) < FEWEST_FOR_LAW or any(one.whole for one in data.windows)
    if short or not in_flight or not rate or not latency_s:
        return None
    expected = rate * latency_s
    if abs(in_flight / expected - 1) <= LITTLE:
        return None
    figures = f"{in_flight:.3g} requests in flight, but {rate:.3g}/s × {latency_s:.3g} s = {expected:.3g}"
    return Finding("littles_law", f"Little's law does not hold: {figures}; the load was not steady")


def _unsteady(result: RunResult) -> Finding | None:
    """Where the DiT takes longer for the same work at another time of the load, the machine or the server changed."""
    sizes = Counter(request.batch_index for request in result.requests)
    if not sizes:
        return None
    usual = Counter(sizes.values()).most_common(1)[0][0]
    took_ms = [batch.phase_ms.get("denoise_step", 0.0) for batch in result.batches if sizes[batch.batch_index] == usual]
    each = len(took_ms) // THIRDS
    if each < FEWEST_IN_THIRD or min(took_ms) <= 0:
        return None
    typical = [statistics.median(took_ms[n * each : (n + 1) * each]) / 1e3 for n in range(THIRDS)]
    least, most = min(typical), max(typical)
    if most < UNSTEADY * least:
        return None
    took = f"equal batches took {least:.3g} s in one third of the load and {most:.3g} s in another"
    return Finding("load_unsteady", f"{took}: the machine or the server was not steady, so speeds compare only roughly")


def notes(data: CellData) -> list[Finding]:
    """What a reader should know about a load: that it is short, that the machine changed, what the server omits."""
    if not data.cell.under_load:
        return []
    found = []
    for window, result in zip(data.windows, data.results, strict=False):
        count = len(result.requests)
        if window.whole:
            so = "so its beginning and end are in the figures; load.num_requests=N sends more"
            found.append(Finding("load_short", f"{count} requests are too few for a steady state, {so}"))
        elif window.brief:
            why = f"the steady state of {count} requests lasted {window.seconds:.3g} s, less than one of them takes"
            found.append(
                Finding("load_short", f"{why}, so speeds compare only roughly; load.num_requests=N sends more")
            )
    found += [one for result in data.results if (one := _unsteady(result))]
    if uncounted := sum(result.load.uncounted for result in data.results if result.load):
        why = f"the server does not say how many tokens {uncounted} texts have, so their chunks are counted instead"
        found.append(Finding("tokens_uncounted", f"{why}; a chunk may hold several"))
    return list(dict.fromkeys(found))
