"""What differs at run time between the versions of vLLM-Omni, behind one adapter; nothing else checks the version.

Written against 0.26.0 and 0.30.0. vllm_omni is imported only inside methods. `options.py` knows the names of options,
`profiling/vllm_plugin` what is wrapped inside its processes.
"""

import contextlib
import copy
import dataclasses
import functools
import importlib
import importlib.metadata
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class StageTimes:
    """What vLLM-Omni measured of one request in one stage; None where it did not (log_stats=True is needed)."""

    tokens_out: int | None
    ttft_ms: float | None  # AR stages: from when vLLM-Omni received the request to the first token
    tpot_ms: float | None  # AR stages: (last token - first) / (tokens - 1); output_processor.py of vLLM-Omni


@dataclass(frozen=True)
class Generated:
    """The result of one prompt."""

    images: tuple["Image.Image", ...] = ()
    error: str = ""
    stages: tuple[StageTimes, ...] = ()  # in the order of the stages
    given_ms: float = 0.0  # from when all prompts were handed over until vLLM-Omni received this one

    @property
    def ar_stage(self) -> StageTimes | None:
        """The first stage that wrote tokens."""
        return next((stage for stage in self.stages if stage.tokens_out), None)

    @property
    def ttft_ms(self) -> float | None:
        """Time from when all prompts were handed over to the first AR token of this one."""
        ttft_ms = self.ar_stage.ttft_ms if self.ar_stage else None
        return None if ttft_ms is None else self.given_ms + ttft_ms

    @property
    def tpot_ms(self) -> float | None:
        """Time per AR token after the first."""
        return self.ar_stage.tpot_ms if self.ar_stage else None

    @property
    def output_tokens(self) -> int | None:
        """Tokens that the AR stage wrote."""
        return self.ar_stage.tokens_out if self.ar_stage else None


@dataclass(frozen=True)
class Version:
    """One version of vLLM-Omni, as the engine uses it. What all versions have in common; the rest below."""

    name: str  # as installed: 0.26.0
    warning: str = ""  # one sentence when it is not one of the versions that this was written against

    def omni_class(self) -> Any:
        """`Omni`; imports vllm_omni, which takes seconds."""
        return importlib.import_module("vllm_omni.entrypoints.omni").Omni

    def constructor(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """`arguments` of Omni, or of a stage, by the names that this version reads."""
        return dict(arguments)

    def dit_in_caller(self, stages: int, dit_gpus: int, arguments: Mapping[str, Any]) -> bool:
        """Whether the DiT runs in the process that calls Omni, and not in workers of its own."""
        raise NotImplementedError

    def layers(self, output: Any) -> tuple[Any, ...]:
        """An output of `Omni.generate` and the outputs that it wraps."""
        raise NotImplementedError

    def set_batch(self, omni: Any, size: int) -> None:
        """Make a batch start as soon as it holds `size` requests, instead of waiting for more; at most max_num_seqs.

        Does nothing where this process has no scheduler: only that of a single diffusion stage is here.
        """
        engines: list[Any] = [getattr(client, "_engine", None) for client in omni.engine.stage_clients]
        for engine in engines:
            if hasattr(engine, "scheduler") and not engine.dp_concurrent:
                engine.scheduler.max_num_running_reqs = max(1, min(size, int(engine.od_config.max_num_seqs)))

    def generate(self, omni: Any, prompts: Sequence[Any], parameters: Sequence[Sequence[Any]]) -> list[Generated]:
        """Generate all prompts in one call, each with its own sampling parameters (one object per stage).

        Returns them in the order of the prompts, whichever finished first. Raises what vLLM-Omni raises, which has
        then closed its engine.
        """
        if len(prompts) != len(parameters):
            raise ValueError(f"{len(prompts)} prompts with {len(parameters)} lists of sampling parameters")
        began_s = time.perf_counter()
        # Checks what a pipeline requires of its stages' parameters (0.30), and that there is one object per stage.
        resolved = [list(omni.resolve_sampling_params_list(list(own))) for own in parameters]
        with _own_parameters(omni.engine, resolved) as order:
            outputs = omni.generate(list(prompts), list(resolved[0]), use_tqdm=False)
        if len(order) != len(prompts):
            raise RuntimeError(f"vllm-omni {self.name} did not take the sampling parameters of each prompt")
        return [
            dataclasses.replace(
                self.read([output for output in outputs if output.request_id == request_id]),
                given_ms=(given_s - began_s) * 1000,
            )
            for request_id, given_s in order
        ]

    def read(self, outputs: Sequence[Any]) -> Generated:
        """The outputs of one prompt (one per requested stage, the last one final) as our record."""
        layered = [self.layers(output) for output in outputs]
        final = next((layers for layers in reversed(layered) if _first(layers, "images")), (layered or [()])[-1])
        metrics: dict[str, Any] = {}
        for layers in layered:
            reported = _first(layers, "metrics")
            metrics |= (reported.get("stage_metrics") or {}) if isinstance(reported, Mapping) else {}
        return Generated(
            images=tuple(_first(final, "images") or ()),
            error=str(next((error for layers in layered if (error := _first(layers, "error"))), "")),
            stages=tuple(_stage_times(metrics[stage]) for stage in sorted(metrics, key=int)),
        )


class V026(Version):
    """0.26: an output wraps what the last stage put out; the DiT always has worker processes."""

    def dit_in_caller(self, stages: int, dit_gpus: int, arguments: Mapping[str, Any]) -> bool:
        return False

    def layers(self, output: Any) -> tuple[Any, ...]:
        return (output, getattr(output, "request_output", None))


class V030(Version):
    """0.30: outputs are flat; a DiT on one GPU gets no process of its own unless requested."""

    renamed: ClassVar[Mapping[str, str]] = {
        "diffusion_quantization_config": "quantization_config",
        "static_lora_scale": "lora_scale",
    }

    def constructor(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        named = {self.renamed.get(name, name): value for name, value in arguments.items()}
        backend = named.pop("diffusion_attention_backend", None)
        if backend is not None:
            named["diffusion_attention_config"] = {
                "default": {"backend": backend},
                **(named.get("diffusion_attention_config") or {}),
            }
        return named

    def dit_in_caller(self, stages: int, dit_gpus: int, arguments: Mapping[str, Any]) -> bool:
        executor = arguments.get("distributed_executor_backend") or ("uni" if dit_gpus == 1 else "mp")
        return stages == 1 and executor == "uni"

    def layers(self, output: Any) -> tuple[Any, ...]:
        return (output,)


@functools.cache
def adapter(version: str = "") -> Version:
    """The adapter for `version`, by default the installed one. Raises ModuleNotFoundError when there is none."""
    if not version:
        try:
            version = importlib.metadata.version("vllm-omni")
        except importlib.metadata.PackageNotFoundError as error:
            raise ModuleNotFoundError("vllm-omni is not installed in this Python") from error
    release = _release(version)
    chosen, tested = (V026, "0.26") if release <= (0, 28) else (V030, "0.30")
    if release == _release(tested):
        return chosen(version)
    return chosen(version, f"vllm-omni {version} is untested here; treating it as {tested}")


def _release(version: str) -> tuple[int, int]:
    """(major, minor) of `0.30.1rc2`; (0, 0) where it has none."""
    parts = [part for part in version.split(".")[:2] if part.isdigit()]
    return (int(parts[0]), int(parts[1])) if len(parts) == 2 else (0, 0)


@contextlib.contextmanager
def _own_parameters(engine: Any, parameters: Sequence[Sequence[Any]]) -> Iterator[list[tuple[str, float]]]:
    """Within the block, the n-th request that `engine` receives gets the n-th parameters.

    `Omni.generate` has one list of parameters for all its prompts, which then share a seed; it hands them to
    `engine.add_request` prompt by prompt. Yields the id of each request and when it came (time.perf_counter), filled as
    they come.
    """
    order: list[tuple[str, float]] = []
    submit = engine.add_request

    def add_request(*args: Any, sampling_params_list: Sequence[Any], **kwargs: Any) -> Any:
        mine = parameters[len(order)]
        order.append((str(kwargs["request_id"] if "request_id" in kwargs else args[0]), time.perf_counter()))
        own = [_adapted(one, shared) for one, shared in zip(mine, sampling_params_list, strict=True)]
        return submit(*args, sampling_params_list=own, **kwargs)

    engine.add_request = add_request
    try:
        yield order
    finally:
        del engine.add_request


def _adapted(own: Any, shared: Any) -> Any:
    """A copy of `own` that streams as `Omni.generate` decided for `shared` (it wants one output at the end)."""
    own = copy.deepcopy(own)
    if hasattr(shared, "output_kind"):
        own.output_kind = shared.output_kind
    return own


def _first(layers: Sequence[Any], name: str) -> Any:
    """The first value of attribute `name` that says something."""
    return next((value for layer in layers if (value := getattr(layer, name, None))), None)


def _stage_times(reported: Mapping[str, Any]) -> StageTimes:
    return StageTimes(
        tokens_out=reported.get("num_tokens_out") or None,  # 0 is how it says that it did not measure
        ttft_ms=reported.get("vllm_ttft_ms") or None,
        tpot_ms=reported.get("vllm_tpot_ms") or None,
    )
