"""Whether the numbers of a row can be trusted, apart from its status. Pure."""

from collections.abc import Mapping, Sequence, Set
from typing import Any

from sweep.analysis import load_checks
from sweep.analysis.load_checks import REQUESTS_FAILED
from sweep.engines import registry
from sweep.findings import Finding, texts
from sweep.plan.cells import AA, FEATURE, Cell, noise_engine
from sweep.results.records import RunResult

DRIFT_LIMIT = 0.10
"""An A/A ratio further than this from 1 invalidates speed-ups without an interleaved baseline."""


def own_doubts(cell: Cell, results: Sequence[RunResult]) -> list[Finding]:
    """Why the numbers of any start cannot be trusted, apart from the status."""
    found = [
        Finding(code, said)
        for result in results
        for code, part in (("disturbed", result.foreign), ("throttled", result.throttled))
        for said in part
    ]
    found += load_checks.doubts(results)
    kind = registry.find(cell.config["engine"]["name"])
    if cell.config["engine"]["warmup"] == 0 and (kind is None or kind.generates):
        found.append(Finding("no_warm_up", "measured without warm-up"))
    return list(dict.fromkeys(found))


def doubt_drift(rows: Sequence[dict[str, Any]], interleaved: Set[str]) -> None:
    """Mark speed-ups invalid when A/A shows that the machine changed; those with an interleaved baseline stay valid."""
    drift: dict[tuple[str, str], float] = {}
    for row in rows:
        if row["role"] == AA and row.get("speedup") is not None:
            name = _noise(row)
            drift[name] = max(drift.get(name, 1.0), row["speedup"], 1 / row["speedup"])
    for row in rows:
        worst = drift.get(_noise(row), 1.0)
        exposed = row["role"] == FEATURE and row.get("speedup") is not None and row["cell_key"] not in interleaved
        if exposed and worst > 1 + DRIFT_LIMIT:
            said = f"A/A drift: two engine starts of the same baseline differed by {worst:.2f}x"
            row["doubts"].append(Finding("drift", said))


def _noise(row: Mapping[str, Any]) -> tuple[str, str]:
    return row["model"], noise_engine(row["engine"], bool(row.get("load")))


def doubt_baselines(rows: Sequence[dict[str, Any]], cells: Mapping[str, Cell], interleaved: Set[str]) -> None:
    """Mark speed-ups over a baseline that cannot be trusted itself, except for cells with an interleaved one.

    A baseline that lost requests under load cannot be trusted either: its other requests had the server to themselves.
    """
    lost = {row["cell_key"]: [one for one in row["findings"] if one.code == REQUESTS_FAILED] for row in rows}
    doubts = {row["cell_key"]: (*row["doubts"], *lost[row["cell_key"]]) for row in rows}
    for row in rows:
        key = row["cell_key"]
        baseline = cells[key].baseline_key
        found = doubts.get(baseline, ()) if baseline != key and key not in interleaved else ()
        if row.get("speedup") is not None and not set(found) <= set(row["doubts"]):
            row["doubts"].append(Finding("baseline_doubted", f"its baseline cannot be trusted: {texts(found)}"))
