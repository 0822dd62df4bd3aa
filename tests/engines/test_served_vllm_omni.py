"""`engine=vllm_omni` under load: the command that serves, its flags, and what its workers record of each batch."""

import asyncio
import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from omni_server_double import python_path

from profiling.evidence import RankEvidence
from profiling.vllm_plugin.record_files import ArRecord, DitRecord, Transfer
from profiling.vllm_plugin.request_names import RequestNames, hook_client, name_of
from sweep.engines.vllm_omni.serve_flags import flags, without_flag
from sweep.engines.vllm_omni.served_batches import PATIENCE_S, ServedBatches
from tests.conftest import Finished
from tests.wheels import VERSIONS, wheel_source

pytest.importorskip("fastapi")
pytest.importorskip("aiohttp")
pytest.importorskip("uvloop")

LOAD = (
    *("-m", "engine=vllm_omni", "engine.device=cpu", "model=qwen_image", "model.path=model", "workload.width=64"),
    *("workload.height=64", "workload.steps=4", "workload.num_prompts=2", "load=closed", "load.max_concurrency=2"),
    *("load.num_requests=12", "baselines=false", "plots=false", "hydra.sweep.dir=sweep"),
)
Run = Callable[..., Finished]


@pytest.fixture
def omni(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """The stand-in is importable; no server is left behind."""
    monkeypatch.setenv("PYTHONPATH", python_path(tmp_path / "site"))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model_index.json").write_text("{}")
    yield monkeypatch
    assert [one for one in psutil.process_iter(["environ", "cmdline"]) if _served(one, tmp_path / "site")] == []


def _served(process: psutil.Process, site: Path) -> bool:
    """Whether it is an engine or a server of a test with these packages."""
    started = " ".join(process.info["cmdline"] or [])
    path = str((process.info["environ"] or {}).get("PYTHONPATH", "")).split(":")
    return str(site) in path and ("engines.process.child" in started or "spawn_main" in started)


def row(folder: Path) -> dict[str, str]:
    with (folder / "summary.csv").open() as handle:
        (only,) = csv.DictReader(handle)
    return only


def cell_log(folder: Path) -> str:
    (log,) = folder.glob("*/engine*.log")
    return log.read_text()


def test_a_load_starts_the_server_with_the_options_of_its_features(sweep: Run, tmp_path: Path, omni: Any) -> None:
    done = sweep(*LOAD, "feature=teacache", "batch=2", "load.batch_wait_ms=5")
    assert done.code == 0, done.out + done.err
    found = row(tmp_path / "sweep")
    assert (found["requests_sent"], found["requests_failed"]) == ("12", "0")
    assert float(found["images_per_s"]) > 0
    assert float(found["queue_mean_s"]) > 0, "of two in flight one waits, as the server says"
    assert float(found["denoise_step_ms"]) == pytest.approx(20, abs=15), "what the workers recorded"
    said = next(line for line in cell_log(tmp_path / "sweep").splitlines() if line.startswith("ARGV"))
    command = json.loads(said.removeprefix("ARGV "))
    assert command[1:4] == ["serve", "model", "--omni"]
    for flag, value in (
        ("--host", "127.0.0.1"),
        ("--served-model-name", "qwen_image"),
        ("--max-num-seqs", "2"),
        ("--request-batch-max-wait-ms", "5.0"),
        ("--cache-backend", "tea_cache"),
    ):
        assert command[command.index(flag) + 1] == value
    assert json.loads(command[command.index("--cache-config") + 1])["rel_l1_thresh"] > 0


def test_a_feature_that_does_nothing_under_load_is_said_so(
    sweep: Run, tmp_path: Path, omni: pytest.MonkeyPatch
) -> None:
    omni.setenv("BEHAVE", "idle")
    assert sweep(*LOAD, "feature=teacache").code == 1
    assert row(tmp_path / "sweep")["reason_code"] == "not_engaged"


def test_without_the_plugin_only_what_clients_see_is_known(sweep: Run, tmp_path: Path, omni: Any) -> None:
    done = sweep(*LOAD, "engine.plugin=false")
    assert done.code == 0, done.out + done.err
    found = row(tmp_path / "sweep")
    assert (found["requests_sent"], found["requests_failed"], found["denoise_step_ms"]) == ("12", "0", "")


def test_a_server_that_does_not_start_says_why(sweep: Run, tmp_path: Path, omni: pytest.MonkeyPatch) -> None:
    omni.setenv("BEHAVE", "no_start")
    done = sweep(*LOAD)
    assert done.code == 1
    found = row(tmp_path / "sweep")
    assert found["status"] == "ERROR"
    assert "ValueError: no such model" in found["reason"]


def test_a_server_that_dies_under_load_is_an_error_that_names_it(
    sweep: Run, tmp_path: Path, omni: pytest.MonkeyPatch
) -> None:
    omni.setenv("BEHAVE", "die")
    done = sweep(*LOAD)
    assert done.code == 1
    found = row(tmp_path / "sweep")
    assert found["status"] == "ERROR"
    assert "CUDA error" in found["reason"]


def test_waiting_is_known_from_the_workers_where_the_server_says_nothing(
    sweep: Run, tmp_path: Path, omni: pytest.MonkeyPatch
) -> None:
    omni.setenv("BEHAVE", "silent")
    assert sweep(*LOAD).code == 0
    assert float(row(tmp_path / "sweep")["queue_mean_s"]) > 0.01, "of two in flight one waits 20 ms"


def test_keywords_become_flags() -> None:
    given = {
        "max_num_seqs": 4,
        "enforce_eager": True,
        "trust_remote_code": False,
        "cache_config": {"rel_l1_thresh": 0.2},
        "parallel_config": {"cfg_parallel_size": 2, "ulysses_degree": 2, "use_hsdp": True},
        "quantization": None,
    }
    assert flags(given) == [
        *("--max-num-seqs", "4", "--enforce-eager", "--no-trust-remote-code"),
        *("--cache-config", '{"rel_l1_thresh": 0.2}'),
        *("--cfg-parallel-size", "2", "--usp", "2", "--use-hsdp"),
    ]
    assert without_flag(given, {"max_num_seqs", "enforce_eager"}) == "trust_remote_code"


@pytest.mark.parametrize("version", VERSIONS)
def test_what_features_ask_for_has_a_flag(version: str) -> None:
    from sweep.engines.vllm_omni import options
    from sweep.engines.vllm_omni.option_source import Source

    known = options.flags(Source(wheel_source(version) / "vllm_omni"))
    of_vllm = {"max_num_seqs", "enforce_eager", "quantization", "tensor_parallel_size", "pipeline_parallel_size"}
    asked = ("cfg_parallel_size", "ulysses_degree", "ring_degree", "use_hsdp", "hsdp_shard_size", "cache_backend")
    asked += ("cache_config", "vae_patch_parallel_size", "vae_use_slicing", "vae_use_tiling", "enable_cpu_offload")
    asked += ("enable_layerwise_offload", "diffusion_compile_granularity", "request_batch_max_wait_ms")
    given = dict.fromkeys((*asked, *of_vllm, "deploy_config", "log_stats"), 1)
    assert without_flag(given, known | of_vllm) == ""
    assert without_flag({"no_such_option": 1}, known | of_vllm) == "no_such_option"


def test_a_served_request_keeps_its_clients_name() -> None:
    class Client:
        @staticmethod
        def _get_unique_request_id(external_request_id: str) -> str:
            return f"{external_request_id}-0123abcd"

    assert hook_client(Client) == hook_client(Client) == ["Client._get_unique_request_id"]
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(await asyncio.create_task(handler()))

    async def handler() -> str:
        return Client._get_unique_request_id("img_gen-1")

    async def serve(*headers: tuple[bytes, bytes]) -> None:
        await asyncio.create_task(RequestNames(app)({"type": "http", "headers": headers}, None, None))  # type: ignore[arg-type]

    async def both() -> None:
        await serve((b"x-request-id", b"r001-2"))
        await serve()

    asyncio.run(both())
    assert seen == ["r001-2-0123abcd", "img_gen-1-0123abcd"]
    assert [name_of(one) for one in (seen[0], f"{seen[0]}-89abcdef", "r001-2")] == ["r001-2"] * 3


def drawn(*requests: str, start_s: float = 10.0, rank: int = 0) -> DitRecord:
    names = tuple(f"{request}-0123abcd" for request in requests)
    tokens = {"tokens_received": ";".join("4:ab" for _ in requests)}
    evidence = RankEvidence(rank, 4, 2, 8, 0, 64, 100, tokens, {})
    return DitRecord(names, False, start_s, (("request", 0, start_s, 900.0, 1000.0),), evidence)


def wrote(*requests: str, start_s: float, took_ms: float = 10.0) -> ArRecord:
    """Prefills of these requests, each 10 ms and one after the other."""
    names = tuple(f"{request}-0123abcd-89abcdef" for request in requests)
    phases = tuple(("ar_prefill", n, start_s + n * took_ms / 1e3, took_ms, None) for n in range(len(requests)))
    return ArRecord(names, 0, len(phases), {"runner": "GPUARModelRunner"}, phases, tuple(range(len(requests))))


def test_batches_of_one_stage_are_complete_when_every_rank_has_drawn() -> None:
    batches = ServedBatches(2, False, 9.0)
    batches.add([drawn("r000", "r001")])
    assert batches.complete(11.0) == []
    assert batches.waiting == 1
    batches.add([drawn("r000", "r001", rank=1)])
    (output,) = batches.complete(11.0)
    assert output.request_ids == ("r000", "r001")
    assert (output.start_s, output.latency_s) == (1.0, 1.0)
    assert [one.rank for one in output.evidence] == [0, 1]
    assert batches.waiting == 0


def test_tokens_of_overlapping_requests_are_told_apart() -> None:
    """The second request's prefill runs while the first is drawn."""
    batches = ServedBatches(1, True, 0.0)
    batches.add([wrote("r000", start_s=8.0), Transfer("r000-0123abcd", 9.0, 1.0, "4:ab", 11)])
    batches.add([drawn("r000"), wrote("r001", start_s=10.2)])
    (first,) = batches.complete(11.0)
    assert (first.start_s, first.latency_s) == (8.0, 3.0)
    assert first.ttft_s == (pytest.approx(0.01),)
    assert first.tpot_s == (pytest.approx(0.099),)
    assert first.output_tokens == 11
    assert first.evidence[0].counts["hand_overs"] == 1
    assert first.evidence[0].counts["hand_overs_broken"] == 0
    assert [one.phase for one in first.phases].count("ar_prefill") == 2, "steps go to the batch that is drawn next"
    batches.add([Transfer("r001-0123abcd", 10.9, 1.0, "4:ba", 11), drawn("r001", start_s=11.0)])
    (second,) = batches.complete(12.0)
    assert (second.start_s, second.ttft_s) == (10.2, (pytest.approx(0.01),))
    assert second.evidence[0].counts["hand_overs_broken"] == 1
    assert second.evidence[0].settings["ar_runner"] == "GPUARModelRunner"


def test_a_batch_waits_for_other_processes_only_so_long() -> None:
    batches = ServedBatches(1, True, 0.0)
    batches.add([drawn("r000")])
    assert batches.complete(11.0 + PATIENCE_S - 0.1) == []
    (output,) = batches.complete(11.0 + PATIENCE_S + 0.1)
    assert (output.ttft_s, output.tpot_s, output.latency_s) == ((None,), (None,), 1.0)
