"""Tiny pipelines, loaded once a module."""

from collections.abc import Iterator
from typing import Any

import pytest
from tiny_pipelines import load


@pytest.fixture(scope="module")
def glm() -> Iterator[Any]:
    """Tiny GLM-Image: AR, DiT, VAE."""
    return load("tiny_glm_image")


@pytest.fixture(scope="module")
def qwen() -> Iterator[Any]:
    """Tiny Qwen-Image: text encoder, DiT, VAE."""
    return load("tiny_qwen_image")
