"""Our plugin for vLLM-Omni: `install` is its entry point, called in every process that vLLM-Omni starts.

Does nothing unless SWEEP_PLUGIN_DIR names a folder. Otherwise it hooks modules that are already imported at once, and
others as soon as they are imported: diffusion workers, AR workers and the orchestrator each import only their own part.
vLLM-Omni swallows exceptions of plugins, so each process writes a file that says that the hooks are installed, or why
not.
"""

import importlib.abc
import importlib.machinery
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from profiling.atomic_write import write_atomic
from profiling.vllm_plugin.record_files import FOLDER_VARIABLE, Place

Hook = Callable[[Any, Place], list[str]]
"""Wraps methods of a class; returns their names."""


def _diffusion(cls: Any, place: Place) -> list[str]:
    from profiling.vllm_plugin.diffusion import hook_runner

    return hook_runner(cls, place)


def _autoregressive(cls: Any, place: Place) -> list[str]:
    from profiling.vllm_plugin.autoregressive import hook_runner

    return hook_runner(cls, place)


def _orchestrator(cls: Any, place: Place) -> list[str]:
    from profiling.vllm_plugin.transfer import hook_orchestrator

    return hook_orchestrator(cls, place)


def _sender(cls: Any, place: Place) -> list[str]:
    from profiling.vllm_plugin.transfer import hook_sender

    return hook_sender(cls, place)


def _kv_manager(cls: Any, place: Place) -> list[str]:
    from profiling.vllm_plugin.kv_transfer import hook_manager

    return hook_manager(cls, place)


def _client(cls: Any, place: Place) -> list[str]:
    from profiling.vllm_plugin.request_names import hook_client

    return hook_client(cls)


HOOKS: dict[str, tuple[str, Hook]] = {
    "vllm_omni.diffusion.worker.diffusion_model_runner": ("DiffusionModelRunner", _diffusion),
    "vllm_omni.worker.gpu_ar_model_runner": ("GPUARModelRunner", _autoregressive),
    "vllm_omni.worker_v2.omni_ar_model_runner": ("OmniARModelRunner", _autoregressive),  # from 0.30 on, on request
    "vllm_omni.engine.orchestrator": ("Orchestrator", _orchestrator),
    "vllm_omni.diffusion.stage_diffusion_client": ("StageDiffusionClient", _sender),
    "vllm_omni.distributed.omni_connectors.kv_transfer_manager": ("OmniKVTransferManager", _kv_manager),
    "vllm_omni.entrypoints.async_omni": ("AsyncOmni", _client),
}
"""By module: the class and what hooks it."""


@dataclass
class State:
    """The plugin in one process."""

    pid: int
    folder: Path
    hooks: list[str] = field(default_factory=list)

    def mark(self) -> None:
        """Write a file that says that the plugin is installed."""
        marker = {"pid": self.pid, "hooks": self.hooks}
        write_atomic(self.folder / f"installed-{self.pid}.json", json.dumps(marker))

    def report(self) -> None:
        """Write the current exception to a file; only the first time, because it may be raised at every step."""
        path = self.folder / f"failed-{os.getpid()}.txt"
        if not path.exists():
            write_atomic(path, traceback.format_exc())


_state: State | None = None


def install() -> None:
    """Hook this process. Cheap when repeated; after a fork it marks the new process. Never raises."""
    global _state
    name = os.environ.get(FOLDER_VARIABLE)
    if not name or (_state is not None and _state.pid == os.getpid() and _state.folder == Path(name)):
        return
    state = State(os.getpid(), Path(name))
    try:
        state.folder.mkdir(parents=True, exist_ok=True)
        _state = state
        for module in HOOKS:
            if module in sys.modules:
                _hook(sys.modules[module])
        if not any(isinstance(finder, Finder) for finder in sys.meta_path):
            sys.meta_path.insert(0, Finder())
        state.mark()
    except Exception:
        state.report()


def _hook(module: ModuleType) -> None:
    """Hook the class of a module that is imported."""
    state = _state
    if state is None:
        return
    try:
        cls, hook = HOOKS[module.__name__]
        state.hooks += [name for name in hook(getattr(module, cls), Here()) if name not in state.hooks]
    except Exception:
        state.report()


class Here:
    """The place of the current process; a forked process is marked at its first use."""

    @property
    def folder(self) -> Path:
        """Where this process writes."""
        install()
        assert _state is not None
        return _state.folder

    def report(self) -> None:
        """Write the current exception to a file."""
        if _state is not None:
            _state.report()


class Finder(importlib.abc.MetaPathFinder):
    """Hooks the modules in HOOKS as soon as they are imported; leaves all others alone."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The usual spec of the module, with our hook after its execution."""
        if fullname not in HOOKS or _state is None:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            _hook(module)
            if _state is not None:
                _state.mark()

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
