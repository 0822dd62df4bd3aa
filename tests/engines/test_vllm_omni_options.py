"""Options that we let through to vLLM-Omni, held against the real source of its versions."""

import argparse
import ast
import dataclasses
import importlib
import inspect
import re
import subprocess
import sys
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sweep.config.engine import EngineConfig
from sweep.config.model import Model
from sweep.config.run import RunConfig
from sweep.config.stages import SAMPLING, ArStage, DitStage
from sweep.engines.vllm_omni import attention, options, stages, versions
from sweep.engines.vllm_omni.arguments import arguments
from sweep.engines.vllm_omni.kind import preflight
from sweep.engines.vllm_omni.option_source import Source
from sweep.engines.vllm_omni.options import Accepted, Place, refuse_unknown
from sweep.engines.vllm_omni.versions import adapter
from tests import processor_time
from tests.shipped import NAMES, composing, feature, features
from tests.wheels import VERSIONS, wheel_source

__all__ = ["composing"]  # a fixture

OPTIONS: dict[str, Any] = {
    "cache_backend": "tea_cache",
    "cache_config": {"rel_l1_thresh": 0.2},
    "diffusion_attention_backend": "TORCH_SDPA",
    "diffusion_compile_granularity": "full",
    "dtype": "bfloat16",
    "enable_cpu_offload": True,
    "enable_layerwise_offload": True,
    "enforce_eager": True,
    "init_timeout": 600,
    "log_stats": True,
    "max_num_seqs": 8,
    "parallel_config": {"cfg_parallel_size": 2, "ulysses_degree": 2},
    "profiler_config": {"profiler": "cuda"},
    "quantization": "fp8",
    "request_batch_max_wait_ms": 25.0,
    "stage_init_timeout": 300,
    "vae_use_slicing": True,
    "vae_use_tiling": True,
    "worker_extension_cls": "module.Class",
}
"""Options of a lone diffusion stage that both versions honour."""


@pytest.fixture(scope="session")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few of vLLM's engine arguments; its wheel is too large to fetch for their names."""
    folder = tmp_path_factory.mktemp("vllm")
    fields = ["block_size", "enforce_eager", "gpu_memory_utilization", "kv_cache_dtype", "max_model_len"]
    fields += ["enable_prefix_caching", "max_num_batched_tokens", "max_num_seqs", "skip_mm_profiling"]
    (folder / "engine").mkdir()
    (folder / "engine" / "arg_utils.py").write_text(
        "class EngineArgs:\n" + "".join(f"    {name}: int = 0\n" for name in fields)
    )
    return folder


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def package(version: str) -> Path:
    return wheel_source(version) / "vllm_omni"


def names(version: str, stages: int = 1, vllm: Path | None = None) -> Accepted:
    return options.accepted(wheel_source(version) / "vllm_omni", stages, vllm=vllm)


def refused(
    version: str, arguments: Mapping[str, Any], stages: int = 1, place: Place = "omni", vllm: Path | None = None
) -> str:
    return refuse_unknown(arguments, names(version, stages, vllm), place)


def test_good_options_pass(version: str) -> None:
    assert names(version).version == version
    assert refused(version, OPTIONS) == ""
    assert refused(version, {}) == ""


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_a_missing_letter_is_refused_with_the_right_name(version: str, name: str) -> None:
    why = refused(version, {name[:-2] + name[-1]: OPTIONS[name]})
    assert why.startswith(f"engine.args.{name[:-2] + name[-1]}: vllm-omni {version} ")
    assert re.search(rf"\b{name}\b", why.partition("; ")[2])
    assert "\n" not in why


def test_a_typo_reads_as_people_would_say_it() -> None:
    assert refused("0.26.0", {"enforce_eagr": True}) == (
        "engine.args.enforce_eagr: vllm-omni 0.26.0 has no such option and would ignore it; did you mean enforce_eager?"
    )


@pytest.mark.parametrize("name", ["pin_cpu_memory", "revision", "max_cpu_loras", "moe_backend", "streaming_output"])
def test_options_that_026_does_not_forward_are_refused_there_only(name: str) -> None:
    """Fields of OmniDiffusionConfig in both; 0.26 builds a lone stage's configuration without them."""
    for version in VERSIONS:
        assert name in Source(wheel_source(version) / "vllm_omni").fields("diffusion/data.py", "OmniDiffusionConfig")
    assert refused("0.26.0", {name: 1}).startswith(f"engine.args.{name}: vllm-omni 0.26.0 ")
    assert refused("0.30.0", {name: 1}) == ""


def test_options_of_an_ar_stage_are_refused_for_a_lone_diffusion_stage(version: str) -> None:
    for name in ("max_model_len", "gpu_memory_utilization"):
        assert (refused(version, {name: 1}) == "") == (version == "0.30.0")  # there its paged KV cache reads them
    for name in (
        "seed",
        "kv_cache_dtype",
        "tokenizer",
        "deploy_config",
        "stage_1_enforce_eager",
        "diffusion_batch_size",
    ):
        assert refused(version, {name: 1})


def test_what_parallel_config_would_hide_is_refused(version: str) -> None:
    flat = {"ring_degree": 2}
    assert refused(version, flat) == ""
    assert refused(version, {**flat, "parallel_config": {"cfg_parallel_size": 2}}).startswith("engine.args.ring_degree")


@pytest.mark.parametrize(
    ("arguments", "option", "named"),
    [
        ({"parallel_config": {"ulyses_degree": 2}}, "parallel_config.ulyses_degree", ["ulysses_degree"]),
        ({"parallel_config": 2}, "parallel_config", ["2"]),
        ({"profiler_config": "cuda"}, "profiler_config", ["'cuda'"]),
        ({"cache_config": {"rel_l1_thresh": 0.2}}, "cache_config", ["cache_backend"]),
        ({"cache_backend": "teacache"}, "cache_backend", ["'teacache'", "cache_dit", "tea_cache"]),
        (
            {"cache_backend": "cache_dit", "cache_config": {"rel_l1_thresh": 0.2}},
            "cache_config.rel_l1_thresh",
            ["cache_backend=cache_dit"],
        ),
        (
            {"cache_backend": "cache_dit", "cache_config": {"Fn_compute_block": 1}},
            "cache_config.Fn_compute_block",
            ["Fn_compute_blocks"],
        ),
    ],
)
def test_nested_options_are_checked(version: str, arguments: dict[str, Any], option: str, named: list[str]) -> None:
    where, _, why = refused(version, arguments).partition(": ")
    assert where == f"engine.args.{option}"
    assert all(name in why for name in named)


def test_sea_cache_came_with_030() -> None:
    asked = {"cache_backend": "sea_cache", "cache_config": {"sea_threshold": 0.25}}
    assert all(fact in refused("0.26.0", asked) for fact in ("engine.args.cache_backend:", "0.26.0", "'sea_cache'"))
    assert refused("0.30.0", asked) == ""


def test_options_of_a_pipeline_go_to_a_stage(version: str, vllm: Path) -> None:
    good = {
        "deploy_config": "glm_image.yaml",
        "log_stats": True,
        "enforce_eager": True,
        "cfg_parallel_size": 2,
        "stage_0_gpu_memory_utilization": 0.35,
        "stage_1_cfg_parallel_size": 2,
        "stage_1_cache_backend": "cache_dit",
        "stage_1_cache_config": {"Fn_compute_blocks": 1},
        "stage_overrides": {"1": {"vae_use_tiling": True}},
    }
    assert refused(version, good, stages=2, vllm=vllm) == ""
    # The same on a stage of the other kind, or on a stage that does not exist.
    for wrong in ("stage_0_cfg_parallel_size", "stage_2_cfg_parallel_size", "stage_1_skip_mm_profiling"):
        assert f"engine.args.{wrong}: " in refused(version, {wrong: 2}, stages=2, vllm=vllm)
    assert "stage_1_vae_use_tilng" in refused(version, {"stage_overrides": {1: {"vae_use_tilng": True}}}, stages=2)
    assert "stage_1_cache_config.rel_l1_thresh" in refused(
        version, {"stage_1_cache_backend": "cache_dit", "stage_1_cache_config": {"rel_l1_thresh": 1}}, stages=2
    )


def test_parallel_config_of_a_pipeline_is_lost_and_refused(version: str) -> None:
    assert refused(version, {"parallel_config": {"cfg_parallel_size": 2}}, stages=2)
    lost = refused(version, {"stage_1_parallel_config": {"cfg_parallel_size": 2}}, stages=2)
    assert "stage_1_cfg_parallel_size" in lost if version == "0.26.0" else lost == ""


def test_a_deploy_files_diffusion_stage_takes_parallel_sizes_in_parallel_config(version: str, vllm: Path) -> None:
    """0.26 drops them next to it: `from_kwargs` keeps fields of OmniDiffusionConfig only."""
    nested = {"devices": "0,1", "max_num_seqs": 1, "parallel_config": {"cfg_parallel_size": 2}}
    assert refused(version, nested, stages=2, place="dit_stage") == ""
    flat = refused(version, {"cfg_parallel_size": 2}, stages=2, place="dit_stage")
    assert flat.endswith(" parallel_config") if version == "0.26.0" else flat == ""
    ar = {"devices": "0", "gpu_memory_utilization": 0.35, "max_model_len": 16384, "skip_mm_profiling": True}
    assert refused(version, ar, stages=2, place="ar_stage", vllm=vllm) == ""
    assert "cache_backend" in refused(version, {"cache_backend": "cache_dit"}, stages=2, place="ar_stage", vllm=vllm)


def test_reading_the_source_is_quick_and_imports_nothing(package: Path) -> None:
    before = set(sys.modules)
    fresh = []
    reading_s = processor_time.of(lambda: fresh.append(options.accepted.__wrapped__(package, 2)))
    standard = [inspect.getsource(module) for module in (argparse, typing, inspect)]
    parsing_s = processor_time.of(lambda: [ast.parse(text) for text in standard])  # 0.05 s where nothing else runs
    assert reading_s < 10 * parsing_s, "half a second"
    assert fresh[0].omni
    assert not {name for name in set(sys.modules) - before if name.partition(".")[0] in ("vllm", "vllm_omni", "torch")}


def test_the_installed_package_is_found_without_importing_it(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(package.parent))
    assert options.installed(1) == options.accepted(package, 1)
    assert "vllm_omni" not in sys.modules


def test_no_package_is_said_clearly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="vllm-omni is not installed"):
        options.installed(1)


def test_engine_arguments_of_vllm_are_known_where_vllm_is(version: str, vllm: Path) -> None:
    with_vllm, without = names(version, 2, vllm), names(version, 2)
    assert "block_size" in with_vllm.ar_stage - without.ar_stage
    assert "stage_0_block_size" in with_vllm.omni - without.omni
    assert "stage_1_block_size" not in with_vllm.omni
    assert "gpu_memory_utilization" in without.ar_stage  # named by vLLM-Omni too


def test_a_version_that_is_laid_out_otherwise_is_not_refused_anything(tmp_path: Path) -> None:
    unread = options.accepted(tmp_path, 1)
    assert "engine/async_omni_engine.py" in unread.unreadable
    assert refuse_unknown({"anything": 1}, unread) == ""


@pytest.mark.parametrize("name", NAMES)
def test_features_use_names_that_both_versions_honour(version: str, name: str) -> None:
    """For a lone diffusion stage, and in a deploy file for the diffusion stage behind an AR stage."""
    one = feature(name)
    if "vllm_omni" not in one.engines:
        pytest.skip("not of this engine")
    if version < str(one.options.get("since", "")):
        pytest.skip(f"from {one.options['since']} on")
    asked = arguments(features(name, *one.requires[:1]), 2)
    assert refused(version, asked) == ""
    assert refused(version, asked, stages=2, place="dit_stage") == ""


def test_attention_back_ends_that_a_version_lacks_are_named_with_the_nearest(version: str) -> None:
    assert refused(version, {"diffusion_attention_backend": "torch_sdpa"}) == "", "either case"
    error = refused(version, {"diffusion_attention_backend": "SAGE_ATN"})
    assert re.search(r"no attention back end 'SAGE_ATN' .*CUDNN_ATTN.*did you mean 'SAGE_ATTN'", error)


def test_a_back_end_without_its_package_is_not_started() -> None:
    assert "sageattention" in attention.lacks({"diffusion_attention_backend": "sage_attn"})
    assert attention.lacks({"diffusion_attention_backend": "TORCH_SDPA"}) == attention.lacks({}) == ""


def test_sampling_parameters_that_we_set_exist(version: str) -> None:
    tree = ast.parse(Path(stages.__file__).read_text())
    targets = [target for node in ast.walk(tree) if isinstance(node, ast.Assign) for target in node.targets]
    flat = [item for target in targets for item in (target.elts if isinstance(target, ast.Tuple) else [target])]
    asked = {t.attr for t in flat if isinstance(t, ast.Attribute) and getattr(t.value, "id", "") == "diffusion"}
    assert {"seed", "height", "width", "num_inference_steps", "true_cfg_scale", "guidance_scale"} <= asked
    assert refused(version, dict.fromkeys(asked), place="sampling") == ""
    assert re.search(r"\bseed\b", refused(version, {"sede": 1}, place="sampling"))


def test_options_are_given_by_names_that_the_version_honours(version: str) -> None:
    older = {
        "diffusion_attention_backend": "TORCH_SDPA",
        "diffusion_quantization_config": "fp8",
        "static_lora_scale": 0.5,
        "enforce_eager": True,
    }
    named = adapter(version).constructor(older)
    assert refused(version, named) == ""
    assert named["enforce_eager"] is True
    if version == "0.30.0":
        assert named["diffusion_attention_config"] == {"default": {"backend": "TORCH_SDPA"}}
        assert (named["quantization_config"], named["lora_scale"]) == ("fp8", 0.5)
        assert not set(older) - {"enforce_eager"} & set(named)
    else:
        assert named == older


def test_importing_our_modules_imports_no_engine() -> None:
    script = (
        "import sys, sweep.engines.vllm_omni.versions, sweep.engines.vllm_omni.options;"
        "print(sorted(name for name in ('torch', 'vllm', 'vllm_omni', 'PIL') if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_options_that_cannot_be_checked_are_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "installed", lambda stages: options.accepted(tmp_path, stages))
    monkeypatch.setattr(versions, "adapter", lambda: versions.V030("0.33.0", "vllm-omni 0.33.0 was never tested"))
    run = RunConfig(engine=EngineConfig(name="vllm_omni", args={"cache_backnd": "tea_cache"}), model=Model(name="x"))
    found = preflight(run, ())
    assert found.skip is None
    never, unchecked = found.warnings
    assert never == "vllm-omni 0.33.0 was never tested"
    assert "engine/async_omni_engine.py" in unchecked, "what was looked for"


@pytest.mark.parametrize("version", VERSIONS)
def test_every_field_of_a_stage_is_an_option_of_it(version: str, vllm: Path) -> None:
    known = options.accepted(wheel_source(version) / "vllm_omni", 2, vllm=vllm)
    ar = [field.name for field in dataclasses.fields(ArStage) if field.name not in SAMPLING]
    assert refuse_unknown(dict.fromkeys(ar, 1), known, "ar_stage") == ""
    dit = [field.name for field in dataclasses.fields(DitStage)]
    assert refuse_unknown(dict.fromkeys(dit, 1), known, "dit_stage") == ""
