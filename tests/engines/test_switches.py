"""Masks, series, adapters and cached prompts on the embedded models: they run, and only when they are on."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from cache_dit import DBCacheConfig
from cache_dit.caching.cache_contexts.cache_manager import CachedContextManager

from profiling import cache_contexts
from sweep.checkpoints import lora
from sweep.engines.diffusers.tiny_models.checkpoints import ensure_checkpoint
from sweep.refusals import ConfigError
from tests.engines.conftest import MODELS, make_request, open_engine

CACHE: dict[str, object] = {"Fn": 1, "Bn": 0, "max_warmup_steps": 2, "residual_diff_threshold": 0.24}
LAYERS = {"tiny_glm_image_random": 20 * 3, "tiny_qwen_image": 8 * 6}
"""Projections into attention: GLM-Image's blocks have three, Qwen-Image's six."""


@pytest.mark.parametrize("model", MODELS)
def test_a_static_mask_says_which_steps_compute(model: str) -> None:
    request = make_request()
    mask: dict[str, object] = {"mask": "ultra", "mask_policy": "static"}  # 11001001
    with open_engine(model, cache_dit=CACHE | {"residual_diff_threshold": 0.0}, scm=mask) as engine:
        (evidence,) = engine.generate([request], None).evidence
    assert evidence.counts["masked_steps"] == 2 * 4  # of both branches
    assert evidence.blocks_skipped > 0, "the residual alone would skip none"


def test_a_dynamic_mask_leaves_it_to_the_residual() -> None:
    mask: dict[str, object] = {"mask": "ultra", "mask_policy": "dynamic"}
    with open_engine("tiny_qwen_image", cache_dit=CACHE | {"residual_diff_threshold": 0.0}, scm=mask) as engine:
        (evidence,) = engine.generate([make_request()], None).evidence
    assert evidence.counts.get("masked_steps", 0) == evidence.blocks_skipped == 0


def test_too_few_steps_have_no_mask() -> None:
    with open_engine("tiny_qwen_image", cache_dit=CACHE, scm={"mask": "fast"}) as engine:
        (evidence,) = engine.generate([make_request(steps=5)], None).evidence
    assert "masked_steps" not in evidence.counts


def test_skipped_steps_extrapolate() -> None:
    request = make_request()
    with open_engine("tiny_qwen_image", cache_dit=CACHE) as engine:
        reused = engine.generate([request], None)
    with open_engine("tiny_qwen_image", cache_dit=CACHE, taylorseer={"taylorseer_order": 1}) as engine:
        output = engine.generate([request], None)
    assert output.evidence[0].counts["extrapolations"] > 0
    assert "extrapolations" not in reused.evidence[0].counts
    assert output.image_hashes != reused.image_hashes


@pytest.mark.parametrize("model", MODELS)
def test_an_adapter_runs_in_every_layer_of_it(model: str, baseline: Callable, tmp_path: Path) -> None:
    request = make_request(steps=2)
    plain, _ = baseline(model, request)
    folder = lora.build(ensure_checkpoint(model), model, tmp_path / "adapter", rank=2, seed=0)
    with open_engine(model, lora={"path": str(folder), "scale": 1.0}) as engine:
        first, again = engine.generate([request], None), engine.generate([request], None)
    assert [output.evidence[0].counts["lora_layers"] for output in (first, again)] == [LAYERS[model]] * 2
    assert first.image_hashes == again.image_hashes != plain.image_hashes
    assert "lora_layers" not in plain.evidence[0].counts


def test_an_adapter_of_another_embedded_model_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    folder = lora.build(ensure_checkpoint("tiny_glm_image_random"), "glm", tmp_path / "adapter", rank=2, seed=0)
    with (
        pytest.raises(ConfigError, match="an adapter of another model, which was made for glm"),
        open_engine("tiny_qwen_image", lora={"path": str(folder)}),
    ):
        pass


@pytest.mark.parametrize("model", MODELS)
def test_a_prompt_that_was_encoded_is_not_encoded_again(model: str, baseline: Callable) -> None:
    request, other = make_request(steps=2), make_request("another scene", seed=9, steps=2)
    plain, _ = baseline(model, request)
    with open_engine(model, prompt_embed_cache={"size": 2}) as engine:
        outputs = [engine.generate([one], None) for one in (request, request, other, request)]
    counts = [
        (o.evidence[0].counts["text_encoder_calls"], o.evidence[0].counts.get("prompt_cache_hits")) for o in outputs
    ]
    # The last one: `other` replaced the least recently used prompt.
    assert counts == [(2, None), (0, 2), (1, 1), (1, 1)]
    assert {output.image_hashes for output in (outputs[0], outputs[1], outputs[3])} == {plain.image_hashes}


def test_what_is_read_of_cache_dit_is_there() -> None:
    manager = CachedContextManager("", True)
    context = manager.reset_context("blocks", cache_config=DBCacheConfig(steps_computation_mask=[1, 0]))
    found = cache_contexts.contexts(SimpleNamespace(_context_manager=manager))
    assert found == (context,)
    assert cache_contexts.mask_of(context) == "10"
    context.mark_step_begin()
    context.add_cached_step()
    assert cache_contexts.counts(found) == {"masked_steps": 1}
    assert cache_contexts.settings(found) == {"cache_mask": "10"}
