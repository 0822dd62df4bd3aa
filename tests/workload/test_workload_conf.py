"""Every file of conf/model and conf/workload fits the schema, and its numbers agree with each other."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from sweep.checkpoints.recipe import FAMILIES
from sweep.config.model import Model, Stack
from sweep.config.workload import Workload
from sweep.workload.prompts import load_prompts

CONF = Path(__file__).resolve().parents[2] / "conf"
MODELS = sorted((CONF / "model").glob("*.yaml"))
WORKLOADS = sorted((CONF / "workload").glob("*.yaml"))
names = {"ids": lambda path: path.stem}


def model_of(path: Path) -> Model:
    model = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Model), OmegaConf.load(path)))
    assert isinstance(model, Model)
    return model


def workload_of(path: Path) -> Workload:
    workload = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Workload), OmegaConf.load(path)))
    assert isinstance(workload, Workload)
    return workload


def weights_b(stack: Stack) -> float:
    """Least parameters that the shape implies, billions: attention and a feed-forward of two matrices a layer."""
    attention = 2 * stack.hidden**2 * (1 + stack.kv_heads / stack.heads)
    return stack.layers * (attention + 2 * stack.hidden * stack.intermediate) / 1e9


def test_the_promised_models_and_workloads_are_there() -> None:
    asked = "tiny_glm_image tiny_qwen_image qwen_image qwen_image_edit glm_image bagel z_image flux"
    assert set(asked.split()) <= {path.stem for path in MODELS}
    asked = "text_to_image image_edit long_prompts image_1024 image_edit_1024 wide_1376x768"
    assert set(asked.split()) <= {path.stem for path in WORKLOADS}


@pytest.mark.parametrize("path", MODELS + WORKLOADS, **names)
def test_file_opens_with_a_comment_and_bears_its_name(path: Path) -> None:
    assert path.read_text(encoding="utf-8").startswith("# ")
    assert OmegaConf.load(path)["name"] == path.stem


@pytest.mark.parametrize("path", MODELS, **names)
def test_model_is_complete(path: Path) -> None:
    model = model_of(path)
    assert model.family
    assert model.summary
    assert model.source
    assert model.size_multiple % (model.vae_scale * model.patch) == 0
    if model.embedded:
        assert model.memory_gb == 0
        assert not model.repo
        return
    assert model.repo.count("/") == 1
    assert model.dit is not None
    assert model.path is None


@pytest.mark.parametrize("path", [p for p in MODELS if not p.stem.startswith("tiny")], **names)
def test_shapes_agree_with_parameters_and_memory(path: Path) -> None:
    model = model_of(path)
    stacks = [stack for stack in (model.ar, model.dit, model.text_encoder) if stack is not None]
    for stack in stacks:
        assert stack.heads % stack.kv_heads == 0
        # T5 (64 heads of 64 on 4,096; ByT5: 6 of 64 on 1,472) and Mistral have free head widths: no check of those.
        assert weights_b(stack) < stack.params_b * 1.1
    once = stacks[1:] if model.name == "hunyuan_image3" else stacks  # there AR and DiT share their weights
    counted_gb = 2 * sum(stack.params_b for stack in once)
    assert counted_gb * 0.99 <= model.memory_gb <= counted_gb * 1.1  # the rest: VAE, vision tower, CLIP


@pytest.mark.parametrize("path", [path for path in WORKLOADS if path.stem != "text"], **names)
def test_workload_is_valid_and_has_its_prompts(path: Path) -> None:
    workload = workload_of(path)
    assert workload.num_prompts is None, "else a file of prompts would be cut"
    assert len(load_prompts(workload)) == workload.shipped_prompts
    assert workload.width % 32 == 0
    assert workload.height % 32 == 0


@pytest.mark.parametrize(
    ("workload", "model", "fits"),
    [
        ("text_to_image", "tiny_glm_image", True),
        ("long_prompts", "tiny_qwen_image", True),
        ("image_edit", "tiny_glm_image", True),
        ("image_1024", "tiny_glm_image", False),
        ("image_edit_1024", "tiny_glm_image", False),
        ("image_edit_1024", "qwen_image_edit", True),
        ("image_1024", "bagel", True),
        ("wide_1376x768", "bagel", False),
        ("wide_1376x768", "qwen_image", True),
        ("wide_1376x768", "glm_image", True),
        ("text", "tiny_glm_image", True),
    ],
)
def test_which_model_takes_which_size(workload: str, model: str, fits: bool) -> None:
    work, taken = workload_of(CONF / f"workload/{workload}.yaml"), model_of(CONF / f"model/{model}.yaml")
    assert (work.width * work.height <= taken.max_pixels) is fits
    assert work.task in taken.tasks


@pytest.mark.parametrize("name", FAMILIES)
def test_a_checkpoint_at_real_widths_is_told_to_run_at_the_models_usual_size(name: str) -> None:
    work = workload_of(CONF / f"workload/{FAMILIES[name].workload}.yaml")
    assert (work.width, work.height, work.steps) == (1024, 1024, 20)
    assert work.task in model_of(CONF / f"model/{name}.yaml").tasks
