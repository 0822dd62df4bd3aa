"""`diffusers`: the embedded models on a CPU, and the control group, the native pipeline, on a GPU."""

from collections.abc import Sequence

from sweep.config.feature import Feature
from sweep.config.model import TEXT
from sweep.config.run import RunConfig
from sweep.config.stages import SAMPLING
from sweep.engines.checkpoint_files import pipeline_of
from sweep.engines.diffusers.families import FAMILIES, FEATURES, ONE_AT_A_TIME, PROMPT_TOKENS
from sweep.engines.registry import EditInputs, EngineKind, Preflight
from sweep.findings import SKIP, Finding


def preflight(run: RunConfig, features: Sequence[Feature]) -> Preflight:
    """Every feature has a module here, or names the method call that enables it."""
    for feature in features:
        if feature.name not in FEATURES and "call" not in (feature.engines.get("diffusers") or {}):
            why = f"engine diffusers has no module for {feature.name}, and its file names no method to call"
            return Preflight(Finding("feature_without_code", f"{why} (engines.diffusers.call)", SKIP))
    if {"lora", "tp"} <= {feature.name for feature in features}:
        why = "engine diffusers does not divide the layers of a LoRA adapter among ranks, as tp would need"
        return Preflight(Finding("features_not_together", why, SKIP))
    if run.workload.task == TEXT and (several := [feature.name for feature in features if feature.gpus > 1]):
        why = f"engine diffusers writes texts on one device, and {' and '.join(several)} needs several"
        return Preflight(Finding("text_on_one_device", why, SKIP))
    pipeline = _one_at_a_time(run)
    if pipeline and run.batch > 1:
        why = f"{pipeline} of diffusers takes one request at a time, and batch={run.batch}"
        return Preflight(Finding("one_at_a_time", why, SKIP, short="one at a time"))
    return Preflight()


def edit_inputs(run: RunConfig) -> EditInputs:
    """By the pipeline that the checkpoint names."""
    return EditInputs(None) if _one_at_a_time(run) else EditInputs()


def _one_at_a_time(run: RunConfig) -> str:
    """The pipeline that the checkpoint names, where it is one of ONE_AT_A_TIME; else ""."""
    found = pipeline_of(run.model.path) if run.model.path is not None else ""
    return found if found in ONE_AT_A_TIME else ""


KIND = EngineKind(
    engine="sweep.engines.diffusers.engine:DiffusersEngine",
    packages=("torch", "diffusers", "transformers"),
    distributions=("torch", "diffusers", "transformers", "cache-dit"),
    families=FAMILIES,
    preload={"cpu": "sweep.engines.diffusers.preload"},
    preflight=preflight,
    prompt_tokens=PROMPT_TOKENS,
    edit_inputs=edit_inputs,
    torch_profile=lambda run: "",
    on_cpu=True,
    control=True,
    stage_fields=tuple(f"ar.{name}" for name in SAMPLING),
    serves=True,
)
