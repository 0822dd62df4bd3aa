"""What the engine vllm_omni cannot do with a model is a SKIP of the plan, on a machine without a GPU as well."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from sweep.config.run import CONF, INSTALLED, register
from sweep.plan import preflight
from sweep.plan.preflight import cell_from, how_to_install
from sweep.refusals import ConfigError
from tests.conftest import Finished


def skip_of(*overrides: str) -> str:
    """Code of the skip; "" when the cell runs."""
    register()
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        skip = cell_from(compose("config", list(overrides))).skip
        return skip.code if skip else ""


def test_a_file_that_an_option_names_is_part_of_the_key(tmp_path: Path) -> None:
    stages = tmp_path / "stages.yaml"
    options = f"+engine.args.deploy_config={stages}", f"+engine.args.too_long_for_a_path={'x' * 300}"
    register()

    def key() -> str:
        preflight._fingerprint.cache_clear()
        with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
            return cell_from(compose("config", ["engine=vllm_omni", "model=glm_image", *options])).key

    keys = [key()]
    for text in ("one", "two"):
        stages.write_text(text)
        keys.append(key())
    assert len(set(keys)) == 3
    assert key() == keys[-1]


def test_glm_image_is_not_asked_for_edits() -> None:
    assert skip_of("engine=vllm_omni", "model=glm_image", "workload=image_edit") == "task_not_in_engine"


@pytest.mark.parametrize(
    "asked",
    [
        ("engine=vllm_omni", "model=glm_image"),
        ("engine=vllm_omni", "model=qwen_image_edit", "workload=image_edit"),
        ("engine=diffusers", "model=glm_image", "workload=image_edit"),
    ],
)
def test_other_work_is_not_refused(asked: tuple[str, ...]) -> None:
    """It may need a GPU, a package or a checkpoint that this machine has not."""
    with contextlib.suppress(ConfigError):
        assert skip_of(*asked) not in ("task_not_in_engine", "model_not_in_engine")


@pytest.mark.parametrize(
    ("engine", "model", "tokens", "code"),
    [
        ("diffusers", "tiny_qwen_image", 1024, ""),
        ("diffusers", "tiny_qwen_image", 1025, "prompt_too_long"),
        ("diffusers", "tiny_glm_image", 2560, ""),
        ("vllm_omni", "qwen_image", 2048, "prompt_too_long"),
        ("vllm_omni", "qwen_image_edit", 2560, "prompt_too_long"),
    ],
)
def test_a_prompt_longer_than_the_pipeline_reads_is_skipped(engine: str, model: str, tokens: int, code: str) -> None:
    task = ("workload=image_edit",) if "edit" in model else ()
    asked = (f"engine={engine}", f"model={model}", *task, f"workload.prompt_tokens={tokens}")
    assert skip_of(*asked) == code


def test_native_edits_read_prompts_of_any_length() -> None:
    run = ("engine=diffusers", "engine.device=cpu", "model=qwen_image_edit", "workload=image_edit")
    with pytest.raises(ConfigError, match=r"model\.path"):  # all that is missing is a checkpoint
        skip_of(*run, "workload.prompt_tokens=2560")


@pytest.mark.parametrize(
    ("pipeline", "batch", "code"),
    [
        ("QwenImageEditPipeline", 2, ""),
        ("QwenImageEditPlusPipeline", 1, ""),
        ("QwenImageEditPlusPipeline", 2, "one_at_a_time"),
    ],
)
def test_a_native_pipeline_that_takes_one_request_at_a_time_has_no_batches(
    pipeline: str, batch: int, code: str, tmp_path: Path
) -> None:
    (tmp_path / "model_index.json").write_text(f'{{"_class_name": "{pipeline}"}}')
    asked = ("engine=diffusers", "engine.device=cpu", "model=qwen_image_edit", f"model.path={tmp_path}")
    assert skip_of(*asked, "workload=image_edit", f"batch={batch}") == code


def test_the_embedded_model_still_edits() -> None:
    assert skip_of("model=tiny_glm_image", "workload=image_edit") == ""


def test_models_whose_stages_are_not_started_say_so() -> None:
    assert skip_of("engine=vllm_omni", "model=hunyuan_image3") == "model_not_in_engine"
    assert skip_of("engine=vllm_omni", "model=bagel", "workload=image_edit_1024") == "task_not_in_engine"
    with contextlib.suppress(ConfigError):  # it may need a GPU, a package or a checkpoint
        assert skip_of("engine=vllm_omni", "model=bagel", "workload=image_1024") != "model_not_in_engine"


def test_the_plan_says_so(sweep: Callable[..., Finished]) -> None:
    done = sweep("-m", "engine=vllm_omni", "model=glm_image", "workload=image_edit", "batch=1,2", "dry_run=true")
    assert done.code == 0, done.err
    assert "SKIP baseline b1, b2: " in " ".join(done.out.split())


def test_what_to_install_is_told_for_a_checkout_and_for_a_package() -> None:
    assert how_to_install("vllm_omni", installed=False) == "pip install -e '.[vllm-omni]' in the checkout"
    assert how_to_install("vllm_omni", installed=True) == "pip install 'gen-sweep[vllm-omni]'"
    assert 'name = "gen-sweep"' in (CONF.parent / "pyproject.toml").read_text()
    assert not INSTALLED
