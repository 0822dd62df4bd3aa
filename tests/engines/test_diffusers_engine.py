"""The embedded engine: deterministic, takes any prompt, edits images, and says which rank failed."""

import math
import os
import signal
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from profiling.phases import PhaseRecord
from sweep.engines.images import NOT_FINITE
from sweep.engines.protocol import Output
from tests.engines.conftest import MODELS, answers, make_request, make_spec, open_engine, pixels

if TYPE_CHECKING:
    from sweep.engines.diffusers.engine import DiffusersEngine

ODD_PROMPTS = (
    "",
    "   ",
    "🦊👩‍👩‍👧 שלום עולم مرحبا ‏ x",
    "a shop sign 'OPEN' and \"24 hours\" and 「营业中」",
    "<|image|> <sop> <|im_end|> {} {prompt}",  # control tokens
)
LONG_PROMPT = "A quiet harbour. " * 589  # 10,013 characters


@pytest.fixture(scope="module", params=MODELS)
def engine(request: pytest.FixtureRequest) -> Iterator["DiffusersEngine"]:
    with open_engine(request.param) as loaded:
        yield loaded


def only(output: Output, phase: str) -> list[PhaseRecord]:
    """Records of one phase."""
    return [record for record in output.phases if record.phase == phase]


def generate_alone(pipe: Connection, model: str) -> None:
    with open_engine(model) as engine:
        pipe.send(engine.generate([make_request(steps=2)], None).image_hashes)


def test_same_seed_gives_the_same_bits_in_another_process(engine, tmp_path: Path) -> None:
    here = engine.generate([make_request(steps=2)], tmp_path)
    assert answers(1, generate_alone, engine.spec.model) == [here.image_hashes]
    image = pixels(here, tmp_path)[0]
    assert image.shape == (64, 64, 3)
    assert image.std() > 0.05  # not flat
    assert here.image_faults == ("",)
    others = engine.generate([make_request(seed=2, steps=2), make_request("a blue ship", 1, steps=2)], tmp_path)
    assert len({*here.image_hashes, *others.image_hashes}) == 3
    assert np.abs(pixels(others, tmp_path)[1] - image).mean() > 0.005


def test_evidence_and_phases_of_a_baseline(engine, tmp_path: Path) -> None:
    output = engine.generate([make_request()], tmp_path)
    (evidence,) = output.evidence
    blocks = int(evidence.settings["dit_blocks"])
    assert (evidence.dit_forwards, evidence.denoise_steps, evidence.blocks_skipped) == (16, 8, 0)
    assert evidence.blocks_run == 16 * blocks
    assert evidence.block_sequence == 16
    assert output.image_paths == ("images/prompt_00_seed_1.png",)
    assert [path.name for path in (tmp_path / "images").iterdir()] == ["prompt_00_seed_1.png"]
    (request,) = only(output, "request")
    assert request.host_ms / 1000 == pytest.approx(output.latency_s, rel=0.05, abs=0.005)
    assert len(only(output, "denoise_step")) == 8
    assert len(only(output, "dit_forward")) == 16
    assert len(only(output, "vae_decode")) == 1
    if engine.spec.family == "glm_image":
        assert output.output_tokens == 2 * 2 + 16 * 16 + 1
        assert len(only(output, "ar_prefill")) == 1
        assert len(only(output, "ar_decode")) == output.output_tokens - 1
    assert {record.request_id for record in output.phases} == {"request-0-1"}


def test_values_that_are_not_finite_are_told_although_the_image_looks_black(engine, tmp_path: Path) -> None:
    with np.errstate(invalid="ignore"):  # the cast to integers
        output = engine.generate([make_request(guidance_scale=math.inf, steps=2)], tmp_path)
    assert output.image_faults == (NOT_FINITE,)
    assert pixels(output, tmp_path).max() == 0
    unstored = engine.generate([make_request(steps=2)], None)
    assert unstored.image_faults == ("",), "the next one is not blamed"
    assert unstored.image_paths == ("",)


def test_batch_of_two_makes_two_images(engine, tmp_path: Path) -> None:
    output = engine.generate([make_request(steps=2), make_request("a long-haired cat", 1, seed=7, steps=2)], tmp_path)
    assert output.image_paths == ("images/prompt_00_seed_1.png", "images/prompt_01_seed_7.png")
    assert len(set(output.image_hashes)) == 2
    assert output.prompt_tokens == (9, 17)
    assert output.evidence[0].dit_forwards == 4  # one forward serves the whole batch


def test_any_prompt_runs(engine) -> None:
    """In one batch, where all but the longest are padded."""
    output = engine.generate([make_request(prompt, n, steps=2) for n, prompt in enumerate(ODD_PROMPTS)], None)
    assert len({*output.image_hashes}) == len(ODD_PROMPTS)
    assert {*output.image_faults} == {""}


def test_a_long_prompt_runs(engine) -> None:
    output = engine.generate([make_request(LONG_PROMPT, steps=2), make_request("plain", 1, steps=2)], None)
    assert len({*output.image_hashes}) == 2
    assert {*output.image_faults} == {""}
    cut = engine.spec.family == "qwen_image"  # its pipeline reads 1,024 tokens, and says nothing
    assert output.evidence[0].counts.get("prompts_cut", 0) == int(cut)
    assert (output.prompt_tokens[0] == 1024) == cut


def test_prompt_tokens_lengthens_and_cuts(engine) -> None:
    wanted = {"fox": 40, "": 40, "a red fox in the snow " * 20: 40, "שלום": 5}
    requests = [make_request(text, n, prompt_tokens=size, steps=2) for n, (text, size) in enumerate(wanted.items())]
    # "ש" is two tokens: a cut never splits a character
    assert engine.generate(requests, None).prompt_tokens == (40, 40, 40, 4)


def test_requests_that_cannot_share_a_call_are_refused(engine) -> None:
    with pytest.raises(ValueError, match=r"\bsizes\b"):
        engine.generate([make_request(), make_request("b", 1, height=128)], None)
    with pytest.raises(ValueError, match="no request"):
        engine.generate([], None)


def test_edit_depends_on_the_input_image(picture: Path, tmp_path: Path, baseline: Callable) -> None:
    edit = make_request(input_image=str(picture))
    output, edited = baseline("tiny_glm_image_random", edit)
    from PIL import Image

    inverted = tmp_path / "inverted.png"
    Image.fromarray(255 - np.asarray(Image.open(picture))).save(inverted)
    _, other = baseline("tiny_glm_image_random", make_request(input_image=str(inverted)))
    _, from_text = baseline("tiny_glm_image_random", make_request())
    assert np.abs(edited - other).mean() > 0.001
    assert np.abs(edited - from_text).mean() > 0.001
    assert output.evidence[0].dit_forwards == 16
    assert output.output_tokens == 2 * 2 + 1
    assert only(output, "image_encode")
    pair, images = baseline("tiny_glm_image_random", edit, make_request("b", 1, input_image=str(inverted)))
    assert len(set(pair.image_hashes)) == 2
    assert images.shape == (2, 64, 64, 3)


def test_wrong_number_of_ranks_is_refused() -> None:
    from sweep.engines.diffusers.engine import DiffusersEngine

    with pytest.raises(ValueError, match=r"cfg_parallel.*\b2\b.*\b1$"):
        DiffusersEngine(make_spec("tiny_glm_image_random", cfg_parallel={})).load()


def test_missing_checkpoint_is_named(tmp_path: Path) -> None:
    from dataclasses import replace

    from sweep.engines.diffusers.engine import DiffusersEngine

    spec = replace(make_spec("glm_image"), embedded=False, checkpoint=str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        DiffusersEngine(spec).load()


def test_a_killed_rank_is_named_and_takes_the_engine_with_it() -> None:
    from sweep.engines.diffusers.ranks import RankError

    with open_engine("tiny_qwen_image", ranks=2, cfg_parallel={}) as engine:
        engine.generate([make_request()], None)
        assert engine.alive
        (process,) = engine._processes._processes
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(RankError, match="rank 1 of 2"):
            engine.generate([make_request()], None)
        assert not engine.alive


def test_an_exception_in_every_rank_reaches_the_caller(tmp_path: Path) -> None:
    with open_engine("tiny_glm_image_random", ranks=2, cfg_parallel={}) as engine:
        with pytest.raises(Exception, match=r"rank \d of 2 .*missing.png"):
            engine.generate([make_request(input_image=str(tmp_path / "missing.png"))], None)
        assert not engine.alive, "the other ranks may wait in a collective"


def test_ranks_end_with_the_engine() -> None:
    with open_engine("tiny_qwen_image", ranks=2, cfg_parallel={}) as engine:
        (process,) = engine._processes._processes
        assert process.is_alive()
    assert not process.is_alive()
    engine.close()  # twice is fine
