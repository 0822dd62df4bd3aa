"""The machine, versions and times of a sweep's manifest in words and units. Plain values in, text out."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sweep.report.words import digits

ELSEWHERE = ("cells", "command", "start", "shapes")
"""Keys that the page shows elsewhere, or not at all."""

PACKAGES = {
    "python": "Python",
    "torch": "PyTorch",
    "diffusers": "Diffusers",
    "transformers": "Transformers",
    "cache-dit": "Cache-DiT",
    "vllm": "vLLM",
    "vllm-omni": "vLLM-Omni",
    "hydra-core": "Hydra",
    "nvtx": "NVTX",
}
EXITS = {0: "no cell failed", 1: "some cells are FAIL or ERROR", 130: "interrupted"}
LAYERS = {"dit": "DiT", "text": "text", "ar": "AR", "vision": "vision"}


def described(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Facts by name, in reading order; "" for those that say nothing. Other keys follow with their values as text."""
    found = {name: _said(manifest.get(key), say) for key, (name, say) in _KNOWN.items()}
    found["duration"] = _took(manifest)
    found["engine starts"] = _starts(manifest)
    others = [key for key in manifest if key not in (*_KNOWN, *ELSEWHERE, *_TOGETHER)]
    return found | {key.replace("_", " "): words(manifest[key]) for key in others}


def words(value: Any) -> str:
    """Any value on one line: `python 3.12.1, torch 2.13.0`."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {words(inner)}" for key, inner in value.items() if inner not in (None, "", [], {}))
    if isinstance(value, (list, tuple)):
        return ", ".join(words(item) for item in value)
    return "" if value is None else str(value)


def _said(value: Any, say: Callable[[Any], str]) -> str:
    """A fact in its own words; as plain text where it does not have the usual shape."""
    try:
        return say(value)
    except (AttributeError, KeyError, TypeError, ValueError):
        return words(value)


def _machine(machine: Mapping[str, Any] | None) -> str:
    if not machine:
        return ""
    names: Sequence[str] = machine.get("gpus") or ()
    gpus = [f"{names.count(name)} × {name}" for name in dict.fromkeys(names)]
    known = {"system", "cpu", "cpu_cores", "memory_gb", "gpus", "driver"}
    parts = [
        *gpus,
        "no GPU" if "gpus" in machine and not gpus else "",
        f"driver {machine['driver']}" if machine.get("driver") else "",
        words(machine.get("cpu")),
        _count(machine.get("cpu_cores"), "CPU core"),
        f"{digits(machine['memory_gb'], 'GB')} of memory" if machine.get("memory_gb") else "",
        words(machine.get("system")),
        words({key: value for key, value in machine.items() if key not in known}),
    ]
    return ", ".join(filter(None, parts))


def _versions(versions: Mapping[str, Any] | None) -> str:
    return ", ".join(f"{PACKAGES.get(name, name)} {version}" for name, version in (versions or {}).items() if version)


def _weights(marks: Mapping[str, Mapping[str, Any]] | None) -> str:
    """`qwen_image: 20 DiT, 4 text and 1 vision layers; transformer 6.84 B parameters`: shapes of random weights."""
    found = []
    for model, mark in (marks or {}).items():
        layers = [f"{count} {LAYERS.get(part, part)}" for part, count in mark.get("layers", {}).items()]
        sizes = [f"{name} {_billions(count)}" for name, count in mark.get("parameters", {}).items()]
        parts = (
            f"layers: {', '.join(layers)}" if layers else "",
            f"parameters: {', '.join(sizes)}" if sizes else "",
            f"seed {mark['seed']}" if "seed" in mark else "",
        )
        found.append(f"{model} ({'; '.join(filter(None, parts))})")
    return ", ".join(found)


def _billions(count: float) -> str:
    scale, unit = next((s, u) for s, u in ((1e9, "B"), (1e6, "M"), (1, "")) if count >= s or s == 1)
    return digits(count / scale, unit)


def _took(manifest: Mapping[str, Any]) -> str:
    seconds = manifest.get("duration_s")
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = (f"{hours} h" if hours else "", f"{minutes} min" if minutes else "", f"{rest} s" if not hours else "")
    end = moment(manifest.get("end"))
    return " ".join(filter(None, parts)) + (f", until {end}" if end else "")


def _starts(manifest: Mapping[str, Any]) -> str:
    """Engine starts of the last run, and of all runs in this folder if there were several."""
    last, whole = manifest.get("engine_starts"), manifest.get("engine_starts_all_runs")
    if last is None:
        return ""
    return str(last) if whole in (None, last) else f"{last}; {whole} with earlier runs in the same folder"


def _exit(code: int | None) -> str:
    return "" if code is None else f"{code}{f' ({EXITS[code]})' if code in EXITS else ''}"


def moment(value: Any) -> str:
    """`2026-11-21 20:41:17 UTC` of an ISO 8601 time in UTC; other times unchanged."""
    said = words(value)
    return said.removesuffix("+00:00").replace("T", " ") + " UTC" if said.endswith("+00:00") else said


def _count(count: Any, noun: str) -> str:
    return "" if not count else f"{count} {noun}{'' if count == 1 else 's'}"


def _own(models: Any) -> str:
    """`z_image: steps 8 (model), guidance scale 1 (model)`: for models with their own values, whose was used."""
    if not isinstance(models, Mapping):
        return ""
    return "; ".join(f"{model}: {', '.join(_whose(fields))}" for model, fields in models.items() if _whose(fields))


def _whose(fields: Any) -> list[str]:
    named = fields.items() if isinstance(fields, Mapping) else ()
    return [
        f"{name.replace('_', ' ')} {' and '.join(f'{value} ({words(whose)})' for value, whose in values.items())}"
        for name, values in named
        if isinstance(values, Mapping)
    ]


_KNOWN: Mapping[str, tuple[str, Callable[[Any], str]]] = {
    "machine": ("machine", _machine),
    "versions": ("versions", _versions),
    "random_weights": ("random weights", _weights),
    "own": ("steps and guidance", _own),
    "metadata": ("metadata", words),
    "git_commit": ("commit of sweep", words),
    "first_start": ("first start", moment),
    "exit_code": ("exit code", _exit),
}
_TOGETHER = ("duration_s", "end", "engine_starts", "engine_starts_all_runs")
