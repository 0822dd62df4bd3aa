"""DiffusersEngine: one diffusers pipeline on one or more ranks, with features that really engage.

Every rank loads the same pipeline and runs the same call; features make ranks share the DiT's work. Rank 0
is the calling process, the only one that runs the AR stage and that decodes and stores images. Knows
nothing of cells or verdicts; imports torch, so import it only in an engine's process.
"""

import functools
import hashlib
import importlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from profiling import instrument
from profiling.evidence import RankEvidence
from profiling.phases import PhaseRecord, PhaseRecorder
from profiling.torch_trace import TRACE_FILE, TorchTrace
from sweep.engines import lora_files
from sweep.engines.diffusers import ar_sampling, picture_processor, ranks
from sweep.engines.diffusers.adapters import make_adapter, quiet_libraries
from sweep.engines.diffusers.attention_counters import AttentionCounters
from sweep.engines.diffusers.block_counters import BlockCounters
from sweep.engines.diffusers.decoded_images import DecodedImages
from sweep.engines.diffusers.families import FEATURES, FORWARD_FEATURES, REFINING
from sweep.engines.diffusers.features import cfg_parallel, method_call
from sweep.engines.diffusers.hand_over import HandOver, Tokens, with_hand_over
from sweep.engines.diffusers.rank_context import MESH_DIMS, RankContext, mesh_shape
from sweep.engines.diffusers.step_clock import StepClock
from sweep.engines.diffusers.tiny_models.checkpoints import ensure_checkpoint
from sweep.engines.images import fault_of, store
from sweep.engines.protocol import NO_TEXT, EngineSpec, Output, Request, Writing

TRACE_TIMEOUT_S = 900.0  # for the other ranks to write theirs
LOAD_TIMEOUT_S = 600.0  # for the other ranks to load; the host's own watchdog is stricter


@dataclass(frozen=True)
class Batch:
    """What every rank generates: requests, and their prompts as fitted to `prompt_tokens`."""

    requests: tuple[Request, ...]
    prompts: tuple[str, ...]
    epoch_s: float  # time.perf_counter that all ranks count from; the clock is the machine's, not the process's


@dataclass(frozen=True)
class Trace:
    """A command to every rank: record the next batch into `folder`; or, without one, write the trace there."""

    folder: Path | None


@dataclass(frozen=True)
class RankResult:
    """What one rank returns after one batch. `images` only from rank 0."""

    latency_s: float
    start_s: float  # time.perf_counter
    output_tokens: int
    phases: tuple[PhaseRecord, ...]
    evidence: RankEvidence
    tokens: Tokens
    images: tuple[Image.Image, ...] = ()
    finite: tuple[bool, ...] = ()  # per image, whether the values that it was made from are finite


class RankRunner:
    """The pipeline of one rank with all features applied. Built in the rank's own process."""

    def __init__(self, place: ranks.RankPlace, spec: EngineSpec) -> None:
        ranks.join(place)
        quiet_libraries()
        from torch.distributed.device_mesh import init_device_mesh

        device = torch.device(place.device)
        self.place, self.spec = place, spec
        self.pipe = load_pipeline(spec.checkpoint, getattr(torch, spec.dtype)).to(device)
        self.pipe.set_progress_bar_config(disable=True)
        self.adapter = make_adapter(spec.family, self.pipe, spec.embedded)
        self.hand_over = HandOver(self.pipe, self.adapter.is_branch)
        self.clock = StepClock()
        self.cfg_active = False
        self.trace: TorchTrace | None = None
        shape = mesh_shape(spec.features)
        self.context = RankContext(
            rank=place.rank,
            ranks=place.ranks,
            device=device,
            mesh=init_device_mesh(device.type, shape, mesh_dim_names=MESH_DIMS) if place.ranks > 1 else None,
            clock=self.clock,
            cfg_active=lambda: self.cfg_active,
        )
        self.sampling = dict(spec.stages.get("ar", {}))
        if self.sampling:
            ar_sampling.apply(self.pipe.vision_language_encoder, self.sampling)
        transformer = self.pipe.transformer
        for arguments in self.switches().values():
            method_call.apply(self.pipe, arguments)
        self.counters = BlockCounters(transformer, self.clock)  # innermost
        for name, module in FORWARD_FEATURES.items():
            if name in spec.features:
                _apply(module)(self.pipe, self.context, self.arguments_of(name))
        self.counters.count_forwards(transformer)
        self.attention = AttentionCounters(self.clock)
        self.decoded = DecodedImages(self.pipe)
        count_calls(self.pipe.text_encoder, "text_encoder_calls", self.context)
        self.recorder = PhaseRecorder(place.rank, device.type)
        instrument.attach(self.pipe, self.recorder)
        self.adapter.share_ar(self.context)  # around the recorder: ranks that wait for tokens record no AR phase
        if "cfg_parallel" in spec.features:
            cfg_parallel.apply(self.pipe, self.context, dict(spec.features["cfg_parallel"]))
        self.clock.attach(self.pipe, self.adapter.is_branch)  # outermost: sees every call of the pipeline
        self.settings = {
            "pipeline": type(self.pipe).__name__,
            "dtype": str(transformer.dtype).removeprefix("torch."),
            "device": place.device,
            "dit_blocks": str(self.counters.blocks),
            **{f"mesh_{dim}": str(size) for dim, size in zip(MESH_DIMS, shape, strict=True)},
        }

    def switches(self) -> dict[str, dict[str, Any]]:
        """Features that are a method call on the pipeline."""
        return {name: arguments for name, arguments in self.spec.features.items() if "call" in arguments}

    def arguments_of(self, name: str) -> dict[str, Any]:
        """The arguments of a feature and of the features that refine it."""
        refining = (other for other, refined in REFINING.items() if refined == name)
        given = [self.spec.features[one] for one in (name, *refining) if one in self.spec.features]
        return {key: value for arguments in given for key, value in arguments.items()}

    def run(self, command: Batch | Trace) -> RankResult | None:
        """Carry out a command."""
        if isinstance(command, Batch):
            return self.generate(command)
        trace, self.trace = self.trace, None
        if command.folder is not None:
            self.trace = TorchTrace(command.folder / TRACE_FILE.format(name=f"rank{self.place.rank}"))
        elif trace is not None:
            trace.write()
        return None

    def generate(self, command: Batch) -> RankResult:
        """Generate one batch."""
        requests = command.requests
        first = requests[0]
        arguments = self.adapter.shared_arguments(requests, command.prompts)
        # Only rank 0 hands out images, so only rank 0 decodes them.
        arguments["output_type"] = "pil" if self.place.rank == 0 else "latent"
        self.clock.reset(first.steps)
        self.counters.reset()
        self.attention.reset()
        self.context.counts.clear()
        self.hand_over.reset()
        self.recorder.abort()  # what a failed request left open
        self.recorder.take()
        self.recorder.epoch = command.epoch_s
        self.cfg_active = self.adapter.cfg_active(requests)
        start = time.perf_counter()
        with self.recorder.phase("request"):
            images = self.pipe(**arguments).images
        latency = time.perf_counter() - start
        if self.trace is not None:
            self.trace.pause()  # one batch is enough, and several make a file that no viewer opens
        return RankResult(
            latency_s=latency,
            start_s=start,
            output_tokens=self.adapter.output_tokens(),
            phases=tuple(replace(record, request_id=first.request_id) for record in self.recorder.take()),
            evidence=self.evidence(self.adapter.cut(command.prompts)),
            tokens=self.hand_over.tokens(requests),
            images=tuple(images) if self.place.rank == 0 else (),
            finite=self.decoded.finite(len(images)) if self.place.rank == 0 else (),
        )

    def evidence(self, prompts_cut: int) -> RankEvidence:
        """What this rank executed since the request began, and how many prompts were longer than the model reads."""
        cut = {"prompts_cut": prompts_cut} if prompts_cut else {}
        return RankEvidence(
            rank=self.place.rank,
            dit_forwards=self.counters.forwards,
            denoise_steps=self.clock.step,
            blocks_run=self.counters.blocks_run,
            blocks_skipped=self.counters.blocks_skipped,
            block_sequence=self.counters.image_sequence,
            dit_parameters=sum(local_size(parameter) for parameter in self.pipe.transformer.parameters()),
            settings={
                **self.settings,
                "attention_backend": self.attention.describe(),
                **{name: method_call.read_back(self.pipe, arguments) for name, arguments in self.switches().items()},
                **(ar_sampling.read_back(self.pipe.vision_language_encoder, self.sampling) if self.sampling else {}),
            },
            counts={"text_encoder_calls": 0, **self.context.counts, **cut},
        )


class DiffusersEngine:
    """Implements sweep.engines.protocol.Engine for the families that adapters.py knows."""

    def __init__(self, spec: EngineSpec) -> None:
        self.spec = spec
        self._runner: RankRunner | None = None
        self._processes: ranks.RankProcesses | None = None
        self._epoch_s = 0.0
        self.alive = True

    def load(self) -> None:
        """Build the checkpoint if embedded, start the other ranks, load every pipeline.

        Raises RankError, ValueError or FileNotFoundError.
        """
        unknown = [name for name, given in self.spec.features.items() if name not in FEATURES and "call" not in given]
        if unknown:
            raise ValueError(f"the diffusers engine has no module for {', '.join(sorted(unknown))}")
        needed = math.prod(mesh_shape(self.spec.features))
        if needed != self.spec.ranks:
            raise ValueError(f"features {sorted(self.spec.features)} need {needed} ranks, got {self.spec.ranks}")
        quiet_libraries()
        checkpoint = ensure_checkpoint(self.spec.model) if self.spec.embedded else Path(self.spec.checkpoint)
        if not (checkpoint / "model_index.json").is_file():
            raise FileNotFoundError(f"no diffusers checkpoint at '{checkpoint}' (model_index.json is missing)")
        if "lora" in self.spec.features:
            lora_files.check(self.spec.features["lora"], checkpoint)
        spec = replace(self.spec, checkpoint=str(checkpoint))
        self._processes = ranks.RankProcesses(spec.ranks)
        places = [self._place(rank) for rank in range(spec.ranks)]
        try:
            self._processes.start(RankRunner, places[1:], spec)
            self._runner = RankRunner(places[0], spec)
            self._processes.receive(LOAD_TIMEOUT_S)
        except BaseException as error:
            blamed = self._blame(error)
            self.close()
            if blamed is not None:
                raise blamed from error
            raise
        self._epoch_s = time.perf_counter()

    def generate(self, requests: Sequence[Request], folder: Path | None) -> Output:
        """Generate all requests at once. Raises RankError naming the rank when one of several fails."""
        check_batch(requests)
        if self._runner is None or self._processes is None:
            raise RuntimeError("generate called before load")
        adapter = self._runner.adapter
        prompts = [adapter.fit_prompt(request) for request in requests]
        for request, prompt in zip(requests, prompts, strict=True):
            if why := adapter.too_long(request, prompt):
                raise ValueError(why)
        command = Batch(tuple(requests), tuple(prompts), self._epoch_s)
        try:
            self._processes.send(command)
            own = self._runner.run(command)
            others: list[RankResult] = self._processes.receive(self.spec.collective_timeout_s)
        except BaseException as error:
            self.alive = self.spec.ranks == 1  # with several, the others wait in a collective or are gone
            blamed = self._blame(error)
            if blamed is not None:
                raise blamed from error
            raise
        assert own is not None
        results = [own, *others]
        return Output(
            request_ids=tuple(request.request_id for request in requests),
            start_s=own.start_s - self._epoch_s,
            latency_s=own.latency_s,
            image_paths=tuple(
                store(image, request, folder) for image, request in zip(own.images, requests, strict=True)
            ),
            image_hashes=tuple(hashlib.sha256(image.tobytes()).hexdigest() for image in own.images),
            output_tokens=own.output_tokens,
            prompt_tokens=tuple(adapter.count_tokens(prompt) for prompt in prompts),
            phases=tuple(record for result in results for record in result.phases),
            image_faults=tuple(map(fault_of, own.images, (r.size for r in requests), own.finite)),
            evidence=tuple(with_hand_over(r.evidence, own.tokens.written, r.tokens.received) for r in results),
            image_tokens=own.tokens.kept,
            epoch_s=self._epoch_s,
        )

    def refusal(self, request: Request) -> str:
        """As sweep.engines.protocol.Writes."""
        if self._runner is None:
            return NO_TEXT
        if self.spec.ranks > 1:
            return f"a text is written on one device, and this engine has {self.spec.ranks}"
        return self._runner.adapter.refusal(request)

    def write(self, request: Request) -> Writing:
        """As sweep.engines.protocol.Writes: the AR stage's tokens, as text."""
        if self._runner is None:
            raise RuntimeError("write called before load")
        return self._runner.adapter.write(request)

    def trace(self, folder: Path | None) -> None:
        """As sweep.engines.protocol.Traced: one trace per rank."""
        if self._runner is None or self._processes is None:
            raise RuntimeError("trace called before load")
        self._processes.send(Trace(folder))
        try:
            self._runner.run(Trace(folder))
        finally:
            self._processes.receive(TRACE_TIMEOUT_S)

    def close(self) -> None:
        """End the other ranks and free the pipeline; safe to call twice."""
        if self._processes is not None:
            self._processes.close()
        self._processes = self._runner = None
        ranks.leave()
        if self.spec.device == "cuda":
            torch.cuda.empty_cache()

    def _place(self, rank: int) -> ranks.RankPlace:
        assert self._processes is not None
        return ranks.RankPlace(
            rank=rank,
            ranks=self.spec.ranks,
            rendezvous=self._processes.rendezvous,
            device=f"cuda:{rank}" if self.spec.device == "cuda" else "cpu",
            threads=self.spec.threads_per_rank,
            timeout_s=self.spec.collective_timeout_s,
        )

    def _blame(self, error: BaseException) -> BaseException | None:
        """The other rank's error behind rank 0's, or None."""
        if self._processes is None or isinstance(error, ranks.RankError):
            return None
        blamed = self._processes.blame()
        if blamed is None and self.spec.ranks > 1 and isinstance(error, Exception):
            return ranks.RankError(f"rank 0 of {self.spec.ranks} failed: {type(error).__name__}: {error}")
        return blamed


def load_pipeline(checkpoint: str, dtype: torch.dtype) -> Any:
    """The pipeline of the checkpoint's own class, on the CPU, with all its parts in `dtype`.

    Before 0.40, diffusers called the argument torch_dtype; it silently drops unknown names.
    """
    from diffusers.pipelines import pipeline_utils

    name = "dtype" if hasattr(pipeline_utils, "_resolve_dtype") else "torch_dtype"
    given = {name: dtype, **picture_processor.replacement(Path(checkpoint))}
    pipe = pipeline_utils.DiffusionPipeline.from_pretrained(checkpoint, **given, local_files_only=True)
    wrong = {part: found.dtype for part, found in pipe.components.items() if getattr(found, "dtype", dtype) != dtype}
    if wrong:
        raise RuntimeError(f"diffusers loaded parts of {checkpoint} with a dtype other than {dtype}: {wrong}")
    return pipe


def _apply(module: str) -> Callable[[Any, RankContext, dict[str, Any]], None]:
    """The `apply` of the module that implements a feature. Imported only when it is used."""
    found: Callable[[Any, RankContext, dict[str, Any]], None] = importlib.import_module(
        f"sweep.engines.diffusers.features.{module}"
    ).apply
    return found


def count_calls(module: torch.nn.Module, name: str, context: RankContext) -> None:
    """Count calls of a part of the pipeline, 0 included."""
    forward = module.forward

    @functools.wraps(forward)
    def counted(*args: Any, **kwargs: Any) -> Any:
        context.counts[name] += 1
        return forward(*args, **kwargs)

    module.forward = counted


def local_size(parameter: torch.Tensor) -> int:
    """Elements of `parameter` that this rank holds; of a sharded one, its shard."""
    local = getattr(parameter, "to_local", None)
    return (local() if local is not None else parameter).numel()


def check_batch(requests: Sequence[Request]) -> None:
    """Raise ValueError unless the requests can be one pipeline call."""
    if not requests:
        raise ValueError("no request to generate")
    shapes = {
        (r.size, r.input_size, r.steps, r.guidance_scale, len(r.images), r.mask is None, r.negative_prompt is None)
        for r in requests
    }
    if len(shapes) > 1:
        raise ValueError("requests of one batch must agree in sizes, steps, guidance, task and number of pictures")
