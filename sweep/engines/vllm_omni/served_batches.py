"""Turns what vLLM-Omni's processes record while it serves into one Output per batch of its diffusion stage. Pure.

Requests overlap: while a batch is drawn, an AR stage writes the tokens of later ones. A batch lasts from the prefill of
its first request, or from its own start where there is no AR stage, until it is drawn; AR steps that several requests
share belong to the batch that is drawn next.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from profiling.phases import PhaseRecord
from profiling.vllm_plugin.record_files import ArRecord, DitRecord, Record, Transfer
from profiling.vllm_plugin.request_names import name_of
from sweep.engines.protocol import Output
from sweep.engines.vllm_omni.worker_records import inner_phases, merge

PATIENCE_S = 12.0
"""How long a batch that is drawn waits for what other processes record of it; AR steps are written every 5 s."""


@dataclass
class ServedBatches:
    """Records that belong to no batch yet. `ranks` are the DiT's, `two_stages` says that an AR stage comes first."""

    ranks: int
    two_stages: bool
    epoch_s: float
    _drawn: dict[tuple[str, ...], list[DitRecord]] = field(default_factory=dict)
    _sent: dict[str, Transfer] = field(default_factory=dict)
    _prefills: dict[str, tuple[float, float]] = field(default_factory=dict)  # start and end of each request's
    _steps: list[ArRecord] = field(default_factory=list)  # that no batch has yet
    _last: ArRecord | None = None

    def add(self, records: Iterable[Record]) -> None:
        """Take in what was recorded since."""
        for record in records:
            if isinstance(record, DitRecord):
                self._drawn.setdefault(record.requests, []).append(record)
            elif isinstance(record, Transfer):
                self._sent[name_of(record.request)] = record
            elif isinstance(record, ArRecord) and record.rank == 0:
                self._steps.append(record)
                for request, step in zip(record.requests, record.first_steps, strict=False):
                    _, _, start_s, host_ms, gpu_ms = record.phases[step]
                    self._prefills[name_of(request)] = start_s, start_s + max(host_ms, gpu_ms or 0.0) / 1e3

    def complete(self, now_s: float) -> list[Output]:
        """Batches whose records are complete or no longer waited for (`now_s`: time.perf_counter)."""
        ready = [key for key, drawn in self._drawn.items() if self._known(key, drawn, now_s)]
        return [self._output(key, self._drawn.pop(key)) for key in sorted(ready, key=self._start_s)]

    @property
    def waiting(self) -> int:
        """Batches that are drawn and not complete."""
        return len(self._drawn)

    def _known(self, requests: tuple[str, ...], drawn: Sequence[DitRecord], now_s: float) -> bool:
        whole = {record.evidence.rank for record in drawn} >= set(range(self.ranks))
        names = [name_of(request) for request in requests]
        if whole and self.two_stages:
            whole = all(name in self._sent and name in self._prefills for name in names)
        return whole or now_s > _end_s(drawn) + PATIENCE_S

    def _start_s(self, requests: tuple[str, ...]) -> float:
        return min(record.start_s for record in self._drawn[requests])

    def _output(self, requests: tuple[str, ...], drawn: Sequence[DitRecord]) -> Output:
        names = tuple(name_of(request) for request in requests)
        sent = [self._sent.pop(name) for name in names if name in self._sent]
        prefills = [self._prefills.pop(name, None) for name in names]
        steps, self._steps = self._steps, []
        records: list[Record] = [*drawn, *sent, *(steps or self._settings_only())]
        self._last = steps[-1] if steps else self._last
        start_s = min([record.start_s for record in drawn] + [known[0] for known in prefills if known])
        latency_s = _end_s(drawn) - start_s
        written = {name_of(one.request): one for one in sent}
        whole = PhaseRecord(0, "request", 0, start_s - self.epoch_s, latency_s * 1e3)
        return Output(
            request_ids=names,
            start_s=start_s - self.epoch_s,
            latency_s=latency_s,
            image_paths=tuple("" for _ in names),
            image_hashes=tuple("" for _ in names),
            output_tokens=max((one.tokens_written for one in sent), default=0),
            prompt_tokens=tuple(0 for _ in names),
            phases=(whole, *inner_phases(records, names[0], self.epoch_s)),
            evidence=merge(records),
            ttft_s=tuple(known[1] - start_s if known else None for known in prefills) if self.two_stages else (),
            tpot_s=tuple(_tpot_s(known, written.get(name)) for name, known in zip(names, prefills, strict=True))
            if self.two_stages
            else (),
            epoch_s=self.epoch_s,
        )

    def _settings_only(self) -> list[ArRecord]:
        """The last AR record without its steps: its settings still hold."""
        return [dataclasses.replace(self._last, requests=(), steps=0, phases=(), first_steps=())] if self._last else []


def _end_s(drawn: Sequence[DitRecord]) -> float:
    return max(
        start_s + max(host_ms, gpu_ms or 0.0) / 1e3 for one in drawn for _, _, start_s, host_ms, gpu_ms in one.phases
    )


def _tpot_s(prefill: tuple[float, float] | None, sent: Transfer | None) -> float | None:
    """Seconds per token after the first, until the tokens are handed over."""
    if prefill is None or sent is None or sent.tokens_written < 2:
        return None
    return max(0.0, sent.start_s - prefill[1]) / (sent.tokens_written - 1)
