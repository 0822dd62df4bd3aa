"""What the feature files say about vLLM-Omni holds against the real source of the supported versions."""

import functools
import importlib.util
import re
from pathlib import Path

import pytest

from sweep.config.run import CONF
from sweep.engines.vllm_omni.arguments import arguments
from sweep.plan.features import find_conflict
from tests.shipped import FAMILIES, NAMES, composing, feature, features, supported
from tests.wheels import VERSIONS, wheel_source

__all__ = ["composing"]  # a fixture

CODE = {  # family: file and class of its pipeline and of its DiT, under vllm_omni/diffusion/models
    "bagel": ("bagel/pipeline_bagel", "BagelPipeline", "bagel/bagel_transformer", "Qwen2MoTModel"),
    "flux": ("flux/pipeline_flux", "FluxPipeline", "flux/flux_transformer", "FluxTransformer2DModel"),
    "flux2": ("flux2/pipeline_flux2", "Flux2Pipeline", "flux2/flux2_transformer", "Flux2Transformer2DModel"),
    "flux2_klein": (
        *("flux2_klein/pipeline_flux2_klein", "Flux2KleinPipeline"),
        *("flux2_klein/flux2_klein_transformer", "Flux2Transformer2DModel"),
    ),
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


def test_families_of_the_models_are_those_whose_source_is_read() -> None:
    assert set(CODE) == FAMILIES


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
        ("data_parallel", "_layerwise_offload_blocks_attrs"),
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


def test_sea_cache_is_for_a_video_model_alone(source: Source) -> None:
    file = "diffusion/cache/seacache/backend.py"
    if (source.root / file).is_file():
        served = source.names_between(file, "CUSTOM_SEACACHE_ENABLERS =", "\n}")
        assert served
        assert {f for f, code in CODE.items() if code[1] in served} == set()
    assert supported("sea_cache") == set()


def test_adapters_are_for_dits_that_tell_which_layers_they_fuse(source: Source) -> None:
    told = {f for f, code in CODE.items() if "self.stacked_params_mapping = " in source.model(code[2])}
    assert supported("lora") == told
    worker = source.text("diffusion/worker/diffusion_worker.py")
    assert "set_active_adapter(req.sampling_params.lora_request" in worker, "a request without one deactivates it"


def test_prompts_are_cached_for_pipelines_that_encode_text_alone(source: Source) -> None:
    encoding = {f for f in CODE if re.search(r"^    def encode_prompt\(", source.pipeline(f), re.M)}
    seeing = {f for f in encoding if re.search(r"def encode_prompt\([^)]*\bimage: ", source.pipeline(f))}
    assert supported("prompt_embed_cache") == encoding - seeing
    assert {"hits", "enabled"} <= set(
        re.findall(r"self\.(\w+) = ", source.text("diffusion/cache/prompt_embed_cache.py"))
    )


def test_masks_and_series_are_those_that_cache_dit_is_given(source: Source) -> None:
    text = source.text("diffusion/cache/cachedit/config.py")
    for name in ("scm_steps_mask_policy", "scm_steps_policy", "enable_taylorseer", "taylorseer_order"):
        assert f"{name}=config.{name}" in text
    refresh = source.text("diffusion/cache/cachedit/backend.py")
    assert "num_inference_steps >= 8 or num_inference_steps in (4, 6)" in refresh


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
    """0.26 silently drops unknown names."""
    engine = next(p for p in ("engine/async_omni_engine.py", "engine/omni_engine_base.py") if _builds_stage(source, p))
    data = source.text("diffusion/data.py")
    for name in NAMES:
        for key, value in arguments([feature(name)], 2).items():
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
    unseen = {"cache_dit", "mag_cache", "step_cache", "teacache"}  # no block of one graph can be counted
    assert set(feature("compile_full").conflicts) == {*mine, *unseen, "eager"}


def test_quantised_integers_are_left_out_of_hsdp(source: Source) -> None:
    assert "param.is_floating_point()" in source.text("diffusion/distributed/hsdp.py")
    assert find_conflict(features("int8", "hsdp"))
    assert not find_conflict(features("fp8", "hsdp"))
