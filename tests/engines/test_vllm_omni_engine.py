"""vLLM-Omni's engine as far as it runs without a GPU: arguments, deploy files, prompts, and reading evidence."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from profiling.vllm_plugin import record_files
from sweep.analysis.engagement import Executed
from sweep.analysis.status import judge
from sweep.checkpoints.tokenizers import write_qwen_tokenizer
from sweep.config.stages import CONNECTORS
from sweep.engines.images import BLANK, WRONG_SIZE
from sweep.engines.protocol import EngineSpec, Request
from sweep.engines.vllm_omni import connectors, placement, stages, worker_records
from sweep.engines.vllm_omni import engine as engine_module
from sweep.engines.vllm_omni.arguments import data_ranks
from sweep.engines.vllm_omni.versions import Generated, StageTimes
from sweep.findings import FAIL

QWEN = EngineSpec(
    engine="vllm_omni",
    family="qwen_image",
    model="qwen_image",
    checkpoint="/no/such/checkpoint",
    embedded=False,
    device="cuda",
    dtype="bfloat16",
    ranks=2,
    threads_per_rank=1,
    arguments={"max_num_seqs": 8, "parallel_config": {"cfg_parallel_size": 2}},
)
GLM = replace(QWEN, family="glm_image", model="glm_image")
REQUEST = Request("r000", "a red fox", 0, 7, 1024, 1024, 20, 4.0, negative_prompt=" ")


def line(rank: int = 0, requests: tuple[str, ...] = ("0_a",), dummy: bool = False, **changes: Any) -> dict[str, Any]:
    """A line as the plugin writes it for one forward of the diffusion pipeline."""
    told = {
        "rank": rank,
        "dit_forwards": 40,
        "denoise_steps": 20,
        "blocks_run": 800,
        "blocks_skipped": 0,
        "block_sequence": 4096,
        "dit_parameters": 100,
        "settings": {"pipeline": "QwenImagePipeline"},
        "counts": {"vae_decoder_calls": 1},
    }
    phases = [["request", 0, 10.0, 1800.0, 1790.0], ["denoise_step", 0, 10.1, 60.0, 80.0]]
    return {
        "requests": list(requests),
        "dummy": dummy,
        "start_s": 10.0,
        "phases": phases,
        "evidence": told | changes,
    }


def write(folder: Path, name: str, *lines: dict[str, Any]) -> None:
    for one in lines:
        record_files.append_line(folder / name, one)


@pytest.fixture
def workers(tmp_path: Path) -> worker_records.Workers:
    return worker_records.Workers(tmp_path)


def test_a_model_that_cannot_batch_is_asked_for_one_request_at_a_time(tmp_path: Path) -> None:
    assert stages.describe(QWEN, tmp_path).arguments["max_num_seqs"] == 8
    assert stages.describe(replace(QWEN, family="z_image"), tmp_path).arguments["max_num_seqs"] == 1


def test_guidance_goes_where_the_family_reads_it(tmp_path: Path) -> None:
    qwen, z_image = SimpleNamespace(), SimpleNamespace()
    (made,) = stages.describe(QWEN, tmp_path).parameters(REQUEST, [qwen])
    assert (made.true_cfg_scale, made.seed, made.height, made.num_inference_steps) == (4.0, 7, 1024, 20)
    assert made is not qwen
    (made,) = stages.describe(replace(QWEN, family="z_image"), tmp_path).parameters(REQUEST, [z_image])
    assert (made.guidance_scale, made.guidance_scale_provided) == (4.0, True)


@pytest.mark.parametrize("family", ["qwen_image", "qwen_image_edit"])
def test_a_prompt_that_vllm_omni_would_refuse_never_reaches_it(family: str, tmp_path: Path) -> None:
    """It would end its workers with it."""
    write_qwen_tokenizer(tmp_path / "tokenizer")
    described = stages.describe(replace(QWEN, family=family, checkpoint=str(tmp_path)), tmp_path)
    assert described.count_tokens(described.fit(replace(REQUEST, prompt_tokens=1024)).prompt) == 1024
    with pytest.raises(ValueError, match=r"prompt 0 has 1,02\d tokens.* 1,024"):
        described.fit(replace(REQUEST, prompt_tokens=1026))
    with pytest.raises(ValueError, match="1,024"):
        described.fit(replace(REQUEST, prompt="fox " * 2000))


@pytest.mark.parametrize(("placement", "dit"), [("shared", "0,1"), ("split", "1,2")])
def test_glm_image_stages_are_placed(placement: str, dit: str, tmp_path: Path) -> None:
    described = stages.describe(replace(GLM, placement=placement), tmp_path)
    deploy = json.loads(Path(described.arguments["deploy_config"]).read_text())
    ar, diffusion = deploy["stages"]
    assert (ar["devices"], diffusion["devices"]) == ("0", dit)
    assert (ar["max_num_seqs"], diffusion["max_num_seqs"]) == (8, 1)
    assert diffusion["parallel_config"] == {"cfg_parallel_size": 2}  # 0.26 drops these keys when they are alone
    assert "parallel_config" not in ar


def test_what_is_set_of_stages_goes_over_what_the_family_starts_them_with(tmp_path: Path) -> None:
    set_ = {"ar": {"devices": "0+1", "max_model_len": 8192, "temperature": 0.0}, "dit": {"enforce_eager": False}}
    described = stages.describe(replace(GLM, placement="split", stages=set_), tmp_path)
    deploy = json.loads(Path(described.arguments["deploy_config"]).read_text())
    ar, dit = deploy["stages"]
    assert (ar["devices"], ar["tensor_parallel_size"], dit["devices"]) == ("0,1", 2, "2,3")
    assert (ar["max_model_len"], dit["enforce_eager"]) == (8192, False)
    assert "temperature" not in ar, "requests carry it"
    asked = ar["default_sampling_params"]
    assert (asked["temperature"], asked["top_p"]) == (0.0, 0.75), "what is not set stays"


@pytest.mark.parametrize(
    ("set_", "split", "ranks", "own", "why"),
    [
        ({}, False, 2, 0, ""),
        ({}, True, 2, 1, ""),
        ({"ar": {"devices": "0"}, "dit": {"devices": "1+2"}}, False, 2, 1, ""),
        ({"ar": {"devices": "2"}, "dit": {"devices": "0,1"}}, False, 2, 1, ""),
        ({"ar": {"devices": "0+1"}}, True, 1, 2, ""),
        ({"ar": {"devices": "1"}}, False, 2, 0, ""),
        ({"dit": {"devices": "1"}}, False, 2, 1, "runs on 2 GPUs with these features, not on 1"),
        ({"dit": {"devices": "2"}}, False, 1, 1, "counted from 0 without gaps, and the stages are on GPUs 0 and 2"),
        ({"ar": {"devices": "1"}}, False, 1, 0, "the DiT stage is on GPU 0; for GPUs of their own"),
        ({"ar": {"devices": "0+1"}, "dit": {"devices": "1+2"}}, False, 2, 0, "shares all of its GPUs"),
    ],
)
def test_stages_are_placed_as_asked_or_it_is_said_why_not(
    set_: dict[str, Any], split: bool, ranks: int, own: int, why: str
) -> None:
    assert placement.own_devices(set_, split) == own
    found = placement.misplaced(set_, split, ranks)
    assert why in found if why else found == ""
    ar, dit = placement.placed(set_, split, ranks)
    assert why or len({*ar, *dit}) == ranks + own, "as many devices as are leased"


def test_a_connector_is_named_on_both_sides_of_its_edge() -> None:
    made = connectors.edge("shared_memory")
    assert made.defined == {"connectors": {"shared_memory": {"name": "SharedMemoryConnector"}}}
    assert (made.sender, made.receiver) == (
        {"output_connectors": {"to_stage_1": "shared_memory"}},
        {"input_connectors": {"from_stage_0": "shared_memory"}},
    )
    assert tuple(connectors.CONNECTORS) == CONNECTORS


@pytest.mark.parametrize(
    ("size", "preview", "target"), [((1024, 1024), 256, 1024), ((768, 1376), 231, 1032), ((512, 512), 256, 256)]
)
def test_glm_image_writes_as_many_tokens_as_the_size_takes(
    size: tuple[int, int], preview: int, target: int, tmp_path: Path
) -> None:
    """As compute_max_tokens of vLLM-Omni's stage_input_processors/glm_image.py."""
    glm = stages.GlmImage(GLM, tmp_path)
    request = replace(REQUEST, height=size[0], width=size[1])
    assert glm.tokens(*request.size) == (preview, target)
    ar, diffusion = glm.parameters(request, [SimpleNamespace(extra_args=None), SimpleNamespace()])
    assert ar.max_tokens == preview + target + 1
    assert ar.extra_args == {"target_h": size[0], "target_w": size[1]}
    assert diffusion.guidance_scale == 4.0
    assert glm.prompt(request)["mm_processor_kwargs"] == {"target_h": size[0], "target_w": size[1]}


def test_token_times_are_of_each_request(tmp_path: Path) -> None:
    def one(ttft_ms: float | None) -> Generated:
        return Generated(stages=(StageTimes(1281, ttft_ms, 2.0),))

    glm = stages.GlmImage(GLM, tmp_path)
    assert glm.token_times([one(20.0), one(40.0)]) == ((0.02, 0.04), (0.002, 0.002))
    assert glm.token_times([one(None), one(40.0)])[0] == (None, 0.04)
    assert glm.token_times([Generated(), Generated()]) == ((), ()), "without log_stats nothing is measured"
    assert glm.output_tokens([one(20.0)]) == 1281
    assert stages.describe(QWEN, tmp_path).token_times([one(20.0)]) == ((), ())


def test_a_batch_is_gathered_from_all_ranks_and_forwards(workers: worker_records.Workers) -> None:
    """Two requests that the model took one by one, on two ranks; the warm-up of vLLM-Omni does not count."""
    write(workers.folder, "dit-rank0-1.jsonl", line(dummy=True))
    workers.begin()
    for rank in (0, 1):
        write(workers.folder, f"dit-rank{rank}-{rank}.jsonl", line(rank), line(rank, ("1_b",), blocks_skipped=5))
    phases, told = workers.collect([REQUEST, replace(REQUEST, request_id="r001")], 2, 0, 9.0)
    assert [one.rank for one in told] == [0, 1]
    assert [one.dit_forwards for one in told] == [80, 80]
    assert told[0].blocks_skipped == 5
    assert told[0].settings["pipeline_calls"] == "2"
    assert "attention_backend" not in told[0].settings
    workers.begin()
    ran = [line(0, (f"{number}_c",), settings={"attention_backend": back}) for number, back in enumerate("XYX")]
    write(workers.folder, "dit-rank0-0.jsonl", *ran)
    _, told = workers.collect([REQUEST] * 3, 1, 0, 9.0)
    assert told[0].settings["attention_backend"] == "X+Y", "every forward counts, not the last one"
    assert told[0].counts == {"vae_decoder_calls": 1, "requests_per_rank": 3}
    assert {(phase.rank, phase.phase) for phase in phases} == {(0, "denoise_step"), (1, "denoise_step"), (1, "request")}
    assert phases[0].request_id == "r000"
    assert phases[0].start_s == pytest.approx(1.0, abs=0.2)


def test_ranks_that_divide_a_batch_report_a_part_each(workers: worker_records.Workers) -> None:
    workers.begin()
    for rank, request in enumerate(("0_a", "1_b")):
        write(workers.folder, f"dit-rank{rank}-{rank}.jsonl", line(rank, (request,)))
    divided = {"parallel_config": {"data_parallel_size": 2}, "enable_distributed_layerwise_offload": True}
    requests = [REQUEST, replace(REQUEST, request_id="r001")]
    _, told = workers.collect(requests, 2, 0, 9.0, data_ranks=data_ranks(divided))
    assert [one.counts["requests_per_rank"] for one in told] == [1, 1]
    assert data_ranks({"parallel_config": {"data_parallel_size": 2}}) == 1, "each rank then has every request"
    assert data_ranks({}) == 1


def test_a_batch_that_went_unobserved_is_not_waited_for(workers: worker_records.Workers) -> None:
    (workers.folder / record_files.PAUSED).touch()
    assert workers.collect([REQUEST], 2, 0, 0.0) == ((), ())


def test_a_silent_rank_is_named(workers: worker_records.Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_records, "LINES_TIMEOUT_S", 0.05)
    workers.begin()
    write(workers.folder, "dit-rank0-1.jsonl", line())
    with pytest.raises(RuntimeError, match="DiT rank 1"):
        workers.collect([REQUEST], 2, 0, 0.0)


def test_a_process_without_the_plugin_is_an_error(
    workers: worker_records.Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_records, "MARKER_TIMEOUT_S", 0.05)
    (workers.folder / "installed-1.json").write_text(json.dumps({"pid": 1, "hooks": []}))
    with pytest.raises(RuntimeError, match=r"\b1\b.*\b3\b.*engine\.plugin=false"):
        workers.check(3)
    (workers.folder / "failed-2.txt").write_text("AttributeError: no such method")
    with pytest.raises(RuntimeError, match=r"AttributeError: no such method"):
        workers.check(3)


def test_a_plugin_that_fails_later_is_an_error_too(workers: worker_records.Workers) -> None:
    """The lines are all there, but an AR process may have dropped steps."""
    workers.begin()
    write(workers.folder, "dit-rank0-1.jsonl", line())
    (workers.folder / "failed-2.txt").write_text("Traceback (most recent call last):\n  File …\nOSError: disk full\n")
    with pytest.raises(RuntimeError, match=r"OSError: disk full"):
        workers.collect([REQUEST], 1, 0, 0.0)


def hand_over(workers: worker_records.Workers, received: str) -> Any:
    """Evidence of one request whose AR stage sent `1024:aa`."""
    workers.begin()
    ar = {"rank": 0, "steps": 1281, "settings": {"tp_size": "1"}}
    write(workers.folder, "ar-rank0-1.jsonl", {"requests": ["0_a"], "phases": [], "evidence": ar})
    sent = {"request": "0_a", "start_s": 9.5, "host_ms": 0.6, "tokens_sent": "1024:aa"}
    write(workers.folder, "transfer-1.jsonl", sent)
    settings = {"pipeline": "GlmImagePipeline", "tokens_received": received}
    write(workers.folder, "dit-rank0-2.jsonl", line(settings=settings))
    phases, told = workers.collect([REQUEST], 1, 1, 9.0)
    assert "stage_transfer" in {phase.phase for phase in phases}
    return told


def test_tokens_that_arrive_as_they_were_sent_pass(workers: worker_records.Workers) -> None:
    told = hand_over(workers, "1024:aa")
    assert told[0].counts["hand_overs"] == 1
    assert told[0].counts["ar_steps"] == 1281
    assert told[0].settings["tokens_sent"] == told[0].settings["tokens_received"] == "1024:aa"
    assert judge([], [Executed((told,))], Executed((told,)), None) == []


def test_tokens_stand_in_the_order_of_the_requests(workers: worker_records.Workers) -> None:
    ids = [f"{number}_x" for number in range(11)]
    workers.begin()
    write(workers.folder, "ar-rank0-1.jsonl", {
        "requests": ids, "phases": [], "evidence": {"rank": 0, "steps": 1281, "settings": {}},
    })  # fmt: skip
    for name in reversed(ids):  # in the order in which they were finished
        sent = {"request": name, "start_s": 9.5, "host_ms": 0.6, "tokens_sent": f"1024:{name}"}
        write(workers.folder, "transfer-1.jsonl", sent)
        write(workers.folder, "dit-rank0-2.jsonl", line(requests=(name,), settings={"tokens_received": "none"}))
    _, told = workers.collect([replace(REQUEST, request_id=name) for name in ids], 1, 11, 9.0)
    assert told[0].settings["tokens_sent"] == ";".join(f"1024:{name}" for name in ids)


@pytest.mark.parametrize("received", ["1024:ab", "1023:aa", ""])
def test_tokens_that_do_not_fail_the_cell(received: str, workers: worker_records.Workers) -> None:
    broken, whole = hand_over(workers, received), hand_over(workers, "1024:aa")
    (found,) = judge([], [Executed((whole, broken, whole))], Executed((whole,)), None)
    assert (found.status, found.code) == (FAIL, "hand_over_broken")
    assert "1024:aa" in found.text


def test_an_exception_of_vllm_omni_ends_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`Omni.generate` closes itself after any; later calls would only find a closed queue."""

    class Version:
        def set_batch(self, *_: Any) -> None: ...

        def generate(self, *_: Any) -> None:
            raise RuntimeError("a worker failed")

    monkeypatch.setattr(engine_module, "adapter", Version)
    engine = engine_module.VllmOmniEngine(QWEN)
    engine._omni = SimpleNamespace(default_sampling_params_list=[SimpleNamespace()], close=lambda: None)
    engine._stages = stages.describe(QWEN, tmp_path)
    assert engine.alive
    with pytest.raises(RuntimeError, match="a worker failed"):
        engine.generate([REQUEST], None)
    assert not engine.alive


def test_images_of_one_colour_or_another_size_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8))

    class Version:
        def set_batch(self, *_: Any) -> None: ...

        def generate(self, *_: Any) -> list[Generated]:
            return [Generated(images=(image,)) for image in (noise, Image.new("RGB", (8, 8)))]

    monkeypatch.setattr(engine_module, "adapter", Version)
    engine = engine_module.VllmOmniEngine(QWEN)
    engine._omni = SimpleNamespace(default_sampling_params_list=[SimpleNamespace()], close=lambda: None)
    engine._stages = stages.describe(QWEN, tmp_path)
    monkeypatch.setattr(stages.Stages, "count_tokens", lambda *_: 3)
    small = replace(REQUEST, width=8, height=8)
    assert engine.generate([small, replace(small, request_id="r001")], None).image_faults == ("", BLANK)
    assert engine.generate([REQUEST, replace(REQUEST, request_id="r001")], None).image_faults == (WRONG_SIZE, BLANK)
