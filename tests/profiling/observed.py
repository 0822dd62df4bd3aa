"""Runners under observation: a request on a hooked one, and what was recorded of it."""

from collections import Counter
from typing import Any

from omni_doubles import BLOCKS, Batch, Here, Runner, lines

from profiling.vllm_plugin.diffusion import hook_runner
from profiling.vllm_plugin.record_files import DitRecord

ALL = BLOCKS + 1
"""Blocks that a full forward runs."""


def load(here: Here, pipeline: Any = None, **settings: Any) -> Any:
    """A runner of a hooked class that has loaded `pipeline`."""
    cls: Any = type("DiffusionModelRunner", (Runner,), {})
    names = hook_runner(cls, here)
    assert names == ["DiffusionModelRunner.load_model", "DiffusionModelRunner.execute_stepwise"]
    assert hook_runner(cls, here) == names  # once more changes nothing
    runner = cls(pipeline)
    for name, value in settings.items():
        setattr(runner, name, value)
    runner.load_model()
    return runner


def run(here: Here, pipeline: Any = None, batch: Batch | None = None, **settings: Any) -> DitRecord:
    """The only record of one request."""
    load(here, pipeline, **settings).execute_model(batch or Batch())
    (record,) = lines(here.folder)
    assert here.reports == []
    return record


def count(record: DitRecord) -> Counter[str]:
    """How often each phase was recorded."""
    return Counter(phase for phase, *_ in record.phases)
