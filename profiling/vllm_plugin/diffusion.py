"""Observes a vLLM-Omni diffusion pipeline: phases and executed blocks, one line per request.

Attached after `DiffusionModelRunner.load_model`, when compilation, caches and offloading are set up. Modules are
intercepted where they are called (`_compiled_call_impl`), never at `forward`: hooks, shards and torch.compile are
inside, and Dynamo never sees a wrapper. Knows models by what they declare, with two exceptions among AR + DiT models:
the prior tokens of GLM-Image, and BAGEL, whose DiT is its language model.
"""

import contextlib
import functools
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from profiling import cache_contexts
from profiling.instrument import as_dit_forward, as_phase, as_step_end, replace
from profiling.vllm_plugin import pipeline_facts
from profiling.vllm_plugin.memory import shape_of
from profiling.vllm_plugin.record_files import Place
from profiling.vllm_plugin.request_session import Session, running

Method = Callable[..., Any]


DUMMY = "dummy_req_id"
"""vLLM-Omni's name of its own warm-up request."""


def attach(runner: Any, place: Place) -> Session:
    """Observe `runner.pipeline`: its methods and modules on the instances, schedulers on the class, because each
    request gets a copy. The session lives as long as the pipeline."""
    session = Session(runner, place)
    pipeline, found = runner.pipeline, session.found
    for transformer, blocks in zip(found.transformers, found.blocks, strict=True):
        for block in (block for members in blocks.lists for block in members):
            is_main = any(block is first for first in blocks.main)
            _count_block(session, block, _measured if is_main else _added)
        flow = getattr(pipeline, "bagel", None)
        if flow is None:
            intercept(transformer, _dit(session, blocks.count, called(transformer)))
        else:
            intercept(transformer, _context(session, called(transformer)))
            for name in ("forward", "forward_single_branch"):
                replace(flow, name, _stepped(session, _dit(session, blocks.count, getattr(flow, name))))
    for encoder in found.encoders:
        intercept(encoder, _tallied(session, "text_encoder_calls", called(encoder)))
    if hasattr(pipeline, "encode_prompt"):
        _wrap(session, pipeline, "encode_prompt", "text_encode")
    else:
        for encoder in found.encoders:
            intercept(encoder, _phase(session, "text_encode", called(encoder)))
    for vae in found.vaes:
        _wrap(session, vae, "encode", "image_encode")
        _wrap(session, vae, "decode", "vae_decode")
        if hasattr(vae, "decoder"):
            intercept(vae.decoder, _tallied(session, "vae_decoder_calls", called(vae.decoder)))
        executor = getattr(vae, "distributed_executor", None)
        if executor is not None:
            replace(executor, "execute", _tallied(session, "vae_parallel_decodes", executor.execute))
    for layer in found.attention:
        _count_attention(session, layer)
    if found.attention:
        _count_cudnn_refusals()
    if hasattr(getattr(pipeline, "scheduler", None), "step"):
        hook_scheduler(type(pipeline.scheduler))
    _end_steps_at_broadcast()
    _count_extrapolations()
    replace(pipeline, "forward", _request(session, pipeline.forward))
    return session


def called(module: Any) -> Method:
    """What a call of the module runs: its hooks and forward, compiled as a whole or not."""
    found: Method = module._compiled_call_impl or module._call_impl
    return found


def intercept(module: Any, call: Method) -> None:
    """Make a call of the module run `call` the way compiled modules do, where torch itself looks for it."""
    module._compiled_call_impl = call


def _count_block(session: Session, block: Any, make: Callable[[Session, Method], Method]) -> None:
    """Count the block where it computes: inside a hook that decides whether it runs (MagCache), else at its calls."""
    decides = getattr(getattr(block, "_hook_registry", None), "_new_fwd_impl_hook", None)
    if decides is None:
        intercept(block, make(session, called(block)))
    else:
        decides.fn_ref.original_forward = make(session, decides.fn_ref.original_forward)


def _wrap(session: Session, owner: Any, name: str, phase: str) -> None:
    if hasattr(owner, name):
        replace(owner, name, _phase(session, phase, getattr(owner, name)))


def _phase(session: Session, phase: str, plain: Method) -> Method:
    """Each call while a request runs is one `phase`."""
    timed = as_phase(phase)(plain, session.recorder)

    @functools.wraps(plain)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not session.running():
            return plain(*args, **kwargs)
        session.end_step()
        return timed(*args, **kwargs)

    return call


def _tallied(session: Session, name: str, plain: Method) -> Method:
    calls = session.calls

    @functools.wraps(plain)
    def call(*args: Any, **kwargs: Any) -> Any:
        calls[name] += 1
        return plain(*args, **kwargs)

    return call


def _added(session: Session, plain: Method) -> Method:
    """Counts a block."""
    return _counted(session.blocks, plain)


def _counted(cell: list[int], plain: Method) -> Method:
    def call(*args: Any, **kwargs: Any) -> Any:
        cell[0] += 1
        return plain(*args, **kwargs)

    return call


def _measured(session: Session, plain: Method) -> Method:
    """Counts a block as `_added` does, and keeps the longest sequence."""
    cell, longest = session.blocks, session.sequence

    def call(*args: Any, **kwargs: Any) -> Any:
        cell[0] += 1
        shape: Any = getattr(args[0] if args else kwargs.get("hidden_states"), "shape", ())
        if len(shape) > 1:
            length = shape[1] if len(shape) > 2 else shape[0]  # BAGEL packs its batch into one sequence
            if length > longest[0]:
                longest[0] = int(length)
        return plain(*args, **kwargs)

    return call


def _dit(session: Session, blocks: int, plain: Method) -> Method:
    """A DiT forward: `dit_forward`, or `image_encode` where it only fills the cache of an edit's input image."""
    forward, encode = as_dit_forward(plain, session.recorder), as_phase("image_encode")(plain, session.recorder)

    def call(*args: Any, **kwargs: Any) -> Any:
        if not session.running():
            return plain(*args, **kwargs)
        mode = getattr(kwargs.get("kv_cache"), "mode", None)
        if getattr(mode, "value", mode) == "write":
            with session.uncounted():
                return encode(*args, **kwargs)
        session.calls["dit_forwards"] += 1
        session.blocks_due += blocks
        if session.prior is None and "prior_token_id" in kwargs:
            height, width = kwargs["hidden_states"].shape[-2:]
            session.prior = kwargs["prior_token_id"], height, width
        return forward(*args, **kwargs)

    return call


def _context(session: Session, plain: Method) -> Method:
    """BAGEL's language model, which is also its DiT: calls that fill its cache with the prompt are `ar_prefill`."""
    prefill = as_phase("ar_prefill")(plain, session.recorder)

    def call(*args: Any, **kwargs: Any) -> Any:
        if not (session.running() and kwargs.get("update_past_key_values")) or kwargs.get("return_embeddings_only"):
            return plain(*args, **kwargs)
        with session.uncounted():
            return prefill(*args, **kwargs)

    return call


def _stepped(session: Session, plain: Method) -> Method:
    """BAGEL steps without a scheduler: all branches of a step share one tensor of timesteps."""

    @functools.wraps(plain)
    def call(*args: Any, **kwargs: Any) -> Any:
        timestep = kwargs.get("timestep")
        if session.running() and timestep is not session.timestep:
            session.end_step()
            session.timestep = timestep
        return plain(*args, **kwargs)

    return call


def _count_attention(session: Session, layer: Any) -> None:
    """Count the calls of each back end that the layer may run."""
    own = pipeline_facts.backend_name(layer)
    targets = (
        (own, layer.attention, "forward"),
        (f"RING({own})", getattr(layer, "ring_runner", None), "run_attention"),
        (pipeline_facts.FALLBACK, getattr(layer, "sdpa_fallback", None), "forward"),
        (pipeline_facts.FALLBACK, layer.attention, "_sdpa_fallback"),  # of FlashInfer, for masks that it cannot take
    )
    for name, target, method in targets:
        if hasattr(target, method):
            replace(target, method, _counted(session.attention.setdefault(name, [0]), getattr(target, method)))


def _count_cudnn_refusals() -> None:
    """Count the calls that cuDNN refuses: vLLM-Omni's back end then lets PyTorch choose another kernel."""
    module = sys.modules.get("vllm_omni.diffusion.attention.backends.cudnn_attn")
    plain = getattr(module, "sdpa_kernel", None)
    if module is None or plain is None or hasattr(plain, "observed_by_sweep"):
        return

    @contextlib.contextmanager
    def sdpa_kernel(*args: Any, **kwargs: Any) -> Iterator[None]:
        try:
            with plain(*args, **kwargs):
                yield
        except RuntimeError:
            session = running()
            if session is not None:
                session.attention.setdefault(pipeline_facts.FALLBACK, [0])[0] += 1
            raise

    sdpa_kernel.observed_by_sweep = True  # type: ignore[attr-defined]
    module.sdpa_kernel = sdpa_kernel  # type: ignore[attr-defined]


def _request(session: Session, plain: Method) -> Method:
    """Each outermost call of the pipeline's forward is one request."""

    @functools.wraps(plain)
    def call(*args: Any, **kwargs: Any) -> Any:
        if session.thread is not None:
            return plain(*args, **kwargs)
        batch: Any = args[0] if args else next(iter(kwargs.values()), None)
        ids = [str(request) for request in getattr(batch, "request_ids", ())]
        dummy = bool(ids) and batch.is_dummy_run()
        session.begin(ids, dummy, shape=None if dummy else shape_of(batch))
        try:
            output = plain(*args, **kwargs)
        except BaseException:
            session.fail()
            raise
        session.finish()
        return output

    return call


def hook_scheduler(cls: Any) -> None:
    """Make `step` of this class end the denoising step of the request that runs in its thread, if there is one."""
    plain = cls.step
    if hasattr(plain, "observed_by_sweep"):
        return

    @functools.wraps(plain)
    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        session = running()
        if session is None or session.stepping:  # no session, or a class that calls its parent's `step`
            return plain(self, *args, **kwargs)
        if session.stepwise and not session.recorder.is_open("denoise_step"):  # next of a batch with one forward
            return plain(self, *args, **kwargs)
        session.stepping = True
        try:
            return as_step_end(functools.partial(plain, self), session.recorder)(*args, **kwargs)
        finally:
            session.stepping = False

    step.observed_by_sweep = True  # type: ignore[attr-defined]
    cls.step = step


def _count_extrapolations() -> None:
    """Count in the running session what TaylorSeer extrapolates, where cache-dit is in use."""
    module = sys.modules.get("cache_dit.caching.cache_contexts.calibrators.taylorseer")
    state = getattr(module, "TaylorSeerState", None)

    def counted() -> None:
        session = running()
        if session is not None:
            session.calls["extrapolations"] += 1

    if state is not None and not hasattr(state.approximate, "observed_by_sweep"):
        cache_contexts.count_extrapolations(state, counted)


def _end_steps_at_broadcast() -> None:
    """With CFG-parallel, GLM-Image steps the scheduler on one rank, which broadcasts the latents to the others."""
    try:
        group = sys.modules[pipeline_facts.PARALLEL_STATE].get_cfg_group()
    except (KeyError, AttributeError, AssertionError):
        return
    plain = group.broadcast
    if group.world_size == 1 or hasattr(plain, "observed_by_sweep"):
        return

    @functools.wraps(plain)
    def broadcast(*args: Any, **kwargs: Any) -> Any:
        result = plain(*args, **kwargs)
        session = running()
        if session is not None:
            session.end_step()
        return result

    broadcast.observed_by_sweep = True  # type: ignore[attr-defined]
    replace(group, "broadcast", broadcast)


def hook_runner(cls: Any, place: Place) -> list[str]:
    """Make the runner attach to each pipeline that it loads, and step mode end its requests; returns the wrapped names.

    An error here is reported and never stops the model.
    """
    load, stepwise = cls.load_model, cls.execute_stepwise
    names = [f"{cls.__name__}.load_model", f"{cls.__name__}.execute_stepwise"]
    if hasattr(load, "observed_by_sweep"):
        return names

    @functools.wraps(load)
    def load_model(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = load(self, *args, **kwargs)
        if getattr(self, "pipeline", None) is not None:
            try:
                self.__dict__["_sweep_session"] = weakref.ref(attach(self, place))
            except Exception:
                place.report()
        return result

    @functools.wraps(stepwise)
    def execute_stepwise(self: Any, scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
        reference = self.__dict__.get("_sweep_session")
        session = reference() if reference is not None else None
        if session is None:
            return stepwise(self, scheduler_output, *args, **kwargs)
        new = [str(request.request_id) for request in scheduler_output.scheduled_new_reqs]
        if session.thread is None:
            session.begin(new, new == [DUMMY], stepwise=True)
        else:
            session.requests += new
        try:
            output = stepwise(self, scheduler_output, *args, **kwargs)
        except BaseException:
            session.fail()
            raise
        if not self.state_cache:
            session.finish()
        return output

    load_model.observed_by_sweep = True  # type: ignore[attr-defined]
    cls.load_model, cls.execute_stepwise = load_model, execute_stepwise
    return names
