"""From records of a driver to the rows that are stored: requests with their times, batches, token times. Pure."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from profiling.phases import PhaseRecord
from sweep.analysis import metrics
from sweep.engines.protocol import Output, Request
from sweep.results.records import BatchRow, RequestRow
from sweep.run.client.messages import Answer
from sweep.run.drivers import Broken, Failed, Record
from sweep.run.load_driver import Lost, repeat_of

UNKNOWN_START_S = 1e-6
"""If a request began no later than this after it was sent, its server does not say when it began."""


def request_rows(record: Record, number: int, zero_s: float, began_s: float | None) -> tuple[RequestRow, ...]:
    """One row per request of batch `number`.

    `zero_s` is when the engine began with the cell's first request on the engine's clock, `began_s` the same on
    time.perf_counter, None where the engine does not say.
    """
    output, turn = record.output, record.turn
    start_s = output.start_s - zero_s
    if record.answers:
        return _answered_rows(record, number, start_s, began_s)
    rows = []
    for position, (request, (ttft_s, tpot_s)) in enumerate(zip(turn.requests, token_times(output), strict=True)):
        rows.append(
            RequestRow(
                **_asked(request, turn.repeat, number),
                start_s=start_s,
                queue_s=None,
                ttft_s=ttft_s,
                e2e_s=output.latency_s,
                output_tokens=output.output_tokens,
                exit_code=0,
                error="",
                prompt_tokens=output.prompt_tokens[position],
                image=output.image_paths[position],
                image_hash=output.image_hashes[position],
                tpot_s=tpot_s,
                intended_s=turn.intended_s,
                sent_s=None if began_s is None else record.sent_s - began_s,
                first_token_s=None if ttft_s is None else start_s + ttft_s,
                done_s=start_s + output.latency_s,
                image_fault=output.image_faults[position] if output.image_faults else "",
                image_tokens=output.image_tokens[position] if output.image_tokens else (),
            )
        )
    return tuple(rows)


def _answered_rows(record: Record, number: int, start_s: float, began_s: float | None) -> tuple[RequestRow, ...]:
    """The same under load, of those requests that got a usable reply. Its times are those of the load generator."""
    output, rows = record.output, []
    times = zip(record.turn.requests, record.answers, token_times(output), strict=True)
    for position, (request, answer, (ttft_s, tpot_s)) in enumerate(times):
        if answer.failure:
            continue
        sent_s = start_s if began_s is None else record.began_s + answer.sent_s - began_s
        queued_ms = (answer.metrics.get("stage_durations") or {}).get("queue_wait_ms")
        waited_s = [] if queued_ms is None else [queued_ms / 1e3]
        if start_s - sent_s > UNKNOWN_START_S:
            waited_s.append(start_s - sent_s)
        first_s = None if ttft_s is None else start_s + ttft_s
        written = output.output_tokens
        if answer.first_token_s is not None:  # a text, of which its client sees every chunk
            written = answer.output_tokens
            first_s = sent_s + answer.first_token_s - answer.sent_s
            tpot_s = metrics.tpot(answer.chunks_s[-1], answer.first_token_s, written)
        rows.append(
            RequestRow(
                **_asked(request, repeat_of(answer.id), number),
                start_s=start_s,
                queue_s=max(waited_s, default=None),  # vLLM-Omni's own leaves out what waits behind other requests
                ttft_s=None if first_s is None else max(0.0, first_s - sent_s),
                e2e_s=answer.done_s - answer.sent_s,
                output_tokens=written,
                exit_code=0,
                error="",
                prompt_tokens=output.prompt_tokens[position],
                image=output.image_paths[position],
                image_hash=answer.image_hash,
                tpot_s=tpot_s,
                intended_s=sent_s + answer.intended_s - answer.sent_s,
                sent_s=sent_s,
                first_token_s=first_s,
                done_s=sent_s + answer.done_s - answer.sent_s,
                image_fault=answer.fault,
                image_tokens=output.image_tokens[position] if output.image_tokens else (),
                itl_s=_gaps_s(answer),
                server=answer.server,
            )
        )
    return tuple(rows)


def _gaps_s(answer: Answer) -> tuple[float, ...]:
    return tuple(round(max(0.0, after - before), 6) for before, after in pairwise(answer.chunks_s))


def lost_rows(lost: Sequence[Lost], began_s: float) -> tuple[RequestRow, ...]:
    """Rows of requests that got no usable reply under load. `began_s` as for `request_rows`."""
    rows = []
    for one in lost:
        answer, sent_s = one.answer, one.began_s + one.answer.sent_s - began_s
        rows.append(
            RequestRow(
                **_asked(one.request, repeat_of(answer.id), 0),
                start_s=sent_s,
                queue_s=None,
                ttft_s=None,
                e2e_s=answer.done_s - answer.sent_s,
                output_tokens=0,
                exit_code=1,
                error=answer.error or "the engine did not say what became of it",
                intended_s=sent_s + answer.intended_s - answer.sent_s,
                sent_s=sent_s,
                done_s=sent_s + answer.done_s - answer.sent_s,
                failure=answer.failure or "reply",
                server=answer.server,
            )
        )
    return tuple(rows)


def failed_rows(failed: Failed, number: int, began_s: float, error: str) -> tuple[RequestRow, ...]:
    """Rows of the turn that failed: no image, and the error in place of one. `began_s` as for `request_rows`."""
    start_s = failed.sent_s - began_s
    return tuple(
        RequestRow(
            **_asked(request, failed.turn.repeat, number),
            start_s=start_s,
            queue_s=None,
            ttft_s=None,
            e2e_s=failed.took_s,
            output_tokens=0,
            exit_code=1,
            error=error,
            intended_s=failed.turn.intended_s,
            sent_s=start_s,
            done_s=start_s + failed.took_s,
        )
        for request in failed.turn.requests
    )


def alone_rows(broken: Broken, number: int, zero_s: float, began_s: float | None) -> tuple[RequestRow, ...]:
    """Rows of requests that were generated one by one after their batch, `number`, had failed."""
    return tuple(row for record in broken.alone for row in request_rows(record, number, zero_s, began_s))


def broken_rows(broken: Broken, number: int, began_s: float) -> tuple[RequestRow, ...]:
    """Rows of requests of batch `number` that could not be generated, each with its own reason."""
    return tuple(row for one, reason in broken.failed for row in failed_rows(one, number, began_s, reason))


def _asked(request: Request, repeat: int, number: int) -> dict[str, Any]:
    """What is known of a request before it is sent."""
    given = request.input_size or request.size if request.images else (0, 0)
    return {
        "request_id": f"{request.request_id}.{repeat}",
        "prompt_index": request.prompt_index,
        "seed": request.seed,
        "width": request.width,
        "height": request.height,
        "steps": request.steps,
        "repeat": repeat,
        "batch_index": number,
        "task": request.task,
        "line": request.line,
        "turn": request.turn,
        "input_width": given[0],
        "input_height": given[1],
    }


def batch_row(record: Record, number: int) -> BatchRow:
    """Latency, evidence, phase totals of rank 0, and latency and phases of the interleaved baseline."""
    output, baseline = record.output, record.baseline
    counts = Counter(phase.phase for phase in output.phases if phase.rank == 0)
    return BatchRow(
        number,
        record.turn.repeat,
        output.latency_s,
        _totals_ms(output),
        dict(counts),
        output.evidence,
        baseline_s=baseline.latency_s if baseline else None,
        baseline_phase_ms=_totals_ms(baseline) if baseline else {},
    )


def _totals_ms(output: Output) -> dict[str, float]:
    """Milliseconds of a batch by phase, on rank 0: of the GPU where it was timed, else of the host."""
    totals: dict[str, float] = {}
    for phase in output.phases:
        if phase.rank == 0:
            took_ms = phase.gpu_ms if phase.gpu_ms is not None else phase.host_ms
            totals[phase.phase] = totals.get(phase.phase, 0.0) + took_ms
    return totals


def token_times(output: Output) -> list[tuple[float | None, float | None]]:
    """TTFT and TPOT of each request in seconds; None without an AR stage, and where requests cannot be separated.

    TTFT lasts from the request's start to its first AR token, TPOT is (last AR token - first) / (AR tokens - 1). They
    are the engine's own where it measures them. Else they follow from rank 0's phases: a prefill ends with a first
    token, the last decode after it with the last one. Requests that were prefilled together share both.
    """
    count = len(output.request_ids)
    unknown: tuple[float | None, ...] = (None,) * count
    if output.ttft_s or output.tpot_s:
        return list(zip(output.ttft_s or unknown, output.tpot_s or unknown, strict=True))
    own = sorted((phase for phase in output.phases if phase.rank == 0), key=lambda phase: phase.start_s)
    request = next((phase for phase in own if phase.phase == "request"), None)
    runs: list[tuple[PhaseRecord, list[PhaseRecord]]] = []  # each prefill with the decodes that follow it
    for phase in own:
        if phase.phase == "ar_prefill":
            runs.append((phase, []))
        elif phase.phase == "ar_decode" and runs:
            runs[-1][1].append(phase)
    alternating = len(runs) == count and all(len(decodes) == output.output_tokens - 1 for _, decodes in runs)
    if request is None or not (len(runs) == 1 or alternating):
        return [(None, None)] * count
    found: list[tuple[float | None, float | None]] = []
    for prefill, decodes in runs:
        ttft_s = _end_s(prefill) - request.start_s
        last_s = _end_s(decodes[-1]) - request.start_s if decodes else None
        found.append((ttft_s, metrics.tpot(last_s, ttft_s, output.output_tokens)))
    return found * (count // len(found))


def _end_s(phase: PhaseRecord) -> float:
    return phase.start_s + phase.host_ms / 1000
