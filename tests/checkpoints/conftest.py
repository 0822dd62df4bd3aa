"""Tiny checkpoints, each built once for all tests of this folder."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from sweep.checkpoints.build import build
from sweep.checkpoints.recipe import FAMILIES, resolve

MODELS = tuple(name for name, family in FAMILIES.items() if family.in_diffusers)


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    """Tiny models run fastest on one thread, especially next to other busy processes."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of the tiny checkpoint of a model."""
    root = tmp_path_factory.mktemp("checkpoints")

    @cache
    def folder(model: str) -> Path:
        assert build(resolve(model, {}, tiny=True), root / model, say=lambda line: None, device="cpu")
        return root / model

    return folder
