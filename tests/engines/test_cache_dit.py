"""Cache-DiT: blocks are really skipped, requests do not see each other, ranks decide together."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from profiling.evidence import RankEvidence
from tests.engines.conftest import MODELS, make_request, open_engine, pixels

SETTINGS: dict[str, object] = {"Fn": 1, "Bn": 0, "max_warmup_steps": 2, "residual_diff_threshold": 0.24}
BLOCKS = {"tiny_glm_image_random": 20, "tiny_qwen_image": 8}


def full_forwards(evidence: RankEvidence, blocks: int) -> int:
    """DiT forwards that ran every block, when a skipped one runs just one block."""
    assert (evidence.blocks_run - evidence.dit_forwards) % (blocks - 1) == 0
    return (evidence.blocks_run - evidence.dit_forwards) // (blocks - 1)


@pytest.mark.parametrize("model", MODELS)
def test_blocks_are_skipped_and_the_image_differs_a_little(model: str, baseline: Callable, tmp_path: Path) -> None:
    request = make_request()
    _, plain = baseline(model, request)
    with open_engine(model, cache_dit=SETTINGS) as engine:
        first = engine.generate([request], tmp_path)
        engine.generate([make_request("another scene", seed=9)], None)
        again = engine.generate([request], None)
    evidence = first.evidence[0]
    assert evidence.blocks_skipped > 0
    assert evidence.dit_forwards == 16
    assert evidence.blocks_run + evidence.blocks_skipped == 16 * BLOCKS[model]
    assert 4 <= full_forwards(evidence, BLOCKS[model]) < 16  # the warm-up steps of both branches run in full
    assert 0 < np.abs(pixels(first, tmp_path) - plain).mean() < 0.1
    # Nothing survives a request: neither residuals nor step counts.
    assert again.image_hashes == first.image_hashes
    assert again.evidence[0].blocks_run == evidence.blocks_run


def test_without_guidance_every_step_is_the_same_branch(baseline: Callable) -> None:
    request = make_request(guidance_scale=1.0)
    plain, _ = baseline("tiny_qwen_image", request)
    with open_engine("tiny_qwen_image", cache_dit=SETTINGS | {"residual_diff_threshold": 1.0}) as engine:
        output = engine.generate([request], None)
    # At a threshold of 1 the library skips everything after the warm-up: two full steps, then one block a step.
    assert output.evidence[0].blocks_run == 2 * 8 + 6 * 1
    assert output.image_hashes != plain.image_hashes


def test_threshold_zero_changes_no_bit_of_an_edit(baseline: Callable, picture: Path) -> None:
    request = make_request(input_image=str(picture))
    plain, _ = baseline("tiny_glm_image_random", request)
    with open_engine("tiny_glm_image_random", cache_dit=SETTINGS | {"residual_diff_threshold": 0.0}) as engine:
        never = engine.generate([request], None)
    # All blocks run through the cache's stand-in, each with its own keys and values of the source image.
    assert never.evidence[0].blocks_skipped == 0
    assert never.image_hashes == plain.image_hashes
    with open_engine("tiny_glm_image_random", cache_dit=SETTINGS) as engine:
        cached = engine.generate([request], None)
    assert cached.evidence[0].blocks_skipped > 0


@pytest.mark.parametrize("model", MODELS)
def test_under_cfg_parallel_each_rank_caches_its_own_branch(model: str) -> None:
    request = make_request()
    with open_engine(model, cache_dit=SETTINGS) as engine:
        alone = engine.generate([request], None)
    with open_engine(model, ranks=2, cache_dit=SETTINGS, cfg_parallel={}) as engine:
        both = engine.generate([request], None)
    assert both.image_hashes == alone.image_hashes
    assert [evidence.dit_forwards for evidence in both.evidence] == [8, 8]
    assert sum(evidence.blocks_skipped for evidence in both.evidence) == alone.evidence[0].blocks_skipped > 0


@pytest.mark.parametrize("partner", ["ulysses", "ring", "tp"])
def test_ranks_that_share_a_forward_skip_together(partner: str, tmp_path: Path) -> None:
    request = make_request(steps=4)  # two to warm up, two to skip in
    features: dict[str, dict[str, object]] = {partner: {"degree": 2}}
    with open_engine("tiny_qwen_image", cache_dit=SETTINGS) as engine:
        alone = engine.generate([request], tmp_path / "alone")
    with open_engine("tiny_qwen_image", ranks=2, cache_dit=SETTINGS, **features) as engine:
        both = engine.generate([request], tmp_path / "both")
    skipped = alone.evidence[0].blocks_skipped
    assert [evidence.blocks_skipped for evidence in both.evidence] == [skipped, skipped]
    assert skipped > 0
    # The decision sees all tokens, as on one rank, so the images agree up to the order of sums (in 8-bit pixels).
    assert np.abs(pixels(both, tmp_path / "both") - pixels(alone, tmp_path / "alone")).mean() < 1e-3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"Fn": 8}, r"cache_dit: Fn=8 .* 8 blocks"),
        ({"Fn": 1, "Bn": 7}, r"cache_dit: Fn=1 and Bn=7 .* 8 blocks"),
        ({"residual_diff_treshold": 0.1}, r"residual_diff_treshold\b.*\bresidual_diff_threshold\b"),
    ],
)
def test_settings_that_cannot_work_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message), open_engine("tiny_qwen_image", cache_dit=arguments):
        pass
