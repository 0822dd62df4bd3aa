"""One composed configuration as a cell: what this machine has, and whether the cell can run here.

Effects here: looks at the machine's devices, reads the prompts, images and checkpoints that a configuration names.
"""

import dataclasses
import functools
import importlib.util
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from profiling.printing import complain
from sweep.config.hardware import Hardware
from sweep.config.run import INSTALLED, RunConfig
from sweep.config.values import at_home
from sweep.config.workload import Workload
from sweep.engines import lora_files, registry
from sweep.engines.checkpoint_files import fingerprint
from sweep.engines.process.nsys_session import RecordingError, usable
from sweep.findings import SKIP, Finding
from sweep.machine import hub_cache
from sweep.machine.devices import Devices, device_names, discover, is_called
from sweep.plan import features as feature_rules
from sweep.plan.building import build_cell
from sweep.plan.cells import Cell
from sweep.plan.edit_rules import check_edits
from sweep.plan.rules import OFFLINE
from sweep.refusals import require
from sweep.workload.inputs import Inputs, read_inputs, with_instructions

OCR = ("rapidocr", "onnxruntime")
"""Packages that ocr=true needs."""

SERVING = ("fastapi", "uvicorn", "python_multipart", "aiohttp", "uvloop")
"""Packages that a load needs: of the server, and of the load generator."""


def cell_from(
    cfg: DictConfig, overrides: Sequence[str] = (), suffix: str = "", read: Callable[[Workload], Inputs] = read_inputs
) -> Cell:
    """One composed configuration as a Cell. `read` reads the files that its workload names. Raises ConfigError."""
    _from_hub(cfg)
    _at_home(cfg)
    there: list[Inputs] = []
    found: list[Inputs] = []

    def prompts(workload: Workload) -> int:
        there.append(read(workload))
        return workload.number_of(there[0].number)

    def content(run: RunConfig) -> str:
        found.append(with_instructions(there[0] if there else read(run.workload), run.load.mix))
        return found[0].content

    def runnable(run: RunConfig, devices: Devices) -> Finding | None:
        return check_edits(run, found[0]) or _runnable(run, devices)

    checks = {"of_features": _of_features, "files": _files}
    cell = build_cell(cfg, _devices, content, runnable, overrides, suffix, prompts=prompts, **checks)
    if cell.profile and not cell.skip and (warning := check_profiler(cell.run_config)):
        _warn(warning)
    if cell.device == "cuda" and (warning := other_gpus(cell.run_config.hardware)):
        _warn(warning)
    return dataclasses.replace(cell, inputs=found[0])


def other_gpus(hardware: Hardware) -> str:
    """One line where this machine's GPUs are not those of the chosen hardware, whose price sets the cost; else ""."""
    if not hardware.match:
        return ""
    others = [name for name in dict.fromkeys(device_names()) if not is_called(name, hardware.match)]
    if not others:
        return ""
    cost = ", so cost_per_image takes another GPU's price" if hardware.price_per_gpu_hour is not None else ""
    meant = " and ".join(hardware.match)
    return f"hardware={hardware.name} is for {meant}, and this machine has {', '.join(others)}{cost}"


def _from_hub(cfg: DictConfig) -> None:
    """Replace Hub ids by folders. An embedded model has no checkpoint, which a later check reports."""
    for field, embedded in (("model.path", OmegaConf.select(cfg, "model.embedded")), ("clip", False)):
        asked = OmegaConf.select(cfg, field)
        if isinstance(asked, str) and not embedded:
            OmegaConf.update(cfg, field, hub_cache.folder_of(asked, field))


def _at_home(cfg: DictConfig) -> None:
    """Expand `~` in the paths that features name, which shells do not expand after a `=`."""
    for name in OmegaConf.select(cfg, "feature") or ():
        if isinstance(path := OmegaConf.select(cfg, f"feature.{name}.path"), str):
            OmegaConf.update(cfg, f"feature.{name}.path", at_home(path))


def _devices(config: RunConfig) -> Devices:
    return discover(config.engine, config.model, config.hardware)


def _files(config: RunConfig) -> dict[str, str]:
    """Fingerprints of what the engine gets by path: the checkpoint, and files (no folders) in its options."""
    given = [] if config.model.embedded or config.model.path is None else [config.model.path]
    given += [value for value in config.engine.args.values() if _is_file(value)]
    return {path: found for path in given if (found := _fingerprint(path))}


def _of_features(config: RunConfig) -> dict[str, str]:
    """Fingerprints of the files and folders that features name in an option called `path`, by feature."""
    paths = {name: body.get("path") for name, body in config.feature.items()}
    return {name: _fingerprint(path) for name, path in paths.items() if isinstance(path, str)}


def _is_file(value: object) -> bool:
    try:
        return isinstance(value, str) and Path(value).is_file()
    except OSError:  # too long for a path
        return False


@functools.cache
def _fingerprint(path: str) -> str:
    """Computed once for all cells, which must not differ because a file changed while they were planned."""
    return fingerprint(Path(path))


def _runnable(config: RunConfig, devices: Devices) -> Finding | None:
    """Why this machine or engine cannot run the model; None when it can. Raises ConfigError for a bad path."""
    model, name = config.model, config.engine.name
    kind = registry.kind(name)
    if config.load.name != OFFLINE:
        require_serving(f"load={config.load.name}")
    if kind.attaches:
        return kind.preflight(config, feature_rules.parse_features(config.feature, name)).skip
    if not kind.generates:
        return None
    if missing := kind.lacks(config) or registry.long_prompt(config):
        return missing
    if model.path is not None:
        require(Path(model.path).is_dir(), f"model.path={model.path}: no such folder")
    _check_adapter(config)
    if not model.embedded and devices.kind == "cuda" and devices.count == 0:
        size = f" with about {model.memory_gb:.0f} GB for its weights" if model.path is None else ""
        other = "; engine.device=cpu runs it slowly" if kind.on_cpu else ""
        return Finding("no_gpu", f"{model.name} needs a CUDA GPU{size}, but none was found{other}", SKIP)
    absent = _absent(kind.packages)
    require(not absent, f"engine {name} needs {', '.join(absent)}; run {how_to_install(name, INSTALLED)}")
    require(
        config.clip is None or (Path(config.clip) / "config.json").is_file(),
        f"clip={config.clip}: not a CLIP checkpoint (a folder with config.json); this tool downloads none",
    )
    unread = _absent(OCR) if config.ocr else []
    require(not unread, f"ocr=true needs {' and '.join(unread)}; run {how_to_install('ocr', INSTALLED)}")
    if model.embedded and not kind.embedded:
        why = f"engine {name} cannot run the embedded {model.name}; build a checkpoint with python -m sweep.checkpoints"
        return Finding("embedded_model", why, SKIP)
    if kind.families is not None and model.family not in kind.families:
        return registry.no_adapter(name, config)
    require(
        model.embedded or model.path is not None,
        f"this tool does not download {model.name}; write model.path={model.repo} if it is in the Hub cache "
        f"(hf download {model.repo}), or give a checkpoint's folder with model.path=DIR",
    )
    require(
        model.embedded or any((Path(str(model.path)) / file).is_file() for file in kind.index),
        f"model.path={model.path}: not a checkpoint (a folder with {' or '.join(kind.index)})",
    )
    found = kind.preflight(config, feature_rules.parse_features(config.feature, name))
    for warning in found.warnings:
        _warn(warning)
    return found.skip


def _check_adapter(config: RunConfig) -> None:
    """Check a LoRA adapter against the model. Raises ConfigError."""
    if "lora" in config.feature:
        model = config.model
        adapter = lora_files.check(config.feature["lora"], Path(model.path) if model.path else None)
        if warning := lora_files.other_base(adapter, model):
            _warn(warning)


def require_serving(what: str) -> None:
    """Check that the packages of a load are installed. Raises ConfigError."""
    absent = _absent(SERVING)
    require(not absent, f"{what} needs {', '.join(absent)}; run {how_to_install('serve', INSTALLED)}")


def _absent(packages: Sequence[str]) -> list[str]:
    return [package for package in packages if importlib.util.find_spec(package) is None]


def how_to_install(engine: str, installed: bool) -> str:
    """The command that adds what an engine or another extra needs, to an installed package or in a checkout."""
    extra = engine.replace("_", "-")
    return f"pip install 'gen-sweep[{extra}]'" if installed else f"pip install -e '.[{extra}]' in the checkout"


@functools.cache
def _warn(text: str) -> None:
    """Print it once, however many cells it applies to."""
    complain(f"sweep: {text}")


def check_profiler(run: RunConfig) -> str:
    """Check that what `profile` needs is installed. Returns a warning or "". Raises ConfigError."""
    if run.profile != "nsys":
        return ""
    require(
        not os.environ.get("NVTX_INJECTION64_PATH"),
        "profile=nsys starts nsys itself; drop it, or start the sweep outside the profiling tool",
    )
    try:
        return usable()[1]
    except (RecordingError, OSError) as error:
        require(False, f"profile=nsys: {error}; for details, run python -m profiling doctor")
        raise  # never reached
