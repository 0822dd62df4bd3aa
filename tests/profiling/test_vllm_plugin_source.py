"""What the plugin hooks and reads exists in the real source of the versions of vLLM-Omni that we support."""

import ast
import functools
import re

import pytest

from profiling import image_tokens
from profiling.vllm_plugin import pipeline_facts
from profiling.vllm_plugin.diffusion import DUMMY
from profiling.vllm_plugin.hooks import HOOKS
from tests.wheels import VERSIONS, wheel_source

SINCE = {"vllm_omni.worker_v2.omni_ar_model_runner": "0.30.0"}
"""Modules that older versions lack."""

MODELS = {  # folder of a transformer's file, its class and the lists that hold its blocks
    "qwen_image/qwen_image_transformer": ("QwenImageTransformer2DModel", {"transformer_blocks"}),
    "glm_image/glm_image_transformer": ("GlmImageTransformer2DModel", {"transformer_blocks"}),
    "z_image/z_image_transformer": ("ZImageTransformer2DModel", {"noise_refiner", "context_refiner", "layers"}),
    "flux/flux_transformer": ("FluxTransformer2DModel", {"transformer_blocks", "single_transformer_blocks"}),
    "flux2_klein/flux2_klein_transformer": (
        "Flux2Transformer2DModel",
        {"transformer_blocks", "single_transformer_blocks"},
    ),
    "flux2/flux2_transformer": ("Flux2Transformer2DModel", {"transformer_blocks", "single_transformer_blocks"}),
    "sd3/sd3_transformer": ("SD3Transformer2DModel", {"transformer_blocks"}),
    "longcat_image/longcat_image_transformer": (
        "LongCatImageTransformer2DModel",
        {"transformer_blocks", "single_transformer_blocks"},
    ),
}

every_version = pytest.mark.parametrize("version", VERSIONS)


@functools.cache
def text(version: str, module: str) -> str:
    """A module's source; a failure names what is missing."""
    path = wheel_source(version) / f"{module.replace('.', '/')}.py"
    assert path.is_file(), f"{module} is not in {version}"
    return path.read_text()


@functools.cache
def classes(version: str, module: str) -> dict[str, ast.ClassDef]:
    """Classes of a module by name."""
    return {node.name: node for node in ast.walk(ast.parse(text(version, module))) if isinstance(node, ast.ClassDef)}


def method(version: str, module: str, cls: str, name: str) -> ast.FunctionDef | ast.AsyncFunctionDef:
    """A method of a class or of the first base in the same module that has it."""
    node: ast.ClassDef | None = classes(version, module)[cls]
    while node is not None:
        for member in node.body:
            if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef) and member.name == name:
                return member
        bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
        node = next((classes(version, module)[base] for base in bases if base in classes(version, module)), None)
    raise AssertionError(f"{cls}.{name} is not in {module} of {version}")


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """Names of its positional parameters."""
    return [argument.arg for argument in function.args.args]


def assigned(version: str, module: str, cls: str) -> set[str]:
    """Attributes that the methods of a class give to `self`."""
    nodes = ast.walk(classes(version, module)[cls])
    targets = [
        target
        for node in nodes
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
    ]
    return {t.attr for t in targets if isinstance(t, ast.Attribute) and getattr(t.value, "id", "") == "self"}


def fields(version: str, module: str, cls: str) -> set[str]:
    """Fields that a dataclass declares."""
    body = classes(version, module)[cls].body
    return {node.target.id for node in body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)}


@every_version
@pytest.mark.parametrize("module", HOOKS)
def test_hooked_classes_exist(version: str, module: str) -> None:
    if version < SINCE.get(module, ""):
        pytest.skip(f"from {SINCE[module]} on")
    assert HOOKS[module][0] in classes(version, module)


@every_version
def test_the_diffusion_runner_is_as_we_wrap_it(version: str) -> None:
    module = "vllm_omni.diffusion.worker.diffusion_model_runner"
    method(version, module, "DiffusionModelRunner", "load_model")
    stepwise = method(version, module, "DiffusionModelRunner", "execute_stepwise")
    assert parameters(stepwise) == ["self", "scheduler_output"]
    source = text(version, module)
    assert "self.pipeline.forward(batch)" in source  # on the instance, so that what we put there is called
    assert "scheduler_output.scheduled_new_reqs" in source
    assert {"pipeline", "cache_backend", "od_config", "device", "state_cache"} <= assigned(
        version, module, "DiffusionModelRunner"
    )
    batch = "vllm_omni.diffusion.worker.request_batch"
    for name in ("request_ids", "is_dummy_run"):
        method(version, batch, "DiffusionRequestBatch", name)
    assert "requests" in fields(version, batch, "DiffusionRequestBatch")
    assert "sampling_params" in fields(version, "vllm_omni.diffusion.request", "OmniDiffusionRequest")
    assert {"height", "width"} <= fields(version, "vllm_omni.inputs.data", "OmniDiffusionSamplingParams")
    assert f'DUMMY_DIFFUSION_REQUEST_ID = "{DUMMY}"' in text(version, "vllm_omni.diffusion.request")


@every_version
def test_ar_runners_are_as_we_wrap_them(version: str) -> None:
    modules = ["vllm_omni.worker.gpu_ar_model_runner"]
    modules += [name for name, since in SINCE.items() if version >= since]
    for module in modules:
        cls = HOOKS[module][0]
        assert parameters(method(version, module, cls, "execute_model"))[:2] == ["self", "scheduler_output"]
        assert parameters(method(version, module, cls, "sample_tokens")) == ["self", "grammar_output"]


@every_version
def test_what_stages_send_to_one_another_is_counted_where_it_passes(version: str) -> None:
    client = "vllm_omni.diffusion.stage_diffusion_client"
    assert parameters(method(version, client, "StageDiffusionClient", "add_request_async"))[:2] == [
        "self",
        "request_id",
    ]
    assert "self._encoder.encode(" in text(version, client)
    serialization = "vllm_omni.distributed.omni_connectors.utils.serialization"
    assert parameters(method(version, serialization, "OmniMsgpackEncoder", "encode")) == ["self", "obj"]
    manager = "vllm_omni.distributed.omni_connectors.kv_transfer_manager"
    method(version, manager, "OmniKVTransferManager", "_transfer_with_retry")
    source = text(version, manager)
    assert "return success, size, metadata" in source
    assert "self.connector.put(" in source


@every_version
def test_the_hand_over_is_as_we_wrap_it(version: str) -> None:
    module = "vllm_omni.engine.orchestrator"
    forward = method(version, module, "Orchestrator", "_forward_to_next_stage")
    assert isinstance(forward, ast.AsyncFunctionDef)
    assert parameters(forward) == ["self", "req_id", "src_stage_id", "output", "req_state"]
    source = text(version, module)
    for used in ("next_pool.stage_type", "req_state.stage_submit_ts[next_logical]", "req_state.prompt"):
        assert used in source
    assert "next_client.custom_process_input_func" in source
    assert "next_client = next_pool.stage_client" in source


@every_version
def test_glm_images_ids_have_the_layout_that_we_slice(version: str) -> None:
    source = text(version, "vllm_omni.model_executor.stage_input_processors.glm_image")
    assert "output.cumulative_token_ids" in source
    assert f"eos_token_id = {image_tokens.END}" in source
    assert f"factor: int = {image_tokens.FACTOR}" in source
    assert "small_token_h = max(1, int(math.sqrt(ratio) * (factor // 2)))" in source
    assert "large_start = small_image_tokens" in source
    pipeline = text(version, "vllm_omni.diffusion.models.glm_image.pipeline_glm_image")
    assert "hidden_states=latent_model_input" in pipeline
    assert "prior_token_id=prior_token_id" in pipeline
    assert "kv_cache=kv_caches" in pipeline
    transformer = text(version, "vllm_omni.diffusion.models.glm_image.glm_image_transformer")
    assert re.search(r'WRITE = "write"', transformer)


@every_version
def test_hooks_and_compilation_lie_inside_of_a_call(version: str) -> None:
    hooks = text(version, "vllm_omni.diffusion.hooks.base")
    for used in ("_hook_registry", "module.forward = wrapped", "_new_fwd_impl_hook", "fn_ref.original_forward"):
        assert used in hooks
    assert "_hooks" in assigned(version, "vllm_omni.diffusion.hooks.base", "HookRegistry")
    assert "submod.forward = compiled_forward" in text(version, "vllm_omni.diffusion.compile")
    runner = text(version, "vllm_omni.diffusion.worker.diffusion_model_runner")
    assert "model.compile(dynamic=compile_dynamic)" in runner
    cache = text(version, "vllm_omni.diffusion.cache.magcache.hook")
    assert "self.fn_ref.original_forward(*args, **kwargs)" in cache
    offload = text(version, "vllm_omni.diffusion.offloader.layerwise_backend")
    for used in ("self.next_block_parameters", "self.dtype_metadata", '"numel"', '"name"'):
        assert used in offload


@every_version
def test_what_is_read_back_exists(version: str) -> None:
    attention = assigned(version, "vllm_omni.diffusion.attention.layer", "Attention")
    assert {"attn_backend", "attn_impl_cls", "attention", "sdpa_fallback", "ring_runner", "use_ring"} <= attention
    assert "skip_sequence_parallel" in attention
    registry = text(version, "vllm_omni.diffusion.attention.backends.registry")
    assert f"    {pipeline_facts.FALLBACK} = " in registry
    assert "def get_path(self" in registry
    state = text(version, pipeline_facts.PARALLEL_STATE)
    coordinator = text(version, "vllm_omni.diffusion.distributed.group_coordinator")
    for module, function, attribute in pipeline_facts.GROUPS.values():
        assert f"self.{attribute}" in coordinator
        assert f"def {function}(" in state or module == pipeline_facts.VLLM_PARALLEL_STATE
    assert "vllm_parallel_state._TP = " in state
    executor = "vllm_omni.diffusion.distributed.autoencoders.distributed_vae_executor"
    assert "distributed_executor" in assigned(version, executor, "DistributedVaeMixin")
    method(version, executor, "DistributedVaeExecutor", "execute")
    method(version, "vllm_omni.diffusion.cache.base", "CacheBackend", "is_enabled")


@every_version
def test_bagel_denoises_as_we_watch_it(version: str) -> None:
    module = "vllm_omni.diffusion.models.bagel.bagel_transformer"
    for name in ("forward", "forward_single_branch"):
        assert "timestep" in parameters(method(version, module, "Bagel", name))
    language = parameters(method(version, module, "Qwen2MoTModel", "forward"))
    assert {"update_past_key_values", "return_embeddings_only"} <= set(language)
    source = text(version, module)
    assert "outputs = self.model(" in source
    assert "update_past_key_values=update_past_key_values," in source
    assert "self.bagel = Bagel(" in text(version, "vllm_omni.diffusion.models.bagel.pipeline_bagel")


@every_version
@pytest.mark.parametrize("model", MODELS)
def test_blocks_are_those_that_the_transformer_names(version: str, model: str) -> None:
    """The lists whose members are of a class in `_repeated_blocks`, or that are named for offloading."""
    name, expected = MODELS[model]
    node = classes(version, f"vllm_omni.diffusion.models.{model.replace('/', '.')}")[name]
    declared: dict[str, list[str]] = {}
    for member in node.body:
        target = member.targets[0] if isinstance(member, ast.Assign) else getattr(member, "target", None)
        value = getattr(member, "value", None)
        if isinstance(target, ast.Name) and target.id.startswith(("_repeated", "_layerwise")) and value is not None:
            declared[target.id] = ast.literal_eval(value)
    named = set(declared.get("_layerwise_offload_blocks_attrs", []))
    repeated = set(declared.get("_repeated_blocks", []))
    lists: dict[str, set[str]] = {}
    for assign in (one for one in ast.walk(node) if isinstance(one, ast.Assign)):
        target, value = assign.targets[0], assign.value
        if isinstance(target, ast.Attribute) and "ModuleList(" in ast.unparse(value):
            calls = {ast.unparse(one.func) for one in ast.walk(value) if isinstance(one, ast.Call)}
            lists[target.attr] = calls
    assert {attribute for attribute, calls in lists.items() if attribute in named or calls & repeated} == expected


@every_version
def test_the_plugin_is_loaded_in_every_process(version: str) -> None:
    plugins = text(version, "vllm_omni.plugins.__init__")
    assert 'OMNI_DEFAULT_PLUGINS_GROUP = "vllm_omni.general_plugins"' in plugins
    for module in (
        "vllm_omni.diffusion.worker.diffusion_worker",
        "vllm_omni.worker.mixins",
        "vllm_omni.engine.stage_init_utils",
    ):
        assert "load_omni_general_plugins()" in text(version, module)
