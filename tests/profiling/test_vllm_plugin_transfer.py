"""The hand-over from AR to DiT: fingerprints of what was sent and what arrived."""

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omni_doubles import Here

from profiling.image_tokens import END, fingerprint, halved, image_ids, received
from profiling.vllm_plugin.record_files import Transfer, read_lines, transfer
from profiling.vllm_plugin.transfer import hook_orchestrator, hook_sender, sent


def doubled(ids: list[int], rows: int, columns: int) -> list[int]:
    """As vLLM-Omni's ar2diffusion upsamples them."""
    lines = [ids[start : start + columns] for start in range(0, rows * columns, columns)]
    return [one for line in lines for _ in (0, 1) for one in line for _ in (0, 1)]


def output(ids: list[int]) -> Any:
    """An AR stage's RequestOutput."""
    return SimpleNamespace(outputs=[SimpleNamespace(cumulative_token_ids=ids, token_ids=ids[-1:])])


def test_a_fingerprint_counts_and_tells_apart() -> None:
    ids = list(range(1024))
    assert fingerprint(ids) == fingerprint(tuple(ids))
    assert fingerprint(ids).startswith("1024:")
    assert fingerprint([1]) == "1:7c9fa136d4413fa6"  # sha256 of 01 00 00 00 00 00 00 00
    for position in (0, 511, 1023):
        wrong = [*ids]
        wrong[position] += 1
        assert fingerprint(wrong) != fingerprint(ids)
    assert fingerprint(ids[::-1]) != fingerprint(ids)


@pytest.mark.parametrize(
    ("height", "width", "preview"), [(1024, 1024, 256), (512, 512, 256), (1024, 512, 22 * 11), (512, 1024, 11 * 22)]
)
def test_the_preview_and_the_end_are_left_out(height: int, width: int, preview: int) -> None:
    count = height * width // 32**2
    image = list(range(count))
    assert image_ids([*[-1] * preview, *image, END], height, width) == image


def test_an_edit_has_a_preview_only_if_there_are_ids_for_both() -> None:
    image = list(range(1024))
    assert image_ids([*image, END], 1024, 1024, edit=True) == image
    assert image_ids([*[-1] * 256, *image, END], 1024, 1024, edit=True) == image
    assert image_ids([*image, *range(255), END], 1024, 1024, edit=True) == image


def test_doubling_is_undone_only_where_every_square_agrees() -> None:
    image = list(range(6))
    seen = doubled(image, 2, 3)
    assert halved(seen, 4, 6) == image
    assert received(seen, 4, 6) == fingerprint(image)
    seen[7] += 1
    assert halved(seen, 4, 6) is None
    assert received(seen, 4, 6) == "24:uneven"
    assert received(seen, 4, 5) == "24:uneven"


def test_a_token_that_changes_on_the_way_shows() -> None:
    emitted = [*range(1000, 1256), *range(16), END]
    tokens = sent(output(emitted), {"mm_processor_kwargs": {"target_h": 128, "target_w": 128}})
    assert tokens == fingerprint(list(range(16)))
    arrived = doubled(list(range(16)), 4, 4)
    assert received(arrived, 8, 8) == tokens
    for position in range(len(arrived)):
        wrong = [*arrived]
        wrong[position] = 99
        assert received(wrong, 8, 8) != tokens
    shifted = doubled([*range(1, 16), END], 4, 4)  # a slice that is off by one
    assert received(shifted, 8, 8) != tokens


@pytest.mark.parametrize(
    "prompt",
    [
        {"mm_processor_kwargs": {"target_h": 64, "target_w": 128}},
        [{"height": 64, "width": 128}],
        SimpleNamespace(height=64, width=128, mm_processor_kwargs=None),
        {"height": 64, "width": 128, "multi_modal_data": {}, "modalities": ["image"]},
    ],
)
def test_the_size_that_was_asked_for(prompt: Any) -> None:
    preview = 11 * 22
    emitted = [*[-1] * preview, *range(8), END]
    assert sent(output(emitted), prompt) == fingerprint(list(range(8)))


def test_an_input_image_makes_it_an_edit() -> None:
    prompt = {"height": 64, "width": 64, "multi_modal_data": {"image": object()}}
    assert sent(output([1, 2, 3, 4, END]), prompt) == fingerprint([1, 2, 3, 4])


def test_without_a_size_it_is_the_models_own() -> None:
    assert sent(output([*[-1] * 256, *range(1024)]), {}) == fingerprint(list(range(1024)))


class Orchestrator:
    """Hands over unless it waits for a companion."""

    def __init__(self, stage_type: str, module: str) -> None:
        function = SimpleNamespace(__module__=module)
        self.stage_pools = [None, SimpleNamespace(stage_type=stage_type, stage_client=SimpleNamespace())]
        self.stage_pools[1].stage_client.custom_process_input_func = function  # type: ignore[attr-defined]
        self.wait = False

    async def _forward_to_next_stage(
        self, req_id: str, src_stage_id: int, output: Any, req_state: Any, *, src_replica_id: int | None = None
    ) -> None:
        await asyncio.sleep(0.002)
        if not self.wait:
            req_state.stage_submit_ts[src_stage_id + 1] = 1.0


GLM = "vllm_omni.model_executor.stage_input_processors.glm_image"


def hand_over(folder: Path, stage_type: str = "diffusion", module: str = GLM, wait: bool = False) -> list[Transfer]:
    """What is written of one output; the class is a derived one, as 0.30's."""
    base: Any = type("OrchestratorBase", (), dict(vars(Orchestrator)))
    cls: Any = type("Orchestrator", (base,), {})
    here = Here(folder)
    assert hook_orchestrator(cls, here) == ["OrchestratorBase._forward_to_next_stage"] == hook_orchestrator(cls, here)
    orchestrator = cls(stage_type, module)
    orchestrator.wait = wait
    state = SimpleNamespace(prompt={"height": 64, "width": 64}, stage_submit_ts={})
    emitted = output([*[-1] * 256, 1, 2, 3, 4, END])
    asyncio.run(orchestrator._forward_to_next_stage("request-0", 0, emitted, state, src_replica_id=0))
    assert here.reports == []
    return [transfer(line) for path in folder.glob("transfer-*.jsonl") for line in read_lines(path)[0]]


def test_a_hand_over_is_written(tmp_path: Path) -> None:
    (record,) = hand_over(tmp_path)
    assert (record.request, record.tokens_sent) == ("request-0", fingerprint([1, 2, 3, 4]))
    assert 2.0 <= record.host_ms < 1000.0
    assert record.start_s > 0


def test_tokens_of_a_model_whose_layout_is_not_known_are_left_out(tmp_path: Path) -> None:
    (record,) = hand_over(tmp_path, module="vllm_omni.model_executor.stage_input_processors.bagel")
    assert record.tokens_sent == ""


def test_no_line_before_it_is_handed_over_nor_between_ar_stages(tmp_path: Path) -> None:
    assert hand_over(tmp_path, wait=True) == []
    assert hand_over(tmp_path, stage_type="llm") == []


def test_an_output_of_an_unknown_kind_is_reported_and_handed_over(tmp_path: Path) -> None:
    here = Here(tmp_path)
    cls: Any = type("Orchestrator", (Orchestrator,), {})
    cls._forward_to_next_stage = Orchestrator._forward_to_next_stage
    hook_orchestrator(cls, here)
    state = SimpleNamespace(prompt={}, stage_submit_ts={})
    asyncio.run(cls("diffusion", GLM)._forward_to_next_stage("r", 0, SimpleNamespace(outputs=[]), state))
    assert 1 in state.stage_submit_ts
    assert "IndexError" in here.reports[0]
    assert not json.dumps([path.name for path in tmp_path.iterdir()]).count("transfer")


class Encoder:
    """vLLM-Omni's OmniMsgpackEncoder."""

    def encode(self, message: object) -> bytes:
        return json.dumps(message).encode()


def test_a_hand_over_says_how_many_bytes_were_sent(here: Here) -> None:
    class Client:
        """Its requests go through the encoder of the instance."""

        def __init__(self) -> None:
            self._encoder = Encoder()
            self.sent: list[bytes] = []

        async def add_request_async(self, request_id: str, prompt: object) -> None:
            self.sent.append(self._encoder.encode([request_id, prompt]))

    assert hook_sender(Client, here) == ["Client.add_request_async"] == hook_sender(Client, here)
    client = Client()

    class Forwarding(Orchestrator):
        async def _forward_to_next_stage(self, req_id: str, src_stage_id: int, output: Any, req_state: Any) -> None:
            await client.add_request_async(req_id, "x" * 100)
            req_state.stage_submit_ts[src_stage_id + 1] = 1.0

    cls: Any = type("Orchestrator", (Forwarding,), {})
    hook_orchestrator(cls, here)
    for name in ("a", "b"):
        state = SimpleNamespace(prompt={}, stage_submit_ts={})
        asyncio.run(cls("diffusion", "elsewhere")._forward_to_next_stage(name, 0, output([1, 2]), state))
    (path,) = here.folder.glob("transfer-*.jsonl")
    recorded = [transfer(line).bytes for line in read_lines(path)[0]]
    assert recorded == [len(one) for one in client.sent]
    assert here.reports == []
