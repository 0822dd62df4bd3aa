"""Which options the installed vLLM-Omni honours, read from its source before anything is imported.

0.26 silently drops an unknown keyword of `Omni`, and also known ones that the start of a model does not pass on. 0.30
raises for most unknown ones, minutes later, and drops the rest. A dropped option would measure a second baseline, so
everything that is dropped counts as unknown here. Knows names only, nothing of features or requests.
"""

import difflib
import functools
import importlib.util
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sweep.engines.vllm_omni.option_source import (
    Source,
    attributes,
    compared,
    looked_up,
    parameters,
    spelled,
    spelled_flags,
)
from sweep.refusals import nearest

Place = Literal["omni", "ar_stage", "dit_stage", "sampling"]

DATA = "diffusion/data.py"
ARGUMENTS = "engine/arg_utils.py"
STAGES = "config/stage_config.py"
CONFIG = "config/omni_config.py"
CLIENT = "entrypoints/omni_base.py"
SERVE = "entrypoints/cli/serve.py"
ATTENTION = "diffusion/attention/backends/registry.py"

IDENTITY = frozenset({"model", "model_arch", "stage_id"})  # not options: which model, which stage
INTERNAL = frozenset({"transfer_emitter", "prom_metrics", "client_config"})  # passed between vLLM-Omni's own classes
NO_EFFECT = frozenset({"diffusion_batch_size", "stage_configs"})  # 0.26 reads and logs them, and does nothing else
PLACEMENT = frozenset({"devices", "num_replicas", "env"})
OF_A_PIPELINE = frozenset({"deploy_config", "stage_configs_path", "strategy_config", "tokenizer"})
MAPPINGS = frozenset(
    {
        "additional_config",
        "custom_pipeline_args",
        "diffusers_call_kwargs",
        "diffusers_load_kwargs",
        "diffusion_attention_config",
        "diffusion_offload_config",
        "model_config",
        "profiler_config",
        "stage_overrides",
    }
)
"""Options that hold options, in addition to parallel_config and cache_config."""


@dataclass(frozen=True)
class Accepted:
    """Names that one version of vLLM-Omni honours for a model with a given number of stages."""

    version: str
    stages: int
    omni: frozenset[str] = frozenset()  # keywords of Omni(model, …); for several stages also stage_<N>_<key>
    parallel: frozenset[str] = frozenset()  # keys of parallel_config
    cache: frozenset[str] = frozenset()  # keys of cache_config, for any cache_backend
    sampling: frozenset[str] = frozenset()  # fields of OmniDiffusionSamplingParams
    ar_stage: frozenset[str] = frozenset()  # keys of an AR stage in a deploy file
    dit_stage: frozenset[str] = frozenset()  # keys of a diffusion stage in a deploy file
    flags: frozenset[str] = frozenset()  # of `vllm serve --omni`: as keywords, and as they are where those differ
    attention: frozenset[str] = frozenset()  # back ends of the DiT's attention
    caches: Mapping[str, frozenset[str]] = field(default_factory=dict)  # cache_backend -> keys that it reads
    silent: bool = True  # unknown keywords of Omni are silently dropped
    unreadable: str = ""  # why the source could not be read; then nothing is refused


@dataclass(frozen=True)
class _Names:
    """Names in one version's source, before they are combined for a number of stages."""

    simple: frozenset[str]  # keywords of a model of one diffusion stage that is not registered as a pipeline
    common: frozenset[str]  # keywords of a pipeline that belong to no stage
    every_stage: frozenset[str]  # keywords of a pipeline that each of its stages receives
    to_ar: frozenset[str]  # <key> of stage_<N>_<key>, for an AR stage
    to_dit: frozenset[str]  # the same for the diffusion stage
    ar_stage: frozenset[str]
    dit_stage: frozenset[str]


def installed(stages: int, *, pipeline: bool | None = None) -> Accepted:
    """`accepted` of the installed packages, found without importing them. Raises ModuleNotFoundError."""
    folder = _package("vllm_omni")
    if folder is None:
        raise ModuleNotFoundError("vllm-omni is not installed in this Python")
    return accepted(folder, stages, pipeline=pipeline, vllm=_package("vllm"))


@functools.cache
def accepted(package: Path, stages: int, *, pipeline: bool | None = None, vllm: Path | None = None) -> Accepted:
    """Names that the vLLM-Omni in folder `package` honours for a model of `stages` stages.

    `pipeline`: whether vLLM-Omni starts the model from a registered pipeline, as it does every model of several
    stages (the default) and one of one stage when a deploy_config names it; the last stage is the diffusion stage.
    `vllm`: folder of the vllm package, whose EngineArgs an AR stage takes too; without it only those that vLLM-Omni
    itself names are known.
    """
    source = Source(package)
    version = _version(source)
    has_resolver = (package / "config/resolver.py").is_file()  # added together with the refusal of unknown names
    try:
        engine_args = Source(vllm).fields(ARGUMENTS, "EngineArgs") if vllm else frozenset[str]()
        names = (_read_030 if has_resolver else _read_026)(source, engine_args)
        cache = source.fields(DATA, "DiffusionCacheConfig")
        omni = names.simple
        if stages > 1 if pipeline is None else pipeline:
            to_ar = {f"stage_{stage}_{name}" for stage in range(stages - 1) for name in names.to_ar}
            to_dit = {f"stage_{stages - 1}_{name}" for name in names.to_dit}
            omni = names.common | names.every_stage | to_ar | to_dit
        return Accepted(
            version=version,
            stages=stages,
            omni=omni,
            parallel=source.fields(DATA, "DiffusionParallelConfig"),
            cache=cache,
            sampling=source.fields("inputs/data.py", "OmniDiffusionSamplingParams"),
            ar_stage=names.ar_stage,
            dit_stage=names.dit_stage,
            flags=flags(source) | engine_args,
            attention=source.members(ATTENTION, "DiffusionAttentionBackendEnum"),
            caches=_caches(source, cache),
            silent=not has_resolver,
        )
    except (LookupError, SyntaxError) as error:
        return Accepted(version, stages, unreadable=str(error))


def refuse_unknown(
    arguments: Mapping[str, Any], accepted: Accepted, place: Place = "omni", where: str = "engine.args"
) -> str:
    """Why `arguments` cannot be given to vLLM-Omni as they are, in one line; '' when they can.

    `place`: keywords of Omni, a stage of a deploy file, or diffusion sampling parameters.
    """
    if accepted.unreadable:
        return ""
    names: frozenset[str] = getattr(accepted, place)
    for name in arguments:
        if name not in names:
            return _unknown(f"{where}.{name}", name, names, accepted)
    for name, value in arguments.items():
        key = _unscoped(name, accepted.stages)
        backend = arguments.get(f"{name.removesuffix(key)}cache_backend")
        if why := _unfit(f"{where}.{name}", key, value, backend, accepted):
            return why
    if place == "omni" and arguments.get("parallel_config") is not None:
        for name in sorted(accepted.parallel & set(arguments)):
            return f"{where}.{name}: vllm-omni ignores it when parallel_config is set; write it inside parallel_config"
    if place == "omni" and arguments.get("cache_config") and arguments.get("cache_backend") in (None, "none"):
        return f"{where}.cache_config: has no effect without cache_backend"
    return ""


def _unfit(where: str, key: str, value: Any, backend: Any, accepted: Accepted) -> str:
    """Why the value of option `key` is refused, or ''."""
    if key == "cache_backend" and value not in (None, "none", *accepted.caches):
        choices = ", ".join(sorted(accepted.caches))
        return f"{where}: vllm-omni {accepted.version} has no cache backend '{value}' (choose from {choices})"
    if key == "diffusion_attention_backend" and value is not None and str(value).upper() not in accepted.attention:
        choices, near = ", ".join(sorted(accepted.attention)), nearest(str(value).upper(), accepted.attention)
        return (
            f"{where}: vllm-omni {accepted.version} has no attention back end '{value}' (choose from {choices}){near}"
        )
    if value is None or key not in MAPPINGS | {"parallel_config", "cache_config"}:
        return ""
    if not isinstance(value, Mapping):
        return f"{where}: must be a mapping of options, not {value!r}"
    if key == "parallel_config":
        wrong = next((name for name in value if name not in accepted.parallel), None)
        return "" if wrong is None else _unknown(f"{where}.{wrong}", wrong, accepted.parallel, accepted, silent=False)
    if key == "cache_config":
        names = accepted.caches.get(str(backend), accepted.cache)
        wrong = next((name for name in value if name not in names), None)
        if wrong in accepted.cache:
            return f"{where}.{wrong}: vllm-omni {accepted.version} does not read it with cache_backend={backend}"
        return "" if wrong is None else _unknown(f"{where}.{wrong}", wrong, names, accepted, silent=True)
    if key == "stage_overrides":
        for stage, options in value.items():
            prefix = f"stage_{stage}_" if accepted.stages > 1 else ""
            scoped = {f"{prefix}{name}": option for name, option in dict(options or {}).items()}
            if why := refuse_unknown(scoped, accepted, where=where):
                return why
    return ""


def _unknown(where: str, name: str, names: Iterable[str], accepted: Accepted, *, silent: bool | None = None) -> str:
    """One line for a name that is not among `names`, with what to write instead where that is known."""
    ignores = " and would ignore it" if (accepted.silent if silent is None else silent) else ""
    what = f"has no such option{ignores}"
    key = _unscoped(name, accepted.stages)
    of_last_stage = f"stage_{accepted.stages - 1}_{name}"
    near = difflib.get_close_matches(name, list(names), n=1, cutoff=0.7)
    if name == "diffusion_batch_size":
        hint = "; use max_num_seqs"
    elif of_last_stage in names:
        hint = f"; write {of_last_stage}"
    elif name in accepted.parallel and "parallel_config" in names:
        hint = "; write it inside parallel_config"
    elif key == "parallel_config":
        hint = f"; write its keys directly, such as {name.removesuffix(key)}cfg_parallel_size"
    elif name in OF_A_PIPELINE | {"stage_overrides"}:
        what, hint = "accepts it only for a registered pipeline, not for a single diffusion stage", ""
    elif key in accepted.ar_stage | accepted.dit_stage:
        what, hint = "would not pass it on to this model's stage", ""
    else:
        hint = f"; did you mean {near[0]}?" if near else ""
    return f"{where}: vllm-omni {accepted.version} {what}{hint}"


def _unscoped(name: str, stages: int) -> str:
    """`cache_config` of `stage_1_cache_config`."""
    prefix = next((f"stage_{stage}_" for stage in range(stages) if name.startswith(f"stage_{stage}_")), "")
    return name.removeprefix(prefix)


def _read_026(source: Source, engine_args: frozenset[str]) -> _Names:
    """0.26: the default stage forwards the keywords that it names; a pipeline filters by who owns a name."""
    engine = "engine/async_omni_engine.py"
    default_stage = source.function(engine, "AsyncOmniEngine._create_default_diffusion_stage_cfg")
    resolve = source.function(engine, "AsyncOmniEngine._resolve_stage_configs")
    injected = looked_up(resolve, ("get", "[]"))
    started = _started(source, source.function(engine, "AsyncOmniEngine.__init__"))
    dit = source.fields(DATA, "OmniDiffusionConfig") | spelled(source.function(DATA, "normalize_omni_diffusion_kwargs"))
    dit -= IDENTITY
    parallel = source.fields(DATA, "DiffusionParallelConfig")
    ar = source.fields(ARGUMENTS, "OmniEngineArgs") | (engine_args or _deployable(source))
    placement, barred = frozenset({"devices", "num_replicas"}), _orchestrator_only(source) | IDENTITY
    to_ar, to_dit = (ar | placement) - barred, (dit | parallel | placement) - barred
    return _Names(
        simple=(started | looked_up(default_stage, ("get", "[]")) | injected) - OF_A_PIPELINE - IDENTITY - NO_EFFECT,
        common=(started | looked_up(resolve, ("pop",)) | {"async_chunk"}) - IDENTITY - NO_EFFECT,
        every_stage=to_ar | to_dit | injected,
        to_ar=to_ar,
        to_dit=to_dit,
        ar_stage=_structure(source) | ar,
        dit_stage=_structure(source) | dit,  # parallel sizes only inside parallel_config
    )


def _read_030(source: Source, engine_args: frozenset[str]) -> _Names:
    """0.30: a single diffusion stage takes every field of OmniDiffusionConfig; otherwise the stage's kind decides."""
    started = _started(source, source.function("engine/omni_engine_base.py", "OmniEngineBase.__init__"))
    inputs = source.function("entrypoints/utils.py", "prepare_stage_config_inputs")
    dit = source.fields(DATA, "OmniDiffusionConfig") | spelled(source.function(DATA, "normalize_omni_diffusion_kwargs"))
    dit -= IDENTITY | source.strings(CONFIG, "_DIFFUSION_SHARED_ONLY_ENGINE_FIELDS")
    parallel = source.fields(DATA, "DiffusionParallelConfig")
    ar = source.fields(ARGUMENTS, "OmniEngineArgs") | (engine_args or _deployable(source))
    barred = _orchestrator_only(source) | IDENTITY
    default_stage = source.strings(CONFIG, "_DIFFUSION_DEFAULT_FACTORY_FIELDS")
    return _Names(
        simple=(started | dit | parallel | default_stage | {"stage_overrides"}) - OF_A_PIPELINE - IDENTITY,
        common=(started | looked_up(inputs, ("pop",)) | {"async_chunk"}) - IDENTITY,
        every_stage=(ar | ((dit | parallel) & _deployable(source))) - barred,
        to_ar=(ar | PLACEMENT) - barred,
        to_dit=dit | parallel | PLACEMENT,
        ar_stage=_structure(source) | ar,
        dit_stage=_structure(source) | dit | parallel,
    )


def _started(source: Source, engine: Any) -> frozenset[str]:
    """Keywords that the client and the engine take before stages are resolved."""
    client = looked_up(source.function(CLIENT, "OmniBase.__init__"), ("pop",))
    return (client | parameters(engine) | looked_up(engine, ("get", "pop"))) - INTERNAL


def _deployable(source: Source) -> frozenset[str]:
    """Options that a deploy file may set for a stage or for all stages."""
    per_stage = source.fields(STAGES, "StageDeployConfig") - source.strings(STAGES, "_STAGE_RESERVED_KEYS")
    return per_stage | source.strings(STAGES, "_PIPELINE_WIDE_ENGINE_FIELDS")


def _orchestrator_only(source: Source) -> frozenset[str]:
    """Keywords that never reach a stage of a pipeline."""
    owned = source.fields(ARGUMENTS, "OrchestratorArgs") | source.strings(ARGUMENTS, "SHARED_FIELDS")
    return owned - _deployable(source)


def _structure(source: Source) -> frozenset[str]:
    """Keys of a deploy file's stage that are not engine options."""
    return source.strings(STAGES, "_STAGE_RESERVED_KEYS")


def flags(source: Source) -> frozenset[str]:
    """What the serve command adds to vLLM's flags: --cache-backend as cache_backend and unchanged."""
    named = spelled_flags(source.function(SERVE, "OmniServeCommand.subparser_init"))
    return named | {name.removeprefix("--").replace("-", "_") for name in named}


def _caches(source: Source, cache: frozenset[str]) -> dict[str, frozenset[str]]:
    """Keys of cache_config that each cache backend reads: `tea_cache` is the folder diffusion/cache/teacache."""
    folders = {folder.name: folder for folder in (source.folder / "diffusion/cache").iterdir() if folder.is_dir()}
    selector = source.function("diffusion/cache/selector.py", "get_cache_backend")
    caches = {}
    for backend in compared(selector) - {"none"}:
        found = next((name for name in folders if backend.replace("_", "").startswith(name)), None)
        caches[backend] = attributes(folders[found]) & cache if found else cache
    return caches


def _version(source: Source) -> str:
    """The version that the package gives itself, without importing it."""
    try:
        return max(source.strings("_version.py", "__version__"), default="(unknown)")
    except LookupError:
        return "(unknown)"


def _package(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec is not None and spec.origin else None
