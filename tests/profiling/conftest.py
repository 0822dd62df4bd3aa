"""Tiny pipelines, loaded once a module, the place that the plugin writes to, and doubles of drivers."""

import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_pipelines import load


@pytest.fixture(scope="module")
def glm() -> Iterator[Any]:
    """Tiny GLM-Image: AR, DiT, VAE."""
    return load("tiny_glm_image_random")


@pytest.fixture(scope="module")
def qwen() -> Iterator[Any]:
    """Tiny Qwen-Image: text encoder, DiT, VAE."""
    return load("tiny_qwen_image")


@pytest.fixture
def here(tmp_path: Path) -> Any:
    """A plugin's place; needs torch, as its double is among those of modules."""
    from omni_doubles import Here

    return Here(tmp_path)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put doubles in the place of the drivers' packages; None: not installed."""

    def put(pynvml: types.ModuleType | None = None, amdsmi: types.ModuleType | None = None) -> None:
        monkeypatch.setitem(sys.modules, "pynvml", pynvml)
        monkeypatch.setitem(sys.modules, "amdsmi", amdsmi)

    return put
