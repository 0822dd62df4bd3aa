"""`vllm_omni`: vLLM-Omni on CUDA GPUs, through its offline API, and under load through `vllm serve … --omni`.

It reports what it lacks before anything is imported.
"""

import importlib.util
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sweep.config.feature import Feature
from sweep.config.model import EDITS
from sweep.config.run import RunConfig
from sweep.config.stages import PREFIX, SAMPLING
from sweep.engines.registry import EngineKind, Preflight, served
from sweep.engines.vllm_omni import attention
from sweep.engines.vllm_omni.arguments import arguments
from sweep.engines.vllm_omni.connectors import CONNECTORS
from sweep.engines.vllm_omni.edit_inputs import edit_inputs
from sweep.engines.vllm_omni.families import (
    BATCHING,
    CONNECTED,
    NO_EDITS,
    NOT_SERVED,
    NOT_STARTED,
    PROMPT_TOKENS,
    TWO_STAGES,
    guidance,
)
from sweep.engines.vllm_omni.placement import misplaced, own_devices
from sweep.engines.vllm_omni.serve_flags import without_flag
from sweep.findings import SKIP, Finding
from sweep.refusals import require

if TYPE_CHECKING:
    from sweep.engines.vllm_omni import options


def lacks(run: RunConfig) -> Finding | None:
    """What it cannot do with this model yet, on any machine."""
    model = run.model
    if model.embedded:
        return None
    if model.family in NOT_STARTED:
        why = f"engine vllm_omni cannot run {model.name}'s stages yet: {NOT_STARTED[model.family]}"
        return Finding("model_not_in_engine", why, SKIP)
    if model.family in NO_EDITS and run.workload.task == EDITS:
        why = f"engine vllm_omni cannot edit images with {model.name} yet: {NO_EDITS[model.family]}"
        return Finding("task_not_in_engine", why, SKIP)
    if model.family in NOT_SERVED and run.load.name != "offline":
        why = f"load={run.load.name}: engine vllm_omni cannot serve {model.name} yet; measure it with load=offline"
        return Finding("load_not_in_engine", why, SKIP)
    return _lacks_of_stages(run)


def _lacks_of_stages(run: RunConfig) -> Finding | None:
    """Settings of the model's stages that the stages cannot fulfil."""
    model, stages = run.model, run.model.stages
    why = ""
    if stages.connector and model.family not in CONNECTED:
        tokens = f"{model.name}'s tokens go through vLLM-Omni's orchestrator, and no connector carries them"
        why = f"{PREFIX}connector={stages.connector}: {tokens}"
    elif stages.connector and (on := CONNECTORS[stages.connector].on):
        why = f"{PREFIX}connector={stages.connector}: runs on {on} only"
    elif stages.connector and not _there(CONNECTORS[stages.connector].module):
        module = CONNECTORS[stages.connector].module
        why = f"{PREFIX}connector={stages.connector}: needs the Python package {module}, which is not installed"
    elif (most := stages.dit.max_num_seqs or 1) > 1 and model.family not in BATCHING:
        why = f"{PREFIX}dit.max_num_seqs={most}: vLLM-Omni draws one request of {model.name} at a time"
    return Finding("stage_field_not_in_engine", why, SKIP) if why else None


def _there(module: str) -> bool:
    return not module or importlib.util.find_spec(module) is not None


def preflight(run: RunConfig, features: Sequence[Feature]) -> Preflight:
    """Check engine.args (raises ConfigError) and the features' arguments against the installed version."""
    from sweep.engines.vllm_omni import options
    from sweep.engines.vllm_omni.versions import adapter

    version = adapter()
    warnings = [version.warning] if version.warning else []
    two_stages = run.model.family in TWO_STAGES
    if run.batch > 1 and run.model.family not in (*BATCHING, *TWO_STAGES):
        warnings.append(f"vLLM-Omni generates the pictures of a batch one after another for {run.model.name}")
    known = options.installed(2 if two_stages else 1)
    if known.unreadable:
        warnings.append(
            f"options are not checked: vllm-omni {known.version} has an unexpected source layout ({known.unreadable})"
        )
    place: options.Place = "dit_stage" if two_stages else "omni"
    wrong = options.refuse_unknown(version.constructor(run.engine.args), known, place) or _unknown_of_stages(run, known)
    require(not wrong, wrong)
    twice = next((name for name in run.model.stages.given().get("dit", {}) if name in run.engine.args), "")
    require(not twice, f"{PREFIX}dit.{twice} and engine.args.{twice} are one option of the DiT stage; drop one of them")
    by_flags = bool(served(run)) and not two_stages and not known.unreadable  # two stages have a deploy file
    without = f"vllm serve of vllm-omni {known.version} has no flag for it; measure it with load=offline"
    name = without_flag(version.constructor(run.engine.args), known.flags) if by_flags else ""
    require(not name, f"engine.args.{name}: {without}")
    for feature in features:
        built_on = [other for other in features if other.name in feature.requires]  # whose options it refines
        asked = version.constructor(arguments([*built_on, feature], feature.gpus))
        for name, value in run.model.stages.given().get("dit", {}).items():
            if asked.get(name, value) != value:
                why = f"{PREFIX}dit.{name}={str(value).lower()}: {feature.name} sets it to {str(asked[name]).lower()}"
                return Preflight(Finding("option_refused", why, SKIP), tuple(warnings))
        if wrong := options.refuse_unknown(asked, known, place, where=feature.name):
            return Preflight(Finding("option_refused", wrong, SKIP), tuple(warnings))
        if missing := attention.lacks(asked):
            return Preflight(Finding("package_missing", missing, SKIP), tuple(warnings))
        if by_flags and (name := without_flag(asked, known.flags)):
            why = f"{feature.name}.{name}: {without}"
            return Preflight(Finding("option_refused", why, SKIP), tuple(warnings))
    return Preflight(None, tuple(warnings))


def _unknown_of_stages(run: RunConfig, known: "options.Accepted") -> str:
    """The first field of a stage that the installed version has no option for; "" when it has all."""
    from sweep.engines.vllm_omni import options

    stages = run.model.stages.given()
    ar = {name: value for name, value in stages.get("ar", {}).items() if name not in SAMPLING}
    where = PREFIX.removesuffix(".")
    return options.refuse_unknown(ar, known, "ar_stage", f"{where}.ar") or options.refuse_unknown(
        stages.get("dit", {}), known, "dit_stage", f"{where}.dit"
    )


def serve(run: RunConfig) -> dict[str, Any]:
    """How `vllm serve` is started, apart from the options; a server's AR stage writes pictures of one size."""
    sized = {"size": [run.workload.width, run.workload.height]} if run.model.family in TWO_STAGES else {}
    return {"batch": run.batch, "batch_wait_ms": run.load.batch_wait_ms, **sized}


def stage_devices(run: RunConfig) -> int:
    """Devices that the AR stage has for itself."""
    if run.model.family not in TWO_STAGES:
        return 0
    return own_devices(run.model.stages.given(), run.engine.placement == "split")


def unplaced(run: RunConfig, ranks: int) -> Finding | None:
    """Why the stages cannot be placed as configured when the DiT stage has this many ranks."""
    why = misplaced(run.model.stages.given(), run.engine.placement == "split", ranks)
    return Finding("misplaced_stages", why, SKIP, short="stages misplaced") if why else None


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
    guidance=guidance,
    packages=("torch", "vllm", "vllm_omni"),
    distributions=("torch", "diffusers", "transformers", "cache-dit", "vllm", "vllm-omni"),
    index=("model_index.json", "config.json"),  # BAGEL's has no model_index
    preload={"cuda": "sweep.engines.vllm_omni.preload"},
    key_fields=("args", "max_num_seqs", "placement", "plugin"),
    options=arguments,
    preflight=preflight,
    lacks=lacks,
    edit_inputs=edit_inputs,
    prompt_tokens=PROMPT_TOKENS,
    stage_devices=stage_devices,
    unplaced=unplaced,
    stage_fields=None,
    max_batch=lambda run: run.engine.max_num_seqs,
    torch_profile=torch_profile,
    embedded=False,
)
