"""Requests and specs of the embedded engine, small enough for any machine."""

import multiprocessing
import multiprocessing.context
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from sweep.engines.process import forkserver, host
from sweep.engines.protocol import EngineSpec, Output, Request
from tests import fork_server

if TYPE_CHECKING:
    from sweep.engines.diffusers.engine import DiffusersEngine

MODELS = ("tiny_glm_image_random", "tiny_qwen_image")


def make_spec(model: str, ranks: int = 1, **features: dict[str, object]) -> EngineSpec:
    """The spec of an embedded model on a CPU."""
    return EngineSpec(
        engine="diffusers",
        family=model.removeprefix("tiny_").removesuffix("_random"),
        model=model,
        checkpoint="",
        embedded=True,
        device="cpu",
        dtype="float32",
        ranks=ranks,
        threads_per_rank=1,
        features=features,
        collective_timeout_s=60.0,
    )


def make_request(prompt: str = "a red fox", prompt_index: int = 0, seed: int = 1, **settings: object) -> Request:
    """A 64x64 image in 8 steps with guidance, unless set otherwise."""
    defaults: dict[str, object] = {
        "height": 64,
        "width": 64,
        "steps": 8,
        "guidance_scale": 4.0,
        "negative_prompt": " ",
    }
    return Request(
        request_id=f"request-{prompt_index}-{seed}",
        prompt=prompt,
        prompt_index=prompt_index,
        seed=seed,
        **(defaults | settings),  # type: ignore[arg-type]
    )


def pixels(output: Output, folder: Path) -> np.ndarray:
    """Images of `output` as float64 in [0, 1]: (image, height, width, channel)."""
    return np.stack([np.asarray(Image.open(folder / path), dtype=np.float64) / 255 for path in output.image_paths])


def processes() -> multiprocessing.context.BaseContext:
    """Forks from one server for all tests, as ranks of a sweep are forked from the sweep's; spawns where none can."""
    if not host.forks(make_spec(MODELS[0])):
        return multiprocessing.get_context("spawn")
    fork_server.shared()
    return forkserver.CONTEXT


def answers(count: int, target: Callable[..., None], *arguments: object) -> list[Any]:
    """What `target(pipe, *arguments)` sends from each of `count` processes at once."""
    context, pipes = processes(), []
    for _ in range(count):
        ours, theirs = context.Pipe()
        context.Process(target=target, args=(theirs, *arguments)).start()  # type: ignore[attr-defined]
        theirs.close()
        pipes.append(ours)
    return [pipe.recv() for pipe in pipes]


@contextmanager
def open_engine(model: str, ranks: int = 1, **features: dict[str, object]) -> Iterator["DiffusersEngine"]:
    """A loaded engine, closed at the end."""
    from sweep.engines.diffusers.engine import DiffusersEngine

    engine = DiffusersEngine(make_spec(model, ranks, **features))
    try:
        contexts = multiprocessing.context._concrete_contexts  # type: ignore[attr-defined]
        with mock.patch.dict(contexts, spawn=processes()) if ranks > 1 else nullcontext():
            engine.load()
        yield engine
    finally:
        engine.close()


@pytest.fixture(scope="session")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Output, np.ndarray]]:
    """Generate with no feature on one rank; remembered, since many tests compare against the same image."""
    known: dict[tuple[str, tuple[Request, ...]], tuple[Output, np.ndarray]] = {}

    def generate(model: str, *requests: Request) -> tuple[Output, np.ndarray]:
        if (model, requests) not in known:
            folder = tmp_path_factory.mktemp("baseline")
            with open_engine(model) as engine:
                output = engine.generate(requests, folder)
            known[model, requests] = output, pixels(output, folder)
        return known[model, requests]

    return generate


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """An input image for edits, of another size than the output."""
    path = tmp_path / "input.png"
    noise = np.random.default_rng(0).integers(0, 256, (50, 80, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path
