"""What the plugin counts of caches, adapters and refused kernels, on pipelines shaped like vLLM-Omni's."""

import contextlib
import sys
import types
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from observed import load  # noqa: E402
from omni_doubles import Batch, Here, Pipeline, Runner, lines  # noqa: E402

from profiling.evidence import RankEvidence  # noqa: E402
from tests.wheels import VERSIONS, wheel_source  # noqa: E402


def requests(here: Here, runner: Runner, count: int = 1) -> list[RankEvidence]:
    """Evidence of so many requests."""
    for _ in range(count):
        runner.execute_model(Batch())
    return [record.evidence for record in lines(here.folder)]


def test_layers_count_while_their_adapter_is_active(here: Here) -> None:
    runner = load(here)
    layers = [block.linear for block in runner.pipeline.transformer.transformer_blocks]
    for layer in layers:  # an adapter is loaded after the plugin looked at the pipeline
        layer._diffusion_lora_active_slices = (False, False)
    (before,) = requests(here, runner)
    layers[0]._diffusion_lora_active_slices = (False, True)
    layers[2]._diffusion_lora_active_slices = (True,)
    assert before.counts["lora_layers"] == 0
    assert requests(here, runner)[-1].counts["lora_layers"] == 2


def test_hits_of_the_prompt_cache_are_those_of_the_request(here: Here) -> None:
    runner = load(here)
    runner.prompt_embed_cache = SimpleNamespace(hits=5)  # type: ignore[attr-defined]
    plain = runner.pipeline.encode_prompt

    def cached(prompt: str) -> Any:
        if prompt == "negative":
            runner.prompt_embed_cache.hits += 1  # type: ignore[attr-defined]
            return None
        return plain(prompt)

    runner.pipeline.encode_prompt = cached
    for evidence in requests(here, runner, 2):
        assert (evidence.counts["prompt_cache_hits"], evidence.counts["text_encoder_calls"]) == (1, 1)


def test_steps_answered_under_a_mask_are_counted_with_it(here: Here) -> None:
    pipeline = Pipeline()
    config = SimpleNamespace(steps_computation_mask=[1, 0, 0, 1])
    context = SimpleNamespace(cache_config=config, cached_steps=[1, 2], cfg_cached_steps=[2])
    pipeline.transformer._context_manager = SimpleNamespace(_cached_context_manager={"blocks": context})
    (evidence,) = requests(here, load(here, pipeline))
    assert (evidence.counts["masked_steps"], evidence.settings["cache_mask"]) == (3, "1001")
    config.steps_computation_mask = None
    evidence = requests(here, load(here, pipeline))[-1]
    assert (evidence.counts["masked_steps"], evidence.settings["cache_mask"]) == (0, "none")


class State:
    """cache-dit's TaylorSeerState."""

    def __init__(self, derivative: float | None) -> None:
        self.state = {"dY_current": [1.0, derivative]}

    def approximate(self) -> float:
        return sum(value or 0.0 for value in self.state["dY_current"])


def test_only_what_uses_a_derivative_is_an_extrapolation(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    class Series(State):
        approximate = State.approximate

    module = types.ModuleType("taylorseer")
    module.TaylorSeerState = Series  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cache_dit.caching.cache_contexts.calibrators.taylorseer", module)

    class Extrapolating(Pipeline):
        def predict(self, latents: Any, guidance: bool) -> Any:
            assert (Series(2.0).approximate(), Series(None).approximate()) == (3.0, 1.0)
            return super().predict(latents, guidance)

    runner = load(here, Extrapolating())
    for evidence in requests(here, runner, 2):
        assert evidence.counts["extrapolations"] == 4  # one in each step


def test_a_kernel_that_refuses_shows_as_the_fallback(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """As vLLM-Omni's cuDNN back end does: it asks for one kernel, and on an error lets PyTorch choose."""

    @contextlib.contextmanager
    def plain(backends: Any) -> Iterator[None]:
        yield

    module = types.ModuleType("cudnn_attn")
    module.sdpa_kernel = plain  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm_omni.diffusion.attention.backends.cudnn_attn", module)
    pipeline = Pipeline().to(torch.bfloat16)

    def refuse(query: Any) -> Any:
        with contextlib.suppress(RuntimeError), module.sdpa_kernel([]):
            raise RuntimeError("No available kernel")
        return query

    class Typed(Pipeline):
        def predict(self, latents: Any, guidance: bool) -> Any:
            return super().predict(latents.to(torch.bfloat16), guidance).float()

    pipeline = Typed()
    pipeline.transformer.to(torch.bfloat16)
    pipeline.transformer.attention.attention.forward = refuse
    (evidence,) = requests(here, load(here, pipeline))
    assert evidence.settings["attention_backend"] == "FLASH_ATTN+TORCH_SDPA"
    assert evidence.settings["attention_calls"] == "FLASH_ATTN:8,TORCH_SDPA:8"


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_counted_exists(version: str) -> None:
    root = wheel_source(version) / "vllm_omni" / "diffusion"
    layer = (root / "lora/layers/base_linear.py").read_text()
    assert "if active_slices is not None and not any(active_slices):\n            return output" in layer
    runner = (root / "worker/diffusion_model_runner.py").read_text()
    assert "self.prompt_embed_cache = install_prompt_embed_cache(" in runner
    kernels = (root / "attention/backends/cudnn_attn.py").read_text()
    assert "with sdpa_kernel(" in kernels
    if version < "0.30":  # 0.30 raises instead
        assert "def _sdpa_fallback(" in (root / "attention/backends/flashinfer_attn.py").read_text()
