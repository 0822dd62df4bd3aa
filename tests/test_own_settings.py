"""A model's own steps and guidance take the place of a workload's; what the user writes overrides both."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from sweep.asked import asked
from sweep.config.run import RunConfig
from sweep.plan.plans import Plan
from sweep.refusals import ConfigError
from sweep.report.page.environment import described
from sweep.run.manifest import own_settings
from tests.conftest import Finished
from tests.shipped import cell, composed, composing

__all__ = ["composing"]  # a fixture


def used(model: str, workload: str = "image_1024", **changes: Any) -> tuple[int, float]:
    """Steps and guidance of a cell."""
    cfg = composed(f"model={model}", f"workload={workload}").copy()
    for key, value in changes.items():
        OmegaConf.update(cfg, key.replace("__", "."), value)
    run = OmegaConf.to_object(cfg)
    assert isinstance(run, RunConfig)
    return run.workload.steps, run.workload.guidance_scale


@pytest.mark.parametrize("workload", ["image_1024", "image_2048", "wide_1376x768"])
def test_models_that_say_nothing_run_a_workload_as_it_was(workload: str) -> None:
    for model in ("qwen_image", "glm_image", "bagel", "sd3_5_large"):
        assert used(model, workload) == (20, 4.0)
    assert used("tiny_glm_image", "text_to_image") == (20, 4.0)
    assert used("tiny_qwen_image", "long_prompts") == (8, 4.0)


def test_distilled_models_have_steps_and_guidance_of_their_own() -> None:
    assert used("z_image") == (8, 1.0)
    assert used("flux2_klein") == (4, 1.0)
    assert used("flux") == (20, 3.5)


def test_what_the_user_writes_goes_over_it() -> None:
    assert used("z_image", workload__steps=12) == (12, 1.0)
    assert used("flux2_klein", workload__guidance_scale=4.0) == (4, 4.0)


def test_other_fields_cannot_be_a_models_own() -> None:
    with pytest.raises(ConfigError, match=r"model\.own\.height=9: choose from steps, guidance_scale"):
        list(asked(("model=z_image", "+model.own.height=9", "engine=noop")))


def test_the_manifest_says_whose_they_are() -> None:
    cells = tuple(
        cell(composition=("model=z_image", "workload=image_1024"), **changes)
        for changes in ({}, {"workload__steps": 20})
    )
    own = own_settings(Plan(cells, ()))
    assert own == {"z_image": {"steps": {"8": "model", "20": "workload"}, "guidance_scale": {"1": "model"}}}
    assert (
        described({"own": own})["steps and guidance"]
        == "z_image: steps 8 (model) and 20 (workload), guidance scale 1 (model)"
    )
    assert own_settings(Plan((cell(composition=("model=qwen_image", "workload=image_1024")),), ())) == {}
    assert described({"own": "?"})["steps and guidance"] == ""


def test_a_checkpoint_is_found_in_the_hub_cache_by_its_id(
    tmp_path: Path, sweep: Callable[..., Finished], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without network; the weights of FLUX.2-klein's own repository name."""
    repository = tmp_path / "cache" / "models--black-forest-labs--FLUX.2-klein-4B"
    snapshot = repository / "snapshots" / "0123456789abcdef"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123456789abcdef")
    (snapshot / "model_index.json").write_text("{}")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    own = ("engine=noop", "model=flux2_klein", "workload=image_1024", "workload.num_prompts=1", "plots=false")
    done = sweep(*own, "model.path=black-forest-labs/FLUX.2-klein-4B", "hydra.run.dir=out")
    assert done.code == 0, done.err
    plan = json.loads((tmp_path / "out" / "plan.json").read_text())
    assert plan["cells"][0]["config"]["model"]["path"] == str(snapshot)
    assert plan["cells"][0]["config"]["workload"]["steps"] == 4
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["own"]["flux2_klein"] == {"steps": {"4": "model"}, "guidance_scale": {"1": "model"}}
