"""Phases of real generations by the tiny pipelines."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tiny_pipelines import STEPS, arguments, count

from profiling.instrument import attach
from profiling.phases import PhaseRecord, PhaseRecorder


@pytest.fixture
def recorder() -> PhaseRecorder:
    return PhaseRecorder(rank=0, device="cpu")


@pytest.fixture
def attached(glm: Any, recorder: PhaseRecorder) -> Iterator[Any]:
    """GLM-Image with the recorder attached."""
    detach = attach(glm, recorder)
    yield glm
    detach()


def generate(pipeline: Any, recorder: PhaseRecorder, **changes: Any) -> tuple[PhaseRecord, ...]:
    """Records of one request."""
    with recorder.phase("request"):
        pipeline(**arguments(pipeline, **changes))
    return recorder.take()


@pytest.fixture(scope="module")
def two_requests(glm: Any) -> tuple[tuple[PhaseRecord, ...], ...]:
    """Records of two requests, one after the other, that several tests look at."""
    recorder = PhaseRecorder(rank=0, device="cpu")
    detach = attach(glm, recorder)
    found = generate(glm, recorder), generate(glm, recorder)
    detach()
    return found


def inside(inner: PhaseRecord, outer: PhaseRecord) -> bool:
    """Whether `inner` ran within `outer`, to a microsecond."""
    slack_s = 1e-6
    return (
        outer.start_s <= inner.start_s + slack_s
        and inner.start_s + inner.host_ms / 1e3 <= outer.start_s + outer.host_ms / 1e3 + slack_s
    )


def test_every_phase_of_a_glm_request_is_counted(attached: Any, recorder: PhaseRecorder) -> None:
    tokens: list[int] = []
    generate_tokens = attached.vision_language_encoder.generate

    def counted(**inputs: Any) -> Any:
        output = generate_tokens(**inputs)
        tokens.append(output.shape[-1] - inputs["input_ids"].shape[-1])
        return output

    attached.vision_language_encoder.generate = counted
    try:
        records = generate(attached, recorder)
    finally:
        attached.vision_language_encoder.generate = generate_tokens
    assert tokens[0] > 100
    assert count(records) == {
        "request": 1,
        "text_encode": 1,
        "ar_prefill": 1,
        "ar_decode": tokens[0] - 1,
        "denoise_step": STEPS,
        "dit_forward": 2 * STEPS,
        "vae_decode": 1,
    }


def test_without_guidance_there_is_one_dit_forward_a_step(attached: Any, recorder: PhaseRecorder) -> None:
    counts = count(generate(attached, recorder, guidance_scale=1.0))
    assert (counts["denoise_step"], counts["dit_forward"]) == (STEPS, STEPS)


def test_phases_make_up_the_request(two_requests: tuple[tuple[PhaseRecord, ...], ...]) -> None:
    _, records = two_requests  # the first warmed up
    request_ms = sum(record.host_ms for record in records if record.phase == "request")
    top_ms = sum(record.host_ms for record in records if record.phase not in ("request", "dit_forward"))
    assert 0.9 * request_ms <= top_ms <= request_ms


def test_phases_follow_each_other_and_forwards_lie_in_their_step(
    two_requests: tuple[tuple[PhaseRecord, ...], ...],
) -> None:
    records, _ = two_requests
    top = [record for record in records if record.phase not in ("request", "dit_forward")]
    for before, after in itertools.pairwise(top):
        assert before.start_s + before.host_ms / 1e3 <= after.start_s + 1e-6, (before, after)
    steps = [record for record in records if record.phase == "denoise_step"]
    forwards = [record for record in records if record.phase == "dit_forward"]
    assert [record.index for record in steps] == list(range(STEPS))
    assert [record.index for record in forwards] == list(range(2 * STEPS))
    assert all(inside(forward, steps[forward.index // 2]) for forward in forwards)


def test_two_requests_are_counted_alike(two_requests: tuple[tuple[PhaseRecord, ...], ...]) -> None:
    first, second = two_requests
    assert [(r.phase, r.index) for r in first] == [(r.phase, r.index) for r in second]


def test_an_edit_encodes_its_input_image_outside_the_denoising(attached: Any, recorder: PhaseRecorder) -> None:
    from PIL import Image

    counts = count(generate(attached, recorder, image=[Image.new("RGB", (64, 64), "teal")]))
    # image features, image tokens, VAE, and the DiT forward that fills the image's cache
    assert counts["image_encode"] == 4
    assert (counts["denoise_step"], counts["dit_forward"], counts["ar_prefill"]) == (STEPS, 2 * STEPS, 1)


def test_qwen_image_has_no_ar_phases(qwen: Any, recorder: PhaseRecorder) -> None:
    detach = attach(qwen, recorder)
    try:
        records = generate(qwen, recorder)
    finally:
        detach()
    assert count(records) == {
        "request": 1,
        "text_encode": 2,  # prompt and negative prompt
        "denoise_step": STEPS,
        "dit_forward": 2 * STEPS,
        "vae_decode": 1,
    }


@pytest.mark.parametrize(
    ("where", "phase"),
    [
        (lambda pipe: pipe.transformer.transformer_blocks[0], "dit_forward"),
        (lambda pipe: pipe.vision_language_encoder.model.language_model, "ar_prefill"),
        (lambda pipe: pipe.text_encoder.encoder, "text_encode"),
        (lambda pipe: pipe.vae.decoder, "vae_decode"),
    ],
)
def test_an_exception_leaves_no_range_open(
    attached: Any, recorder: PhaseRecorder, where: Callable[[Any], Any], phase: str
) -> None:
    def fail(module: Any, inputs: Any) -> None:
        raise MemoryError("out of memory")

    hook = where(attached).register_forward_pre_hook(fail)
    try:
        with pytest.raises(MemoryError):
            attached(**arguments(attached))
    finally:
        hook.remove()
    records = recorder.take()  # raises when a phase is open
    assert count(records)[phase] == 1
    assert count(generate(attached, recorder))["denoise_step"] == STEPS


def test_an_exception_between_forwards_ends_with_the_request(attached: Any, recorder: PhaseRecorder) -> None:
    forward = attached.transformer.forward

    def fail_after(*args: Any, **kwargs: Any) -> Any:  # as a wrapper from outside would, e.g. a lost rank
        forward(*args, **kwargs)
        raise ConnectionError("peer is gone")

    attached.transformer.forward = fail_after
    try:
        with pytest.raises(ConnectionError), recorder.phase("request"):
            attached(**arguments(attached))
    finally:
        attached.transformer.forward = forward
    counts = count(recorder.take())
    assert (counts["request"], counts["denoise_step"], counts["dit_forward"]) == (1, 1, 1)


def test_detach_puts_back_what_was_found(glm: Any, recorder: PhaseRecorder) -> None:
    assert "generate" not in vars(glm.vision_language_encoder)  # nor did the tests before leave anything
    class_forward = glm.transformer.forward

    def patched(*args: Any, **kwargs: Any) -> Any:  # as a cache feature leaves it
        return class_forward(*args, **kwargs)

    glm.transformer.forward = patched
    parts = (glm, glm.vae, glm.scheduler, glm.transformer, glm.vision_language_encoder)
    before = [dict(vars(part)) for part in parts]
    try:
        detach = attach(glm, recorder)
        assert glm.transformer.forward is not patched
        assert "generate" in vars(glm.vision_language_encoder)
        detach()
        assert [dict(vars(part)) for part in parts] == before
    finally:
        del glm.transformer.forward
    generate(glm, recorder)


def test_recording_does_not_change_the_image(glm: Any, recorder: PhaseRecorder) -> None:
    plain = glm(**arguments(glm)).images[0]
    detach = attach(glm, recorder)
    try:
        recorded = glm(**arguments(glm)).images[0]
    finally:
        detach()
    assert plain.tobytes() == recorded.tobytes()
