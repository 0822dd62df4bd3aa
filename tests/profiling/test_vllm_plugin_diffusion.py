"""Phases and executed blocks of pipelines shaped like vLLM-Omni's, on a CPU."""

import sys
import threading
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from observed import ALL, count, load, run  # noqa: E402
from omni_doubles import (  # noqa: E402
    BLOCKS,
    IMAGE_TOKENS,
    WIDTH,
    Batch,
    Block,
    Cache,
    Here,
    HookedForward,
    Pipeline,
    Runner,
    lines,
)

from profiling.vllm_plugin import writer  # noqa: E402
from profiling.vllm_plugin.diffusion import hook_runner, hook_scheduler  # noqa: E402
from profiling.vllm_plugin.pipeline_facts import PARALLEL_STATE  # noqa: E402
from profiling.vllm_plugin.record_files import PAUSED, phase_records  # noqa: E402


def test_a_request_with_two_branches(here: Here) -> None:
    record = run(here, batch=Batch(("a", "b"), steps=4))
    assert (record.requests, record.dummy) == (("a", "b"), False)
    assert count(record) == {"request": 1, "text_encode": 2, "denoise_step": 4, "dit_forward": 8, "vae_decode": 1}
    evidence = record.evidence
    assert (evidence.rank, evidence.dit_forwards, evidence.denoise_steps) == (0, 8, 4)
    assert (evidence.blocks_run, evidence.blocks_skipped) == (8 * ALL, 0)
    assert evidence.block_sequence == IMAGE_TOKENS  # not what the refiners see
    assert evidence.dit_parameters == (BLOCKS + 1) * (WIDTH * WIDTH + WIDTH)
    assert evidence.settings["pipeline"] == "Pipeline"
    assert evidence.settings["dit_blocks"] == str(ALL)
    assert evidence.settings["compiled"] == "none"
    assert evidence.counts["text_encoder_calls"] == 2
    assert evidence.counts["vae_decoder_calls"] == 1
    assert evidence.counts["resident_parameters"] == sum(p.numel() for p in Pipeline().parameters())
    assert evidence.counts["offloaded_parameters"] == 0


def test_without_guidance_there_is_one_forward_a_step(here: Here) -> None:
    record = run(here, batch=Batch(guidance=False))
    assert (record.evidence.dit_forwards, record.evidence.denoise_steps) == (4, 4)


def test_steps_hold_their_forwards_and_lie_in_the_request(here: Here) -> None:
    record = run(here)
    spans = [(phase, start, start + host_ms / 1e3) for phase, _, start, host_ms, _ in record.phases]
    (request,) = [span for span in spans if span[0] == "request"]
    steps = [span for span in spans if span[0] == "denoise_step"]
    forwards = [span for span in spans if span[0] == "dit_forward"]
    assert record.start_s == request[1]
    assert all(request[1] <= start and end <= request[2] + 1e-5 for _, start, end in spans)
    for number, (_, start, end) in enumerate(forwards):
        assert steps[number // 2][1] <= start
        assert end <= steps[number // 2][2] + 1e-5
    relative = phase_records([record], epoch_s=request[1])
    assert relative[0].phase == "request"
    assert relative[0].start_s == 0.0


def test_the_output_is_that_of_the_plain_pipeline(here: Here) -> None:
    torch.manual_seed(1)
    pipeline = Pipeline()
    with torch.inference_mode():
        plain = pipeline.forward(Batch())
    assert torch.equal(load(here, pipeline).execute_model(Batch()), plain)


def test_requests_go_unobserved_while_paused(here: Here) -> None:
    runner = load(here)
    runner.execute_model(Batch(("a",)))
    (here.folder / PAUSED).touch()
    assert runner.execute_model(Batch(("b",))) is not None
    (here.folder / PAUSED).unlink()
    runner.execute_model(Batch(("c",)))
    first, second = lines(here.folder)
    assert (first.requests, second.requests) == (("a",), ("c",))
    assert first.evidence == second.evidence


def test_every_request_is_counted_anew(here: Here) -> None:
    runner = load(here)
    for name in "abc":
        runner.execute_model(Batch((name,)))
    records = lines(here.folder)
    assert [record.requests for record in records] == [("a",), ("b",), ("c",)]
    assert len({(r.evidence.blocks_run, r.evidence.dit_forwards, len(r.phases)) for r in records}) == 1


def test_a_cache_hook_that_skips_blocks_shows(here: Here) -> None:
    """TeaCache replaces the transformer's forward and runs the blocks itself, or not."""
    pipeline = Pipeline()
    transformer = pipeline.transformer
    calls = []

    def every_second(hook: Any, hidden_states: Any, **_: Any) -> Any:
        calls.append(hidden_states)
        if len(calls) % 2:
            for block in transformer.transformer_blocks:
                hidden_states = block(hidden_states)
        return (hidden_states,)

    HookedForward(transformer, every_second)
    runner = load(here, pipeline, cache_backend=Cache())
    runner.od_config.cache_backend = "tea_cache"
    runner.execute_model(Batch(steps=5, guidance=False))
    (record,) = lines(here.folder)
    evidence = record.evidence
    assert (evidence.dit_forwards, evidence.blocks_run, evidence.blocks_skipped) == (
        5,
        3 * BLOCKS,
        5 * ALL - 3 * BLOCKS,
    )
    assert count(record)["dit_forward"] == 5  # the phase covers the hook
    assert evidence.settings["hooks"] == "teacache"
    assert evidence.settings["cache_backend"] == "tea_cache"


def test_a_block_that_its_own_hook_skips_did_not_run(here: Here) -> None:
    """MagCache's hooks sit on the blocks and decide there."""
    pipeline = Pipeline()
    calls = []

    def every_second(hook: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        run_it = (len(calls) - 1) // BLOCKS % 2 == 0
        return hook.fn_ref.original_forward(*args, **kwargs) if run_it else kwargs["hidden_states"]

    for block in pipeline.transformer.transformer_blocks:
        HookedForward(block, every_second)
    evidence = run(here, pipeline, Batch(steps=4, guidance=False)).evidence
    assert (evidence.blocks_run, evidence.blocks_skipped) == (2 * BLOCKS + 4, 2 * BLOCKS)
    assert evidence.block_sequence == IMAGE_TOKENS


@pytest.mark.parametrize("where", ["block", "scheduler", "text_encoder", "decoder"])
def test_an_exception_leaves_nothing_open(here: Here, where: str) -> None:
    pipeline = Pipeline()
    runner = load(here, pipeline)
    parts = {
        "block": pipeline.transformer.transformer_blocks[1],
        "text_encoder": pipeline.text_encoder,
        "decoder": pipeline.vae.decoder,
    }

    def fail(*_: Any) -> None:
        raise MemoryError("out of memory")

    pipeline.fail_at = where
    hook = parts[where].register_forward_pre_hook(fail) if where in parts else None
    with pytest.raises(MemoryError, match="out of memory"):
        runner.execute_model(Batch(("bad",)))
    if hook is not None:
        hook.remove()
    pipeline.fail_at = ""
    runner.execute_model(Batch(("good",)))
    assert here.reports == []
    (record,) = lines(here.folder)
    assert record.requests == ("good",)
    assert count(record)["denoise_step"] == 4


def test_a_rank_without_scheduler_ends_its_steps_at_the_broadcast(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """GLM-Image with CFG-parallel: rank 1 only gets the latents."""

    class Group:
        world_size = 2

        def broadcast(self, tensor: Any, src: int = 0) -> Any:
            return tensor

    group = Group()
    state = type("State", (), {"get_cfg_group": staticmethod(lambda: group)})
    monkeypatch.setitem(sys.modules, PARALLEL_STATE, state)

    class SecondRank(Pipeline):
        def forward(self, req: Batch) -> Any:
            latents = torch.ones(1, IMAGE_TOKENS, WIDTH)
            for _ in range(req.steps):
                self.transformer(hidden_states=latents)
                group.broadcast(latents, src=0)
            return self.vae.decode(latents)[0]

    record = run(here, SecondRank())
    assert (record.evidence.dit_forwards, record.evidence.denoise_steps) == (4, 4)


def test_a_pipeline_without_scheduler_has_one_step_that_ends_before_decoding(here: Here) -> None:
    class OwnLoop(Pipeline):
        def forward(self, req: Batch) -> Any:
            latents = torch.ones(1, IMAGE_TOKENS, WIDTH)
            for _ in range(req.steps):
                (latents,) = self.transformer(hidden_states=latents)
            return self.vae.decode(latents)[0]

    record = run(here, OwnLoop())
    assert count(record) == {"request": 1, "denoise_step": 1, "dit_forward": 4, "vae_decode": 1}
    (step,) = [row for row in record.phases if row[0] == "denoise_step"]
    (decode,) = [row for row in record.phases if row[0] == "vae_decode"]
    assert step[2] + step[3] / 1e3 <= decode[2] + 1e-5


def test_an_edit_that_fills_the_cache_of_its_image_is_no_denoising(here: Here) -> None:
    class KvCache:
        mode = "write"

    class Edit(Pipeline):
        def forward(self, req: Batch) -> Any:
            latents = torch.ones(1, IMAGE_TOKENS, WIDTH)
            self.vae.encode(latents)
            self.transformer(hidden_states=latents, kv_cache=KvCache())
            return super().forward(req)

    record = run(here, Edit())
    assert count(record)["image_encode"] == 2
    assert (record.evidence.dit_forwards, record.evidence.denoise_steps) == (8, 4)
    assert (record.evidence.blocks_run, record.evidence.blocks_skipped) == (8 * ALL, 0)


def test_a_language_model_that_is_the_dit_too(here: Here) -> None:
    """BAGEL: prefills the prompt, then denoises with branches that share a step's timesteps; no scheduler."""

    class Language(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.ModuleList([Block() for _ in range(BLOCKS)])

        def forward(
            self, sequence: Any, update_past_key_values: bool = True, return_embeddings_only: bool = False
        ) -> Any:
            for layer in () if return_embeddings_only else self.layers:
                sequence = layer(hidden_states=sequence)
            return sequence

    class Flow(torch.nn.Module):
        def __init__(self, language: Language) -> None:
            super().__init__()
            self.language = language

        def forward_single_branch(self, x_t: Any, timestep: Any) -> Any:
            self.language(x_t, return_embeddings_only=True)
            return self.language(x_t, update_past_key_values=False)

    class Bagel(torch.nn.Module):
        _dit_modules = ("language",)
        _encoder_modules = ()
        _vae_modules = ()

        def __init__(self) -> None:
            super().__init__()
            self.language = Language()
            self.bagel = Flow(self.language)
            self.bagel.forward = self.bagel.forward_single_branch  # type: ignore[method-assign]

        def forward(self, req: Batch) -> Any:
            latents = torch.ones(IMAGE_TOKENS, WIDTH)
            self.language(torch.ones(100, WIDTH), update_past_key_values=True)
            for step in range(req.steps):
                timestep = torch.tensor([step])
                for _ in range(2):
                    latents = self.bagel.forward_single_branch(x_t=latents, timestep=timestep)
            return latents

    record = run(here, Bagel())
    assert count(record) == {"request": 1, "ar_prefill": 1, "denoise_step": 4, "dit_forward": 8}
    evidence = record.evidence
    assert (evidence.blocks_run, evidence.blocks_skipped, evidence.block_sequence) == (8 * BLOCKS, 0, IMAGE_TOKENS)


def test_tiles_and_shared_decodes_are_counted(here: Here) -> None:
    pipeline = Pipeline()
    pipeline.vae.use_tiling = True
    record = run(here, pipeline)
    assert count(record)["vae_decode"] == 1
    assert (record.evidence.counts["vae_decoder_calls"], record.evidence.counts["vae_parallel_decodes"]) == (2, 1)
    assert record.evidence.settings["vae_use_tiling"] == "True"


@pytest.mark.parametrize(("dtype", "name"), [(torch.float32, "TORCH_SDPA"), (torch.bfloat16, "FLASH_ATTN")])
def test_the_attention_that_ran_not_the_one_that_was_chosen(here: Here, dtype: Any, name: str) -> None:
    class Typed(Pipeline):
        def predict(self, latents: Any, guidance: bool) -> Any:
            return super().predict(latents.to(dtype), guidance).float()

    pipeline = Typed()
    pipeline.transformer.to(dtype)
    settings = run(here, pipeline).evidence.settings
    assert (settings["attention_backend"], settings["attention_calls"]) == (name, f"{name}:8")


def test_prior_tokens_as_the_dit_got_them(here: Here) -> None:
    class Glm(Pipeline):
        def forward(self, req: Batch) -> Any:
            latents = torch.ones(1, WIDTH, 8, 8)  # 4 x 4 positions
            single = torch.arange(4).view(2, 2)
            prior = single.repeat_interleave(2, 0).repeat_interleave(2, 1).reshape(1, -1)
            self.transformer(hidden_states=latents, prior_token_id=prior)
            return latents

    evidence = run(here, Glm()).evidence
    count, digits = evidence.settings["tokens_received"].split(":")
    assert (count, len(digits), evidence.counts["tokens_received"]) == ("4", 16, 4)


def test_the_warm_up_of_vllm_omni_is_marked(here: Here) -> None:
    assert run(here, batch=Batch(("dummy_req_id",), dummy=True)).dummy


def test_calls_outside_of_a_request_or_from_another_thread_are_let_through(here: Here) -> None:
    runner = load(here)
    runner.pipeline.encode_prompt("outside")
    runner.pipeline.transformer(hidden_states=torch.ones(1, 4, WIDTH))

    class Threaded(Pipeline):
        def forward(self, req: Batch) -> Any:
            thread = threading.Thread(target=self.encode_prompt, args=("aside",))
            thread.start()
            thread.join()
            return super().forward(req)

    assert not list(here.folder.iterdir())
    assert count(run(here, Threaded()))["text_encode"] == 2


def test_step_mode_is_one_line_from_the_first_step_to_the_last_request(here: Here) -> None:
    runner = load(here)

    def tick(*new: str) -> None:
        requests = [type("New", (), {"request_id": name}) for name in new]
        runner.execute_stepwise(type("Scheduled", (), {"scheduled_new_reqs": requests}))

    tick("a")
    tick("b")  # a's last step
    assert not list(here.folder.iterdir())
    tick()
    (record,) = lines(here.folder)
    assert record.requests == ("a", "b")
    assert count(record) == {"request": 1, "text_encode": 2, "denoise_step": 3, "dit_forward": 3, "vae_decode": 2}
    tick("c")
    tick()
    assert lines(here.folder)[1].requests == ("c",)


def test_nothing_to_observe(here: Here) -> None:
    cls: Any = type("DiffusionModelRunner", (Runner,), {})
    hook_runner(cls, here)
    cls().load_model(load_format="dummy")
    assert here.reports == []


def test_a_pipeline_that_cannot_be_observed_runs_on(here: Here) -> None:
    class Odd:
        def forward(self, req: Batch) -> str:
            return "image"

    assert load(here, Odd()).execute_model(Batch()) == "image"
    assert len(here.reports) == 1


def test_a_line_that_cannot_be_written_does_not_break_the_request(here: Here, tmp_path: Path) -> None:
    runner = load(here)
    here.folder = tmp_path / "gone"
    assert runner.execute_model(Batch()) is not None
    writer.settle()
    assert "FileNotFoundError" in here.reports[0]


def test_the_scheduler_class_is_wrapped_once_and_other_pipelines_are_not_recorded(here: Here) -> None:
    observed, plain = load(here), Pipeline()
    before = type(plain.scheduler).step
    hook_scheduler(type(plain.scheduler))
    assert type(plain.scheduler).step is before
    with torch.inference_mode():
        plain.forward(Batch())
    assert not list(here.folder.iterdir())
    observed.execute_model(Batch())
    assert len(lines(here.folder)) == 1
