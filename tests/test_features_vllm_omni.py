"""Features on vLLM-Omni: what their files say holds against the real source of the supported versions."""

import functools
import importlib.util
import itertools
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from sweep import config, plan
from sweep import features as feature_rules
from sweep.config import CONF, ConfigError, EngineConfig, Feature, Model, RunConfig, Stack
from sweep.features import find_conflict, gpus_needed, omni_arguments, unsupported_reason
from sweep.gpus import Devices
from sweep.verdict import COMPARISONS, RULES
from tests.wheels import VERSIONS, wheel_source

NAMES = tuple(sorted(file.stem for file in (CONF / "feature").glob("*.yaml")))
SIX = ("cfg_parallel", "teacache", "cache_dit", "ulysses", "ring", "tp")
CACHES = ("cache_dit", "mag_cache", "step_cache", "teacache")

CODE = {  # family: file and class of its pipeline and of its DiT, under vllm_omni/diffusion/models
    "bagel": ("bagel/pipeline_bagel", "BagelPipeline", "bagel/bagel_transformer", "Qwen2MoTModel"),
    "flux": ("flux/pipeline_flux", "FluxPipeline", "flux/flux_transformer", "FluxTransformer2DModel"),
    "flux2": ("flux2/pipeline_flux2", "Flux2Pipeline", "flux2/flux2_transformer", "Flux2Transformer2DModel"),
    "glm_image": (
        *("glm_image/pipeline_glm_image", "GlmImagePipeline"),
        *("glm_image/glm_image_transformer", "GlmImageTransformer2DModel"),
    ),
    "hunyuan_image3": (
        *("hunyuan_image3/pipeline_hunyuan_image3", "HunyuanImage3Pipeline"),
        *("hunyuan_image3/hunyuan_image3_transformer", "HunyuanImage3Model"),
    ),
    "longcat_image": (
        *("longcat_image/pipeline_longcat_image", "LongCatImagePipeline"),
        *("longcat_image/longcat_image_transformer", "LongCatImageTransformer2DModel"),
    ),
    "qwen_image": (
        *("qwen_image/pipeline_qwen_image", "QwenImagePipeline"),
        *("qwen_image/qwen_image_transformer", "QwenImageTransformer2DModel"),
    ),
    "qwen_image_edit": (
        *("qwen_image/pipeline_qwen_image_edit", "QwenImageEditPipeline"),
        *("qwen_image/qwen_image_transformer", "QwenImageTransformer2DModel"),
    ),
    "sd3": ("sd3/pipeline_sd3", "StableDiffusion3Pipeline", "sd3/sd3_transformer", "SD3Transformer2DModel"),
    "z_image": (
        "z_image/pipeline_z_image",
        "ZImagePipeline",
        "z_image/z_image_transformer",
        "ZImageTransformer2DModel",
    ),
}


class Source:
    """One version's source, read as text: vllm_omni itself cannot be imported without a GPU's packages."""

    def __init__(self, version: str) -> None:
        self.root = wheel_source(version) / "vllm_omni"

    @functools.cache  # noqa: B019 - two versions, a few files each
    def text(self, path: str) -> str:
        return (self.root / path).read_text()

    def model(self, file: str) -> str:
        return self.text(f"diffusion/models/{file}.py")

    def class_text(self, file: str, name: str) -> str:
        """From the line that opens the class to the next line that is not indented."""
        found = re.search(rf"^class {name}\b.*?:\n(?=    )(?:(?:[ )].*)?\n)*", self.model(file), re.M | re.S)
        assert found, f"{file} has no class {name}"
        return found[0]

    def pipeline(self, family: str) -> str:
        return self.class_text(*CODE[family][:2])

    def dit(self, family: str) -> str:
        return self.class_text(*CODE[family][2:])

    def names_between(self, path: str, start: str, end: str) -> set[str]:
        """Quoted names in a part of a file."""
        text = self.text(path)
        begin = text.index(start)
        return set(re.findall(r'"(\w+)"', text[begin : text.index(end, begin)]))


@pytest.fixture(scope="module", params=VERSIONS)
def source(request: pytest.FixtureRequest) -> Source:
    return Source(request.param)


@pytest.fixture(scope="module", autouse=True)
def hydra():
    config.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


@functools.cache
def composed(*overrides: str) -> DictConfig:
    """A configuration with every shipped feature switched on, to take parts of: composing is what takes time."""
    return compose("config", ["engine=vllm_omni", f"feature=[{','.join(NAMES)}]", *overrides])


@functools.cache
def shipped() -> dict[str, Feature]:
    """The features as the engine vllm_omni sees them."""
    made = OmegaConf.to_object(composed())
    assert isinstance(made, RunConfig)
    return {one.name: one for one in feature_rules.parse_features(made.feature, "vllm_omni")}


def feature(name: str) -> Feature:
    return shipped()[name]


def features(*names: str) -> list[Feature]:
    return [feature(name) for name in sorted(names)]


def cell(
    names: Iterable[str] = (), composition: Sequence[str] = ("model=qwen_image",), gpus: int = 8, **changes: Any
) -> plan.Cell:
    """The cell of these features; `changes` are dotted keys with __ for the dots."""
    cfg = composed(*composition).copy()
    OmegaConf.set_struct(cfg, False)
    for key, value in changes.items():
        OmegaConf.update(cfg, key.replace("__", "."), value)
    for name in set(NAMES) - set(names):
        del cfg.feature[name]
    devices = Devices("cuda", gpus)
    return plan.build_cell(cfg, lambda run: devices, lambda run: "prompts", lambda run, found: "")


def supported(name: str) -> set[str]:
    """Families that the feature's file allows on vLLM-Omni."""
    return set(feature(name).families.get("vllm_omni", CODE))


# --- against the source ---


def test_families_of_the_models_are_those_whose_source_is_read() -> None:
    families = {OmegaConf.load(file).family for file in (CONF / "model").glob("*.yaml")}
    assert families == set(CODE)


def test_cfg_parallel_is_for_pipelines_that_ask_for_the_cfg_ranks(source: Source) -> None:
    asking = {
        family
        for family, (file, _, dit, _) in CODE.items()
        if re.search("CFGParallelMixin|get_classifier_free_guidance_rank", source.model(file) + source.model(dit))
    }
    assert asking - supported("cfg_parallel") == {"flux", "bagel", "hunyuan_image3"}, "one branch, three, one batch"
    assert "torch.cat([latents] * cfg_factor)" in source.model("hunyuan_image3/hunyuan_image3_transformer")
    assert supported("cfg_parallel") <= asking
    assert "requires cfg_parallel_size=3" in source.model("bagel/bagel_transformer")
    assert 'extra_args.get("cfg_img_scale", 1.5)' in source.model("bagel/pipeline_bagel"), (
        "the third branch, by default"
    )


def test_teacache_is_for_dits_with_an_extractor(source: Source) -> None:
    folder = "diffusion/cache/teacache"
    extractors = source.names_between(f"{folder}/extractors.py", "EXTRACTOR_REGISTRY:", "\n}")
    own = source.names_between(f"{folder}/backend.py", "CUSTOM_TEACACHE_ENABLERS =", "\n}")
    assert supported("teacache") == {f for f, code in CODE.items() if code[1] in own or code[3] in extractors}


def test_cache_dit_is_for_dits_with_an_adapter_of_either_side(source: Source) -> None:
    spec = importlib.util.find_spec("cache_dit")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("cache-dit is not installed")
    adapters = Path(spec.submodule_search_locations[0]) / "caching" / "block_adapters" / "adapters.py"
    known = tuple(re.findall(r'BlockAdapterRegister.register\("(\w+)"', adapters.read_text()))
    declared = {family for family in CODE if "_cache_dit_adapter_config" in source.dit(family)}
    assert supported("cache_dit") == declared | {f for f, code in CODE.items() if code[3].startswith(known)}


def test_sequence_parallel_is_for_dits_with_a_plan_or_a_split_of_their_own(source: Source) -> None:
    split = {family for family in CODE if re.search(r"^    _sp_plan = ", source.dit(family), re.M)}
    assert "_split_vae_for_sp" in source.model("bagel/bagel_transformer")
    assert supported("ulysses") == split | {"bagel"}
    assert supported("ring") == supported("ulysses") - {"hunyuan_image3"}
    assert "mask" not in source.text("diffusion/attention/parallel/ring.py"), "ring attention knows no mask"


def test_tensor_parallel_is_for_dits_of_parallel_layers(source: Source) -> None:
    assert supported("tp") == {f for f, code in CODE.items() if "ParallelLinear" in source.model(code[2])}


@pytest.mark.parametrize(
    ("name", "attribute"),
    [
        ("hsdp", "_hsdp_shard_conditions"),
        ("layerwise_offload", "_layerwise_offload_blocks_attrs"),
    ],
)
def test_features_that_need_an_attribute_of_the_dit(source: Source, name: str, attribute: str) -> None:
    assert supported(name) == {f for f in CODE if re.search(rf"^    {attribute} = ", source.dit(f), re.M)}


def test_compilation_is_switched_for_dits_that_vllm_omni_compiles(source: Source) -> None:
    repeated = {f for f in CODE if re.search(r"^    _repeated_blocks = ", source.dit(f), re.M)}
    deployed = source.text("deploy/glm_image.yaml").partition("platforms:")[0]
    assert re.findall(r"enforce_eager: (\w+)", deployed) == ["false", "true"], "AR stage, DiT stage"
    assert supported("eager") == repeated - {"glm_image"}
    assert supported("compile_full") == set(CODE) - {"glm_image"}


def test_offload_by_model_is_for_pipelines_with_encoders_whose_other_parts_are_placed(source: Source) -> None:
    encoders = {f for f in CODE if re.search(r"_encoder_modules\b.*= \[\"", source.pipeline(f))}
    assert encoders - supported("cpu_offload") == {"hunyuan_image3"}
    assert supported("cpu_offload") <= encoders
    assert "_resident_modules" not in source.pipeline("hunyuan_image3"), "its patch_embed stays on the CPU"


def test_vae_features_follow_the_vae_and_the_batching_of_the_pipeline(source: Source) -> None:
    distributed = {f for f, code in CODE.items() if re.search("DistributedAuto[Ee]ncoder", source.model(code[0]))}
    assert supported("vae_patch_parallel") == distributed
    batching = {f for f in CODE if re.search(r"supports_request_batch = True", source.pipeline(f))}
    assert supported("vae_slicing") == batching
    assert supported("vae_tiling") == set(CODE) - {"bagel"}
    assert "tiled_decode" not in source.model("bagel/autoencoder")


@pytest.mark.parametrize("name", ["fp8", "int8"])
def test_quantisation_is_for_pipelines_that_hand_it_to_their_dit(source: Source, name: str) -> None:
    assert supported(name) == {f for f, code in CODE.items() if "quantization_config" in source.model(code[0])}


def test_caches_of_few_models(source: Source) -> None:
    strategies = re.findall(r'Registry.register\("(\w+)"', source.text("diffusion/cache/magcache/strategy.py"))
    assert supported("mag_cache") == {f for f, code in CODE.items() if code[3] in strategies}
    step = source.names_between("diffusion/cache/stepcache/backend.py", "CUSTOM_STEPCACHE_ENABLERS =", "\n}")
    assert supported("step_cache") == {f for f, code in CODE.items() if code[1] in step} == set()


def test_no_image_model_is_cut_into_pipeline_stages(source: Source) -> None:
    cut = {f for f, code in CODE.items() if "PipelineParallelMixin" in source.model(code[0])}
    assert supported("pipeline") == cut == set()
    assert "PipelineParallelMixin" in source.model("wan2_2/pipeline_wan2_2")


def test_attention_back_ends_of_the_file_exist(source: Source) -> None:
    known = re.findall(r"^    ([A-Z_0-9]+) = ", source.text("diffusion/attention/backends/registry.py"), re.M)
    assert feature("attention").options["backend"] in known
    named = re.findall(r"\b[A-Z0-9]+_(?:ATTN|SDPA)\b", (CONF / "feature" / "attention.yaml").read_text())
    assert set(named) <= set(known)


def test_every_argument_is_one_that_vllm_omni_reads(source: Source) -> None:
    """0.26 drops unknown names without a word."""
    engine = next(p for p in ("engine/async_omni_engine.py", "engine/omni_engine_base.py") if _builds_stage(source, p))
    data = source.text("diffusion/data.py")
    for name in NAMES:
        arguments = omni_arguments([feature(name)], 2)
        for key, value in arguments.items():
            assert f'"{key}"' in source.text(engine), f"{name}: {key}"
            if isinstance(value, dict):
                owner = {"parallel_config": "DiffusionParallelConfig", "cache_config": "DiffusionCacheConfig"}[key]
                body = data[data.index(f"class {owner}") :]
                for inner in value:
                    assert re.search(rf"^    {inner}: ", body.split("\n@dataclass")[0], re.M), f"{name}: {key}.{inner}"


def _builds_stage(source: Source, path: str) -> bool:
    return (source.root / path).exists() and '"vae_use_slicing": kwargs.get' in source.text(path)


def test_compiling_the_whole_model_excludes_what_vllm_omni_refuses(source: Source) -> None:
    text = source.text("diffusion/data.py")
    begin = text.index('if self.diffusion_compile_granularity == "full"')
    refused = set(re.findall(r'"(HSDP|sequence parallelism|CPU offload|layerwise offload)"', text[begin:]))
    assert len(refused) == 4
    mine = {"hsdp", "ulysses", "ring", "cpu_offload", "layerwise_offload"}
    assert set(feature("compile_full").conflicts) == {*mine, "eager"}


def test_quantised_integers_are_left_out_of_hsdp(source: Source) -> None:
    assert "param.is_floating_point()" in source.text("diffusion/distributed/hsdp.py")
    assert find_conflict(features("int8", "hsdp"))
    assert not find_conflict(features("fp8", "hsdp"))


# --- the files themselves ---


@pytest.mark.parametrize("name", NAMES)
def test_every_feature_file_is_complete_for_the_engines_that_it_names(name: str) -> None:
    one = feature(name)
    assert one.summary
    assert one.engines
    assert one.evidence in RULES or one.evidence.split()[0] in COMPARISONS
    for other in {*one.conflicts, *one.requires}:
        assert other in NAMES, other
    assert set(one.families) <= set(one.engines)
    for family in set(CODE) - supported(name):
        why = unsupported_reason([one], "vllm_omni", Model(name=family, family=family))
        assert why is not None
        assert "its file names no" not in why, f"{name} gives no reason for {family}"
    if "diffusers" not in one.engines:
        assert unsupported_reason([one], "diffusers", Model()) == f"{name} is not available with engine diffusers"


def test_reasons_are_those_of_the_engine_and_of_the_family() -> None:
    zimage = Model(name="z_image", family="z_image")
    for engine, why in (
        ("vllm_omni", "Z-Image runs both branches in one forward and does not split them"),
        ("diffusers", "the diffusers engine splits the branches of GLM-Image and Qwen-Image only"),
    ):
        told = unsupported_reason(features("cfg_parallel"), engine, zimage)
        assert told == f"cfg_parallel does not support z_image: {why}"


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
            assert omni_arguments(chosen, 2), pair


# --- rules ---


def test_arguments_of_a_combination_are_merged_key_by_key() -> None:
    assert omni_arguments(features("cfg_parallel", "ulysses", "teacache"), 4) == {
        "parallel_config": {"cfg_parallel_size": 2, "ulysses_degree": 2},
        "cache_backend": "tea_cache",
        "cache_config": {"rel_l1_thresh": 0.2},
    }


def test_two_values_for_one_argument_are_refused_with_both_names() -> None:
    with pytest.raises(ConfigError, match=r"cache_dit and teacache set vLLM-Omni's cache_backend to different values"):
        omni_arguments(features("teacache", "cache_dit"), 1)
    one, two = (Feature(name=n, engines={"vllm_omni": {"a": {"b": v}}}) for n, v in (("one", 1), ("two", {"c": 2})))
    for pair in ((one, two), (two, one)):
        with pytest.raises(ConfigError, match=rf"{pair[0].name} and {pair[1].name} set vLLM-Omni's a\.b to different"):
            omni_arguments(pair, 1)


def test_hsdp_uses_the_ranks_of_the_others_and_brings_its_own_when_alone() -> None:
    for names, ranks in (
        (("hsdp",), 2),
        (("hsdp", "cfg_parallel"), 2),
        (("hsdp", "cfg_parallel", "ulysses"), 4),
        (("vae_patch_parallel", "tp"), 2),
    ):
        chosen = features(*names)
        assert gpus_needed(chosen) == ranks
        parallel = omni_arguments(chosen, gpus_needed(chosen))["parallel_config"]
        assert parallel.get("hsdp_shard_size", parallel.get("vae_patch_parallel_size")) == ranks
    assert cell(["hsdp", "cfg_parallel"]).gpus == 2
    wide = cell(["hsdp", "cfg_parallel"], feature__hsdp__gpus=4)
    assert wide.skip == "hsdp needs 4 ranks, the other features bring 2"


def test_a_feature_without_what_it_builds_on_is_skipped() -> None:
    told = "vae_patch_parallel needs one of cfg_parallel, ulysses, ring, tp, hsdp (it uses their ranks)"
    assert cell(["vae_patch_parallel"]).skip == told
    assert cell(["vae_patch_parallel", "hsdp"]).skip == ""


def test_attention_heads_must_divide_into_whole_numbers() -> None:
    zimage = Model(name="z_image", family="z_image", dit=Stack(heads=30))
    assert unsupported_reason(features("tp"), "vllm_omni", zimage) is None
    told = "tp and ulysses cut attention into 4 parts, z_image has 30 heads"
    assert unsupported_reason(features("tp", "ulysses"), "vllm_omni", zimage) == told
    assert unsupported_reason(features("ring", "tp"), "vllm_omni", zimage) is None, "ring leaves heads whole"
    thirds = Model(name="toy", family="qwen_image", dit=Stack(heads=3))
    assert unsupported_reason(features("ulysses"), "vllm_omni", thirds)
    assert unsupported_reason(features("ulysses"), "diffusers", thirds) is None, "diffusers pads heads"


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
    with pytest.raises(ConfigError, match=r"only engine vllm_omni takes further arguments"):
        EngineConfig(args={"seed": 1})
    with pytest.raises(ConfigError, match=r"engine.placement=apart: choose shared or split"):
        EngineConfig(placement="apart")
    with pytest.raises(ConfigError, match=r"batch=9: .* at most 8 .* raise it with engine.max_num_seqs=9"):
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
    assert (work.num_prompts, work.steps, work.repeats, work.width) == (8, 20, 1, 1024)
    wanted = plan.pairs_and_more([(name,) for name in axes["feature"]], made.combine)
    assert len(wanted) == combinations
    for names in wanted:
        chosen = features(*names)
        why = find_conflict(chosen) or unsupported_reason(chosen, "vllm_omni", made.model)
        assert bool(why) == ("+".join(names) in skipped), why
        assert gpus_needed(chosen) <= (made.parallel.gpus or 4)
    assert {int(batch) for batch in axes.get("batch", ["1"])} <= {1, 2, 4}
