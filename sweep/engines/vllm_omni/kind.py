"""`vllm_omni`: vLLM-Omni on CUDA GPUs, through its offline API, and under load through `vllm serve … --omni`.

It reports what it lacks before anything is imported.
"""

from collections.abc import Sequence
from typing import Any

from sweep.config import Feature, RunConfig, require
from sweep.engines.registry import EngineKind, Preflight, served
from sweep.engines.vllm_omni import attention
from sweep.engines.vllm_omni.arguments import arguments
from sweep.engines.vllm_omni.families import NO_EDITS, NOT_STARTED, TWO_STAGES
from sweep.engines.vllm_omni.serve_flags import without_flag
from sweep.findings import SKIP, Finding


def lacks(run: RunConfig) -> Finding | None:
    """What it cannot do with this model yet, on any machine."""
    model = run.model
    if model.embedded:
        return None
    if model.family in NOT_STARTED:
        return Finding("model_not_in_engine", f"engine vllm_omni cannot run {model.name}'s stages yet", SKIP)
    if model.family in NO_EDITS and run.workload.task == "image_edit":
        why = f"engine vllm_omni cannot edit images with {model.name} yet: its AR stage supports only text-to-image"
        return Finding("task_not_in_engine", why, SKIP)
    return None


def preflight(run: RunConfig, features: Sequence[Feature]) -> Preflight:
    """Check engine.args (raises ConfigError) and the features' arguments against the installed version."""
    from sweep.engines.vllm_omni import options
    from sweep.engines.vllm_omni.versions import adapter

    version = adapter()
    warnings = [version.warning] if version.warning else []
    two_stages = run.model.family in TWO_STAGES
    known = options.installed(2 if two_stages else 1)
    if known.unreadable:
        warnings.append(
            f"options are not checked: vllm-omni {known.version} has an unexpected source layout ({known.unreadable})"
        )
    place: options.Place = "dit_stage" if two_stages else "omni"
    wrong = options.refuse_unknown(version.constructor(run.engine.args), known, place)
    require(not wrong, wrong)
    by_flags = bool(served(run)) and not two_stages and not known.unreadable  # two stages have a deploy file
    without = f"vllm serve of vllm-omni {known.version} has no flag for it; measure it with load=offline"
    name = without_flag(version.constructor(run.engine.args), known.flags) if by_flags else ""
    require(not name, f"engine.args.{name}: {without}")
    for feature in features:
        built_on = [other for other in features if other.name in feature.requires]  # whose options it refines
        asked = version.constructor(arguments([*built_on, feature], feature.gpus))
        if wrong := options.refuse_unknown(asked, known, place, where=feature.name):
            return Preflight(Finding("option_refused", wrong, SKIP), tuple(warnings))
        if missing := attention.lacks(asked):
            return Preflight(Finding("package_missing", missing, SKIP), tuple(warnings))
        if by_flags and (name := without_flag(asked, known.flags)):
            why = f"{feature.name}.{name}: {without}"
            return Preflight(Finding("option_refused", why, SKIP), tuple(warnings))
    return Preflight(None, tuple(warnings))


def serve(run: RunConfig) -> dict[str, Any]:
    """How `vllm serve` is started besides the options; the AR stage of a server writes pictures of one size."""
    sized = {"size": [run.workload.width, run.workload.height]} if run.model.family in TWO_STAGES else {}
    return {"batch": run.batch, "batch_wait_ms": run.load.batch_wait_ms, **sized}


def stage_devices(run: RunConfig) -> int:
    """One for the AR stage, where it has a device of its own."""
    return int(run.engine.placement == "split" and run.model.family in TWO_STAGES)


def torch_profile(run: RunConfig) -> str:
    """The plugin records the workers, so it must be on."""
    return (
        ""
        if run.engine.plugin
        else "engine.plugin=false: profile=torch records vLLM-Omni's workers through the plugin; drop one of the two"
    )


KIND = EngineKind(
    engine="sweep.engines.vllm_omni.engine:VllmOmniEngine",
    serves=True,
    server="sweep.engines.vllm_omni.served:VllmOmniServer",
    serve=serve,
    request_fields={"generator_device": "cpu"},  # the noise of the other engines
    packages=("torch", "vllm", "vllm_omni"),
    distributions=("torch", "diffusers", "transformers", "cache-dit", "vllm", "vllm-omni"),
    index=("model_index.json", "config.json"),  # BAGEL's has no model_index
    preload={"cuda": "sweep.engines.vllm_omni.preload"},
    key_fields=("args", "max_num_seqs", "placement", "plugin"),
    options=arguments,
    preflight=preflight,
    lacks=lacks,
    stage_devices=stage_devices,
    max_batch=lambda run: run.engine.max_num_seqs,
    torch_profile=torch_profile,
    embedded=False,
)
