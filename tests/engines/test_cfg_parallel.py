"""CFG-parallel: two ranks, half the DiT forwards each, the very same image."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.engines.conftest import MODELS, make_request, open_engine


@pytest.mark.parametrize("model", MODELS)
def test_two_ranks_halve_the_forwards_and_keep_every_bit(model: str, baseline: Callable) -> None:
    batch = (make_request(), make_request("two cats on a mat", 1, seed=2))
    one, _ = baseline(model, batch[0])
    two, _ = baseline(model, *batch)
    with open_engine(model, ranks=2, cfg_parallel={}) as engine:
        single = engine.generate(batch[:1], None)
        double = engine.generate(batch, None)
        unguided = engine.generate([make_request(guidance_scale=1.0)], None)
    assert single.image_hashes == one.image_hashes
    assert double.image_hashes == two.image_hashes
    assert [evidence.rank for evidence in single.evidence] == [0, 1]
    for evidence in (*single.evidence, *double.evidence):
        assert evidence.denoise_steps == 8
        assert evidence.dit_forwards == 8
        assert evidence.blocks_run == one.evidence[0].blocks_run // 2
    assert one.evidence[0].dit_forwards == 16
    # Without guidance there is nothing to split: all ranks compute everything, and the evidence says so.
    assert [evidence.dit_forwards for evidence in unguided.evidence] == [8, 8]
    assert unguided.image_hashes == baseline(model, make_request(guidance_scale=1.0))[0].image_hashes
    for rank in (0, 1):
        forwards = [p for p in single.phases if p.phase == "dit_forward" and p.rank == rank]
        assert len(forwards) == 8


def test_edit_is_split_as_well(picture: Path, baseline: Callable) -> None:
    request = make_request(input_image=str(picture))
    plain, _ = baseline("tiny_glm_image_random", request)
    with open_engine("tiny_glm_image_random", ranks=2, cfg_parallel={}) as engine:
        output = engine.generate([request], None)
    assert output.image_hashes == plain.image_hashes
    assert [evidence.dit_forwards for evidence in output.evidence] == [8, 8]


def test_together_with_teacache_it_matches_teacache_alone() -> None:
    request = make_request()
    with open_engine("tiny_glm_image_random", teacache={}) as engine:
        alone = engine.generate([request], None)
    with open_engine("tiny_glm_image_random", ranks=2, teacache={}, cfg_parallel={}) as engine:
        both = engine.generate([request], None)
    assert both.image_hashes == alone.image_hashes
    assert sum(evidence.blocks_skipped for evidence in both.evidence) == alone.evidence[0].blocks_skipped > 0
