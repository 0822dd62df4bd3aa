"""How vLLM-Omni's versions differ at run time: its real modules, on stand-ins for what they import."""

import builtins
import dataclasses
import importlib.metadata
import json
import logging
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from sweep.engines.protocol import EngineSpec
from sweep.engines.vllm_omni import engine, stages
from sweep.engines.vllm_omni.adapter_requests import name_adapter
from sweep.engines.vllm_omni.option_source import Source
from sweep.engines.vllm_omni.versions import V026, V030, Generated, StageTimes, Version, adapter
from tests.wheels import VERSIONS, wheel_source


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def package(version: str) -> Path:
    return wheel_source(version) / "vllm_omni"


class Anything(type):
    """A class of which every attribute is one more of its kind, for names that are imported and not used."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything(name, (), {})


def load(package: Path, path: str, **given: Any) -> ModuleType:
    """A module of `package`, executed with `given` and stand-ins for what it imports from other packages."""
    text = (package / path).read_text()
    module = ModuleType("real_" + re.sub(r"\W", "_", f"{package.parent.name}_{path}"))
    stand_ins = {"init_logger": logging.getLogger, **given}

    def import_stand_in(name: str, *arguments: Any) -> Any:
        if name.partition(".")[0] in {*sys.stdlib_module_names, "PIL"}:
            return builtins.__import__(name, *arguments)
        fake = ModuleType(name)
        fake.__dict__["__getattr__"] = lambda item: stand_ins.setdefault(item, Anything(item, (), {}))
        return fake

    module.__dict__["__builtins__"] = {**vars(builtins), "__import__": import_stand_in}
    sys.modules[module.__name__] = module  # dataclasses look their module up
    try:
        exec(compile(text, str(package / path), "exec"), module.__dict__)
    finally:
        del sys.modules[module.__name__]
    return module


class RequestOutput:
    """Stand-in for vLLM's."""


@dataclasses.dataclass
class RunnerOutput:
    """Stand-in for vLLM's ModelRunnerOutput."""


@pytest.fixture
def real_output(package: Path) -> Any:
    """The real OmniRequestOutput."""
    module = load(package, "outputs/__init__.py", RequestOutput=RequestOutput, ModelRunnerOutput=RunnerOutput)
    return module.OmniRequestOutput


@pytest.fixture
def real_metrics(package: Path) -> dict[str, Any]:
    """`metrics` of an output: an AR stage and a DiT stage as the real aggregator reports them."""
    helpers = {name: value for name, value in vars(load(package, "metrics/utils.py")).items() if name != "__builtins__"}
    stats = load(package, "metrics/stats.py", **helpers, definitions=load(package, "metrics/definitions.py"))
    measured = {field.name: 0 for field in dataclasses.fields(stats.StageRequestStats)}
    unmeasured = {"pipeline_timings": None, "diffusion_metrics": None, "stage_stats": None}
    ar = {"stage_gen_time_ms": 2500.0, "num_tokens_in": 97, "num_tokens_out": 1281, "vllm_ttft_ms": 20.0}
    told = {}
    for stage, values in enumerate(({**ar, "vllm_tpot_ms": 2.0}, {"stage_gen_time_ms": 800.0})):
        event = stats.StageRequestStats(**(measured | unmeasured | values | {"stage_id": stage}))
        for lists in ("inter_output_latencies_ms", "vllm_itls_ms"):
            setattr(event, lists, [])
        told[str(stage)] = stats.OrchestratorAggregator._merge_stage_metric_event(None, event)
    return {"stage_metrics": told, "stage_id": 1, "num_tokens_out": 0}


def wrap(real_output: Any, version: str, request_id: str, image: Image.Image, metrics: dict[str, Any]) -> Any:
    """An output as `OmniBase._process_single_result` of that version builds it from a diffusion stage's."""
    inner = real_output.from_diffusion(
        request_id=request_id,
        images=[image],
        metrics={"image_num": 1},
    )
    outer = {
        "request_id": request_id,
        "stage_id": 1,
        "final_output_type": "image",
        "metrics": metrics,
    }
    if version == "0.26.0":
        return real_output(request_output=inner, **outer)
    return real_output.from_stage_output(inner, **outer)


def test_real_outputs_are_read(version: str, real_output: Any, real_metrics: dict[str, Any]) -> None:
    image = Image.new("RGB", (2, 2), (7, 0, 0))
    one = adapter(version).read([wrap(real_output, version, "0_a", image, real_metrics)])
    assert (one.images, one.error) == ((image,), "")
    assert (one.ttft_ms, one.tpot_ms, one.output_tokens) == (20.0, 2.0, 1281)
    assert one.stages[1].ttft_ms is None  # zero is how it says that there was none


def test_a_real_error_is_read(version: str, real_output: Any) -> None:
    one = adapter(version).read([real_output.from_error("0_a", "CUDA out of memory")])
    assert (one.images, one.error, one.stages, one.ttft_ms) == ((), "CUDA out of memory", (), None)


def test_the_image_counts_and_not_an_earlier_stages_output(version: str, real_output: Any) -> None:
    image = Image.new("RGB", (2, 2))
    text = real_output(request_id="0_a", stage_id=0, final_output_type="text")
    painted = wrap(real_output, version, "0_a", image, {})
    for outputs in ([text, painted], [painted, text]):
        assert adapter(version).read(outputs).images == (image,)


@dataclasses.dataclass
class Parameters:
    """Stand-in for vLLM's SamplingParams and for OmniDiffusionSamplingParams."""

    seed: int
    output_kind: str = "cumulative"


class Engine:
    """Stand-in for AsyncOmniEngine: paints the seed that a request came with, and finishes the last one first."""

    def __init__(self, paint: Callable[[str, int], Any]) -> None:
        self.paint = paint
        self.requests: list[tuple[str, Any, Sequence[Parameters]]] = []
        self.stage_clients: list[Any] = []

    def add_request(
        self, request_id: str, prompt: Any, prompt_text: Any = None, sampling_params_list: Any = None, **_: Any
    ) -> None:
        self.requests.append((request_id, prompt, sampling_params_list))

    def get_stage_metadata(self, stage: int) -> Any:
        return SimpleNamespace(stage_type="llm" if stage == 0 else "diffusion")

    def outputs(self) -> Iterator[Any]:
        for request_id, _, parameters in reversed(self.requests):
            yield SimpleNamespace(output=self.paint(request_id, parameters[-1].seed), request_id=request_id)


class Base:
    """Stand-in for OmniBase: what the real `Omni.generate` calls."""

    num_stages = 2
    log_stats = True

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.request_states: dict[str, Any] = {}
        self.closed = False

    def resolve_sampling_params_list(self, parameters: Sequence[Parameters]) -> Sequence[Parameters]:
        assert len(parameters) == self.num_stages
        return parameters

    def _maybe_expand_sampling_params(self, parameters: Any) -> Any:
        return parameters

    def _compute_final_stage_id(self, modalities: Any) -> int:
        return 1

    def _compute_final_output_stage_ids(self, modalities: Any) -> list[int]:
        return [1]

    def _get_pd_separation_pair(self) -> None:
        return None

    def _handle_output_message(self, message: Any) -> tuple[bool, str, int, Any]:
        return False, message.request_id, 1, self.request_states[message.request_id]

    def _check_engine_output_error(self, *_: Any) -> None:
        pass

    def _process_single_result(self, *, result: Any, **_: Any) -> Any:
        return result.output

    def _log_summary_and_cleanup(self, request_id: str) -> None:
        self.request_states.pop(request_id)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def omni(package: Path, version: str, real_output: Any) -> Any:
    """The real `Omni` on the stand-ins, without an engine start."""

    class State(SimpleNamespace):
        def __init__(self, request_id: str) -> None:
            super().__init__(request_id=request_id, metrics=None)

    def paint(request_id: str, seed: int) -> Any:
        return wrap(real_output, version, request_id, Image.new("RGB", (1, 1), (seed, 0, 0)), {})

    real = load(
        package,
        "entrypoints/omni.py",
        OmniBase=Base,
        ClientRequestState=State,
        RequestOutputKind=SimpleNamespace(DELTA="delta", FINAL_ONLY="final"),
        OrchestratorAggregator=lambda *_: SimpleNamespace(stage_first_ts={}),
        OutputMessage=SimpleNamespace,
    )
    engine = Engine(paint)
    made = real.Omni(engine)
    messages: list[Any] = []

    def next_message() -> Any:
        messages.extend([] if messages else engine.outputs())
        message = messages.pop(0)
        message.finished = True
        return message

    engine.try_get_output = next_message  # type: ignore[attr-defined]
    return made


def test_every_prompt_is_generated_with_its_own_seed(version: str, omni: Any) -> None:
    parameters = [[Parameters(seed), Parameters(seed)] for seed in (11, 22, 33)]
    made = adapter(version).generate(omni, ["a", "b", "c"], parameters)
    assert [one.images[0].getpixel((0, 0)) for one in made] == [(11, 0, 0), (22, 0, 0), (33, 0, 0)]
    given = [(prompt, [one.seed for one in own]) for _, prompt, own in omni.engine.requests]
    assert given == [("a", [11, 11]), ("b", [22, 22]), ("c", [33, 33])]
    # The AR stage sends one output at its end, as `Omni.generate` wants it, and the caller's objects stay as they were.
    assert {own[0].output_kind for _, _, own in omni.engine.requests} == {"final"}
    assert parameters[0][0].output_kind == "cumulative"
    assert "add_request" not in vars(omni.engine)


def test_ttft_counts_from_when_all_prompts_were_handed_over(version: str, omni: Any) -> None:
    """vLLM-Omni's own counts from when it takes a prompt, which is later for the last one of a batch."""
    made = adapter(version).generate(omni, ["a", "b"], [[Parameters(1), Parameters(1)], [Parameters(2), Parameters(2)]])
    assert 0 < made[0].given_ms < made[1].given_ms
    one = Generated(stages=(StageTimes(1281, 20.0, 2.0),), given_ms=5.0)
    assert (one.ttft_ms, one.tpot_ms) == (25.0, 2.0)
    assert Generated(stages=(StageTimes(1281, None, None),), given_ms=5.0).ttft_ms is None


def test_tpot_of_vllm_omni_is_ours(package: Path) -> None:
    text = (package / "outputs" / "output_processor.py").read_text()
    assert "output_intervals = stats.num_generation_tokens - 1" in text
    assert "decode_time_s = max(stats.last_token_ts - stats.first_token_ts, 0.0)" in text


def test_without_the_adapter_prompts_share_a_seed(omni: Any) -> None:
    """Why there is one: this is what the real generate() does on its own."""
    omni.generate(["a", "b"], [Parameters(11), Parameters(11)], use_tqdm=False)
    assert [own[1].seed for _, _, own in omni.engine.requests] == [11, 11]
    with pytest.raises(AssertionError):
        omni.generate(["a", "b"], [Parameters(11)] * 4, use_tqdm=False)


def test_a_generate_that_submits_otherwise_is_an_error_and_not_a_shared_seed(version: str, omni: Any) -> None:
    omni.generate = lambda *_, **__: []
    with pytest.raises(RuntimeError, match=r"vllm-omni .*sampling parameters"):
        adapter(version).generate(omni, ["a"], [[Parameters(1), Parameters(1)]])
    assert "add_request" not in vars(omni.engine)
    with pytest.raises(ValueError, match="2 prompts with 1 lists"):
        adapter(version).generate(omni, ["a", "b"], [[Parameters(1), Parameters(1)]])


@pytest.mark.parametrize(("gpus", "asked"), [(1, None), (1, "mp"), (2, None)])
def test_where_the_dit_runs_is_as_the_real_executor_chooses(
    version: str, package: Path, gpus: int, asked: str | None
) -> None:
    executor = load(package, "diffusion/executor/abstract.py").DiffusionExecutor
    config = SimpleNamespace(num_gpus=gpus, distributed_executor_backend=asked)
    in_process = executor.get_class(config).__name__ == "UniProcDiffusionExecutor"
    arguments = {} if asked is None else {"distributed_executor_backend": asked}
    assert adapter(version).dit_in_caller(1, gpus, arguments) is in_process
    assert not adapter(version).dit_in_caller(2, gpus, arguments)  # behind an AR stage it has a process of its own


def test_a_lone_stages_scheduler_is_where_set_batch_looks(version: str, package: Path) -> None:
    text = {
        path: (package / "diffusion" / path).read_text()
        for path in ("inline_stage_diffusion_client.py", "diffusion_engine.py", "sched/base_scheduler.py")
    }
    assert "self._engine = DiffusionEngine.make_engine(" in text["inline_stage_diffusion_client.py"]
    for attribute in ("self.scheduler = ", "self.dp_concurrent = ", "self.od_config = "):
        assert attribute in text["diffusion_engine.py"]
    assert "len(self._running) < self.max_num_running_reqs" in text["sched/base_scheduler.py"]
    made = SimpleNamespace(
        scheduler=SimpleNamespace(max_num_running_reqs=8),
        dp_concurrent=False,
        od_config=SimpleNamespace(max_num_seqs=8),
    )
    lone = SimpleNamespace(engine=SimpleNamespace(stage_clients=[SimpleNamespace(_engine=made)]))
    for size, expected in ((2, 2), (20, 8), (8, 8)):
        adapter(version).set_batch(lone, size)
        assert made.scheduler.max_num_running_reqs == expected
    adapter(version).set_batch(SimpleNamespace(engine=SimpleNamespace(stage_clients=[object()])), 2)


@pytest.fixture
def start(version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Load an engine of that version whose `Omni` starts nothing; gives the keywords that it was called with."""
    monkeypatch.setattr(engine, "ENVIRONMENT", {})
    monkeypatch.setattr(engine, "adapter", lambda: adapter(version))
    monkeypatch.setattr(Version, "omni_class", lambda self: lambda **given: given)
    monkeypatch.setattr(tempfile, "mkdtemp", lambda prefix, dir: str(tmp_path))

    def load_engine(family: str, arguments: dict[str, Any]) -> dict[str, Any]:
        spec = EngineSpec(
            *("vllm_omni", family, family, str(tmp_path), False, "cuda", "bfloat16", 1, 1),
            arguments=arguments,
            plugin=False,
        )
        made = engine.VllmOmniEngine(spec)
        made.load()
        return made._omni

    return load_engine


def test_features_reach_either_kind_of_model_by_names_that_the_version_does_not_warn_of(
    version: str, package: Path, start: Callable[..., dict[str, Any]]
) -> None:
    older = {"diffusion_attention_backend": "TORCH_SDPA", "static_lora_scale": 0.5}
    lone = start("qwen_image", older)
    deploy = json.loads(Path(start("glm_image", older)["deploy_config"]).read_text())
    diffusion = deploy["stages"][1]
    if version == "0.26.0":
        assert older.items() <= lone.items()
        assert older.items() <= diffusion.items()
        return
    data = load(
        package,
        "diffusion/data.py",
        model_validator=lambda **_: lambda function: function,
        Field=lambda default=None, **_: default,
        config=dataclasses.dataclass,
    )
    for given in (lone, {key: value for key, value in diffusion.items() if key not in ("stage_id", "devices")}):
        read = data.normalize_omni_diffusion_kwargs(given)  # a FutureWarning is an error here
        assert read["diffusion_attention_config"] == {"default": {"backend": "TORCH_SDPA"}}
        assert read["lora_scale"] == 0.5
    with pytest.warns(FutureWarning, match="'static_lora_scale' is deprecated"):
        data.normalize_omni_diffusion_kwargs({"static_lora_scale": 0.5})


@pytest.mark.parametrize(
    ("installed", "expected", "warns"),
    [
        ("0.26.0", V026, False),
        ("0.26.3", V026, False),
        ("0.30.0", V030, False),
        ("0.30.1rc1", V030, False),
        ("0.31.0rc1", V030, True),
        ("1.0.0", V030, True),
        ("0.24.0", V026, True),
        ("0.28.0", V026, True),
        ("0.29.1", V030, True),
        ("unknown", V026, True),
    ],
)
def test_the_closest_adapter_is_chosen(installed: str, expected: type[Version], warns: bool) -> None:
    chosen = adapter(installed)
    assert type(chosen) is expected
    assert chosen.name == installed
    assert bool(chosen.warning) is warns
    assert not warns or chosen.warning.startswith(f"vllm-omni {installed} ")


def test_no_version_is_said_clearly(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    adapter.cache_clear()
    with pytest.raises(ModuleNotFoundError, match="vllm-omni is not installed"):
        adapter()


@pytest.mark.parametrize(("height", "width"), [(1024, 1024), (768, 1376), (512, 512)])
def test_glm_image_asks_for_the_tokens_of_a_new_picture_and_not_of_an_edit(
    package: Path, tmp_path: Path, height: int, width: int
) -> None:
    """Why edits are skipped (`families.NO_EDITS`)."""
    real = load(package, "model_executor/stage_input_processors/glm_image.py").compute_max_tokens
    spec = EngineSpec("vllm_omni", "glm_image", "glm_image", "", False, "cuda", "bfloat16", 1, 1)
    preview, target = stages.GlmImage(spec, tmp_path).tokens(width, height)
    assert real(height, width) == preview + target + 1
    assert real(height, width, is_i2i=True) == target + 1


def test_the_class_that_is_imported_is_there(package: Path) -> None:
    assert Source(package).define("entrypoints/omni.py", "Omni.generate")


def test_seeds_do_not_keep_requests_out_of_a_batch(package: Path) -> None:
    keys = Source(package).fields("diffusion/sched/interface.py", "RequestBatchSamplingParamsKey")
    assert {"height", "width", "num_inference_steps", "true_cfg_scale"} <= keys
    assert not {"seed", "generator", "generator_device"} & keys


def test_every_request_names_the_adapter(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the number under which `lora_path` loads it: a request that names none deactivates it."""
    fields_of_request = {"lora_name", "lora_int_id", "lora_path"}
    monkeypatch.setitem(sys.modules, "vllm_omni.lora.utils", load(package, "lora/utils.py"))
    request = SimpleNamespace(LoRARequest=lambda **given: SimpleNamespace(**given))
    monkeypatch.setitem(sys.modules, "vllm_omni.lora.request", request)  # type: ignore[arg-type]
    parameters = SimpleNamespace(lora_request=None, lora_scale=1.0)
    name_adapter(parameters, {"lora_path": "/adapter", "lora_scale": 0.5})
    assert vars(parameters.lora_request).keys() == fields_of_request
    assert parameters.lora_request.lora_int_id == sys.modules["vllm_omni.lora.utils"].stable_lora_int_id("/adapter")
    assert parameters.lora_scale == 0.5
    fields = Source(package).fields("inputs/data.py", "OmniDiffusionSamplingParams")
    assert vars(parameters).keys() <= fields
    manager = (package / "diffusion/lora/manager.py").read_text()
    assert "lora_int_id=stable_lora_int_id(lora_path)" in manager
    plain = SimpleNamespace()
    name_adapter(plain, {})
    assert vars(plain) == {}
