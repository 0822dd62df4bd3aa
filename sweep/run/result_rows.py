"""From outputs of an engine to the rows that are stored: requests, batches, token times. Pure."""

from sweep.analysis import metrics
from sweep.engines.protocol import Output, Request
from sweep.results.records import BatchRow, RequestRow


def request_row(request: Request, repeat: int, batch_index: int, start_s: float, e2e_s: float) -> RequestRow:
    """What is known of a request whatever came of it."""
    return RequestRow(
        request_id=f"{request.request_id}.{repeat}",
        prompt_index=request.prompt_index,
        seed=request.seed,
        width=request.width,
        height=request.height,
        steps=request.steps,
        start_s=start_s,
        queue_s=0.0,
        ttft_s=None,
        e2e_s=e2e_s,
        output_tokens=0,
        exit_code=0,
        error="",
        repeat=repeat,
        batch_index=batch_index,
    )


def batch_row(number: int, repeat: int, output: Output) -> BatchRow:
    """Latency, evidence, and phase totals of rank 0."""
    totals: dict[str, float] = {}
    counts: dict[str, int] = {}
    for phase in output.phases:
        if phase.rank == 0:
            took_ms = phase.gpu_ms if phase.gpu_ms is not None else phase.host_ms
            totals[phase.phase] = totals.get(phase.phase, 0.0) + took_ms
            counts[phase.phase] = counts.get(phase.phase, 0) + 1
    return BatchRow(number, repeat, output.latency_s, totals, counts, output.evidence)


def token_times(output: Output) -> list[tuple[float | None, float | None]]:
    """TTFT and TPOT of each request in seconds; None without an AR stage.

    The engine's own where it measures them. Else those of rank 0's phases, which the requests of a batch share.
    """
    count = len(output.request_ids)
    if output.ttft_s or output.tpot_s:
        unknown = (None,) * count
        return list(zip(output.ttft_s or unknown, output.tpot_s or unknown, strict=True))
    own = [phase for phase in output.phases if phase.rank == 0]
    request = next((phase for phase in own if phase.phase == "request"), None)
    prefill = next((phase for phase in own if phase.phase == "ar_prefill"), None)
    ttft_s = prefill.start_s - request.start_s + prefill.host_ms / 1000 if prefill and request else None
    decodes = [phase.host_ms / 1000 for phase in own if phase.phase == "ar_decode"]
    tpot_s = metrics.tpot(sum(decodes), 0.0, len(decodes) + 1)  # of the AR stage, counted from its first token
    return [(ttft_s, tpot_s)] * count
