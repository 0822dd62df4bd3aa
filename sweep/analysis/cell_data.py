"""What the columns of a cell are computed from: its results, one for each engine start. Pure.

Offline, every measured request counts. Under load, those of the steady state count (`steady_state`): latencies cover
the requests sent within it, rates those done within it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from sweep.analysis import metrics, steady_state
from sweep.analysis.steady_state import Window
from sweep.cached import cached_property
from sweep.plan.cells import Cell
from sweep.results.records import TOKEN_TIMES, BatchRow, RequestRow, RunResult


@dataclass(frozen=True)
class CellData:
    """A cell with its results."""

    cell: Cell
    results: tuple[RunResult, ...]

    @cached_property
    def requests(self) -> list[RequestRow]:
        """Requests of all starts."""
        return [request for result in self.results for request in result.requests]

    @cached_property
    def batches(self) -> list[BatchRow]:
        """Batches of all starts."""
        return [batch for result in self.results for batch in result.batches]

    @cached_property
    def windows(self) -> list[Window]:
        """The steady state of each start under load; [] offline."""
        if not self.cell.under_load:
            return []
        asked = self.cell.config["load"]
        closed = asked["max_concurrency"] if asked["name"] == "closed" else None
        ramp_s = asked.get("ramp_s", 0.0)  # loads of earlier versions have none
        found = (steady_state.window(result.requests, closed, ramp_s) for result in self.results)
        return [one for one in found if one is not None]

    @cached_property
    def judged(self) -> Sequence[RequestRow]:
        """Requests whose latencies count."""
        return [one for window in self.windows for one in window.sent] if self.cell.under_load else self.requests

    @cached_property
    def completed(self) -> Sequence[RequestRow]:
        """Requests that rates count."""
        return [one for window in self.windows for one in window.done] if self.cell.under_load else self.requests

    @cached_property
    def wall_s(self) -> float:
        """Seconds in which `completed` were done over all starts, without the interleaved baseline's turns."""
        if self.cell.under_load:
            return math.fsum(window.seconds for window in self.windows)
        return math.fsum(map(_wall_s, self.results))

    @cached_property
    def latencies_s(self) -> list[float]:
        """Latency of each request that is judged."""
        return [request.e2e_s for request in self.judged]

    @cached_property
    def timed(self) -> list[RunResult]:
        """Results whose TTFT and TPOT share one definition: today's if any result has it, else an earlier one."""
        return [result for result in self.results if result.token_times == TOKEN_TIMES] or list(self.results)

    @cached_property
    def ttfts_s(self) -> list[float]:
        """Time to first token of each request that has one."""
        rows = self.judged if self.cell.under_load else (r for result in self.timed for r in result.requests)
        return [r.ttft_s for r in rows if r.ttft_s is not None]

    @cached_property
    def tpots_s(self) -> list[float]:
        """Time per token of each request that has one, or of each batch in results stored before requests had it."""
        if self.cell.under_load:
            return [r.tpot_s for r in self.judged if r.tpot_s is not None]
        found: list[float] = []
        for result in self.timed:
            own = [request.tpot_s for request in result.requests if request.tpot_s is not None]
            found += own or [batch.tpot_s for batch in result.batches if batch.tpot_s is not None]
        return found

    @cached_property
    def gaps_s(self) -> list[float]:
        """Gaps between the chunks of all texts that are judged."""
        return [gap for request in self.judged for gap in request.itl_s]

    @cached_property
    def output_tokens(self) -> int:
        """AR tokens of all requests."""
        return sum(request.output_tokens for request in self.requests)

    @cached_property
    def totals_ms(self) -> dict[str, float]:
        """Milliseconds of a batch by phase."""
        if not self.batches:
            return {}
        phases = chain.from_iterable(batch.phase_ms.items() for batch in self.batches)
        return metrics.phase_totals(phases, requests=len(self.batches))

    @cached_property
    def baseline_totals_ms(self) -> dict[str, float]:
        """The same for the interleaved baseline; {} without one, and where a start of an earlier version lacks it."""
        known = [batch.baseline_phase_ms for batch in self.batches if batch.baseline_s is not None]
        if not known or not all(known):
            return {}
        return metrics.phase_totals(chain.from_iterable(phases.items() for phases in known), requests=len(known))

    @cached_property
    def shares(self) -> dict[str, float]:
        """Share of a batch by phase."""
        return metrics.phase_shares(self.totals_ms)

    def count(self, name: str) -> int | None:
        """The largest count of this name over all ranks and batches; None where nothing counted it."""
        ranks = chain.from_iterable(batch.evidence for batch in self.batches)
        return max((one.counts[name] for one in ranks if name in one.counts), default=None)

    @cached_property
    def handed_over_bytes(self) -> float | None:
        """Bytes from stage to stage for each picture; None where they are unknown."""
        counted = [one.counts for batch in self.batches for one in batch.evidence if "hand_over_bytes" in one.counts]
        if not counted or not self.requests:
            return None
        return sum(one["hand_over_bytes"] + one.get("kv_bytes_sent", 0) for one in counted) / len(self.requests)

    def telemetry(self, name: str) -> list[float]:
        """A telemetry figure of each start that has it."""
        return [value for result in self.results if (value := result.telemetry.get(name)) is not None]


def _wall_s(result: RunResult) -> float:
    spans = [
        (request.sent_s, request.done_s)
        for request in result.requests
        if request.sent_s is not None and request.done_s is not None
    ]
    if len(spans) < len(result.requests):  # the engine does not say when it began, or an earlier version stored it
        return math.fsum(batch.latency_s for batch in result.batches)
    return metrics.wall_s(spans)
