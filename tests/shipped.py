"""The shipped features as the engine vllm_omni sees them, and cells composed from them."""

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from sweep.config.feature import Feature
from sweep.config.run import CONF, RunConfig, register
from sweep.machine.devices import Devices
from sweep.plan import features as feature_rules
from sweep.plan.building import build_cell
from sweep.plan.cells import Cell

NAMES = tuple(sorted(file.stem for file in (CONF / "feature").glob("*.yaml")))
FAMILIES = frozenset(OmegaConf.load(file).family for file in (CONF / "model").glob("*.yaml"))


@pytest.fixture(scope="module", autouse=True)
def composing():
    """Hydra, ready to compose; import it into a test module."""
    register()
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
) -> Cell:
    """The cell of these features; `changes` are dotted keys with __ for the dots."""
    cfg = composed(*composition).copy()
    OmegaConf.set_struct(cfg, False)
    for key, value in changes.items():
        OmegaConf.update(cfg, key.replace("__", "."), value)
    for name in set(NAMES) - set(names):
        del cfg.feature[name]
    devices = Devices("cuda", gpus)
    return build_cell(cfg, lambda run: devices, lambda run: "prompts", lambda run, found: None)


def supported(name: str) -> set[str]:
    """Families that the feature's file allows on vLLM-Omni."""
    return set(feature(name).families.get("vllm_omni", FAMILIES))
