"""Bad input explained in one line: what was asked, what is wrong, what to do.

Knows the exceptions of Hydra, OmegaConf and our own ConfigError; anything else is a bug, not bad input.
"""

import re
import traceback

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from sweep.config import CONF, ConfigError, field_names, nearest


def explain(error: BaseException) -> str | None:
    """One line for the user, or None when `error` is not the user's mistake."""
    from hydra.errors import MissingConfigException, OverrideParseException

    if isinstance(error, ConfigError):
        return str(error)
    if isinstance(error, MissingConfigException):
        return _missing_choice(error)
    if isinstance(error, OverrideParseException):
        return f"'{error.override}' is not a valid override; write key=value, {_quoting(str(error.override))}"
    if isinstance(error, HydraException | OmegaConfBaseException):
        return _composition(error)
    if _inside_hydra(error):
        return _uncomposable(error)
    if isinstance(error, OSError) and not _went_through_us(error):
        # Hydra makes the run's folder before it calls us.
        why = f"cannot be written ({error.strerror})"
        return f"output folder {error.filename} {why}; choose another with hydra.run.dir=DIR"
    return None


def _went_through_us(error: BaseException) -> bool:
    """Whether our own code, beyond the entry point, was running when `error` was raised."""
    frames = traceback.walk_tb(error.__traceback__)
    names = [str(frame.f_globals.get("__name__")) for frame, _ in frames]
    return any(name.startswith("sweep.") and name not in ("sweep.cli", "sweep.__main__") for name in names)


def _inside_hydra(error: BaseException) -> bool:
    """Whether Hydra or OmegaConf raised it while composing, which an odd override makes them do in many ways."""
    if isinstance(error, OSError) or _went_through_us(error):
        return False
    *_, (last, _) = traceback.walk_tb(error.__traceback__)
    return str(last.f_globals.get("__name__")).partition(".")[0] in ("hydra", "omegaconf", "antlr4")


def _uncomposable(error: BaseException) -> str:
    """What Hydra was doing is only in its frames: the override that it was about to apply."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        override = frame.f_locals.get("override")
        line = getattr(override, "input_line", None)
        parent = str(line).partition("=")[0].lstrip("+~").rpartition(".")[0]
        if line and parent and "NoneType" in str(error):
            return f"{line}: {parent} is empty (null) here, so nothing in it can be set"
        if line:
            return f"{line}: cannot be applied ({_first_line(str(error))})"
    return f"the configuration cannot be composed ({_first_line(str(error))}); check the overrides"


HYDRAS = ("hydra.sweep.dir", "hydra.run.dir", "hydra.launcher.n_jobs")
"""Hydra's fields that our documentation names."""

TEXTS = ("workload.prompt", "workload.negative_prompt")
"""Fields that hold sentences: a comma, a quote or a letter beyond ASCII needs quotes of Hydra's own."""


def _quoting(override: str) -> str:
    """How to write a value that Hydra's grammar would take apart."""
    key, equals, value = override.partition("=")
    inner = value.strip("\"'")
    plain = key.lstrip("+")
    if plain in TEXTS and equals and not {'"', "'", "\\"} & set(inner) and len(inner) <= 80 and "\n" not in inner:
        return f"""and quote a text twice: '{plain}="{inner}"'"""
    if plain in TEXTS:
        return f"""and quote a text twice: '{plain}="…"', with \\" for a quote inside; or use workload.prompts=FILE"""
    return f"""and quote what has spaces or special characters twice: '{plain if equals else "key"}="…"'"""


def _missing_choice(error: Exception) -> str:
    path = str(getattr(error, "missing_cfg_file", "") or "")
    group, _, choice = path.removeprefix("/").rpartition("/")
    if not group:
        return _first_line(str(error))
    options = sorted(file.stem for file in (CONF / group).glob("*.yaml")) or list(getattr(error, "options", None) or [])
    hint = nearest(choice, options)
    return f"unknown {group} '{choice}'{hint}" + (f" (choose from {', '.join(options)})" if options else "")


def _composition(error: BaseException) -> str:
    text = str(error)
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    key = re.search(r"(?:override|append to|delete) (?:config(?: value)? )?'?([\w./]+)'?", text)
    full_key = getattr(cause, "full_key", None) or (key.group(1) if key else "")
    if str(full_key) == "hydra.launcher.n_jobs":
        return f"{full_key} is a field of another launcher; choose hydra/launcher=joblib first"
    if str(full_key).startswith("engine.args."):
        return f"{full_key} is not there yet; add it with +{full_key}=…"
    if "not in struct" in str(cause) or "is not in struct" in text or "not in '" in str(cause):
        return f"unknown field '{full_key}'{nearest(str(full_key), _fields() + _siblings(cause, str(full_key)))}"
    if present := re.match(r"Could not append to config\. An item is already at '(.*)'", text):
        return f"+{present[1]}: the field is already there; drop the + to set it"
    if text.startswith("Ambiguous value"):
        line = re.search(r"argument '(.*?)'\n", text, re.DOTALL)
        override = line.group(1) if line else ""
        if override.partition("=")[0].lstrip("+") in TEXTS:
            return f"{override} reads as several values; {_quoting(override).removeprefix('and ')}, or add -m to sweep"
        return f"{_first_line(text)}; add -m to sweep over several values"
    if "Could not find" in text and "override" in text.lower():
        group = re.search(r"'([\w/]+)'", text)
        name = group.group(1) if group else full_key
        return f"unknown field or group '{name}'{nearest(str(name), _fields())}"
    first = _first_line(str(cause))
    return f"{full_key}: {first}" if full_key and str(full_key) not in first else first


def _siblings(cause: BaseException, full_key: str) -> list[str]:
    """Fields next to the unknown one, such as the options of one feature."""
    parent = getattr(cause, "parent_node", None)
    prefix = full_key.rpartition(".")[0]
    return [f"{prefix}.{key}" for key in parent] if parent is not None and prefix else []


def _fields() -> list[str]:
    """Every field that an override can name, with its group."""
    return [*HYDRAS, *field_names()]


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "unknown error")
