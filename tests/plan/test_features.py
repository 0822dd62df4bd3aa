"""Feature files are complete, and what combinations of them require of vLLM-Omni."""

import itertools

import pytest
from hydra import compose
from omegaconf import OmegaConf

from sweep.analysis.evidence import COMPARISONS, RULES
from sweep.config.engine import EngineConfig
from sweep.config.feature import Feature
from sweep.config.model import Model, Stack
from sweep.config.run import CONF, RunConfig
from sweep.engines import registry
from sweep.engines.vllm_omni.arguments import arguments
from sweep.plan import features as feature_rules
from sweep.plan.axes import pairs_and_more
from sweep.plan.features import find_conflict, gpus_needed, unsupported
from sweep.refusals import ConfigError
from tests.shipped import FAMILIES, NAMES, cell, composing, feature, features, supported

__all__ = ["composing"]  # a fixture

CACHES = ("cache_dit", "mag_cache", "step_cache", "teacache")


@pytest.mark.parametrize("name", NAMES)
def test_every_feature_file_is_complete_for_the_engines_that_it_names(name: str) -> None:
    one = feature(name)
    assert one.summary
    assert one.engines
    assert one.evidence in RULES or one.evidence.split()[0] in COMPARISONS
    for other in {*one.conflicts, *one.requires}:
        assert other in NAMES, other
    assert set(one.families) <= set(one.engines)
    for family in FAMILIES - supported(name):
        why = unsupported([one], "vllm_omni", Model(name=family, family=family))
        assert why is not None
        assert why.code != "feature_without_reason", f"{name} gives no reason for {family}"
    if "diffusers" not in one.engines:
        why = unsupported([one], "diffusers", Model())
        assert why is not None
        assert why.code == "feature_not_in_engine"


def test_reasons_are_those_of_the_engine_and_of_the_family() -> None:
    zimage = Model(name="z_image", family="z_image")
    reasons = feature("cfg_parallel").unsupported
    for engine, why in (("vllm_omni", reasons["vllm_omni"]["z_image"]), ("diffusers", reasons["diffusers"])):
        refusal = unsupported(features("cfg_parallel"), engine, zimage)
        assert refusal is not None
        assert refusal.code == "feature_not_in_model"
        assert refusal.text.endswith(why)


@pytest.mark.parametrize(
    "pair", [*itertools.combinations(CACHES, 2), ("hsdp", "tp"), ("fp8", "int8"), ("eager", "compile_full")]
)
def test_conflicts_hold_in_either_order(pair: tuple[str, str]) -> None:
    assert find_conflict(features(*pair))
    assert find_conflict(features(*pair)[::-1])


def test_every_pair_merges_or_is_declared_a_conflict() -> None:
    for pair in itertools.combinations((n for n in NAMES if "vllm_omni" in feature(n).engines), 2):
        chosen = features(*pair)
        if not find_conflict(chosen):
            assert arguments(chosen, 2), pair


def test_arguments_of_a_combination_are_merged_key_by_key() -> None:
    assert arguments(features("cfg_parallel", "ulysses", "teacache"), 4) == {
        "parallel_config": {"cfg_parallel_size": 2, "ulysses_degree": 2},
        "cache_backend": "tea_cache",
        "cache_config": {"rel_l1_thresh": 0.2},
    }


def test_two_values_for_one_argument_are_refused_with_both_names() -> None:
    with pytest.raises(ConfigError, match=r"cache_dit and teacache .*\bcache_backend\b"):
        arguments(features("teacache", "cache_dit"), 1)
    one, two = (Feature(name=n, engines={"vllm_omni": {"a": {"b": v}}}) for n, v in (("one", 1), ("two", {"c": 2})))
    for pair in ((one, two), (two, one)):
        with pytest.raises(ConfigError, match=rf"{pair[0].name} and {pair[1].name} .*\ba\.b\b"):
            arguments(pair, 1)


def test_hsdp_uses_the_ranks_of_the_others_and_brings_its_own_when_alone() -> None:
    for names, ranks in (
        (("hsdp",), 2),
        (("hsdp", "cfg_parallel"), 2),
        (("hsdp", "cfg_parallel", "ulysses"), 4),
        (("vae_patch_parallel", "tp"), 2),
    ):
        chosen = features(*names)
        assert gpus_needed(chosen) == ranks
        parallel = arguments(chosen, gpus_needed(chosen))["parallel_config"]
        assert parallel.get("hsdp_shard_size", parallel.get("vae_patch_parallel_size")) == ranks
    assert cell(["hsdp", "cfg_parallel"]).gpus == 2
    wide = cell(["hsdp", "cfg_parallel"], feature__hsdp__gpus=4)
    assert wide.skip is not None
    assert wide.skip.code == "ranks_do_not_match"


def test_a_feature_without_what_it_builds_on_is_skipped() -> None:
    alone = cell(["vae_patch_parallel"]).skip
    assert alone is not None
    assert alone.code == "feature_needs_another"
    assert "hsdp" in alone.text
    assert cell(["vae_patch_parallel", "hsdp"]).skip is None


def test_a_feature_that_refines_another_is_skipped_without_it_and_shares_its_arguments() -> None:
    alone = cell(["scm"]).skip
    assert alone is not None
    assert alone.text == "scm needs cache_dit"
    assert cell(["cache_dit", "scm", "taylorseer"]).skip is None
    asked = arguments(features("cache_dit", "scm", "taylorseer"), 1)
    assert asked["cache_backend"] == "cache_dit"
    assert {"Fn_compute_blocks", "scm_steps_mask_policy", "enable_taylorseer"} <= set(asked["cache_config"])


def test_attention_heads_must_divide_into_whole_numbers() -> None:
    zimage = Model(name="z_image", family="z_image", dit=Stack(heads=30))
    assert unsupported(features("tp"), "vllm_omni", zimage) is None
    uneven = unsupported(features("tp", "ulysses"), "vllm_omni", zimage)
    assert uneven is not None
    assert uneven.code == "heads_do_not_divide"
    assert {"tp", "ulysses", "4", "30"} <= set(uneven.text.split())
    assert unsupported(features("ring", "tp"), "vllm_omni", zimage) is None, "ring leaves heads whole"
    thirds = Model(name="toy", family="qwen_image", dit=Stack(heads=3))
    assert unsupported(features("ulysses"), "vllm_omni", thirds)
    assert unsupported(features("ulysses"), "diffusers", thirds) is None, "diffusers pads heads"


def test_rules_of_evidence_are_the_engines_own_and_stand_in_the_cell() -> None:
    for engine, rule in (("vllm_omni", "more vae_decoder_calls"), ("diffusers", "setting")):
        made = cell(["vae_slicing"], engine__name=engine)
        assert made.config["feature"]["vae_slicing"]["evidence"] == rule
        (read_back,) = feature_rules.parse_features(made.config["feature"])
        assert read_back.evidence == rule


def test_attention_has_a_default_for_each_engine_and_takes_a_name() -> None:
    for engine, backend in (("vllm_omni", "TORCH_SDPA"), ("diffusers", "_native_math"), ("noop", "none")):
        body = cell(["attention"], engine__name=engine).config["feature"]["attention"]
        assert body["backend"] == body["engines"]["vllm_omni"]["diffusion_attention_backend"] == backend
    body = cell(["attention"], feature__attention__backend="CUDNN_ATTN").config["feature"]["attention"]
    assert body["engines"]["vllm_omni"] == {"diffusion_attention_backend": "CUDNN_ATTN"}


def test_magcache_is_told_the_steps_of_the_workload() -> None:
    body = cell(["mag_cache"], workload__steps=17).config["feature"]["mag_cache"]
    assert body["engines"]["vllm_omni"]["cache_config"]["num_inference_steps"] == 17


def test_engine_options_are_checked_and_part_of_the_key() -> None:
    with pytest.raises(ConfigError, match=r"engine\.args=.*\bvllm_omni\b"):
        registry.check(RunConfig(engine=EngineConfig(args={"seed": 1})))
    with pytest.raises(ConfigError, match=r"engine.placement=apart:.* shared .* split"):
        EngineConfig(placement="apart")
    with pytest.raises(ConfigError, match=r"batch=9: .* 8 .*engine.max_num_seqs=9"):
        cell(batch=9)
    base = cell().key
    for key, value in (("args__enable_prompt_embed_cache", True), ("max_num_seqs", 4), ("plugin", False)):
        assert cell(**{f"engine__{key}": value}).key != base, key
    assert cell(engine__fork=False).key == base
    assert cell(["hsdp"]).engine_key != cell(["hsdp"], feature__hsdp__gpus=4).engine_key


def test_an_ar_stage_with_a_gpu_of_its_own_needs_one_more() -> None:
    for family, placement, gpus in (("glm_image", "shared", 2), ("glm_image", "split", 3), ("qwen_image", "split", 2)):
        made = cell(["cfg_parallel"], model__family=family, engine__placement=placement)
        assert made.gpus == gpus


@pytest.mark.parametrize(
    ("study", "combinations", "skipped"),
    [
        ("vllm_compat", 21, {"cache_dit+teacache"}),
        ("vllm_single_gpu", 9, set()),
        ("vllm_batch", 6, set()),
        ("glm_ar_dit", 8, set()),
    ],
)
def test_studies_ask_for_what_four_gpus_can_run(study: str, combinations: int, skipped: set[str]) -> None:
    params = OmegaConf.load(CONF / "study" / f"{study}.yaml").hydra.sweeper.params
    axes = {key: str(value).split(",") for key, value in params.items()}
    groups = [f"{key}={axes[key][0]}" for key in ("engine", "model", "workload", "parallel") if key in axes]
    made = OmegaConf.to_object(compose("config", [f"+study={study}", *groups]))
    assert isinstance(made, RunConfig)
    work = made.workload
    assert (work.shipped_prompts, work.steps, work.repeats, work.width) == (8, 20, 1, 1024)
    wanted = pairs_and_more([(name,) for name in axes["feature"]], made.combine)
    assert len(wanted) == combinations
    for names in wanted:
        chosen = features(*names)
        why = find_conflict(chosen) or unsupported(chosen, "vllm_omni", made.model)
        assert bool(why) == ("+".join(names) in skipped), why
        assert gpus_needed(chosen) <= (made.parallel.gpus or 4)
    assert {int(batch) for batch in axes.get("batch", ["1"])} <= {1, 2, 4}
