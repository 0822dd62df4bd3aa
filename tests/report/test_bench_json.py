"""bench.json against vLLM's own formulas, over requests whose truth is known, and against summary.csv's."""

import dataclasses
from typing import Any

import msgspec
import numpy
import pytest

from sweep.analysis.columns import computed
from sweep.report.bench_json import document
from sweep.results.records import RequestRow
from tests.analysis.test_loads import CLOSED, OPEN, closed, data, opened, request

DERIVED = {"ttft": "ttft_s", "tpot": "tpot_s", "e2el": "e2e_s"}


def with_tokens(made: list[RequestRow]) -> list[RequestRow]:
    """Of a model that writes tokens, with times of their own."""
    return [
        msgspec.structs.replace(
            one, prompt_tokens=10 + n % 3, output_tokens=261, ttft_s=0.01 * (1 + n % 7), tpot_s=0.001 * (1 + n % 5)
        )
        for n, one in enumerate(made)
    ]


def bench(asked: dict[str, Any], made: list[RequestRow], **more: Any) -> dict[str, Any]:
    measured = data(asked, made, **more)
    return document(measured.cell, measured.results[0])


def test_all_requests_count_as_in_vllm() -> None:
    made = with_tokens(closed(40, 4, 0.5))
    found = bench(CLOSED, made)
    span_s = 0.5 * 40
    assert found["duration"] == pytest.approx(span_s)
    assert (found["num_prompts"], found["completed"], found["failed"]) == (40, 40, 0)
    assert found["request_throughput"] == pytest.approx(40 / span_s)
    assert found["total_output_tokens"] == 40 * 261
    assert found["output_throughput"] == pytest.approx(40 * 261 / span_s)
    tokens = 40 * 261 + sum(one.prompt_tokens for one in made)
    assert found["total_token_throughput"] == pytest.approx(tokens / span_s)
    for name, field in DERIVED.items():
        values = 1e3 * numpy.array([getattr(one, field) for one in made])
        assert found[f"mean_{name}_ms"] == pytest.approx(numpy.mean(values))
        assert found[f"median_{name}_ms"] == pytest.approx(numpy.median(values))
        assert found[f"std_{name}_ms"] == pytest.approx(numpy.std(values))
        assert found[f"p90_{name}_ms"] == pytest.approx(numpy.percentile(values, 90))
        assert found[f"p99_{name}_ms"] is None, "p99 of 40 requests means nothing"


def test_what_summary_csv_has_too_is_the_same() -> None:
    """Of a load that is too short for a steady state, summary.csv is of all requests too."""
    slo = {"slo": {"ttft": 30.0, "tpot": None, "e2el": None}}
    measured = data(CLOSED | slo, with_tokens(closed(9, 4, 0.5)))
    assert measured.windows[0].whole
    row, found = computed(measured), document(measured.cell, measured.results[0])
    assert found["request_throughput"] == pytest.approx(row["requests_per_s"])
    assert found["request_goodput"] == pytest.approx(row["goodput_per_s"])
    assert 0 < row["goodput_per_s"] < row["requests_per_s"]
    assert found["output_throughput"] == pytest.approx(row["output_tokens_per_s"])
    assert found["duration"] == pytest.approx(row["window_s"])
    assert found["num_prompts"] == row["requests_sent"]
    for name, column in {"ttft": "ttft", "tpot": "tpot", "e2el": "latency"}.items():
        assert found[f"mean_{name}_ms"] == pytest.approx(1e3 * row[f"{column}_mean_s"])
    assert found["p90_e2el_ms"] == pytest.approx(1e3 * row["latency_p90_s"])


def test_what_was_not_measured_is_null_or_left_out() -> None:
    found = bench(CLOSED, closed(40, 4, 0.5))
    for name in ("total_input_tokens", "total_output_tokens", "output_throughput", "total_token_throughput"):
        assert found[name] is None
    assert found["request_goodput"] is None
    assert not [name for name in found if "ttft" in name or "tpot" in name or "itl" in name]
    assert not {"input_lens", "output_lens"} & found.keys()


def test_failed_requests_have_a_place_and_an_error() -> None:
    made = with_tokens(closed(40, 4, 0.5))
    lost = msgspec.structs.replace(request(99, 0.25, 0.1), exit_code=1, error="HTTP 500", failure="http")
    found = bench(CLOSED, made, failed=(lost,))
    assert (found["num_prompts"], found["completed"], found["failed"]) == (41, 40, 1)
    place = found["errors"].index("HTTP 500")
    assert [found[name][place] for name in ("ttfts", "output_lens", "input_lens")] == [0, 0, 0]
    assert found["start_times"] == sorted(found["start_times"])
    assert {len(found[name]) for name in ("errors", "ttfts", "output_lens", "input_lens", "start_times")} == {41}


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (CLOSED, ("inf", None, 4)),
        (OPEN, (5.0, 1.0, None)),
        (OPEN | {"arrivals": "gamma", "burstiness": 0.5, "max_concurrency": 8}, (5.0, 0.5, 8)),
        (OPEN | {"arrivals": "constant"}, (5.0, None, None)),
    ],
)
def test_the_load_is_told_in_vllms_terms(asked: dict[str, Any], expected: tuple[Any, ...]) -> None:
    found = bench(asked, opened(60, 5.0, 0.1, 0), started_at="2026-11-29T10:26:00+00:00")
    assert tuple(found[name] for name in ("request_rate", "burstiness", "max_concurrency")) == expected
    assert found["date"] == "20261129-102600"
    assert found["backend"] == found["endpoint_type"] == "openai-images"


def test_every_name_is_one_of_vllms() -> None:
    made = with_tokens(closed(40, 4, 0.5))
    found = bench(CLOSED | {"slo": {"ttft": 30.0, "tpot": None, "e2el": None}}, made)
    plain = {name for name in found if not name.endswith("_ms")}
    assert plain <= KNOWN, plain - KNOWN
    assert {f"mean_{name}_ms" for name in DERIVED} <= found.keys()


KNOWN = {
    *("date", "endpoint_type", "backend", "label", "model_id", "tokenizer_id", "num_prompts", "request_rate"),
    *("burstiness", "max_concurrency", "duration", "completed", "failed", "total_input_tokens", "total_output_tokens"),
    *("request_throughput", "request_goodput", "output_throughput", "total_token_throughput"),
    *("input_lens", "output_lens", "ttfts", "itls", "start_times", "generated_texts", "errors"),
}
"""Names in vllm/benchmarks/serve.py of vLLM 0.26, without those of statistics."""


def test_texts_that_stream_have_their_gaps() -> None:
    made = [msgspec.structs.replace(one, itl_s=(0.01, 0.03)) for one in with_tokens(closed(40, 4, 0.5))]
    lost = msgspec.structs.replace(request(99, 0.25, 0.1), exit_code=1, error="HTTP 500", failure="http")
    measured = data(CLOSED, made, failed=(lost,))
    work = {**measured.cell.config["workload"], "task": "text"}
    cell = dataclasses.replace(measured.cell, config={**measured.cell.config, "workload": work})
    found = document(cell, measured.results[0])
    assert found["backend"] == "openai"
    assert (found["mean_itl_ms"], found["std_itl_ms"]) == pytest.approx((20.0, 10.0))
    assert found["itls"][found["errors"].index("HTTP 500")] == []
    assert found["itls"].count([0.01, 0.03]) == 40


def test_metadata_is_at_the_top_level_and_hides_nothing_that_was_measured() -> None:
    measured = data(CLOSED, closed(40, 4, 0.5))
    given = {"hardware": "8xDCU", "completed": 7}
    cell = dataclasses.replace(measured.cell, config={**measured.cell.config, "metadata": given})
    found = document(cell, measured.results[0])
    assert (found["hardware"], found["completed"]) == ("8xDCU", 40)
