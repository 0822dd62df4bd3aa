"""Attach a PhaseRecorder to a loaded diffusers pipeline: decides where each phase opens and closes.

Replaces methods on the instances that the pipeline holds, never on classes, so that other pipelines stay
untouched and `detach` can put back exactly what was found. Attach after caches have patched
`transformer.forward` and before CFG-parallel wraps it from outside. Knows GlmImagePipeline and the
QwenImage pipelines by the methods that they have; knows nothing of engines or features.
"""

import functools
from collections.abc import Callable
from typing import Protocol

from profiling.phases import PhaseRecorder

Method = Callable[..., object]
Detach = Callable[[], None]


class Pipeline(Protocol):
    """What is instrumented; `vision_language_encoder` (the AR stage) may be missing."""

    encode_prompt: Method
    transformer: object
    scheduler: object
    vae: object


class LayerCache(Protocol):
    """GLM-Image's DiT cache of one layer, for image edits."""

    mode: str | None  # "write" while the input image is encoded


class LayerCaches(Protocol):
    """One cache a DiT layer; all are in the same mode."""

    def __getitem__(self, layer: int) -> LayerCache:
        """Cache of a layer."""
        ...


class PastKeyValues(Protocol):
    """A transformers cache."""

    def get_seq_length(self) -> int:
        """Tokens held."""
        ...


def attach(pipeline: Pipeline, recorder: PhaseRecorder) -> Detach:
    """Record all phases of the pipeline except `request`; returns a function that undoes it, in reverse order."""
    replaced: list[Detach] = []

    def wrap(owner: object, name: str, make: Callable[[Method, PhaseRecorder], Method]) -> None:
        replaced.append(replace(owner, name, make(getattr(owner, name), recorder)))

    wrap(pipeline, "encode_prompt", as_phase("text_encode"))
    wrap(pipeline.vae, "encode", as_phase("image_encode"))
    wrap(pipeline.vae, "decode", as_phase("vae_decode"))
    wrap(pipeline.transformer, "forward", as_dit_forward)
    wrap(pipeline.scheduler, "step", as_step_end)
    ar = getattr(pipeline, "vision_language_encoder", None)
    if ar is not None:
        wrap(ar, "get_image_features", as_phase("image_encode"))
        wrap(ar, "get_image_tokens", as_phase("image_encode"))
        wrap(ar, "forward", as_ar_forward)
        wrap(ar, "generate", as_ar_generate)

    def detach() -> None:
        while replaced:
            replaced.pop()()

    return detach


def replace(owner: object, name: str, method: Method) -> Detach:
    """Set `owner.name` on the instance; the result restores the old value, or deletes the attribute if it had none."""
    missing = object()
    found = vars(owner).get(name, missing)
    setattr(owner, name, method)

    def restore() -> None:
        if found is missing:
            delattr(owner, name)
        else:
            setattr(owner, name, found)

    return restore


def as_phase(phase: str) -> Callable[[Method, PhaseRecorder], Method]:
    """Wrap a method so that each call is one `phase`; a nested call belongs to the outer one."""

    def make(method: Method, recorder: PhaseRecorder) -> Method:
        @functools.wraps(method)
        def timed(*args: object, **kwargs: object) -> object:
            if recorder.is_open(phase):
                return method(*args, **kwargs)
            with recorder.phase(phase):
                return method(*args, **kwargs)

        return timed

    return make


def as_dit_forward(method: Method, recorder: PhaseRecorder) -> Method:
    """Each call is one `dit_forward`; the first since the last scheduler step opens `denoise_step`.

    A call that only writes an edit's input image into the DiT's cache predicts no noise: `image_encode`.
    """

    @functools.wraps(method)
    def timed(*args: object, kv_caches: LayerCaches | None = None, **kwargs: object) -> object:
        if kv_caches is not None:  # absent on Qwen-Image
            kwargs["kv_caches"] = kv_caches
            if kv_caches[0].mode == "write":
                with recorder.phase("image_encode"):
                    return method(*args, **kwargs)
        if not recorder.is_open("denoise_step"):
            recorder.begin("denoise_step")
        try:
            with recorder.phase("dit_forward"):
                return method(*args, **kwargs)
        except BaseException:
            if recorder.is_open("denoise_step"):
                recorder.end("denoise_step")
            raise

    return timed


def as_step_end(method: Method, recorder: PhaseRecorder) -> Method:
    """The end of `scheduler.step` closes `denoise_step`, which it opens itself if no transformer call did."""

    @functools.wraps(method)
    def timed(*args: object, **kwargs: object) -> object:
        if not recorder.is_open("denoise_step"):
            recorder.begin("denoise_step")
        try:
            return method(*args, **kwargs)
        finally:
            recorder.end("denoise_step")

    return timed


def as_ar_generate(method: Method, recorder: PhaseRecorder) -> Method:
    """`ar_prefill` opens on entry; `ar_decode` follows it (see as_ar_forward) until `generate` returns."""

    @functools.wraps(method)
    def timed(*args: object, **kwargs: object) -> object:
        recorder.begin("ar_prefill")
        try:
            return method(*args, **kwargs)
        finally:
            for phase in ("ar_prefill", "ar_decode"):
                if recorder.is_open(phase):
                    recorder.end(phase)

    return timed


def as_ar_forward(method: Method, recorder: PhaseRecorder) -> Method:
    """A forward over a filled cache opens the next `ar_decode`, which therefore includes the sampling after it.

    The forward that fills the cache belongs to `ar_prefill`, with the sampling of the first token.
    """

    @functools.wraps(method)
    def timed(*args: object, past_key_values: PastKeyValues | None = None, **kwargs: object) -> object:
        if past_key_values is not None and past_key_values.get_seq_length() > 0:
            for phase in ("ar_prefill", "ar_decode"):
                if recorder.is_open(phase):
                    recorder.end(phase)
                    recorder.begin("ar_decode")
                    break
        return method(*args, past_key_values=past_key_values, **kwargs)

    return timed
