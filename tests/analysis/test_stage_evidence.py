"""Fields of model.stages against what was read back from the stages that ran."""

from typing import Any

import pytest

from profiling.evidence import RankEvidence
from sweep.analysis import stage_evidence
from sweep.analysis.engagement import Executed
from sweep.analysis.stage_evidence import STAGE_NOT_ENGAGED
from sweep.findings import FAIL, WARN

RUNS = {
    "ar_max_model_len": "16384",
    "ar_gpu_memory_utilization": "0.35",
    "ar_enforce_eager": "True",
    "ar_kv_cache_dtype": "fp8_e4m3",
    "ar_temperature": "0.0",
    "ar_tp_size": "2",
    "ar_gpu": "0",
    "gpu": "2",
    "compiled": "none",
    "max_num_seqs": "1",
}


def start(*settings: dict[str, str]) -> Executed:
    """An engine start with one batch for each of these settings of its only rank."""
    return Executed(tuple((RankEvidence(0, 1, 1, 1, 0, 1, 1, settings=one),) for one in settings))


@pytest.mark.parametrize(
    "stages",
    [
        {"ar": {"max_model_len": 16384, "gpu_memory_utilization": 0.35, "enforce_eager": True}},
        {"ar": {"kv_cache_dtype": "fp8", "temperature": 0.0, "devices": "0+1"}},
        {"ar": {"kv_cache_dtype": "auto", "max_model_len": None}, "dit": {"devices": None}, "connector": None},
        {"dit": {"devices": "2", "enforce_eager": True, "max_num_seqs": 1}},
        {},
        None,
    ],
)
def test_what_was_read_back_as_asked_is_no_finding(stages: Any) -> None:
    assert stage_evidence.judge(stages, [start(RUNS, RUNS)]) == []


@pytest.mark.parametrize(
    ("stage", "name", "value", "told"),
    [
        ("ar", "max_model_len", 8192, "model.stages.ar.max_model_len=8192 did not engage: read back was 16384"),
        ("ar", "gpu_memory_utilization", 0.2, "=0.2 did not engage: read back was 0.35"),
        ("ar", "enforce_eager", False, "enforce_eager=false did not engage: read back was true"),
        ("ar", "kv_cache_dtype", "bfloat16", "read back was fp8_e4m3"),
        ("ar", "devices", "0", "devices=0 did not engage: read back was 2 GPUs (from 0)"),
        ("dit", "enforce_eager", False, "model.stages.dit.enforce_eager=false did not engage: read back was true"),
    ],
)
def test_a_value_that_was_not_taken_did_not_engage(stage: str, name: str, value: Any, told: str) -> None:
    (found,) = stage_evidence.judge({stage: {name: value}}, [start(RUNS)])
    assert (found.code, found.status) == (STAGE_NOT_ENGAGED, FAIL)
    assert found.text.endswith(told)
    good = RUNS | {f"ar_{name}" if stage == "ar" else name: str(value)}
    if "enforce_eager" not in name and name != "devices":
        (found,) = stage_evidence.judge({stage: {name: value}}, [start(good, RUNS)])
        assert found.status == FAIL, "one batch of several in which it was not so is enough"


def test_what_nobody_read_back_cannot_be_checked() -> None:
    (found,) = stage_evidence.judge({"ar": {"block_size": 32}}, [start(RUNS)])
    assert (found.code, found.status) == ("unverifiable", WARN)
    (found,) = stage_evidence.judge({"ar": {"block_size": 32}}, [Executed(((),))])
    assert found.code == "unverifiable", "a cell without evidence, as with engine.plugin=false"


def test_evidence_names_what_was_read_back() -> None:
    stages = {"ar": {"max_model_len": 8192, "devices": "0+1", "block_size": 32}}
    text = stage_evidence.describe(stages, start(RUNS))
    assert text == "ar.max_model_len 16384; ar.devices 2 GPUs (from 0); ar.block_size not read back"
    assert stage_evidence.describe({}, start(RUNS)) == ""
