"""BAGEL's stages: deploy file, prompts and parameters by the names of vLLM-Omni's source; the KV cache between them."""

import copy
import json
import traceback
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from profiling.vllm_plugin import kv_transfer, record_files
from profiling.vllm_plugin.writer import settle
from sweep.analysis.evidence import broken_hand_over
from sweep.engines.protocol import EngineSpec, Request
from sweep.engines.vllm_omni import hand_over, stages, worker_records
from sweep.engines.vllm_omni.bagel import Bagel
from tests.wheels import VERSIONS, wheel_source

every_version = pytest.mark.parametrize("version", VERSIONS)
SPEC = EngineSpec("vllm_omni", "bagel", "bagel", "/nowhere", False, "cuda", "bfloat16", 1, 1, {}, {"max_num_seqs": 4})
REQUEST = Request("r", "a fox", 0, 7, 1024, 1024, 20, 4.0, " ")


@dataclass
class Parameters:
    """Like vLLM-Omni's sampling parameters: what is set stays."""

    extra_args: dict[str, Any] = field(default_factory=dict)
    seed: int = 0


def test_the_deploy_file_is_the_stock_one_but_for_memory_and_batches(tmp_path: Path) -> None:
    made = stages.describe(SPEC, tmp_path)
    assert isinstance(made, Bagel)
    deployed = yaml.safe_load((tmp_path / "deploy.yaml").read_text())
    ar, dit = deployed["stages"]
    stock = yaml.safe_load((wheel_source("0.26.0") / "vllm_omni/deploy/bagel.yaml").read_text())
    theirs, renderer = stock["stages"]
    for key in ("max_num_batched_tokens", "gpu_memory_utilization", "trust_remote_code", "enable_prefix_caching"):
        assert ar[key] == theirs[key], key
    assert ar["default_sampling_params"] == {k: v for k, v in theirs["default_sampling_params"].items() if k != "seed"}
    assert ar["max_num_seqs"] == 8, "each request has a companion for its negative prompt"
    assert dit["max_num_seqs"] == renderer["max_num_seqs"] == 1
    assert (ar["devices"], dit["devices"]) == ("0", "0")
    (name,) = deployed["connectors"]
    assert deployed["connectors"][name] == stock["connectors"]["shared_memory_connector"]
    assert dit["input_connectors"] == {"from_stage_0": name}
    assert set(renderer["input_connectors"]) == set(dit["input_connectors"])


def test_guidance_has_three_branches_and_the_steps_that_were_asked_for(tmp_path: Path) -> None:
    made = stages.describe(SPEC, tmp_path)
    prompt = made.prompt(REQUEST)
    assert prompt == {"prompt": "<|im_start|>a fox<|im_end|>", "modalities": ["image"], "negative_prompt": " "}
    defaults = [Parameters(), Parameters({"think": False})]
    ar, dit = made.parameters(REQUEST, defaults)
    assert (ar.seed, dit.seed, dit.num_inference_steps) == (7, 7, 21)
    assert dit.extra_args == {"think": False, "cfg_text_scale": 4.0, "cfg_img_scale": 1.5}
    assert defaults == [Parameters(), Parameters({"think": False})], "of all requests, and left alone"
    off = replace(REQUEST, guidance_scale=1.0)
    assert "negative_prompt" not in made.prompt(off)
    assert made.parameters(off, copy.deepcopy(defaults))[1].extra_args["cfg_img_scale"] == 1.0


@every_version
def test_names_are_those_of_the_source(version: str) -> None:
    root = wheel_source(version) / "vllm_omni"
    pipeline = (root / "diffusion/models/bagel/pipeline_bagel.py").read_text()
    for name in ("cfg_text_scale", "cfg_img_scale"):
        assert f'extra_args.get("{name}"' in pipeline
    steps = (root / "diffusion/models/bagel/bagel_transformer.py").read_text()
    assert "torch.linspace(1, 0, num_sample_points" in steps
    assert "[:-1] - " in steps, "one step fewer than points in time"
    assert "_denoise_schedule_extra_step: bool = False" in steps
    processor = (root / "model_executor/stage_input_processors/bagel.py").read_text()
    assert 'prompt.get("negative_prompt")' in processor
    assert 'CFG_TEXT_SUFFIX = "__cfg_text"' in processor
    built = (root / "model_extras/bagel.py").read_text()
    assert '"prompt": f"<|im_start|>{prompt}<|im_end|>"' in built
    topology = (root / "model_executor/models/bagel/pipeline.py").read_text()
    assert '"kv_transfer_criteria": {"type": "prefill_finished"}' in topology


@every_version
def test_the_manager_of_kv_caches_is_as_we_wrap_it(version: str) -> None:
    text = (wheel_source(version) / f"{'vllm_omni/distributed/omni_connectors/kv_transfer_manager'}.py").read_text()
    assert "def _transfer_kv_cache(self, kv_data: KVCacheTransferData, transfer_req_id: str) -> None:" in text
    assert "def receive_kv_cache_for_request(\n        self,\n        request_id: str," in text
    assert "def tp_topology(self) -> KVTPTopology:" in text
    assert 'layer_blocks={"key_cache": key_cache, "value_cache": value_cache},' in text
    assert (
        "source_tp_size: int"
        in (wheel_source(version) / "vllm_omni/distributed/omni_connectors/utils/kv_utils.py").read_text()
    )


class Here:
    """A place of the plugin."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.reports: list[str] = []

    def report(self) -> None:
        self.reports.append(traceback.format_exc())


def cache(tokens: int = 5, layers: int = 2, changed: bool = False) -> dict[str, list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    made = {
        name: [torch.randn(tokens, 1, 4, generator=generator).to(torch.bfloat16) for _ in range(layers)]
        for name in ("key_cache", "value_cache")
    }
    if changed:
        made["value_cache"][-1][-1, 0, -1] += 1
    return made


class Manager:
    """Sends nowhere; receives what it was given."""

    def __init__(self, blocks: Any, tp: int = 1, receives: bool = True) -> None:
        self.blocks = blocks
        self.tp_topology = SimpleNamespace(source_tp_size=1, target_tp_size=tp)
        self.config = SimpleNamespace(need_recv_cache=receives)

    def _transfer_kv_cache(self, kv_data: Any, transfer_req_id: str) -> None: ...

    def receive_kv_cache_for_request(self, request_id: str, target_device: Any = None, **_: Any) -> Any:
        return ({"layer_blocks": self.blocks}, 99) if self.blocks else (None, 0)


def recorded(folder: Path, received: Any, tp: int = 1, receives: bool = True) -> list[record_files.KvCache]:
    """What both sides wrote of one request and its companion; the first cache is sent as it is."""
    cls: Any = type("OmniKVTransferManager", (), dict(vars(Manager)))
    here = Here(folder)
    assert kv_transfer.hook_manager(cls, here) == kv_transfer.hook_manager(cls, here)
    for name in ("0_a", "0_a__cfg_text"):
        cls(None, tp)._transfer_kv_cache(SimpleNamespace(layer_blocks=cache()), name)
        cls(received, tp, receives).receive_kv_cache_for_request(name, None)
    settle()
    assert here.reports == []
    lines = [(path.name.partition("-")[0], line) for path in sorted(folder.iterdir())
             for line in record_files.read_lines(path)[0]]  # fmt: skip
    return [worker_records.PARSE[kind](line) for kind, line in lines]  # type: ignore[misc]


def test_a_cache_that_arrives_as_it_was_sent_is_whole(tmp_path: Path) -> None:
    records = recorded(tmp_path, cache())
    found = hand_over.of(records)
    assert (found.counts["hand_overs"], found.counts["hand_overs_broken"]) == (2, 0)
    assert found.counts["kv_tokens"] == 10
    assert found.counts["kv_layers"] == 2
    assert found.counts["kv_bytes"] == found.counts["kv_bytes_sent"] == 2 * 2 * 2 * 5 * 4 * 2
    assert found.settings["kv_sent"] == found.settings["kv_received"]
    assert found.settings["kv_sent"].startswith("5:")
    phases = record_files.phase_records(records, 0.0)
    assert [phase.phase for phase in phases] == ["stage_transfer"] * 2, "sending lies inside of an AR step"


@pytest.mark.parametrize(
    "received", [None, cache(changed=True), cache(tokens=4), cache(layers=1)], ids=["none", "value", "token", "layer"]
)
def test_a_cache_that_does_not_fails_the_cell(received: Any, tmp_path: Path) -> None:
    found = hand_over.of(recorded(tmp_path, received))
    assert found.counts["hand_overs_broken"] == 2
    evidence = SimpleNamespace(counts=found.counts, settings=found.settings)
    broken = broken_hand_over([evidence])  # type: ignore[list-item]
    assert broken is not None
    assert "different KV cache" in broken.text


def test_a_cache_that_is_divided_among_ranks_is_not_compared(tmp_path: Path) -> None:
    found = hand_over.of(recorded(tmp_path, cache(changed=True), tp=2))
    assert found.counts["hand_overs_broken"] == 0


def test_a_stage_that_receives_no_caches_writes_nothing(tmp_path: Path) -> None:
    """GLM-Image's DiT stage requests one for every request, and learns that there is none."""
    assert all(record.sent for record in recorded(tmp_path, None, receives=False))


def test_caches_that_nobody_recorded_are_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_records, "LINES_TIMEOUT_S", 0.05)
    workers = worker_records.Workers(tmp_path)
    workers.begin()
    phases = [["request", 0, 10.0, 5.0, None]]
    evidence = dict.fromkeys(("rank", "dit_forwards", "denoise_steps", "blocks_run", "blocks_skipped"), 0)
    evidence |= dict.fromkeys(("block_sequence", "dit_parameters"), 0)
    lines = {
        "dit-rank0-1": {"requests": ["0_a"], "dummy": False, "start_s": 10.0, "phases": phases,
                        "evidence": {**evidence, "settings": {}, "counts": {}}},
        "ar-rank0-1": {"requests": ["0_a"], "phases": [], "evidence": {"rank": 0, "steps": 3, "settings": {}}},
        "transfer-1": {"request": "0_a", "start_s": 9.5, "host_ms": 0.6, "tokens_sent": ""},
    }  # fmt: skip
    for name, line in lines.items():
        (workers.folder / f"{name}.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(RuntimeError, match="KV caches that the DiT stage received"):
        workers.collect([REQUEST], 1, 1, 9.0, caches=1)


def test_an_output_that_only_says_that_its_cache_is_ready_is_handed_over() -> None:
    from profiling.vllm_plugin.transfer import written

    assert written(SimpleNamespace(request_id="0_a", new_token_ids=[])) == []


def test_z_image_is_told_that_guidance_is_off_in_its_own_words() -> None:
    """Its pipeline takes any guidance above 0 for guidance, offline and served."""
    from sweep.engines.endpoint.bodies import body_for

    off, on = replace(REQUEST, guidance_scale=1.0), replace(REQUEST, guidance_scale=4.0)
    for family, sent in (("z_image", 0.0), ("flux2_klein", 1.0)):
        spec = replace(SPEC, family=family)
        diffusion = SimpleNamespace()
        stages.Stages(spec).guide(off, diffusion)
        assert diffusion.guidance_scale == body_for(spec, off, "m")["guidance_scale"] == sent
        assert body_for(spec, on, "m")["guidance_scale"] == 4.0
    assert body_for(replace(SPEC, engine="endpoint", family="z_image"), off, "m")["guidance_scale"] == 1.0
    for version in VERSIONS:
        text = (wheel_source(version) / "vllm_omni/diffusion/models/z_image/pipeline_z_image.py").read_text()
        assert "return self._guidance_scale > 0" in text
