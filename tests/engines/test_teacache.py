"""TeaCache skips some blocks, never all, and changes the image a little."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.engines.conftest import MODELS, make_request, open_engine, pixels


@pytest.mark.parametrize("model", MODELS)
def test_default_threshold_skips_blocks_and_changes_the_image_a_little(
    model: str, tmp_path: Path, baseline: Callable
) -> None:
    request = make_request()
    plain, plain_pixels = baseline(model, request)
    with open_engine(model, teacache={}) as engine:
        first = engine.generate([request], tmp_path)
        image = pixels(first, tmp_path)
        second = engine.generate([request], None)
    evidence, full = first.evidence[0], plain.evidence[0]
    assert full.blocks_skipped == 0
    assert 0 < evidence.blocks_skipped < full.blocks_run
    assert evidence.blocks_run + evidence.blocks_skipped == full.blocks_run
    assert evidence.dit_forwards == full.dit_forwards
    assert first.image_hashes != plain.image_hashes
    assert 0 < np.abs(image - plain_pixels).mean() < 0.05
    assert second.image_hashes == first.image_hashes  # nothing is carried over from the request before
    assert second.evidence == first.evidence


def test_threshold_of_zero_skips_nothing(baseline: Callable) -> None:
    request = make_request()
    plain, _ = baseline("tiny_glm_image_random", request)
    with open_engine("tiny_glm_image_random", teacache={"rel_l1_thresh": 0.0}) as engine:
        output = engine.generate([request], None)
    assert output.evidence[0].blocks_skipped == 0
    assert output.image_hashes == plain.image_hashes


def test_higher_threshold_skips_more_but_never_the_first_and_last_step(baseline: Callable) -> None:
    request = make_request()
    blocks_a_step = baseline("tiny_qwen_image", request)[0].evidence[0].blocks_run // request.steps
    skipped = []
    for threshold in (0.05, 10.0):
        with open_engine("tiny_qwen_image", teacache={"rel_l1_thresh": threshold}) as engine:
            skipped.append(engine.generate([request], None).evidence[0].blocks_skipped)
    assert skipped[0] < skipped[1] == blocks_a_step * (request.steps - 2)


def test_skips_without_guidance_too() -> None:
    with open_engine("tiny_glm_image_random", teacache={}) as engine:
        evidence = engine.generate([make_request(guidance_scale=1.0)], None).evidence[0]
    assert evidence.dit_forwards == 8
    assert evidence.blocks_skipped > 0
