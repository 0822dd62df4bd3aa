"""Reads back what a loaded vLLM-Omni pipeline really is: its parts, blocks, hooks, shards, groups, layer types.

Only reads; wraps nothing. Uses attributes that vLLM-Omni's classes declare (`_dit_modules`, `_repeated_blocks`…) and
otherwise the structure, so that it can describe unknown models too. Looks up torch and vllm_omni among the modules that
the process has imported; never imports them.
"""

import contextlib
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

Module = Any
"""A torch.nn.Module."""

DITS = ("transformer", "transformer_2", "unet", "dit")
ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3", "mllm")
VAES = ("vae",)
"""Where pipelines that declare nothing keep their parts."""

FALLBACK = "TORCH_SDPA"
"""The back end that vLLM-Omni's attention uses for float32, regardless of the configured one."""

PARALLEL_STATE = "vllm_omni.diffusion.distributed.parallel_state"
VLLM_PARALLEL_STATE = "vllm.distributed.parallel_state"
"""Holds the tensor-parallel group, also in diffusion workers."""

GROUPS = {
    "group_cfg": (PARALLEL_STATE, "get_cfg_group", "world_size"),
    "group_sp": (PARALLEL_STATE, "get_sp_group", "world_size"),
    "group_ulysses": (PARALLEL_STATE, "get_sp_group", "ulysses_world_size"),
    "group_ring": (PARALLEL_STATE, "get_sp_group", "ring_world_size"),
    "group_tp": (VLLM_PARALLEL_STATE, "get_tp_group", "world_size"),
    "group_pp": (PARALLEL_STATE, "get_pp_group", "world_size"),
    "group_dp": (PARALLEL_STATE, "get_dp_group", "world_size"),
    "group_fs": (PARALLEL_STATE, "get_fs_group", "world_size"),
}
"""By setting: the module and its function that return the group, and the group's attribute that is its size."""


@dataclass(frozen=True)
class Described:
    """The facts about a loaded pipeline that do not change from request to request."""

    transformers: tuple[Module, ...]
    encoders: tuple[Module, ...]
    vaes: tuple[Module, ...]
    blocks: tuple["Blocks", ...]  # of each transformer; empty ones where they cannot be seen running
    attention: tuple[Module, ...]  # attention layers whose calls can be counted
    parameters: tuple[Any, ...]  # of the whole pipeline
    held: int  # elements of all parameters of the pipeline, on any device
    dit_parameters: int
    backends: Counter[str]  # attention layers by the back end that they are set up to run
    settings: dict[str, str]
    counts: dict[str, int]


def describe(pipeline: Module) -> Described:
    """Read a pipeline after loading and before any part of it is wrapped."""
    transformers = parts(pipeline, "_dit_modules", DITS)
    setup = compiled(transformers)
    found = tuple(blocks(transformer) for transformer in transformers)
    hidden = setup.kind == "full"  # one graph: blocks are no longer called
    layers = attention_layers(transformers)
    numbers = dtype(transformers[0]) if transformers else "unknown"
    methods = quantized(pipeline)
    kernel = flash_kernel() if any(backend_name(layer).startswith("FLASH_ATTN") for layer in layers) else None
    settings = {
        "pipeline": type(pipeline).__name__,
        "dtype": numbers,
        "dit_blocks": "unknown" if hidden else str(sum(one.count for one in found)),
        "hooks": hook_names(transformers),
        "compiled": setup.kind,
        "quantization": ",".join(f"{name}:{count}" for name, count in sorted(methods.items())) or "none",
        **({"flash_kernel": kernel} if kernel else {}),
        **groups(),
    }
    return Described(
        transformers=transformers,
        encoders=parts(pipeline, "_encoder_modules", ENCODERS),
        vaes=parts(pipeline, "_vae_modules", VAES),
        blocks=tuple(Blocks((), ()) for _ in found) if hidden else found,
        attention=layers if setup.kind == "none" else (),
        parameters=tuple(pipeline.parameters()),
        held=held(pipeline),
        dit_parameters=sum(held(transformer) for transformer in transformers),
        backends=Counter(resolved_backend(layer, numbers) for layer in layers),
        settings=settings,
        counts={
            "quantized_layers": methods.total(),
            "compiled_modules": setup.modules,
            "whole_model_compiled": int(hidden),
        },
    )


def visible_gpu() -> str:
    """The current device of this process as CUDA_VISIBLE_DEVICES names it; "" where there is none."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return ""
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    number = torch.cuda.current_device()
    return named[number] if number < len(named) else str(number)


@dataclass(frozen=True)
class Blocks:
    """The repeated blocks of one transformer, in lists as the model holds them."""

    lists: tuple[tuple[Module, ...], ...]
    main: tuple[Module, ...]  # first block of each list that holds the image's own blocks, not a refiner's

    @property
    def count(self) -> int:
        """Blocks that one full forward runs."""
        return sum(len(blocks) for blocks in self.lists)


def parts(pipeline: Module, declared: str, usual: Iterable[str]) -> tuple[Module, ...]:
    """The modules that the pipeline declares in attribute `declared`, or else has under a usual name; outermost."""
    names = getattr(pipeline, declared, None) or usual
    found: list[Module] = []
    for name in names:
        part = pipeline
        for step in name.split("."):
            part = getattr(part, step, None)
        if callable(getattr(part, "named_modules", None)) and not any(part is other for other in found):
            found.append(part)
    return tuple(part for part in found if not any(_contains(other, part) for other in found if other is not part))


def _contains(outer: Module, inner: Module) -> bool:
    return any(module is inner for module in outer.modules())


def blocks(transformer: Module) -> Blocks:
    """The transformer's repeated blocks: those of the classes in `_repeated_blocks` and of the lists in
    `_layerwise_offload_blocks_attrs`; without either, the list of alike modules with the most parameters."""
    classes = set(getattr(transformer, "_repeated_blocks", None) or ())
    old = getattr(transformer, "_layerwise_offload_blocks_attr", None)
    names = getattr(transformer, "_layerwise_offload_blocks_attrs", None) or ([old] if isinstance(old, str) else [])
    named = [getattr(transformer, name, None) for name in names]
    found: list[tuple[Module, ...]] = []
    main: list[Module] = []
    for container in _lists(transformer):
        is_named = any(container is other for other in named)
        chosen = tuple(m for m in container if is_named or classes & {c.__name__ for c in type(m).__mro__})
        if chosen and not any(_contains(block, chosen[0]) for group in found for block in group):
            found.append(chosen)
            if is_named or not names:
                main.append(chosen[0])
    if not found:
        alike = [tuple(c) for c in _lists(transformer) if len(c) > 1 and len({type(m) for m in c}) == 1]
        found = sorted(alike, key=lambda group: -sum(held(m) for m in group))[:1]
    return Blocks(tuple(found), tuple(main or [group[0] for group in found]))


def _lists(transformer: Module) -> Iterator[Module]:
    """All ModuleLists that are not empty, outer ones first."""
    for module in transformer.modules():
        if type(module).__name__ == "ModuleList" and len(module):
            yield module


def held(module: Module) -> int:
    """Elements of the module's parameters that this rank holds: a shard counts as its own size, and what
    layerwise offload keeps in flat CPU buffers counts too."""
    count = sum(_local(parameter).numel() for parameter in module.parameters())
    for hook in _hooks(module):
        target = getattr(hook, "next_block_parameters", None)
        metadata = getattr(hook, "dtype_metadata", None)
        if isinstance(target, dict) and isinstance(metadata, dict):
            entries = [entry for rows in metadata.values() for entry in rows]
            absent = {name for name, parameter in target.items() if not _local(parameter).numel()}
            count += sum(entry["numel"] for entry in entries if entry["name"] in absent)
    return count


def resident(parameters: Iterable[Any], device: str) -> int:
    """Elements of `parameters` that lie on a device of type `device` now."""
    count = 0
    for parameter in parameters:
        local = getattr(parameter, "_local_tensor", parameter)
        if local.device.type == device:
            count += local.numel()
    return count


def _local(parameter: Any) -> Any:
    """The shard of this rank for a DTensor, else the parameter itself."""
    return getattr(parameter, "_local_tensor", parameter)


def _hooks(module: Module) -> Iterator[Any]:
    """Hooks in vLLM-Omni's registries of the module and all inside it."""
    for inner in module.modules():
        yield from getattr(getattr(inner, "_hook_registry", None), "_hooks", {}).values()


def hook_names(modules: Iterable[Module]) -> str:
    """Names in vLLM-Omni's hook registries, and "cache_dit" where cache-dit patched a transformer."""
    names: set[str] = set()
    for module in modules:
        for inner in module.modules():
            names.update(getattr(getattr(inner, "_hook_registry", None), "_hooks", {}))
        if getattr(module, "_is_cached", False):
            names.add("cache_dit")
    return "+".join(sorted(names)) or "none"


@dataclass(frozen=True)
class Compiled:
    """What torch.compile was set up for; it compiles at the first call."""

    kind: str  # none, regional, full
    modules: int


def compiled(transformers: Sequence[Module]) -> Compiled:
    """Call it before anything is wrapped: `full` shows in `_compiled_call_impl`."""
    whole = sum(1 for transformer in transformers if transformer._compiled_call_impl is not None)
    inside = 0
    for transformer in transformers:
        for module in transformer.modules():
            own = vars(module)
            forwards = (own.get("forward"), own.get("_omni_original_forward"))
            inside += any(hasattr(forward, "_torchdynamo_orig_callable") for forward in forwards)
    return Compiled("full" if whole else "regional" if inside else "none", whole + inside)


def compiled_graphs() -> int | None:
    """Graphs that torch.compile has compiled in this process; None where it was never imported."""
    utils = sys.modules.get("torch._dynamo.utils")
    return None if utils is None else int(utils.counters["stats"]["unique_graphs"])


def quantized(pipeline: Module) -> Counter[str]:
    """Quantised layers by the class of their method."""
    found: Counter[str] = Counter()
    for module in pipeline.modules():
        method = type(getattr(module, "quant_method", None)).__name__
        if method != "NoneType" and not method.startswith("Unquantized"):
            found[method] += 1
    return found


def attention_layers(transformers: Iterable[Module]) -> tuple[Module, ...]:
    """vLLM-Omni's attention layers."""
    return tuple(
        module
        for transformer in transformers
        for module in transformer.modules()
        if hasattr(module, "attn_impl_cls") and hasattr(module, "attention")
    )


def backend_name(layer: Module) -> str:
    """The back end that the layer chose, by the name that selects it in vLLM-Omni, e.g. FLASH_ATTN."""
    backend = getattr(layer, "attn_backend", None)
    if backend is None:  # a kernel of the model's own
        return type(layer.attention).__name__
    registry = sys.modules.get("vllm_omni.diffusion.attention.backends.registry")
    for member in getattr(registry, "DiffusionAttentionBackendEnum", ()):
        if member.get_path() == f"{backend.__module__}.{backend.__qualname__}":
            return str(member.name)
    return str(backend.get_name())


def resolved_backend(layer: Module, dtype: str) -> str:
    """What the layer's forward runs, decided from its state as its own code does: ring, float32, else its own."""
    if getattr(layer, "use_ring", False) and not getattr(layer, "skip_sequence_parallel", False):
        return f"RING({backend_name(layer)})"
    if dtype == "float32" and getattr(layer, "sdpa_fallback", None) is not None:
        return FALLBACK
    return backend_name(layer)


def adapted_layers(modules: Iterable[Module]) -> tuple[Module, ...]:
    """vLLM-Omni's layers that hold a LoRA adapter, whether it is active or not."""
    inner = (layer for module in modules for layer in module.modules())
    return tuple(layer for layer in inner if "_diffusion_lora_active_slices" in vars(layer))


def is_adapted(layer: Module) -> bool:
    """Whether such a layer adds its adapter's product, decided from its state as its own code does."""
    return any(layer._diffusion_lora_active_slices)


def backends(calls: Iterable[str]) -> str:
    """The back ends among what ran, ring or not, e.g. FLASH_ATTN for RING(FLASH_ATTN)."""
    return "+".join(sorted({name.removeprefix("RING(").removesuffix(")") for name in calls})) or "unknown"


def flash_kernel() -> str | None:
    """Where vLLM-Omni's flash attention comes from, e.g. fa3_fwd_interface; None where it has none."""
    module = sys.modules.get("vllm_omni.diffusion.attention.backends.utils.fa")
    function = getattr(module, "flash_attn_func", None) or getattr(module, "flash_attn_varlen_func", None)
    return None if function is None else str(getattr(function, "__module__", type(function).__name__))


def groups() -> dict[str, str]:
    """Sizes of the process groups as vLLM-Omni holds them; those that do not exist are left out."""
    sizes: dict[str, str] = {}
    for setting, (module, function, attribute) in GROUPS.items():
        with contextlib.suppress(AttributeError, AssertionError):
            sizes[setting] = str(getattr(getattr(sys.modules.get(module), function)(), attribute))
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        sizes["world"] = str(distributed.get_world_size())
    return sizes


def rank() -> int:
    """This process's rank; 0 without torch.distributed."""
    distributed = sys.modules.get("torch.distributed")
    ready = distributed is not None and distributed.is_available() and distributed.is_initialized()
    return int(distributed.get_rank()) if ready and distributed is not None else 0


def dtype(module: Module) -> str:
    """Type of the module's floating-point parameters: the most frequent by elements, without quantised ones."""
    sizes: Counter[str] = Counter()
    for parameter in module.parameters():
        name = str(parameter.dtype).removeprefix("torch.")
        if "float" in name and "float8" not in name:
            sizes[name] += parameter.numel()
    return sizes.most_common(1)[0][0] if sizes else "unknown"
