"""Texts in the engine's thread: tokens are handed on as they are made, and the result is reported like a batch's."""

import time

from profiling.phases import PhaseRecord
from sweep.engines.protocol import NO_TEXT, Engine, Output, Request, Writes
from sweep.engines.serving.batching import Waiting


def refusal(engine: Engine, request: Request) -> str:
    """Why an engine cannot write a text, in one line; "" if it can."""
    return engine.refusal(request) if isinstance(engine, Writes) else NO_TEXT


def written(engine: Engine, one: Waiting) -> Output:
    """Write a text, until it is complete or its client is gone. Its times count as time.perf_counter does."""
    assert isinstance(engine, Writes)
    began_s = time.perf_counter()
    writing = engine.write(one.request)
    times_s: list[float] = []
    for token in writing.tokens:
        times_s.append(time.perf_counter())
        if not one.tell(token):
            break
    ended_s = max(time.perf_counter(), began_s + 1e-9)
    first_s, last_s, count = times_s[0], times_s[-1], len(times_s)
    phases = [("request", began_s, ended_s), ("ar_prefill", began_s, first_s)]
    phases += [("ar_decode", first_s, last_s)] if count > 1 else []
    name = one.request.request_id
    return Output(
        request_ids=(name,),
        start_s=began_s,
        latency_s=ended_s - began_s,
        image_paths=("",),
        image_hashes=("",),
        output_tokens=count,
        prompt_tokens=(writing.prompt_tokens,),
        phases=tuple(PhaseRecord(0, phase, 0, start, 1e3 * (end - start), None, name) for phase, start, end in phases),
        evidence=(),
        ttft_s=(first_s - began_s,),
        tpot_s=((last_s - first_s) / (count - 1) if count > 1 else None,),
        epoch_s=0.0,
    )
